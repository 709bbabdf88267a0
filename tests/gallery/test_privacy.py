"""What becomes of request data: who gets it, what is written down, and what never is.

Texts with a token are sent in every way, also in requests that fail; then everything that was written is searched.
"""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from launcher_helpers import eventually, write_version
from naiad.cli.demo.service import RunningService, serve_behind_gateway
from naiad.cli.demo.stage import Stage
from naiad.client import ClientError, InferenceFailed, InvalidInput, Retry
from naiad.export import Repository
from privacy_helpers import (
    CLASSIFIER,
    DESCRIPTION,
    RAISES,
    Sender,
    Telemetry,
    call_everything,
    column,
    found_in,
    keep_what_goes_with_it,
    publish_careless,
    requests_of,
)

CONFIG = """
    name: "raises"
    backend: "python"
    max_batch_size: 8
    input [{ name: "text" data_type: TYPE_STRING dims: [ 1 ] }]
    output [{ name: "y" data_type: TYPE_STRING dims: [ 1 ] }]
    instance_group [{ kind: KIND_CPU count: 1 }]
    version_policy { latest { num_versions: 1 } }
"""


@dataclass(frozen=True)
class After:
    """A service that was called in every way and is gone, and what was written."""

    folder: Path
    sender: Sender
    keys: dict[str, str]
    secret: str
    inside: list[str]
    """Files in its private directories that held the token while it ran."""
    environments: list[str]
    """Of the processes that ran models."""

    @property
    def written(self) -> Path:
        return self.folder / "written"


@pytest.fixture(scope="module")
def repository(demo_of, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the demo published, a pipeline that repeats texts in its errors, and a model that raises."""
    run = demo_of(CLASSIFIER)
    assert run.found
    copy = tmp_path_factory.mktemp("private") / "repository"
    shutil.copytree(run.repository, copy, symlinks=True)
    publish_careless(copy)
    write_version(copy, "raises", 1, source=RAISES)
    (copy / "raises" / "config.pbtxt").write_text(textwrap.dedent(CONFIG))
    return copy


@pytest.fixture(scope="module")
def after(repository: Path) -> After:
    """Everything sent, at the most talkative that Triton and Python can be."""
    folder, sender = repository.parent, Sender()
    written, temporary = folder / "written", folder / "temporary"
    written.mkdir()
    temporary.mkdir()
    stage = Stage("private", repository=Repository(repository), folder=written, duration_s=1, options={})
    telemetry = Telemetry(written)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(temporary))
        with (
            telemetry.logging(),
            serve_behind_gateway(
                stage,
                CLASSIFIER,
                "careless",
                description=DESCRIPTION,
                access_log=written / "access.jsonl",
                log_file=written / "triton.log",
                extra_args=["--log-verbose=1"],
            ) as service,
        ):
            found = _use(stage, service, sender, telemetry)
        telemetry.write()
    return found


def _use(stage: Stage, service: RunningService, sender: Sender, telemetry: Telemetry) -> After:
    folder = stage.folder.parent
    call_everything(sender, service, telemetry)
    load = {**service.load_options("caller"), "data": requests_of(folder, sender)}
    stage.load_test(service.grpc_url, scenario="gallery/text_classifier.toml", **load)
    _crash(service, sender)
    keep_what_goes_with_it(service, stage.folder)
    eventually(lambda: len(service.requests()) > 20, "the access log is written")
    private = [service.directory, service.stack.directory, service.stack.gateway.log_path.parent]
    private += [replica.log_path.parent for replica in service.replicas.values()]
    stubs = [pid for replica in service.replicas.values() for pid in replica.stub_pids()]
    return After(
        folder=folder,
        sender=sender,
        keys=dict(service.keys),
        secret=service.stack.triton_secret,
        inside=found_in(sender.token, *private),
        environments=[Path(f"/proc/{pid}/environ").read_text() for pid in stubs],
    )


def _crash(service: RunningService, sender: Sender) -> None:
    """Kill a replica while a caller goes on, and wait until it is back."""
    service.kill("main-0")
    with service.client("caller") as client:
        client.infer(CLASSIFIER, column(f"the {sender.token} of words"))
    eventually(lambda: _answers(service), "the replica is back")


def _answers(service: RunningService) -> bool:
    try:
        httpx.get(service.replicas["main-0"].metrics_url, trust_env=False, timeout=10)  # Triton's last port
        with service.replicas["main-0"].client() as client:
            return client.ready(CLASSIFIER)
    except (ClientError, httpx.HTTPError):
        return False


def test_the_texts_were_sent_and_answered_or_refused(after: After):
    """Else nothing below says anything: every case was as it is named, and some answers held the text."""
    told = after.sender.told
    assert "label" in told["caller", "fine"]
    assert "label" in told["replica", "long"]
    assert "is not UTF-8" in told["caller", "not UTF-8"]
    assert "larger than 1 MiB" in told["caller", "too large"]
    assert "not found" in told["caller", "unknown model"]
    assert "may not" in told["stranger", "fine"]
    for who in ("caller", "replica"):
        assert after.sender.token in told[who, "exception in a step"]
        assert after.sender.token in told[who, "refused by a step"]


def test_only_a_step_that_quotes_its_input_tells_it_to_the_caller(after: After):
    """Every other error speaks of names, types, shapes and sizes."""
    own = {"refused by a step", "exception in a step"}
    telling = {name for (_, name), words in after.sender.told.items() if after.sender.token in words}
    assert telling == own


@pytest.mark.parametrize(
    "name",
    [
        "access.jsonl",
        "envoy.log",
        "triton-main-0.log",
        "triton-main-1.log",
        "python.log",
        "spans.json",
        "client-metrics",
        "metrics-gateway",
        "metrics-main-0",
        "metrics-main-1",
        "report.html",
        "report.json",
    ],
)
def test_it_is_written_without_any_text(after: After, name: str):
    """Logs at their most talkative, spans, metrics, reports: there, and without what was sent."""
    path = after.written / name
    assert path.exists()
    if name != "envoy.log":  # which has nothing to complain about
        assert path.stat().st_size > 0
    assert found_in(after.sender.token, path) == []


def test_nothing_else_is_written_with_a_text_in_it(after: After):
    """Not in the repository, not in temporary files, not in shared memory once the service has ended."""
    places = [after.folder, Path("/dev/shm")]
    assert found_in(after.sender.token, *places) == [str(after.folder / "requests.jsonl")]
    assert after.inside == []


def test_no_key_is_written(after: After):
    """Neither a caller's nor the one between the gateway and Triton."""
    for key in (*after.keys.values(), after.secret):
        assert found_in(key, after.folder) == []


def test_a_request_leaves_these_facts_and_no_others(after: After):
    """The access log has the fields that the page names, and no others."""
    lines = [json.loads(line) for line in (after.written / "access.jsonl").read_text().splitlines()]
    page = (Path(__file__).parents[2] / "docs" / "gallery" / "text_classifier.md").read_text()
    section = page.partition("## Privacy")[2]
    names = set().union(*lines)
    assert [name for name in sorted(names) if f"`{name}`" not in section] == []
    answered = [line for line in lines if line.get("model") == CLASSIFIER and line["grpc_status"] == 0]
    assert {line["identity"] for line in answered} == {"caller"}
    assert all(line["bytes_in"] > 0 and line["client"].startswith("127.0.0.1:") for line in answered)


def test_nothing_is_reported_to_the_maker_of_onnx_runtime(after: After):
    """The processes that run models are told so, and no file of its telemetry was made."""
    assert after.environments
    assert all("ORT_DISABLE_TELEMETRY=1" in environment for environment in after.environments)
    assert not list((after.folder / "temporary").rglob(".ses"))


SESSION = """
    import sys
    from naiad.export._runtime.session import session
    session(sys.argv[1]).run(None, {})
"""


def test_an_export_reports_nothing_to_the_maker_of_onnx_runtime(tmp_path: Path):
    """Its import alone would make an id of the machine in the cache."""
    import onnx
    from onnx import TensorProto, helper

    node = helper.make_node("Constant", [], ["y"], value_float=1.0)
    graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "m.onnx")
    home = tmp_path / "home"
    home.mkdir()
    hidden = {"CI", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}
    variables = {name: value for name, value in os.environ.items() if name not in hidden}
    variables |= {"HOME": str(home), "TMPDIR": str(home)}
    command = [sys.executable, "-c", textwrap.dedent(SESSION), str(tmp_path / "m.onnx")]
    subprocess.run(command, env=variables, check=True, timeout=120)
    assert not list(home.rglob("*onnxruntime*"))
    assert not list(home.rglob(".ses"))


def test_what_is_kept_on_purpose_holds_samples(repository: Path):
    """Golden requests are samples of the export, word by word, and the vocabulary is of the training texts."""
    version = Repository(repository).served(CLASSIFIER)[0]
    with np.load(repository / CLASSIFIER / str(version) / "golden.npz", allow_pickle=False) as golden:
        texts = [golden[name] for name in golden.files if name.endswith("/text")]
    assert any(array.size for array in texts)
    assert list(repository.rglob("vocabulary.json"))


def test_what_callers_name_is_written_as_they_name_it(repository: Path, tmp_path: Path):
    """Names of models and ids of requests are no data: who puts texts there finds them in the access log."""
    stage = Stage("named", repository=Repository(repository), folder=tmp_path, duration_s=1, options={})
    with (
        serve_behind_gateway(stage, "careless", description=DESCRIPTION, num_replicas=1) as service,
        service.client("caller", metadata={"x-request-id": "an-id"}, retry=Retry(attempts=1)) as client,
    ):
        assert not client.ready("missing-name")
        assert service.wait_for_request("an-id")["model"] == "missing-name"


def test_a_model_of_ones_own_that_raises_is_in_tritons_log(repository: Path, tmp_path: Path):
    """Triton writes it there; a model that answers with an error, as pipelines do, is not written about."""
    stage = Stage("raising", repository=Repository(repository), folder=tmp_path, duration_s=1, options={})
    sender = Sender()
    options = {"num_replicas": 1, "log_file": tmp_path / "triton.log"}
    with serve_behind_gateway(stage, "raises", "careless", **options) as service, service.client() as client:
        with pytest.raises(InferenceFailed, match=sender.token):
            client.infer("raises", column(sender.token))
        assert found_in(sender.token, tmp_path) == [str(tmp_path / "triton.log")]
        size = (tmp_path / "triton.log").stat().st_size
        with pytest.raises(InvalidInput, match=sender.token):
            client.infer("careless", column(f"refuse {sender.token}"))
        assert (tmp_path / "triton.log").stat().st_size == size


def test_a_load_test_quotes_the_errors_that_it_met(repository: Path, tmp_path: Path):
    """Its requests are a tester's choice; a step that quotes them is quoted in the report."""
    stage = Stage("failing", repository=Repository(repository), folder=tmp_path, duration_s=1, options={})
    sender = Sender()
    requests = tmp_path / "requests.jsonl"
    requests.write_text(json.dumps({"text": [f"break {sender.token}"]}) + "\n")
    with stage.serve("careless") as triton:
        scenario = "gallery/text_classifier.toml"
        stage.load_test(triton.grpc_url, scenario=scenario, model="careless", data=requests, warmup="1s")
    assert any("broke at" in failure for failure in stage.summary.failures)
    assert str(tmp_path / "report.json") in found_in(sender.token, tmp_path)
