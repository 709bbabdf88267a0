"""What is published was linted before, and `naiad models lint` says what became of a repository since."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2
from typer.testing import CliRunner, Result

from export_helpers import Scores, contents, rows
from lint_entries import write_all
from lint_writers import ensemble, entry, step
from naiad.cli.app import app
from naiad.export import CheckFailed, Repository, export, find_target
from naiad.export._lint import staged
from naiad.export.repository import Candidate


def candidate(place: Path, name: str = "model", **settings: Any) -> Candidate:
    """A candidate of the plainest model, with its files in a stage."""
    write_all(place, {name: entry(**settings)})
    config = text_format.Parse((place / name / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    labels = place / "labels"
    labels.mkdir(exist_ok=True)
    return Candidate(
        model=name, config=config, files=place / name / "1", labels=labels, settings={}, manifest={"made": "here"}
    )


def naiad(repository: Path, *args: str) -> Result:
    return CliRunner().invoke(app, ["models", "lint", *args, "-r", str(repository)], catch_exceptions=True)


class TestBeforePublishing:
    def test_what_would_not_load_is_refused(self, tmp_path: Path) -> None:
        """An entry that a server would refuse is refused with the reasons, and the stage is left as it was."""
        wrong = candidate(tmp_path / "stage", dynamic_batching={"preferred_batch_size": [64]})
        before = contents(tmp_path / "stage")
        with pytest.raises(CheckFailed, match=r"would refuse it: dynamic_batching\.preferred_batch_size") as caught:
            staged.check_all([wrong], Repository(_empty(tmp_path)), tmp_path / "stage", find_target())
        assert len(caught.value.findings) == 1
        assert contents(tmp_path / "stage") == before

    def test_a_warning_becomes_a_finding(self, tmp_path: Path) -> None:
        """What a server would accept, and is probably not meant, is told and not refused."""
        odd = candidate(tmp_path / "stage", dynamic_batching={"max_queue_delay_microseconds": 5_000_000})
        (found,) = staged.check_all([odd], Repository(_empty(tmp_path)), tmp_path / "stage", find_target())
        assert found.check == "lint"
        assert "5 seconds" in found.message

    def test_a_new_version_is_linted_with_the_configuration_that_stays(self, tmp_path: Path) -> None:
        """An existing model keeps its own configuration, and the new version's files must fit that."""
        repo = Repository(_empty(tmp_path))
        repo.publish(candidate(tmp_path / "first"))
        changed = candidate(tmp_path / "stage", dynamic_batching={"preferred_batch_size": [64]})
        assert staged.check_all([changed], repo, tmp_path / "stage", find_target()) == ()
        (tmp_path / "stage" / "model" / "1" / "model.onnx").write_bytes(b"no graph")
        with pytest.raises(CheckFailed, match="no ONNX file"):
            staged.check_all([changed], repo, tmp_path / "stage", find_target())

    def test_an_ensemble_is_linted_with_its_steps(self, tmp_path: Path) -> None:
        """Candidates that belong together see each other, and each is named in what is wrong with it."""
        part = candidate(tmp_path / "part", "part")
        write_all(tmp_path / "stage", {"whole": ensemble([step("part", model_version=7)], max_batch_size=8)})
        text = (tmp_path / "stage" / "whole" / "config.pbtxt").read_text()
        whole = Candidate(
            model="whole",
            config=text_format.Parse(text, model_config_pb2.ModelConfig()),
            files=tmp_path / "stage" / "whole" / "1",
            labels=tmp_path / "none",
            settings={},
            manifest={},
        )
        with pytest.raises(CheckFailed, match="whole, max_batch_size: the ensemble allows batches of 8") as caught:
            staged.check_all([part, whole], Repository(_empty(tmp_path)), tmp_path / "stage", find_target())
        assert len(caught.value.findings) == 1

    def test_an_export_says_what_it_is_for(self, tmp_path: Path) -> None:
        """The release goes into the manifest; one that is newer than all known becomes a finding of the report."""
        version = export(
            Scores(),
            "scores",
            samples=[(rows(4, 4),)],
            repository=tmp_path / "models",
            max_batch_size=4,
            target="31.02",
        )
        repo = Repository(tmp_path / "models")
        manifest = repo.manifest("scores", 1)
        assert (manifest["target"]["release"], manifest["target"]["asked"]) == (find_target("31.02").release, "31.02")
        assert version.report is not None
        assert "31.02 is newer" in next(each.message for each in version.report.findings if each.check == "target")
        assert repo.version("scores", 1).report == version.report
        assert repo.lint() == ()

    def test_a_graph_that_the_release_cannot_read_is_refused(self, tmp_path: Path) -> None:
        """PyTorch writes a file format that releases before 24.05 do not read."""
        with pytest.raises(CheckFailed, match=r"Triton 23\.10 .*choose a later target"):
            export(
                Scores(),
                "scores",
                samples=[(rows(4, 4),)],
                repository=tmp_path / "models",
                max_batch_size=4,
                target="23.10",
            )
        assert Repository(tmp_path / "models").models() == ()


class TestTheCommand:
    def test_says_how_many_are_sound(self, tmp_path: Path) -> None:
        """A sound repository is one line and exit code 0."""
        write_all(tmp_path / "models", {"good": entry(), "better": entry()})
        done = naiad(tmp_path / "models")
        assert (done.exit_code, done.stdout.strip()) == (0, "2 models: 0 errors, 0 warnings")

    def test_an_error_fails_and_a_warning_does_not(self, tmp_path: Path) -> None:
        """Exit code 1 for an error; each finding is a line with its severity, its place and what to do."""
        write_all(tmp_path / "models", {"bad": entry(max_batch_size=8, inputs={}), "slow": entry(instance_group=[])})
        bad, slow = naiad(tmp_path / "models", "bad"), naiad(tmp_path / "models", "slow")
        assert bad.exit_code == 1
        assert "error (does not load) bad/config.pbtxt, input: no input is configured" in " ".join(bad.stdout.split())
        assert slow.exit_code == 0
        assert "warning (advice) slow/config.pbtxt, instance_group: 2 instances" in " ".join(slow.stdout.split())
        assert naiad(tmp_path / "models", "bad", "--auto-complete").exit_code == 0

    def test_gives_json(self, tmp_path: Path) -> None:
        """Findings for machines have their rule, effect and place."""
        write_all(tmp_path / "models", {"bad": entry(outputs={"z": "FP32[3]"})})
        done = naiad(tmp_path / "models", "--json", "--target", "24.10")
        assert done.exit_code == 1
        (found,) = json.loads(done.stdout)
        assert {found[key] for key in ("severity", "rule", "model", "file", "field")} == {
            "error",
            "signature.known_outputs",
            "bad",
            "config.pbtxt",
            "output.z",
        }


def _empty(tmp_path: Path) -> Path:
    path = tmp_path / "repository"
    path.mkdir(exist_ok=True)
    return path
