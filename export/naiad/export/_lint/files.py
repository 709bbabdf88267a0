"""Rules about a model's directory: its name, its versions, and the files that Triton opens."""

from collections.abc import Iterator
from pathlib import Path

from naiad.export._lint.entry import Entry
from naiad.export._lint.graph import Graph, UnreadableGraph
from naiad.export._lint.problem import CONFIG, Problem, advice, fails, fails_on_gpu, wrong
from naiad.export._lint.versions import MAX_NUMBER
from naiad.export._repository.names import check_name
from naiad.export.errors import InvalidName


def directory_name(entry: Entry) -> Iterator[Problem]:
    """A name that other programs would misread."""
    if entry.name.startswith("."):
        fix = "move it out of the repository: Triton takes every directory there for a model, hidden ones too"
        yield wrong("", f"the directory is served as a model named {entry.name!r}", fix, file="")
        return
    try:
        check_name(entry.name)
    except InvalidName:
        message = f"{entry.name!r} has characters that shells and URLs read in their own way"
        fix = "use letters, digits, '_', '.' and '-' only; `naiad serve` refuses other names"
        yield Problem(effect="not with naiad serve", field="", message=message, fix=fix, file="")


def config_file(entry: Entry) -> Iterator[Problem]:
    """Without auto-complete, a model without a configuration is none."""
    if not entry.has_config and not entry.auto_complete:
        message = f"the directory has no {CONFIG}, and a server without auto-complete cannot load it"
        yield fails("", message, "write one, or move the directory out of the repository", file="")


def version_names(entry: Entry) -> Iterator[Problem]:
    """Directories that are not the version that they seem to be."""
    for each in entry.versions:
        if each.overflows:
            message = f"the number is above {MAX_NUMBER}, and Triton ends when it reads it"
            yield Problem(
                effect="stops the server", field="", message=message, fix="rename the directory", file=each.name
            )
        elif each.number is None and each.name.lstrip("vV").isdigit():
            message = "Triton ignores this directory: a version is a number without leading zeros or letters"
            yield advice("", message, f"rename it to {int(each.name.lstrip('vV'))}", file=each.name)
        elif each.number is not None and (not each.exact or each.number < 0):
            yield _misread(entry, each.name, each.number)


def _misread(entry: Entry, name: str, number: int) -> Problem:
    fix = "stage versions outside the repository and rename them in"
    if number < 0:
        return fails("", f"Triton takes it for version {number}, and finds no files for it", fix, file=name)
    if any(each.name == str(number) for each in entry.versions):
        return advice("", f"Triton reads the name as version {number}, which is there already", fix, file=name)
    message = f"Triton takes it for version {number}, and then looks for the files in {number}/, which is not there"
    return fails("", message, fix, file=name)


def a_version_to_serve(entry: Entry) -> Iterator[Problem]:
    """At least one version must be there for the version policy."""
    if entry.config is None or entry.served or any(each.overflows for each in entry.versions):
        return
    policy = entry.config.version_policy
    found = ", ".join(str(each.number) for each in entry.versions if each.number is not None) or "none"
    if policy.HasField("latest") and not policy.latest.num_versions:
        message = "`latest` without num_versions serves no version at all"
        yield fails("version_policy.latest.num_versions", message, "set it to 1 or more, or leave the policy out")
        return
    message = f"no version would be served: the directory has {found}"
    yield fails("version_policy", message, "add a version directory, or name one that is there")


def specific_versions(entry: Entry) -> Iterator[Problem]:
    """Versions that are asked for and not there; Triton serves the others."""
    if entry.config is None or not entry.served:
        return
    there = {each.number for each in entry.versions}
    for number in entry.config.version_policy.specific.versions:
        if number not in there:
            message = f"version {number} is to be served and is not there; Triton goes on without it"
            yield wrong("version_policy.specific", message, f"publish version {number}, or leave it out")


def model_file(entry: Entry) -> Iterator[Problem]:
    """The file that the backend opens, in every version that would be served."""
    if entry.config is None or entry.is_ensemble or not entry.config.default_model_filename:
        return
    for number in entry.served:
        path = entry.model_path(number)
        if not path.exists() and not any(each.number == number and not each.exact for each in entry.versions):
            message = f"version {number} would be served, and its {path.name} is not there"
            fix = "add the file, correct default_model_filename, or do not serve this version"
            yield fails("default_model_filename", message, fix, file=entry.relative(path))


def readable_graph(entry: Entry) -> Iterator[Problem]:
    """The ONNX file can be opened."""
    if entry.config is None or not entry.is_onnx:
        return
    for number in entry.served:
        if isinstance(read := entry.graph(number), UnreadableGraph):
            yield fails("", str(read), "export the model again", file=entry.relative(entry.model_path(number)))


def external_data(entry: Entry) -> Iterator[Problem]:
    """Files with weights lie beside the graph, and are long enough."""
    if entry.config is None:
        return
    for number, graph in entry.graphs():
        yield from _external(entry, entry.model_path(number), graph)


def _external(entry: Entry, path: Path, graph: Graph) -> Iterator[Problem]:
    for each in graph.external:
        file = path.parent / each.location
        shown = entry.relative(path)
        if Path(each.location).is_absolute() or ".." in Path(each.location).parts:
            message = f"its weights are in {each.location!r}, outside the version's directory"
            yield fails("", message, "save the graph with its weights beside it", file=shown)
        elif not file.is_file():
            message = f"its weights are in {each.location!r}, which is not there"
            yield fails("", message, "copy the file beside the graph: the two belong together", file=shown)
        elif file.stat().st_size < each.size_bytes:
            message = f"its weights need {each.size_bytes} bytes of {each.location!r}, which has {file.stat().st_size}"
            yield fails("", message, "copy the whole file", file=shown)


def capability_files(entry: Entry) -> Iterator[Problem]:
    """Files for single kinds of GPUs."""
    if entry.config is None:
        return
    for capability, name in sorted(entry.config.cc_model_filenames.items()):
        for number in entry.served:
            if not (entry.directory / str(number) / name).exists():
                message = f"GPUs of compute capability {capability} load {name!r}, which version {number} lacks"
                yield fails_on_gpu("cc_model_filenames", message, "add the file, or leave the entry out")


RULES = (
    directory_name,
    config_file,
    version_names,
    a_version_to_serve,
    specific_versions,
    model_file,
    readable_graph,
    external_data,
    capability_files,
)
