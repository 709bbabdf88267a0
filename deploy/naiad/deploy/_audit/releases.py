"""Which release of NVIDIA's container is which version of Triton, and what each release has fixed.

This is the one place to bring up to date. Releases: the tags of github.com/triton-inference-server/server, whose
build.py names the container (`git show v2.71.0:build.py`). Bulletins: github.com/NVIDIA/product-security, the files
`<year>/<number>/<number>.json` (CSAF) whose product is the Triton Inference Server; all until `KNOWN_UNTIL` are here
that concern the server itself. Scores are CVSS 3.1 base scores of the worst hole.
"""

import re
from dataclasses import dataclass
from typing import Final

KNOWN_UNTIL: Final = "2026-09-08"
"""The date of the last bulletin below."""

VERSIONS: Final[dict[str, tuple[int, int, int]]] = {
    "24.07": (2, 48, 0),
    "24.08": (2, 49, 0),
    "24.09": (2, 50, 0),
    "24.10": (2, 51, 0),
    "24.11": (2, 52, 0),
    "24.12": (2, 53, 0),
    "25.01": (2, 54, 0),
    "25.02": (2, 55, 0),
    "25.03": (2, 56, 0),
    "25.04": (2, 57, 0),
    "25.05": (2, 58, 0),
    "25.06": (2, 59, 0),
    "25.07": (2, 59, 1),
    "25.08": (2, 60, 0),
    "25.09": (2, 61, 0),
    "25.10": (2, 62, 0),
    "25.11": (2, 63, 0),
    "25.12": (2, 64, 0),
    "26.01": (2, 65, 0),
    "26.02": (2, 66, 0),
    "26.03": (2, 67, 0),
    "26.04": (2, 68, 0),
    "26.05": (2, 69, 0),
    "26.06": (2, 70, 0),
    "26.07": (2, 71, 0),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Bulletin:
    """One of NVIDIA's security bulletins: what the release that it names has fixed."""

    number: int
    year: int
    fixed_in: str
    """The release from which on none of its holes is left."""
    score: float
    """CVSS 3.1 base score of the worst of them."""
    worst: str
    """The worst hole."""
    what: str

    @property
    def url(self) -> str:
        """The bulletin."""
        return f"https://github.com/NVIDIA/product-security/tree/main/{self.year}/{self.number}"


BULLETINS: Final = (
    Bulletin(
        number=5875, year=2026, fixed_in="26.07", score=7.5, worst="CVE-2026-16497",
        what="excessive iteration, missing authorisation",
    ),
    Bulletin(
        number=5865, year=2026, fixed_in="26.06", score=9.8, worst="CVE-2026-47627",
        what="path traversal up to running code",
    ),
    Bulletin(
        number=5853, year=2026, fixed_in="26.05", score=7.5, worst="CVE-2026-47477",
        what="stack overflow, authentication bypassed on another path",
    ),
    Bulletin(
        number=5848, year=2026, fixed_in="26.04", score=7.5, worst="CVE-2026-24264",
        what="highly compressed requests, use after free",
    ),
    Bulletin(
        number=5828, year=2026, fixed_in="26.03", score=9.8, worst="CVE-2026-24207",
        what="restricted APIs bypassed, up to running code",
    ),
    Bulletin(
        number=5816, year=2026, fixed_in="26.02", score=7.5, worst="CVE-2026-24173",
        what="malformed requests end the server",
    ),
    Bulletin(
        number=5790, year=2026, fixed_in="26.01", score=7.5, worst="CVE-2026-24158",
        what="large compressed payloads end the server",
    ),
    Bulletin(
        number=5734, year=2025, fixed_in="25.10", score=7.5, worst="CVE-2025-33211",
        what="extra-large payloads end the server",
    ),
    Bulletin(
        number=5723, year=2025, fixed_in="25.09", score=7.5, worst="CVE-2025-33202",
        what="stack overflow by extra-large payloads",
    ),
    Bulletin(
        number=5691, year=2025, fixed_in="25.08", score=9.8, worst="CVE-2025-23316",
        what="a model's name runs code through the model control APIs",
    ),
    Bulletin(
        number=5687, year=2025, fixed_in="25.07", score=9.8, worst="CVE-2025-23310",
        what="HTTP requests overflow the stack; the Python backend's shared memory is taken over",
    ),
    Bulletin(
        number=5612, year=2025, fixed_in="24.12", score=4.9, worst="CVE-2024-53880",
        what="integer overflow when a large model is loaded",
    ),
    Bulletin(
        number=5565, year=2024, fixed_in="24.09", score=4.9, worst="CVE-2024-0116",
        what="a shared memory region is released while it is read",
    ),
    Bulletin(
        number=5535, year=2024, fixed_in="24.04", score=9.0, worst="CVE-2024-0087",
        what="the log is written to any file",
    ),
)  # fmt: skip

SAFE_RELEASE: Final = max(bulletin.fixed_in for bulletin in BULLETINS)
"""The oldest release without a known hole."""

_VERSION: Final = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_RELEASE: Final = re.compile(r"(\d\d\.\d\d)\b")


def parse_version(text: str) -> tuple[int, int, int] | None:
    """Read a version as `2.51.0`; what follows it (`dev`) is left out. None if it is none."""
    match = _VERSION.match(text.strip())
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def release_of(version: tuple[int, int, int]) -> str | None:
    """The newest release in the table that is not newer than this version; None if all are."""
    older = [release for release, its_version in VERSIONS.items() if its_version <= version]
    return max(older, default=None)


def release_of_image(image: str) -> str | None:
    """The release in the name of a container image, as in `nvcr.io/nvidia/tritonserver:26.07-py3`; None if none is."""
    tag = image.partition("@")[0].rpartition(":")[2]
    match = _RELEASE.match(tag)
    return match[1] if match else None


def open_bulletins(release: str | None) -> tuple[Bulletin, ...]:
    """The bulletins whose fix a release lacks, the worst first; all of them for None, a release older than the table.

    Two digits, a point and two digits sort as text.
    """
    lacking = [bulletin for bulletin in BULLETINS if release is None or release < bulletin.fixed_in]
    return tuple(sorted(lacking, key=lambda bulletin: -bulletin.score))
