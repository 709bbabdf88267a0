"""Checks a configuration against the graph, by the rules that NVIDIA's C++ backend loads by.

The rules: with ``max_batch_size`` every tensor begins with a dynamic dimension that ``dims`` leaves out. Inputs
may narrow a dynamic dimension, outputs must repeat it. Types are exact. Every input of the graph is configured,
as an input, a batch input, a sequence control or a state; outputs may be left out. Only an initializer that a request
may replace is optional, and only without batching. A ragged input is a flat tensor in the graph.
"""

from collections.abc import Sequence

from _ort_config import ModelConfig, State, TensorConfig
from _ort_errors import ConfigurationError, mismatch
from _ort_graph import Graph, TensorInfo


def validate(config: ModelConfig, graph: Graph) -> None:
    """Raise ``ConfigurationError`` for the first contradiction between ``config`` and ``graph``."""
    checker = _Checker(config, graph)
    checker.check_controls()
    checker.check_input_names()
    checker.check_batch_inputs()
    for tensor in config.inputs:
        checker.check_input(tensor)
    checker.check_output_names()
    for tensor in config.outputs:
        checker.check_output(tensor)
    for state in config.states:
        checker.check_state(state)


class _Checker:
    def __init__(self, config: ModelConfig, graph: Graph) -> None:
        self._config = config
        self._graph = graph
        self._batched = config.max_batch_size > 0
        self._scattered = {name for each in config.batch_outputs for name in each.targets}

    def check_controls(self) -> None:
        for control in self._config.controls:
            info = self._graph.input(control.name)
            subject = f"sequence control '{control.name}' ({control.kind})"
            if info is None:
                raise self._error(
                    subject, f"one of the model's inputs {self._names(self._graph.inputs)}", "no such input"
                )
            if (shape := info.shape[1:] if self._batched else info.shape) != (1,):
                raise self._error(subject, "shape [1] in the model, the batch dimension apart", list(shape))
            if control.data_type != info.data_type:
                raise self._error(subject, f"{info.data_type} as in the model", control.data_type)

    def check_input_names(self) -> None:
        """Exactly the graph's inputs must arrive; optional ones are initializers and do not count."""
        config = self._config
        for tensor in config.inputs:
            if self._graph.input(tensor.name) is None:
                known = self._names((*self._graph.inputs, *self._graph.initializers))
                raise self._error(f"input '{tensor.name}'", f"one of {known}", "no such input in the model")
        batch_targets = [name for each in config.batch_inputs for name in each.targets]
        given = [t.name for t in config.inputs if not t.optional]
        given += [*batch_targets, *(each.name for each in config.controls)]
        given += [state.input.name for state in config.states]
        if sorted(given) != sorted(each.name for each in self._graph.inputs):
            raise self._error(
                "inputs",
                f"exactly {self._names(self._graph.inputs)}, the inputs that the model must be given "
                f"(optional may only be {self._names(self._graph.initializers)}, which have defaults in the model)",
                f"{self._quoted(given)} configured as not optional" if given else "none configured",
            )

    def check_batch_inputs(self) -> None:
        for entry in self._config.batch_inputs:
            if len(entry.targets) != 1:  # the C++ backend counts one input for each entry
                raise self._error("batch_input", "one target_name in each", ", ".join(entry.targets) or "none")
            for name in entry.targets:
                info = self._graph.input(name)
                if info is not None and info.data_type != entry.data_type:
                    raise self._error(f"batch_input '{name}'", f"{info.data_type} as in the model", entry.data_type)

    def check_output_names(self) -> None:
        if not self._config.outputs:
            raise self._error("outputs", f"at least one of {self._names(self._graph.outputs)}", "none configured")
        for tensor in self._config.outputs:
            if self._graph.output(tensor.name) is None:
                known = self._names(self._graph.outputs)
                raise self._error(f"output '{tensor.name}'", f"one of {known}", "no such output in the model")

    def check_input(self, tensor: TensorConfig) -> None:
        info = self._graph.input(tensor.name)
        assert info is not None
        subject = f"input '{tensor.name}'"
        if tensor.optional and self._batched:
            raise self._error(subject, "optional inputs only with max_batch_size 0", self._config.max_batch_size)
        self._check_data_type(subject, tensor, info)
        if not tensor.ragged:
            self._check_shape(subject, tensor, info, exact=False)
        elif tensor.optional:
            raise self._error(subject, "either optional or allow_ragged_batch", "both")
        elif info.shape != (-1,):
            expected = "shape [-1] in the model, because a ragged batch arrives as one flat tensor"
            raise self._error(subject, expected, list(info.shape))

    def check_output(self, tensor: TensorConfig) -> None:
        info = self._graph.output(tensor.name)
        assert info is not None
        subject = f"output '{tensor.name}'"
        self._check_data_type(subject, tensor, info)
        if tensor.name not in self._scattered:
            self._check_shape(subject, tensor, info, exact=True)

    def check_state(self, state: State) -> None:
        if self._graph.output(state.output.name) is None:
            known = self._names(self._graph.outputs)
            raise self._error(f"state output '{state.output.name}'", f"one of {known}", "no such output in the model")
        self.check_input(state.input)
        self.check_output(state.output)

    def _check_data_type(self, subject: str, tensor: TensorConfig, info: TensorInfo) -> None:
        if tensor.data_type != info.data_type:
            raise self._error(subject, f"data_type {info.data_type} as in the model", tensor.data_type)

    def _check_shape(self, subject: str, tensor: TensorConfig, info: TensorInfo, *, exact: bool) -> None:
        if self._batched and info.shape[:1] != (-1,):
            expected = "a dynamic first dimension in the model, because max_batch_size is above 0"
            raise self._error(subject, expected, f"shape {list(info.shape)}")
        wanted = info.shape[1:] if self._batched else info.shape
        if not info.shape:
            fits = all(dim == 1 for dim in tensor.shape)
            wanted = (1,)
        else:
            fits = _fits(tensor.shape, wanted, exact=exact)
        if not fits:
            field = "dims" if tensor.reshape is None else "reshape"
            batch = ", the batch dimension apart," if self._batched else ""
            raise self._error(subject, f"{field} {list(wanted)}{batch} as in the model", list(tensor.shape))

    def _error(self, subject: str, expected: str, found: object) -> ConfigurationError:
        subject = f"model '{self._config.name}', {subject}"
        advice = "correct config.pbtxt, or remove its inputs and outputs to have them completed from the model"
        return ConfigurationError(mismatch(subject, expected=expected, found=found, advice=advice))

    def _names(self, infos: Sequence[TensorInfo]) -> str:
        return self._quoted([each.name for each in infos])

    def _quoted(self, names: Sequence[str]) -> str:
        return ", ".join(f"'{name}'" for name in names) or "nothing"


def _fits(configured: Sequence[int], model: Sequence[int], *, exact: bool) -> bool:
    if len(configured) != len(model):
        return False
    return all(ours == theirs or (theirs == -1 and not exact) for ours, theirs in zip(configured, model, strict=True))
