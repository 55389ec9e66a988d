"""The memory of a process that forks many others."""

from __future__ import annotations

import pytest

from pytest_mlchaos.processes import huge_pages

MAPS = """\
00400000-00c00000 rw-p 00000000 00:00 0                                  [heap]
10100000-10500000 rw-p 00000000 00:00 0
20000000-20400000 r--p 00000000 00:00 0
30000000-30400000 rw-p 00000000 08:01 42                                 /usr/lib/libx.so
40000000-40400000 rw-s 00000000 00:01 0                                  /dev/zero (deleted)
50100000-50200000 rw-p 00000000 00:00 0
60000000-60400000 rw-p 00000000 00:00 0                                  [stack]
"""


def test_huge_pages_are_whole_ones_of_private_memory():
    """Neither files, shared memory and stacks are moved, nor what is smaller than a huge page."""
    found = list(huge_pages._whole_pages(MAPS.splitlines()))
    assert found == [(0x400000, 0x800000), (0x10200000, 0x200000)]


@pytest.mark.parametrize(("forks", "moves"), [(2, 0), (3, 1), (9, 1)])
def test_huge_pages_are_used_once_from_the_third_fork_on(monkeypatch, forks, moves):
    """The move takes longer than two forks, so a process that forks twice does without."""
    moved = []
    monkeypatch.setattr(huge_pages, "use_huge_pages", lambda: moved.append(1))
    pages = huge_pages.HugePages()
    for _ in range(forks):
        pages.before_fork()
    assert len(moved) == moves
