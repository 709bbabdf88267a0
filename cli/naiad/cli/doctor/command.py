"""`naiad doctor`: asks the groups, and prints what they answer."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated, Final

import typer
from rich.table import Table
from rich.text import Text

from naiad.cli._console import out, print_json
from naiad.cli.doctor._check import Check, works

_STYLES: Final = {"ok": "green", "missing": "yellow", "broken": "bold red"}


class Group(StrEnum):
    """What can be asked for by name."""

    SERVER = "server"
    GPU = "gpu"
    EXPORT = "export"
    CLIENT = "client"
    LOADTEST = "loadtest"


# A group's module is imported when the group is asked for: what it needs may be what is missing.
_GROUPS: Final = {
    Group.SERVER: ("_server", "check_server"),
    Group.GPU: ("_gpu", "check_gpus"),
    Group.EXPORT: ("_others", "check_export"),
    Group.CLIENT: ("_others", "check_client"),
    Group.LOADTEST: ("_others", "check_loadtest"),
}


def doctor(
    groups: Annotated[
        list[Group] | None, typer.Argument(help="What to look at; everything if not given.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Report what this machine has for Naiad, and what to do about what it lacks.

    Each line is ok, missing (which may well be: not every machine has a GPU), or broken. Nothing is fetched, installed
    or started.

    Exit codes: 0, or 1 when a group that is named cannot do what it is for.

    Examples:

        naiad doctor

        naiad doctor gpu && naiad serve --gpus all

        naiad doctor server gpu --json
    """
    found = {group: _checks(group) for group in dict.fromkeys(groups or Group)}
    if as_json:
        print_json(
            {
                group.value: {"works": works(checks), "checks": [asdict(check) for check in checks]}
                for group, checks in found.items()
            }
        )
    else:
        out.print(_table(found.items()))
    if groups and not all(map(works, found.values())):
        raise typer.Exit(1)


def _checks(group: Group) -> list[Check]:
    module, function = _GROUPS[group]
    try:
        return list(getattr(importlib.import_module(f"naiad.cli.doctor.{module}"), function)())
    except ModuleNotFoundError as exc:
        package = (exc.name or "").partition(".")[0]
        advice = f"pip install 'naiad[{'server' if group is Group.GPU else group}]'"
        return [Check(name=package, state="missing", found="not installed", advice=advice, essential=True)]


def _table(found: Iterable[tuple[Group, list[Check]]]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for column in ("state", "name"):
        table.add_column(column, no_wrap=True)
    table.add_column("found", overflow="fold")
    for group, checks in found:
        title = Text(group.value, style="bold")
        table.add_row(title, "", "" if works(checks) else Text("cannot be used here", style="yellow"))
        for check in checks:
            said = f"{check.found} → {check.advice}" if check.advice else check.found
            table.add_row(Text(f"  {check.state}", style=_STYLES[check.state]), check.name, Text(said))
    return table
