"""Errors of this backend; each message says what was expected, what was found and what to do.

LoadError (ValueError)            the model cannot be loaded
RequestError                      one request cannot be answered; ``code`` names the status of Triton that says so
DeviceLost                        the GPU answers this process no more: it has to end, and another to take its place
"""


class LoadError(ValueError):
    """The model cannot be loaded."""


class RequestError(Exception):
    """One request cannot be answered."""

    def __init__(self, message: str, code: str = "INTERNAL") -> None:
        super().__init__(message)
        self.code = code


class DeviceLost(Exception):
    """The GPU answers this process no more."""


def mismatch(subject: str, *, expected: object, found: object, advice: str) -> str:
    """The one form of message: what it is about, what was expected, what was found, what to do."""
    return f"{subject}: expected {expected}, found {found}; {advice}"
