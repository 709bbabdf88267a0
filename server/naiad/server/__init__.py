"""The server room of Naiad."""
