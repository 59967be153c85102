"""`python -m kiki`: the same as the command `kiki`."""

from kiki.cli.main import main

if __name__ == "__main__":
    main()
