"""The table of Triton releases, and what is asked of it."""

import itertools

import pytest

from naiad.export import InvalidExport
from naiad.export._check.targets import DEFAULT_RELEASE, FEATURES, TARGETS, find_target


def test_a_release_says_what_it_reads() -> None:
    """Each release knows its server, its ONNX Runtime, and the newest graph that reads."""
    target = find_target("24.10")
    assert (target.server, target.onnxruntime) == ("2.51.0", "1.19.2")
    assert (target.max_opset, target.max_ir_version) == (21, 10)
    assert target.findings() == ()


def test_the_server_version_finds_its_release() -> None:
    """What the server says of itself is as good as the container's tag."""
    assert find_target("2.51.0").release == "24.10"
    assert find_target(find_target("24.10")) is find_target("24.10")


def test_the_default_is_the_release_that_is_deployed() -> None:
    """Nothing asked for means the release of the project's own containers."""
    assert find_target().release == DEFAULT_RELEASE == find_target(None).release


def test_rows_are_in_order_and_never_step_back() -> None:
    """A later release reads all that an earlier one does; every feature begins with a known release."""
    for before, after in itertools.pairwise(TARGETS):
        assert before.release < after.release
        assert (before.max_opset, before.max_ir_version) <= (after.max_opset, after.max_ir_version)
    assert set(FEATURES.values()) <= {target.release for target in TARGETS}


@pytest.mark.parametrize(("release", "opset"), [("23.10", 19), ("24.03", 20), ("24.10", 20), ("26.07", 20)])
def test_the_default_opset_suits_the_release(release: str, opset: int) -> None:
    """20, or less where the release does not read it."""
    assert find_target(release).default_opset == opset


def test_features_begin_with_their_release() -> None:
    """A feature is there from its release on."""
    assert not find_target("26.04").supports("torch_aoti")
    assert find_target("26.05").supports("torch_aoti")
    assert find_target("26.08").supports("bf16_tensors")


def test_a_newer_release_is_checked_as_the_newest_known() -> None:
    """A release that did not exist when the table was made is taken as the newest, and a finding says so."""
    target = find_target("31.02")
    assert (target.release, target.asked) == (TARGETS[-1].release, "31.02")
    (finding,) = target.findings()
    assert "31.02 is newer" in finding.message
    assert TARGETS[-1].release in finding.message


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [("24.13", ["24.12", "25.01", "25.02"]), ("21.05", ["23.08", "23.09"]), ("latest", ["26.08", "23.08"]), ("", [])],
)
def test_an_unknown_release_is_refused_with_the_nearest(asked: str, nearest: list[str]) -> None:
    """A typing error is answered with the releases around it."""
    with pytest.raises(InvalidExport, match="no Triton release") as caught:
        find_target(asked)
    assert all(release in str(caught.value) for release in nearest)
