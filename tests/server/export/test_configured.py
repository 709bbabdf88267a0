"""Configurations on the real Triton: warm-up, batching, labels, cache, states, and entries for GPUs on a CPU."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import tritonclient.grpc

from export_helpers import Stateful, rows
from naiad.client import Client
from naiad.export import Repository, export
from naiad.server import EmbeddedTriton, ModelLoadFailed
from repository_helpers import affine, identity

ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)
TEXTS = np.array([["ä", "two words"], ["", "b"]], object)


@pytest.fixture(scope="module")
def stateful() -> Stateful:
    return Stateful().eval()


@pytest.fixture(scope="module")
def repository(stateful: Stateful, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """One model for each thing that a configuration can ask for."""
    folder = tmp_path_factory.mktemp("configured")
    repo = Repository(folder / "models")

    def publish(name: str, graph: Any, samples: dict[str, np.ndarray], **options: Any) -> None:
        graph.opset_import[0].version, graph.ir_version = 20, 10
        onnx.save(graph, folder / f"{name}.onnx")
        export(folder / f"{name}.onnx", name, samples=[samples], repository=repo, **{"max_batch_size": 8} | options)

    publish(
        "labelled",
        affine(),
        {"x": ROWS},
        labels=["low", "middle", "high"],
        accelerator="tensorrt",
        cores=16,
        settings={"dynamic_batching.priority_levels": 3, "parameters.notes.owner": "team-a"},
    )
    publish("texts", identity({"text": "STRING[batch,width]"}), {"text": TEXTS})
    publish("lengths", identity({"x": "FP32[n,3]"}), {"x": ROWS}, max_batch_size=0)
    patient = {"preferred_batch_size": [4], "max_queue_delay_microseconds": 120_000_000}
    publish("patient", affine(), {"x": ROWS}, settings={"dynamic_batching": patient})
    publish("cached", affine(), {"x": ROWS}, settings={"response_cache.enable": True})
    sample = {"x": rows(5, 1, 12), "h": rows(5, 6, seed=1)}
    dynamic = {"x": {0: "batch", 2: "length"}, "h": {0: "batch"}}
    export(
        stateful,
        "stateful",
        samples=[sample],
        dynamic=dynamic,
        states={"h": "h_out"},
        max_batch_size=4,
        repository=repo,
    )
    return repo


@pytest.fixture(scope="module")
def server(repository: Repository) -> Iterator[EmbeddedTriton]:
    with EmbeddedTriton(repository.path, response_cache_bytes=1 << 20) as triton:
        yield triton


@pytest.fixture(scope="module")
def client(server: EmbeddedTriton) -> Iterator[Client]:
    with server.client() as client:
        yield client


@pytest.mark.parametrize("target", ["24.10", "26.07"])
def test_what_is_published_lints_clean(repository: Repository, target: str) -> None:
    """No choice of the configuration is one that the embedded server, or NVIDIA's container, would refuse."""
    findings = repository.lint(target=target)
    assert {found.model for found in findings} == {"patient"}  # whose queue waits for minutes on purpose
    assert {found.rule for found in findings} == {"scheduling.queue_delay"}


def statistics(client: Client, model: str, until: Callable[[Any], bool]) -> Any:
    """The statistics of a model, once they are as expected: they follow an answer with a delay."""
    deadline = time.monotonic() + 60
    while not until(found := client.statistics(model)[0]):
        assert time.monotonic() < deadline, f"the statistics stay {found}"
        time.sleep(0.02)
    return found


@pytest.mark.parametrize(
    ("model", "batches"), [("labelled", {1, 8}), ("texts", {1, 8}), ("lengths", {1})], ids=["numbers", "texts", "0"]
)
def test_the_server_warms_up_with_real_samples(
    repository: Repository, client: Client, model: str, batches: set[int]
) -> None:
    """Before the first request, batches of one row and of the largest size ran, read from files, text among them."""
    config = repository.config(model)
    inputs = [tensor for request in config.model_warmup for tensor in request.inputs.values()]
    assert all((repository.path / model / "warmup" / tensor.input_data_file).is_file() for tensor in inputs)
    assert not any(tensor.zero_data for tensor in inputs)
    assert batches <= statistics(client, model, lambda found: batches <= found.batches.keys()).batches.keys()


def test_warm_up_data_that_is_cut_short_is_noticed(repository: Repository, tmp_path: Path) -> None:
    """The files are really read: Triton refuses a model whose warm-up data has too few bytes."""
    shutil.copytree(repository.path / "labelled", tmp_path / "models" / "labelled")
    next((tmp_path / "models" / "labelled" / "warmup").iterdir()).write_bytes(b"\0")
    with pytest.raises(ModelLoadFailed, match="bytes"), EmbeddedTriton(tmp_path / "models"):
        pass


def test_texts_are_answered(client: Client) -> None:
    """A model of texts was warmed up with texts, and answers them."""
    assert client.infer("texts", {"text": TEXTS})["text_out"].tolist() == [[b"\xc3\xa4", b"two words"], [b"", b"b"]]


def test_an_entry_for_tensorrt_is_served_on_a_cpu(repository: Repository, client: Client) -> None:
    """The options are for GPU instances alone; what was not measured is said in the manifest."""
    config = repository.config("labelled")
    accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert [accelerator.name for accelerator in accelerators] == ["tensorrt", "cuda"]
    assert accelerators[0].parameters["trt_profile_max_shapes"] == "x:8x3"
    np.testing.assert_array_equal(client.infer("labelled", {"x": ROWS})["y"], 2 * ROWS)
    manifest = repository.manifest("labelled", 1)
    assert len(manifest["not_measured"]) == 3
    assert manifest["report"]["not_measured"] == manifest["not_measured"]


def test_instances_for_the_cores_that_were_named(repository: Repository, server: EmbeddedTriton) -> None:
    """A fast model gets one instance of one thread for every eight cores, and each is a process here."""
    assert [group.count for group in repository.config("labelled").instance_group] == [2]
    assert repository.config("labelled").parameters["intra_op_thread_count"].string_value == "1"
    assert len(server.stub_pids()) == 2 + len(repository.models()) - 1


def test_labels_and_priorities(repository: Repository, server: EmbeddedTriton) -> None:
    """A classification names its classes, and a request with a priority is served; requests without have the middle."""
    assert repository.config("labelled").dynamic_batching.default_priority_level == 2
    with tritonclient.grpc.InferenceServerClient(server.grpc_address) as reference:
        given = tritonclient.grpc.InferInput("x", [1, 3], "FP32")
        given.set_data_from_numpy(np.array([[1, 3, 2]], np.float32))
        wanted = tritonclient.grpc.InferRequestedOutput("y", class_count=2)
        answer = reference.infer("labelled", [given], outputs=[wanted], priority=1).as_numpy("y")
    assert [text.decode() for text in answer.ravel()] == ["6.000000:1:middle", "4.000000:2:high"]


def test_requests_are_joined_to_the_preferred_batch(client: Client) -> None:
    """Four callers with one row each, long before the delay is over: they ran as one batch of four."""
    with ThreadPoolExecutor(4) as callers:
        answers = list(
            callers.map(lambda row: client.infer("patient", {"x": ROWS[row : row + 1]}, timeout_s=60), range(4))
        )
    np.testing.assert_array_equal(np.concatenate([answer["y"] for answer in answers]), 2 * ROWS)
    assert 4 in statistics(client, "patient", lambda found: 4 in found.batches).batches


def test_equal_requests_are_answered_from_the_cache(client: Client, repository: Repository) -> None:
    """The second of two equal requests is not executed, and a finding says what the server needs for that."""
    for _ in range(2):
        np.testing.assert_array_equal(client.infer("cached", {"x": ROWS})["y"], 2 * ROWS)
    assert statistics(client, "cached", lambda found: found.cache_hit.count >= 1).cache_hit.count == 1
    report = repository.version("cached", 1).report
    assert report is not None
    assert "response cache" in [finding.check for finding in report.findings]


def test_golden_pairs_of_a_stateful_model_are_first_steps(
    repository: Repository, stateful: Stateful, server: EmbeddedTriton
) -> None:
    """They hold what clients send and get, from a state of zero, and can be replayed on the server."""
    with np.load(repository.path / "stateful" / "1" / "golden.npz") as golden:
        assert {name.split("/")[2] for name in golden.files} == {"x", "y"}
        x, y = torch.from_numpy(golden["input/1/x"]), golden["output/1/y"]
    with torch.no_grad():
        np.testing.assert_allclose(stateful(x, torch.zeros(len(x), 6))["y"].numpy(), y, rtol=1e-5, atol=1e-6)
    (outcome,) = repository.verify_served("stateful", server.grpc_url)
    assert outcome.problems == ()


def test_interleaved_sequences_keep_their_states(stateful: Stateful, server: EmbeddedTriton) -> None:
    """Two callers step through their own sequences, of any lengths; each state goes on as in PyTorch, from zero."""
    states = {sequence: torch.zeros(1, 6) for sequence in (1, 2)}
    with tritonclient.grpc.InferenceServerClient(server.grpc_address) as reference:
        for step in range(4):
            for sequence in states:
                x = rows(1, 1, 7 + step, seed=10 * sequence + step)
                given = tritonclient.grpc.InferInput("x", list(x.shape), "FP32")
                given.set_data_from_numpy(x.numpy())
                place = {"sequence_start": step == 0, "sequence_end": step == 3}
                answer = reference.infer("stateful", [given], sequence_id=sequence, **place)
                assert [output.name for output in answer.get_response().outputs] == ["y"]
                with torch.no_grad():
                    expected = stateful(x, states[sequence])
                states[sequence] = expected["h"]
                np.testing.assert_allclose(answer.as_numpy("y"), expected["y"].numpy(), rtol=1e-4, atol=1e-5)
