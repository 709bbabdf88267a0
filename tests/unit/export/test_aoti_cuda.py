"""A `model.pt2` for a GPU, as far as a machine without one can tell: what is refused, and what is configured."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf import text_format

from export_helpers import Scores, contents, rows, run_naiad
from export_publisher import publish
from naiad.export import InvalidExport, Repository, Tolerance, export, lint
from naiad.export._aoti import configure, toolchain
from naiad.export._aoti.build import require_device, verified_recordings
from naiad.export._aoti.package import Package, Place
from naiad.export._configure.configure import Wishes
from naiad.export._source.reference import Answer
from naiad.export._source.samples import Samples, arrange
from naiad.export.report import BatchLatency

RECIPE = """\
import torch
from pathlib import Path

NAME = "scores"

def build():
    Path("built").touch()
    return torch.nn.Linear(4, 2)

def samples():
    return [(torch.randn(4, 4),)]
"""


@pytest.fixture
def without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """The PyTorch of machines without a GPU, wherever this runs."""
    monkeypatch.setattr(torch.version, "cuda", None)


@pytest.mark.usefixtures("without_cuda")
def test_a_machine_without_a_gpu_says_what_is_missing(tmp_path: Path) -> None:
    """Before any work, so the repository stays empty."""
    expected = "device 'cuda' cannot be used for the accelerator 'aoti': torch .* was built without CUDA; install"
    with pytest.raises(InvalidExport, match=expected):
        export(
            Scores(), "m", samples=[(rows(5, 4),)], repository=tmp_path / "models", accelerator="aoti", device="cuda"
        )
    assert contents(tmp_path) == []


@pytest.mark.usefixtures("without_cuda")
def test_auto_takes_the_processor_where_there_is_no_gpu() -> None:
    """As before there was a choice."""
    assert require_device("auto") == "cpu"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu", "accelerator": "aoti"}, "device must be one of auto, cpu, cuda; found 'gpu'"),
        ({"device": "cuda"}, "expected one of the accelerators cuda, tensorrt and aoti beside it, found 'cpu'"),
    ],
)
def test_a_device_that_makes_no_sense_is_refused(options: dict[str, str], message: str, tmp_path: Path) -> None:
    """Wrong use is told apart from a machine that lacks something."""
    with pytest.raises(InvalidExport, match=message):
        export(Scores(), "m", samples=[(rows(5, 4),)], repository=tmp_path / "models", **options)


@pytest.mark.skipif(torch.version.cuda is not None, reason="this PyTorch can use a GPU")
def test_the_command_ends_with_2_before_the_recipe_builds(tmp_path: Path) -> None:
    """A model that takes an hour to train is not trained first."""
    (tmp_path / "mine.py").write_text(RECIPE)
    ended = run_naiad("export", "mine.py", "-r", "models", "--accelerator", "aoti", "--device", "cuda", cwd=tmp_path)
    assert ended.returncode == 2
    assert not {"built", "models"} & set(contents(tmp_path))
    assert "was built without CUDA; install a PyTorch for CUDA" in ended.stderr


@pytest.mark.usefixtures("with_gpu")
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_gpu_without_the_tools_to_compile_for_it_says_so(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package for the processor instead would not be noticed before it is slow."""
    monkeypatch.setattr(toolchain, "lacks_tools", lambda: "there is no Python.h: install python3-dev")
    with pytest.raises(InvalidExport, match=r"no Python\.h: install python3-dev, or choose --device cpu"):
        require_device(device)


@pytest.fixture
def with_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "lacks_gpu", lambda: "")


def test_the_headers_of_cuda_are_found_where_they_are_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that lacks one of them is passed over for the next."""
    for root, names in (("half", ["cuda.h"]), ("whole", ["cuda.h", "cuda_runtime_api.h", "crt/host_defines.h"])):
        for name in names:
            header = tmp_path / root / "include" / name
            header.parent.mkdir(parents=True, exist_ok=True)
            header.touch()
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "half"))
    monkeypatch.setenv("CUDA_PATH", str(tmp_path / "whole"))
    assert toolchain.cuda_home() == tmp_path / "whole"


@pytest.mark.skipif(torch.version.cuda is not None, reason="the tools are there")
def test_each_missing_tool_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, each with what to install."""
    found = {"triton": None}
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", found.get)
    assert "pip install triton" in toolchain.lacks_tools()
    found["triton"] = object()  # type: ignore[assignment]
    monkeypatch.setenv("PATH", "")
    assert "install g++" in toolchain.lacks_tools()
    monkeypatch.setenv("CXX", sys.executable)
    assert "install gcc" in toolchain.lacks_tools()
    monkeypatch.undo()
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", found.get)
    monkeypatch.setattr(toolchain.sysconfig, "get_path", lambda name, scheme: str(tmp_path))
    assert "no Python.h" in toolchain.lacks_tools()
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(toolchain, "cuda_home", lambda: None)
    assert "pip install nvidia-cuda-runtime nvidia-cuda-crt" in toolchain.lacks_tools()


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")
def test_a_program_links_with_a_driver_that_has_no_name_for_linkers(tmp_path: Path) -> None:
    """Machines that only run CUDA have `libcuda.so.1`, and PyTorch's compiler links with `-lcuda`."""
    driver, folder = tmp_path / "driver", tmp_path / "folder"
    driver.mkdir()
    folder.mkdir()
    _compile(
        "int cuInit(unsigned flags) { return 0; }",
        "-shared",
        "-fPIC",
        "-Wl,-soname,libcuda.so.1",
        "-o",
        str(driver / "libcuda.so.1"),
    )
    code = (
        "import json, sys; from pathlib import Path; from naiad.export._aoti import toolchain;"
        f"print(json.dumps(toolchain.environment(Path({str(folder)!r}))['LIBRARY_PATH']))"
    )
    environment = os.environ | {"LD_LIBRARY_PATH": str(driver), "LIBRARY_PATH": "/elsewhere"}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout == f'"{folder}:/elsewhere"\n'
    source = "int cuInit(unsigned); int main(void) { return cuInit(0); }"
    _compile(source, "-o", str(tmp_path / "program"), "-lcuda", LIBRARY_PATH=str(folder))
    subprocess.run([str(tmp_path / "program")], env=environment, check=True)


def _compile(source: str, *options: str, **environment: str) -> None:
    command = ["gcc", "-x", "c", "-", *options]
    subprocess.run(command, input=source, text=True, env=os.environ | environment, check=True)


def test_a_program_keeps_its_types(tmp_path: Path) -> None:
    """Casting what was exported is not possible, so it is refused instead of compiled as it is."""
    program = torch.export.export(Scores().eval(), (rows(5, 4),))
    with pytest.raises(InvalidExport, match="keeps the types that it was exported with; found precision='bf16'"):
        export(
            program,
            "m",
            samples=[(rows(5, 4),)],
            repository=tmp_path / "models",
            max_batch_size=0,
            accelerator="aoti",
            precision="bf16",
        )


def _served(value: float = 0.0) -> tuple[Samples, tuple[Answer, ...]]:
    samples = arrange(({"x": np.zeros((5, 4), np.float32)},), {"x": {0: "batch"}}, 8)
    answers = tuple(
        Answer(case=case, outputs={"y": np.full((case.sizes["batch"], 3), value, np.float32)})
        for case in samples.cases()
    )
    return configure.renamed(samples, answers)


def _package(path: Path, **changes: Any) -> Package:
    path.write_bytes(b"PK\x05\x06" + bytes(18))  # an archive with nothing in it
    package = Package(
        path=path,
        answers=(),
        latency=(BatchLatency(batch=1, median_ms=0.1),),
        ranges={},
        metadata={"GPU": "NVIDIA H200", "GPU_MEMORY_BYTES": str(141 << 30), "AOTI_COMPUTE_CAPABILITY": "90"},
        versions={"torch": "2.11.0+cu130"},
        place=Place(device="cuda", precision="bf16"),
    )
    return replace(package, **changes)


def _configured(package: Package, **wishes: Any) -> Any:
    samples, answers = _served()
    recorded = bool(package.recorded)
    return configure.configure("m", package, samples, answers, labels={}, wishes=Wishes(**wishes), cuda_graph=recorded)


def test_a_gpus_entry_uses_it(tmp_path: Path) -> None:
    """Instances on each GPU, tensors that stay there, and its own words in the report."""
    found = _configured(_package(tmp_path / "model.pt2", recorded=({"y": np.zeros(1)},)), cores=16)
    (group,) = found.config.instance_group
    parameters = {key: value.string_value for key, value in found.config.parameters.items()}
    assert (group.count, group.kind) == (2, group.KIND_GPU)
    assert parameters == {
        "INTRA_OP_THREAD_COUNT": "4",
        "FORCE_CPU_ONLY_INPUT_TENSORS": "no",
        "naiad.cuda_graph": "true",
    }
    assert [choice.value for choice in found.choices] == ["2 on each GPU", "on", "0"]
    assert "machine code for NVIDIA H200 (compute capability 90)" in found.findings[0].message
    assert found.not_measured[0] == "whether bf16 is faster than fp32: one package was compiled"


@pytest.mark.parametrize(("error", "passes"), [(0.0, True), (0.001, True), (0.1, False)])
def test_recordings_are_held_to_the_tolerance_of_the_precision(error: float, passes: bool, tmp_path: Path) -> None:
    """A package that was right when it ran may be wrong when its work is replayed."""
    samples, answers = _served(1.0)
    recorded = tuple({name: array + np.float32(error) for name, array in each.outputs.items()} for each in answers)
    package = _package(tmp_path / "model.pt2", recorded=recorded)
    assert verified_recordings(package, samples, answers, Tolerance.of("fp16"), "m") is passes


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "other sizes vary, too"),
        ({"not_recorded": "operation not permitted"}, "the work cannot be recorded: operation not permitted"),
    ],
)
def test_what_was_not_recorded_is_not_replayed(changes: dict[str, str], reason: str, tmp_path: Path) -> None:
    """The report says why."""
    found = _configured(_package(tmp_path / "model.pt2", **changes))
    assert found.config.parameters["naiad.cuda_graph"].string_value == "false"
    assert (found.choices[1].value, found.choices[1].reason) == ("off", reason)


@pytest.mark.parametrize(("kind", "device"), [("KIND_CPU", "cuda"), ("KIND_GPU", "cpu")])
def test_a_model_that_is_served_elsewhere_is_refused(kind: str, device: str, tmp_path: Path) -> None:
    """All versions share one configuration, so the new one would not load."""
    publish(tmp_path / "models", "m")
    repository = Repository(tmp_path / "models")
    config = repository.config("m")
    group = config.instance_group.add()
    group.kind = group.Kind.Value(kind)
    (tmp_path / "models" / "m" / "config.pbtxt").write_text(text_format.MessageToString(config))
    place = Place(device=device)
    with pytest.raises(InvalidExport, match=f"instances of {kind}, where a package compiled for {device} cannot run"):
        configure.refuse_other_instances(repository, "m", {}, place)
    configure.refuse_other_instances(repository, "m", {"instance_group.0.kind": "KIND_AUTO"}, place)
    configure.refuse_other_instances(repository, "another", {}, place)


def test_weights_that_fill_a_gpu_get_one_instance(tmp_path: Path) -> None:
    """Each instance holds them once."""
    memory = {"GPU": "small", "GPU_MEMORY_BYTES": "100"}
    found = _configured(_package(tmp_path / "model.pt2", metadata=memory))
    assert found.config.instance_group[0].count == 1


def test_settings_win_and_the_linter_agrees(tmp_path: Path) -> None:
    """Names with dots can be set, and the entry is one that servers load."""
    version = tmp_path / "models" / "m" / "1"
    version.mkdir(parents=True)
    settings = {"parameters.naiad.output_memory": "cpu", "parameters.naiad.cuda_graph": False}
    found = _configured(_package(version / "model.pt2"), settings=settings)
    parameters = {key: value.string_value for key, value in found.config.parameters.items()}
    assert (parameters["naiad.output_memory"], parameters["naiad.cuda_graph"]) == ("cpu", "false")
    for name, data in found.warmup.items():
        file = version.parent / "warmup" / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(data)
    (version.parent / "config.pbtxt").write_text(text_format.MessageToString(found.config))
    problems = [(each.rule, each.effect) for each in lint(tmp_path / "models", target="26.07")]
    assert problems == [("scheduling.instance_kinds", "needs a GPU")]
