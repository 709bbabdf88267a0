"""ONNX Runtime, as the server will run it."""
