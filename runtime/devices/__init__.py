"""What a device does."""
