"""Errors of this backend; each message says what was expected, what was found and what to do.

LoadError (ValueError)            the model cannot be loaded
RequestError                      one request cannot be answered; ``code`` names the status of Triton that says so
"""


class LoadError(ValueError):
    """The model cannot be loaded."""


class RequestError(Exception):
    """One request cannot be answered."""

    def __init__(self, message: str, code: str = "INTERNAL") -> None:
        super().__init__(message)
        self.code = code


def mismatch(subject: str, *, expected: object, found: object, advice: str) -> str:
    """The one form of message: what it is about, what was expected, what was found, what to do."""
    return f"{subject}: expected {expected}, found {found}; {advice}"
