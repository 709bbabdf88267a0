"""Which server gets a call, when it is sent again, and when not: decided in plain functions, without waiting."""
