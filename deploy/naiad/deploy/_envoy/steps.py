"""In which order changed files are given to a running Envoy."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml

from naiad.deploy._envoy.updates import LOADER, resource_names

BOOTSTRAP: Final = "envoy.yaml"
_CLUSTERS: Final = "clusters.yaml"


def steps(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Yield what to replace, step by step: at no moment does anything refer to what is not there.

    `after` is in an order that is safe where something is added. Clusters that go, go last.
    """
    if resource_names(before[_CLUSTERS]) - resource_names(after[_CLUSTERS]):
        yield {_CLUSTERS: _both(before[_CLUSTERS], after[_CLUSTERS])}
    last = {}
    for name, text in after.items():
        if name == BOOTSTRAP or before.get(name) == text:
            continue
        if name == _CLUSTERS and resource_names(before[name]) - resource_names(text):
            last = {name: text}
            continue
        yield {name: text}
    if last:
        yield last


def _both(before: str, after: str) -> str:
    found: dict[str, Any] = {}
    for text in (before, after):
        found |= {resource["name"]: resource for resource in yaml.load(text, Loader=LOADER)["resources"]}  # noqa: S506
    return yaml.safe_dump({"resources": list(found.values())}, sort_keys=False)
