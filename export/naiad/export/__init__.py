"""The export room of Naiad."""
