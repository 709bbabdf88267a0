"""What ``naiad gate`` is asked to compare: from its arguments to two subjects."""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from naiad.cli import _load_options as load

if TYPE_CHECKING:
    from naiad.loadtest import LoadTest, Settings, Subject, WheelSubject

__all__ = ["Pairing", "pairing_of"]

_KINDS: Final = "grpc://host:port, grpc://host:port#VERSION, version:VERSION, or a wheel (or folder) of the client"
_URL: Final = re.compile(r"(?P<url>grpcs?://[^#]+)(?:#(?P<version>.+))?")
_VERSION: Final = re.compile(r"(?:version:)?(?P<version>\d+)|version:(?P<name>.+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairing:
    """Two subjects, and the metrics that fit their kind."""

    baseline: Subject | WheelSubject
    candidate: Subject | WheelSubject
    test: LoadTest | None
    """The candidate's load test; ``None`` for wheels."""
    metrics: tuple[str, ...]
    watched: tuple[str, ...]


def pairing_of(
    baseline: str, candidate: str | None, model: str | None, options: Mapping[str, Any], *, against_itself: bool
) -> Pairing:
    """Return what two arguments, or a scenario file, ask to compare.

    Raises:
        InvalidScenario: the file or an option is wrong.
    """
    if load.is_scenario(baseline):
        if candidate is not None or model is not None:
            raise typer.BadParameter(f"expected {baseline} alone, whose tables say what is compared, found more")
        return _of_scenario(load.settings_of(baseline, options), against_itself=against_itself)
    if candidate is None and not against_itself:
        raise typer.BadParameter("expected a second subject, or a scenario file", param_hint="CANDIDATE")
    if candidate is not None and against_itself:
        raise typer.BadParameter("expected one subject with --a-a, found two", param_hint="--a-a")
    if model is None:
        raise typer.BadParameter("expected the model, or a scenario file with the load", param_hint="--model")
    settings = load.settings_of(model, options)
    other = baseline if candidate is None else candidate
    if _is_wheel(baseline) or _is_wheel(other):
        return _of_wheels(Path(baseline), Path(other), settings, options)
    _check_different(baseline, other, against_itself=against_itself)
    return _pairing(
        _subject(baseline, _changed(settings, "BASELINE", baseline)),
        _subject(other, _changed(settings, "CANDIDATE", other)),
    )


def _of_scenario(settings: Settings, *, against_itself: bool) -> Pairing:
    if not against_itself and not any(settings.values.get(name) for name in ("baseline", "candidate")):
        raise settings.error(
            (), "expected the tables [baseline] or [candidate], which say what differs between the two, found none"
        )
    first = settings.variant("baseline")
    second = first if against_itself else settings.variant("candidate")
    return _pairing(_subject("baseline", first), _subject("candidate", second))


def _pairing(baseline: Subject, candidate: Subject) -> Pairing:
    from naiad.loadtest import GateOptions

    defaults = GateOptions()
    return Pairing(
        baseline=baseline,
        candidate=candidate,
        test=candidate.test,
        metrics=defaults.metrics,
        watched=defaults.watched,
    )


def _subject(name: str, settings: Settings) -> Subject:
    from naiad.loadtest import Scenario, Subject
    from naiad.loadtest._data.codec import without_secret

    test = Scenario.of(settings).test
    versions = ", ".join(f"{traffic.model} version {traffic.version}" for traffic in test.mix if traffic.version)
    models = versions or ", ".join(traffic.model for traffic in test.mix)
    return Subject(name=f"{models} on {without_secret(test.connection.url)}", test=test)


def _changed(settings: Settings, option: str, text: str) -> Settings:
    """Return the settings with the URL or the version that an argument gives."""
    found = deepcopy(settings)
    url, version = _URL.fullmatch(text), _VERSION.fullmatch(text)
    if url is not None:
        found.override(option, ("server", "url"), url["url"])
        if url["version"]:
            found.override(option, ("models", "*", "version"), url["version"])
    elif version is not None:
        found.override(option, ("models", "*", "version"), version["version"] or version["name"])
    else:
        raise typer.BadParameter(f"expected {_KINDS}, found {text!r}", param_hint=option)
    return found


def _check_different(baseline: str, candidate: str, *, against_itself: bool) -> None:
    if baseline == candidate and not against_itself:
        raise typer.BadParameter(
            f"expected two different subjects, found {baseline} twice: compare one with itself with --a-a"
        )


def _is_wheel(text: str) -> bool:
    return text.endswith(".whl") or (not _URL.fullmatch(text) and Path(text).is_dir())


def _of_wheels(baseline: Path, candidate: Path, settings: Settings, options: Mapping[str, Any]) -> Pairing:
    from naiad.loadtest import Scenario, WheelSubject, wheel_metrics

    test = Scenario.of(settings).test
    if len(test.mix) > 1:
        raise typer.BadParameter(f"expected one model to call with two wheels, found {len(test.mix)}")
    if options["rate"] is not None or options["users"] is not None:
        raise typer.BadParameter("expected --in-flight with wheels, found --users or --rate: the client itself calls")
    for path in (baseline, candidate):
        if not path.exists():
            raise typer.BadParameter(f"expected a wheel or a folder of the client, found nothing at {path}")
    callers = tuple(options["callers"] or ("sync",))
    subjects = [
        WheelSubject(
            path=path,
            traffic=test.mix[0],
            connection=test.connection,
            callers=callers,
            in_flight=options["in_flight"],
            seed=test.seed,
        )
        for path in (baseline, candidate)
    ]
    return Pairing(
        baseline=subjects[0],
        candidate=subjects[1],
        test=None,
        metrics=wheel_metrics(callers, "p50", "cpu"),
        watched=wheel_metrics(callers, "p90", "p99", "throughput"),
    )
