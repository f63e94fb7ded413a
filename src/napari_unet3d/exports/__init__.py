"""Models in formats that other programs run, and running what was written."""
