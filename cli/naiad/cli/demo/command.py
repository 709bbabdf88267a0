"""The command: which system, where its models and reports go, and how the result is shown."""

from __future__ import annotations

import math
import time
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from naiad.cli._console import out, print_json
from naiad.cli.demo.stage import Stage
from naiad.cli.demo.system import NAMES, System, find_system, other_recipes

if TYPE_CHECKING:
    from naiad.export import Repository


def demo(
    name: Annotated[str, typer.Argument(help="A system of the gallery (--list shows them), or any recipe.")] = NAMES[0],
    list_: Annotated[bool, typer.Option("--list", help="Say which systems there are, and what each shows.")] = False,
    repository: Annotated[
        Path, typer.Option("--repository", "-r", help="Where the models are published; created if it is missing.")
    ] = Path("model_repository"),
    report: Annotated[
        Path | None, typer.Option(help="The folder that reports go to.", show_default="runs/demo/NAME")
    ] = None,
    duration: Annotated[
        float | None, typer.Option(min=1, help="Length of the load test in seconds; as the scenario says.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="NAME=VALUE", help="An option of the system; --list shows them."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Train, export, serve, call and load-test a system of the gallery, the whole way to its measured service.

    Everything is real: the nets and their training or trained weights, Triton, gRPC, and the requests. Without a name:
    a classifier of handwritten digits. The first time, Triton (55 MB) is fetched, and for some systems weights or data.
    docs/gallery has a page for each.

    Examples:

        naiad demo

        naiad demo --list

        naiad demo dense --duration 30

        naiad demo mnist -o data=~/mnist --report /tmp/report

        naiad demo my_recipe.py
    """
    if list_:
        _list(as_json=json)
        return
    try:
        system = find_system(name)
    except LookupError as exc:
        raise typer.BadParameter(str(exc.args[0]), param_hint="NAME") from None
    options = _options(system, option or [])
    if duration is not None and not math.isfinite(duration):
        raise typer.BadParameter(f"expected seconds, found {duration:g}", param_hint="--duration")
    folder = _folder(report or Path("runs/demo") / system.name)
    stage = Stage(system.name, repository=_repository(repository), folder=folder, duration_s=duration, options=options)
    started = time.monotonic()
    system.run(stage)
    summary = stage.summary
    took_s = time.monotonic() - started
    summary.row("took", f"{took_s:.0f} s", took_s=took_s)
    if json:
        summary.print_json(system.name)
    else:
        summary.show(f"naiad demo {system.name}", last=f"Serve it yourself: naiad serve {repository}")
    if not summary.passed:
        raise typer.Exit(1)


def _list(*, as_json: bool) -> None:
    systems = [find_system(name) for name in NAMES]
    if as_json:
        fields = ("name", "title", "shows", "recipes", "about_s", "options")
        print_json([{field: getattr(system, field) for field in fields} for system in systems])
        return
    table = Table(box=None, pad_edge=False)
    for column in ("NAME", "WHAT IT DOES", "SHOWS", "ABOUT"):
        table.add_column(column, overflow="fold")
    for system in systems:
        table.add_row(f"[bold]{system.name}[/]", system.title, ", ".join(system.shows), f"{system.about_s} s")
        for option, meaning in system.options.items():
            table.add_row("", f"[dim]-o {option}=…  {meaning}[/]")
    out.print(table)
    if others := other_recipes():
        out.print(f"\nThe whole way also for other recipes, and for your own files: {', '.join(others)}")


def _folder(folder: Path) -> Path:
    from naiad.loadtest import check_writable

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise typer.BadParameter(
            f"expected a folder that can be written to, found {exc.strerror}", param_hint="--report"
        ) from exc
    check_writable(folder / "report.html")
    return folder


def _repository(path: Path) -> Repository:
    from naiad.export import Repository

    found = Repository(path)
    with found.stage():  # refuse what cannot be written to before anything is trained
        pass
    return found


def _near(name: str, system: System) -> str:
    near = get_close_matches(name, system.options, n=1)
    return f" (did you mean {near[0]}=…?)" if near else ""


def _options(system: System, given: list[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or name not in system.options:
            known = ", ".join(f"{each}=…" for each in system.options) or f"none, as {system.name} has no options"
            raise typer.BadParameter(f"expected {known}; found {item!r}{_near(name, system)}", param_hint="--option")
        options[name] = value
    return options
