"""The journal's lines have an order that no thread decides."""

from __future__ import annotations

import itertools

import pytest

from pytest_mlchaos.core.journal import Journal, Strike

STRIKES = [
    Strike("odd(at=0)", "b.site", 0),
    Strike("odd(at=2)", "a.site", 2),
    Strike("odd(at=0)", "a.site", 0),
    Strike("even", "a.site", 0),
]
ORDERED = [
    ("a.site", 0, "even"),
    ("a.site", 0, "odd(at=0)"),
    ("a.site", 2, "odd(at=2)"),
    ("b.site", 0, "odd(at=0)"),
]


def journal(*processes):
    """A journal of these strikes, process after process."""
    kept = Journal()
    for strikes in processes:
        for strike in strikes:
            kept.append(strike)
        kept.end_process()
    return kept


def test_lines_are_ordered_by_site_visit_and_fault():
    """In whatever order threads struck within one process, the lines are the same."""
    found = {tuple(journal(order).lines(trial=1)) for order in itertools.permutations(STRIKES)}
    assert len(found) == 1
    lines = [line for (lines,) in [found] for line in lines]
    assert [
        f'"site": "{site}", "trial": 1, "visit": {visit}' in line and fault in line
        for line, (site, visit, fault) in zip(lines, ORDERED, strict=True)
    ]


def test_processes_keep_their_order():
    """A strike before a restart comes first, at any site and visit."""
    first, second = [Strike("x", "z.site", 9)], [Strike("x", "a.site", 0)]
    assert [('"z.site"' in line) for line in journal(first, second).lines()] == [True, False]
    assert [('"z.site"' in line) for line in journal(second, first).lines()] == [False, True]


def test_the_journal_itself_keeps_the_order_in_which_faults_struck():
    """Code that looks at strikes sees them as they happened."""
    assert list(journal(STRIKES)) == STRIKES


THREADS = """
    import itertools, os, threading

    ORDER = itertools.cycle(map(int, os.environ["ORDER"]))

    @chaos.register
    class Odd(Fault):
        site: str

        def apply(self, visit):
            return 1

    def work(name, turn, done):
        for _ in range(3):
            turn.acquire()
            visit(f"site.{name}", 0)
            visit("site.shared", 0)
            done.release()

    def in_threads(folder=None):
        turns, done = [threading.Semaphore(0) for _ in range(4)], threading.Semaphore(0)
        threads = [threading.Thread(target=work, args=(name, turn, done)) for name, turn in enumerate(turns)]
        for thread in threads:
            thread.start()
        for _ in range(3):
            for place in os.environ["ORDER"]:  # one thread after the other, in this order
                turns[int(place)].release()
                done.acquire()
        for thread in threads:
            thread.join()

    def dies_once(folder):
        in_threads()
        if not (folder / "done").exists():
            (folder / "done").touch()
            visit("site.end")

    FAULTS = [chaos.odd(site=f"site.{name}", at=chaos.EVERY) for name in (3, 1, 0, 2, "shared")]

    def all_faults(test):
        for fault in FAULTS:
            test = fault(test)
        return test

    @all_faults
    def test_threads():
        in_threads()

    @all_faults
    @chaos.crash(site="site.end", at=0)
    def test_restarted(mlchaos, tmp_path):
        assert len(mlchaos.run(dies_once, tmp_path).attempts) == 2
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", [("-p", "no:xdist"), ("-n", "2")], ids=["alone", "workers"])
def test_threads_that_take_turns_differently_leave_the_same_journal(example, monkeypatch, mode):
    """Four threads pass their sites in three orders: the files are the same, byte for byte, also
    behind a restart.
    """
    if "-n" in mode:
        pytest.importorskip("xdist")
    project, journals = example.with_tests(THREADS), []
    for order in ("0123", "3210", "2031"):
        monkeypatch.setenv("ORDER", order)
        project.run("--mlchaos-journal=journal.jsonl", *mode, interpreter=True, passed=2)
        journals.append((project.pytester.path / "journal.jsonl").read_bytes())
    assert len(set(journals)) == 1
    assert journals[0].count(b'"kind": "strike"') == 24 + 24 + 1 + 24
