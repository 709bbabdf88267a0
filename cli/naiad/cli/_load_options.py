"""The options that describe a load, shared by the commands that measure; each is the key of a scenario file, too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from naiad.cli._running import URL_HELP, admin_secret, replicas_behind, running_url

if TYPE_CHECKING:
    from naiad.loadtest import Settings

__all__ = ["is_scenario", "read_headers", "settings_of"]

_SENT: Final = "What is sent"
_ARRIVAL: Final = "How requests arrive"
_LENGTH: Final = "How long, and how precisely"
_SERVER: Final = "The server"
_GENERATOR: Final = "The load generator"


def _option(panel: str, help: str, *names: str, **fields: Any) -> Any:  # noqa: A002
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=False, **fields)


Version = Annotated[str | None, _option(_SENT, "A version; by default the server chooses.")]
Batch = Annotated[int | None, _option(_SENT, "Rows per request (1).")]
DataPath = Annotated[
    Path | None, _option(_SENT, "Send these samples: a folder or file of .npy, .npz, images or JSON lines.", "--data")
]
Input = Annotated[str | None, _option(_SENT, "The input that files without names in them are for.")]
Golden = Annotated[Path | None, _option(_SENT, "Send the samples of this golden.npz.")]
Check = Annotated[bool | None, _option(_SENT, "Compare every answer with the expected one.", "--check/--no-check")]
Shape = Annotated[
    list[str] | None, _option(_SENT, "Sizes of an input with dynamic dimensions.", metavar="INPUT=SIZExSIZE")
]
Range = Annotated[list[str] | None, _option(_SENT, "Range of random values.", metavar="INPUT=LOW..HIGH")]
StringLength = Annotated[list[str] | None, _option(_SENT, "Characters of random strings.", metavar="INPUT=LOW..HIGH")]
NumSamples = Annotated[int | None, _option(_SENT, "How many different random requests (64).")]
SharedMemory = Annotated[
    bool | None, _option(_SENT, "Tensors through shared memory of this machine.", "--shm/--no-shm")
]
Stream = Annotated[bool | None, _option(_SENT, "Over a gRPC stream, as decoupled models need.", "--stream/--no-stream")]
Sequence_ = Annotated[
    str | None, _option(_SENT, "Requests of a sequence, for stateful models.", "--sequence", metavar="LOW..HIGH")
]
SequencePause = Annotated[str | None, _option(_SENT, "Between an answer and the next request of a sequence.")]
Timeout = Annotated[str | None, _option(_SENT, "Deadline of a request (10s).")]

Users = Annotated[int | None, _option(_ARRIVAL, "Closed loop: requests in flight at a time (64).", "--users", "-u")]
SpawnRate = Annotated[float | None, _option(_ARRIVAL, "Users started per second; all at once by default.")]
Rate = Annotated[
    float | None,
    _option(_ARRIVAL, "Open loop: requests per second, whether or not the server keeps up.", "--rate", "-r"),
]
Arrivals = Annotated[str | None, _option(_ARRIVAL, "poisson (independent) or constant gaps.", metavar="KIND")]
TraceFile = Annotated[
    Path | None, _option(_ARRIVAL, "Open loop: replay a file with a time stamp in seconds on each line.", "--trace")
]
Speed = Annotated[float | None, _option(_ARRIVAL, "2 replays a trace twice as fast.")]
MaxInFlight = Annotated[int | None, _option(_ARRIVAL, "Open loop: what arrives beyond it fails as NotSent (10000).")]

Duration = Annotated[
    str | None, _option(_LENGTH, "The measured window: 10s, 2m; with --precision the shortest.", "--duration", "-d")
]
Warmup = Annotated[str | None, _option(_LENGTH, "Sent, not measured; auto finds out when the run is steady (auto).")]
MaxWarmup = Annotated[str | None, _option(_LENGTH, "The longest automatic warm-up (30s).")]
Precision = Annotated[str | None, _option(_LENGTH, "Measure until a percentile is known this well.", metavar="p99±5%")]
MaxDuration = Annotated[str | None, _option(_LENGTH, "With --precision: the longest window (300s).")]

Url = Annotated[str | None, _option(_SERVER, URL_HELP)]
Header = Annotated[
    list[str] | None,
    _option(_SERVER, "A header, its value from the environment or a file.", metavar="NAME=env:VARIABLE|file:PATH"),
]
Ca = Annotated[Path | None, _option(_SERVER, "PEM file of the authorities to trust.")]
Certificate = Annotated[Path | None, _option(_SERVER, "PEM file of the client's certificate.")]
MetricsUrl = Annotated[
    str | None, _option(_SERVER, "The server's metrics, http://host:port/metrics, for GPUs of another machine.")
]
StatisticsUrl = Annotated[
    str | None,
    _option(_SERVER, "The servers behind a gateway, grpc://host:port,host:port; those of `naiad serve` are found."),
]
CertificateKey = Annotated[Path | None, _option(_SERVER, "PEM file of its key.", "--key")]

Engines = Annotated[int | None, _option(_GENERATOR, "Processes that send (1).")]
Transport = Annotated[
    str | None, _option(_GENERATOR, "http2 (our own) or grpcio (the gRPC library's).", metavar="KIND")
]
Connections = Annotated[int | None, _option(_GENERATOR, "Connections of each engine (1).")]
Realtime = Annotated[
    bool | None,
    _option(
        _GENERATOR,
        "Run before all ordinary processes of this machine, so that a server beside it cannot delay requests "
        "(root or CAP_SYS_NICE).",
        "--realtime/--no-realtime",
    ),
]
Seed = Annotated[int | None, _option(_GENERATOR, "Of random samples and arrivals (0).")]

_Key = tuple[str, ...]
_MODELS: Final = ("models", "*")
_KEYS: Final[dict[str, tuple[str, _Key]]] = {
    # golden and data first: they make room for what random data needs, which would be an error beside them
    "golden": ("--golden", (*_MODELS, "data", "golden")),
    "data": ("--data", (*_MODELS, "data", "path")),
    "input": ("--input", (*_MODELS, "data", "input")),
    "shape": ("--shape", (*_MODELS, "data", "shapes")),
    "range": ("--range", (*_MODELS, "data", "ranges")),
    "string_length": ("--string-length", (*_MODELS, "data", "string-lengths")),
    "num_samples": ("--num-samples", (*_MODELS, "data", "num-samples")),
    "version": ("--version", (*_MODELS, "version")),
    "batch": ("--batch", (*_MODELS, "batch")),
    "check": ("--check", (*_MODELS, "check")),
    "shm": ("--shm", (*_MODELS, "shared-memory")),
    "stream": ("--stream", (*_MODELS, "stream")),
    "sequence": ("--sequence", (*_MODELS, "sequence", "length")),
    "sequence_pause": ("--sequence-pause", (*_MODELS, "sequence", "pause")),
    "timeout": ("--timeout", (*_MODELS, "timeout")),
    "users": ("--users", ("load", "users")),
    "rate": ("--rate", ("load", "rate")),
    "trace": ("--trace", ("load", "trace")),
    "spawn_rate": ("--spawn-rate", ("load", "spawn-rate")),
    "arrivals": ("--arrivals", ("load", "arrivals")),
    "speed": ("--speed", ("load", "speed")),
    "max_in_flight": ("--max-in-flight", ("load", "max-in-flight")),
    "duration": ("--duration", ("load", "duration")),
    "warmup": ("--warmup", ("load", "warmup")),
    "max_warmup": ("--max-warmup", ("load", "max-warmup")),
    "precision": ("--precision", ("load", "precision")),
    "max_duration": ("--max-duration", ("load", "max-duration")),
    "url": ("--url", ("server", "url")),
    "header": ("--header", ("server", "headers")),
    "metrics_url": ("--metrics-url", ("server", "metrics-url")),
    "statistics_url": ("--statistics-url", ("server", "statistics-url")),
    "ca": ("--ca", ("server", "ca")),
    "certificate": ("--certificate", ("server", "certificate")),
    "key": ("--key", ("server", "key")),
    "engines": ("--engines", ("load", "engines")),
    "transport": ("--transport", ("load", "transport")),
    "connections": ("--connections", ("load", "connections")),
    "realtime": ("--realtime", ("load", "realtime")),
    "seed": ("--seed", ("load", "seed")),
    "slo": ("--slo", ("slos",)),
    "price_per_hour": ("--price-per-hour", ("report", "price-per-hour")),
    "sweep": ("--sweep", ("sweep",)),
    "find_max": ("--find-max", ("sweep", "find-max")),
    "html": ("--html", ("report", "html")),
    "json_report": ("--json-report", ("report", "json")),
    "csv": ("--csv", ("report", "csv")),
    "baseline": ("--baseline", ("report", "baseline")),
    "margin": ("--margin", ("report", "margin")),
    "any_machine": ("--any-machine", ("report", "any-machine")),
    "history": ("--history", ("report", "history")),
    "label": ("--label", ("report", "label")),
    "save_baseline": ("--save-baseline", ("report", "save-baseline")),
}


def is_scenario(argument: str) -> bool:
    """Tell whether an argument names a scenario file, and not a model."""
    return argument.endswith(".toml")


def settings_of(argument: str, options: Mapping[str, Any]) -> Settings:
    """Return what a scenario file (or a model's name) says, with the options that were given laid over it.

    ``options`` are a command's parameters by name; ``None`` and an empty list mean that one was not given.

    Raises:
        InvalidScenario: the file or an option is wrong.
    """
    from naiad.loadtest import Settings, find_scenario

    settings = Settings.read(find_scenario(argument)) if is_scenario(argument) else Settings.of_model(argument)
    given = {name: options[name] for name in _KEYS if options.get(name) not in (None, [], ())}
    _check_exclusive(given, "users", "rate", "trace")
    _check_exclusive(given, "data", "golden")
    for name, value in given.items():
        option, key = _KEYS[name]
        if name == "sweep":
            variable, _, values = _text_pair(option, value, "users=1..256 or rate=100..2000:8")
            settings.override(option, (*key, variable), values)
        else:
            settings.override(option, key, _READERS.get(name, _as_it_is)(value))
    if "url" not in settings.values.get("server", {}):
        settings.override("--url", ("server", "url"), running_url())
    server = settings.values["server"]
    behind = None if "statistics-url" in server else replicas_behind(server["url"])
    if behind is not None:
        settings.override("--url", ("server", "statistics-url"), behind[0])
    if any(model.get("shared-memory") for model in settings.values["models"]):
        _let_in(settings.values["server"])
    return settings


def _let_in(server: dict[str, Any]) -> None:
    """Give the address the secret of this user's own server, which lets only those with it register memory."""
    scheme, separator, rest = server["url"].partition("://")
    secret = None if "@" in rest else admin_secret(server["url"])
    if secret:
        server["url"] = f"{scheme}{separator}:{secret}@{rest}"


def _check_exclusive(given: Mapping[str, Any], *names: str) -> None:
    found = [f"--{name}" for name in names if name in given]
    if len(found) > 1:
        raise typer.BadParameter(f"expected one of {', '.join(found)}, found {len(found)}: they exclude each other")


def _as_it_is(value: Any) -> Any:
    return value


def _text_pair(option: str, text: str, example: str) -> tuple[str, str, str]:
    name, equals, value = text.partition("=")
    if not equals or name not in ("users", "rate", "batch"):
        raise typer.BadParameter(f"expected {example}, found {text!r}", param_hint=option)
    return name, equals, value


def _pairs(option: str, read: Callable[[str], tuple[str, Any]]) -> Callable[[Sequence[str]], dict[str, Any]]:
    def read_all(texts: Sequence[str]) -> dict[str, Any]:
        try:
            return dict(map(read, texts))
        except ValueError as exc:
            raise typer.BadParameter(str(exc), param_hint=option) from exc

    return read_all


def _shape(text: str) -> tuple[str, Any]:
    from naiad.loadtest._scenario.text import read_named_shape

    return read_named_shape(text)


def _range(text: str) -> tuple[str, Any]:
    from naiad.loadtest._scenario.text import read_named_pair

    return read_named_pair(text)


def _length(text: str) -> tuple[str, Any]:
    from naiad.loadtest._scenario.text import read_named_pair

    return read_named_pair(text, whole=True)


def _header(text: str) -> tuple[str, Any]:
    name, _, source = text.partition("=")
    kind, _, value = source.partition(":")
    if not name or kind not in ("env", "file") or not value:  # the text is not repeated: it may hold the secret
        raise ValueError("expected NAME=env:VARIABLE or NAME=file:PATH, found something else after --header")
    # Beside the working directory, as every path of a command line; a scenario's are beside the scenario.
    return name, {kind: str(Path(value).absolute()) if kind == "file" else value}


_READERS: Final[dict[str, Callable[[Any], Any]]] = {
    "shape": _pairs("--shape", _shape),
    "range": _pairs("--range", _range),
    "string_length": _pairs("--string-length", _length),
    "header": _pairs("--header", _header),
}


def read_headers(texts: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return where the values of headers are, from what ``--header`` gave."""
    found: dict[str, dict[str, str]] = _READERS["header"](texts)
    return found
