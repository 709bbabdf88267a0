"""Triton's load rules, checked without a server."""
