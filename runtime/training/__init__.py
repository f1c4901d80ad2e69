"""In-situ training."""
