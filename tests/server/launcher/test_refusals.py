"""Repositories that cannot be served as they are."""

import textwrap
from pathlib import Path

import pytest

from launcher_helpers import ask, write_config, write_model
from naiad.server import (
    EmbeddedTriton,
    ModelLoadFailed,
    RepositoryError,
    RepositoryNotFound,
    ServerDied,
    StartTimeout,
    UnknownModel,
    UnsafeName,
)

RAISES = """
    class TritonPythonModel:
        def initialize(self, args):
            raise RuntimeError("no weights")
"""

SLOW = """
    import time

    class TritonPythonModel:
        def initialize(self, args):
            time.sleep(600)
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One model that works."""
    return write_model(tmp_path / "repository", "works")


def test_every_broken_model_is_named_with_its_reason(repository: Path) -> None:
    """One error lists all models that did not load, in a line each, without traceback or private paths."""
    write_model(repository, "raises", source=textwrap.dedent(RAISES))
    write_config(repository, "unversioned")
    _misconfigure(repository, "syntax", 'backend "python"')
    _misconfigure(
        repository,
        "nobackend",
        'name: "nobackend" backend: "nope" input [{ name: "x" data_type: TYPE_FP32 '
        'dims: [ 2 ] }] output [{ name: "y" data_type: TYPE_FP32 dims: [ 2 ] }]',
    )
    (write_model(repository, "corrupt") / "corrupt" / "1" / "model.onnx").write_bytes(b"no protobuf")
    (repository / "corrupt" / "config.pbtxt").write_text(
        'name: "corrupt" backend: "onnxruntime" input [{ name: "x" data_type: TYPE_FP32 dims: [ 2 ] }] '
        'output [{ name: "y" data_type: TYPE_FP32 dims: [ 2 ] }] instance_group [{ kind: KIND_CPU }]'
    )
    with pytest.raises(ModelLoadFailed) as caught:
        EmbeddedTriton(repository).start()
    reasons = caught.value.reasons
    assert sorted(reasons) == ["corrupt", "nobackend", "raises", "syntax", "unversioned"]
    assert "no weights" in reasons["raises"]
    assert "at least one version must be available" in reasons["unversioned"]
    assert 'Expected ":", found ""python""' in reasons["syntax"]
    assert "unable to find backend library for backend 'nope'" in reasons["nobackend"]
    assert "corrupt" in reasons["corrupt"]
    assert "Traceback" not in str(caught.value)
    assert "/tmp/naiad-" not in str(caught.value)


def test_the_others_can_be_served_without_the_broken_one(repository: Path) -> None:
    """With exit_on_load_error off, or when the good models are named, a broken model disturbs nobody."""
    write_model(repository, "raises", source=textwrap.dedent(RAISES))
    with EmbeddedTriton(repository, exit_on_load_error=False) as triton, triton.client() as client:
        assert triton.models == ("works",)
        assert ask(client, "works").tolist() == [[0.0, 0.0]]
    with EmbeddedTriton(repository, models=["works"]) as triton:
        assert triton.models == ("works",)


def test_a_start_that_takes_too_long_is_ended(repository: Path) -> None:
    """A model that never finishes loading gives an error with the end of the log after ready_timeout_s."""
    write_model(repository, "slow", source=textwrap.dedent(SLOW))
    with pytest.raises(StartTimeout, match=r"within 1\.5 s"):
        EmbeddedTriton(repository, ready_timeout_s=1.5).start()


def test_a_server_that_ends_at_once_shows_its_log(repository: Path) -> None:
    """When Triton refuses its arguments, the error has what it printed."""
    with pytest.raises(ServerDied, match="no-such-option") as caught:
        EmbeddedTriton(repository, extra_args=["--no-such-option"]).start()
    assert caught.value.returncode == 1


def test_an_empty_repository_is_served(tmp_path: Path) -> None:
    """A repository without models gives a server without models."""
    with EmbeddedTriton(tmp_path) as triton:
        assert triton.models == ()


def test_a_missing_repository_is_wrong_use(tmp_path: Path) -> None:
    """The error names the path and what to do."""
    with pytest.raises(RepositoryNotFound, match=r"found nothing.*naiad export"):
        EmbeddedTriton(tmp_path / "nowhere").start()


def test_an_unknown_model_is_wrong_use(repository: Path) -> None:
    """A named model that is not there gives an error with those that are."""
    with pytest.raises(UnknownModel, match=r"Expected model 'absent' in .*, found works"):
        EmbeddedTriton(repository, models=["absent"]).start()


@pytest.mark.parametrize("name", ["n$(touch${IFS}x)", "two words", "a;b"])
def test_a_model_name_that_a_shell_would_run_is_refused(repository: Path, name: str) -> None:
    """Triton hands model names to a shell: only harmless ones get there."""
    write_model(repository, name)
    with pytest.raises(UnsafeName, match="letters, digits"):
        EmbeddedTriton(repository).start()


@pytest.mark.parametrize("version", ["3.tmp", "12345678901234567890", "1-old"])
def test_a_version_name_that_triton_mistreats_is_refused(repository: Path, version: str) -> None:
    """Triton would serve `3.tmp` as version 3, and abort on a number with twenty digits."""
    (repository / "works" / version).mkdir()
    with pytest.raises(UnsafeName, match="Rename it or move it out"):
        EmbeddedTriton(repository).start()


def _misconfigure(repository: Path, name: str, config: str) -> None:
    write_model(repository, name)
    (repository / name / "config.pbtxt").write_text(config)


def test_a_python_model_without_its_code_is_refused(repository: Path) -> None:
    """Triton would wait for such a model for ever; a version that the policy leaves out disturbs nobody."""
    (repository / "works" / "2").mkdir()
    with pytest.raises(RepositoryError, match=r"Expected model\.py in version 2 of model 'works'"):
        EmbeddedTriton(repository).start()
    write_config(repository, "works", policy="specific { versions: [ 1 ] }")
    with EmbeddedTriton(repository) as triton:
        assert triton.models == ("works",)


def test_a_stub_that_dies_before_it_starts_is_noticed(repository: Path, tmp_path: Path) -> None:
    """Triton would wait for ever for a process that ends while its environment is prepared."""
    activate = tmp_path / "environment" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.write_text("exit 3\n")
    value = f'value: {{ string_value: "{activate.parent.parent}" }}'
    with open(repository / "works" / "config.pbtxt", "a") as config:
        config.write(f'parameters {{ key: "EXECUTION_ENV_PATH" {value} }}\n')
    with pytest.raises(ServerDied, match="A Python process died while models were loading"):
        EmbeddedTriton(repository).start()


def test_a_stub_that_dies_while_loading_is_noticed(repository: Path) -> None:
    """A process that is killed while it imports the model fails that model, at once."""
    write_model(repository, "deadly", source="import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    with pytest.raises(ModelLoadFailed, match="deadly: Stub process 'deadly_0_0' is not healthy"):
        EmbeddedTriton(repository).start()
