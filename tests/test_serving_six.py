"""The bugs that people who serve models report: found with no visit given, and the twins pass."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

SOURCE = (Path(__file__).parent / "served" / "six_bugs.py").read_text()
FOUND = {
    "leaks_a_slot[unsound]": "app.free: 1 of 2 not released",
    "leaks_its_cache[unsound]": "app.cache: entries 1 instead of 0",
    "client_that_has_left[unsound]": "times more while no request was in the app",
    "harms_its_batch[fails]": "status 422 instead of status 200",
    "harms_its_batch[hangs]": "the app hangs",
    "harms_its_batch[ends]": "the app hangs",
    "ends_the_batcher[ends]": "the app hangs",
}


@pytest.mark.slow
def test_the_bugs_of_clients_and_batches_are_found(example):
    """A slot, a cache, work that goes on, a batch that fails or hangs, and a dead batcher."""
    pytest.importorskip("httpx")
    outcome = example.with_file("six_bugs.py", SOURCE).run(
        "-rA", "--mlchaos-max-trials=3", "six_bugs.py", failed=len(FOUND), passed=5
    )
    failed = re.findall(r"^FAILED \S+::(\S+)", outcome.text, re.MULTILINE)
    assert len(failed) == len(FOUND)
    assert all(any(name.endswith(known) for known in FOUND) for name in failed)
    outcome.has(*FOUND.values())
