"""Reads the reasons for a failure out of Triton's log and error messages."""

import re
from pathlib import Path
from typing import Final

_TAIL_BYTES: Final = 256 << 10
_ENTRY: Final = re.compile(r"^[EWI]\d{4} \d\d:\d\d:\d\d\.\d+ \d+ [\w./]+:\d+\] \"?(.*?)\"?$")
_REFUSED: Final = re.compile(r"(?:Poll failed for model directory|failed to load model) '([^']+)': (.*)")
_TEXT_FORMAT: Final = re.compile(r"Error parsing text-format \S+: (.*)")
_STUB_SAID: Final = re.compile(r"^[EWI]\d{4} .* pb_stub\.cc:\d+\] +\"?(.*?)\"?$", re.MULTILINE)
_PORT_TAKEN: Final = re.compile(r"Socket '[^']*:(\d+)' already in use")
_NO_PINNED: Final = re.compile(r"pinned memory pool will not be available: (.*?)\"?$", re.MULTILINE)
_PYTHON_PLACES: Final = re.compile(r"\n+At:\n.*", re.DOTALL)
_TRACEBACK: Final = re.compile(r"Traceback \(most recent call last\):\n(?:[ \t]+.*\n)*")
_WRAPPINGS: Final = re.compile(
    r"^(?:load failed for model '[^']*': |version \d+ is at UNAVAILABLE state: |(?:Internal|Invalid argument): "
    r"|TritonModelException: )+"
)


def tail(path: Path, num_lines: int) -> str:
    """The last lines of a log file; "" if there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-num_lines:])


def essence(log: str, num_lines: int) -> str:
    """What of a failed start's log is worth showing: the complaint before the usage, or the last lines, no tables."""
    complaint, usage, _ = log.partition("Usage: tritonserver")
    if usage and complaint.strip():
        return complaint.strip()
    lines = [line for line in log.splitlines() if line.strip() and not line.startswith(("|", "+--"))]
    return "\n".join(lines[-num_lines:])


def gpus_out_of_reach(log: str) -> str:
    """Why Triton itself cannot use the GPUs, which it takes for a machine without any; "" where it can."""
    found = _NO_PINNED.search(log)
    return found[1] if found else ""


def stub_complaints(log: str) -> list[str]:
    """What dying stubs said."""
    return [reason_in(said) for said in _STUB_SAID.findall(log)]


def reason_in(message: str) -> str:
    """The part of Triton's message that says why, without traceback and wrappings."""
    text = _TRACEBACK.sub("", _PYTHON_PLACES.sub("", message))
    text = _WRAPPINGS.sub("", text.strip())
    return " ".join(text.rstrip(";").split())


def refused_models(log: str) -> dict[str, str]:
    """For each model that Triton did not even try to load, as its configuration is wrong: why."""
    reasons: dict[str, str] = {}
    syntax = ""
    for line in log.splitlines():
        syntax = _matched(_TEXT_FORMAT, line) or syntax
        entry = _ENTRY.match(line)
        failed = _REFUSED.match(entry[1]) if entry else None
        if failed:
            reasons[failed[1]] = reason_in(failed[2]) + (f" ({syntax})" if syntax else "")
            syntax = ""
    return reasons


def port_taken(log: str) -> int | None:
    """The port that Triton found in use, if it says so."""
    found = _matched(_PORT_TAKEN, log)
    return int(found) if found else None


def _matched(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1] if found else ""
