"""What large messages do to the memory of the process, counted in page faults of a process of its own."""

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc is what is taught")

FAULTS = """
import resource, sys
from naiad.client._transport.memory import reuse_large_blocks

size_bytes = int(sys.argv[1])
if sys.argv[2] == "taught":
    reuse_large_blocks(size_bytes)
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(size_bytes)[:] = bytes(size_bytes)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
MIB = 1 << 20


def faults(size_bytes: int, how: str, **environment: str) -> int:
    """How many page faults the third pair of blocks of that size costs."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", FAULTS, str(size_bytes), how]
    done = subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True, timeout=60)
    return int(done.stdout)


@pytest.mark.parametrize("size_mib", [2, 16, 48, 64])
def test_memory_of_large_messages_is_used_again(size_mib: int) -> None:
    """Of the pages of a block, next to none is asked of the kernel again."""
    assert faults(size_mib * MIB, "taught") < size_mib * MIB // 4096 // 10


def test_without_it_every_large_message_costs_a_fault_a_page() -> None:
    """What the others prove would not hold by itself."""
    assert faults(48 * MIB, "untaught") > 48 * MIB // 4096


def test_a_process_with_its_own_malloc_settings_is_left_alone() -> None:
    """The environment's word counts, even where it costs page faults."""
    assert faults(48 * MIB, "taught", MALLOC_MMAP_THRESHOLD_=str(MIB)) > 48 * MIB // 4096
