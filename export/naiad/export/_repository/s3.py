"""A repository in a bucket, where nothing can be renamed.

A version's number is claimed by an object that only one process can create; the files are uploaded to their place
while the claim hides them, and one conditional write of the claim makes the version whole. Triton does not look at it
before `config.pbtxt` names it, and that is one conditional write too. What a killed process left is hidden by its
claim until another export removes it.
"""

import contextlib
import os
import random
import re
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path

from naiad.export._repository import config as _config
from naiad.export._repository import durable as _durable
from naiad.export._repository import lease as _lease
from naiad.export._repository import manifest as _manifest
from naiad.export._repository import names as _names
from naiad.export._repository import s3_errors as _errors
from naiad.export._repository import stage as _stage
from naiad.export._repository.bucket import Bucket
from naiad.export._repository.lease import Claim
from naiad.export._repository.store import Change, Changed
from naiad.export.errors import CorruptVersion, InvalidModel, InvalidName, NotWritable, VersionNotFound

_TRIES = 50


class S3Store:
    """The objects under one prefix of a bucket."""

    def __init__(self, bucket: str, prefix: str, *, staging: Path | None = None) -> None:
        self.location = f"s3://{bucket}/{prefix}".rstrip("/")
        self._objects = Bucket(bucket, prefix)
        self._staging = staging
        self._has_conditions = False
        self._claims: dict[tuple[str, int], Claim] = {}

    @property
    def path(self) -> None:
        return None

    def translated(self, model: str | None = None) -> contextlib.AbstractContextManager[None]:
        return _errors.translated(self.location, model)

    def exists(self) -> bool:
        return self._objects.exists()

    def models(self) -> tuple[str, ...]:
        directories = self._objects.list().directories
        return tuple(sorted(name for name in directories if self.read(f"{name}/{_config.FILE}") is not None))

    def versions(self, model: str) -> tuple[int, ...]:
        # The directories before the claims: one that is claimed in between is not whole, and not in the first list.
        numbers = _names.versions(self._directories(model))
        hidden = _lease.hidden(self._objects, model, numbers)
        return tuple(number for number in numbers if number not in hidden)

    def is_empty(self, model: str) -> bool:
        # A killed creation leaves labels, and versions with a claim.
        directories = self._directories(model)
        claimed = {str(number) for _, number in _lease.claims(self._objects, model)}
        return not any(name[:1].isdigit() and name not in claimed for name in directories)

    def read(self, name: str) -> bytes | None:
        found = self._objects.get(name)
        return None if found is None else found.data

    def digests(self, model: str, number: int) -> Mapping[str, str]:
        directory = f"{model}/{number}"
        names = (name for name in self._objects.names(directory) if name != _manifest.FILE)
        return {name: self._objects.sha256(f"{directory}/{name}") for name in names}

    @contextlib.contextmanager
    def files(self, model: str, number: int, names: Collection[str] | None = None) -> Iterator[Path]:
        directory = f"{model}/{number}"
        wanted = [name for name in self._objects.names(directory) if names is None or name in names]
        with self._scratch() as scratch:
            target = scratch / model / str(number)
            target.mkdir(parents=True)
            for name in wanted:
                self._objects.download(f"{directory}/{name}", target / name)
            self._check(model, number, target)
            yield target

    @contextlib.contextmanager
    def mirror(self, models: Collection[str] = ()) -> Iterator[Path]:
        with self._scratch() as scratch:
            root = scratch / "repository"
            root.mkdir()
            for model in self._objects.list().directories:
                self._fetch(model, root / model, whole=not models or model in models)
            yield root

    @contextlib.contextmanager
    def stage(self) -> Iterator[Path]:
        if not self._has_conditions:
            _lease.require_conditions(self._objects)
            self._has_conditions = True
        _lease.sweep(self._objects)
        with self._scratch() as path:
            yield path

    def locked(self) -> contextlib.AbstractContextManager[None]:
        return _lease.locked(self._objects)

    @contextlib.contextmanager
    def reserve(self, model: str, recorded: Callable[[], Iterable[int]]) -> Iterator[int]:
        claim = self._claim(model, recorded())
        self._claims[model, claim.number] = claim
        try:
            yield claim.number
        finally:
            self._release(self._claims.pop((model, claim.number)))

    def publishing(self) -> contextlib.AbstractContextManager[None]:
        return self.locked()

    def upload(self, model: str, number: int, files: Path) -> None:
        paths = [path for path in files.rglob("*") if path.is_file()]
        for path in sorted(paths, key=lambda path: path.name == _manifest.FILE):
            self._objects.upload(path, f"{model}/{number}/{path.relative_to(files).as_posix()}")

    def add_model(self, model: str, number: int, files: Path, shared: Path) -> None:
        del files  # uploaded
        self._settle(model, number)
        for path in shared.rglob("*"):
            if path.is_file() and path != shared / _config.FILE:
                self._objects.upload(path, f"{model}/{path.relative_to(shared).as_posix()}")
        # The model is one from here on.
        if not self._objects.create(f"{model}/{_config.FILE}", (shared / _config.FILE).read_bytes()):
            raise Changed(f"{model} was added meanwhile; run it again", repository=self.location, model=model)

    def add_version(self, model: str, number: int, files: Path, config: Change | None) -> None:
        del files  # uploaded
        self._settle(model, number)
        if config is not None:
            self._replace_config(model, config)

    def change_config(self, model: str, config: Change, stage: Path) -> None:
        del stage
        self._replace_config(model, config)

    def add_file(self, name: str, data: bytes, stage: Path) -> None:
        del stage
        self._objects.put(name, data)

    def remove_version(self, model: str, number: int, stage: Path) -> None:
        del stage
        # Hidden before it is taken apart. Nobody writes to it any more, so the claim need not outlast the objects.
        claim = _lease.claim(self._objects, model, number, state="given up")
        if claim is None:
            raise VersionNotFound(
                f"version {number} of {model} is being published or removed by another process; run it again",
                repository=self.location,
                model=model,
                version=number,
            )
        _lease.remove_files(self._objects, model, number)
        self._objects.delete([claim.name])

    def append(self, name: str, line: Callable[[bytes], bytes]) -> None:
        for _ in range(_TRIES):
            found = self._objects.get(name)
            before = b"" if found is None else found.data
            after = before + (b"\n" if before and not before.endswith(b"\n") else b"") + line(before) + b"\n"
            if self._objects.replace(name, after, found) if found else self._objects.create(name, after):
                return
            time.sleep(random.uniform(0.01, 0.1))  # noqa: S311
        raise Changed(f"{name} changes all the time; run it again", repository=self.location)

    def _fetch(self, model: str, target: Path, *, whole: bool) -> None:
        versions = self.versions(model)
        wanted = {str(number) for number in self._served(model, versions)}
        hidden = set(map(str, _names.versions(self._directories(model)))) - set(map(str, versions))
        for name in self._objects.names(model):
            first, _, rest = name.partition("/")
            if rest and first in hidden:
                continue
            (target / name).parent.mkdir(parents=True, exist_ok=True)  # what is not fetched is a name all the same
            unserved = bool(rest) and first[:1].isdigit() and first not in wanted
            if name == _config.FILE or (whole and not unserved):
                self._objects.download(f"{model}/{name}", target / name)

    def _served(self, model: str, versions: tuple[int, ...]) -> tuple[int, ...]:
        try:
            text = self.read(f"{model}/{_config.FILE}") or b""
            return _config.served(_config.parse(text, model=model, where=model), versions)
        except InvalidModel:
            return versions

    def _claim(self, model: str, recorded: Iterable[int]) -> Claim:
        directories = self._directories(model)
        claimed = [str(number) for _, number in _lease.claims(self._objects, model)]
        number = _names.next_number([*directories, *claimed], recorded)
        while (claim := _lease.claim(self._objects, model, number)) is None:
            number += 1
        return claim

    def _directories(self, model: str) -> set[str]:
        # Servers on a file system list directories whose objects are all gone, so objects are what counts.
        return {name.partition("/")[0] for name in self._objects.names(model) if "/" in name}

    def _settle(self, model: str, number: int) -> None:
        self._claims[model, number] = _lease.settle(self._objects, self._claims[model, number], "whole")

    def _release(self, claim: Claim) -> None:
        if claim.mark.state == "whole":
            self._objects.delete([claim.name])
            return
        with contextlib.suppress(Changed):  # then it was given up by another process, which removes the files
            _lease.settle(self._objects, claim, "given up")
            _lease.remove_files(self._objects, claim.model, claim.number)

    def _replace_config(self, model: str, config: Change) -> None:
        found = self._objects.get(f"{model}/{_config.FILE}")
        if (
            found is None
            or found.data != config.before
            or not self._objects.replace(f"{model}/{_config.FILE}", config.after, found)
        ):
            raise Changed(
                f"the configuration of {model} was changed meanwhile; run it again",
                repository=self.location,
                model=model,
            )

    def _check(self, model: str, number: int, directory: Path) -> None:
        data = self.read(f"{model}/{number}/{_manifest.FILE}")
        if data is None:  # made by hand: there is nothing to compare with
            return
        manifest = _manifest.parse(data, model=model, where=f"{self.location}/{model}/{number}/{_manifest.FILE}")
        found = _manifest.digests(directory)
        manifest["files"] = {name: known for name, known in manifest["files"].items() if name in found}
        if problems := _manifest.problems(manifest, found):
            raise CorruptVersion(
                f"{model} version {number} is not what was published: {'; '.join(problems)}; serve another version, "
                "and export this one again",
                repository=self.location,
                model=model,
                version=number,
                problems=problems,
            )

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[Path]:
        base = self._staging or Path(tempfile.gettempdir(), f"naiad-{os.getuid()}")
        with _durable.translated(base):
            base.mkdir(mode=0o700, parents=True, exist_ok=True)
            if base.is_symlink() or base.stat().st_uid != os.getuid():
                raise NotWritable(f"versions are built in {base}, which is another user's; set TMPDIR, or remove it")
            with _stage.stage(base, base / "stages") as path:
                yield path


def parse_url(url: str) -> tuple[str, str]:
    """Return the bucket and the prefix of an `s3://` URL, of which a Path may have taken a slash.

    Raises:
        InvalidName: It has no bucket, or names a server, which the environment does.
    """
    bucket, _, prefix = re.sub(r"^s3:/+", "", url).partition("/")
    prefix = prefix.strip("/")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]+", bucket) or "//" in prefix or bucket in {"http", "https"}:
        raise InvalidName(
            f"{url} names no bucket; expected s3://bucket/prefix, with the server in AWS_ENDPOINT_URL if it is not "
            "Amazon's",
            repository=url,
        )
    return bucket, prefix
