"""Measurements of Headstart against other ways to do the same: `python -m benchmarks NAME --help`."""
