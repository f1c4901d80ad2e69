"""Datasets: loaded, checked, or drawn."""
