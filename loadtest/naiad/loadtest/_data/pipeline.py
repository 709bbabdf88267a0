"""The models that a model calls: the steps of an ensemble, and what a script says that it calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from naiad.client import ClientError, ModelConfig, ModelNotFound

__all__ = ["CALLS", "Key", "Kind", "Pipeline", "Step", "pipeline_of"]

CALLS: Final = "naiad.calls"
"""The parameter in which a script's configuration names what it calls: ``NAME:VERSION,NAME:VERSION``."""
_OPTIONAL: Final = "naiad.optional_calls"  # the names of those that it does without
_MOST_STEPS: Final = 64  # each is asked for its counters once a second
_MOST_VISITS: Final = 1000  # of a graph whose branches meet again and again

Key = tuple[str, str | None]
"""A model, and the version asked for; ``None`` is the newest."""
Kind = Literal["ensemble", "script", "model", "unknown"]
ConfigOf = Callable[[str, str | None], ModelConfig]


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A model that is called for the requests of another one."""

    model: str
    version: str | None
    kind: Kind
    """``unknown``: its configuration was refused, so nobody knows what it calls itself."""
    depth: int
    """1: called by the tested model itself."""
    callers: tuple[str, ...]
    """The models that call it."""
    calls: int | None
    """How often for one request of the tested model; ``None`` where a script decides that."""

    @property
    def key(self) -> Key:
        """What the server's counters are asked for."""
        return self.model, self.version


@dataclass(frozen=True, kw_only=True, slots=True)
class Pipeline:
    """The models behind a tested model, each once, in the order of their first call, callers before what they call."""

    name: str
    kind: Kind
    steps: tuple[Step, ...]
    parallel: bool
    """Whether steps of the tested model may run at the same time."""
    notes: tuple[str, ...] = ()
    """What could not be found out."""


def pipeline_of(config: ModelConfig, config_of: ConfigOf) -> Pipeline | None:
    """Return what a model calls, whose configurations ``config_of`` knows; ``None`` of a plain model."""
    if not _calls(config):
        return None
    search = _Search(config_of)
    search.visit(config, calls=1, path=(config.name,))
    return Pipeline(
        name=config.name,
        kind=_kind(config),
        steps=tuple(found.step(key) for key, found in search.found.items() if found is not None),
        parallel=_kind(config) == "ensemble" and _has_branches(config),
        notes=tuple(search.notes),
    )


@dataclass(kw_only=True, slots=True)
class _Found:
    config: ModelConfig | None
    depth: int
    callers: dict[str, None] = field(default_factory=dict)
    calls: int | None = 0

    def step(self, key: Key) -> Step:
        kind: Kind = "unknown" if self.config is None else _kind(self.config)
        callers = tuple(self.callers)
        return Step(model=key[0], version=key[1], kind=kind, depth=self.depth, callers=callers, calls=self.calls)


class _Search:
    """Follows calls to the end."""

    def __init__(self, config_of: ConfigOf) -> None:
        self.found: dict[Key, _Found | None] = {}  # ``None``: not there, which its caller does not mind
        self.notes: list[str] = []
        self._config_of, self._num_visits = config_of, 0

    def visit(self, config: ModelConfig, *, calls: int | None, path: tuple[str, ...]) -> None:
        self._num_visits += 1
        if self._num_visits > _MOST_VISITS:
            for each in filter(None, self.found.values()):
                each.calls = None  # there are more ways to it than were followed
            return
        sure = calls if _kind(config) == "ensemble" else None
        for key, number in _calls(config).items():
            found = None if key[0] in path else self._find(key, config, depth=len(path))
            if found is None:
                continue
            found.callers[config.name] = None
            more = None if sure is None else sure * number
            found.calls = None if found.calls is None or more is None else found.calls + more
            if found.config is not None:
                self.visit(found.config, calls=more, path=(*path, key[0]))

    def _find(self, key: Key, caller: ModelConfig, *, depth: int) -> _Found | None:
        if key in self.found:
            return self.found[key]
        if len(self.found) >= _MOST_STEPS:
            note = f"more than {_MOST_STEPS} models are called: the times of the others are not shown"
            self.notes = list(dict.fromkeys([*self.notes, note]))
            return None
        try:
            config = self._config_of(*key)
        except ClientError as exc:
            if isinstance(exc, ModelNotFound) and key[0] in _optional(caller):
                return self.found.setdefault(key, None)
            config = None
            self.notes.append(f"what '{key[0]}' calls is not known, its configuration could not be had: {exc}")
        return self.found.setdefault(key, _Found(config=config, depth=depth))


def _kind(config: ModelConfig) -> Kind:
    if config.HasField("ensemble_scheduling"):
        return "ensemble"
    return "script" if CALLS in config.parameters else "model"


def _calls(config: ModelConfig) -> Mapping[Key, int]:
    """Return what a model calls in order, and how often it is named."""
    if _kind(config) == "ensemble":
        steps = config.ensemble_scheduling.step
        return Counter((step.model_name, _version(str(step.model_version))) for step in steps)
    if CALLS not in config.parameters:
        return {}
    named = (item.strip().partition(":") for item in config.parameters[CALLS].string_value.split(","))
    return Counter((name, _version(version)) for name, _, version in named if name)


def _optional(config: ModelConfig) -> list[str]:
    return config.parameters[_OPTIONAL].string_value.split(",") if _OPTIONAL in config.parameters else []


def _version(text: str) -> str | None:
    return text if text.isdecimal() and int(text) > 0 else None


def _has_branches(config: ModelConfig) -> bool:
    """Whether two steps exist of which neither needs, even indirectly, what the other makes."""
    steps: list[Any] = list(config.ensemble_scheduling.step)
    needs = [set(step.input_map.values()) for step in steps]
    makers = [{at for at, step in enumerate(steps) if needed & set(step.output_map.values())} for needed in needs]
    before = [set(found) for found in makers]
    for _ in steps:
        before = [found.union(*(before[at] for at in found)) for found in before]
    return any(
        one not in before[other] and other not in before[one] for one in range(len(steps)) for other in range(one)
    )
