"""Where fetched files are kept."""

import logging
import os
import stat
import tempfile
from pathlib import Path

import platformdirs

_log = logging.getLogger("naiad.server")


def cache_directory() -> Path:
    """NAIAD_CACHE_DIR, or the user's cache; a private directory under the temporary one if that cannot be written."""
    preferred = preferred_cache()
    try:
        preferred.mkdir(parents=True, exist_ok=True)
    except OSError:
        return _fallback(preferred)
    return preferred if os.access(preferred, os.W_OK | os.X_OK) else _fallback(preferred)


def preferred_cache() -> Path:
    """The cache as configured, whether or not it can be written."""
    named = os.environ.get("NAIAD_CACHE_DIR")
    return Path(named).expanduser().absolute() if named else Path(platformdirs.user_cache_dir("naiad"))


def cache_directories() -> tuple[Path, ...]:
    """Every place that `cache_directory` may have chosen, for reading."""
    return preferred_cache(), _shared_fallback()


def _shared_fallback() -> Path:
    return Path(tempfile.gettempdir()) / f"naiad-cache-{os.getuid()}"


def _fallback(preferred: Path) -> Path:
    chosen = _private(_shared_fallback())
    _log.warning("The cache %s cannot be written; using %s. NAIAD_CACHE_DIR names another.", preferred, chosen)
    return chosen


def _private(path: Path) -> Path:
    """`path` if it is this user's alone, else a new directory: another user may have prepared the name."""
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        info = path.lstat()
        if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid() or stat.S_IMODE(info.st_mode) != 0o700:
            return Path(tempfile.mkdtemp(prefix="naiad-cache-"))
    return path
