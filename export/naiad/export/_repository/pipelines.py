"""Several candidates published as one: the steps first, which nobody uses yet, then the pipeline that is wired to them.

Killed in between, the old pipeline is served as before; the steps' new versions lie unused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

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
    published = []
    for wired, step in zip(pipeline.config.ensemble_scheduling.step, steps, strict=True):
        model = step.candidate.model
        number = _publishing.publish(store, step.candidate, promote=False, signer=signer, verifier=verifier)
        wired.model_version = number
        digest = _wiring.manifest_sha256(store, model, number)
        published.append(
            {"step": step.step, "model": model, "version": number, "manifest_sha256": digest, **step.about}
        )
    manifest = pipeline.manifest | _wiring.describe(pipeline.config, published)
    whole = replace(pipeline, manifest=manifest)
    return _publishing.publish(store, whole, promote=promote, signer=signer, verifier=verifier)
