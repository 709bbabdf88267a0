"""What `naiad tune` gains over the exported configuration and over Triton's own defaults, confirmed by its A/B runs.

    python benchmarks/tune.py                                  # digits and embeddings, about half an hour
    python benchmarks/tune.py --model digits --slo "p99<10ms" --budget 3m --against current

Each model is exported into a temporary repository first. Prints a table, and the commands that give each row again.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from naiad.loadtest import Machine

NAIAD = (sys.executable, "-m", "naiad.cli")
SLOS = {"digits": "p99<10ms", "embeddings": "p99<50ms"}
QUERIES = ("--shape", "ids=8", "--shape", "mask=8", "--range", "ids=0..30521", "--range", "mask=1..1")
DATA = {"embeddings": QUERIES}  # eight tokens, as of what people search for; golden samples elsewhere


def main() -> None:
    """Export, tune against either configuration, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", choices=sorted(SLOS), help="a recipe; by default all of them")
    parser.add_argument("--slo", help="the objective; by default one for each model")
    parser.add_argument(
        "--against", action="append", choices=("current", "triton"), help="what to beat; by default both"
    )
    parser.add_argument("--budget", default="5m", help="of each search")
    parser.add_argument("--pairs", type=int, default=8, help="of each A/B run")
    parser.add_argument("--repository", type=Path, help="where the models are or go; else a temporary one")
    parser.add_argument("--json", type=Path, help="write everything that was found")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        repository = options.repository or Path(folder) / "models"
        results: list[dict[str, Any]] = []
        for model in options.model or sorted(SLOS):
            known = 0  # both comparisons of a model share a study
            for against in options.against or ("current", "triton"):
                results.append(tune(repository, model, against, known, options))
                known = len(results[-1]["trials"])
    show(results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))


def tune(repository: Path, model: str, against: str, known: int, options: argparse.Namespace) -> dict[str, Any]:
    """Search, or, where ``known`` configurations were tried already, only confirm."""
    if not (repository / model).is_dir():
        subprocess.run(
            [*NAIAD, "export", model, "--repository", str(repository)], check=True, stdout=subprocess.DEVNULL
        )
    study = repository.parent / f"{model}.db"
    arguments = ["tune", model, "--slo", options.slo or SLOS[model], "--against", against, "--budget", options.budget]
    arguments += ["--pairs", str(options.pairs), "--repository", str(repository), "--resume", str(study), "--dry-run"]
    arguments += DATA.get(model, ())
    if known:
        arguments += ["--trials", str(known)]
    done = subprocess.run([*NAIAD, *arguments, "--json"], check=True, stdout=subprocess.PIPE, text=True)
    command = (
        shlex.join(["naiad", *arguments]).replace(str(repository), "model_repository").replace(str(study), "study.db")
    )
    return {**json.loads(done.stdout), "command": command}


def show(results: list[dict[str, Any]]) -> None:
    """Print a table in Markdown."""
    print(f"{Machine.this()}\n")
    print("| model | objective | against | its goodput /s | winner | its goodput /s | A/B ratio (interval) |")
    print("|---|---|---|--:|---|--:|--:|")
    for found in results:
        reference = found["current" if found["against"] == "current" else "triton_default"]
        winner, metric = found["winner"], next(iter((found["confirmation"] or {"metrics": []})["metrics"]), None)
        ratio = (
            "–"
            if metric is None
            else f"{metric['ratio']:.2f} ({metric['interval'][0]:.2f}–{metric['interval'][1]:.2f})"
        )
        print(
            f"| {found['model']} | {', '.join(found['slos'])} | {found['against']}: {reference['text']} "
            f"| {reference['goodput_per_s']:,.0f} | {winner['text'] if winner else found['text']} "
            f"| {winner['goodput_per_s'] if winner else 0:,.0f} | {ratio} |"
        )
    for found in results:
        print(f"\n    {found['command']}")


if __name__ == "__main__":
    main()
