"""The HTML report and the pictures."""
