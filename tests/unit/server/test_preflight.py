"""What is missing is said before Triton hangs over it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from naiad.server import InvalidOption, PreflightFailed, _home, _stub
from naiad.server._home import Home


@pytest.fixture(scope="module")
def home() -> Home:
    """The Triton that this machine uses."""
    return _home.find()


def environment(libraries: Path) -> dict[str, str]:
    return {"PATH": os.defpath, "LD_LIBRARY_PATH": str(libraries)}


def test_the_stub_starts_with_this_pythons_library(home: Home, tmp_path: Path) -> None:
    """With a link to libpython in its library path the stub gets as far as its arguments."""
    _stub.link_libpython(tmp_path)
    _stub.preflight(home.stub(sys.version_info[:2]), environment(tmp_path))


def test_a_missing_libpython_is_named_with_the_cure(home: Home, tmp_path: Path) -> None:
    """A stub for a Python whose library is nowhere gives the file's name and how to get it."""
    other = home.stub((3, 8))
    found = subprocess.run(
        ["ldconfig", "-p"], capture_output=True, text=True, env={"PATH": "/sbin:/usr/sbin"}, check=False
    )
    if not other.is_file() or "libpython3.8.so" in found.stdout:
        pytest.skip("this machine has a libpython 3.8, or its Triton no such stub")
    with pytest.raises(PreflightFailed, match=r"libpython3\.8\.so\.1\.0.*apt-get install libpython3\.8") as caught:
        _stub.preflight(other, environment(tmp_path))
    assert caught.value.check == "libpython"


def test_another_missing_library_is_named(home: Home, tmp_path: Path) -> None:
    """A stub that was moved away from Triton's own libraries cannot start, and the error says which it lacks."""
    _stub.link_libpython(tmp_path)
    moved = Path(shutil.copy(home.stub(sys.version_info[:2]), tmp_path / "stub"))
    with pytest.raises(PreflightFailed, match=r"needs the shared library lib\S+\.so"):
        _stub.preflight(moved, environment(tmp_path))


def test_a_stub_that_cannot_be_executed_is_named(home: Home, tmp_path: Path) -> None:
    """A file without the right to be executed is told apart from a missing one."""
    inert = Path(shutil.copy(home.stub(sys.version_info[:2]), tmp_path / "stub"))
    inert.chmod(0o600)
    with pytest.raises(PreflightFailed, match="cannot be run"):
        _stub.preflight(inert, environment(tmp_path))
    with pytest.raises(PreflightFailed, match=r"Expected a Python stub at .*absent"):
        _stub.preflight(tmp_path / "absent", environment(tmp_path))


def test_the_stubs_environment_has_numpy_1_26_and_our_packages(tmp_path: Path) -> None:
    """Its first python3 imports the private numpy, and everything else from the environment that runs us."""
    _stub.build_environment(tmp_path, _home.find_numpy())
    code = "import numpy, google.protobuf, grpc; print(numpy.__version__)"
    done = subprocess.run([tmp_path / "bin" / "python3", "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1.26.4"


def test_a_home_without_triton_is_wrong_use(tmp_path: Path) -> None:
    """A directory that is named, but holds no Triton, is not silently replaced by another."""
    with pytest.raises(InvalidOption, match="NAIAD_TRITON_HOME"):
        _home.find(tmp_path)


def test_a_machine_without_bash_is_refused(home: Home, tmp_path: Path) -> None:
    """Triton starts its stubs through bash and waits for ever where there is none."""
    code = "from naiad.server import _machine; import os; os.defpath = ''; _machine.preflight()"
    done = subprocess.run([sys.executable, "-c", code], env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert "PreflightFailed: Triton starts its Python stubs through bash" in done.stderr
