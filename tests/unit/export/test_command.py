"""`naiad export` and `naiad models` as a user runs them: output, exit codes, one line for each error."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from export_helpers import contents, run_naiad
from export_publisher import publish, publish_again

RECIPE = """\
import torch

NAME = "scores"
MAX_BATCH_SIZE = 4

def build(width=2):
    torch.manual_seed(0)
    return torch.nn.Linear(4, width)

def samples():
    return [(torch.randn(4, 4),)]
"""


def test_export_and_the_models_commands(tmp_path: Path) -> None:
    """A recipe becomes a version; list, show, promote, rollback and verify tell and change what is served."""
    (tmp_path / "mine.py").write_text(RECIPE)
    assert run_naiad("models", "keygen", "my.pem", cwd=tmp_path).returncode == 0
    options = ("-r", "my models", "-o", "width=3", "--sign-key", "my.pem", "--json")
    first = run_naiad("export", "mine.py", *options, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    result = json.loads(first.stdout)
    assert (result["version"], result["served"], result["report"]["batches"]) == (1, [1], [1, 2, 3, 4])
    signed = run_naiad("models", "verify", "scores", "-r", "my models", "--key", "my.pub", cwd=tmp_path)
    assert "signed by" in signed.stdout
    second = publish_again(tmp_path / "my models", "scores")
    assert second.number == 2

    listed = run_naiad("models", "list", "-r", "my models", "--json", cwd=tmp_path)
    (scores,) = json.loads(listed.stdout)
    assert (scores["model"], scores["versions"], scores["served"]) == ("scores", [1, 2], [1])
    shown = run_naiad("models", "show", "scores", "-r", "my models", cwd=tmp_path)
    assert "input: FP32 [batch, 4]" in shown.stdout
    promoted = run_naiad("models", "promote", "scores", "2", "-r", "my models", cwd=tmp_path)
    assert promoted.stdout.splitlines()[0] == "scores serves 2 (before: 1)"
    rolled = run_naiad("models", "rollback", "scores", "-r", "my models", "--json", cwd=tmp_path)
    assert (json.loads(rolled.stdout)["before"], json.loads(rolled.stdout)["served"]) == ([2], [1])
    verified = run_naiad("models", "verify", "scores", "-r", "my models", cwd=tmp_path)
    assert verified.stdout == "scores version 1: ok, 3 files\nscores version 2: ok, 3 files\n"

    (second.path / "model.onnx").write_bytes(b"other")
    broken = run_naiad("models", "verify", "scores", "2", "-r", "my models", cwd=tmp_path)
    assert broken.returncode == 1
    assert "model.onnx was changed" in broken.stdout


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["export", "nothing"], 2, "there is no recipe 'nothing'"),
        (["export", "not_a_recipe.py"], 2, "is not a recipe: it defines no build()"),
        (["export", "raises.py"], 1, "raises.py:4: build() failed with RuntimeError: no data"),
        (["export", "good.py", "--precision", "int3"], 2, "precision must be one of"),
        (["export", "good.py", "-r", "good.py"], 1, "cannot write to the model repository"),
        (["models", "list", "-r", "nowhere"], 2, "there is no model repository at"),
        (["models", "show", "other"], 2, "there is no model 'other' in"),
        (["models", "promote", "some", "7"], 2, "some has no version 7; it has 1"),
    ],
)
def test_an_error_is_one_line(tmp_path: Path, args: list[str], code: int, message: str) -> None:
    """Wrong use exits with 2, a failure with 1; the message is one line, without a traceback, and nothing changed."""
    (tmp_path / "good.py").write_text(RECIPE)
    (tmp_path / "not_a_recipe.py").write_text("x = 1\n")
    (tmp_path / "raises.py").write_text(
        "def samples():\n    return []\ndef build():\n    raise RuntimeError('no data')\n"
    )
    publish(tmp_path / "model_repository")
    before = contents(tmp_path / "model_repository")
    done = run_naiad(*args, cwd=tmp_path)
    assert done.returncode == code
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert contents(tmp_path / "model_repository") == before


@pytest.mark.parametrize("command", ["list", "show some"])
def test_reading_the_repository_needs_no_pytorch(tmp_path: Path, command: str) -> None:
    """`naiad models` loads neither torch nor onnx."""
    publish(tmp_path / "model_repository")
    code = (
        "import sys; from naiad.cli.app import app; "
        f"app(['models', *{command.split()!r}], standalone_mode=False); "
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'cloudpickle'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.endswith("[]\n"), done.stdout + done.stderr


def test_interrupted_while_capturing(tmp_path: Path) -> None:
    """Ctrl-C during the capture ends with 130 and without a traceback, a stage or a process left behind."""
    slow = RECIPE.replace("def samples", "class Slow(torch.nn.Linear):\n" + _SLOW + "\ndef samples")
    (tmp_path / "slow.py").write_text(slow.replace("torch.nn.Linear(4, width)", "Slow(4, width)"))
    command = [sys.executable, "-c", "from naiad.cli import main; main()", "export", "slow.py"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        fifo = tmp_path / "captured.fifo"
        os.mkfifo(fifo)
        capturing = int(fifo.read_text())  # written by the capture process, from inside forward()
        process.send_signal(signal.SIGINT)
        _, log = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in log
    assert contents(tmp_path / "model_repository") == []
    assert not (tmp_path / ".model_repository.staging").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(capturing, 0)


_SLOW = """\
    def forward(self, x):
        if torch.compiler.is_exporting():
            import os, time
            while not os.path.exists("captured.fifo"):
                time.sleep(0.01)
            with open("captured.fifo", "w") as fifo:
                fifo.write(str(os.getpid()))
            time.sleep(60)
        return super().forward(x)
"""
