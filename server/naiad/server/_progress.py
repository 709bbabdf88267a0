"""Shows how far a download is that another process makes."""

import contextlib
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bar

_log = logging.getLogger("naiad.server")
_QUIET_FOR_S: Final = 2.0
_REFRESH_S: Final = 0.2


class Progress:
    """A bar on a terminal once it takes longer than two seconds; elsewhere one log line."""

    def __init__(self, what: str, size_bytes: int) -> None:
        self._what = what
        self._size_bytes = size_bytes

    def follow(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        """Return when `process` ends; its progress is the size of the largest file below `folder`."""
        _log.info("%s (%.0f MB)", self._what, self._size_bytes / 1e6)
        if not sys.stderr.isatty():
            process.wait()
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_QUIET_FOR_S)
            return
        self._draw(process, folder)

    def _draw(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(self._what, total=self._size_bytes)
            while process.poll() is None:
                bar.update(task, completed=min(_largest_file(folder), self._size_bytes))
                time.sleep(_REFRESH_S)


def _largest_file(folder: Path) -> int:
    largest = 0
    # Files come and go while pip works.
    with contextlib.suppress(OSError):
        for path in folder.rglob("*"):
            largest = max(largest, path.stat().st_size)
    return largest
