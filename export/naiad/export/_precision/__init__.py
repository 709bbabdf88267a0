"""Precision: candidates made from a verified graph, each verified and timed, and the fastest that passes."""
