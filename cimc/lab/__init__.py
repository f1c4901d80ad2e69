"""Devices on the bench: simulated and drawn, or fitted to measurements; a function a command."""
