"""The services of the corpus: pairs that differ by the mend, judged by an ordinary test each."""

from __future__ import annotations

import difflib
import sys
from collections import Counter
from pathlib import Path

import pytest

CORPUS = Path(__file__).resolve().parent.parent / "corpus"

if not CORPUS.exists():
    pytest.skip("no corpus beside the tests", allow_module_level=True)
sys.path.insert(0, str(CORPUS))
try:
    from environments import Interpreter
    from judge_twins import Verdict, judge, problem
    from program import BadProgram
    from service import AREAS, chosen, read
finally:
    sys.path.remove(str(CORPUS))
SERVICES = {service.name: service for service in chosen(CORPUS / "serve")}
MEND_LINES = 16
"""A mend removes and adds at most this many lines."""
REPORT = """E   pytest_mlchaos.errors.{}: 3 of 8 replies
E     reproduce: @chaos.{}(at=0)
E            or: pytest"""


def test_services_come_in_pairs():
    """Each unsound one has a sound twin in the same area, under the same test."""
    for name, service in SERVICES.items():
        twin = SERVICES[service.twin]
        assert twin.twin == name
        assert twin.sound is not service.sound
        for fact in ("area", "requires", "faults", "body", "slow"):
            assert getattr(twin, fact) == getattr(service, fact), name


def test_twins_differ_by_the_mend_alone():
    """A mend takes few lines."""
    for name, service in SERVICES.items():
        texts = [
            (one.folder / "subject.py").read_text().splitlines()
            for one in (service, SERVICES[service.twin])
        ]
        changed = [line for line in difflib.ndiff(*texts) if line[0] in "+-" and line[1:].strip()]
        assert 0 < len(changed) <= MEND_LINES, name


def test_services_cover_all_areas_and_many_libraries():
    """At least 20 pairs, over 12 libraries."""
    pairs = Counter(service.area for service in SERVICES.values() if not service.sound)
    assert sum(pairs.values()) >= 20
    assert set(pairs) <= set(AREAS)
    libraries = {each.name for service in SERVICES.values() for each in service.requires}
    assert len(libraries) >= 12


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_says_why_and_knows_no_plugin(name):
    """Its first comment says why it is sound or not. Its test names no visit, and no setting."""
    service = SERVICES[name]
    first = (service.folder / "expected.toml").read_text().splitlines()[0]
    assert first.startswith("# Sound: " if service.sound else "# Unsound: ")
    assert "chaos" not in (service.folder / "subject.py").read_text()
    assert not any("at=" in fault.replace("at=chaos.EVERY", "") for fault in service.faults)
    assert "settings" not in service.body


@pytest.mark.parametrize(
    ("name", "verdict", "said"),
    [
        ("half-loaded", Verdict("passed"), "it is unsound, but its test passed"),
        ("half-loaded", Verdict("failed", text="E   KeyError: 3"), "by an error of its own"),
        (
            "half-loaded",
            Verdict("failed", text=REPORT.format("NotIsolated", "gpu_oom")),
            "has gpu_oom, which",
        ),
        (
            "half-loaded",
            Verdict("failed", text=REPORT.format("SloMissed", "call_failure")),
            "by SloMissed, expected NotIsolated",
        ),
        (
            "half-loaded",
            Verdict("failed", text="E   pytest_mlchaos.errors.NotIsolated: 3 of 8 replies"),
            "fails without any fault",
        ),
        ("half-loaded", Verdict("failed", text=REPORT.format("NotIsolated", "call_failure")), ""),
        ("loaded-before-use", Verdict("passed"), ""),
        ("loaded-before-use", Verdict("failed"), "it is sound, but its test failed"),
        ("loaded-before-use", Verdict("none"), "its test did not report"),
    ],
)
def test_problem_compares_the_verdict_with_what_is_expected(name, verdict, said):
    """A failure must be the expected one, by a fault that the test declares."""
    assert said in problem(SERVICES[name], verdict)
    assert bool(said) == bool(problem(SERVICES[name], verdict))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('colour = "red"', "has ..colour"),
        ("sound = 1", "Cannot overwrite|sound"),
        ('fails = ["x"]', "must not have it"),
    ],
)
def test_read_refuses_what_cannot_be_judged(tmp_path, line, said):
    """A key that is not known, or a sound service by which something must fail."""
    known = (SERVICES["loaded-before-use"].folder / "expected.toml").read_text()
    (tmp_path / "expected.toml").write_text(f"{line}\n{known}")
    with pytest.raises((BadProgram, ValueError), match=said):
        read(tmp_path)


@pytest.mark.slow
def test_judge_finds_the_unsound_twins_alone():
    """A quick pair."""
    pytest.importorskip("httpx")
    pytest.importorskip("fastapi")
    names = ("queue-unbounded", "queue-bounded")  # one trial each
    pairs = [SERVICES[name] for name in names]
    verdicts = judge(pairs, Interpreter.at(Path(sys.executable)), 300)
    assert not list(filter(None, (problem(one, verdicts[one.name]) for one in pairs)))
