"""Slices of a region, and the regions of an arena, without a server."""

import gc
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuda_helpers import HostDriver
from naiad.client._device.arena import DeviceArena
from naiad.client._device.driver import DeviceError
from naiad.client._device.region import ALIGNMENT, Region
from naiad.client._device.tensor import CudaTensor, Memory

MIB = 1 << 20


@pytest.fixture
def driver():
    return HostDriver()


@pytest.fixture
def arena(driver):
    return DeviceArena(driver, 8 * MIB, 2 * MIB)


@given(st.lists(st.tuples(st.integers(1, 8), st.integers(0, 10))))
def test_slices_never_overlap_and_gaps_close_again(turns):
    """Whatever is taken and put back in whatever order."""
    region = Region(DeviceArena(HostDriver(), MIB, MIB), 0, 0, 24 * ALIGNMENT, b"")
    lent = []
    for blocks, turn in turns:
        part = region.take(blocks * ALIGNMENT)
        if part is None:
            while lent:
                region.put_back(lent.pop(turn % len(lent)))
        else:
            lent.append(part)
        spans = sorted((part.offset, part.offset + part.size_bytes) for part in lent)
        assert all(0 <= start < end <= region.size_bytes for start, end in spans)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    for part in lent:
        region.put_back(part)
    assert region.num_lent == 0
    assert region.take(region.size_bytes) is not None


def test_an_arena_grows_by_regions_within_its_limit(arena, driver):
    """Small ones share one, large ones have their own; what does not fit is not lent."""
    small = arena.lease([(0, 100), (0, 100)])
    assert len({part.region for part in small}) == 1
    assert len({part.address for part in small}) == 2
    (large,) = arena.lease([(0, 5 * MIB)])
    assert large.size_bytes == 5 * MIB
    assert arena.size_bytes <= 8 * MIB
    assert arena.lease([(0, 100), (0, 5 * MIB)]) is None  # nor is the half of it
    assert sum(region.num_lent for region in arena.regions) == 3


def test_a_gpu_without_memory_leaves_nothing_behind(arena, driver):
    """An allocation that has no handle is freed at once."""
    driver.fails["handle"] = "not supported"
    with pytest.raises(DeviceError, match="not supported"):
        arena.lease([(0, 100)])
    assert not driver.memory
    assert arena.size_bytes == 0


def test_regions_that_nobody_uses_make_room(arena, driver):
    """They are freed at once where no server knows them."""
    arena.give_back(arena.lease([(0, 100)]))
    assert arena.lease([(0, 8 * MIB)]) is None
    assert arena.retire_idle()
    assert arena.lease([(0, 8 * MIB)]) is not None
    assert not arena.retire_idle()


def test_a_slice_is_lent_again_when_the_last_view_of_it_is_gone(arena, driver):
    """Of the tensor, and of what consumers made from it; the GPU's queued work is waited for first."""
    parts = arena.lease([(0, 2 * MIB)])
    tensor = CudaTensor(Memory(parts[0], 4, arena), np.dtype("f4"), (1,), lambda address, array: None)
    del parts
    capsule = tensor.__dlpack__()
    del tensor
    assert sum(region.num_lent for region in arena.regions) == 1
    del capsule
    gc.collect()
    arena.lease([(0, 2 * MIB)])
    assert driver.asked["synchronize"] == 1
    assert len(arena.regions) == 1


def test_what_may_still_be_used_is_not_lent_again(arena, driver):
    """Nor is anything else of its region."""
    first = arena.lease([(0, 100)])
    arena.retire(first)
    (second,) = arena.lease([(0, 100)])
    assert second.region is not first[0].region
    arena.retire_later([second])
    (third,) = arena.lease([(0, 100)])
    assert third.region is not second.region
