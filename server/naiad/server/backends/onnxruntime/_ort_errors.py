"""Errors of this backend; each message says what was expected, what was found and what to do.

BackendError
├── LoadError (ValueError)        the model cannot be loaded
│   ├── ConfigurationError        config.pbtxt contradicts the model, or itself
│   ├── UnsupportedError          config.pbtxt asks for something that this backend does not do
│   ├── ModelFileError            the ONNX file is missing, unreadable or not servable
│   └── EnvironmentLacksError     this machine, or the stub's Python environment, lacks something
│       └── InactiveProviderError ONNX Runtime dropped a provider for want of its libraries or device
├── DeviceLostError               the GPU answers this process no more: it has to end, and another to take its place
└── InferenceError                one request cannot be answered
    ├── RequestError (ValueError) the request's own data is wrong
    ├── CancelledRequestError     the client no longer waits
    ├── RunError                  ONNX Runtime failed
    └── OutputError               the model's output contradicts config.pbtxt
"""


class BackendError(Exception):
    """Root of everything that this backend raises on purpose."""


class LoadError(BackendError, ValueError):
    """The model cannot be loaded."""


class ConfigurationError(LoadError):
    """config.pbtxt contradicts the model, or itself."""


class UnsupportedError(LoadError):
    """config.pbtxt asks for something that this backend does not do."""


class ModelFileError(LoadError):
    """The ONNX file is missing, unreadable or not servable."""


class EnvironmentLacksError(LoadError):
    """This machine, or the stub's Python environment, lacks something."""


class InactiveProviderError(EnvironmentLacksError):
    """ONNX Runtime dropped a provider for want of its libraries or device; ``provider`` is its name."""

    def __init__(self, message: str, provider: str = "") -> None:
        super().__init__(message)
        self.provider = provider


class DeviceLostError(BackendError):
    """The GPU answers this process no more: it has to end, and another to take its place."""


class InferenceError(BackendError):
    """One request cannot be answered; ``code`` names the status of Triton that says so."""

    code = "INTERNAL"


class RequestError(InferenceError, ValueError):
    """The request's own data is wrong."""

    code = "INVALID_ARG"


class CancelledRequestError(InferenceError):
    """The client no longer waits for the answer."""

    code = "CANCELLED"


class RunError(InferenceError):
    """ONNX Runtime failed while it ran the model."""


class OutputError(InferenceError):
    """The model's output contradicts config.pbtxt."""


def mismatch(subject: str, *, expected: object, found: object, advice: str) -> str:
    """The one form of message: what it is about, what was expected, what was found, what to do."""
    return f"{subject}: expected {expected}, found {found}; {advice}"
