"""Keeps a server serving: threads that repair models, restart Triton, and load what changed."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from naiad.server._admin import Stranger
from naiad.server._canary import Canary
from naiad.server._options import Company
from naiad.server._repair import Repair
from naiad.server._server import Server
from naiad.server._watch import Watch
from naiad.server.errors import AdminRefused, StartError, Unreachable

_log = logging.getLogger("naiad.server")
_TICK_S: Final = 0.2
_SURVEY_S: Final = 1.0
_CANARY_S: Final = 0.5
_FIRST_PAUSE_S: Final = 0.1
_MOST_RESTARTS: Final = 6
_STABLE_AFTER_S: Final = 60.0


class Supervisor:
    """Runs from construction until the server stops; `join()` waits for its end."""

    def __init__(self, server: Server, company: Company, *, supervise: bool, watch: bool) -> None:
        self._server = server
        self._models = server.models
        self._deaths = 0
        self._due: dict[str, float] = {}
        self._company = company
        self._fit = True
        self._watch = Watch(server, company.turn) if watch else None
        self._attend()
        # Two threads: loading a changed model may take long, and must not keep a dead server from being noticed.
        self._threads = [
            threading.Thread(target=self._run, args=(duty,), name=f"naiad-{duty.__name__}", daemon=True)
            for duty in ([self._look_after] if supervise else []) + ([self._follow_changes] if watch else [])
        ]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Return when the threads have ended; the server must be stopping."""
        for thread in self._threads:
            thread.join()

    def _attend(self) -> None:
        """Begin with a new server process."""
        self._repair = Repair(self._server.process, self._server.admin)
        self._repair.survey()
        self._claim_folders()
        self._canary = Canary(self._server.admin)
        self._since = time.monotonic()

    def _run(self, duty: Callable[[], None]) -> None:
        while not self._server.stopping.wait(_TICK_S):
            try:
                duty()
            except (Unreachable, Stranger, AdminRefused) as exc:
                _log.debug("Triton did not answer the supervisor: %s", exc)
            except StartError as exc:
                self._server.failure = exc
                _log.error("Giving up on Triton: %s", exc)
                return
            except Exception:  # noqa: BLE001 - whatever it is, serving goes on and so does looking after it
                _log.exception("The supervisor stumbled")

    def _look_after(self) -> None:
        self._look_after_process()
        self._look_after_models()

    def _follow_changes(self) -> None:
        if self._watch and self._is_due("watch", self._server.source.look_every_s):
            self._watch.apply_changes()

    def _look_after_process(self) -> None:
        if self._server.process.returncode is None or self._server.stopping.is_set():
            return
        if time.monotonic() - self._since > _STABLE_AFTER_S:
            self._deaths = 0
        died = self._server.process.died()
        self._tell(fit=False)
        while self._deaths < _MOST_RESTARTS:
            self._deaths += 1
            if self._server.stopping.wait(_FIRST_PAUSE_S * 2 ** (self._deaths - 1)) or self._restart(died.returncode):
                return
        raise died

    def _restart(self, returncode: int | None) -> bool:
        _log.warning("Triton ended by itself (exit code %s); starting it again", returncode)
        started = time.monotonic()
        try:
            self._server.restart(self._models)
        except StartError as exc:
            _log.warning("%s", exc)
            return False
        if not self._server.stopping.is_set():
            self._attend()
            self._tell(fit=True)
            _log.info("Triton serves again after %.1f s", time.monotonic() - started)
        return True

    def _look_after_models(self) -> None:
        if not self._repair.finds_all_alive():
            self._tell(fit=False, models=self._repair.troubled_models())
            self._repair.repair()
        if self._is_due("survey", _SURVEY_S):
            self._repair.survey()
            self._claim_folders()
            # What a client loaded or unloaded meanwhile holds for a restart, too.
            self._models = tuple(sorted(self._server.admin.ready_models()))
        if self._is_due("canary", _CANARY_S):
            for model in self._canary.unhealthy_models(self._repair.has_frozen):
                self._tell(fit=False, models=[model])
                self._repair.reload(model, hangs=True)
        if self._repair.finds_all_alive() and self._server.process.returncode is None:
            self._tell(fit=True)

    def _tell(self, *, fit: bool, models: Collection[str] = ()) -> None:
        """Let those who send requests here know when that begins or ceases to make sense."""
        if fit != self._fit and not self._server.stopping.is_set():
            self._fit = fit
            self._company.tell(fit, models)

    def _claim_folders(self) -> None:
        """Note where Triton keeps models of a bucket or a load request: nobody removes them if it is killed."""
        folders = set()
        for stub in self._repair.alive:
            with contextlib.suppress(IndexError):
                top = "/".join(stub.arguments[1].split("/")[:3])
                folders.update([top] if top.startswith("/tmp/folder") and Path(top).is_dir() else [])  # noqa: S108
        self._server.private.claim(temporary=folders)

    def _is_due(self, what: str, every_s: float) -> bool:
        now = time.monotonic()
        if now < self._due.get(what, 0.0):
            return False
        self._due[what] = now + every_s
        return True
