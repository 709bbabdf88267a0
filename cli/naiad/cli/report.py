"""``naiad report``: what can be done with the files of a load test afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from naiad.cli._console import out, print_json

app = typer.Typer(help="Show, convert and compare the reports of load tests and gates.", no_args_is_help=True)

_REPORT = typer.Argument(help="A report.json, or the page that was made with it.")


@app.command()
def show(
    report: Annotated[Path, _REPORT],
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Print a report.

    Examples:

        naiad report show report.json

        naiad report show report.html --json
    """
    content = _read(report)
    if json:
        print_json(content)
    elif content["kind"] == "gate":
        out.print(content["text"], markup=False)
        for metric in content["metrics"]:
            out.print(f"  {metric['text']}", markup=False)
    else:
        from naiad.cli.loadtest.summary import print_report

        print_report(content)


@app.command()
def html(
    report: Annotated[Path, _REPORT],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write.")],
) -> None:
    """Make the page of a report: one file that loads nothing from elsewhere.

    Example:

        naiad report html report.json -o report.html
    """
    from naiad.loadtest._report.files import write_atomically
    from naiad.loadtest._report.writing import html_of

    write_atomically(output, html_of(_read(report)))
    out.print(f"written: {output}", markup=False)


@app.command()
def csv(
    report: Annotated[Path, _REPORT],
    output: Annotated[Path, typer.Option("--output", "-o", help="For the points over time; percentiles go beside it.")],
) -> None:
    """Write the curves of a report as CSV: the points over time, and the percentiles beside them.

    Example:

        naiad report csv report.json -o run.csv
    """
    from naiad.loadtest._report.files import check_writable, write_atomically
    from naiad.loadtest._report.writing import files_of

    files = files_of(_run(report), csv=output)
    for path in files:
        check_writable(path)
    for path, text in files.items():
        write_atomically(path, text)
        out.print(f"written: {path}", markup=False)


@app.command()
def compare(
    old: Annotated[Path, typer.Argument(help="The report.json of the run before.")],
    new: Annotated[Path, typer.Argument(help="The report.json of the run after.")],
    html: Annotated[
        Path | None, typer.Option(help="Write the comparison as a page, both runs laid over each other.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Compare two runs: the ratio of each metric with its interval, and what else differs between them.

    It judges nothing: two runs of one unchanged server differ, too. `naiad gate` measures in pairs, and judges.

    Examples:

        naiad report compare before.json after.json

        naiad report compare before.json after.json --html comparison.html
    """
    from naiad.loadtest._report.comparison import cautions, differences, ratios
    from naiad.loadtest._report.files import check_writable, write_atomically

    if html is not None:
        check_writable(html)
    before, after = _run(old), _run(new)
    found = ratios(before, after)
    if json:
        print_json(
            {
                "ratios": [item.to_json() for item in found],
                "differences": [
                    dict(zip(("name", "old", "new"), row, strict=True)) for row in differences(before, after)
                ],
                "warnings": list(cautions(before, after)),
            }
        )
    else:
        for item in found:
            out.print(f"{item.metric:<12}{item.text}", markup=False)
        for text in cautions(before, after):
            out.print("[yellow]warning:[/] ", end="")
            out.print(text, markup=False)
    if html is not None:
        from naiad.loadtest import compare_html

        write_atomically(html, compare_html(before, after))


def _read(path: Path) -> dict[str, Any]:
    from naiad.loadtest import Report

    return Report.read(path)


def _run(path: Path) -> dict[str, Any]:
    """Read a report of a run; a gate's result has no curves."""
    content = _read(path)
    if content["kind"] == "gate":
        from naiad.loadtest import InvalidReport

        raise InvalidReport(
            f"expected the report of a run in {path}, found the result of a gate: make its page with naiad report html",
            path=str(path),
        )
    return content
