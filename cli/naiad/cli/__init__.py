"""The cli room of Naiad."""
