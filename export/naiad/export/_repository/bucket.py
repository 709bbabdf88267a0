"""Objects under one prefix of a bucket: whole reads, and writes on a condition, which is what S3 has for a rename.

A PUT is whole or absent. `If-None-Match: *` makes it a creation that only one of several processes succeeds in, and
`If-Match` a replacement of exactly what was read before (Amazon S3 User Guide, "Conditional requests"). Endpoint,
region and credentials come from the environment and files that every AWS tool reads.
"""

import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from naiad.export.errors import ExportError

_BLOCK_BYTES = 8 << 20
_MANY = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Object:
    """An object as it was read."""

    data: bytes
    etag: str
    age_s: float
    """By the server's clock."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """What is directly under a name, as in a directory."""

    files: tuple[str, ...]
    directories: tuple[str, ...]


class Bucket:
    """The objects of a bucket whose keys begin with `prefix/`; names are relative to it."""

    def __init__(self, bucket: str, prefix: str) -> None:
        if importlib.util.find_spec("s3fs") is None:
            raise ExportError("a repository in a bucket needs s3fs: pip install 'naiad[s3]'")
        from s3fs import S3FileSystem

        self.bucket, self._prefix = bucket, f"{prefix}/" if prefix else ""
        self._fs = S3FileSystem(
            skip_instance_cache=True, use_listings_cache=False, config_kwargs={"connect_timeout": 10}
        )

    def get(self, name: str) -> Object | None:
        """Return an object, or None where there is none."""
        from fsspec.asyn import sync

        try:
            found: Object = sync(self._fs.loop, self._get, name)
        except FileNotFoundError as exc:
            if code_of(exc) == "NoSuchBucket":
                raise
            return None
        return found

    def put(self, name: str, data: bytes) -> None:
        """Write an object, whatever was there."""
        self._call("put_object", Key=self._key(name), Body=data)

    def create(self, name: str, data: bytes) -> bool:
        """Write an object unless there is one, and say whether it is this one now."""
        return self._put_if(name, data, IfNoneMatch="*")

    def replace(self, name: str, data: bytes, was: Object) -> bool:
        """Write an object if it still is what it `was`, and say whether it is this one now."""
        return self._put_if(name, data, IfMatch=was.etag)

    def list(self, directory: str = "", *, beginning: str = "") -> Listing:
        """Return what is directly under `directory`, or that of it which begins with `beginning`."""
        files, directories = list[str](), list[str]()
        base = self._key(f"{directory}/" if directory else "")
        for page in self._pages(base + beginning, Delimiter="/"):
            files += [item["Key"].removeprefix(base) for item in page.get("Contents", [])]
            directories += [item["Prefix"].removeprefix(base).rstrip("/") for item in page.get("CommonPrefixes", [])]
        return Listing(files=tuple(name for name in files if name), directories=tuple(directories))

    def names(self, directory: str) -> tuple[str, ...]:
        """Return the names of all objects under `directory`, relative to it."""
        base = self._key(f"{directory}/")
        found = (item["Key"].removeprefix(base) for page in self._pages(base) for item in page.get("Contents", []))
        return tuple(name for name in found if name and not name.endswith("/"))

    def exists(self) -> bool:
        """Whether the bucket has anything under the prefix."""
        return bool(self._call("list_objects_v2", Prefix=self._prefix, MaxKeys=1).get("KeyCount"))

    def upload(self, path: Path, name: str) -> None:
        """Write a file as an object, in parts where it is large."""
        self._fs.put_file(str(path), f"{self.bucket}/{self._key(name)}")

    def download(self, name: str, path: Path) -> None:
        """Write an object to a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fs.get_file(f"{self.bucket}/{self._key(name)}", str(path))

    def sha256(self, name: str) -> str:
        """Return the SHA-256 of an object, whose bytes are not kept."""
        digest = hashlib.sha256()
        with self._fs.open(f"{self.bucket}/{self._key(name)}", "rb", block_size=_BLOCK_BYTES, fill_cache=False) as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
        return digest.hexdigest()

    def delete(self, names: Iterable[str]) -> None:
        """Remove objects; those that are not there count as removed."""
        for name in names:
            self._call("delete_object", Key=self._key(name))

    def abort_uploads(self, directory: str) -> None:
        """Drop the parts of uploads that were never completed, which cost and are not listed."""
        found = self._call("list_multipart_uploads", Prefix=self._key(f"{directory}/"), MaxUploads=_MANY)
        for item in found.get("Uploads", []):
            self._call("abort_multipart_upload", Key=item["Key"], UploadId=item["UploadId"])

    def _put_if(self, name: str, data: bytes, **condition: str) -> bool:
        try:
            self._call("put_object", Key=self._key(name), Body=data, **condition)
        except OSError as exc:
            if code_of(exc) not in {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "412", "409"}:
                raise
            # The first try may have succeeded and its answer been lost: what is there tells.
            found = self.get(name)
            return found is not None and found.data == data
        return True

    def _pages(self, prefix: str, **options: Any) -> Iterator[dict[str, Any]]:
        page = self._call("list_objects_v2", Prefix=prefix, **options)
        yield page
        while token := page.get("NextContinuationToken"):
            page = self._call("list_objects_v2", Prefix=prefix, ContinuationToken=token, **options)
            yield page

    def _call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._fs.call_s3(operation, Bucket=self.bucket, **arguments)
        return answer

    async def _get(self, name: str) -> Object:
        # fsspec's name for the coroutine behind call_s3(); the body is read in the same loop.
        answer = await self._fs._call_s3("get_object", Bucket=self.bucket, Key=self._key(name))
        now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        written: datetime = answer["LastModified"]
        age_s = (now - written).total_seconds()
        return Object(data=await answer["Body"].read(), etag=answer["ETag"], age_s=age_s)

    def _key(self, name: str) -> str:
        return self._prefix + name


def code_of(exc: BaseException) -> str:
    """Return S3's own code of an error, or nothing."""
    answer = getattr(exc, "response", None) or getattr(exc.__cause__, "response", None) or {}
    return str(answer.get("Error", {}).get("Code", ""))
