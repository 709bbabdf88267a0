"""The page for operators, done: what it says to type exists, and what can run here runs as it stands."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from deploy_helpers import ROOT
from launcher_helpers import write_model
from naiad.cli.app import app

TEXT = (ROOT / "docs" / "operators.md").read_text()
BLOCKS = [block.replace("\\\n", " ") for block in re.findall(r"```console\n(.*?)```", TEXT, flags=re.DOTALL)]
LINES = re.findall(r"^\$ (.*?)(?:\s{2,}#.*)?$", "\n".join(BLOCKS), flags=re.MULTILINE)
INLINE = re.findall(r"`((?:naiad|docker compose) [a-z][^`]*)`", TEXT)
COMMANDS = sorted({*LINES, *INLINE})
SERVE = "naiad serve --gateway --service deploy/service.toml"
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)


@dataclass
class Terminal:
    """A folder in which the page's commands are typed, with a service that runs."""

    folder: Path
    port: int = 0
    environment: dict[str, str] = field(default_factory=dict)

    def type(self, line: str, timeout_s: float = 100) -> str:
        """Run a line of the page in a shell, at the port that was free; it must succeed."""
        line = line.replace("localhost:8443", f"localhost:{self.port}")
        done = subprocess.run(
            ["bash", "-ec", line],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=timeout_s,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def on_page(beginning: str) -> str:
    """The first line of the page that begins so."""
    return next(line for line in LINES if line.startswith(beginning))


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """The page's first start, without containers."""
    folder = tmp_path_factory.mktemp("operators")
    write_model(folder / "model_repository", "digits")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    here = Terminal(folder, environment={**os.environ, "PATH": path, "COLUMNS": "200"})
    for beginning in ("naiad deploy init", "naiad deploy check", "naiad deploy render", "naiad deploy secrets",
                      "naiad deploy key add"):  # fmt: skip
        here.type(on_page(beginning))
    assert SERVE in LINES
    with (folder / "serve.log").open("w") as log:
        serve = subprocess.Popen(
            [*shlex.split(SERVE), "--port", "0", "--metrics-port", "0", "--json"],
            cwd=folder, env=here.environment, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    try:
        assert serve.stdout is not None
        line = serve.stdout.readline()
        assert line, (folder / "serve.log").read_text()
        here.port = int(json.loads(line)["grpc_url"].rpartition(":")[2])
        yield here
    finally:
        serve.terminate()
        serve.communicate(timeout=60)


def test_the_first_start_answers(terminal: Terminal):
    """curl, the audit, the state of the gateway, and the client."""
    terminal.type(on_page("curl"))
    assert "version" in terminal.type(on_page("naiad audit --server"))
    assert "main-0" in terminal.type(on_page("naiad deploy status"))
    code = PYTHON[0].replace("localhost:8443", f"localhost:{terminal.port}")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=terminal.folder, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "name='x'" in done.stdout


def test_keys_rotate_while_it_runs(terminal: Terminal):
    """Two at a time; the one that is revoked opens nothing any more, the other one does."""
    terminal.type(on_page("naiad deploy key add vision --days"))
    first = json.loads(terminal.type("naiad deploy key list --json"))
    old = next(key["id"] for key in (first["keys"] if isinstance(first, dict) else first) if not key["expires"])
    terminal.type(on_page("naiad deploy key revoke").replace("0123456789ab", old))
    asks = on_page("curl").replace("--fail", "--silent --output /dev/null --write-out %{http_code}")
    new = asks.replace("vision.key", "vision-new.key")
    waits = f'for i in $(seq 100); do [ "$({asks})" = 401 ] && [ "$({new})" = 200 ] && exit 0; sleep 0.1; done; exit 1'
    terminal.type(waits)
    (terminal.folder / "vision.key").write_text((terminal.folder / "vision-new.key").read_text())


def test_certificates_rotate_while_it_runs(terminal: Terminal):
    """The gateway shows the new one, and callers get their answers."""
    terminal.type(on_page("naiad deploy certificate show"))
    terminal.type(on_page("naiad deploy certificate renew --days"))
    terminal.type(on_page("curl"))


def test_its_replicas_restart_while_it_runs(terminal: Terminal):
    """One after the other."""
    here = f" --server 127.0.0.1:{terminal.port}"  # others may run, too
    assert "serving" in terminal.type(on_page("naiad serve --reload") + here)
    terminal.type(on_page("curl"))


def test_the_audit_of_the_files_passes(terminal: Terminal):
    """What `naiad deploy` made has nothing that is high or worse."""
    terminal.type(on_page("naiad audit --compose"))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_exists_with_its_options(command: str):
    """A subcommand knows the options that the page gives it; Compose knows the service."""
    program, *words = shlex.split(command.partition(" > ")[0])
    if program == "naiad":
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= _options(words)
    elif program == "docker":
        services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
        assert words[1] in {"up", "logs", "restart", "run", "down"}
        named = [word for word in words[2:] if not word.startswith("-")]
        assert set(named) <= set(services) if words[1] != "run" else "tools" in named
    else:
        assert program == "curl"


def _options(words: list[str]) -> set[str]:
    """Every option of the subcommand that these words name."""
    command: Any = get_command(app)
    for word in words:
        if not hasattr(command, "commands"):
            break
        command = command.commands[word]
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}


def test_every_alert_has_its_section():
    """Its annotation leads there; also of alerts that another description would have."""
    rules = yaml.safe_load((ROOT / "deploy" / "monitoring" / "rules" / "alerts.yml").read_text())
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]
    wanted = {rule["annotations"]["runbook"].partition("#")[2] for rule in alerts}
    sources = "".join(path.read_text() for path in (ROOT / "deploy/naiad/deploy/_monitoring").glob("*alerts.py"))
    named = re.findall(r'name="([A-Z]\w+)"', sources)
    sections = {title.lower().replace(" ", "-") for title in re.findall(r"^#+ (.*)$", TEXT, flags=re.MULTILINE)}
    assert len(named) > 20
    assert wanted | {name.lower() for name in named} <= sections


def test_every_link_within_the_page_leads_somewhere():
    """And every picture is there."""
    sections = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", TEXT, flags=re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]*)\)", TEXT)) <= sections
    assert all((ROOT / "docs" / path).exists() for path in re.findall(r"\]\(([a-z][^):#]*)\)", TEXT))


def test_the_checks_of_the_audit_that_the_page_names_exist():
    """In the table of what is done for security."""
    table = TEXT.partition("| the audit's check |")[2].partition("\n\n")[0]
    cells = [row.rpartition("|")[0].rpartition("|")[2] for row in table.splitlines()[2:]]
    named = {name for cell in cells for name in re.findall(r"`([a-z-]+)`", cell)}
    sources = "".join(path.read_text() for path in (ROOT / "deploy/naiad/deploy/_audit").glob("*.py"))
    assert named
    assert named <= set(re.findall(r'"([a-z-]+)"', sources))
