"""`naiad models diff`: in what two versions differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from naiad.cli._console import err, out, print_json
from naiad.cli.models._common import DEFAULT, JsonOption, ModelArgument, RepositoryOption, finite, open_repository
from naiad.cli.models._words import size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from naiad.export import VersionDiff

_HASH_LENGTH = 40
_MAX_WORDS = 60


def diff(
    model: ModelArgument,
    a: Annotated[int | None, typer.Argument(help="A version; by default the newest that is served.")] = None,
    b: Annotated[int | None, typer.Argument(help="The version to compare it with; by default the newest.")] = None,
    repository: RepositoryOption = DEFAULT,
    other_repository: Annotated[
        str | None, typer.Option("--other-repository", help="Where B is, if it is in another repository.")
    ] = None,
    other_model: Annotated[str | None, typer.Option("--other-model", help="B's model, if it is another.")] = None,
    answers: Annotated[bool, typer.Option(help="Run both with the golden requests of both.")] = True,
    max_changed: Annotated[
        str | None,
        typer.Option(metavar="SHARE", help="Fail if more rows than this, as in 0.5%, are decided otherwise."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two versions: contract, files, how they were made, parity, latency, and what they answer.

    Exit code 0 if B can take A's place for every client of A, 1 if it would break one, or exceeds --max-changed.

    Examples:

        naiad models diff digits 1 2

        naiad models diff digits --max-changed 0.5%

        naiad models diff digits 3 1 --other-repository s3://models/production

        naiad models diff digits 2 1 --other-model digits-v2 --no-answers --json
    """
    limit = None if max_changed is None else _share(max_changed)
    repo = open_repository(repository)
    other = open_repository(other_repository) if other_repository is not None else None
    first = a if a is not None else _newest(repo.served(model) or repo.versions(model), model)
    second = b if b is not None else _newest((other or repo).versions(other_model or model), other_model or model)
    if first == second and other is None and other_model is None:
        raise typer.BadParameter(f"expected two versions of {model}, found {first} twice", param_hint="B")
    with err.status("compare …"):
        found = repo.diff(model, first, second, other=other, other_model=other_model, answers=answers)
    if as_json:
        print_json(finite(found.to_dict()))
    else:
        _show(found)
    beyond = None if limit is None else _beyond(found, limit)
    if beyond:
        err.print(beyond, markup=False)
    if found.breaking or beyond:
        raise typer.Exit(1)


def _share(text: str) -> float:
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise typer.BadParameter(f"expected a share as 0.5% or 0.005, found {text!r}", param_hint="--max-changed")
    return share


def _beyond(found: VersionDiff, limit: float) -> str | None:
    """Return why the answers are too far apart, or cannot be judged."""
    if found.note:
        return f"--max-changed cannot be judged: {found.note}"
    for each in found.answers:
        if each.changed_share is not None and each.changed_share > limit:
            return f"{each.changed_share:.2%} of the rows of {each.output} are decided otherwise, more than {limit:.2%}"
    return None


def _newest(versions: tuple[int, ...], model: str) -> int:
    if not versions:
        raise typer.BadParameter(f"{model} has no version to compare", param_hint="MODEL")
    return versions[-1]


def _show(found: VersionDiff) -> None:
    table = Table("")
    for column in ("what", found.a, found.b, ""):
        table.add_column(column, overflow="fold")  # the end of a name or value is where it differs
    for part, rows in _parts(found):
        for index, row in enumerate(rows):
            table.add_row(*map(Text, (part if index == 0 else "", *row)), end_section=index == len(rows) - 1)
    out.print(table)
    if found.note:
        out.print(f"answers were not compared: {found.note}", markup=False)
    words = [
        f"{change.subject} is {change.before} in {found.a} and {change.after} in {found.b}" for change in found.breaking
    ]
    if words:
        out.print(f"{found.b} would break clients of {found.a}: {'; '.join(words)}", markup=False)
    else:
        out.print(f"{found.b} can take the place of {found.a}: the contract breaks no client", markup=False)


def _parts(found: VersionDiff) -> Iterator[tuple[str, list[tuple[str, str, str, str]]]]:
    yield (
        "contract",
        [(each.subject, each.before, each.after, "breaking" if each.breaking else "") for each in found.contract],
    )
    yield "files", [(each.name, size(each.before), size(each.after), "") for each in found.files]
    yield "made", [(_made(each.name), _word(each.before), _word(each.after), "") for each in found.made]
    yield (
        "parity",
        [(f"error of {each.name}", _number(each.before), _number(each.after), "") for each in found.parity],
    )
    yield (
        "latency",
        [
            (
                _batch(each.name),
                _ms(each.before),
                _ms(each.after),
                _ratio(each.before, each.after),
            )
            for each in found.latency
        ],
    )
    yield "answers", [(each.output, *_answer(each)) for each in found.answers]


def _answer(each: Any) -> tuple[str, str, str]:
    apart = f"{each.max_abs_difference:.2g} apart ({each.max_rel_difference:.2g} of the largest value)"
    changed = f"{each.num_changed} of {each.num_rows} rows decide otherwise" if each.num_changed is not None else ""
    return "", apart, changed


def _made(name: str) -> str:
    """Return `option epochs` for `source.options.epochs`."""
    return name.removeprefix("source.").replace("options.", "option ", 1)


def _batch(name: str) -> str:
    return f"batch {name}" if name != "0" else "one request"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.3g} ms"


def _ratio(before: float | None, after: float | None) -> str:
    if not before or not after:
        return ""
    return f"{before / after:.2f} × as fast" if after < before else f"{after / before:.2f} × as long"


def _word(value: Any) -> str:
    """Return a value of a manifest as it fits a column: hashes and long texts are cut."""
    text = "" if value is None else str(value)
    if len(text) >= _HASH_LENGTH and all(character in "0123456789abcdef" for character in text):
        return f"{text[:12]}…"
    return text if len(text) <= _MAX_WORDS else f"{text[: _MAX_WORDS - 1]}…"
