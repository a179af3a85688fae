"""Memory in huge pages."""

import os
import platform
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap

import numpy as np
import pytest

from service import hugepages
from service.hugepages import huge_bytes, use_huge_pages, used_ranges

RELEASE = tuple(int(part) for part in platform.release().split(".")[:2])
needs_huge_pages = pytest.mark.skipif(
    not os.path.exists("/sys/kernel/mm/transparent_hugepage") or RELEASE < (6, 1),
    reason="the kernel has no huge pages that can be asked for",
)
MIB = 1 << 20
HUGE = 2 * MIB


@needs_huge_pages
def test_memory_in_use_moves_into_huge_pages_and_keeps_what_it_holds() -> None:
    # Not an array of numpy's, which asks for huge pages by itself.
    with mmap(-1, 32 * MIB, flags=MAP_PRIVATE | MAP_ANONYMOUS) as memory:
        written = bytes(range(256)) * (len(memory) // 256)
        memory[:] = written
        before = huge_bytes()
        use_huge_pages()
        assert huge_bytes() - before >= 24 * MIB
        assert memory[:] == written


def test_a_system_that_tells_nothing_of_its_memory_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def hidden() -> list[tuple[int, int]]:
        raise PermissionError("/proc is hidden")

    monkeypatch.setattr(hugepages, "used_ranges", hidden)
    with caplog.at_level("INFO"):
        use_huge_pages()
    assert "/proc is hidden" in caplog.text


def test_ranges_are_whole_huge_pages_of_private_memory() -> None:
    with mmap(-1, 16 * MIB, flags=MAP_PRIVATE | MAP_ANONYMOUS) as memory:
        begin = np.frombuffer(memory, np.uint8).ctypes.data
        ranges = used_ranges()
        assert all(low < high and low % HUGE == high % HUGE == 0 for low, high in ranges)
        inside = [min(high, begin + len(memory)) - max(low, begin) for low, high in ranges]
        assert sum(size for size in inside if size > 0) >= len(memory) - 2 * HUGE
    with open("/proc/self/maps") as lines:
        files = [line.split()[0] for line in lines if "/" in line.partition(" ")[2].split()[-1]]
    assert files
    for extent in files:
        low, high = (int(number, 16) for number in extent.split("-"))
        assert not any(first < high and last > low for first, last in ranges)
