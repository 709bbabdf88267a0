"""The command line of `benchmarks/gpu.sh`."""

from __future__ import annotations

import argparse
import re
import shlex
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import NoReturn

from gpu.run import DONE, FAILED, PARTS, USAGE, Options, Run, say

_RESULTS = Path(__file__).resolve().parents[1] / "results"
_SIZES = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
_TIMES = {"": 1, "s": 1, "m": 60}

_USAGE = """\
The GPU benchmark: sets itself up in a temporary directory, runs tests/gpu, and measures what serving costs on this GPU.

examples:
  gpu.sh                                      Naiad is installed in this Python: measure
  gpu.sh wheels carry --assume there.json     where there is a network: collect what a machine without one needs;
                                              there.json is that machine's `pip list --format=json`
  gpu.sh --wheels carry --work w              on that machine: set up in w, and measure for nine minutes
  gpu.sh --wheels carry --work w              again: go on where it stopped (w/state.json says where)
  gpu.sh --work w --device cpu --quick        a rehearsal without a GPU: tiny nets, marked as such

exit codes: 0 all is done, 1 something failed, 2 wrong usage, 3 the time is over and something is left.
"""
_WHEELS_USAGE = """\
Collect the wheels that a machine without network needs, divided into folders part-1, part-2, … of a limited size.

examples:
  gpu.sh wheels carry --assume there.json --part-size 50MB
  gpu.sh wheels carry --python 3.12 --libpython /usr/lib/x86_64-linux-gnu/libpython3.12.so.1.0
  gpu.sh wheels carry --onnxruntime-gpu       with the CUDA build of ONNX Runtime (250 MB); without, only PyTorch's
                                              compiled packages are measured where the machine has none
"""


def main(arguments: list[str]) -> int:
    """Run the command; gives its exit code."""
    if arguments[:1] == ["--task"]:
        signal.signal(signal.SIGTERM, _stop)
        from gpu.tasks import run_task

        return run_task()
    if arguments[:1] == ["wheels"]:
        return _wheels(arguments[1:])
    signal.signal(signal.SIGTERM, _stop)
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        say("interrupted; what was finished is kept")
        return 130


def _run(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="gpu.sh", description=_USAGE, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--wheels", type=Path, help="the parts from `gpu.sh wheels`; without, Naiad is installed here")
    parser.add_argument("--work", type=Path, help="a directory to set up in and to resume from; by default a new one")
    parser.add_argument(
        "--results", type=Path, help="where the report goes (default benchmarks/results; of a rehearsal, WORK/results)"
    )
    parser.add_argument("--parts", type=_parts, default=PARTS, help=f"some of {','.join(PARTS)}; setup is always there")
    parser.add_argument("--budget", type=_seconds, default="540s", help="begin nothing that would not end within it")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    parser.add_argument("--quick", action="store_true", help="tiny nets and few batches: a rehearsal")
    given = parser.parse_args(arguments)
    if given.wheels is not None and not given.wheels.is_dir():
        parser.error(f"expected a directory with part-1, part-2, … for --wheels, found none at {given.wheels}")
    work = (given.work or Path(tempfile.mkdtemp(prefix="naiad-gpu-"))).absolute()
    rehearsal = given.quick or given.device == "cpu"
    options = Options(
        work=work,
        wheels=None if given.wheels is None else given.wheels.absolute(),
        results=(given.results or (work / "results" if rehearsal else _RESULTS)).absolute(),
        parts=given.parts,
        budget_s=given.budget,
        device=given.device,
        quick=given.quick,
        # Folders by their last name: where they lay is no part of a result.
        command=shlex.join(["benchmarks/gpu.sh", *(argument.rpartition("/")[2] for argument in arguments)]),
    )
    say(f"work directory: {work}")
    try:
        work.mkdir(parents=True, exist_ok=True)
        return Run(options, say).run()
    except (OSError, ValueError) as exc:
        print(f"gpu.sh: {exc}", file=sys.stderr)
        return FAILED


def _wheels(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="gpu.sh wheels",
        description=_WHEELS_USAGE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--python", choices=("3.11", "3.12"), default="3.12", help="of that machine (default 3.12)")
    parser.add_argument("--part-size", type=size_bytes, default="50MB", help="of a folder at most (default 50MB)")
    parser.add_argument("--assume", type=Path, help="what is there: `pip list --format=json`, or name==version lines")
    parser.add_argument("--libpython", type=Path, help="libpython3.X.so.1.0 to carry, for a Python without one")
    parser.add_argument("--onnxruntime-gpu", action="store_true", help="carry ONNX Runtime for CUDA")
    given = parser.parse_args(arguments)
    for path in filter(None, (given.assume, given.libpython)):
        if not path.is_file():
            parser.error(f"expected a file, found none at {path}")
    from gpu.wheels import WheelsError, collect, read_assumed

    try:
        folders = collect(
            given.folder,
            python=given.python,
            part_size=given.part_size,
            assumed=read_assumed(given.assume) if given.assume else {},
            gpu_runtime=given.onnxruntime_gpu,
            libpython=given.libpython,
        )
    except (OSError, ValueError, WheelsError) as exc:
        print(f"gpu.sh wheels: {exc}", file=sys.stderr)
        return FAILED
    for folder in folders:
        say(f"{folder}: {sum(path.stat().st_size for path in folder.iterdir()) / 1e6:.1f} MB")
    return DONE


def size_bytes(text: str) -> int:
    """Read `50MB`, `48MiB` or a number of bytes."""
    found = re.fullmatch(r"(\d+)\s*([a-z]*)", text.strip().lower())
    if found is None or found[2] not in _SIZES:
        raise argparse.ArgumentTypeError(f"expected a size such as 50MB, found {text!r}")
    return int(found[1]) * _SIZES[found[2]]


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([sm]?)", text)
    if found is None or not float(found[1]):
        raise argparse.ArgumentTypeError(f"expected a time such as 540s or 9m, found {text!r}")
    return float(found[1]) * _TIMES[found[2]]


def _parts(text: str) -> tuple[str, ...]:
    named = text.split(",")
    unknown = [name for name in named if name not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(PARTS)}, found {unknown[0]!r}")
    return tuple(named)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """End by an exception, so that what was started is ended too."""
    del frame
    sys.exit(128 + number)


__all__ = ["USAGE", "main", "size_bytes"]
