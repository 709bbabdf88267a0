"""The distribution, as it is installed from a wheel."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import client_models
from naiad.server import EmbeddedTriton

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, text=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_has_every_room_and_nothing_else(wheel):
    """The namespace stays open, the backends and recipes are in, tests are not."""
    names = zipfile.ZipFile(wheel).namelist()
    for name in (
        "naiad/client/__init__.py",
        "naiad/client/py.typed",
        "naiad/client/testing/__init__.py",
        "naiad/pytest_client.py",
        "naiad/pytest_server.py",
        "naiad/cli/__main__.py",
        "naiad/export/recipes/digits.py",
        "naiad/loadtest/_report/page.css",
        "naiad/loadtest/_report/page.js",
        "naiad/loadtest/_report/report.schema.json",
        "naiad/loadtest/scenarios/gallery/digits.toml",
        "naiad/loadtest/scenarios/throughput.toml",
        "naiad/server/backends/onnxruntime/model.py",
    ):
        assert name in names
    assert "naiad/__init__.py" not in names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"naiad"}


CLIENT_TESTS = ("unit/client/test_public_names.py", "unit/client/test_calls.py", "server/client/test_infer.py")
"""They use all rooms of the client and the testing kit; others would only repeat what these show of a wheel."""


@pytest.mark.timeout(400)
def test_the_wheel_alone_passes_the_clients_tests(wheel, tmp_path):
    """In a fresh environment with nothing but the wheel and pytest, on a server outside of it."""
    environment = tmp_path / "fresh environment"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    tools = ["pytest", "pytest-asyncio", "pytest-timeout", "trustme"]
    install = [str(python), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt"), str(wheel), *tools]
    subprocess.run(install, check=True)
    installed = subprocess.run([str(python), "-m", "pip", "list"], check=True, capture_output=True, text=True).stdout
    assert not {"torch", "onnx", "onnxruntime", "locust", "gevent"} & {
        line.split()[0] for line in installed.splitlines()
    }
    repository = tmp_path / "repository"
    client_models.write(repository)
    with EmbeddedTriton(repository) as triton:
        done = subprocess.run(
            [
                *(
                    str(python),
                    "-P",
                    "-m",
                    "pytest",
                    "-q",
                    "-c",
                    str(ROOT / "pyproject.toml"),
                    "-p",
                    "no:cacheprovider",
                ),
                *(str(ROOT / "tests" / path) for path in CLIENT_TESTS),
                *("--triton", triton.admin_url),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stdout + done.stderr
