"""What the gateway and Triton tell of themselves in Prometheus's text format, read without Prometheus."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import httpx

__all__ = ["Sample", "get", "parse_metrics", "quantile", "read_metrics", "total"]

_TIMEOUT_S: Final = 5.0
_LINE: Final = re.compile(r"(?P<name>[A-Za-z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)(?: \d+)?")
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One number of one series."""

    name: str
    labels: dict[str, str]
    value: float


def read_metrics(url: str) -> list[Sample]:
    """Return what a server tells at `url` (`http://host:port/metrics`).

    Raises:
        DeployError: nobody answers there.
    """
    return parse_metrics(get(url).text)


def get(url: str, **params: str) -> httpx.Response:
    """Return the answer of a server on this machine, which no proxy of the environment is asked for.

    Raises:
        DeployError: it does not answer, or with an error.
    """
    import httpx

    from naiad.deploy.errors import DeployError

    try:
        return httpx.get(url, params=params, timeout=_TIMEOUT_S, trust_env=False).raise_for_status()
    except httpx.HTTPError as exc:
        raise DeployError(f"expected an answer of {url}: {exc}") from exc


def parse_metrics(text: str) -> list[Sample]:
    """Return the samples of Prometheus's text format; comments and what is none are left out."""
    found = []
    for line in text.splitlines():
        if line.startswith("#") or not (match := _LINE.fullmatch(line)):
            continue
        labels = dict(_LABEL.findall(match["labels"] or ""))
        found.append(Sample(name=match["name"], labels=labels, value=float(match["value"])))
    return found


def total(samples: list[Sample], name: str, **labels: str) -> float:
    """Return the sum of the samples of that name with those labels among theirs; 0 where there are none."""
    return sum(sample.value for sample in _chosen(samples, name, labels))


def quantile(samples: list[Sample], name: str, share: float, **labels: str) -> float | None:
    """Return what this share of a histogram's observations stayed below; None where it has none.

    As Prometheus's `histogram_quantile`: interpolated within a bucket, the highest bound for what is above all.
    """
    bounds: dict[float, float] = {}
    for sample in _chosen(samples, f"{name}_bucket", labels):
        bound = float(sample.labels["le"])
        bounds[bound] = bounds.get(bound, 0.0) + sample.value
    steps = [(0.0, 0.0), *sorted(bounds.items())]
    wanted = share * steps[-1][1]
    if not wanted:
        return None
    for (low, before), (high, count) in itertools.pairwise(steps):
        if count >= wanted:
            return low if high == float("inf") else low + (high - low) * (wanted - before) / (count - before)
    return None


def _chosen(samples: list[Sample], name: str, labels: dict[str, str]) -> list[Sample]:
    return [sample for sample in samples if sample.name == name and labels.items() <= sample.labels.items()]
