"""The tests: python3 -m unittest."""
