"""What all containers have in common: as little as they can run with."""

from collections.abc import Sequence
from typing import Any, Final

from naiad.deploy._compose.document import Fields

USER: Final = "${NAIAD_UID:-1000}:${NAIAD_GID:-1000}"
"""Who owns the secrets; Triton's own image has made this user for it."""
SECRETS: Final = "${NAIAD_SECRETS:-./deploy/secrets}"
_LOG_BYTES: Final = {"max-size": "50m", "max-file": "5"}


def container(image: str, *, user: str, memory: str, num_processes: int, stop_s: int, **fields: Any) -> Fields:
    """A service of a Compose file: nothing writable but what `fields` mounts, no rights, and bounds on everything."""
    return {
        "image": image,
        **fields,
        "user": user,
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "mem_limit": memory,
        "pids_limit": num_processes,
        "stop_grace_period": f"{stop_s}s",
        "restart": "unless-stopped",
        "logging": {"driver": "json-file", "options": dict(_LOG_BYTES)},
    }


def mount(source: str, target: str) -> Fields:
    """A file or directory of the host that the container may read; it must be there.

    Directories are mounted whole: a file that is replaced by a rename would not arrive in a mount of its own.
    """
    return {
        "type": "bind",
        "source": source,
        "target": target,
        "read_only": True,
        "bind": {"create_host_path": False},
    }


def volume(name: str, target: str) -> Fields:
    """A place on disk that the container may write to, and that outlives it."""
    return {"type": "volume", "source": name, "target": target}


def scratch(target: str, *, size: str, executable: bool = False) -> str:
    """A place in memory that the container may write to, and that ends with it."""
    return f"{target}:size={size},mode=1777,nosuid,nodev" + ("" if executable else ",noexec")


def health(test: Sequence[str], *, start_s: int) -> Fields:
    """A check by a program of the image; failures in the first `start_s` seconds do not count."""
    return {
        "test": ["CMD", *(argument.replace("$", "$$") for argument in test)],
        "interval": "5s",
        "timeout": "3s",
        "retries": 3,
        "start_period": f"{start_s}s",
        "start_interval": "1s",
    }


def secret_file(name: str) -> str:
    """Where a container finds a secret that was given to it."""
    return f"/run/secrets/{name}"
