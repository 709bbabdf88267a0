"""A pipeline that is small enough to export in a moment: words in, a verdict out.

`python pipeline_helpers.py REPOSITORY COUNT` publishes it again and again, and prints each version.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from naiad.export import Repository, Version, export_pipeline
from naiad.export.repository import Candidate, StepCandidate
from naiad.export.steps import Function, Model, Step

SCALE = 1.0
OFFSET = 0.5


def lengths(text: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """The length of each word of a text, 0 where there are fewer words than in the longest: [batch, words]."""
    words = [row.split() for row in text.reshape(len(text))]
    found = np.zeros((len(text), max(1, *map(len, words), 1)), np.float32)
    for row, parts in zip(found, words, strict=True):
        row[: len(parts)] = [SCALE * len(part) for part in parts]
    return {"vector": found}


def verdict(scores: np.ndarray[Any, Any], *, names: list[str]) -> dict[str, np.ndarray[Any, Any]]:
    """A name for the larger score, and a scalar a row."""
    return {"verdict": np.array(names)[scores.argmax(1)][:, None], "total": scores[:, 0] + np.float32(OFFSET)}


def verdict_of_doubles(scores: np.ndarray[Any, Any], *, names: list[str]) -> dict[str, np.ndarray[Any, Any]]:
    """The same with another type."""
    found = verdict(scores, names=names)
    return {"verdict": found["verdict"], "total": found["total"].astype(np.float64)}


def net(directory: Path) -> Path:
    """Write a graph from `vector` [batch, words] to `scores` [batch, 2]: the sum, and twice the largest."""
    import onnx
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("ReduceSum", ["vector", "axes"], ["sum"], keepdims=1),
        helper.make_node("ReduceMax", ["vector", "axes"], ["largest"], keepdims=1),
        helper.make_node("Mul", ["largest", "two"], ["twice"]),
        helper.make_node("Concat", ["sum", "twice"], ["scores"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["batch", "words"])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 2])],
        [
            helper.make_tensor("axes", TensorProto.INT64, [1], [1]),
            helper.make_tensor("two", TensorProto.FLOAT, [], [2.0]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, str(directory / "net.onnx"))
    return directory / "net.onnx"


def steps(directory: Path) -> list[Step]:
    """Three steps; `directory` gets the graph of the second."""
    return [
        Function("lengths", lengths, dynamic={"vector": {1: "words"}}),
        Model("net", net(directory)),
        Function("verdict", verdict, options={"names": ["many", "long"]}),
    ]


def texts() -> list[dict[str, np.ndarray[Any, Any]]]:
    """Texts of several lengths."""
    rows = ["one", "two words", "and three words", "some more words than before", "ä €", "six"]
    return [{"text": np.array(rows)[:, None]}]


def publish(repository: Path | str, *, name: str = "words", **more: Any) -> Version:
    """Export the pipeline."""
    order: dict[str, Any] = {"samples": texts(), "max_batch_size": 5} | more
    with tempfile.TemporaryDirectory() as directory:
        return export_pipeline(order.pop("steps", None) or steps(Path(directory)), name, repository=repository, **order)


def in_python(text: list[str], *, scale: float = SCALE, offset: float = OFFSET) -> tuple[list[bytes], list[float]]:
    """What the pipeline answers: verdicts and totals."""
    vector = scale * lengths(np.array([[row.encode()] for row in text], object))["vector"]
    scores = np.stack([vector.sum(1), 2 * vector.max(1)], 1)
    found = verdict(scores, names=["many", "long"])
    totals = found["total"] - OFFSET + offset
    return [str(name).encode() for name in found["verdict"].ravel()], totals.tolist()


_MADE_AGAIN = shutil.ignore_patterns("manifest.json", "export-report.html")


def publish_again(
    repository: Path | str,
    *,
    scale: float = SCALE,
    offset: float = OFFSET,
    imports: list[str] | None = None,
    promote: bool = True,
    name: str = "words",
) -> Version:
    """Publish the first version again with other constants in its functions, without running anything.

    `imports` are modules that the last step would need.
    """
    repo = Repository(repository)
    with repo.stage() as stage:
        steps = [
            StepCandidate(step=step["step"], candidate=_copy(repo, step["model"], stage / step["step"], scale, offset))
            for step in repo.manifest(name, 1)["pipeline"]["steps"]
        ]
        if imports:
            about = steps[-1].candidate.files / "step.json"
            about.write_text(json.dumps(json.loads(about.read_text()) | {"imports": imports}))
        pipeline = _copy(repo, name, stage / name, scale, offset)
        return repo.publish_pipeline(steps, pipeline, promote=promote)


def _copy(repo: Repository, model: str, place: Path, scale: float, offset: float) -> Candidate:
    (place / "labels").mkdir(parents=True)
    with repo.files(model, 1) as directory:
        shutil.copytree(directory, place / "files", ignore=_MADE_AGAIN)
    code = place / "files" / "step.py"
    if code.exists():
        text = code.read_text().replace(f"SCALE = {SCALE}", f"SCALE = {scale}")
        code.write_text(text.replace(f"OFFSET = {OFFSET}", f"OFFSET = {offset}"))
    config = repo.config(model)
    own = {"model", "version", "files", "contract", "pipeline"}
    manifest = {key: value for key, value in repo.manifest(model, 1).items() if key not in own}
    for warmup in {each.input_data_file for request in config.model_warmup for each in request.inputs.values()} - {""}:
        (place / "labels" / "warmup").mkdir(exist_ok=True)
        (place / "labels" / "warmup" / warmup).write_bytes(repo.warmup_data(model, warmup))
    return Candidate(
        model=model, config=config, files=place / "files", labels=place / "labels", settings={}, manifest=manifest
    )


def write_environment(path: Path, module: str) -> str:
    """Make an environment as Triton's EXECUTION_ENV_PATH wants it: the stub's numpy and an empty module, no more."""
    from naiad.server import _home, _stub

    packages = path / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    packages.mkdir(parents=True)
    for entry in _home.find_numpy().iterdir():
        (packages / entry.name).symlink_to(entry)
    (packages / f"{module}.py").touch()
    base = Path(os.path.realpath(sys.executable))
    (path / "bin").mkdir()
    (path / "bin" / "python3").symlink_to(base)
    (path / "bin" / "activate").write_text(f'export PATH="{path}/bin:$PATH"\n')
    (path / "pyvenv.cfg").write_text(f"home = {base.parent}\ninclude-system-site-packages = false\n")
    _stub.link_libpython(path / "lib")
    return str(path)


def assert_wired(repository: Path | str) -> None:
    """Every pipeline's steps serve the versions that it is wired to, and everything is what was published."""
    repo = Repository(repository)
    for model in repo.models():
        assert repo.served(model)
        for number in repo.versions(model):
            assert repo.verify(model, number).problems == ()
        (version, *others) = repo.served(model)
        wired = {step.model_name: step.model_version for step in repo.config(model).ensemble_scheduling.step}
        recorded = repo.manifest(model, version).get("pipeline", {}).get("steps", [])
        assert wired == {step["model"]: step["version"] for step in recorded}
        assert not (wired and others)
        for step, number in wired.items():
            assert number in repo.served(step)


if __name__ == "__main__":
    for _ in range(int(sys.argv[2])):
        print(publish_again(Path(sys.argv[1])).number, flush=True)
