"""SCALE: servers that come and go with the load."""
