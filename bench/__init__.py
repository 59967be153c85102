"""Measurements: ratios against a floor or a rival taken in one run. Never part of the tests."""
