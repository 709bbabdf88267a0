"""Rules about options of TensorRT that do not go together, or do not cover what is served.

Source: `tensorrt_execution_provider.cc` of ONNX Runtime, which reads a profile as `name:1x3,…`, takes an engine's
cache from `trt_engine_cache_path`, and calibrates INT8 with a table unless the graph is quantised itself.
"""

import re
from collections.abc import Iterator, Mapping

from naiad.export._lint.entry import Entry
from naiad.export._lint.problem import Problem, advice, fails_on_gpu

_FIELD = "optimization.execution_accelerators.tensorrt"
_CACHES = (
    ("trt_engine_cache_enable", "trt_engine_cache_path", "engines"),
    ("trt_timing_cache_enable", "trt_timing_cache_path", "timings"),
)
_SHAPE = re.compile(r"(?P<name>.+):(?P<dims>[0-9]+(x[0-9]+)*)")
_ENDS = ("min", "opt", "max")


def caches(entry: Entry) -> Iterator[Problem]:
    """A cache is switched on and has a directory."""
    for options in _tensorrt(entry):
        for switch, path, what in _CACHES:
            if _is_on(options, switch) and not options.get(path):
                message = f"{what} would be kept in the directory that the server was started in"
                yield advice(f"{_FIELD}.{switch}", message, f"give {path}, a directory that the server may write to")
            elif options.get(path) and not _is_on(options, switch):
                yield advice(f"{_FIELD}.{path}", f"{what} are not kept without {switch}", f'give {switch}: "1"')


def int8(entry: Entry) -> Iterator[Problem]:
    """INT8 has its ranges from a calibration table, or from a graph that is quantised."""
    for options in _tensorrt(entry):
        table = options.get("int8_calibration_table_name")
        if options.get("precision_mode") != "INT8" and table:
            message = "a calibration table is read with INT8 only"
            yield advice(f"{_FIELD}.int8_calibration_table_name", message, 'give precision_mode: "INT8"')
        elif options.get("precision_mode") == "INT8" and not table:
            for number, graph in entry.graphs():
                if "QuantizeLinear" not in graph.operators:
                    message = f"version {number} is not quantised, and there is no calibration table"
                    fix = "export with --precision int8, name the table, or use FP16"
                    yield fails_on_gpu(f"{_FIELD}.precision_mode", message, fix)


def dla(entry: Entry) -> Iterator[Problem]:
    """The deep-learning accelerator computes in half precision or integers."""
    for options in _tensorrt(entry):
        mode = options.get("precision_mode", "FP32")
        if _is_on(options, "trt_dla_enable") and mode not in ("FP16", "INT8"):
            message = f"it computes in FP16 or INT8, found precision_mode {mode}"
            yield fails_on_gpu(f"{_FIELD}.trt_dla_enable", message, "change precision_mode, or remove it")


def profile_order(entry: Entry) -> Iterator[Problem]:
    """The shapes of a profile rise from the smallest over the typical to the largest."""
    for options in _tensorrt(entry):
        shapes = [_shapes(options.get(f"trt_profile_{end}_shapes", "")) for end in _ENDS]
        for low, high, (below, above) in ((0, 1, _ENDS[:2]), (1, 2, _ENDS[1:])):
            for name in sorted(set(shapes[low]) & set(shapes[high])):
                small, large = shapes[low][name], shapes[high][name]
                if len(small) != len(large) or any(a > b for a, b in zip(small, large, strict=False)):
                    message = (
                        f"expected {below} to be at most {above}, found {list(small)} and {list(large)} for {name}"
                    )
                    yield fails_on_gpu(f"{_FIELD}.trt_profile_{below}_shapes", message, "correct the shapes")


def profile_batch(entry: Entry) -> Iterator[Problem]:
    """The largest shapes of a profile hold the largest batch."""
    largest = entry.config.max_batch_size
    for options in _tensorrt(entry):
        for name, dims in _shapes(options.get("trt_profile_max_shapes", "")).items():
            if dims[0] < largest and name in {tensor.name for tensor in entry.config.input}:
                message = f"expected a batch of {largest}, which is max_batch_size, for {name}; found {dims[0]}"
                fix = "raise it: a larger batch makes TensorRT build its engine again while clients wait"
                yield advice(f"{_FIELD}.trt_profile_max_shapes", message, fix)


def _tensorrt(entry: Entry) -> Iterator[Mapping[str, str]]:
    for each in entry.config.optimization.execution_accelerators.gpu_execution_accelerator if entry.is_onnx else ():
        if each.name == "tensorrt" and entry.may_use_gpu:
            yield dict(each.parameters)


def _is_on(options: Mapping[str, str], key: str) -> bool:
    return options.get(key, "0") in ("1", "true", "True")


def _shapes(text: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a profile by input; what cannot be read is left out."""
    matches = (_SHAPE.fullmatch(part.strip()) for part in text.split(","))
    return {match["name"]: tuple(map(int, match["dims"].split("x"))) for match in matches if match}


RULES = (caches, int8, dla, profile_order, profile_batch)
