"""A served model as an object, and all that can be done with it: one request, many rows, streams, sequences."""
