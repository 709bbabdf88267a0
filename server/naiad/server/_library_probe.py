"""Loads shared libraries, and prints where each was found, or why not, as one line of JSON.

A program of its own, with the standard library only: a library that is damaged may end the process, and one that was
loaded stays.
"""

import ctypes
import json
import sys
from pathlib import Path


def look(directories: list[str], names: list[str]) -> dict[str, dict[str, str]]:
    """Load each of names, first from directories and then as the loader finds it, in this order."""
    return {name: _loaded(directories, name) for name in names}


def _loaded(directories: list[str], name: str) -> dict[str, str]:
    here = [path for directory in directories if (path := Path(directory, name)).is_file()]
    try:
        ctypes.CDLL(str(here[0]) if here else name)
    except OSError as exc:
        return {"path": "", "error": str(exc)}
    return {"path": str(here[0]) if here else _path_of(name), "error": ""}


def _path_of(name: str) -> str:
    paths = (line.split(maxsplit=5)[-1] for line in Path("/proc/self/maps").read_text(errors="replace").splitlines())
    return next((path for path in paths if Path(path).name.startswith(name)), name)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(look(**json.load(sys.stdin))))
