"""The ONNX formats that Triton's ONNX Runtime reads."""

OPSETS = range(18, 24)
DEFAULT_OPSET = 20
MAX_IR_VERSION = 10
"""What ONNX Runtime 1.18 and later reads, and with it every Triton since 24.06."""
