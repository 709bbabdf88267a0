"""`naiad doctor`, as a user runs it, beside a stand-in for NVIDIA's driver."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

import driver_double
from driver_double import UUIDS, compile_library
from naiad.cli.doctor._packages import built_for

NAIAD = str(Path(sys.executable).with_name("naiad"))
OF_CUDA_13 = [
    "libcudart.so.13", "libnvrtc.so.13", "libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10", "libcufft.so.12",
    "libcudnn.so.9",
]  # fmt: skip

for_cuda_13 = pytest.mark.skipif(
    built_for("onnxruntime", "capi/build_and_package_info.py", "cuda_version") != "13.0"
    or any(Path(sysconfig.get_path("purelib")).glob("nvidia/*/lib")),
    reason="needs onnxruntime-gpu for CUDA 13, and no wheels of NVIDIA beside it",
)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return driver_double.compiled(tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Empty libraries under the names of CUDA's."""
    directory = tmp_path_factory.mktemp("cuda")
    for name in OF_CUDA_13:
        compile_library("int empty;", directory / name)
    return directory


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200", **variables}
    return subprocess.run([NAIAD, "doctor", *arguments], capture_output=True, text=True, env=environment)


def report(*arguments: str, **variables: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Exit code, and the checks of all groups by their names."""
    done = run(*arguments, "--json", **variables)
    groups = json.loads(done.stdout)
    assert all(set(group) == {"works", "checks"} for group in groups.values())
    return done.returncode, {check["name"]: check for group in groups.values() for check in group["checks"]}


@for_cuda_13
def test_a_machine_with_gpus_and_libraries_is_fit(driver: Path, libraries: Path) -> None:
    """Each GPU is described, each library has its path, and the exit code is 0."""
    environment = driver_double.environment(driver, 2)
    environment["LD_LIBRARY_PATH"] += f":{libraries}"
    code, found = report("gpu", **environment)
    assert code == 0
    assert found["driver"]["found"] == f"580.159.03, CUDA 13.1, {driver / 'libcuda.so.580.159.03'}"
    assert found["GPU 1"]["found"] == f"Double 1, 32.0 GiB, compute capability 9.0, {UUIDS[1]}"
    assert found["libcuda.so"]["found"].startswith("Triton gets a link to")
    assert {found[name]["found"] for name in OF_CUDA_13} == {str(libraries / name) for name in OF_CUDA_13}
    assert {found[name]["state"] for name in OF_CUDA_13} == {"ok"}


@for_cuda_13
def test_what_models_on_gpus_lack_is_broken_where_there_are_gpus(driver: Path, tmp_path: Path) -> None:
    """A library that cannot be loaded names the extra that brings it, and the named group fails."""
    (tmp_path / "libcudnn.so.9").write_bytes(b"no library")
    environment = driver_double.environment(driver, 1)
    environment["LD_LIBRARY_PATH"] += f":{tmp_path}"
    code, found = report("gpu", **environment)
    assert code == 1
    cudnn = found["libcudnn.so.9"]
    assert (cudnn["state"], cudnn["advice"]) == ("broken", "pip install 'naiad[cuda-libraries]'")
    assert cudnn["found"].endswith("libcudnn.so.9: file too short")


@for_cuda_13
def test_a_library_that_ends_the_process_is_survived(driver: Path, tmp_path: Path) -> None:
    """It is reported like everything else."""
    source = "#include <stdlib.h>\n__attribute__((constructor)) static void loaded(void) { abort(); }"
    compile_library(source, tmp_path / "libcurand.so.10")
    environment = driver_double.environment(driver, 1)
    environment["LD_LIBRARY_PATH"] += f":{tmp_path}"
    code, found = report("gpu", **environment)
    assert (code, found["libraries"]["state"]) == (1, "broken")
    assert "ended with exit code -6" in found["libraries"]["advice"]


@for_cuda_13
def test_a_driver_that_is_too_old_is_told_apart(driver: Path) -> None:
    """ONNX Runtime for CUDA 13 does not run on a driver for CUDA 12."""
    code, found = report("gpu", **driver_double.environment(driver, 1, NAIAD_DOUBLE_CUDA="12080"))
    assert (code, found["onnxruntime"]["state"]) == (1, "broken")
    assert "the driver runs CUDA 12.8 at most" in found["onnxruntime"]["advice"]


def test_a_driver_that_fails_is_broken(driver: Path) -> None:
    """What it said is there, and what to do."""
    code, found = report("gpu", **driver_double.environment(driver, 1, NAIAD_DOUBLE_INIT="803"))
    assert (code, found["driver"]["state"], found["GPUs"]["state"]) == (1, "broken", "missing")
    assert "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH" in found["driver"]["found"]
    assert "restart the machine" in found["driver"]["advice"]


def test_no_gpu_fails_only_who_asks_for_one(driver: Path) -> None:
    """The report on everything is a report; the group that is named is a question."""
    environment = driver_double.environment(driver, 0)
    assert run(**environment).returncode == 0
    assert run("client", **environment).returncode == 0
    done = run("gpu", "client", **environment)
    assert done.returncode == 1
    assert "nvidia-smi -L" in done.stdout


@for_cuda_13
def test_people_get_a_line_for_each_check(driver: Path) -> None:
    """Grouped, and with what to do behind what was found."""
    done = run(**driver_double.environment(driver, 1))
    titles = [line.split()[0] for line in done.stdout.splitlines() if line and not line.startswith(" ")]
    assert titles == ["server", "gpu", "export", "client", "loadtest"]
    assert "pip install 'naiad[cuda-libraries]'" in done.stdout
    assert done.stderr == ""


def test_a_triton_that_is_not_fetched_yet_is_no_fault(tmp_path: Path) -> None:
    """Nothing is fetched for the report, and the cache is not even made."""
    code, found = report("server", NAIAD_CACHE_DIR=str(tmp_path / "cache"), TMPDIR=str(tmp_path))
    assert code == 0
    assert (found["Triton"]["state"], found["numpy 1.26"]["state"]) == ("missing", "missing")
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_triton_is_broken(tmp_path: Path) -> None:
    """A directory named in the environment that holds none."""
    code, found = report("server", NAIAD_TRITON_HOME=str(tmp_path))
    assert (code, found["Triton"]["state"]) == (1, "broken")
    assert "Correct or remove NAIAD_TRITON_HOME" in found["Triton"]["advice"]


def test_an_extra_that_is_not_installed_is_named(tmp_path: Path) -> None:
    """The groups that do without it are reported all the same."""
    (tmp_path / "psutil.py").write_text("raise ModuleNotFoundError(\"No module named 'psutil'\", name='psutil')")
    code, found = report("server", "client", PYTHONPATH=str(tmp_path))
    assert (code, found["psutil"]["advice"]) == (1, "pip install 'naiad[server]'")
    assert found["grpcio"]["state"] == "ok"


def test_an_unknown_group_is_wrong_use() -> None:
    """The known ones are listed."""
    done = run("kitchen")
    assert (done.returncode, "'loadtest'" in done.stderr) == (2, True)
