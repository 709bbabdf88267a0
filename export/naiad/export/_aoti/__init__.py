"""The format `model.pt2`: compiled ahead of time by PyTorch, served by Triton's `pytorch` backend since 26.05."""
