"""An event-driven simulator of mapped networks, apart from the mapper's schedule, which it checks."""
