"""The Helm chart, as this version of kiki ships it: its values, what is wrong with them, what it renders, and whether that is safe."""
