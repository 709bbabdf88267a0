"""Models that cost the server next to nothing, so that it is the client that is timed.

Every Python model copies what it is sent and what it answers, several milliseconds at 12 MB. Two of Triton's own
features
avoid that:

* *The response cache.* An answer that was given before is copied from the cache into the message; no model runs. The
  request is hashed, about 2 ns a byte: nothing for a few KiB, too much for megabytes.
* *An ensemble leaves out the steps that no requested output needs*, also the only step that reads an input. The tensor
  arrives, is parsed as part of the message, and nobody looks at it.

What remains of a call is gRPC, protobuf and Triton's bookkeeping: whoever calls pays that, with any client.
"""

from __future__ import annotations

from pathlib import Path

CACHE_BYTES = 512 << 20
"""The response cache that the server needs for them."""

_MODEL = """
import numpy
import triton_python_backend_utils as pb

class TritonPythonModel:
    def execute(self, requests):
        return [pb.InferenceResponse([pb.Tensor("y", answer(request))]) for request in requests]

def answer(request):
    n = pb.get_input_tensor_by_name(request, "n")
    x = pb.get_input_tensor_by_name(request, "x")
    {answer}
"""
_ONE_NUMBER = "return numpy.zeros(1, numpy.int32)"
_N_NUMBERS = "return numpy.random.default_rng(0).random(int(n.as_numpy()[0]), numpy.float32)"
_N_WORDS = "return numpy.array([b'%016d' % i for i in range(int(n.as_numpy()[0]))], object)"
_ONE_EACH = "return x.as_numpy()[:, :1].copy()"
_CACHED = "response_cache { enable: true }"


def write(repository: Path) -> None:
    """Write all of them below ``repository``.

    * ``seen``: any ``x`` in, one number out; from the cache when it was seen before.
    * ``seen_rows``: the same for rows, up to 64 a request.
    * ``unread``, ``unread_words``: ``n`` and ``x`` in, one number out for ``n``, if ``y`` alone is asked for.
    * ``kept``, ``kept_words``: one number ``n`` in, so many numbers (or words of 16 bytes) out, from the cache.
    """
    _python(repository, "seen", "x: FP32[-1]", "y: INT32[1]", _ONE_NUMBER, _CACHED)
    _python(repository, "seen_rows", "x: FP32[-1]", "y: FP32[1]", _ONE_EACH, _CACHED + " max_batch_size: 64")
    _python(repository, "kept", "n: INT32[1]", "y: FP32[-1]", _N_NUMBERS, _CACHED)
    _python(repository, "kept_words", "n: INT32[1]", "y: STRING[-1]", _N_WORDS, _CACHED)
    _python(repository, "number", "n: INT32[1]", "y: INT32[1]", _ONE_NUMBER, _CACHED)
    for kind, suffix in (("FP32", ""), ("STRING", "_words")):
        _python(repository, f"reader{suffix}", f"x: {kind}[-1]", "y: INT32[1]", _ONE_NUMBER)
        # The step that is left out comes first: Triton 2.51 takes the first one to be the origin of the ensemble's own
        # inputs when it looks for what else can be left out.
        _write(
            repository,
            f"unread{suffix}",
            f'platform: "ensemble" {_tensors("input", f"x: {kind}[-1]")} {_tensors("input", "n: INT32[1]")} '
            f"{_tensors('output', 'y: INT32[1]')} {_tensors('output', 'read: INT32[1]')} ensemble_scheduling {{ "
            f"{_step(f'reader{suffix}', 'x', 'read')} {_step('number', 'n', 'y')} }}",
        )


def _python(repository: Path, name: str, given: str, answered: str, answer: str, more: str = "") -> None:
    tensors = f"{_tensors('input', given)} {_tensors('output', answered)}"
    one_instance = "instance_group { kind: KIND_CPU count: 1 }"
    _write(repository, name, f'backend: "python" {tensors} {one_instance} {more}')
    (repository / name / "1" / "model.py").write_text(_MODEL.replace("{answer}", answer))


def _write(repository: Path, name: str, config: str) -> None:
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(f'name: "{name}" {config}\n')


def _tensors(direction: str, text: str) -> str:
    """Return a tensor such as ``"x: FP32[-1]"`` in the words of a configuration."""
    name, _, described = text.partition(": ")
    kind, _, dims = described.rstrip("]").partition("[")
    return f'{direction} {{ name: "{name}" data_type: TYPE_{kind} dims: [ {dims} ] }}'


def _step(model: str, given: str, answered: str) -> str:
    return (
        f'step {{ model_name: "{model}" model_version: -1 input_map {{ key: "{given}" value: "{given}" }} '
        f'output_map {{ key: "y" value: "{answered}" }} }}'
    )
