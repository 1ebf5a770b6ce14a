"""Benchmarks: figures with a baseline from the same run, recall beside speed. `python -m tests.bench`."""
