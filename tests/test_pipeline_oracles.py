"""The assertions of pipelines besides ``assert_same_output``: each passes a sound pipeline and fails
its unsound twin.
"""

from __future__ import annotations

CASES = """
import functools, os, tempfile, time
import pytest

def lookup(number): return 2.0 * number + 1

def fails(at, **how): return chaos.call_failure(target="test_it:lookup", error="ConnectionError", at=at, **how)
"""


def cases(example, tests):
    """A project with these tests of pipelines."""
    return example.with_tests(CASES + tests)


def test_assert_noticed_asks_for_an_alarm_where_the_result_changed(example):
    """No alarm is needed for an unchanged result or an error, and one that is always on fails."""
    outcome = cases(
        example,
        """
def score(folder, flag, on=False):
    scores, missing = [], 0
    for number in range(3):
        try: scores.append(lookup(number))
        except ConnectionError: missing += 1
    if missing and flag == "file": (folder / "quarantine").touch()
    return {"scores": scores, "alarm": on or (flag == "value" and missing > 0)}
def alarm(value): return value["alarm"]
@fails(1)
def test_flagged(mlchaos, tmp_path): mlchaos.pipeline(score, tmp_path, "value").assert_noticed(alarm)
@fails(1)
def test_flagged_by_a_file(mlchaos, tmp_path):
    mlchaos.pipeline(score, tmp_path, "file").assert_noticed(lambda value: (tmp_path / "quarantine").exists())
@fails(1)
def test_raised(mlchaos): mlchaos.pipeline(lambda: [lookup(0), lookup(1)]).assert_noticed(alarm)
@fails(1)
def test_unchanged(mlchaos):
    def careful():
        for _ in range(2):
            try: return {"x": lookup(lookup(0)), "alarm": False}
            except ConnectionError: pass
    mlchaos.pipeline(careful).assert_noticed(alarm)
@fails(1)
def test_not_flagged(mlchaos, tmp_path): mlchaos.pipeline(score, tmp_path, "").assert_noticed(alarm)
@fails(1)
def test_not_flagged_by_a_run(mlchaos, tmp_path): mlchaos.run(score, tmp_path, "").assert_noticed(alarm)
@fails(1)
def test_always_on(mlchaos, tmp_path): mlchaos.pipeline(score, tmp_path, "value", True).assert_noticed(alarm)
@fails(1)
def test_wrong_key(mlchaos, tmp_path): mlchaos.pipeline(score, tmp_path, "value").assert_noticed(lambda value: value["bell"])
def test_no_fault(mlchaos, tmp_path): mlchaos.pipeline(score, tmp_path, "value").assert_noticed(alarm)
""",
    ).run(passed=4, failed=5)
    outcome.has(
        "Unnoticed: the result differs from that of the golden run, and no alarm was raised",
        "returned value['scores']: 2 entries instead of 3",
        "FalseAlarm: the alarm is on in the golden run",
        "BadArgument: assert_noticed: alarm failed with KeyError: 'bell'",
        "Vacuous: assert_noticed: this test declares no fault",
    )


def test_again_with_changed_input_is_judged_by_a_fresh_run(example):
    """Caches in memory and on disk are stale; a cache whose key changes with the input is not."""
    outcome = cases(
        example,
        """
@functools.lru_cache
def load(path): return path.read_text()
def in_memory(folder): return load(folder / "in.txt")
def on_disk(folder):
    if not (folder / "copy").exists(): (folder / "copy").write_text((folder / "in.txt").read_text())
    (folder / "out.txt").write_text((folder / "copy").read_text())
def keyed(folder):
    text = (folder / "in.txt").read_text()
    (folder / "cache").mkdir(exist_ok=True)
    (folder / "cache" / str(len(text))).write_text(text)
    (folder / "out.txt").write_text(text)
def interrupted(folder):
    copy = folder / "part.txt"
    if copy.exists(): return copy.read_text()
    copy.write_text((folder / "in.txt").read_text())
    lookup(0)
    copy.unlink()
    return (folder / "in.txt").read_text()
def put(folder): (folder / "in.txt").write_text("new and longer\\n")
@pytest.fixture
def day(tmp_path):
    (tmp_path / "in.txt").write_text("old\\n")
    return tmp_path
@pytest.mark.parametrize("pipeline", [in_memory, on_disk])
def test_stale(mlchaos, day, pipeline): mlchaos.pipeline(pipeline, day).again(changed=put).assert_same_output()
def test_sound(mlchaos, day): mlchaos.pipeline(keyed, day).again(changed=lambda: put(day)).assert_same_output()
@fails(0)
def test_by_a_fault(mlchaos, day): mlchaos.pipeline(interrupted, day).again(changed=put).assert_same_output()
def test_nothing_changed(mlchaos, day): mlchaos.pipeline(keyed, day).again(changed=lambda: None).assert_same_output()
def test_wrong_arguments(mlchaos, day): mlchaos.pipeline(keyed, day).again(changed=lambda a, b: None)
""",
    ).run(passed=1, failed=5)
    outcome.has(
        "StaleResult: the input has changed, and the output is not that of a fresh run",
        "it is the output for the input before the change",
        "the same calls without any fault differ, too",
        "BadArgument: again: changed must change the output",
        "BadArgument: again: changed must be a function without arguments, or one of the "
        "pipeline's 1 arguments",
    )


def test_repeated_calls_leftovers_and_durations_are_judged(example):
    """Lost acknowledgements, locks, temporary files and endless back-offs are found."""
    outcome = cases(
        example,
        """
def appends(folder):
    for number in range(3):
        with (folder / "out.csv").open("a") as file: file.write(f"{number}\\n")
        lookup(number)
def marked(folder):
    if not (folder / "done").exists():
        appends(folder); (folder / "done").touch()
def replaces(folder):
    (folder / "out.csv").unlink(missing_ok=True)
    appends(folder)
@pytest.mark.parametrize("pipeline", [appends, marked, replaces])
@fails(1, when="after")
def test_again(mlchaos, tmp_path, pipeline):
    run = mlchaos.pipeline(pipeline, tmp_path)
    run.assert_idempotent()
    assert run.again().golden.value is None
def locks(folder, tidy, kind):
    if kind == "lock": (folder / "lock").mkdir(); made = folder / "lock"
    else: handle, made = tempfile.mkstemp(); os.close(handle)
    remove = os.rmdir if kind == "lock" else os.unlink
    try: lookup(0)
    except ConnectionError:
        if tidy: remove(made)
        raise
    remove(made)
    (folder / "out").touch()
@pytest.mark.parametrize("tidy", [True, False])
@pytest.mark.parametrize("kind", ["lock", "file"])
@fails(0)
def test_left(mlchaos, tmp_path, tidy, kind): mlchaos.pipeline(locks, tmp_path, tidy, kind).assert_no_leftovers()
@pytest.mark.parametrize("name", ["out.part", None])
@chaos.crash(at=0)
def test_killed(mlchaos, tmp_path, name):
    def write(folder):
        part = folder / (name or f"{len(os.listdir(folder))}.part")
        part.touch(); visit("train.step"); part.rename(folder / "out")
    mlchaos.pipeline(write, tmp_path).assert_no_leftovers()
def patient(attempts):
    for attempt in range(attempts):
        try: return lookup(0)
        except ConnectionError: time.sleep(60 * 2 ** attempt)
@pytest.mark.parametrize("limit", ["20m", "10m"])
@fails(range(4))
def test_in_time(mlchaos, limit): mlchaos.pipeline(patient, 9).assert_bounded_time(limit)
@fails(0)
def test_less_than_the_golden_run(mlchaos): mlchaos.pipeline(lambda: (patient(2), time.sleep(9))).assert_bounded_time(5)
""",
    ).run(passed=5, failed=7)
    outcome.has(
        "NotIdempotent: calling the pipeline again does not give the output of one call",
        "two calls without any fault differ from one, too",
        "the first call raised ConnectionError",
        "lock/: an empty directory",
        "temporary files outside of its directories: 1",
        "0.part: 0 bytes",
        "TooSlow: the run took 15 min, more than 10 min. The golden run took less than 1 ms",
        "BadArgument: assert_bounded_time: limit must be at least the duration of the golden run",
    )
