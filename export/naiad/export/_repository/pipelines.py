"""Several candidates published as one: the steps first, which nobody uses yet, then the pipeline that is wired to them.

Killed in between, the old pipeline is served as before; the steps' new versions lie unused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from naiad.export._repository import calls as _calls
from naiad.export._repository import publishing as _publishing
from naiad.export._repository import wiring as _wiring
from naiad.export._repository.publishing import Candidate
from naiad.export._repository.signature import Signer, Verifier
from naiad.export._repository.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class StepCandidate:
    """A step that is ready to be published."""

    step: str
    candidate: Candidate
    about: Mapping[str, Any] = field(default_factory=dict)
    """More for the pipeline's manifest."""


def publish(
    store: Store,
    steps: Sequence[StepCandidate],
    pipeline: Candidate,
    *,
    promote: bool,
    signer: Signer | None = None,
    verifier: Verifier | None = None,
) -> int:
    """Publish steps and pipeline, and return the pipeline's version."""
    candidates = [*(step.candidate for step in steps), pipeline]
    for candidate in candidates:  # before any of them is published
        _publishing.require_signer(store, candidate.model, promote=promote, signer=signer, verifier=verifier)
        with store.translated(candidate.model):
            _publishing.check_contract(store, candidate.model, candidate.config, candidate.labels)
    published, numbers = list[dict[str, Any]](), dict[str, int]()
    required, optional = set[str](), set[str]()
    for step in sorted(steps, key=lambda each: (each.candidate.files / _calls.FILE).is_file()):  # scripts come last
        model = step.candidate.model
        candidate = _wired(step.candidate, numbers)
        number = _publishing.publish(store, candidate, promote=False, signer=signer, verifier=verifier)
        numbers[model] = number
        required |= {call.model for call in _calls.recorded(candidate.manifest) if not call.optional}
        optional |= {call.model for call in _calls.recorded(candidate.manifest) if call.optional}
        digest = _wiring.manifest_sha256(store, model, number)
        published.append(
            {"step": step.step, "model": model, "version": number, "manifest_sha256": digest, **step.about}
        )
    for wired in pipeline.config.ensemble_scheduling.step:
        wired.model_version = numbers[wired.model_name]
    for each in published:
        each |= {"optional": True} if each["model"] in optional - required else {}
    manifest = pipeline.manifest | _wiring.describe(pipeline.config, published)
    whole = replace(pipeline, manifest=manifest)
    return _publishing.publish(store, whole, promote=promote, signer=signer, verifier=verifier)


def _wired(candidate: Candidate, numbers: Mapping[str, int]) -> Candidate:
    """Return a script with the versions that it calls, which are published; others as they are."""
    calls = _calls.wire(candidate.files, numbers)
    if not calls:
        return candidate
    step = candidate.manifest["step"] | {"calls": calls}
    wired = replace(candidate, manifest=candidate.manifest | {"step": step})
    _calls.describe(wired.config, _calls.recorded(wired.manifest))
    return wired
