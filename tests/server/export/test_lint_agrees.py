"""The linter and the real Triton give the same verdict on good and bad entries of a model repository."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from lint_entries import ENTRIES, INCOMPLETE, STOPPING, write_all
from lint_random import ensembles
from naiad.export import lint
from naiad.server import EmbeddedTriton

Verdict = Literal["loads", "does not load", "stops the server"]
RELEASE = "24.10"
"""The embedded server's own."""
_REFUSED_HERE = ("does not load", "needs a GPU", "not with naiad serve")
_NUM_LOADERS = 2
_NUM_RANDOM = 100
_LATER = "NVIDIA's backend finds out at the first request, Naiad's when it loads the model"
_OLDER = "the ONNX Runtime and the backend of that release are older than those of the embedded server"
_THERE = "a path outside the repository may well be on the server's machine, if it is another"
EXCEPTIONS: Mapping[str, tuple[Verdict, str]] = {
    "scalar_batched": ("does not load", _LATER),
    "state_of_nothing": ("does not load", _LATER),
    "operator_library": ("does not load", _THERE),
    "newer_opset": ("loads", _OLDER),
    "newer_format": ("loads", _OLDER),
    "bfloat16": ("loads", _OLDER),
}
"""What the embedded server says where it differs from the linter, and why: in the first two the linter says that the
model would be served wrongly, in the third it warns."""
CRASHES_AT_TIMES = ("warm_extra_input",)
"""Triton refuses these, or ends: of 25 loads it ended at 11."""


class Loader:
    """Loads entries into a real server, and notices when one ends it."""

    def __init__(self, triton: EmbeddedTriton) -> None:
        self._client = triton_grpc.InferenceServerClient(triton.grpc_address)
        self._secret = {"triton-grpc-protocol-admin-key": triton.admin_secret}

    def verdict(self, name: str) -> Verdict:
        """Load an entry and say what came of it."""
        try:
            self._client.load_model(name, headers=self._secret, client_timeout=120.0)
        except InferenceServerException as exc:
            return "stops the server" if exc.status() == "StatusCode.UNAVAILABLE" else "does not load"
        return "loads"

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def verdicts(repository: Path, names: Sequence[str], *, auto_complete: bool = False) -> dict[str, Verdict]:
    """Load every entry; where the server is lost, a new one goes on with the rest.

    A busy machine can stall a Python stub for longer than Triton tolerates, so that only what ends its server when it
    is alone is said to end it.
    """
    found: dict[str, Verdict] = {}
    while rest := [name for name in names if name not in found]:
        with _loader(repository, auto_complete=auto_complete) as loader, ThreadPoolExecutor(_NUM_LOADERS) as pool:
            answers = list(pool.map(loader.verdict, rest))
        lost = [name for name, verdict in zip(rest, answers, strict=True) if verdict == "stops the server"]
        found |= {name: verdict for name, verdict in zip(rest, answers, strict=True) if name not in lost}
        for name in lost[:_NUM_LOADERS]:
            with _loader(repository, auto_complete=auto_complete) as loader:
                found[name] = loader.verdict(name)
    return found


class _loader:
    """A server with nothing loaded."""

    def __init__(self, repository: Path, *, auto_complete: bool) -> None:
        options = {"models": (), "supervise": False, "ready_timeout_s": 150.0, "auto_complete": auto_complete}
        self._triton = EmbeddedTriton(repository, **options)

    def __enter__(self) -> Loader:
        self._loader = Loader(self._triton.start())
        return self._loader

    def __exit__(self, *_: object) -> None:
        self._loader.close()
        self._triton.stop()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lint") / "models"
    write_all(path, ENTRIES)
    return path


@pytest.fixture(scope="module")
def served(repository: Path) -> Mapping[str, Verdict]:
    return verdicts(repository, list(ENTRIES))


def linted(repository: Path, name: str, *, auto_complete: bool = False) -> Verdict:
    """What the linter expects of the embedded server, on a machine without a GPU."""
    effects = {found.effect for found in lint(repository / name, target=RELEASE, auto_complete=auto_complete)}
    if "stops the server" in effects:
        return "stops the server"
    return "does not load" if effects.intersection(_REFUSED_HERE) else "loads"


@pytest.mark.parametrize("name", ENTRIES)
def test_verdicts_agree(repository: Path, served: Mapping[str, Verdict], name: str) -> None:
    """What the linter finds fatal does not load, and all else does."""
    expected = linted(repository, name)
    if name in EXCEPTIONS:
        assert (served[name], expected) == (EXCEPTIONS[name][0], expected)
        assert served[name] != expected, "the two agree, so that this is no exception any more"
    elif name in CRASHES_AT_TIMES:
        assert (expected, served[name] == "loads") == ("stops the server", False)
    else:
        assert served[name] == expected, [str(found) for found in lint(repository / name, target=RELEASE)]


def test_entries_are_of_both_kinds(served: Mapping[str, Verdict]) -> None:
    """The entries would tell a linter that accepts everything, or refuses everything, from this one."""
    found = list(served.values())
    assert found.count("loads") >= 40
    assert found.count("does not load") >= 40
    assert len(EXCEPTIONS) <= 6


def test_verdicts_agree_where_the_server_completes(tmp_path: Path) -> None:
    """A server with auto-complete loads what has no inputs, outputs or configuration, where the graph says them all."""
    write_all(tmp_path / "models", INCOMPLETE)
    found = verdicts(tmp_path / "models", list(INCOMPLETE), auto_complete=True)
    assert found == {name: linted(tmp_path / "models", name, auto_complete=True) for name in INCOMPLETE}
    assert set(found.values()) == {"loads", "does not load"}


def test_verdicts_agree_on_ensembles_made_at_random(tmp_path: Path) -> None:
    """Steps that read, write and connect at random, sound or not, get the real server's verdict."""
    made = ensembles(_NUM_RANDOM, seed=8)
    write_all(tmp_path / "models", made)
    found = verdicts(tmp_path / "models", list(made))
    differing = {name: found[name] for name in made if found[name] != linted(tmp_path / "models", name)}
    assert differing == {}
    assert list(found.values()).count("loads") >= 5
    assert list(found.values()).count("does not load") >= 5


def test_a_number_that_is_too_large_ends_the_server(tmp_path: Path) -> None:
    """A version directory of twenty digits ends the real server, and the linter says so."""
    write_all(tmp_path / "models", STOPPING)
    assert verdicts(tmp_path / "models", list(STOPPING)) == {"too_large_version": "stops the server"}
    assert linted(tmp_path / "models", "too_large_version") == "stops the server"
