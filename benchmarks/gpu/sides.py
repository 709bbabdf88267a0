"""The ways to run one model, each in processes of its own: in the process that asks, and served."""

from __future__ import annotations

import collections
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np

from gpu import nets

Arrays = Mapping[str, np.ndarray[Any, Any]]
_START_S = 240.0
_ANSWER_S = 120.0
_FEWEST = 3


class Caller(Protocol):
    """Something that runs batches."""

    def prepare(self, arrays: Arrays) -> None:
        """Put the inputs where they are taken from, once."""

    def run(self, units: int, inflight: int) -> None:
        """Run the batch so often, at most so many at once; return when all are done."""

    def answer(self) -> np.ndarray[Any, Any]:
        """Run the batch once and return its first output."""


class InPyTorch:
    """A `model.pt2`, called on tensors that lie on the device; with `graphs` as a CUDA graph, as the server does it."""

    def __init__(self, path: str, device: str, graphs: bool) -> None:
        import torch
        import torch._inductor

        self._torch, self._device, self._graphs = torch, device, graphs
        if device == "cpu":
            torch.set_num_threads(1)  # many that spin would take the processor from the server
        self._model = torch._inductor.aoti_load_package(path, run_single_threaded=True)

    def prepare(self, arrays: Arrays) -> None:
        self._inputs = [self._torch.from_numpy(array).to(self._device) for array in arrays.values()]
        self._call: Callable[[], object] = self._recorded() if self._graphs else lambda: self._model(*self._inputs)

    def run(self, units: int, inflight: int) -> None:
        del inflight  # the GPU takes work without being waited for
        for _ in range(units):
            self._call()
        if self._device == "cuda":
            self._torch.cuda.synchronize()

    def _recorded(self) -> Callable[[], object]:
        """Record a run on the inputs, after two that choose algorithms, which cannot be recorded."""
        cuda = self._torch.cuda
        stream, current = cuda.Stream(), cuda.current_stream()
        stream.wait_stream(current)
        with cuda.stream(stream):
            for _ in range(2):
                self._model(*self._inputs)
        current.wait_stream(stream)
        graph = cuda.CUDAGraph()
        with cuda.graph(graph):
            self._outputs = self._model(*self._inputs)  # kept: the recording writes there
        replay: Callable[[], object] = graph.replay
        return replay

    def answer(self) -> np.ndarray[Any, Any]:
        found = self._model(*self._inputs)
        first = next(iter(found.values())) if isinstance(found, Mapping) else found
        first = first[0] if isinstance(first, (list, tuple)) else first
        array: np.ndarray[Any, Any] = first.float().cpu().numpy()
        return array


class InOnnxRuntime:
    """A `model.onnx`, with inputs and outputs bound to the device's memory."""

    def __init__(self, path: str, device: str) -> None:
        import onnxruntime
        import torch

        self._torch, self._device = torch, device
        providers = ["CPUExecutionProvider"]
        if device == "cuda":
            if hasattr(onnxruntime, "preload_dlls"):
                onnxruntime.preload_dlls()
            providers.insert(0, "CUDAExecutionProvider")
        self._session = onnxruntime.InferenceSession(path, providers=providers)
        if self._session.get_providers()[0] != providers[0]:
            raise RuntimeError(f"expected {providers[0]} to run {path}, found {self._session.get_providers()}")

    def prepare(self, arrays: Arrays) -> None:
        self._inputs = {name: self._torch.from_numpy(array).to(self._device) for name, array in arrays.items()}
        binding = self._session.io_binding()
        for name, tensor in self._inputs.items():
            binding.bind_input(name, self._device, 0, arrays[name].dtype, tuple(tensor.shape), tensor.data_ptr())
        for output in self._session.get_outputs():
            binding.bind_output(output.name, self._device)
        self._binding = binding

    def run(self, units: int, inflight: int) -> None:
        del inflight
        for _ in range(units):
            self._session.run_with_iobinding(self._binding)

    def answer(self) -> np.ndarray[Any, Any]:
        self._session.run_with_iobinding(self._binding)
        array: np.ndarray[Any, Any] = np.asarray(self._binding.copy_outputs_to_cpu()[0], dtype=np.float32)
        return array


class Served:
    """A client of the server: through memory that both see, or over the connection."""

    def __init__(self, url: str, secret: str, model: str, device: str, memory: bool) -> None:
        from naiad.client import Client

        self._on_gpu = memory and device == "cuda"
        options: dict[str, Any] = {"cuda_memory": True} if self._on_gpu else {"shared_memory": memory}
        self._client = Client(url, admin_secret=secret, **options)
        # Repeatable: the client learns from a first call how large the outputs are, and later ones are left on the GPU.
        self._model = self._client.model(model, idempotent=True)
        self._keywords: dict[str, Any] = {"outputs_on": "cuda"} if self._on_gpu else {}

    def prepare(self, arrays: Arrays) -> None:
        names = [tensor.name for tensor in self._model.metadata.inputs]
        by_name: dict[str, Any] = (
            dict(arrays) if set(names) == set(arrays) else dict(zip(names, arrays.values(), strict=True))
        )
        if self._on_gpu:
            import torch

            by_name = {name: torch.from_numpy(array).cuda() for name, array in by_name.items()}
            torch.cuda.synchronize()
        self._inputs = by_name

    def run(self, units: int, inflight: int) -> None:
        if inflight == 1:
            for _ in range(units):
                self._model.infer(self._inputs, **self._keywords)
            return
        calls: collections.deque[Any] = collections.deque()
        for _ in range(units):
            if len(calls) == inflight:
                calls.popleft().result()
            calls.append(self._model.submit(self._inputs, **self._keywords))
        for call in calls:
            call.result()

    def answer(self) -> np.ndarray[Any, Any]:
        result = self._model.infer(self._inputs)
        array: np.ndarray[Any, Any] = np.asarray(next(iter(result.values())), dtype=np.float32)
        return array


class Side:
    """One way in one process or more, which work at the same time."""

    def __init__(self, make: Callable[..., Caller], arguments: Sequence[Any], processes: int = 1) -> None:
        """Start the processes; they are used after `wait_ready`."""
        context = multiprocessing.get_context("spawn")
        self._units: dict[tuple[int, int], int] = {}
        self._pipes, self._processes = [], []
        for _ in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(make, tuple(arguments), theirs), daemon=True)
            process.start()
            theirs.close()  # or a side that died would be waited for for ever
            self._pipes.append(ours)
            self._processes.append(process)

    def wait_ready(self) -> None:
        """Return when every process can work. Raises: `RuntimeError` with what one of them said."""
        for pipe in self._pipes:
            _answer(pipe, _START_S)

    def prepare(self, net: str, sizes: nets.Sizes, batch: int) -> None:
        """Have every process hold the inputs of that batch."""
        self._ask("prepare", net, sizes, batch)

    def answer(self) -> np.ndarray[Any, Any]:
        """Return the first output for the batch."""
        self._pipes[0].send(("answer",))
        array: np.ndarray[Any, Any] = _answer(self._pipes[0], _ANSWER_S)
        return array

    def throughput(self, batch: int, inflight: int, seconds: float) -> dict[str, float]:
        """Work for about so long; gives rows a second, and the processes' CPU seconds for each second."""
        key = (batch, inflight)
        if key not in self._units:
            taken = max(wall for wall, _ in self._ask("run", _FEWEST * inflight, inflight))
            self._units[key] = max(_FEWEST * inflight, round(_FEWEST * inflight * seconds / taken / 2))
            taken = max(wall for wall, _ in self._ask("run", self._units[key], inflight))
            self._units[key] = max(_FEWEST * inflight, round(self._units[key] * seconds / taken))
        found = self._ask("run", self._units[key], inflight)
        wall = max(wall for wall, _ in found)
        rows = batch * self._units[key] * len(found)
        return {"rows_per_s": rows / wall, "client_cpu": sum(cpu for _, cpu in found) / wall}

    def forget(self, batch: int, inflight: int) -> None:
        """Find out anew how many units fill a window."""
        self._units.pop((batch, inflight), None)

    def p50_ms(self, seconds: float) -> float:
        """Run one after the other for so long, in one process; gives the median time of one."""
        self._pipes[0].send(("latency", seconds))
        return float(_answer(self._pipes[0], _ANSWER_S)) * 1e3

    def close(self) -> None:
        """End the processes."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(5.0)
            if process.is_alive():
                process.kill()
                process.join()

    def _ask(self, *command: Any) -> list[Any]:
        for pipe in self._pipes:
            pipe.send(command)
        return [_answer(pipe, _ANSWER_S) for pipe in self._pipes]


def _answer(pipe: Connection, timeout_s: float) -> Any:
    if not pipe.poll(timeout_s):
        raise RuntimeError(f"a process that runs the model did not answer within {timeout_s:g} s")
    try:
        failed, value = pipe.recv()
    except EOFError:
        raise RuntimeError("a process that runs the model died; its last words are in the log") from None
    if failed:
        raise RuntimeError(value)
    return value


def _serve(make: Callable[..., Caller], arguments: tuple[Any, ...], pipe: Connection) -> None:
    try:
        caller = make(*arguments)
        pipe.send((False, None))
        while True:
            pipe.send((False, _obey(caller, *pipe.recv())))
    except (EOFError, KeyboardInterrupt):
        return
    except Exception as exc:  # noqa: BLE001 - it is told to who asked
        pipe.send((True, f"{type(exc).__name__}: {exc}"))


def _obey(caller: Caller, command: str, *arguments: Any) -> Any:
    if command == "prepare":
        caller.prepare(nets.inputs(*arguments))
        return None
    if command == "answer":
        return caller.answer()
    if command == "run":
        cpu, wall = time.process_time(), time.perf_counter()
        caller.run(*arguments)
        return time.perf_counter() - wall, time.process_time() - cpu
    assert command == "latency"
    taken: list[float] = []
    until = time.perf_counter() + arguments[0]
    while len(taken) < _FEWEST or time.perf_counter() < until:
        started = time.perf_counter()
        caller.run(1, 1)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)
