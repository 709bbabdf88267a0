"""The loadtest room of Naiad."""
