"""Which versions of a model Triton would load, and whether their Python code is there."""

from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from naiad.server.errors import RepositoryError


def check_python_files(model: Path, versions: list[int]) -> None:
    """Raise `RepositoryError` for a version to be served whose Python code is missing: Triton would wait for ever."""
    found = config(model)
    if found is None or found.backend != "python":
        return
    name = found.default_model_filename or "model.py"
    for version in served(found, versions):
        if not (model / str(version) / name).is_file():
            raise RepositoryError(
                f"Expected {name} in version {version} of model {model.name!r}, found none in {model / str(version)}. "
                "Complete the version or move it out of the repository.",
                repository=model.parent,
                model=model.name,
            )


def config(model: Path) -> model_config_pb2.ModelConfig | None:
    """Return the configuration of a model; None where there is none, or none that can be read."""
    try:
        return text_format.Parse((model / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    except (OSError, UnicodeDecodeError, text_format.ParseError):
        return None  # Triton says what is wrong with it


def served(config: model_config_pb2.ModelConfig, versions: list[int]) -> list[int]:
    """Return those of the versions that Triton would load."""
    policy = config.version_policy
    if policy.HasField("all"):
        return versions
    if policy.HasField("specific"):
        return [version for version in policy.specific.versions if version in versions]
    num_versions = policy.latest.num_versions if policy.HasField("latest") else 1
    return sorted(versions, reverse=True)[:num_versions]
