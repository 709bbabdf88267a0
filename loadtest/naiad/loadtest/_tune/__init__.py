"""The search for the configuration that answers the most requests within the objectives."""
