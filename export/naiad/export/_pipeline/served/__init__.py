"""Files that travel to the server: the Python backend's `model.py`, and the functions that come with Naiad."""
