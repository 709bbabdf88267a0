"""Capture: the model becomes an ONNX graph, in a fresh process."""
