"""Placement on dies with stuck cells: the lines a network takes, and what the good cells make up for."""
