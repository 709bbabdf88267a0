"""Which GPUs a server uses, asked of a stand-in for NVIDIA's driver."""

import re
from pathlib import Path

import pytest
from tritonclient.grpc import model_config_pb2

import driver_double
from driver_double import UUIDS
from naiad.server import InvalidOption, PreflightFailed, _command, _gpus, _kinds, _pools, _stub
from naiad.server._home import Home
from naiad.server._options import Options

GIB = 1 << 30


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in, in a directory with spaces."""
    directory = tmp_path_factory.mktemp("a driver") / "in here"
    directory.mkdir()
    return driver_double.compiled(directory)


@pytest.fixture
def with_gpus(driver: Path, monkeypatch: pytest.MonkeyPatch):
    """Let the processes that are started from here see so many GPUs."""

    def see(num_gpus: int, **variables: str) -> None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        for name, value in driver_double.environment(driver, num_gpus, **variables).items():
            monkeypatch.setenv(name, value)

    return see


def settings(private: Path, gpus: _gpus.Chosen, **pools: int) -> _command.Settings:
    return _command.Settings(
        home=Home(path=Path("/triton")),
        private=private,
        repository="/models",
        region_prefix="x_",
        admin_secret="secret",
        auto_complete=False,
        response_cache_bytes=0,
        exit_timeout_s=1,
        gpus=gpus,
        cuda_memory_pool_bytes=pools.get("cuda"),
        pinned_memory_pool_bytes=pools.get("pinned"),
        extra_args=(),
    )


def gpu_arguments(private: Path, gpus: _gpus.Chosen, **pools: int) -> list[str]:
    ports = _command.Ports(grpc=1, http=2, metrics=3)
    command = _command.command(settings(private, gpus, **pools), ports, [])
    return [argument for argument in command if argument.startswith(("--allow-gpu", "--cuda-", "--pinned-"))]


def test_the_driver_is_described(with_gpus, driver: Path) -> None:
    """Its real file, its version, and each GPU; the process that asks does not load it itself."""
    with_gpus(2)
    found = _gpus.look()
    assert (found.library, found.version, found.cuda) == (str(driver / "libcuda.so.580.159.03"), "580.159.03", "13.1")
    assert (found.trouble, found.named_plainly) == ("", False)
    assert [(gpu.name, gpu.memory_bytes, gpu.compute_capability, gpu.uuid) for gpu in found.gpus] == [
        ("Double 0", 16 * GIB, "9.0", UUIDS[0]),
        ("Double 1", 32 * GIB, "9.0", UUIDS[1]),
    ]
    assert "in here/libcuda" not in Path("/proc/self/maps").read_text()


def test_a_part_of_a_divided_gpu_is_told_apart(with_gpus) -> None:
    """Its UUID is a MIG one."""
    with_gpus(1, NAIAD_DOUBLE_MIG="1")
    assert [gpu.uuid for gpu in _gpus.look().gpus] == ["MIG-01ababab-abab-abab-abab-ababababab01"]


@pytest.mark.parametrize(
    ("inherited", "asked", "visible", "names"),
    [
        (None, None, None, ["Double 0", "Double 1", "Double 2"]),
        (None, "all", None, ["Double 0", "Double 1", "Double 2"]),
        (None, "none", "", []),
        (None, "2,0", "2,0", ["Double 2", "Double 0"]),
        (None, UUIDS[1], "1", ["Double 1"]),
        (None, UUIDS[2][:9], "2", ["Double 2"]),
        ("2,1", None, None, ["Double 2", "Double 1"]),
        ("2,1", "all", None, ["Double 2", "Double 1"]),
        ("2,1", "0", "2", ["Double 2"]),
        ("2, 1", "1", "1", ["Double 1"]),
        (f"{UUIDS[2]},{UUIDS[0]}", "1", UUIDS[0], ["Double 0"]),
        (f"{UUIDS[2]},{UUIDS[0]}", UUIDS[2], UUIDS[2], ["Double 2"]),
        ("", None, None, []),
        ("1,7,0", "all", None, ["Double 1"]),
    ],
)
def test_gpus_are_chosen(with_gpus, tmp_path: Path, inherited, asked, visible, names) -> None:
    """Numbers count what CUDA_VISIBLE_DEVICES names, UUIDs may be shortened, and Triton's environment says the same."""
    with_gpus(3, **({} if inherited is None else {"CUDA_VISIBLE_DEVICES": inherited}))
    chosen = _gpus.choose(asked)
    assert [gpu.name for gpu in chosen.gpus] == names
    assert chosen.visible == visible
    passed = _command.environment(settings(tmp_path, chosen)).get("CUDA_VISIBLE_DEVICES")
    assert passed == (inherited if visible is None else visible)


@pytest.mark.parametrize(
    ("num_gpus", "variables", "asked", "message"),
    [
        (2, {}, "0,2", r"no GPU 2\. There are 0: Double 0, GPU-01aba.*1: Double 1, GPU-11aba"),
        (2, {}, "GPU-f1", r"no GPU GPU-f1\. There are"),
        (2, {"CUDA_VISIBLE_DEVICES": "1"}, "1", r"no GPU 1\. There are 0: Double 1.*CUDA_VISIBLE_DEVICES is '1'"),
        (2, {"CUDA_VISIBLE_DEVICES": ""}, "all", r"none \(CUDA_VISIBLE_DEVICES is ''\)\. Correct or remove CUDA_V"),
        (0, {}, "all", r"a driver that shows none\. Compare with `nvidia-smi -L`"),
        (1, {"NAIAD_DOUBLE_INIT": "803"}, "0", r"failed with 803 \(CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, .*restart"),
        (1, {"NAIAD_DOUBLE_INIT": "999"}, "0", r"cuInit failed with 999\. Compare with `nvidia-smi`"),
    ],
)  # fmt: skip
def test_gpus_that_are_not_there_are_named(with_gpus, num_gpus, variables, asked, message) -> None:
    """The error lists what there is, or what the driver said, and what to do."""
    with_gpus(num_gpus, **variables)
    with pytest.raises(PreflightFailed, match=message) as caught:
        _gpus.choose(asked)
    assert caught.value.check == "gpu"


PAGE = Path(__file__).parents[3] / "docs" / "gpu.md"


@pytest.mark.parametrize(
    ("variables", "asked", "pool_bytes"),
    [
        ({"CUDA_VISIBLE_DEVICES": ""}, "all", None),
        ({"NAIAD_DOUBLE_INIT": "803"}, "all", None),
        ({}, "0,2", None),
        ({}, "0", 16 * GIB),
        ({}, "none", None),
    ],
)
def test_messages_are_those_of_the_page_about_gpus(with_gpus, variables, asked, pool_bytes) -> None:
    """Who searches docs/gpu.md for what was said finds it."""
    rows = re.findall(r"^\| `([^`]+)`", PAGE.read_text().partition("## Trouble")[2], re.MULTILINE)
    with_gpus(2, **variables)
    with pytest.raises(PreflightFailed) as caught:
        chosen = _gpus.choose(asked)
        _pools.check(chosen.gpus, pool_bytes)
        config = model_config_pb2.ModelConfig()
        config.instance_group.add(kind=model_config_pb2.ModelInstanceGroup.KIND_GPU)
        _kinds.check({"m": config}, chosen.why_none)
    assert any(re.match(re.escape(row).replace("…", ".*"), str(caught.value)) for row in rows), str(caught.value)


def test_a_gpu_that_is_named_twice_is_refused(with_gpus) -> None:
    """CUDA would show none at all."""
    with_gpus(2)
    with pytest.raises(InvalidOption, match="Expected each GPU once, found 'GPU-0,GPU-01'"):
        _gpus.choose("GPU-0,GPU-01")


def test_a_damaged_driver_is_no_obstacle_where_gpus_are_not_asked_for(with_gpus, caplog) -> None:
    """It is said in a warning, and Triton gets no options for GPUs."""
    with_gpus(1, NAIAD_DOUBLE_INIT="999")
    chosen = _gpus.choose(None)
    assert (chosen.gpus, chosen.library, chosen.why_none) == ((), "", "cuInit failed with 999")
    assert "Serving without GPUs: cuInit failed with 999" in caplog.text


def test_hidden_gpus_give_no_warning(with_gpus, caplog) -> None:
    """Who empties CUDA_VISIBLE_DEVICES means it."""
    with_gpus(1, CUDA_VISIBLE_DEVICES="")
    assert _gpus.choose(None).gpus == ()
    assert caplog.text == ""


def test_a_driver_that_ends_the_process_is_survived(driver: Path, tmp_path: Path, monkeypatch) -> None:
    """The launcher asks in a process of its own."""
    (tmp_path / "libcuda.so.1").symlink_to(driver / "libcuda.so.1")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    monkeypatch.setattr(_gpus._gpu_probe, "__file__", str(tmp_path / "probe.py"))
    (tmp_path / "probe.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert "ended with exit code -11" in _gpus.look().trouble


def test_the_plain_name_becomes_a_link_where_it_is_missing(with_gpus, tmp_path: Path, monkeypatch) -> None:
    """What Triton opens is then the driver itself, as the loader sees it."""
    with_gpus(1)
    chosen = _gpus.choose(None)
    assert chosen.library
    (tmp_path / "lib").mkdir()
    _stub.link_driver(tmp_path / "lib", chosen.library)
    monkeypatch.setenv("LD_LIBRARY_PATH", _command.environment(settings(tmp_path, chosen))["LD_LIBRARY_PATH"])
    assert _gpus.look().named_plainly
    assert _gpus.choose(None).library == ""


def test_an_empty_driver_of_a_toolkit_does_not_count(with_gpus, driver: Path, tmp_path: Path, monkeypatch) -> None:
    """A libcuda.so that is another file than the driver is not what Triton needs."""
    with_gpus(1)
    other = tmp_path / "stubs"
    other.mkdir()
    (other / "libcuda.so").write_bytes((driver / "libcuda.so.1").read_bytes())
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{driver}:{other}")
    assert _gpus.choose(None).library == str(driver / "libcuda.so.580.159.03")


def test_pools_and_metrics_are_for_servers_with_gpus(with_gpus, tmp_path: Path) -> None:
    """Each GPU gets a share of its own memory, under the number that Triton gives it."""
    with_gpus(3)
    assert gpu_arguments(tmp_path, _gpus.choose("none"), cuda=GIB) == ["--allow-gpu-metrics=false"]
    assert gpu_arguments(tmp_path, _gpus.choose("2,0")) == [
        "--allow-gpu-metrics=true",
        f"--cuda-memory-pool-byte-size=0:{48 * GIB // 32}",
        f"--cuda-memory-pool-byte-size=1:{16 * GIB // 32}",
    ]
    assert gpu_arguments(tmp_path, _gpus.choose("1"), cuda=GIB, pinned=0)[1:] == [
        f"--cuda-memory-pool-byte-size=0:{GIB}",
        "--pinned-memory-pool-byte-size=0",
    ]


@pytest.mark.parametrize("gpus", ["some", "", "0,", "GPU", "-1", "all,0", "GPU-12,0"])
def test_what_names_no_gpus_is_refused(gpus: str) -> None:
    """Before anything is asked of the driver."""
    with pytest.raises(InvalidOption, match="Expected gpus to be"):
        Options(repository=Path("models"), gpus=gpus)


@pytest.mark.parametrize("pool", ["cuda_memory_pool_bytes", "pinned_memory_pool_bytes"])
def test_a_pool_has_no_negative_size(pool: str) -> None:
    """The option is named."""
    with pytest.raises(InvalidOption, match=f"Expected {pool} >= 0, found -1"):
        Options(repository=Path("models"), **{pool: -1})
