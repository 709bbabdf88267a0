"""A model repository in a bucket: Triton reads it itself, and is told the endpoint in the URL.

What is looked at here are names, sizes and hashes as S3 lists them, and configurations; nothing else is fetched.
Endpoint and credentials come from the environment, as for every AWS tool; Triton's own S3 client reads the same.
"""

import hashlib
import importlib.util
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from naiad.server import _policy, _repository
from naiad.server._repository import ModelFiles
from naiad.server.errors import RepositoryError, RepositoryNotFound, UnknownModel

_log = logging.getLogger("naiad.server")
_LOOK_S: Final = 2.0
_CONFIG: Final = "config.pbtxt"

Files = dict[str, tuple[str, int]]
"""ETag and size of each object of a model, by its name within the model."""


class Bucket:
    """The repository at `s3://bucket/prefix`."""

    def __init__(self, url: str) -> None:
        if importlib.util.find_spec("s3fs") is None:
            raise RepositoryError("Expected s3fs to be installed for a bucket. Install it: pip install 'naiad[s3]'.")
        from s3fs import S3FileSystem

        self.repository = url.rstrip("/")
        self.look_every_s = _LOOK_S
        self._fs = S3FileSystem(
            skip_instance_cache=True, use_listings_cache=False, config_kwargs={"connect_timeout": 10}
        )
        self._configs: dict[str, tuple[str, bytes]] = {}
        self._seen: dict[str, ModelFiles] = {}
        self._check_found()

    def prepare(self, private: Path) -> str:
        """The URL with its endpoint, which is the only place where Triton looks for one."""
        del private
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        path = self.repository.removeprefix("s3://")
        return f"s3://{_with_port(endpoint)}/{path}" if endpoint else self.repository

    def select(self, named: Sequence[str] | None) -> tuple[str, ...]:
        """See `Source`."""
        found = self._models()
        chosen = tuple(sorted(found)) if named is None else tuple(dict.fromkeys(named))
        for model in chosen:
            if model not in found:
                known = ", ".join(sorted(found)) or "no models"
                raise UnknownModel(f"Expected model {model!r} in {self.repository}, found {known}.", model=model)
            self._check(model, found[model])
        return chosen

    def check_model(self, model: str) -> None:
        """See `Source`."""
        self._check(model, self._models().get(model, {}))

    def configs(self, models: Sequence[str]) -> dict[str, model_config_pb2.ModelConfig]:
        """See `Source`."""
        files = self._models()
        found = {model: self._config(model, files[model]) for model in models if model in files}
        return {model: config for model, config in found.items() if config is not None}

    def look(self, named: Sequence[str] | None) -> dict[str, ModelFiles]:
        """See `Source`."""
        try:
            found = self._models()
            self._seen = {model: self._signature(model, files) for model, files in found.items()}
        except Exception as exc:  # noqa: BLE001 - s3fs, botocore and aiohttp have no root in common
            _log.warning("%s cannot be read, and what is loaded goes on serving: %s", self.repository, exc)
        return {model: files for model, files in self._seen.items() if named is None or model in named}

    def _check_found(self) -> None:
        try:
            found = self._models()
        except FileNotFoundError as exc:
            raise RepositoryNotFound(f"Expected a bucket for {self.repository}, but: {exc}. Create it.") from exc
        except Exception as exc:  # s3fs, botocore and aiohttp have no root in common
            raise RepositoryError(
                f"Expected a readable model repository at {self.repository}, but: {exc}. Check AWS_ENDPOINT_URL, "
                "the credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or AWS_PROFILE) and the bucket's policy."
            ) from exc
        if not found:
            raise RepositoryNotFound(
                f"Expected models at {self.repository}, found none. Publish one first (`naiad export -r "
                f"{self.repository}`), or name another."
            )

    def _models(self) -> dict[str, Files]:
        """Return the objects of every directory with a configuration or a version."""
        models: dict[str, Files] = {}
        for item in self._objects():
            model, _, name = item["Key"].partition("/")
            if name and not model.startswith("."):
                models.setdefault(model, {})[name] = (item["ETag"], item["Size"])
        return {model: files for model, files in models.items() if _CONFIG in files or _versions(files)}

    def _objects(self) -> Iterator[dict[str, Any]]:
        bucket, _, prefix = self.repository.removeprefix("s3://").partition("/")
        options = {"Bucket": bucket, "Prefix": f"{prefix}/" if prefix else ""}
        page = self._fs.call_s3("list_objects_v2", **options)
        while True:
            for item in page.get("Contents", ()):
                yield item | {"Key": item["Key"].removeprefix(options["Prefix"])}
            if not page.get("NextContinuationToken"):
                return
            page = self._fs.call_s3("list_objects_v2", ContinuationToken=page["NextContinuationToken"], **options)

    def _check(self, model: str, files: Files) -> None:
        _repository.check_model_name(model)
        versions = _versions(files)
        for version in versions:
            _repository.check_version(self.repository, model, version)
        config = self._config(model, files)
        if config is None or config.backend != "python":
            return
        for number in _policy.served(config, [int(version) for version in versions if version.isdigit()]):
            name = config.default_model_filename or "model.py"
            if f"{number}/{name}" not in files:
                raise RepositoryError(
                    f"Expected {name} in version {number} of model {model!r}, found none in {self.repository}. "
                    "Complete the version or move it out of the repository.",
                    model=model,
                )

    def _signature(self, model: str, files: Files) -> ModelFiles:
        """Only what is served counts: a version that is being uploaded must not make Triton fetch all of them."""
        config = self._config(model, files)
        versions = [int(version) for version in _versions(files) if version.isdigit()]
        served = {str(number) for number in _policy.served(config, versions)} if config else set()
        counted = {name: value for name, value in files.items() if "/" not in name or name.partition("/")[0] in served}
        signature = ((name, _number(etag), size) for name, (etag, size) in counted.items())
        return ModelFiles(signature=tuple(sorted(signature)))

    def _config(self, model: str, files: Files) -> model_config_pb2.ModelConfig | None:
        if _CONFIG not in files:
            return None
        etag = files[_CONFIG][0]
        if self._configs.get(model, ("",))[0] != etag:
            path = f"{self.repository.removeprefix('s3://')}/{model}/{_CONFIG}"
            self._configs[model] = (etag, self._fs.cat_file(path))
        try:
            return text_format.Parse(self._configs[model][1].decode(), model_config_pb2.ModelConfig())
        except (UnicodeDecodeError, text_format.ParseError):
            return None  # Triton says what is wrong with it


def _versions(files: Files) -> list[str]:
    directories = {name.partition("/")[0] for name in files if "/" in name}
    return sorted(name for name in directories if name[:1].isdigit())


def _number(etag: str) -> int:
    return int(hashlib.sha256(etag.encode()).hexdigest()[:15], 16)


def _with_port(endpoint: str) -> str:
    """Triton takes an endpoint for one only if it has a port."""
    scheme, _, host = endpoint.rstrip("/").partition("://")
    if ":" in host.rpartition("]")[2]:
        return f"{scheme}://{host}"
    return f"{scheme}://{host}:{443 if scheme == 'https' else 80}"
