"""The one table from S3's errors to ours."""

import contextlib
import os
from collections.abc import Iterator
from typing import TypedDict

from naiad.export._repository.bucket import code_of
from naiad.export.errors import ExportError, ModelNotFound, NotWritable, OutOfSpace, RepositoryError

_FULL = {"InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "507"}
_REFUSED = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "403"}


class _Where(TypedDict):
    repository: str
    model: str | None


@contextlib.contextmanager
def translated(location: str, model: str | None = None) -> Iterator[None]:
    """Turn an error of S3, or of the way there, into one that says what to do."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ExportError:
        raise
    except (OSError, BotoCoreError, ClientError) as exc:
        raise _translate(exc, location, model) from exc


def _translate(exc: Exception, location: str, model: str | None) -> RepositoryError:
    code, where = code_of(exc), _Where(repository=location, model=model)
    reason = f"{code}: {exc}" if code else str(exc)
    if code == "NoSuchBucket" or "InvalidBucketName" in code:
        return ModelNotFound(f"there is no bucket for {location} ({reason}); create it, or name another", **where)
    if code in _REFUSED or isinstance(exc, PermissionError):
        return NotWritable(
            f"S3 refuses access to {location} ({reason}); check the credentials (AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE) and what the bucket's policy allows them: to list, get, put and "
            "delete objects",
            **where,
        )
    if code in _FULL:
        return OutOfSpace(f"no space left in {location} ({reason}); nothing was published", **where)
    if type(exc).__name__ == "NoCredentialsError":
        return NotWritable(
            f"there are no credentials for {location}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
            **where,
        )
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return RepositoryError(
        f"the model repository {location} failed at {endpoint or 'Amazon S3'}: {reason}; check AWS_ENDPOINT_URL and "
        "AWS_REGION, and that the server answers",
        **where,
    )
