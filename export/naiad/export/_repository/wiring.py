"""Which versions of its steps a pipeline needs.

A pipeline is an ensemble whose versions record the versions of their steps. Triton has one `config.pbtxt` for all
versions of an ensemble, so the wiring in it is replaced together with the version that is served, in one rename: what
is served is the old pipeline or the new one, never a mixture. The steps serve what a pipeline needs before and after
that, so that neither the server nor a rollback ever waits for a step.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2

from naiad.export._repository import calls as _calls
from naiad.export._repository import config as _config
from naiad.export._repository import manifest as _manifest
from naiad.export._repository import reading as _reading
from naiad.export._repository.signature import Verifier
from naiad.export._repository.store import Store
from naiad.export.errors import InvalidExport, StepInUse

_KEY = "pipeline"


def describe(config: Any, steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what a pipeline's manifest says of its steps; each has at least `step`, `model` and `version`."""
    scheduling = json_format.MessageToDict(config.ensemble_scheduling, preserving_proto_field_name=True)
    return {_KEY: {"steps": steps, "scheduling": scheduling}}


def pins(manifest: Mapping[str, Any] | None) -> dict[str, int]:
    """Return the version of each step by model; empty for what is no pipeline."""
    return {step["model"]: int(step["version"]) for step in (manifest or {}).get(_KEY, {}).get("steps", ())}


def rewire(
    store: Store, model: str, config: Any, versions: tuple[int, ...], manifest: Mapping[str, Any] | None = None
) -> None:
    """Wire a pipeline's configuration as the version to be served was; `manifest` is that of one not yet published.

    Raises:
        InvalidExport: Several versions were named.
    """
    if not config.HasField("ensemble_scheduling"):
        _name_calls(store, model, config, versions, manifest)
        return
    manifest = manifest or (_reading.manifest(store, model, versions[-1]) if versions else None)
    if not pins(manifest):  # made by hand
        return
    if len(versions) > 1:
        raise InvalidExport(
            f"{model} is a pipeline, and its configuration wires the steps of one version; found versions "
            f"{_reading.listed(versions)}: name one"
        )
    assert manifest is not None
    scheduling = manifest[_KEY]["scheduling"]
    config.ensemble_scheduling.CopyFrom(json_format.ParseDict(scheduling, model_config_pb2.ModelEnsembling()))


def _name_calls(
    store: Store, model: str, config: Any, versions: tuple[int, ...], manifest: Mapping[str, Any] | None
) -> None:
    """Name in a script's configuration what the served versions call; one not yet published has the last number."""
    if _calls.PARAMETER not in config.parameters:
        return
    manifests = [_reading.manifest(store, model, number) for number in (versions[:-1] if manifest else versions)]
    found = [call for each in (*manifests, manifest) for call in _calls.recorded(each)]
    if found:
        _calls.describe(config, found)


def optional(manifest: Mapping[str, Any] | None) -> set[str]:
    """Return the models of a pipeline that it does without."""
    steps = (manifest or {}).get(_KEY, {}).get("steps", ())
    return {step["model"] for step in steps if step.get("optional")}


def needed(store: Store, model: str) -> dict[int, str]:
    """Return the versions of a model that pipelines are wired to now, with the pipeline's name."""
    return {version: pipeline for pipeline, step, version in _wired(store) if step == model}


def check_needed(store: Store, model: str, before: tuple[int, ...], after: tuple[int, ...]) -> None:
    """Refuse to stop serving a version that a pipeline is wired to.

    Raises:
        StepInUse: With the pipeline.
    """
    dropped = set(before) - set(after)
    if not dropped:
        return
    found = {version: pipeline for version, pipeline in needed(store, model).items() if version in dropped}
    for version, pipeline in found.items():
        raise StepInUse(
            f"{model} is a step of the pipeline {pipeline}, which needs its version {version}; promote or roll back "
            f"{pipeline}, and its steps follow, or name version {version} too",
            repository=store.location,
            model=model,
            version=version,
        )


def kept(store: Store, model: str) -> dict[int, str]:
    """Return the versions of a model that some version of a pipeline records, with the reason to keep them."""
    found = {}
    for pipeline in sorted({pipeline for pipeline, _, _ in _wired(store)} - {model}):
        for number in _reading.versions(store, pipeline):
            version = pins(_reading.manifest(store, pipeline, number)).get(model)
            if version is not None:
                found[version] = f"a step of {pipeline} version {number}"
    return found


def verify(store: Store, model: str, number: int, verifier: Verifier | None = None) -> _reading.Integrity:
    """Compare a version with its manifest, and a pipeline's steps with theirs."""
    found = _reading.verify(store, model, number, verifier)
    if found.num_files == 0:
        return found
    of_steps = tuple(_problems(store, _reading.manifest(store, model, number) or {}))
    return replace(found, problems=(*found.problems, *of_steps))


def _problems(store: Store, manifest: Mapping[str, Any]) -> Iterator[str]:
    for step in manifest.get(_KEY, {}).get("steps", ()):
        model, number = step["model"], int(step["version"])
        data = store.read(f"{model}/{number}/{_manifest.FILE}")
        if data is None and step.get("optional"):
            continue
        if data is None:
            yield f"its step {model} version {number} is missing"
            continue
        if hashlib.sha256(data).hexdigest() != step["manifest_sha256"]:
            yield f"its step {model} version {number} has another {_manifest.FILE} than was published with it"
        yield from (
            f"{model} version {number}: {problem}" for problem in _reading.verify(store, model, number).problems
        )


def manifest_sha256(store: Store, model: str, number: int) -> str:
    """Return the hash of a version's manifest, which in turn has those of its files."""
    return hashlib.sha256(store.read(f"{model}/{number}/{_manifest.FILE}") or b"").hexdigest()


def _wired(store: Store) -> Iterator[tuple[str, str, int]]:
    """Yield every pipeline with each model that it is wired to, or that a script of it calls, and the version."""
    for name in store.models():
        text = store.read(f"{name}/{_config.FILE}")
        if text is None or b"ensemble_scheduling" not in text:
            continue
        config = _reading.config(store, name, text)
        for step in config.ensemble_scheduling.step:
            yield name, step.model_name, step.model_version
            if step.model_version > 0:
                script = _reading.manifest(store, step.model_name, step.model_version)
                yield from ((name, call.model, call.version) for call in _calls.recorded(script))
