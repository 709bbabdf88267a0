"""Answers requests: reads them, runs them in as few runs as their shapes allow, and checks what comes out."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import triton_python_backend_utils as pb_utils
from _ort_batch import Arrays, Job, groups, join, split
from _ort_datatypes import BF16, DataType
from _ort_errors import CancelledRequestError, InferenceError, RequestError, RunError
from _ort_signature import Signature
from _ort_states import States
from _ort_strings import strings_for_runtime
from _ort_tensors import array_of, array_of_value, bf16_value, tensor_of, value_of
from numpy.typing import NDArray

CANCELLATION_CHECK_PAYS_S: Final = 0.015
"""How long a run must be, for each request in it, before it pays to ask whether the client still waits.

The question is a round trip to the server, about 0.1 ms; so it costs at most one percent.
"""

Answer = Arrays | InferenceError


class Executor:
    """Runs one model instance; every request given to it is answered, whatever happens."""

    def __init__(
        self, session: Any, signature: Signature, run_options: Any = None, max_sequence_idle_s: float = 1.0
    ) -> None:
        self._session = session
        self._signature = signature
        self._run_options = run_options
        self._states = States(signature.model, signature.states, max_sequence_idle_s)
        self._last_run_s = 0.0
        # Responses with bfloat16 look at these arrays until Triton has sent them, which is after execute returned.
        self._sent: list[Answer] = []
        self._keeps_sent = BF16 in {spec.data_type.triton for spec in signature.outputs.values()}
        self.failed = False

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response per request, in their order; ``failed`` then tells whether any is an error."""
        answers: dict[int, Answer] = {}
        jobs = list(self._jobs(requests, answers))
        for group in groups(jobs, self._signature):
            self._answer(group, answers)
        ordered = [answers[index] for index in range(len(requests))]
        self.failed = any(isinstance(answer, InferenceError) for answer in ordered)
        self._sent = ordered if self._keeps_sent else []
        return [self._response(answer) for answer in ordered]

    def _jobs(self, requests: Sequence[Any], answers: dict[int, Answer]) -> Iterable[Job]:
        check_cancelled = self._last_run_s > CANCELLATION_CHECK_PAYS_S * len(requests)
        for index, request in enumerate(requests):
            try:
                if check_cancelled and request.is_cancelled():
                    raise CancelledRequestError(f"model '{self._signature.model}': the client cancelled the request")
                yield self._job(index, request)
            except InferenceError as exc:
                answers[index] = exc
            except Exception as exc:  # noqa: BLE001  an unforeseen failure must not take the others along
                answers[index] = RunError(f"model '{self._signature.model}': the request could not be read: {exc}")

    def _job(self, index: int, request: Any) -> Job:
        specs = self._signature.inputs
        inputs = {}
        for tensor in request.inputs():
            name = tensor.name()
            if name not in specs:
                message = f"expected only the inputs {', '.join(specs)}, found '{name}'; remove it from the request"
                raise RequestError(f"model '{self._signature.model}': {message}")
            inputs[name] = self._read(tensor, specs[name].data_type)
        rows = next(iter(inputs.values())).shape[0] if self._signature.batched else 1
        wanted = frozenset(request.requested_output_names()) or self._signature.answered
        turn = self._states.begin(request, inputs)
        return Job(index=index, inputs=inputs, rows=rows, wanted=wanted, turn=turn)

    def _read(self, tensor: Any, data_type: DataType) -> Any:
        return array_of(tensor, data_type)

    def _answer(self, group: Sequence[Job], answers: dict[int, Answer]) -> None:
        """Run a group; if that fails, its halves, so that a bad request fails alone at the price of a few runs."""
        try:
            answers.update(zip((job.index for job in group), self._run(group), strict=True))
        except InferenceError as exc:
            self._part(group, exc, answers)
        except Exception as exc:  # noqa: BLE001  an unforeseen failure must not leave a request unanswered
            self._part(group, RunError(f"model '{self._signature.model}': {exc}"), answers)

    def _part(self, group: Sequence[Job], error: InferenceError, answers: dict[int, Answer]) -> None:
        if len(group) == 1:
            answers[group[0].index] = error
            return
        middle = len(group) // 2
        self._answer(group[:middle], answers)
        self._answer(group[middle:], answers)

    def _run(self, group: Sequence[Job]) -> list[Arrays]:
        wanted = frozenset(self._signature.states.values()).union(*(job.wanted for job in group))
        names = [name for name in self._signature.outputs if name in wanted]
        started = time.perf_counter()
        outputs = self._compute(group, names)
        self._last_run_s = time.perf_counter() - started
        parts = split(group, outputs, self._signature)
        for job, part in zip(group, parts, strict=True):
            self._states.end(job.turn, part)
        return [
            {name: part[name] for name in names if name in job.wanted} for job, part in zip(group, parts, strict=True)
        ]

    def _compute(self, group: Sequence[Job], names: list[str]) -> Arrays:
        """The outputs of those names for the whole group."""
        arrays = join(group, self._signature)
        feeds = {name: self._feed(name, array) for name, array in arrays.items()}
        try:
            if any(self._signature.outputs[name].data_type.triton == BF16 for name in names):
                outputs = self._run_values(feeds, names)
            else:
                outputs = self._session.run(names, feeds, self._run_options)
        except UnicodeDecodeError as exc:
            message = "an output holds a string that is not UTF-8, which ONNX Runtime cannot hand to Python"
            raise RunError(f"model '{self._signature.model}': {message} ({exc.reason})") from exc
        except Exception as exc:
            raise RunError(f"model '{self._signature.model}': {exc}") from exc
        return dict(zip(names, outputs, strict=True))

    def _feed(self, name: str, array: NDArray[Any]) -> Any:
        spec = self._signature.inputs.get(name)  # None for a batch input
        match spec.data_type.triton if spec is not None else None:
            case "TYPE_STRING":
                return strings_for_runtime(array)
            case "TYPE_BF16":
                return bf16_value(array)
            case _:
                return array

    def _run_values(self, feeds: Mapping[str, Any], names: Sequence[str]) -> list[NDArray[Any]]:
        """The call that can return bfloat16, which numpy lacks."""
        values = {name: value_of(feed) for name, feed in feeds.items()}
        results = self._session.run_with_ort_values(list(names), values, self._run_options)
        types = [self._signature.outputs[name].data_type for name in names]
        return [array_of_value(value, data_type) for value, data_type in zip(results, types, strict=True)]

    def _tensor(self, name: str, array: Any, data_type: DataType) -> Any:
        return tensor_of(name, array, data_type)

    def _response(self, answer: Answer) -> Any:
        if isinstance(answer, InferenceError):
            return _failure(answer)
        try:
            specs = self._signature.outputs
            tensors = [self._tensor(name, array, specs[name].data_type) for name, array in answer.items()]
            return pb_utils.InferenceResponse(output_tensors=tensors)
        except Exception as exc:  # noqa: BLE001  an unforeseen failure must not leave a request unanswered
            return _failure(RunError(f"model '{self._signature.model}': the answer could not be sent: {exc}"))


def _failure(error: InferenceError) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), getattr(pb_utils.TritonError, error.code)))
