"""Pipelines: several steps, checked one by one and together, that Triton runs as one ensemble."""
