"""CUDA shared memory between torch, the client and a real Triton on one GPU."""

import logging
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from launcher_helpers import eventually
from naiad.client import AsyncClient, Client, CudaMemory, Unsupported
from naiad.server import EmbeddedTriton

WIDTH = 1024

TWICE = """
    import torch
    import triton_python_backend_utils as pb_utils

    class TritonPythonModel:
        def execute(self, requests):
            self.sent = []  # until Triton has sent them
            return [self.answer(pb_utils.get_input_tensor_by_name(request, "x")) for request in requests]

        def answer(self, x):
            if x.is_cpu():
                where = torch.zeros((x.shape()[0], 1), dtype=torch.int32)
                return pb_utils.InferenceResponse(
                    [pb_utils.Tensor("y", x.as_numpy()), pb_utils.Tensor("on_gpu", where.numpy())]
                )
            tensor = torch.from_dlpack(x.to_dlpack())
            y = tensor + tensor
            where = torch.ones((y.shape[0], 1), dtype=torch.int32)
            torch.cuda.synchronize()
            self.sent.append(y)
            return pb_utils.InferenceResponse(
                [pb_utils.Tensor.from_dlpack("y", y), pb_utils.Tensor("on_gpu", where.numpy())]
            )
"""

CONFIG = """
    name: "{name}"
    backend: "python"
    max_batch_size: 4096
    input [{{ name: "x" data_type: TYPE_{datatype} dims: [ {width} ] }}]
    output [
      {{ name: "y" data_type: TYPE_{datatype} dims: [ {width} ] }},
      {{ name: "on_gpu" data_type: TYPE_INT32 dims: [ 1 ] }}
    ]
    instance_group [{{ kind: KIND_GPU count: 1 }}]
    parameters {{ key: "FORCE_CPU_ONLY_INPUT_TENSORS" value: {{ string_value: "{on_host}" }} }}
"""
MODELS = {
    "twice": ("FP32", WIDTH),
    "free": ("FP32", -1),
    "half": ("FP16", WIDTH),
    "brain": ("BF16", WIDTH),
    "truth": ("BOOL", WIDTH),  # on the host: it gives its input back
    "whole": ("INT64", WIDTH),
}


def write(repository: Path) -> Path:
    for name, (datatype, width) in MODELS.items():
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "1" / "model.py").write_text(textwrap.dedent(TWICE))
        on_host = "yes" if datatype == "BOOL" else "no"
        config = textwrap.dedent(CONFIG).format(name=name, datatype=datatype, width=width, on_host=on_host)
        (repository / name / "config.pbtxt").write_text(config)
    return repository


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    repository = write(tmp_path_factory.mktemp("cuda") / "repository")
    with EmbeddedTriton(repository, gpus="all", ready_timeout_s=240, cuda_memory_pool_bytes=1 << 30) as triton:
        yield triton.admin_url


@pytest.fixture
def triton(url: str) -> Iterator[Client]:
    pytest.importorskip("cuda.bindings")
    with Client(url, cuda_memory=True, timeout=120) as client:
        yield client


def test_tensors_go_in_and_come_out_where_they_are(triton: Client) -> None:
    """The model finds its input on the GPU, and torch reads the output where Triton wrote it."""
    import torch

    x = torch.rand(8, WIDTH, device="cuda")
    result = triton.model("twice").infer({"x": x}, outputs_on="cuda")
    y = torch.from_dlpack(result.cuda("y"))
    assert y.data_ptr() == result.cuda("y").address
    assert y.device == x.device
    assert torch.equal(y, x + x)
    assert torch.from_dlpack(result.cuda("on_gpu")).cpu().tolist() == [[1]] * 8
    np.testing.assert_array_equal(result["y"], (x + x).cpu().numpy())


@pytest.mark.parametrize(
    ("model", "dtype"), [("half", "float16"), ("brain", "bfloat16"), ("truth", "bool"), ("whole", "int64")]
)
def test_types_keep_their_bits(triton: Client, model: str, dtype: str) -> None:
    """In both directions, and as torch's own types."""
    import torch

    x = torch.arange(2 * WIDTH, device="cuda").reshape(2, WIDTH).remainder(2).to(getattr(torch, dtype))
    y = torch.from_dlpack(triton.model(model).infer({"x": x}, outputs_on="cuda").cuda("y"))
    assert y.dtype == x.dtype
    assert torch.equal(y, x if model == "truth" else x + x)


def test_out_receives_on_the_gpu(triton: Client) -> None:
    """The caller's tensor is filled, and is the result's."""
    import torch

    x, out = torch.rand(8, WIDTH, device="cuda"), torch.zeros(8, WIDTH, device="cuda")
    result = triton.model("twice").infer({"x": x}, outputs=["y"], out={"y": out})
    assert result["y"] is out
    assert torch.equal(out, x + x)


def test_outputs_of_unknown_size_come_too(triton: Client) -> None:
    """The first through the message, those of an idempotent model in place from then on."""
    import torch

    model = triton.model("free", idempotent=True)
    for _ in range(3):
        x = torch.rand(4, 300, device="cuda")
        assert torch.equal(torch.from_dlpack(model.infer({"x": x}, outputs_on="cuda").cuda("y")), x + x)


def test_what_is_still_computed_is_waited_for(triton: Client) -> None:
    """The producer's stream, which is not the default one, has much to do before the tensor is ready."""
    import torch

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        weights = torch.rand(4096, 4096, device="cuda")
        x = weights
        for _ in range(50):
            x = (x @ weights).remainder(1.0)
        x = x[:8, :WIDTH].contiguous()
        result = triton.model("twice").infer({"x": x}, outputs_on="cuda")
        y = torch.from_dlpack(result.cuda("y"))
        assert torch.equal(y, x + x)


def test_tensors_that_cannot_be_copied_as_they_are_are_refused(triton: Client) -> None:
    """With torch's own reason."""
    import torch

    from naiad.client import InvalidInput

    with pytest.raises(InvalidInput, match="contiguous"):
        triton.model("twice").infer({"x": torch.rand(WIDTH, 8, device="cuda").T})
    with pytest.raises(InvalidInput, match="gradient"):
        triton.model("twice").infer({"x": torch.rand(8, WIDTH, device="cuda", requires_grad=True)})


def test_memory_that_torch_still_has_is_not_lent_again(url: str) -> None:
    """Results of many calls, kept by torch alone, stay what they were, though the region is small."""
    import torch

    pytest.importorskip("cuda.bindings")
    with Client(url, cuda_memory=CudaMemory(region_bytes=2 << 20, max_bytes=64 << 20), timeout=120) as triton:
        model, kept = triton.model("twice"), []
        for number in range(60):
            x = torch.full((64, WIDTH), float(number), device="cuda")
            y = torch.from_dlpack(model.infer({"x": x}, outputs=["y"], outputs_on="cuda").cuda("y"))
            if number % 3 == 0:
                kept.append((number, y))
        assert all(bool((y == 2 * number).all()) for number, y in kept)


def test_large_tensors(triton: Client) -> None:
    """Larger than a region, several times."""
    import torch

    model = triton.model("twice")
    for rows in (1, 4096, 64):
        x = torch.rand(rows, WIDTH, device="cuda")
        for _ in range(3):
            y = torch.from_dlpack(model.infer({"x": x}, outputs_on="cuda").cuda("y"))
            assert torch.equal(y, x + x)


def test_many_threads(triton: Client) -> None:
    """Each with a stream of its own; nobody gets another's tensors."""
    import torch

    model, wrong = triton.model("twice"), []

    def work(number: int) -> None:
        try:
            with torch.cuda.stream(torch.cuda.Stream()):
                for turn in range(30):
                    x = torch.full((16, WIDTH), float(100 * number + turn), device="cuda")
                    y = torch.from_dlpack(model.infer({"x": x}, outputs_on="cuda").cuda("y"))
                    if not torch.equal(y, x + x):
                        wrong.append((number, turn))
        except Exception as exc:
            wrong.append((number, repr(exc)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_in_an_event_loop(url: str) -> None:
    """Many at once."""
    import asyncio

    import torch

    pytest.importorskip("cuda.bindings")

    async def work() -> None:
        async with AsyncClient(url, cuda_memory=True, timeout=120) as triton:
            model = triton.model("twice")

            async def one(number: int) -> bool:
                x = torch.full((8, WIDTH), float(number), device="cuda")
                result = await model.infer({"x": x}, outputs_on="cuda")
                return torch.equal(torch.from_dlpack(result.cuda("y")), x + x)

            assert all(await asyncio.gather(*(one(number) for number in range(64))))

    asyncio.run(work())


def test_closing_gives_the_memory_back(url: str) -> None:
    """As the driver counts it, of a client that had a gigabyte."""
    import torch

    pytest.importorskip("cuda.bindings")
    x = torch.rand(8, WIDTH, device="cuda")

    def free_bytes() -> int:
        torch.cuda.synchronize()
        return torch.cuda.mem_get_info()[0]

    with Client(url, cuda_memory=True, timeout=120) as warm:
        warm.model("twice").infer({"x": x}, outputs_on="cuda")
    before = free_bytes()
    with Client(url, cuda_memory=CudaMemory(region_bytes=1 << 30, max_bytes=1 << 30), timeout=120) as triton:
        triton.model("twice").infer({"x": x}, outputs_on="cuda")
        assert before - free_bytes() >= 1 << 30
        assert regions(triton)
    assert before - free_bytes() < 1 << 28


def regions(triton: Client) -> tuple[str, ...]:
    """The regions that the server has registered."""
    from naiad.client._protocol.regions import registered_cuda

    return triton._run(registered_cuda())


def test_a_server_that_was_restarted_is_told_again(tmp_path: Path) -> None:
    """The same client, the same memory, another process at the same address."""
    import torch

    pytest.importorskip("cuda.bindings")
    repository = write(tmp_path / "repository")
    x = torch.rand(8, WIDTH, device="cuda")
    with EmbeddedTriton(repository, models=["twice"], gpus="all", ready_timeout_s=240) as first:
        url = first.admin_url
        port, secret = int(url.rpartition(":")[2]), url.partition("//:")[2].partition("@")[0]
        client = Client(url, cuda_memory=True, timeout=120)
        kept = torch.from_dlpack(client.model("twice").infer({"x": x}, outputs_on="cuda").cuda("y"))
    with (
        client,
        EmbeddedTriton(
            repository, models=["twice"], gpus="all", ready_timeout_s=240, grpc_port=port, admin_secret=secret
        ),
    ):
        eventually(lambda: client.ready("twice"))
        y = torch.from_dlpack(client.model("twice").infer({"x": x}, outputs_on="cuda").cuda("y"))
        assert torch.equal(y, x + x)
        assert torch.equal(kept, x + x)


def test_auto_goes_by_the_host_where_the_server_uses_no_gpu(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One line says so; the program is the same, and so are its results. True is an error."""
    import torch

    from repository_helpers import affine, write_model

    pytest.importorskip("cuda.bindings")
    repository = tmp_path / "repository"
    write_model(repository, "affine", affine(), inputs={"x": "FP32[3]"}, outputs={"y": "FP32[3]"}, max_batch_size=8)
    x = torch.rand(2, 3, device="cuda")
    with EmbeddedTriton(repository, gpus="none") as server:
        with caplog.at_level(logging.INFO, "naiad.client"), Client(server.admin_url, cuda_memory="auto") as triton:
            expected = triton.model("affine")(x=x.cpu())["y"]
            for _ in range(3):
                result = triton.model("affine").infer({"x": x}, outputs_on="cuda")
                np.testing.assert_array_equal(torch.from_dlpack(result.cuda("y")).cpu().numpy(), expected)
        assert len([record for record in caplog.records if "tensors go by the host's" in record.message]) == 1
        with Client(server.admin_url, cuda_memory=True) as triton, pytest.raises(Unsupported, match="same GPU"):
            triton.model("affine").infer({"x": x})


FORKS = """
import os
import sys

import numpy
import torch
from naiad.client import Client, Unsupported
x = torch.rand(8, 1024, device="cuda")
triton = Client(sys.argv[1], cuda_memory=True)
twice = triton.model("twice")
result = twice.infer({"x": x}, outputs_on="cuda")
child = os.fork()
if child == 0:
    try:
        twice.infer({"x": numpy.ones((8, 1024), "float32")}, outputs_on="cuda")
    except Unsupported as exc:
        print("told" if "forked" in str(exc) else exc, flush=True)
    del result
    os._exit(0)
os.waitpid(child, 0)
y = torch.from_dlpack(result.cuda("y"))
print("equal" if torch.equal(y, x + x) else "differs")
triton.close()
"""


def test_a_forked_child_is_told_and_harms_nobody(url: str) -> None:
    """It raises a clear error, and the parent goes on."""
    pytest.importorskip("cuda.bindings")

    done = subprocess.run([sys.executable, "-c", FORKS, url], capture_output=True, text=True, timeout=150)
    assert done.stdout.split() == ["told", "equal"], done.stderr
