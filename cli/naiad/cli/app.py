"""The ``naiad`` command: registers the subcommands, and turns every error into one message and an exit code.

Exit codes: 0 done, 1 it failed or a check did not pass, 2 wrong use or wrong input, 130 interrupted. Commands that
measure have more of them (:mod:`naiad.cli._exit`).
"""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import version as distribution_version
from typing import Annotated

import typer

from naiad.cli._console import err, out, print_error
from naiad.cli._interrupts import interrupt_between_imports

app = typer.Typer(
    name="naiad",
    help="From a trained PyTorch model to a measured service on NVIDIA Triton.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

# A command's module imports its room when the command runs, so that `naiad --help` imports none.
_COMMANDS = (
    "demo",
    "export",
    "models",
    "serve",
    "infer",
    "loadtest",
    "report",
    "gate",
    "history",
    "tune",
    "top",
    "audit",
    "deploy",
    "doctor",
)
_GROUPS = frozenset({"models", "report", "deploy"})

# What a missing import says about which extra is not installed.
_EXTRAS = {
    "locust": "loadtest",
    "cloudpickle": "export",
    "yaml": "deploy",
    "httpx": "deploy",
    "cryptography": "export",
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "optuna": "loadtest",
    "platformdirs": "server",
    "psutil": "server",
    "scipy": "loadtest",
    "sklearn": "examples",
    "torch": "export",
}


def _print_version(wanted: bool) -> None:
    if wanted:
        out.print(f"naiad {distribution_version('naiad')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


for _name in _COMMANDS:
    _module = importlib.import_module(f"naiad.cli.{_name}")
    if _name in _GROUPS:
        app.add_typer(_module.app, name=_name)
    else:
        app.command(_name, cls=getattr(_module, "COMMAND_CLASS", None))(getattr(_module, _name))


def main() -> None:
    """Run the command line and leave the process; typer reports wrong use, a closed pipe and Ctrl-C by itself."""
    interrupt_between_imports()
    try:
        app()
    except ModuleNotFoundError as exc:
        sys.exit(_missing_extra(exc))
    except Exception as exc:  # noqa: BLE001  (the one place that turns errors into messages; others fly on)
        sys.exit(_failed(exc))


def _missing_extra(error: ModuleNotFoundError) -> int:
    package = (error.name or "").partition(".")[0]
    extra = _EXTRAS.get(package)
    if extra == "export" and sys.argv[1:2] == ["deploy"]:
        extra = "deploy"  # both need cryptography
    if extra is None:
        raise error
    print_error(f"this command needs the package '{package}', which is not installed: pip install 'naiad[{extra}]'")
    return int(getattr(error, "exit_code", 2))


def _failed(error: Exception) -> int:
    """Report an error of one of the rooms; anything else is our own mistake and keeps its traceback."""
    if not type(error).__module__.startswith("naiad."):
        raise error
    print_error(str(error))
    for note in getattr(error, "__notes__", ()):
        err.print(note, markup=False, highlight=False, soft_wrap=True)
    return int(getattr(error, "exit_code", 2 if isinstance(error, ValueError) else 1))
