"""A straight line: what the demo found, and the page's commands against the repository that it left."""

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from naiad.export import Repository, find_recipe
from naiad.server import EmbeddedTriton

PAGE = Path(__file__).parents[2] / "docs" / "gallery" / "linear_regression.md"
CURLS = re.findall(r"^\$ (curl .*)$", PAGE.read_text(), re.MULTILINE)
SERVED_AT, BEHIND_GATEWAY = "http://localhost:8000", "https://localhost:8443"

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def naiad(*command: str, cwd: Path) -> str:
    arguments = [sys.executable, "-m", "naiad.cli", *command]
    return subprocess.run(arguments, cwd=cwd, capture_output=True, text=True, timeout=120, check=True).stdout


def shell(command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(["bash", "-c", command], cwd=cwd, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return done.stdout.strip()


@pytest.fixture(scope="module")
def triton(demo_of) -> Iterator[EmbeddedTriton]:
    run = demo_of("linear_regression")
    assert run.found
    with EmbeddedTriton(run.repository) as served:
        yield served


def test_the_line_is_served_as_y_2x(demo_of):
    """Plain JSON and the client are answered 2x, and the load test lost no request."""
    found = demo_of("linear_regression").found
    assert found["rest_answers"] == pytest.approx([6.0, 20.0, -1.0], abs=1e-4)
    assert found["max_abs_error"] < 1e-4
    assert found["throughput_per_s"] > 0
    assert Repository(demo_of("linear_regression").repository).served("linear_regression") == (1,)


def test_the_page_shows_the_recipe_as_it_is():
    """The page's listing is the shipped recipe without docstrings and annotations, of at most 15 lines of code."""
    listing = re.search(r"```python\n(import torch.*?)```", PAGE.read_text(), re.DOTALL)
    assert listing
    assert _bare(listing[1]) == _bare(find_recipe("linear_regression").read_text())
    assert len(_bare(listing[1]).splitlines()) <= 15


def _bare(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
        if isinstance(node, ast.FunctionDef):
            node.returns = None
    return "\n".join(line for line in ast.unparse(tree).splitlines() if line)


@needs_curl
def test_the_page_s_curl_is_answered_as_the_page_says(triton: EmbeddedTriton):
    """The command as it stands there, but for the address, prints what stands below it."""
    command, expected = re.search(r"^\$ (curl .*)\n(\{.*\})$", PAGE.read_text(), re.MULTILINE).groups()
    assert SERVED_AT in command
    assert json.loads(shell(command.replace(SERVED_AT, triton.http_url))) == json.loads(expected)


@needs_curl
def test_a_request_of_another_shape_is_refused_with_the_reason(triton: EmbeddedTriton):
    """Two columns where one is expected: the answer names the input, and both shapes."""
    (command,) = (each for each in CURLS if '"shape": [1, 2]' in each)
    error = json.loads(shell(command.replace(SERVED_AT, triton.http_url)))["error"]
    assert "'input'" in error
    assert "Expected [-1,1], got [1,2]" in error


@needs_curl
def test_the_page_s_description_lets_in_who_has_the_key(demo_of, tmp_path: Path):
    """The container path without containers: the page's description, `naiad deploy`, and curl with and without key."""
    repository = demo_of("linear_regression").repository
    (tmp_path / "deploy").mkdir()
    description = re.search(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert description
    (tmp_path / "deploy" / "service.toml").write_text(description[1])
    naiad("deploy", "check", cwd=tmp_path)
    naiad("deploy", "render", cwd=tmp_path)
    assert "triton-main-1:" in (tmp_path / "docker-compose.yml").read_text()
    naiad("deploy", "secrets", cwd=tmp_path)
    (tmp_path / "reader.key").write_text(naiad("deploy", "key", "add", "reader", cwd=tmp_path))
    (command,) = (each for each in CURLS if BEHIND_GATEWAY in each)
    serve = [sys.executable, "-m", "naiad.cli", "serve", str(repository), "--gateway", "--json"]
    serve += ["--service", "deploy/service.toml", "--port", "0", "--metrics-port", "0"]
    log = tmp_path / "serve.log"
    with log.open("w") as errors, subprocess.Popen(serve, cwd=tmp_path, stdout=-1, stderr=errors, text=True) as service:
        try:
            command = command.replace(BEHIND_GATEWAY, _address(service, log))
            assert json.loads(shell(command, tmp_path))["outputs"][0]["data"] == [6.0]
            without = re.sub(r' --header "[^"]*"', "", command)
            assert without != command
            assert "expected an API key" in json.loads(shell(without, tmp_path))["error"]
        finally:
            service.terminate()


def _address(service: "subprocess.Popen[str]", log: Path) -> str:
    """Return the gateway's address by the name that its certificate has."""
    assert service.stdout
    line = service.stdout.readline()  # comes when everything is ready, or ends when the process does
    assert line, log.read_text()
    return str(json.loads(line)["http_url"]).replace("127.0.0.1", "localhost")
