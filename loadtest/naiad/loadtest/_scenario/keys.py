"""The keys of a scenario file: files are read, options checked and the JSON schema made from this one table.

A key is named like its option on the command line; underscores stand for hyphens as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from naiad.loadtest._scenario.text import read_duration, read_pair, read_precision
from naiad.loadtest.plan import Precision
from naiad.loadtest.slo import Slo

__all__ = ["SCENARIO", "Key", "Table", "Tables"]


@dataclass(frozen=True, slots=True)
class Key:
    """A value: how it is read (``ValueError`` says what was expected), and what its help and JSON schema say."""

    read: Callable[[Any], Any]
    help: str
    schema: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Table:
    """Keys that belong together."""

    keys: Mapping[str, Key | Table | Tables]
    help: str = ""
    least: tuple[str, ...] = ()
    """Keys that must be there."""


@dataclass(frozen=True, slots=True)
class Tables:
    """Tables of one kind, ``[[name]]``."""

    each: Table


def _expect(expected: str, value: Any) -> ValueError:
    shown = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    return ValueError(f"expected {expected}, found {shown}")


@contextmanager
def _within(step: str | int) -> Iterator[None]:
    """Have an error know which part of a value it is about, for the line."""
    try:
        yield
    except ValueError as exc:
        exc.step = step  # type: ignore[attr-defined]
        raise


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _expect("a text in quotes", value)
    return value


def _path(value: Any) -> Path:
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value or "\0" in value:
        raise _expect("a path in quotes", value)
    return Path(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _expect("true or false", value)
    return value


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _expect("a whole number", value)
    return value


def _number(value: Any) -> float:
    if not _is_number(value):
        raise _expect("a number", value)
    return float(value)


def _version(value: Any) -> str:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else _text(value)


def _seconds(value: Any) -> float:
    if _is_number(value):
        return float(value)
    if not isinstance(value, str):
        raise _expect("a duration like 30s, 500ms or a number of seconds", value)
    return read_duration(value)


def _seconds_or_auto(value: Any) -> float | None:
    return None if value == "auto" else _seconds(value)


def _precision(value: Any) -> Precision:
    return read_precision(_text(value))


def _slos(value: Any) -> tuple[Slo, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple):
        raise _expect('objectives like ["p99<20ms", "errors<0.1%"]', value)
    slos = []
    for at, text in enumerate(texts):
        with _within(at):
            slos.append(Slo.parse(_text(text)))
    return tuple(slos)


def _one_of(*names: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in names:
            raise _expect(" or ".join(map(repr, names)), value)
        return str(value)

    return read


def _pair_of(whole: bool) -> Callable[[Any], tuple[float, float]]:
    def read(value: Any) -> tuple[float, float]:
        if isinstance(value, str):
            value = read_pair(value)
        elif _is_number(value):
            value = (value, value)
        right = isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_number, value))
        if not right or (whole and not all(float(number).is_integer() for number in value)):
            raise _expect(f"{'whole numbers' if whole else 'numbers'} [LOW, HIGH]", value)
        low, high = value
        return (int(low), int(high)) if whole else (float(low), float(high))

    return read


def _shape(value: Any) -> tuple[int, ...]:
    sizes = [value] if isinstance(value, int) else value
    if not isinstance(sizes, list | tuple) or not all(
        isinstance(size, int) and not isinstance(size, bool) for size in sizes
    ):
        raise _expect("a shape without the batch, like [3, 224, 224]", value)
    return tuple(sizes)


def _by_name(read: Callable[[Any], Any], what: str) -> Callable[[Any], dict[str, Any]]:
    def read_all(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise _expect(f"{what} by the name of the input", value)
        found = {}
        for name, item in value.items():
            with _within(name):
                found[name] = read(item)
        return found

    return read_all


def _headers(value: Any) -> dict[str, dict[str, str]]:
    if not isinstance(value, Mapping):
        raise _expect("headers by name", value)
    for name, source in value.items():
        with _within(name):
            _check_source(name, source)
    return {name.lower(): dict(source) for name, source in value.items()}


def _check_source(name: str, source: Any) -> None:
    if isinstance(source, str):
        raise ValueError(  # noqa: TRY004  # never repeat the value: it may be the secret itself
            f'expected where the value of {name} is, as {{ env = "NAME" }} or {{ file = "path" }}, found a text: '
            "a scenario holds no secrets"
        )
    if not isinstance(source, Mapping) or len(source) != 1 or not {"env", "file"} >= set(source):
        raise ValueError(f'expected {name} = {{ env = "NAME" }} or {{ file = "path" }}')
    _text(next(iter(source.values())))


_TEXT: Final = {"type": "string"}
_WHOLE: Final = {"type": "integer", "minimum": 1}
_NUMBER: Final = {"type": "number"}
_FLAG: Final = {"type": "boolean"}
_DURATION: Final = {"type": ["string", "number"], "examples": ["30s", "500ms", "2m"]}
_PAIR: Final = {"type": "array", "items": _NUMBER, "minItems": 2, "maxItems": 2}
_RANGE: Final = {"anyOf": [_PAIR, {"type": ["string", "number"]}]}
_NAMED_RANGES: Final = {"type": "object", "additionalProperties": _RANGE}

_DATA: Final = Table(
    {
        "golden": Key(_path, "A version's golden.npz: the samples it was verified with.", _TEXT),
        "path": Key(_path, "A folder or file of .npy, .npz, images or JSON lines.", _TEXT),
        "input": Key(_text, "The input that files without names in them are for.", _TEXT),
        "shapes": Key(
            _by_name(_shape, "shapes"),
            "Sizes of inputs with dynamic dimensions, without the batch.",
            {"type": "object", "additionalProperties": {"type": "array", "items": _WHOLE}},
        ),
        "ranges": Key(_by_name(_pair_of(False), "ranges"), "Smallest and largest random value.", _NAMED_RANGES),
        "string-lengths": Key(
            _by_name(_pair_of(True), "lengths"), "Fewest and most characters of random strings.", _NAMED_RANGES
        ),
        "num-samples": Key(_whole, "How many different random requests.", _WHOLE),
    },
    "What is sent: random values made from the model's metadata, unless golden or path is given.",
)

_SEQUENCE: Final = Table(
    {
        "length": Key(_pair_of(True), "Fewest and most requests of a sequence.", _RANGE),
        "pause": Key(_seconds, "Between an answer and the next request of the sequence.", _DURATION),
    },
    "Requests that belong together, for stateful models.",
)

_MODEL: Final = Table(
    {
        "model": Key(_text, "The model's name on the server.", _TEXT),
        "version": Key(_version, "A version; by default the server chooses.", {"type": ["string", "integer"]}),
        "weight": Key(_number, "Share of the requests, against the other models'.", _NUMBER),
        "batch": Key(_whole, "Rows per request.", _WHOLE),
        "data": _DATA,
        "check": Key(_flag, "Compare every answer with the expected one.", _FLAG),
        "shared-memory": Key(_flag, "Tensors through shared memory of this machine.", _FLAG),
        "sequence": _SEQUENCE,
        "stream": Key(_flag, "Over a gRPC stream, as decoupled models need.", _FLAG),
        "timeout": Key(_seconds, "Deadline of a request.", _DURATION),
    },
    "A model that gets requests.",
    least=("model",),
)

_HEADERS: Final = Key(
    _headers,
    'Sent with every request; each value is { env = "NAME" } or { file = "path" }.',
    {
        "type": "object",
        "additionalProperties": {
            "type": "object",
            "properties": {"env": _TEXT, "file": _TEXT},
            "additionalProperties": False,
            "minProperties": 1,
            "maxProperties": 1,
        },
    },
)

_SUBJECT: Final = Table(
    {
        "url": Key(_text, "Another server.", _TEXT),
        "headers": _HEADERS,
        "model": Key(_text, "Another model, in the place of the only one.", _TEXT),
        "version": Key(_version, "Another version of every model.", {"type": ["string", "integer"]}),
    },
    "What differs in one of the two that a gate compares.",
)

SCENARIO: Final = Table(
    {
        "name": Key(_text, "What the report calls the run.", _TEXT),
        "server": Table(
            {
                "url": Key(_text, "grpc://host:port, or grpcs:// with TLS.", _TEXT),
                "headers": _HEADERS,
                "ca": Key(_path, "PEM file of the authorities to trust.", _TEXT),
                "certificate": Key(_path, "PEM file of the client's certificate.", _TEXT),
                "key": Key(_path, "PEM file of its key.", _TEXT),
                "metrics-url": Key(_text, "Triton's metrics: shows the GPUs of a server on another machine.", _TEXT),
                "statistics-url": Key(
                    _text, "The servers behind a gateway, as grpc://host:port,host:port: their statistics count.", _TEXT
                ),
            },
            "The server. Nothing secret is written here.",
        ),
        "load": Table(
            {
                "users": Key(_whole, "Closed loop: requests in flight at a time.", _WHOLE),
                "spawn-rate": Key(_number, "Users started per second; by default all at once.", _NUMBER),
                "rate": Key(_number, "Open loop: requests per second, whether or not the server keeps up.", _NUMBER),
                "arrivals": Key(
                    _one_of("poisson", "constant"),
                    "Independent arrivals, or evenly spaced ones.",
                    {"enum": ["poisson", "constant"]},
                ),
                "trace": Key(_path, "Open loop: a file with a time stamp in seconds on each line.", _TEXT),
                "speed": Key(_number, "2 replays a trace twice as fast.", _NUMBER),
                "max-in-flight": Key(_whole, "Open loop: what arrives beyond it fails as NotSent.", _WHOLE),
                "duration": Key(_seconds, "The measured window; with precision, the shortest one.", _DURATION),
                "warmup": Key(_seconds_or_auto, '"auto" finds out when the run is steady.', _DURATION),
                "max-warmup": Key(_seconds, "The longest automatic warm-up.", _DURATION),
                "precision": Key(
                    _precision, "Measure until a percentile is known this well.", {**_TEXT, "examples": ["p99±5%"]}
                ),
                "max-duration": Key(_seconds, "With precision: the longest window.", _DURATION),
                "engines": Key(_whole, "Processes that send.", _WHOLE),
                "transport": Key(
                    _one_of("http2", "grpcio"), "Our own HTTP/2, or the gRPC library's.", {"enum": ["http2", "grpcio"]}
                ),
                "connections": Key(_whole, "Connections of each engine.", _WHOLE),
                "realtime": Key(_flag, "Engines run before all ordinary processes; needs CAP_SYS_NICE.", _FLAG),
                "seed": Key(_whole, "Of samples and arrivals.", {"type": "integer"}),
            },
            "How requests arrive, and how long.",
        ),
        "data": _DATA,
        "models": Tables(_MODEL),
        "slos": Key(
            _slos,
            "Objectives the run must reach.",
            {"type": "array", "items": _TEXT, "examples": [["p99<20ms", "errors<0.1%"]]},
        ),
        "sweep": Table(
            {
                "users": Key(_text, "Numbers of users one after the other: 1..256.", _TEXT),
                "rate": Key(_text, "Rates one after the other: 100..2000:8.", _TEXT),
                "batch": Key(_text, "Rows per request, one number after the other: 1..32.", _TEXT),
                "find-max": Key(_text, "The highest rate that keeps this objective: p99<20ms.", _TEXT),
            },
            "Several runs instead of one.",
        ),
        "baseline": _SUBJECT,
        "candidate": _SUBJECT,
        "report": Table(
            {
                "html": Key(_path, "One self-contained page.", _TEXT),
                "json": Key(_path, "For programs.", _TEXT),
                "csv": Key(_path, "The run over time.", _TEXT),
                "baseline": Key(_path, "Fail when the run is worse than this one.", _TEXT),
                "margin": Key(_number, "How much worse is still no regression, in per cent.", _NUMBER),
                "any-machine": Key(_flag, "Accept a baseline of another machine.", _FLAG),
                "save-baseline": Key(_path, "Write a baseline if the run passes.", _TEXT),
                "history": Key(_path, "Add the run to this file of earlier ones, for trends.", _TEXT),
                "label": Key(_text, "What the history calls this run, such as a commit.", _TEXT),
                "price-per-hour": Key(_number, "Of the server; gives the cost per million requests.", _NUMBER),
            },
            "Where results go, and what they are compared with.",
        ),
    }
)
