"""The verbs of `naiad models` as a user runs them: what they print, as words and as JSON, and their exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from naiad.cli.app import app
from naiad.cli.models import _words
from naiad.export import NotTrusted, Repository
from verbs_helpers import publish_graph


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    """Three versions, of which the last is served."""
    repo = Repository(tmp_path / "models")
    created = (datetime.now(UTC) - timedelta(hours=3, minutes=10)).isoformat()
    for seed, precision in enumerate(("fp32", "fp32", "int8")):
        report: dict[str, Any] = {"batches": [], "num_cases": 0, "parity": [], "findings": [], "size_bytes": 1}
        report["latency"] = [{"batch": 8, "median_ms": 3.0 - seed}]
        publish_graph(repo, seed=seed, precision=precision, report=report, created=created)
    return repo


def naiad(repo: Repository, *args: str, **environment: str) -> Result:
    """Run the command in this process; an error of a room comes as the exception, as `main` gets it."""
    return CliRunner(env=environment).invoke(app, ["models", *args, "-r", str(repo.path)], catch_exceptions=True)


def as_json(repo: Repository, *args: str) -> Any:
    done = naiad(repo, *args, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_lists_say_what_matters_at_a_glance(repo: Repository) -> None:
    """Served, precision, age, size and signature of each model, and of each of its versions, newest first."""
    words = naiad(repo, "list").stdout
    assert [word in words for word in ("linear", "int8", "1, 2, 3", "3 hours ago", "kB")] == [True] * 5
    versions = naiad(repo, "list", "linear").stdout
    assert versions.index("served") < versions.index("next rollback")
    (model,) = as_json(repo, "list")
    assert (model["model"], model["versions"], model["served"]) == ("linear", [1, 2, 3], [3])
    assert [each["precision"] for each in model["details"]] == ["fp32", "fp32", "int8"]
    assert model["size_bytes"] == sum(each["size_bytes"] for each in model["details"])


def test_what_cannot_be_read_does_not_hide_the_rest(repo: Repository) -> None:
    """A broken configuration or manifest is named in its row, and the other models and versions are shown."""
    publish_graph(repo, "other")
    (repo.path / "other" / "config.pbtxt").write_text("nonsense")
    (repo.path / "linear" / "2" / "manifest.json").write_text("{")
    linear, other = as_json(repo, "list")
    assert "not a Triton model configuration" in other["error"]
    assert "is not JSON" in linear["details"][1]["problem"]
    assert naiad(repo, "list").exit_code == 0
    assert naiad(repo, "list", "linear").exit_code == 0


def test_an_empty_repository_says_what_to_do(tmp_path: Path) -> None:
    """No models yet: the command that publishes one."""
    (tmp_path / "models").mkdir()
    assert "publish one with: naiad export RECIPE -r" in naiad(Repository(tmp_path / "models"), "list").stdout


def test_show_has_files_signatures_and_history(repo: Repository) -> None:
    """One version with its hashes, its age, who signed it and the last acts."""
    repo.promote("linear", 2, reason="mistakes")
    words = naiad(repo, "show", "linear").stdout
    assert "linear version 2" in words
    for text in ("SHA-256", "3 hours ago", "signed by", "mistakes"):
        assert text in words
    details = as_json(repo, "show", "linear", "3")
    assert (details["version"], details["served"], details["signed_by"]) == (3, [2], [])


def test_a_promotion_says_what_clients_will_notice(repo: Repository) -> None:
    """With --dry-run it only says so; the reason goes into the journal."""
    dry = naiad(repo, "promote", "linear", "1", "2", "--dry-run")
    assert dry.stdout.splitlines() == [
        "linear would serve 1, 2 (before: 3)",
        "  requests that name no version are answered by version 2 instead of 3",
        "  requests that name version 3 are refused from then on",
        "  requests may name version 1",
        "  version 2 is fp32, version 3 int8",
        "  batch 8 took 2 ms on one thread when version 2 was exported, 1 ms for 3",
    ]
    assert repo.served("linear") == (3,)
    result = as_json(repo, "promote", "linear", "1", "2", "--reason", "compare them")
    assert (result["before"], result["served"]) == ([3], [1, 2])
    assert repo.history("linear")[-1].reason == "compare them"
    assert "nothing changes" in naiad(repo, "promote", "linear", "1", "2").stdout
    assert "linear would serve 3 (before: 1, 2)" in naiad(repo, "rollback", "linear", "--dry-run").stdout
    assert as_json(repo, "rollback", "linear", "--reason", "enough")["served"] == [3]


@pytest.mark.parametrize("damage", ["manifest.json", "model.onnx", "directory"])
def test_a_broken_version_can_be_rolled_back_from(repo: Repository, damage: str) -> None:
    """Whatever happened to what is served, the earlier version comes back."""
    directory = repo.path / "linear" / "3"
    if damage == "directory":
        directory.rename(repo.path.parent / "gone")
    else:
        (directory / damage).write_text("{")
    done = naiad(repo, "rollback", "linear")
    assert done.exit_code == 0, done.exception
    assert repo.served("linear") == (2,)


def test_prune_says_what_goes_and_what_stays(repo: Repository) -> None:
    """Each version that stays has its reason."""
    dry = naiad(repo, "prune", "linear", "--keep", "1", "--dry-run").stdout.splitlines()
    assert dry[0].startswith("linear: would remove 1, ")
    assert dry[1] == "  version 2 stays: what the next rollback would serve (remove it with --force)"
    assert as_json(repo, "prune", "linear", "--keep", "1", "--force", "--dry-run")["removed"] == []
    result = as_json(repo, "prune", "linear", "--keep", "1", "--force", "--reason", "old")
    assert (result["removed"], result["kept"]) == ([1, 2], {"3": "served"})
    assert naiad(repo, "prune", "linear").exit_code == 2  # how many to keep is never guessed
    assert naiad(repo, "prune", "linear", "--keep", "0").exit_code == 2


def test_keys_signatures_and_what_they_guard(repo: Repository, tmp_path: Path) -> None:
    """keygen, sign, verify --key and --require-key, also from the environment."""
    private, public = tmp_path / "release.pem", tmp_path / "release.pub"
    made = CliRunner().invoke(app, ["models", "keygen", str(private), "--json"])
    key_id = json.loads(made.stdout)["key_id"]
    unsigned = naiad(repo, "verify", "linear", "3", "--key", str(public))
    assert (unsigned.exit_code, "it is not signed" in unsigned.stdout) == (1, True)
    assert as_json(repo, "sign", "linear", "3", "--key", str(private))["key_id"] == key_id
    signed = naiad(repo, "verify", "linear", "3", "--key", str(public))
    assert (signed.exit_code, f"signed by {key_id}" in signed.stdout) == (0, True)
    (result,) = as_json(repo, "verify", "linear", "3", "--key", str(public))
    assert (result["ok"], result["signature"]["state"]) == (True, "valid")
    for extra, environment in ((["--require-key", str(public)], {}), ([], {"NAIAD_REQUIRE_KEY": str(public)})):
        refused = naiad(repo, "promote", "linear", "1", *extra, **environment)
        assert isinstance(refused.exception, NotTrusted)
    assert repo.served("linear") == (3,)
    assert naiad(repo, "promote", "linear", "3", "--require-key", str(public)).exit_code == 0


def test_verify_looks_at_every_model_when_none_is_named(repo: Repository) -> None:
    """Without a name, all models; exit code 1 for the one that is wrong."""
    other = publish_graph(repo, "other")
    assert len(as_json(repo, "verify")) == 4
    (other.path / "model.onnx").write_bytes(b"?")
    done = naiad(repo, "verify")
    assert done.exit_code == 1
    assert "linear version 1: ok, " in done.stdout
    assert "other version 1: model.onnx was changed" in done.stdout


def test_the_log_is_read_and_checked(repo: Repository) -> None:
    """Entries as a table and as JSON; --verify gives the last hash, and finds a change and a cut-off end by it."""
    repo.promote("linear", 1, reason="because")
    assert "because" in naiad(repo, "log", "linear").stdout
    assert [entry["action"] for entry in as_json(repo, "log", "-n", "2")["entries"]] == ["publish", "promote"]
    checked = as_json(repo, "log", "--verify")["audit"]
    assert (checked["ok"], checked["num_entries"]) == (True, 4)
    assert naiad(repo, "log", "--head", checked["head"][:16]).exit_code == 0
    assert naiad(repo, "log", "--head", "0" * 64).exit_code == 1
    assert naiad(repo, "log", "--head", "abc").exit_code == 2
    journal = repo.path / "journal.jsonl"
    journal.write_text(journal.read_text().replace("because", "no reason"))
    changed = naiad(repo, "log", "--verify")
    assert (changed.exit_code, "wrong: line 4 was edited" in changed.stdout) == (1, True)


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, ""), (0, "0 B"), (999, "999 B"), (1234, "1.2 kB"), (47_000_000, "47 MB"), (2e12, "2000 GB")],
)
def test_sizes_are_read_at_a_glance(value: int | None, words: str) -> None:
    """Two digits and a unit."""
    assert _words.size(value) == words


def test_the_verbs_load_nothing_heavy(repo: Repository) -> None:
    """Only comparing answers needs ONNX Runtime; PyTorch is never loaded."""
    lines = [
        *("list", "list linear", "promote linear 1", "rollback linear", "prune linear --keep 3"),
        *("verify", "log --verify", "diff linear 1 2 --no-answers"),
    ]
    code = (
        "import sys; from naiad.cli.app import app\n"
        f"for line in {lines}:\n"
        f"    app(['models', *line.split(), '-r', {str(repo.path)!r}], standalone_mode=False)\n"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'cryptography'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.endswith("[]\n"), done.stdout + done.stderr
