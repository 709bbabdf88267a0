"""How the backend `pytorch` answers requests on a device that is not the processor."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pt2_helpers import (
    Doubling,
    Remote,
    StubTensor,
    device,
    errors,
    execution,
    graphs,
    model_config,
    numbers,
    record,
    request,
    shapes,
)

NO_SHAPES = shapes.Shapes({}, {})


def executor(remote: Any, package: Doubling, *, batch: int = 0, runner: Any = None) -> Any:
    return execution.Executor(model_config(max_batch_size=batch), package, NO_SHAPES, remote, runner)


def test_requests_are_joined_on_the_device_and_answered_after_its_work_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Triton may read a response at once, so none is made before the device has finished."""
    remote, package = Remote(), Doubling()

    def from_dlpack(name: str, capsule: Any) -> StubTensor:
        remote.steps.append("respond")
        return StubTensor(name, torch.utils.dlpack.from_dlpack(capsule))

    monkeypatch.setattr(execution.pb_utils.Tensor, "from_dlpack", from_dlpack)
    responses = executor(remote, package, batch=8).execute([request(1, 2), request(3)])
    assert [numbers(response) for response in responses] == [[2, 4], [6]]
    assert remote.steps == ["gather 2", "deliver", "finish", "respond", "respond"]
    assert package.runs == [3]


def test_a_request_that_fails_takes_no_other_along() -> None:
    """The device is asked whether it lives, and then the halves of the batch are run."""
    remote, package = Remote(), Doubling()
    responses = executor(remote, package, batch=8).execute([request(1), request(-1), request(3)])
    assert [numbers(responses[0]), numbers(responses[2])] == [[2], [6]]
    assert "model 'm': a number below 0" in str(responses[1].error)
    assert remote.steps.count("check") == 3
    assert remote.steps[-1] == "finish"


@pytest.mark.parametrize("rows", [(1.0,), (-1.0,)])
def test_a_lost_device_answers_nothing(rows: tuple[float, ...]) -> None:
    """Whether the run itself fails or the wait for it: no request is answered with what the memory held before."""
    with pytest.raises(errors.DeviceLost, match="an illegal memory access"):
        executor(Remote(lost="an illegal memory access"), Doubling()).execute([request(*rows)])


def test_outputs_of_a_recording_are_copied_before_the_next_replay() -> None:
    """Two requests of one call get their own numbers, though both are computed in the same place."""
    remote, package = Remote(), Doubling()
    runner = graphs.Graphs(package.run, record, pytest.fail)
    responses = executor(remote, package, runner=runner).execute([request(1), request(5)])
    assert [numbers(response) for response in responses] == [[2], [10]]
    assert remote.steps.count("deliver a copy") == 2


def test_the_processor_copies_what_is_lent_and_nothing_else() -> None:
    """A tensor that is in order already is handed on as it is."""
    cpu, value = device.Cpu(), torch.ones(2, 3)
    assert cpu.gather([value]) is value
    assert cpu.gather([value, value]).shape == (4, 3)
    assert cpu.deliver(value, lent=False) is value
    assert cpu.deliver(value, lent=True).data_ptr() != value.data_ptr()


def test_a_process_whose_gpu_is_lost_ends(tmp_path: Path) -> None:
    """Whatever supervises Triton sees a dead process and replaces it; the log says why it died."""
    script = tmp_path / "lose.py"
    script.write_text(
        "import contextlib\n"
        "from pt2_helpers import errors, load\n"
        "class Executor:\n"
        "    def execute(self, requests):\n"
        "        raise errors.DeviceLost('GPU 0 failed: an illegal memory access')\n"
        "model = load('model').TritonPythonModel()\n"
        "model._executor, model._mode = Executor(), contextlib.nullcontext\n"
        "model.execute([])\n"
        "print('lives')\n"
    )
    tests = Path(__file__).parents[2]
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {str(tests)!r}); exec(open({str(script)!r}).read())",
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert (
        ended.stderr == "GPU 0 failed: an illegal memory access; this process ends, so that another takes its place\n"
    )
