"""Which Triton release runs which ONNX Runtime, and what that reads.

Sources. Triton's and ONNX Runtime's versions: `TRITON_VERSION` and `build.py` in the release branches `r23.08` to
`r26.08` of triton-inference-server/server. Highest opset and IR version: measured, by loading graphs stamped with each
of them in the wheel of that ONNX Runtime (1.15.1, 1.16.3, 1.17.3, 1.18.0, 1.18.1, 1.19.2, 1.20.1, 1.21.0, 1.22.0,
1.23.0, 1.23.2, 1.24.1, 1.24.4, 1.27.0, 1.28.0; patch releases between them read the same). Features: the first release
branch of core, common, onnxruntime_backend or pytorch_backend that has the code.
"""

import re
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal

from naiad.export.errors import InvalidExport
from naiad.export.report import Finding

EXPORT_OPSETS: Final = range(18, 24)
"""What PyTorch's exporter writes."""
_PREFERRED_OPSET: Final = 20
"""What PyTorch's exporter writes of its own accord; newer ones bring nothing that it uses."""

Feature = Literal[
    "cuda_accelerator",
    "fp8_graphs",
    "bf16_tensors",
    "tensorrt_bf16",
    "device_initializers",
    "model_metrics",
    "ensemble_backpressure",
    "torch_aoti",
]
FEATURES: Final[dict[Feature, str]] = {
    "fp8_graphs": "23.08",
    "cuda_accelerator": "24.06",
    "model_metrics": "24.11",
    "device_initializers": "25.02",
    "ensemble_backpressure": "25.11",
    "tensorrt_bf16": "26.02",
    "bf16_tensors": "26.03",
    "torch_aoti": "26.05",
}
"""The release from which each of these works.

`bf16_tensors`: inputs and outputs of TYPE_BF16 in the onnxruntime backend; `tensorrt_bf16`: its `precision_mode: BF16`;
`fp8_graphs`: FLOAT8 inside a graph, as no tensor of a request can be; `torch_aoti`: `model.pt2` in the pytorch backend
with tensors named by the package's call specification."""

_ROWS: Final = """
    23.08  2.37.0  1.15.1  19   9
    23.09  2.38.0  1.16.0  19   9
    23.10  2.39.0  1.16.0  19   9
    23.11  2.40.0  1.16.3  19   9
    23.12  2.41.0  1.16.3  19   9
    24.01  2.42.0  1.16.3  19   9
    24.02  2.43.0  1.16.3  19   9
    24.03  2.44.0  1.17.2  20   9
    24.04  2.45.0  1.17.3  20   9
    24.05  2.46.0  1.18.0  21  10
    24.06  2.47.0  1.18.0  21  10
    24.07  2.48.0  1.18.1  21  10
    24.08  2.49.0  1.19.0  21  10
    24.09  2.50.0  1.19.2  21  10
    24.10  2.51.0  1.19.2  21  10
    24.11  2.52.0  1.19.2  21  10
    24.12  2.53.0  1.20.1  21  10
    25.01  2.54.0  1.20.1  21  10
    25.02  2.55.0  1.20.1  21  10
    25.03  2.56.0  1.21.0  22  10
    25.04  2.57.0  1.21.0  22  10
    25.05  2.58.0  1.22.0  22  10
    25.06  2.59.0  1.22.0  22  10
    25.07  2.59.1  1.22.0  22  10
    25.08  2.60.0  1.23.0  23  11
    25.09  2.61.0  1.23.0  23  11
    25.10  2.62.0  1.23.1  23  11
    25.11  2.63.0  1.23.2  23  11
    25.12  2.64.0  1.23.2  23  11
    26.01  2.65.0  1.23.2  23  11
    26.02  2.66.0  1.24.1  25  13
    26.03  2.67.0  1.24.2  25  13
    26.04  2.68.0  1.24.4  25  13
    26.05  2.69.0  1.24.4  25  13
    26.06  2.70.0  1.24.4  25  13
    26.07  2.71.0  1.27.0  26  13
    26.08  2.72.0  1.28.0  26  13
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """The Triton release that a model is meant for."""

    release: str
    """NVIDIA's monthly release, as in the container's tag: "26.07"."""
    server: str
    """The version that the server itself reports: "2.71.0"."""
    onnxruntime: str
    """The version of ONNX Runtime in it."""
    max_opset: int
    """The highest opset of the default ONNX domain that it reads."""
    max_ir_version: int
    """The highest version of ONNX's file format that it reads."""
    asked: str = field(default="")
    """What was asked for, where that is newer than every release known here."""

    @property
    def default_opset(self) -> int:
        """The opset to export with where none is asked for."""
        return min(_PREFERRED_OPSET, self.max_opset)

    def supports(self, feature: Feature) -> bool:
        """Whether this release has the feature."""
        return self.release >= FEATURES[feature]

    def findings(self) -> tuple[Finding, ...]:
        """Say so where the release is not in the table, and the newest that is was taken in its place."""
        if not self.asked:
            return ()
        message = f"Triton {self.asked} is newer than every release known here; the model was checked for {self}"
        return (Finding(check="target", message=message),)

    def to_dict(self) -> dict[str, Any]:
        """Return the target as plain values for the manifest."""
        return asdict(self)

    def __str__(self) -> str:
        return f"Triton {self.release} (ONNX Runtime {self.onnxruntime})"


def _parse(row: str) -> Target:
    release, server, onnxruntime, opset, ir_version = row.split()
    return Target(
        release=release, server=server, onnxruntime=onnxruntime, max_opset=int(opset), max_ir_version=int(ir_version)
    )


TARGETS: Final = tuple(_parse(row) for row in _ROWS.strip().splitlines())
DEFAULT_RELEASE: Final = "26.07"
"""The release that the project deploys; with its default opset a graph is read by every release since 24.05."""


def find_target(release: "str | Target | None" = None) -> Target:
    """Return the target with this release ("26.07") or server version ("2.71.0"); by default the one deployed.

    A release newer than the table is checked as the newest there, which `Target.findings` says.

    Raises:
        InvalidExport: It is not a release, or older than the table, with the nearest that are known.
    """
    if isinstance(release, Target):
        return release
    asked = DEFAULT_RELEASE if release is None else str(release)
    for target in TARGETS:
        if asked in (target.release, target.server):
            return target
    newest = TARGETS[-1]
    if _is_release(asked) and asked > newest.release:
        return replace(newest, asked=asked)
    raise InvalidExport(f"there is no Triton release {asked!r} in the table; the nearest are {_nearest(asked)}")


def _is_release(text: str) -> bool:
    return re.fullmatch(r"[2-9][0-9]\.(0[1-9]|1[0-2])", text) is not None


def _nearest(asked: str) -> str:
    known = [target.release for target in TARGETS]
    if not re.fullmatch(r"[0-9]{2}\.[0-9]{2}", asked):
        return f"{known[-1]}, {known[-2]} and {known[-3]}, back to {known[0]}"
    below = [release for release in known if release < asked][-1:]
    above = [release for release in known if release > asked][:2]
    return " and ".join(below + above)
