"""Running Envoy: its program, its process, its administration, and what is left of it afterwards."""
