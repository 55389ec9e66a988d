"""``mlchaos.pipeline``: equal to the golden output, or raised; never silently different, never half
a file.
"""

from __future__ import annotations

import textwrap

import pytest

LOOKUP = '''
import gzip, pathlib, sys, time
import numpy as np
import pytest

def lookup(number):
    """The feature of a row, from some store."""
    return 2.0 * number + 1

fails = chaos.call_failure(target="test_it:lookup", error="ConnectionError")

def rows(lost=None):
    for number in range(5):
        try:
            yield lookup(number)
        except ConnectionError:
            if lost is None: raise
            if lost != "skip": yield lost

def written_in_place(path):
    with open(path / "out.csv", "w") as file:
        for value in rows():
            file.write(f"{value}\\n")

def written_aside(path):
    unfinished = path / "out.csv.tmp"
    with open(unfinished, "w") as file:
        for value in rows():
            file.write(f"{value}\\n")
    unfinished.replace(path / "out.csv")
'''


@pytest.fixture
def batch(example):
    """A project with pipelines that look rows up."""

    def project(tests):
        return example.with_tests(LOOKUP + textwrap.dedent(tests))

    return project


@pytest.mark.slow
def test_filled_and_lost_rows_are_silently_different_and_raising_is_not(batch):
    """Returned values, generators read to their end; the smallest failing schedule is told."""
    outcome = batch("""
        @fails
        def test_fills(mlchaos): mlchaos.pipeline(lambda: np.array(list(rows(0.0)))).assert_same_output()
        @fails
        def test_skips(mlchaos): mlchaos.pipeline(rows, "skip").assert_same_output()
        @fails
        def test_raises(mlchaos): mlchaos.pipeline(rows).assert_same_output()
        @fails
        def test_tolerated(mlchaos): mlchaos.pipeline(rows, 0.0).assert_same_output(atol=9)
        @fails(at=1)
        def test_refuses(mlchaos):
            run = mlchaos.pipeline(rows)
            assert isinstance(run.error, ConnectionError) and run.value is None and len(run.faults) == 1 and run.restarts == 0
            assert run.golden.value == [1.0, 3.0, 5.0, 7.0, 9.0] and run.golden.error is None
    """).run(failed=2, passed=3)
    outcome.has(
        "SilentlyDifferent: the pipeline raised nothing, but its output differs from its golden run"
    )
    outcome.has(
        "returned value[0]: differs: it is 0; 1 of 5 entries differ",
        "returned value: 4 entries instead of 5",
    )
    assert len(outcome.reproduce) == 2 and all("at=0" in line for line in outcome.reproduce)  # noqa: PT018


@pytest.mark.slow
def test_a_pipeline_that_raises_leaves_no_half_file(batch):
    """Absent, as before, whole, or named unfinished; a crash counts as raised, with the disk as the
    death found it.
    """
    outcome = batch("""
        @fails(at=3)
        def test_half(mlchaos, tmp_path): mlchaos.pipeline(written_in_place, tmp_path).assert_same_output()
        @fails(at=2)
        def test_aside(mlchaos, tmp_path):
            (tmp_path / "out.csv").write_text("old\\n")
            run = mlchaos.pipeline(written_aside, tmp_path)
            run.assert_same_output()
            assert (tmp_path / "out.csv").read_text() == "old\\n"
        @chaos.crash(at=2)
        def test_killed(mlchaos, tmp_path):
            def killed(path):
                try:
                    for number in range(4):
                        visit("train.step")
                        (path / "out.csv").open("a").write(f"{number}\\n")
                finally:
                    (path / "out.csv").open("a").write("tidied up by the dead\\n")
            run = mlchaos.pipeline(killed, tmp_path)
            assert (tmp_path / "out.csv").read_text() == "0\\n1\\n" and type(run.error).__name__ == "SimulatedCrash"
            run.assert_same_output()
        @fails(at=4)
        def test_parts(mlchaos, tmp_path):
            def parts(path):
                for place, value in enumerate(rows()):
                    (path / f"part{place}.txt").write_text(str(value))
                (path / "run.log").write_text(str(time.perf_counter()))
            run = mlchaos.pipeline(parts, tmp_path)
            run.assert_same_output(ignore="*.log")
            assert sorted(run._output.after) == [f"part{n}.txt" for n in range(4)]
    """).run(failed=2, passed=2)
    outcome.has(
        "HalfWritten: the pipeline raised, and left a file that is neither unchanged nor complete",
        "out.csv: 3 lines instead of 5 lines",
    )
    outcome.has("out.csv: 2 lines instead of 5 lines", "it raised SimulatedCrash: ")


@pytest.mark.slow
def test_files_are_held_against_the_golden_files(batch):
    """Missing, additional and different ones; what differs between undisturbed runs says nothing."""
    outcome = batch("""
        def table(path, values):
            (path / "deep").mkdir()
            (path / "deep" / "t.csv").write_text("".join(f"{value}\\n" for value in values))
        @fails(at=1)
        def test_content(mlchaos, tmp_path): mlchaos.pipeline(lambda: table(tmp_path, rows(4.0))).assert_same_output()
        @fails(at=1)
        def test_lines(mlchaos, tmp_path): mlchaos.pipeline(lambda: table(tmp_path, rows("skip"))).assert_same_output()
        def marked(path):
            values = list(rows(0.0))
            if 0.0 in values: (path / "bad.npy").write_bytes(b"123")
            else: (path / "good.npy").write_bytes(b"12")
        @fails(at=1)
        def test_names(mlchaos, tmp_path): mlchaos.pipeline(marked, tmp_path).assert_same_output()
        @fails(at=1)
        def test_left_out(mlchaos, tmp_path): mlchaos.pipeline(marked, tmp_path).assert_same_output(ignore=["*.npy"])
        @fails(at=1)
        def test_unrepeatable(mlchaos, tmp_path):
            def stamped(path):
                list(rows(0.0)); (path / "log.bin").write_text(str(time.perf_counter_ns()))
            mlchaos.pipeline(stamped, tmp_path).assert_same_output()
    """).run(failed=5)
    outcome.has(
        "deep/t.csv: different content (5 lines in both)",
        "deep/t.csv: 4 lines instead of 5 lines",
        "good.npy: missing",
    )
    outcome.has(
        "NonDeterministicSubject: two runs of the pipeline without faults differ: log.bin: "
        "different content"
    )
    outcome.has(
        "BadArgument: there is nothing to judge: the golden run returned None and changed no file"
    )


@pytest.mark.slow
def test_completeness_counts_rows_and_files(batch):
    """It applies to tables, batches, dicts and text files. Other values are not compared.

    A call that raised is not complete.
    """
    outcome = batch("""
        def arrays(keep): return [np.full((lost if keep == "short" else 4, 2), value) for value, lost in zip(rows(0.0), [4, 3, 4, 4, 4])]
        @fails(at=1)
        def test_other_values(mlchaos): mlchaos.pipeline(arrays, "all").assert_complete()
        @fails(at=1)
        def test_items(mlchaos): mlchaos.pipeline(rows, "skip").assert_complete()
        @fails(at=1)
        def test_batches(mlchaos):
            mlchaos.pipeline(lambda: [np.zeros(3 if value == -1 else 4) for value in rows(-1)]).assert_complete()
        @fails(at=1)
        def test_columns(mlchaos): mlchaos.pipeline(lambda: {"x": np.array(list(rows("skip"))), "n": 5}).assert_complete()
        @fails(at=1)
        def test_lines(mlchaos, tmp_path):
            mlchaos.pipeline(lambda: (tmp_path / "x.csv").write_text("\\n" * len(list(rows("skip"))))).assert_complete()
        @fails(at=1)
        def test_raised(mlchaos): mlchaos.pipeline(rows).assert_complete()
        @fails(at=1)
        def test_no_values(mlchaos): mlchaos.pipeline(rows).assert_no_drift()
    """).run(failed=6, passed=1)
    outcome.has(
        "Incomplete: returned value: 4 items instead of 5 items",
        "returned value: 5 items with 19 rows instead of 5 items with 20 rows",
    )
    outcome.has(
        "returned value['x']: 4 rows instead of 5 rows", "x.csv: 4 lines instead of 5 lines"
    )
    outcome.has(
        "Incomplete: the pipeline raised ConnectionError: ",
        "its output is not complete",
        "so it returned no values to judge",
    )


@pytest.mark.slow
def test_the_same_call_once_more_after_the_fault_has_cleared(batch):
    """The call uses the same directory and objects (after a crash: fresh ones), and must not raise."""
    outcome = batch("""
        @fails(at=1)
        def test_appends(mlchaos, tmp_path):
            def appends(path):
                with open(path / "out.csv", "a") as file:
                    for value in rows(): file.write(f"{value}\\n")
            mlchaos.pipeline(appends, tmp_path).again().assert_same_output()
        @fails(at=1)
        def test_overwrites(mlchaos, tmp_path):
            run = mlchaos.pipeline(written_in_place, tmp_path)
            again = run.again()
            again.assert_same_output(); again.assert_complete()
            assert again.faults == () and again.error is None and len(run.faults) == 1
        @fails(at=1)
        def test_poisoned(mlchaos):
            class Reader:
                broken = False
                def read(self):
                    if self.broken: raise RuntimeError("closed")
                    try: return list(rows())
                    except ConnectionError: self.broken = True; raise
            mlchaos.pipeline(Reader().read).again().assert_same_output()
        @fails(at=1)
        def test_every_undisturbed_call_counts(mlchaos):
            seen = []
            def counts(): seen.extend(rows(0.0)); return len(seen)
            run = mlchaos.pipeline(counts)
            run.assert_same_output(); run.again().assert_same_output(); assert run.again().golden.value == 10
        @chaos.crash(at=1)
        def test_after_a_crash_memory_is_fresh(mlchaos, tmp_path):
            def counts(memory):
                for number in range(3):
                    visit("train.step"); memory.append(number)
                return memory
            run = mlchaos.pipeline(counts, [])
            assert run.again().value == [0, 1, 2]
            run.again().assert_same_output()
    """).run(failed=2, passed=3)
    outcome.has(
        "out.csv: 6 lines instead of 5 lines",
        "NotRecovered: no fault strikes any more, but the pipeline still raised RuntimeError: "
        "closed",
    )


@pytest.mark.slow
def test_what_is_no_outcome_of_the_pipeline_is_raised(batch):
    """Mistakes in the test, swallowed crashes, pipelines that fail by themselves, and
    interruptions.
    """
    outcome = batch("""
        def test_not_callable(mlchaos): mlchaos.pipeline(3)
        def test_coroutine(mlchaos):
            async def load(): pass
            mlchaos.pipeline(lambda: load())
        @fails(at=0)
        def test_never_reached(mlchaos): mlchaos.pipeline(lambda: [1]).assert_same_output()
        def test_fails_by_itself(mlchaos): mlchaos.pipeline(lambda: [1][2]).assert_same_output()
        @chaos.crash(at=0)
        def test_swallows(mlchaos):
            def swallows():
                try: visit("train.step")
                except BaseException: return 1
            mlchaos.pipeline(swallows)
        def test_exit_code(mlchaos):
            assert mlchaos.pipeline(lambda: sys.exit(0)).error is None
            assert isinstance(mlchaos.pipeline(lambda: sys.exit(3)).error, SystemExit)
        def test_ignore(mlchaos): mlchaos.pipeline(lambda: 1).assert_same_output(ignore=[3])
    """).run(failed=6, passed=1)
    outcome.has("BadArgument: mlchaos.pipeline: subject must be a plain callable, got int")
    outcome.has("BadArgument: mlchaos.pipeline: the pipeline returned a coroutine", "NeverStruck")
    outcome.has(
        "GoldenRunFailed: the subject fails without any fault: IndexError",
        "CrashSwallowed",
        "ignore must be patterns of file names, for example '*.log', got 3",
    )


@pytest.mark.slow
def test_tables_name_column_row_and_cells(batch):
    """No value of theirs is shown."""
    pytest.importorskip("pandas")
    outcome = batch("""
        import pandas as pd
        def frame(): return pd.DataFrame({"id": range(5), "name": [f"secret{value}" for value in rows(0.0)]})
        @fails(at=[1, 3])
        def test_it(mlchaos): mlchaos.pipeline(frame).assert_same_output()
    """).run(failed=1)
    outcome.has(
        "returned value['name'][1]: texts differ from position 6 on", "; 2 of 5 entries differ"
    )
    assert "secret3" not in outcome.text


# -- whole, or cut ---------------------------------------------------------------------------------

LEFT = '''
import json, os

def source(number):
    """A record, from some store."""
    return {"number": number}

fails = chaos.call_failure(target="test_it:source", error="ConnectionError", at=2)

def step_by_step(path, write, suffix=""):
    """Write what is done so far after each record; a record is made anew by each call."""
    done = []
    for number in range(4):
        done.append(source(number))
        write(path / f"progress{suffix}", done)
    (path / "out.json.tmp").write_text(json.dumps(done))
    (path / "out.json.tmp").replace(path / "out.json")

def replaced(text):
    def write(path, done):
        path.with_suffix(".tmp").write_text(text(done))
        os.replace(path.with_suffix(".tmp"), path)
    return write

def in_place(text):
    return lambda path, done: path.write_text(text(done))

def lines(done): return "".join(f"{item['number']}\\n" for item in done)
'''


def _judged(batch, *tests):
    return batch(LEFT + "".join(textwrap.dedent(test) for test in tests))


@pytest.mark.slow
@pytest.mark.parametrize(
    "written",
    [
        "replaced(json.dumps), '.json'",
        "replaced(lines), '.txt'",
        "replaced(lambda done: str(len(done) ** 9)), '.txt'",
        "in_place(lambda done: json.dumps({'done': len(done), 'more': 5 - len(done)})), '.json'",
        "in_place(lambda done: f'{len(done)} done\\n'), '.txt'",
        "in_place(lambda done: bytes([0, len(done)]) .decode() * len(done)), '.bin'",
    ],
)
def test_whole_files_with_other_content_are_not_half_written(batch, written):
    """A progress file that is replaced, or written in place and whole, is mended by the next call."""
    _judged(
        batch,
        f"""
        @fails
        def test_resumes(mlchaos, tmp_path):
            run = mlchaos.pipeline(step_by_step, tmp_path, {written})
            run.assert_same_output()
            run.again().assert_same_output()
        """,
    ).run(passed=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "written",
    [
        "in_place(lambda done: lines(done)), '.txt'",
        "in_place(lambda done: json.dumps(done[::-1])[:-1] if len(done) < 4 else "
        "json.dumps(done)), '.json'",
        "in_place(lambda done: 'a,b' if len(done) < 4 else 'x,y\\n'), '.csv'",
        "in_place(lambda done: '' if len(done) < 4 else 'x'), '.bin'",
        "in_place(lambda done: 4 * chr(0) if len(done) < 4 else 'x' + 3 * chr(0)), '.bin'",
        "replaced(lambda done: '[1, 2, 3]'[:2 * len(done) + 1]), '.json'",
    ],
)
def test_a_part_of_a_whole_file_is_half_written(batch, written):
    """In place: a beginning, a cut line, JSON that cannot be read, nothing at all; by a rename: a
    cut beginning.
    """
    outcome = _judged(
        batch,
        f"""
        @fails
        def test_cut(mlchaos, tmp_path):
            mlchaos.pipeline(step_by_step, tmp_path, {written}).assert_same_output()
        """,
    ).run(failed=1)
    outcome.has(
        "HalfWritten: the pipeline raised, and left a file that is neither unchanged nor complete",
        "progress",
    )


@pytest.mark.slow
def test_a_working_copy_that_the_pipeline_reads_back_is_not_half_written(batch):
    """It noticed the cut, and raised; the same copy that is not read back is output."""
    outcome = _judged(
        batch,
        """
        def downloaded(path, check):
            text = json.dumps([source(number) for number in range(9)])
            (path / "in.json").write_text(text)
            if check: json.loads((path / "in.json").read_text())
            elif len(text) < 50: raise OSError
            (path / "out.tmp").write_text(text)
            (path / "out.tmp").rename(path / "out.txt")

        cut = chaos.truncation(target="json:dumps", at=0)
        @cut
        def test_copy(mlchaos, tmp_path): mlchaos.pipeline(downloaded, tmp_path, True).assert_same_output()
        @cut
        def test_output(mlchaos, tmp_path):
            def put(path):
                downloaded_text = json.dumps([source(number) for number in range(9)])
                (path / "in.json").write_text(downloaded_text)
                json.loads(downloaded_text)
            mlchaos.pipeline(put, tmp_path).assert_same_output()
        """,
    ).run(passed=1, failed=1)
    outcome.has("HalfWritten: the pipeline raised", "in.json")


@pytest.mark.slow
def test_other_content_that_the_next_call_keeps_is_named(batch):
    """The second call takes what is there for its own."""
    outcome = _judged(
        batch,
        """
        def skips(path):
            if not (path / "a.json").exists():
                replaced(json.dumps)(path / "a.json", "first guess")
                source(0)
                replaced(json.dumps)(path / "a.json", "the truth")

        @chaos.call_failure(target="test_it:source", at=0)
        def test_keeps(mlchaos, tmp_path):
            run = mlchaos.pipeline(skips, tmp_path)
            run.assert_same_output()
            run.again().assert_same_output()
        """,
    ).run(failed=1)
    outcome.has(
        "OtherContent: a call that raised left a.json complete but with different content, and the "
        "next call did not repair it"
    )


@pytest.mark.slow
def test_the_worst_kind_of_failure_is_reported_first(batch):
    """Wrong output that looks right comes before a half-written file, though its schedule is
    larger.
    """
    outcome = _judged(
        batch,
        """
        def unsound(path):
            with open(path / "a.csv", "w") as file:
                for number in range(4):
                    try:
                        file.write(f"{source(number)}\\n")
                    except ConnectionError:
                        if number == 2: continue
                        raise

        @chaos.call_failure(target="test_it:source", error="ConnectionError")
        def test_both(mlchaos, tmp_path): mlchaos.pipeline(unsound, tmp_path).assert_same_output()
        """,
    ).run(failed=1)
    outcome.has("SilentlyDifferent: the pipeline raised nothing", "x  HalfWritten")
    assert outcome.text.index("x  SilentlyDifferent") < outcome.text.index("x  HalfWritten")


@pytest.mark.slow
def test_a_single_value_has_nothing_to_count(batch):
    """Entries of a dict, items and files have; input files do not count."""
    outcome = batch("""
        fails = chaos.call_failure(target="test_it:lookup", error="ConnectionError", at=1)
        def summed(path): return sum(rows(0.0))
        @fails
        def test_scalar(mlchaos, tmp_path):
            (tmp_path / "input.csv").write_text("1\\n")
            mlchaos.pipeline(summed, tmp_path).assert_complete()
        @fails
        def test_entries(mlchaos, tmp_path): mlchaos.pipeline(lambda: {"sum": summed(tmp_path)}).assert_complete()
        @fails
        def test_items(mlchaos, tmp_path): mlchaos.pipeline(lambda: [summed(tmp_path)]).assert_complete()
    """).run(failed=1, passed=2)
    outcome.has(
        "BadArgument: assert_complete: there is nothing to count: the golden run returned no rows "
        "or items and wrote no file"
    )
