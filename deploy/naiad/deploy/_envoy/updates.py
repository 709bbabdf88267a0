"""Replaces files that Envoy watches, and waits until it has taken them.

Envoy says nothing about a file as such: it counts, for each subscription, what it refused, and tells a number for the
version in force. Each file therefore carries a version of its own, the hash of its text.
"""

import hashlib
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from naiad.deploy._envoy import log
from naiad.deploy._envoy.admin import Admin, AdminUnreachable
from naiad.deploy._files import write_all
from naiad.deploy.errors import GatewayError

_POLL_S: Final = 0.02
_TIMEOUT_S: Final = 10.0
_COUNTED: Final = r"\.(version|update_rejected|update_failure|config_fail)$|warming"
LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Reads the same as SafeLoader, ten times as fast where libyaml is there."""
_SUBSCRIPTIONS: Final = {
    "Listener": r"^listener_manager\.lds",
    "Cluster": r"^cluster_manager\.cds",
    "RouteConfiguration": r"^http\..*\.rds\.{name}",
    "ClusterLoadAssignment": r"^cluster\.{name}",
    "TypedExtensionConfig": r"^extension_config_discovery\..*\.{name}",
    "Secret": r"(^|\.)sds\.{name}",
}
"""Names of the statistics of a subscription, by the kind of its resources."""


def versioned(text: str) -> str:
    """A discovery file's text with its own version."""
    return f"{text.rstrip()}\nversion_info: {hashlib.sha256(text.encode()).hexdigest()[:16]}\n"


class Updates:
    """Changes the files of one running Envoy."""

    def __init__(self, admin: Admin, directory: Path, log_path: Path) -> None:
        self._admin = admin
        self._directory = directory
        self._log_path = log_path

    def apply(self, files: Mapping[str, str]) -> None:
        """Replace these files and return when Envoy has taken all of them.

        Raises: `GatewayError` with Envoy's reasons when it refuses one; the caller puts the old ones back.
        """
        subscriptions = {name: _patterns(text) for name, text in files.items()}
        before, log_start = self._counts(), log.size(self._log_path)
        write_all(self._directory, {name: versioned(text) for name, text in files.items()})
        deadline = time.monotonic() + _TIMEOUT_S
        waiting = dict(subscriptions)
        while waiting or self._is_warming():
            now = self._counts()
            refused = [name for name, patterns in waiting.items() if _refused(patterns, before, now)]
            if refused:
                raise self._refusal(refused, log_start)
            waiting = {name: patterns for name, patterns in waiting.items() if not _taken(patterns, before, now)}
            if time.monotonic() > deadline:
                raise self._too_slow(sorted(waiting), log_start)
            time.sleep(_POLL_S if waiting else 0)

    def _counts(self) -> dict[str, int]:
        try:
            return self._admin.stats(_COUNTED)
        except AdminUnreachable:
            return {}  # it is being restarted, and reads its files then

    def _is_warming(self) -> bool:
        counts = self._counts()
        return not counts or any(value for name, value in counts.items() if "warming" in name)

    def _refusal(self, names: list[str], log_start: int) -> GatewayError:
        # The log's line follows the count.
        deadline = time.monotonic() + 1.0
        while not (reason := self._reason(log_start)) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return GatewayError(
            f"Envoy refuses {' and '.join(names)}, and what was in force before stays: {reason or 'it gives no reason'}"
        )

    def _reason(self, log_start: int) -> str:
        return re.sub(r"\s+", " ", log.essence(log.text(self._log_path, log_start))).strip()

    def _too_slow(self, names: list[str], log_start: int) -> GatewayError:
        what = " and ".join(names) or "a change"
        said = self._reason(log_start) or "nothing"
        return GatewayError(f"Expected Envoy to take {what} within {_TIMEOUT_S:g} s, it did not; its log says: {said}")


def resource_names(text: str) -> set[str]:
    """Names of the resources of a discovery file."""
    return {str(found.get("name", found.get("cluster_name"))) for found in _resources(text)}


def _resources(text: str) -> list[dict[str, Any]]:
    loaded = yaml.load(text, Loader=LOADER)  # noqa: S506 - a safe loader, the faster one
    return list((loaded or {}).get("resources") or ())


def _patterns(text: str) -> tuple[str, ...]:
    """Regular expressions for the statistics of the subscriptions that read this file."""
    found = []
    for resource in _resources(text):
        kind = str(resource.get("@type", "")).rpartition(".")[2]
        name = str(resource.get("cluster_name") or resource.get("name", ""))
        if kind in _SUBSCRIPTIONS:
            found.append(_SUBSCRIPTIONS[kind].replace("{name}", re.escape(name.replace(":", "_"))))
    return tuple(dict.fromkeys(found))


def _changed(patterns: tuple[str, ...], suffix: str, before: Mapping[str, int], now: Mapping[str, int]) -> list[bool]:
    wanted = [re.compile(rf"{pattern}\.{suffix}$") for pattern in patterns]
    return [before.get(name, 0) != value for name, value in now.items() if any(want.search(name) for want in wanted)]


def _taken(patterns: tuple[str, ...], before: Mapping[str, int], now: Mapping[str, int]) -> bool:
    # Nobody has subscribed to a file of which nothing is counted: what refers to it comes later.
    return bool(now) and all(_changed(patterns, "version", before, now))


def _refused(patterns: tuple[str, ...], before: Mapping[str, int], now: Mapping[str, int]) -> bool:
    return any(_changed(patterns, "(update_rejected|update_failure|config_fail)", before, now))
