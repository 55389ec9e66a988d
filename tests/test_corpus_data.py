"""The pipelines of the corpus: pairs that differ by the mend, judged by an ordinary test each."""

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
    from pipeline import AREAS, chosen, read
    from program import BadProgram
finally:
    sys.path.remove(str(CORPUS))
PIPELINES = {pipeline.name: pipeline for pipeline in chosen(CORPUS / "data")}
MEND_LINES = 16
"""A mend removes and adds at most this many lines."""
REPORT = """E   pytest_mlchaos.errors.SilentlyDifferent: the pipeline raised nothing
E     reproduce: @chaos.{}(at=0)
E            or: pytest"""


def test_pipelines_come_in_pairs():
    """Each unsound one has a sound twin in the same area, under the same decorator."""
    for name, pipeline in PIPELINES.items():
        twin = PIPELINES[pipeline.twin]
        assert twin.twin == name
        assert twin.sound is not pipeline.sound
        for fact in ("area", "decorator", "keywords", "assertion", "again", "changed", "proxy"):
            assert getattr(twin, fact) == getattr(pipeline, fact), name


def test_twins_differ_by_the_mend_alone():
    """A mend takes few lines."""
    for name, pipeline in PIPELINES.items():
        texts = [
            (one.folder / "subject.py").read_text().splitlines()
            for one in (pipeline, PIPELINES[pipeline.twin])
        ]
        changed = [line for line in difflib.ndiff(*texts) if line[0] in "+-" and line[1:].strip()]
        assert 0 < len(changed) <= MEND_LINES, name


def test_pipelines_cover_all_areas_and_many_libraries():
    """At least 40 pairs, 5 in each area, over 20 libraries."""
    pairs = Counter(pipeline.area for pipeline in PIPELINES.values() if not pipeline.sound)
    assert sum(pairs.values()) >= 40
    assert set(pairs) == set(AREAS)
    assert min(pairs.values()) >= 5
    libraries = {each.name for pipeline in PIPELINES.values() for each in pipeline.requires}
    assert len(libraries) >= 20


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline_says_why_and_knows_no_plugin(name):
    """Its first comment says why it is sound or not, and its source has no word on faults."""
    pipeline = PIPELINES[name]
    first = (pipeline.folder / "expected.toml").read_text().splitlines()[0]
    assert first.startswith("# Sound: " if pipeline.sound else "# Unsound: ")
    source = (pipeline.folder / "subject.py").read_text()
    assert "chaos" not in source
    assert "def prepare(workdir):" in source
    assert f"def {pipeline.entry}(workdir):" in source


@pytest.mark.parametrize(
    ("name", "verdict", "said"),
    [
        ("csv-cut", Verdict("passed"), "it is unsound, but its test passed"),
        ("csv-cut", Verdict("failed", text="E   KeyError: 3"), "by an error of its own"),
        ("csv-cut", Verdict("failed", text=REPORT.format("gpu_oom")), "has gpu_oom, none of"),
        ("csv-cut", Verdict("failed", text=REPORT.format("damaged_file")), ""),
        ("csv-totals", Verdict("passed"), ""),
        ("csv-totals", Verdict("failed"), "it is sound, but its test failed"),
        ("csv-totals", Verdict("none"), "its test did not report"),
    ],
)
def test_problem_compares_the_verdict_with_what_is_expected(name, verdict, said):
    """A failure must come from the assertion, and from a fault that the pipeline names."""
    assert said in problem(PIPELINES[name], verdict)
    assert bool(said) == bool(problem(PIPELINES[name], verdict))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('colour = "red"', "has ..colour"),
        ("sound = 1", "Cannot overwrite|sound"),
        ('find = ["x"]', "must not have it"),
    ],
)
def test_read_refuses_what_cannot_be_judged(tmp_path, line, said):
    """A key that is not known, or a sound pipeline in which something must be found."""
    known = (PIPELINES["csv-totals"].folder / "expected.toml").read_text()
    (tmp_path / "expected.toml").write_text(f"{known}{line}\n")
    with pytest.raises((BadProgram, ValueError), match=said):
        read(tmp_path)


@pytest.mark.slow
def test_judge_finds_the_unsound_twins_alone():
    """A pair that needs no library."""
    pairs = [PIPELINES["jsonl-torn-skipped"], PIPELINES["jsonl-end-record"]]
    here = Interpreter.at(Path(sys.executable))
    verdicts = judge(pairs, here, 300)
    assert not list(filter(None, (problem(one, verdicts[one.name]) for one in pairs)))
