"""`--gpus` and its like with the real Triton, beside a stand-in for NVIDIA's driver that cannot compute."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import driver_double
from launcher_helpers import write_model
from naiad.server import EmbeddedTriton, ModelLoadFailed, PreflightFailed

NAIAD = str(Path(sys.executable).with_name("naiad"))
FREE_PORTS = ["--grpc-port", "0", "--http-port", "0", "--metrics-port", "0"]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return driver_double.compiled(tmp_path_factory.mktemp("driver"))


@pytest.fixture
def gpu_repository(tmp_path: Path) -> Path:
    """A model that takes any device, and one that insists on a GPU."""
    repository = tmp_path / "models"
    for model, kind in (("anywhere", "KIND_AUTO"), ("insists", "KIND_GPU")):
        write_model(repository, model)
        config = repository / model / "config.pbtxt"
        config.write_text(config.read_text().replace("KIND_CPU", kind))
    return repository


def test_triton_takes_what_the_gpus_decide(driver: Path, identity_repository: Path) -> None:
    """Its process sees the GPUs asked for, a pool for each, and the driver under the name that it opens."""
    command = [NAIAD, "serve", str(identity_repository), "--json", *FREE_PORTS, "--gpus", "1,0"]
    command += ["--cuda-memory-pool", "512MB", "--pinned-memory-pool", "1GiB"]
    environment = driver_double.environment(driver, 2)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        printed = json.loads(process.stdout.readline())
        own = Path(f"/proc/{printed['pid']}")
        arguments = (own / "cmdline").read_text().split("\0")
        variables = dict(entry.split("=", 1) for entry in (own / "environ").read_text().split("\0") if entry)
        first = Path(variables["LD_LIBRARY_PATH"].split(":")[0])
        assert (first / "libcuda.so").resolve() == driver / "libcuda.so.580.159.03"
        process.terminate()
        _, said = process.communicate()
    assert "Triton cannot use them: " in " ".join(said.split()), "the stand-in cannot compute, and that is said"
    assert printed["models"] == ["identity"]
    assert variables["CUDA_VISIBLE_DEVICES"] == "1,0"
    assert {
        "--allow-gpu-metrics=true",
        "--cuda-memory-pool-byte-size=0:512000000",
        "--cuda-memory-pool-byte-size=1:512000000",
        f"--pinned-memory-pool-byte-size={1 << 30}",
    } <= set(arguments)


@pytest.mark.parametrize(
    ("num_gpus", "options", "message"),
    [
        (1, ["--gpus", "0,1"], "no GPU 1. There are 0: Double 0"),
        (1, ["--cuda-memory-pool", "16GiB"], "smaller than the 16384 MiB of each GPU (Double 0"),
        (0, ["--gpus", "all"], "found none: a driver that shows none"),
        (1, ["--replicas", "2", "--gateway", "--gpus", "3"], "no GPU 3. There are"),
        (1, ["--replicas", "2", "--gateway", "--cuda-memory-pool", "1TB"], "smaller than the 16384 MiB"),
    ],
)
def test_what_cannot_be_had_gives_one_message(
    driver: Path, identity_repository: Path, num_gpus: int, options: list[str], message: str
) -> None:
    """Exit code 1, before Triton starts; behind a gateway, too."""
    command = [NAIAD, "serve", str(identity_repository), *options]
    environment = driver_double.environment(driver, num_gpus)
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, message in done.stderr, "Traceback" in done.stderr) == (1, True, False), done.stderr


def test_gpus_with_a_damaged_driver_are_refused(identity_repository: Path, tmp_path: Path) -> None:
    """The error says what the loader said about the driver's library."""
    (tmp_path / "libcuda.so.1").write_bytes(b"no library")
    command = [NAIAD, "serve", str(identity_repository), "--gpus", "all"]
    environment = driver_double.environment(tmp_path, 1)
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, "libcuda.so.1: file too short" in done.stderr) == (1, True), done.stderr


def test_a_model_that_insists_on_a_gpu_is_named_before_the_start(gpu_repository: Path) -> None:
    """Without a GPU in use, with the way out; the others are served when it is left out or may be missing."""
    message = r"Expected a GPU for insists \(KIND_GPU in config.pbtxt\), found none: gpus is 'none'.*KIND_AUTO"
    with pytest.raises(PreflightFailed, match=message):
        EmbeddedTriton(gpu_repository, gpus="none").start()
    with EmbeddedTriton(gpu_repository, gpus="none", models=["anywhere"]) as triton:
        assert triton.models == ("anywhere",)
    with EmbeddedTriton(gpu_repository, gpus="none", exit_on_load_error=False) as triton:
        assert triton.models == ("anywhere",)


def test_a_repository_without_models_for_gpus_needs_none(gpu_repository: Path, tmp_path: Path) -> None:
    """Triton itself says what else is wrong with a model."""
    (gpu_repository / "insists" / "config.pbtxt").write_text("kind: KIND_GPU, and no configuration")
    with pytest.raises(ModelLoadFailed, match="insists"):
        EmbeddedTriton(gpu_repository, gpus="none").start()
