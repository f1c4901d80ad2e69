"""One function a command, in a file of its name, and what several of them need."""
