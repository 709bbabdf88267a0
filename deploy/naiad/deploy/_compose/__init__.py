"""A service as containers: what each one is, what it may do, and how it starts and ends."""
