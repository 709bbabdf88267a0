"""Checks of a graph before it is run: what it was promised to take, and what its server can read."""
