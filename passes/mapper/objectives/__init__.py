"""What a mapping can be for: each module here is an objective, found by its name, and holds its record `OBJECTIVE`."""
