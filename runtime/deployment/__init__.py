"""Virtual chips."""
