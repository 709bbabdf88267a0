"""Loads models again when their files in the repository change, as `naiad models promote` and `rollback` do."""

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Final

from naiad.server import _calls
from naiad.server._repository import ModelFiles
from naiad.server._server import Server
from naiad.server.errors import AdminRefused, RepositoryError

_log = logging.getLogger("naiad.server")
_NOTHING: Final = ModelFiles(signature=())


class Watch:
    """Compares the repository with what was loaded; one call of `apply_changes()` looks once.

    A change counts when two looks in a row agree on it: a version that is being copied is left alone until it rests.
    `turn` is held while models are loaded, so that servers of one repository load them one after the other.
    """

    def __init__(self, server: Server, turn: AbstractContextManager[object] | None = None) -> None:
        self._server = server
        self._turn = nullcontext() if turn is None else turn
        self._source = server.source
        self._named = None if server.options.models is None else server.models
        self._loaded = self._look()
        self._before = self._loaded

    def apply_changes(self) -> None:
        """Load what changed, unload what is gone. Raises `Unreachable` when the server does not answer."""
        now, before = self._look(), self._before
        self._before = now
        for model in sorted(now.keys() | self._loaded.keys()):
            found = now.get(model, _NOTHING)
            if found != self._loaded.get(model, _NOTHING) and found == before.get(model, _NOTHING):
                with self._turn:
                    self._apply(model, found)
                self._loaded[model] = found

    def _apply(self, model: str, found: ModelFiles) -> None:
        try:
            if found == _NOTHING:
                self._server.admin.unload(model)
                _log.info("Model %s is gone from the repository and no longer served", model)
            else:
                self._source.check_model(model)
                self._load_steps(model)
                self._server.load(model)
                _log.info("Model %s changed and was loaded again", model)
        except (AdminRefused, RepositoryError) as exc:
            _log.warning("Model %s changed, and what was loaded before goes on serving: %s", model, exc)

    def _load_steps(self, model: str) -> None:
        """Load the models that an ensemble is made of, and those that scripts call, before itself.

        Asked for an ensemble one of whose steps does not load, Triton stops serving the ensemble as it was, too.

        Raises: `AdminRefused` with what it said of a step.
        """
        for called, optional in _calls.called(self._source, model):
            if called != model and not (optional and called not in self._server.admin.ready_models()):
                self._source.check_model(called)
                self._server.load(called)
        config = self._source.configs([model]).get(model)
        for step in config.ensemble_scheduling.step if config is not None else ():
            self._source.check_model(step.model_name)
            try:
                self._server.load(step.model_name)
            except AdminRefused as exc:
                if not self._loads(step.model_name, step.model_version):
                    raise exc from None

    def _loads(self, model: str, version: int) -> bool:
        """Load one version beside those that serve: of several new ones, one that is broken keeps all away."""
        if version < 0:  # whichever is the latest
            return False
        admin = self._server.admin
        serving = {int(status.version) for status in admin.index() if status.name == model and status.state == "READY"}
        policy = {"specific": {"versions": sorted({*serving, version})}}
        try:
            admin.load(model, admin.config(model) | {"version_policy": policy})
        except AdminRefused:
            return False
        return True

    def _look(self) -> dict[str, ModelFiles]:
        return self._source.look(self._named)
