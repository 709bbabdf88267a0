"""What a new version would change of what is published.

All versions of a model share one `config.pbtxt`, so a new version has to pass two questions: does it break a client,
and does it load and answer under the configuration that is published? `docs/why.md` says what is decided how.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from naiad.export._repository.contract import Contract, Labels, Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One thing in which two contracts differ."""

    subject: str
    """As in `output 'y'`."""
    before: str
    after: str
    breaking: bool
    """Whether a client of the first would fail, or read wrong, with the second."""
    fits: bool
    """Whether a version with the second contract loads under the configuration of the first, and keeps its promise."""
    remedy: str = ""
    """What to do, other than to take a new name."""

    def __str__(self) -> str:
        return f"{self.subject} is {self.before} and would be {self.after}"

    @property
    def refused(self) -> bool:
        """Whether such a version cannot be published under the same name."""
        return self.breaking or not self.fits


def changes(published: Contract, new: Contract) -> tuple[Change, ...]:
    """Return everything in which `new` differs from what is published."""
    found: list[Change] = []
    for name in [*published.inputs, *(name for name in new.inputs if name not in published.inputs)]:
        found += _input_changes(f"input {name!r}", published.inputs.get(name), new.inputs.get(name))
    for name in [*published.outputs, *(name for name in new.outputs if name not in published.outputs)]:
        found += _output_changes(f"output {name!r}", published.outputs.get(name), new.outputs.get(name))
    return (*found, *_model_changes(published, new))


def _input_changes(subject: str, before: Tensor | None, after: Tensor | None) -> Iterator[Change]:
    if before is None or after is None:
        needed = after is None or not after.optional
        yield Change(
            subject=subject,
            before=str(before or "absent"),
            after=str(after or "absent"),
            breaking=needed,
            fits=False,
        )
        return
    same_type = before.data_type == after.data_type
    if str(before) != str(after):
        fine = same_type and _widened(before.dims, after.dims) and (after.optional or not before.optional)
        yield Change(subject=subject, before=str(before), after=str(after), breaking=not fine, fits=fine)
    yield from _hidden_changes(subject, before, after)


def _output_changes(subject: str, before: Tensor | None, after: Tensor | None) -> Iterator[Change]:
    if before is None or after is None:
        yield Change(
            subject=subject,
            before=str(before or "absent"),
            after=str(after or "absent"),
            breaking=after is None,
            fits=False,
        )
        return
    if str(before) != str(after):  # Triton wants an output's dims exactly as the model's
        narrower = before.data_type == after.data_type and _widened(after.dims, before.dims)
        yield Change(subject=subject, before=str(before), after=str(after), breaking=not narrower, fits=False)
    yield from _hidden_changes(subject, before, after)
    yield from _label_changes(subject, before.labels, after.labels)


def _hidden_changes(subject: str, before: Tensor, after: Tensor) -> Iterator[Change]:
    if before.reshape != after.reshape and before.dims == after.dims:
        words = [f"{list(t.dims if t.reshape is None else t.reshape)} inside the model" for t in (before, after)]
        yield Change(subject=subject, before=words[0], after=words[1], breaking=False, fits=False)
    if before.rest != after.rest:
        yield Change(
            subject=subject, before=before.rest or "plain", after=after.rest or "plain", breaking=True, fits=False
        )


def _label_changes(subject: str, before: Labels | None, after: Labels | None) -> Iterator[Change]:
    if (before and before.sha256) == (after and after.sha256):
        return
    subject = f"the labelling of {subject}"
    if before is None:
        remedy = "name the labels in config.pbtxt by hand (label_filename)"
        yield Change(subject=subject, before="none", after=str(after), breaking=False, fits=False, remedy=remedy)
    elif after is None:
        remedy = "give the same labels again"
        yield Change(subject=subject, before=str(before), after="none", breaking=True, fits=False, remedy=remedy)
    else:
        words = _label_words(before, after)
        yield Change(subject=subject, before=words[0], after=words[1], breaking=True, fits=False)


def _label_words(before: Labels, after: Labels) -> tuple[str, str]:
    """Return the first difference in words."""
    pairs = enumerate(zip(before.names, after.names, strict=False))
    index = next((index for index, (old, new) in pairs if old != new), None)
    if index is None or before.num != after.num:
        return f"{before} ({before.sha256[:8]})", f"{after} ({after.sha256[:8]})"
    return f"{before.names[index]!r} for class {index}", f"{after.names[index]!r}"


def _model_changes(before: Contract, after: Contract) -> Iterator[Change]:
    old, new = before.max_batch_size, after.max_batch_size
    if bool(old) != bool(new):
        words = ["no batch dimension" if not size else f"a batch of at most {size}" for size in (old, new)]
        yield Change(subject="the first dimension", before=words[0], after=words[1], breaking=True, fits=False)
    elif old != new:
        remedy = f"export it with max_batch_size {old} or more" if new < old else ""
        larger = new > old
        yield Change(
            subject="max_batch_size",
            before=str(old),
            after=str(new),
            breaking=not larger,
            fits=larger,
            remedy=remedy,
        )
    if before.scheduling != after.scheduling:
        stateful = any(text.startswith("sequences") for text in (before.scheduling, after.scheduling))
        words = [_shortened(text) or "each request by itself" for text in (before.scheduling, after.scheduling)]
        yield Change(subject="the scheduling", before=words[0], after=words[1], breaking=stateful, fits=False)
    if before.decoupled != after.decoupled:
        words = [
            "any number of answers" if decoupled else "one answer" for decoupled in (before.decoupled, after.decoupled)
        ]
        yield Change(subject="a request's result", before=words[0], after=words[1], breaking=True, fits=False)
    if before.engine and after.engine and before.engine != after.engine:
        yield Change(subject="the backend", before=before.engine, after=after.engine, breaking=False, fits=False)


def _widened(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    """Whether every size that fits `before` fits `after`."""
    return len(before) == len(after) and all(b in (a, -1) for a, b in zip(before, after, strict=True))


def _shortened(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= 80 else f"{words[:79]}…"
