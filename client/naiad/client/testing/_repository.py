"""Which models a fake serves, in which state, and what their requests are checked against."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from naiad.client.testing._models import FakeModel, FakeSequence, Function
from naiad.client.testing._queue import Queue
from naiad.client.testing._statistics import Counters
from naiad.client.testing._status import Refusal, invalid

if TYPE_CHECKING:
    from tritonclient.grpc.model_config_pb2 import ModelConfig


def datatype_of(tensor: Any) -> str:
    """Return the data type of a tensor in a configuration, as requests name it."""
    from tritonclient.grpc import model_config_pb2

    name = str(model_config_pb2.DataType.Name(tensor.data_type)).removeprefix("TYPE_")
    return "BYTES" if name == "STRING" else name


class Served:
    """A model as it is loaded: its configuration may be another than the model's own."""

    def __init__(self, name: str, model: FakeModel, config: ModelConfig | None = None) -> None:
        self.name = name
        self.model = model
        self.config = config if config is not None else model.config(name)
        policy = self.config.dynamic_batching.default_queue_policy
        self.queues = {version: Queue(model.instances, policy) for version in model.versions}
        self.counters = {version: Counters() for version in model.versions}
        self.sequences: dict[int | str, FakeSequence] = {}
        self.lock = threading.Lock()

    @property
    def batched(self) -> bool:
        """Whether the first dimension of its tensors is the batch."""
        return bool(self.config.max_batch_size > 0)

    def shape(self, tensor: Any) -> tuple[int, ...]:
        """Return the full shape of a tensor of the configuration."""
        return (-1, *tensor.dims) if self.batched else tuple(tensor.dims)


class Repository:
    """The models by name; loading, unloading and finding them with Triton's words."""

    def __init__(self, models: Mapping[str, FakeModel | Function]) -> None:
        self._models: dict[str, FakeModel] = {}
        self._served: dict[str, Served] = {}
        self._known_unloaded: dict[str, tuple[str, ...]] = {}
        self._lock = threading.Lock()
        for name, model in models.items():
            self.put(name, model)

    def put(self, name: str, model: FakeModel | Function) -> None:
        """Add a model, or replace one; it is served at once."""
        made = model if isinstance(model, FakeModel) else FakeModel(model)
        with self._lock:
            self._models[name] = made
            self._served[name] = Served(name, made)
            self._known_unloaded.pop(name, None)

    def discard(self, name: str) -> None:
        """Remove a model; without effect if there is none."""
        with self._lock:
            for known in (self._models, self._served, self._known_unloaded):
                known.pop(name, None)

    def load(self, name: str, config: str | None) -> None:
        """Load a model with another configuration, or with its own; without effect if it is loaded and none is given.

        Raises:
            Refusal: there is no such model, or the configuration is none.
        """
        failed = Refusal(f"failed to load '{name}', failed to poll from model repository", "INTERNAL")
        with self._lock:
            model = self._models.get(name)
            if model is None:
                raise failed
            if config is None and name in self._served:
                return
            self._served[name] = Served(name, model, None if config is None else _parsed(name, model, config, failed))
            self._known_unloaded.pop(name, None)

    def unload(self, name: str) -> None:
        """Stop serving a model; without effect if it is not served."""
        with self._lock:
            served = self._served.pop(name, None)
            if served is not None:
                self._known_unloaded[name] = served.model.versions

    def find(self, name: str, version: str) -> tuple[Served, str]:
        """Return a model and the version that answers.

        Raises:
            Refusal: it is not served.
        """
        number = checked_version(version)
        with self._lock:
            served, unloaded = self._served.get(name), self._known_unloaded.get(name)
        if served is None:
            raise not_served(name, number, unloaded or ())
        if number and number not in served.model.versions:
            raise Refusal(f"Request for unknown model: '{name}' version {number} is not found", "NOT_FOUND")
        return served, number or served.model.versions[-1]

    def ready(self, name: str, version: str) -> bool:
        """Whether requests to it would be answered."""
        checked_version(version)
        try:
            self.find(name, version)
        except Refusal:
            return False
        return True

    def forget_sequences(self) -> None:
        """Forget the state of every sequence, as a server that starts anew."""
        for served in self:
            with served.lock:
                served.sequences.clear()

    def __iter__(self) -> Iterator[Served]:
        with self._lock:
            return iter([self._served[name] for name in sorted(self._served)])

    def index(self) -> list[tuple[str, str, str, str]]:
        """Name, version, state and reason of everything there is."""
        with self._lock:
            ready = [(name, version, "READY", "") for name, it in self._served.items() for version in it.model.versions]
            gone = [
                (name, version, "UNAVAILABLE", "unloaded")
                for name, versions in self._known_unloaded.items()
                for version in versions
            ]
        return sorted(ready + gone)


def checked_version(version: str) -> str:
    """Return a version as it was asked for, empty for the newest.

    Raises:
        Refusal: it is no number, or a negative one.
    """
    if not version:
        return ""
    try:
        number = int(version)
    except ValueError:
        raise invalid(
            f"failed to get model version from specified version string '{version}' (details: stol), version should "
            "be an integral value > 0"
        ) from None
    if number < 1:
        raise invalid(f"invalid model version specified '{version}' , version should be an integral value > 0")
    return str(number)


def not_served(name: str, version: str, unloaded: tuple[str, ...]) -> Refusal:
    """Return what is said of a model that is not there, or not any more: ``unloaded`` were its versions."""
    if not unloaded:
        return Refusal(f"Request for unknown model: '{name}' is not found", "NOT_FOUND")
    if not version:
        return Refusal(f"Request for unknown model: '{name}' has no available versions", "NOT_FOUND")
    if version not in unloaded:
        return Refusal(f"Request for unknown model: '{name}' version {version} is not found", "NOT_FOUND")
    return Refusal(f"Request for unknown model: '{name}' version {version} is not at ready state", "UNAVAILABLE")


def _parsed(name: str, model: FakeModel, config: str, failed: Refusal) -> ModelConfig:
    from tritonclient.grpc import model_config_pb2

    try:
        given = json.loads(config)
        message = json_format.ParseDict(given, model_config_pb2.ModelConfig())
    except (ValueError, TypeError, json_format.ParseError) as exc:
        raise failed from exc
    own = model.config(name)
    message.name = name
    for field in ("input", "output"):
        if not getattr(message, field):
            getattr(message, field).extend(getattr(own, field))
    return message
