"""Trained networks of public packages through every command: `python -m tests.benchmarks.networks`."""
