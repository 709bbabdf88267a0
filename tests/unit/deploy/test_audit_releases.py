"""Which version has which holes."""

import pytest

from naiad.deploy._audit.finding import Severity
from naiad.deploy._audit.judge_server import judge_release, judge_version
from naiad.deploy._audit.releases import (
    BULLETINS,
    SAFE_RELEASE,
    VERSIONS,
    open_bulletins,
    parse_version,
    release_of,
    release_of_image,
)
from naiad.deploy.service import Triton


def test_releases_and_versions_grow_together():
    """The table is sorted, without a gap between months."""
    releases = list(VERSIONS)
    assert releases == sorted(releases)
    assert list(VERSIONS.values()) == sorted(VERSIONS.values())
    months = [int(release[:2]) * 12 + int(release[3:]) for release in releases]
    assert months == list(range(months[0], months[-1] + 1))


def test_every_fix_that_is_named_is_in_a_release_of_the_table_or_older_than_it():
    """So that the advice to upgrade names a version."""
    assert all(bulletin.fixed_in in VERSIONS or bulletin.fixed_in < min(VERSIONS) for bulletin in BULLETINS)
    assert SAFE_RELEASE in VERSIONS


def test_a_new_service_has_every_fix():
    """The release that a description names when it names none."""
    assert open_bulletins(Triton().release) == ()


@pytest.mark.parametrize(
    ("version", "release"),
    [("2.51.0", "24.10"), ("2.59.0", "25.06"), ("2.59.1", "25.07"), ("2.71.0", "26.07"), ("2.80.3dev", "26.07"),
     ("2.40.0", None)],
)  # fmt: skip
def test_a_version_belongs_to_a_release(version, release):
    """Newer ones count as the newest that is known, older ones as none."""
    assert release_of(parse_version(version)) == release


@pytest.mark.parametrize(
    ("image", "release"),
    [
        ("nvcr.io/nvidia/tritonserver:26.07-py3", "26.07"),
        ("nvcr.io/nvidia/tritonserver:24.10-vllm-python-py3@sha256:00", "24.10"),
        ("registry:5000/tritonserver", None),
        ("tritonserver:latest", None),
    ],
)
def test_an_image_names_its_release(image, release):
    """In its tag."""
    assert release_of_image(image) == release


def test_the_chain_of_2025_is_open_before_25_07_and_closed_from_then_on():
    """CVE-2025-23310, CVE-2025-23319 and their like: bulletin 5687."""
    assert 5687 in {bulletin.number for bulletin in open_bulletins("25.06")}
    assert 5687 not in {bulletin.number for bulletin in open_bulletins("25.07")}


def test_the_bypass_of_restricted_apis_is_open_before_26_03():
    """CVE-2026-24207: bulletin 5828."""
    assert 5828 in {bulletin.number for bulletin in open_bulletins("26.02")}
    assert 5828 not in {bulletin.number for bulletin in open_bulletins("26.03")}


@pytest.mark.parametrize(
    ("version", "loopback", "severity"),
    [
        ("2.51.0", False, Severity.CRITICAL),
        ("2.51.0", True, Severity.MEDIUM),
        ("2.70.0", False, Severity.HIGH),
        ("2.71.0", False, Severity.OK),
        ("2.1.0", False, Severity.CRITICAL),
        (None, False, Severity.UNKNOWN),
        ("soon", False, Severity.UNKNOWN),
    ],
)
def test_a_version_is_as_bad_as_its_worst_hole(version, loopback, severity):
    """Less so where only this machine reaches it."""
    assert judge_version(version, "here", loopback=loopback).severity is severity


def test_a_finding_says_which_hole_and_which_release_closes_it():
    """With the bulletin."""
    finding = judge_release("25.12", "the image", "compose")
    assert "CVE-2026-24207" in finding.found or "CVE-2026-47627" in finding.found
    assert SAFE_RELEASE in finding.fix
    assert finding.source.startswith("https://github.com/NVIDIA/product-security/tree/main/2026/")
