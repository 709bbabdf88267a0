"""Values in strings, read as NVIDIA's backends read them.

Source: `ParseIntValue`, `ParseBoolValue` and `ParseUnsignedLongLongValue` in Triton's `backend_common.cc`: a number is
read up to the first character that is none, a truth value is one of six words in any case.
"""

import re
from collections.abc import Callable

Check = Callable[[str], str]
"""Takes the text of a value and returns what was expected; empty where it fits."""

_INTEGER = re.compile(r"\s*[+-]?[0-9]+")
_INT_MAX, _UNSIGNED_MAX = 2**31 - 1, 2**64 - 1


def integer(text: str) -> str:
    """Expect a whole number of 32 bits."""
    match = _INTEGER.match(text)
    return "" if match and abs(int(match[0])) <= _INT_MAX else "a whole number"


def unsigned(text: str) -> str:
    """Expect a whole number of 64 bits."""
    match = _INTEGER.match(text)
    return "" if match and 0 <= int(match[0]) <= _UNSIGNED_MAX else "a whole number of 0 or more"


def truth(text: str) -> str:
    """Expect a truth value."""
    return "" if text.lower() in ("true", "on", "1", "false", "off", "0") else "true or false"


def provider_truth(text: str) -> str:
    """Expect a truth value that Triton and the execution provider behind it both read."""
    return "" if text in ("true", "True", "1", "false", "False", "0") else "true or false"


def anything(text: str) -> str:
    """Expect any text."""
    del text
    return ""


def one_of(*words: str) -> Check:
    """Expect one of some words."""
    return lambda text: "" if text in words else " or ".join(words)


def numbered(*numbers: int) -> Check:
    """Expect one of some numbers."""

    def check(text: str) -> str:
        match = _INTEGER.match(text)
        return "" if match and int(match[0]) in numbers else " or ".join(map(str, numbers))

    return check


def has_rest(text: str) -> bool:
    """Whether a number is followed by something that is passed over."""
    return bool(_INTEGER.match(text)) and not _INTEGER.fullmatch(text.rstrip())
