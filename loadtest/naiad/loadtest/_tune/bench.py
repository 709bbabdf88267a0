"""The server that candidates are tried on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from naiad.client import Client, ClientError, InvalidInput
from naiad.loadtest._sweep.runs import Runs
from naiad.loadtest._tune.space import Settings, apply_settings
from naiad.loadtest.errors import LoadTestError
from naiad.loadtest.plan import LoadTest

if TYPE_CHECKING:
    from naiad.loadtest.report import Report

__all__ = ["Bench", "ConfigurationRefused", "ServerBench"]

_LOAD_TIMEOUT_S: Final = 300.0


class ConfigurationRefused(LoadTestError):
    """The server does not load the model with this configuration."""


class Bench(Protocol):
    """Runs a model with one configuration after another."""

    def apply(self, settings: Settings) -> None:
        """Run the model with these settings from now on.

        Raises:
            ConfigurationRefused: The server would not; the one before goes on.
        """

    def measure(self, test: LoadTest) -> Report:
        """Put it under load."""


class ServerBench:
    """A model on a real server, which loads it again with an override; the files in its repository stay as they are.

    Leaving the context loads the configuration again that was there.
    """

    def __init__(
        self,
        test: LoadTest,
        config: Mapping[str, Any],
        admin: Callable[[], Client],
    ) -> None:
        self._test, self._config, self._admin = test, config, admin
        self._model = test.mix[0].model
        self._loaded: dict[str, Any] | None = None

    def __enter__(self) -> Self:
        self._client = self._admin()
        self._runs = Runs(self._test)
        self._runs.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._runs.__exit__(kind, error, traceback)
        try:
            if self._loaded:
                self.apply({})  # a load without an override would find its files unchanged, and do nothing
        except (ClientError, ConfigurationRefused):
            if kind is None:  # else the server is gone, and the first error says why
                raise
        finally:
            self._client.close()

    def apply(self, settings: Settings) -> None:
        """Load the model with these settings, where others are loaded."""
        if self._loaded == dict(settings):
            return
        try:
            self._client.load(self._model, config=apply_settings(self._config, settings), timeout_s=_LOAD_TIMEOUT_S)
        except InvalidInput as exc:
            raise ConfigurationRefused(str(exc), model=self._model) from exc
        self._loaded = dict(settings)

    def measure(self, test: LoadTest) -> Report:
        """Run a test."""
        return self._runs(test)
