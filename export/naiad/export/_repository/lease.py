"""A lock that is an object in a bucket, and claims of version numbers.

Both are changed by conditional writes only, so that a process which was taken for dead and was not finds out at its
next write, and changes nothing.
"""

import contextlib
import random
import re
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from naiad.export._repository.bucket import Bucket
from naiad.export._repository.owner import Mark, this_process
from naiad.export._repository.store import Changed
from naiad.export.errors import NotWritable

LOCK = ".lock"
LEASE_S = 60.0
"""A lock is held for a few small requests; one that is older was left behind."""
ABANDONED_S = 24 * 3600.0
"""A claim is held while a version is uploaded."""
_CLAIM = re.compile(r"\.claim-(.+)-([1-9][0-9]*)\.json")
_FREE = Mark(state="free", owner=None)
_NO_ETAG = '"00000000000000000000000000000000"'


@contextlib.contextmanager
def locked(bucket: Bucket) -> Iterator[None]:
    """Hold the repository's lock for a few small requests."""
    mark = Mark(state="held", owner=this_process())
    wait_s = 0.02
    while not _acquire(bucket, mark):
        time.sleep(wait_s * random.uniform(0.5, 1))  # noqa: S311
        wait_s = min(wait_s * 1.5, 0.3)
    done = threading.Event()
    keeper = threading.Thread(target=_keep, args=(bucket, mark, done), name="naiad-lease", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()
        found = bucket.get(LOCK)
        if found is not None and found.data == mark.to_bytes():
            bucket.replace(LOCK, _FREE.to_bytes(), found)


def require_conditions(bucket: Bucket) -> None:
    """Refuse a server that overwrites what a conditional write must not, because no lock would hold there."""
    bucket.create(LOCK, _FREE.to_bytes())
    found, probe = bucket.get(LOCK), Mark(state="free", owner=this_process()).to_bytes()
    assert found is not None
    for header, ignored in (
        ("If-None-Match", bucket.create(LOCK, probe)),
        ("If-Match", bucket.replace(LOCK, probe, replace(found, etag=_NO_ETAG))),
    ):
        if ignored:
            raise NotWritable(
                f"the S3 server of bucket {bucket.bucket} ignores {header}, so two exports at once would overwrite "
                "each other; use a server with conditional writes, as Amazon S3 and SeaweedFS have them"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A number that one process has for a model's next version."""

    model: str
    number: int
    mark: Mark
    """Its state is "uploading", then "whole" or "given up"."""

    @property
    def name(self) -> str:
        """The object's name; at the root, where Triton ignores files."""
        return f".claim-{self.model}-{self.number}.json"


def claim(bucket: Bucket, model: str, number: int, *, state: str = "uploading") -> Claim | None:
    """Claim a number, or return None when it has been claimed."""
    made = Claim(model=model, number=number, mark=Mark(state=state, owner=this_process()))
    return made if bucket.create(made.name, made.mark.to_bytes()) else None


def settle(bucket: Bucket, claim: Claim, state: str) -> Claim:
    """Change the state of a claim.

    Raises:
        Changed: It is somebody else's now.
    """
    after = replace(claim, mark=replace(claim.mark, state=state))
    found = bucket.get(claim.name)
    if (
        found is None
        or found.data != claim.mark.to_bytes()
        or not bucket.replace(claim.name, after.mark.to_bytes(), found)
    ):
        raise Changed(
            f"version {claim.number} of {claim.model} took too long to upload, and another process gave it up; "
            "export it again",
            model=claim.model,
            version=claim.number,
        )
    return after


def claims(bucket: Bucket, model: str | None = None) -> dict[tuple[str, int], str]:
    """Return the names of the claims by model and number, all or those of a model."""
    beginning = ".claim-" if model is None else f".claim-{model}-"
    matches = (_CLAIM.fullmatch(name) for name in bucket.list(beginning=beginning).files)
    found = {(match[1], int(match[2])): match[0] for match in matches if match}
    return {key: name for key, name in found.items() if model in (None, key[0])}


def hidden(bucket: Bucket, model: str, numbers: Iterable[int]) -> set[int]:
    """Return those of the numbers whose versions are being uploaded, or were given up."""
    known = claims(bucket, model)
    return {number for number in numbers if (name := known.get((model, number))) and not _is_whole(bucket, name)}


def sweep(bucket: Bucket) -> None:
    """Remove what dead processes left: versions that are not whole, and claims that nobody needs."""
    for (model, number), name in claims(bucket).items():
        found = bucket.get(name)
        if found is None:
            continue
        mark = Mark.parse(found.data)
        dead = found.age_s > ABANDONED_S or (mark.owner is not None and mark.owner.is_gone())
        if mark.state == "given up":
            # The claim stays for long: a write of its owner's may still be on its way.
            remove_files(bucket, model, number)
            if found.age_s > ABANDONED_S:
                bucket.delete([name])
        elif dead and mark.state == "whole" and bucket.get(f"{model}/config.pbtxt"):
            bucket.delete([name])
        elif dead and bucket.replace(name, replace(mark, state="given up").to_bytes(), found):
            remove_files(bucket, model, number)


def remove_files(bucket: Bucket, model: str, number: int) -> None:
    """Remove a version's objects, and the parts of those whose upload was not completed."""
    directory = f"{model}/{number}"
    bucket.delete(f"{directory}/{name}" for name in bucket.names(directory))
    bucket.abort_uploads(directory)


def _acquire(bucket: Bucket, mark: Mark) -> bool:
    found = bucket.get(LOCK)
    if found is None:
        return bucket.create(LOCK, mark.to_bytes())
    holder = Mark.parse(found.data)
    gone = holder.owner is not None and holder.owner.is_gone()
    free = holder.state == "free" or gone or found.age_s > LEASE_S
    return free and bucket.replace(LOCK, mark.to_bytes(), found)


def _keep(bucket: Bucket, mark: Mark, done: threading.Event) -> None:
    """Write the lock again now and then, which makes it young; whoever took it meanwhile keeps it."""
    while not done.wait(LEASE_S / 4):
        with contextlib.suppress(Exception):  # the next try, or the lease ends
            found = bucket.get(LOCK)
            if found is None or found.data != mark.to_bytes():
                return
            bucket.replace(LOCK, mark.to_bytes(), found)


def _is_whole(bucket: Bucket, name: str) -> bool:
    found = bucket.get(name)
    return found is None or Mark.parse(found.data).state == "whole"
