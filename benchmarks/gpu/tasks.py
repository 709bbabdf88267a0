"""What runs inside the environment: orders as JSON on standard input, answers as lines of JSON on standard output."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gpu.plan import FULL, QUICK, Variant


def run_task() -> int:
    """Do what the order says; an answer is a line, an exception is the last one."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes to the log
    order = json.loads(sys.stdin.read())
    try:
        for answer in _DO[order.pop("task")](**order):
            answers.write(json.dumps(answer) + "\n")
    except Exception as exc:  # noqa: BLE001 - it is told to who asked
        import traceback

        traceback.print_exc()
        answers.write(json.dumps({"error": f"{type(exc).__name__}: {exc}"}) + "\n")
    return 0


def _inspect(device: str, quick: bool) -> Iterator[Any]:
    from gpu import machine

    yield machine.inspect(device=device, quick=quick)


def _models(variants: list[dict[str, str]], jobs: int, quick: bool, folder: str, device: str) -> Iterator[Any]:
    from gpu import models

    scale = QUICK if quick else FULL
    wanted = [Variant(**variant) for variant in variants]
    for variant, result, seconds in models.publish_all(wanted, scale, Path(folder), device, jobs):
        yield {"model": variant.name, "result": result, "seconds": seconds}


def _cells(
    variant: dict[str, str],
    quick: bool,
    repository: str,
    device: str,
    uuid: str | None,
    cells: list[str],
    left_s: float,
) -> Iterator[Any]:
    from gpu import matrix

    until = time.monotonic() + left_s
    scale = QUICK if quick else FULL
    for cell, result, seconds in matrix.measure(
        Variant(**variant), scale, Path(repository), cells=cells, device=device, uuid=uuid, until=until
    ):
        yield {"cell": cell, "result": result, "seconds": seconds}


_DO: dict[str, Callable[..., Iterator[Any]]] = {"inspect": _inspect, "models": _models, "cells": _cells}
