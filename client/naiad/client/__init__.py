"""The client room of Naiad."""
