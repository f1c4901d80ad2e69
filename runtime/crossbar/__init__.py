"""The read: what the arrays do with an input."""
