"""The model's configuration."""
