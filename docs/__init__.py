"""The project's pages, and the script that writes those that follow from the code."""
