"""The version, as artifacts and packages carry it."""

__version__ = "0.1.0"
