"""Scenario files: their keys, where each stands in the file, and the plan they make."""
