"""Run systems of the gallery and write what they found into their pages: the numbers there come from nowhere else.

    python docs/gallery/update.py [NAME ...]

Each page has two marks; what stands between them is replaced by the summary of `naiad demo NAME`.
"""

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from naiad.cli.demo.system import NAMES

PAGES = Path(__file__).parent
_MARKED = re.compile(r"(<!-- naiad demo: what it found -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> int:
    """Update the pages of the systems that were named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all, or some of {', '.join(NAMES)}")
    for name in parser.parse_args().names or NAMES:
        page = PAGES / f"{name}.md"
        text = page.read_text()
        if not _MARKED.search(text):
            sys.exit(f"{page}: expected the marks of a summary, found none")
        found = run(name)
        page.write_text(_MARKED.sub(lambda marks, found=found: marks[1] + summary(found) + marks[2], text))
    return 0


def run(name: str) -> dict[str, Any]:
    """Return the summary of one run in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "naiad.cli", "demo", name, "--json"]
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"naiad demo {name} ended with {done.returncode}: its page is as it was")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def summary(found: dict[str, Any]) -> str:
    """Return a demo's summary as Markdown."""
    lines = ["| | |", "|---|---|", *(f"| {_cell(name)} | {_cell(value)} |" for name, value in found["rows"].items())]
    for title, rows in found["tables"].items():
        columns = list(rows[0])
        lines += ["", f"**{title}**", "", _row(columns), _row(["---"] * len(columns))]
        lines += [_row(list(row.values())) for row in rows]
    when, cores = datetime.datetime.now(tz=datetime.UTC).date(), len(os.sched_getaffinity(0))
    lines += ["", f"(`naiad demo {found['system']}` on {when}, {cores} cores, {platform.machine()}, no GPU.)", ""]
    lines += [f"* {warning}." for warning in dict.fromkeys(found["warnings"])]  # what the load test doubts
    return "\n".join(lines).rstrip() + "\n"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
