"""Loads a model again whose Python process died: Triton itself neither notices nor starts another."""

import contextlib
import itertools
import logging
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from naiad.server import _reaper
from naiad.server._admin import Admin
from naiad.server._process import Process, Stub
from naiad.server._pulse import Pulse
from naiad.server.errors import AdminRefused

_log = logging.getLogger("naiad.server")
_RESTS_S: Final = 0.5
_RETIRED_FOR_S: Final = 30.0
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Former:
    """A stub that died or was stopped, or that serves no more and has to end."""

    stub: Stub
    since: float = field(default_factory=time.monotonic)

    def older_than(self, age_s: float) -> bool:
        return time.monotonic() - self.since > age_s


class Repair:
    """Knows the stubs of one server process, notices dead ones, and loads their models again."""

    def __init__(self, process: Process, admin: Admin) -> None:
        self._process = process
        self._admin = admin
        self._alive: dict[int, Stub] = {}
        self._dead: dict[int, _Former] = {}
        self._stopped: dict[int, _Former] = {}
        self._retired: dict[int, _Former] = {}
        self._last_reload: dict[str, tuple[float, float]] = {}
        self._numbers = itertools.count(1)
        self._pulse = Pulse()

    def survey(self) -> None:
        """Take note of the stubs that there are, and end those that were replaced long ago."""
        self._alive |= {
            stub.pid: stub for stub in self._process.stubs() if not stub.dead and stub.pid not in self._retired
        }
        for pid, former in list(self._retired.items()):
            if former.older_than(_RETIRED_FOR_S):
                self._end(former.stub)
                del self._retired[pid]

    def finds_all_alive(self) -> bool:
        """Look whether a stub died or was stopped; False as long as one that was is not replaced."""
        for pid, stub in list(self._alive.items()):
            now = self._process.stub(pid)
            if now is None or now.dead:
                del self._alive[pid]
                if now is not None:
                    self._dead[pid] = _Former(stub=stub)
            if now is not None and now.stopped:
                self._stopped.setdefault(pid, _Former(stub=stub))
            else:
                self._stopped.pop(pid, None)
        return not self._dead and not self._stopped

    def troubled_models(self) -> set[str]:
        """Models with a process that died or was stopped. Raises `Unreachable`, `AdminRefused`."""
        found = {self._model_of(former.stub) for former in (*self._dead.values(), *self._stopped.values())}
        return {model for model in found if model is not None}

    def repair(self) -> None:
        """Load the models again whose stubs died or were stopped a moment ago. Raises `Unreachable`, `AdminRefused`."""
        # Triton collects a stub that it ended itself at once; only one that died alone stays a zombie.
        for pid, death in list(self._dead.items()):
            if not death.older_than(_RESTS_S):
                continue
            model = self._lacking(death.stub) if self._process.stub(pid) else None
            if model is None or self.reload(model):
                _reaper.remove_regions(death.stub.region)
                del self._dead[pid]
        for stop in list(self._stopped.values()):
            model = self._model_of(stop.stub) if stop.older_than(_RESTS_S) else None
            if model is not None:
                self.reload(model, hangs=True)

    def has_frozen(self, model: str) -> bool:
        """Whether a process of the model does not run any more; to be asked again and again. Raises `Unreachable`."""
        try:
            config = self._admin.config(model)
        except AdminRefused:
            return False
        silent = [self._pulse.is_silent(stub.pid) for stub in self._alive.values() if _runs(stub, config)]
        return any(silent)

    @property
    def alive(self) -> tuple[Stub, ...]:
        """The living stubs, as of the last survey."""
        return tuple(self._alive.values())

    def reload(self, model: str, *, hangs: bool = False) -> bool:
        """Replace all processes of a model; unless it hangs, healthy ones serve until the new ones are ready.

        False when it did not work, or was done so recently that it can hardly help. Raises `Unreachable`.
        """
        if self._pausing(model):
            return False
        _log.warning("A Python process of model %s died or hangs; loading the model again", model)
        started = time.monotonic()
        try:
            former = self._load(model)
        except AdminRefused as exc:
            _log.error("Model %s could not be loaded again: %s", model, exc)
            return False
        self._retire(former, hangs=hangs)
        self.survey()
        _log.info("Model %s serves again after %.1f s", model, time.monotonic() - started)
        return True

    def _load(self, model: str) -> list[Stub]:
        """Load the model again; returns the living stubs that it had."""
        config = self._admin.config(model)
        former = [stub for stub in self._alive.values() if _runs(stub, config)]
        # Triton takes a configuration that it knows already for no change. This field is read on GPUs only, and there
        # for compute capabilities: it changes nothing, but makes Triton start new processes beside the old ones.
        marked = config | {"cc_model_filenames": {"naiad-repair": str(next(self._numbers))}}
        try:
            self._admin.load(model, marked)
        except AdminRefused:
            self._admin.unload(model)
            self._admin.load(model)
        return former

    def _lacking(self, stub: Stub) -> str | None:
        """The model that the dead `stub` belonged to, if it still has fewer processes than configured."""
        ready = Counter(status.name for status in self._admin.index() if status.state == "READY")
        for model, num_versions in ready.items():
            config = self._admin.config(model)
            if _runs(stub, config):
                num_living = sum(_runs(living, config) for living in self._alive.values())
                if num_living < _num_instances(config) * num_versions:
                    return model
        return None

    def _model_of(self, stub: Stub) -> str | None:
        models = (status.name for status in self._admin.index() if status.state == "READY")
        return next((model for model in models if _runs(stub, self._admin.config(model))), None)

    def _retire(self, former: list[Stub], *, hangs: bool) -> None:
        # Beside a dead stub, Triton never gets to end its healthy siblings; one that hangs aborts Triton when it wakes.
        for stub in former:
            self._alive.pop(stub.pid, None)
            self._stopped.pop(stub.pid, None)
            self._process.retired.add(stub.pid)
            if hangs:
                self._end(stub)
            else:
                self._retired[stub.pid] = _Former(stub=stub)

    def _end(self, stub: Stub) -> None:
        if self._process.stub(stub.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(stub.pid, signal.SIGKILL)
            _reaper.remove_regions(stub.region)

    def _pausing(self, model: str) -> bool:
        """Whether to wait before another reload; pauses double while a model keeps dying. Counts this one if not."""
        now = time.monotonic()
        last, pause_s = self._last_reload.get(model, (float("-inf"), _FIRST_PAUSE_S))
        if now - last < pause_s:
            return True
        again = now - last < _LONGEST_PAUSE_S
        self._last_reload[model] = (now, min(2 * pause_s, _LONGEST_PAUSE_S) if again else _FIRST_PAUSE_S)
        return False


def _runs(stub: Stub, config: Mapping[str, Any]) -> bool:
    """Whether the stub's instance has a name that this model gives."""
    return any(re.fullmatch(rf"{re.escape(group['name'])}_\d+", stub.instance) for group in _groups(config))


def _num_instances(config: Mapping[str, Any]) -> int:
    return sum(int(group["count"]) * max(1, len(group.get("gpus", ()))) for group in _groups(config))


def _groups(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = config.get("instance_group", [])
    return groups
