"""Publishes on the two-megabyte disk of its first argument until it is full, and prints what is left as JSON.

The second version is first far too large, and then leaves a block more each time, so that the disk becomes full in
every one of the writes that a publication makes.
"""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from export_publisher import publish
from naiad.export import OutOfSpace, Repository

_BLOCK = 4096
_LARGE = 3_000_000

disk = Path(sys.argv[1])
root = disk / "models"


def contents() -> list[str]:
    return sorted(str(path.relative_to(disk)) for path in disk.rglob("*"))


publish(root, size=500_000)
usage = os.statvfs(disk)
free = usage.f_bavail * usage.f_frsize
sizes = [_LARGE] if free > _LARGE else [_LARGE, *(free - blocks * _BLOCK for blocks in range(20))]
before, errors, changed = contents(), [], []
for size in sizes:
    try:
        publish(root, size=size)
    except OutOfSpace as exc:
        errors.append(str(exc))
    else:
        break
    if contents() != before:
        changed.append(size)
repo = Repository(root)
answer = {
    "errors": errors,
    "changed": changed,
    "versions": repo.versions("some"),
    "served": repo.served("some"),
    "problems": [problem for number in repo.versions("some") for problem in repo.verify("some", number).problems],
}
print(json.dumps(answer))
