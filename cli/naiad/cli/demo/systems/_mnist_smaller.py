"""Smaller nets: half of the hidden units, and int8, each held against the whole net and published where it passes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from naiad.cli.demo.stage import in_pytorch, served
from naiad.cli.demo.systems._turns import median_ms

if TYPE_CHECKING:
    from naiad.cli.demo.stage import Stage
    from naiad.client import Client
    from naiad.export import ExportError, Recipe, Version
    from naiad.export.report import PrecisionResult

__all__ = ["make_smaller"]

_MODEL: Final = "mnist"
_MAX_DROP: Final = 0.005
_MAX_DROP_TEXT: Final = f"{_MAX_DROP:.1%}"
_ROWS: Final = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class _Net:
    """A net of the table; without a version it was refused."""

    name: str
    version: int | None
    num_weights: int
    size_bytes: int


def make_smaller(stage: Stage, recipe: Recipe, net: Any, dense: Version) -> None:
    """Prune a trained net and round it to int8, and publish each as the next version of `mnist` where it passes.

    ``dense`` is the version of the net as it was trained. What the model serves afterwards is the pruned net, or where
    that was refused what it served before.
    """
    repository = stage.repository
    before = repository.served(_MODEL)
    pruned = _prune(stage, recipe, net)
    nets = [_published("fp32", dense, _weights(net)), pruned, _round(stage, recipe, net)]
    numbers = [each.version for each in nets if each.version is not None]
    repository.promote(_MODEL, *numbers, reason="to compare them")
    try:
        with stage.serve(_MODEL) as triton, triton.client() as client:
            _compare(stage, recipe, client, nets)
    finally:
        if pruned.version is None:
            repository.promote(_MODEL, *before, reason="as before")
        else:
            repository.promote(_MODEL, pruned.version, reason="pruned: half of the weights")


def _prune(stage: Stage, recipe: Recipe, net: Any) -> _Net:
    from naiad.export import load_recipe

    smaller = load_recipe("mnist_pruned")
    with stage.step("prune half of the hidden units, and train what is left") as done:
        small = smaller.module.pruned(net)
        before, after = (recipe.evaluate(in_pytorch(each, "probabilities"))["accuracy"] for each in (net, small))
        done(f"{_weights(small):,} of {_weights(net):,} weights, {after:.2%} right")
    text = f"{_weights(small):,} of {_weights(net):,} weights; {after:.2%} right in PyTorch, the whole net {before:.2%}"
    stage.summary.row("pruned", text, pruned_accuracy_change=after - before)
    least = before * (1 - _MAX_DROP)  # the export compares the pruned net with itself; with the whole net we do
    if after < least:
        stage.summary.row("pruned", f"refused: {text}, expected at least {least:.2%}")
        return _Net(name="pruned", version=None, num_weights=_weights(small), size_bytes=0)
    version = stage.publish(
        smaller,
        what="export the pruned net as the next version",
        model=small,
        name=_MODEL,
        metric="accuracy",
        max_drop=_MAX_DROP_TEXT,
        promote=False,
    )
    return _published("pruned", version, _weights(small))


def _round(stage: Stage, recipe: Recipe, net: Any) -> _Net:
    from naiad.export import PrecisionRefused, VerificationFailed

    try:
        version = stage.publish(
            recipe,
            what="export it in int8, if that is faster and good enough",
            model=net,
            precision="int8",
            metric="accuracy",
            max_drop=_MAX_DROP_TEXT,
            promote=False,
        )
    except (PrecisionRefused, VerificationFailed) as exc:
        return _refused(stage, exc, _weights(net))
    assert version.report is not None
    chosen = next(each for each in version.report.precision if each.chosen)
    text = f"version {version.number} ({chosen.method}), {chosen.speed_up:.2f} times as fast by the export's measure"
    stage.summary.row("int8", text, int8_published=True, int8_speed_up=chosen.speed_up)
    return _published("int8", version, _weights(net))


def _refused(stage: Stage, refusal: ExportError, num_weights: int) -> _Net:
    """Note why nothing was published; a refusal is an answer, and no failure."""
    tried: tuple[PrecisionResult, ...] = getattr(refusal, "results", ())
    fastest = max((each.speed_up for each in tried[1:] if each.speed_up), default=None)
    stage.summary.row("int8", f"refused: {refusal}", int8_published=False, int8_speed_up=fastest)
    size_bytes = min((each.size_bytes for each in tried[1:] if each.size_bytes), default=0)
    return _Net(name="int8", version=None, num_weights=num_weights, size_bytes=size_bytes)


def _published(name: str, version: Version, num_weights: int) -> _Net:
    assert version.report is not None
    return _Net(name=name, version=version.number, num_weights=num_weights, size_bytes=version.report.size_bytes)


def _weights(net: Any) -> int:
    return sum(each.numel() for each in net.parameters())


def _compare(stage: Stage, recipe: Recipe, client: Client, nets: list[_Net]) -> None:
    """Ask every version for all test images, and time requests of one row and of many in turns."""
    versions = {each.name: each.version for each in nets if each.version is not None}
    with stage.step("ask all versions for the test images, and time them in turns") as done:
        right = {
            name: recipe.evaluate(served(client, _MODEL, rows=_ROWS, version=number))["accuracy"]
            for name, number in versions.items()
        }
        images = recipe.held_out()[0]["image"]
        one, many = (_timed(client, versions, images[:rows]) for rows in (1, _ROWS))
        done(", ".join(f"{name} {share:.2%}" for name, share in right.items()))
    figures: dict[str, dict[str, Any]] = {
        each.name: {"num_weights": each.num_weights, "size_bytes": each.size_bytes} for each in nets
    }
    for name, number in versions.items():
        times = {"1": one[name], str(_ROWS): many[name]}
        figures[name] |= {"version": number, "accuracy_served": right[name], "request_ms": times}
        lost = right["fp32"] - right[name]
        stage.summary.check(lost < 2 * _MAX_DROP, f"as served, {name} has {lost:.2%} fewer images right than fp32")
    stage.summary.table("Smaller nets", [_row(each, right, one, many) for each in nets], smaller=figures)


def _timed(client: Client, versions: Mapping[str, int], images: Any) -> dict[str, float]:
    models = {name: client.model(_MODEL, number) for name, number in versions.items()}
    return median_ms({name: partial(model.infer, {"image": images}) for name, model in models.items()})


def _row(net: _Net, right: Mapping[str, float], one: Mapping[str, float], many: Mapping[str, float]) -> dict[str, str]:
    found = net.name in right
    return {
        "net": net.name,
        "version": str(net.version) if found else "refused",
        "weights": f"{net.num_weights:,}",
        "graph, kB": f"{net.size_bytes / 1000:.0f}" if net.size_bytes else "–",
        "right as served": f"{right[net.name]:.2%}" if found else "–",
        "request of 1, ms": f"{one[net.name]:.2f}" if found else "–",
        f"request of {_ROWS}, ms": f"{many[net.name]:.2f}" if found else "–",
    }
