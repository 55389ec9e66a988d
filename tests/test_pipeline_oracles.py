"""The assertions of pipelines besides ``assert_same_output``: each passes a sound pipeline and fails
its unsound twin.
"""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from pytest_mlchaos.pipelines.runner import Pipeline

CASES = """
import functools, os, tempfile, time
import pytest

def lookup(number): return 2.0 * number + 1

def fails(at, **how): return chaos.call_failure(target="test_it:lookup", error="ConnectionError", at=at, **how)
"""


def cases(example, tests):
    """A project with these tests of pipelines."""
    return example.with_tests(CASES + tests)


@pytest.mark.slow
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


@pytest.mark.slow
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
import pathlib
OUTSIDE = pathlib.Path(tempfile.mkdtemp()) / "in.txt"
def elsewhere(folder): return OUTSIDE.read_text()
def test_sound_outside(mlchaos, day):
    OUTSIDE.write_text("old")
    mlchaos.pipeline(elsewhere, day).again(changed=lambda: OUTSIDE.write_text("new")).assert_same_output()
def test_nothing_changed(mlchaos, day): mlchaos.pipeline(keyed, day).again(changed=lambda: None).assert_same_output()
def test_wrong_arguments(mlchaos, day): mlchaos.pipeline(keyed, day).again(changed=lambda a, b: None)
""",
    ).run(passed=2, failed=5)
    outcome.has(
        "StaleResult: the input has changed, and the output is not that of a fresh run",
        "it is the output for the input before the change",
        "the same calls without any fault differ, too",
        "BadArgument: again: changed must change the output",
        "BadArgument: again: changed must be a function without arguments, or one of the "
        "pipeline's 1 arguments",
    )


@pytest.mark.slow
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


@pytest.mark.slow
def test_assert_complete_counts_the_rows_in_files(example):
    """It applies to databases, compressed text, JSON and archives, and a cut file is incomplete."""
    outcome = cases(
        example,
        """
import gzip, json, sqlite3, tarfile, io
def kept(lose):
    for number in range(4):
        try: lookup(number); yield number
        except ConnectionError:
            if not lose: yield -1
def compressed(folder, rows):
    with gzip.open(folder / "out.csv.gz", "wt") as file: file.writelines(f"{row}\\n" for row in rows)
def cut(folder, rows):
    data = gzip.compress(b"line\\n" * 4)
    (folder / "out.csv.gz").write_bytes(data if 1 in list(rows) else data[:-9])
def database(folder, rows):
    base = sqlite3.connect(folder / "out.db")
    base.execute("create table t (id)")
    base.executemany("insert into t values (?)", [(row,) for row in rows])
    base.commit(); base.close()
def text(folder, rows): (folder / "out.json").write_text(json.dumps(list(rows)))
def archive(folder, rows):
    with tarfile.open(folder / "out.tar", "w") as file:
        for row in rows: file.addfile(tarfile.TarInfo(f"{row}.txt"), io.BytesIO())
@pytest.mark.parametrize("lose", [True, False])
@pytest.mark.parametrize("write", [compressed, database, text, archive])
@fails(1)
def test_rows(mlchaos, tmp_path, write, lose):
    mlchaos.pipeline(lambda folder: write(folder, kept(lose)), tmp_path).assert_complete()
@fails(1)
def test_cut(mlchaos, tmp_path): mlchaos.pipeline(lambda folder: cut(folder, kept(True)), tmp_path).assert_complete()
""",
    ).run(passed=4, failed=5)
    outcome.has(
        "Incomplete: out.csv.gz: 3 lines instead of 4 lines",
        "Incomplete: out.db['t']: 3 rows instead of 4 rows",
        "Incomplete: out.json: 3 items instead of 4 items",
        "Incomplete: out.tar: 3 members instead of 4 members",
        "Incomplete: out.csv.gz: cannot be read (EOFError",
    )


@pytest.mark.slow
def test_records_resources_and_calls_are_judged(example):
    """Lost and duplicated keys, leaks and retry storms are found; caches and retries pass."""
    outcome = cases(
        example,
        """
def send(folder, on_error):
    with (folder / f"part{len(list(folder.glob('part*')))}.csv").open("w") as file:
        file.write("id,x\\n")
        for number in range(3):
            try: lookup(number); file.write(f"{number},0\\n")
            except ConnectionError: file.write(f"{number},0\\n" * on_error)
@pytest.mark.parametrize("on_error", [0, 1, 2])
@fails(1)
def test_files(mlchaos, tmp_path, on_error): mlchaos.pipeline(send, tmp_path, on_error).assert_exactly_once(key="id")
def records(on_error):
    found = []
    for number in range(3):
        try: lookup(number); found.append({"id": number})
        except ConnectionError: found += [{"id": number}] * on_error
    return found
@pytest.mark.parametrize("on_error", [1, 2])
@fails(1)
def test_value(mlchaos, on_error): mlchaos.pipeline(records, on_error).assert_exactly_once(key="id")
@fails(1)
def test_no_key(mlchaos): mlchaos.pipeline(records, 1).assert_exactly_once(key="name")
HELD = []
def leaks(folder):
    file = (folder / "out.txt").open("w"); HELD.append(file)
    lookup(0)
    file.close()
def keeps_one(folder):
    if not HELD: HELD.append((folder / "out.txt").open("w"))
    lookup(0)
@pytest.mark.parametrize("pipeline", [leaks, keeps_one])
@fails(0)
def test_open(mlchaos, tmp_path, pipeline): mlchaos.pipeline(pipeline, tmp_path).assert_resources_released()
class Store:
    def get(self): return lookup(0)
def patient(attempts):
    for _ in range(attempts):
        try: return Store().get()
        except ConnectionError: pass
@pytest.mark.parametrize("most", [4, 2])
@fails(range(3))
def test_calls(mlchaos, most): mlchaos.pipeline(patient, 9).assert_calls("test_it:Store.get", at_most=most)
@pytest.mark.parametrize("most", [5, 4])
@fails(range(3))
def test_load(mlchaos, most): mlchaos.serve(lambda request: patient(9)).drive([0, 1]).assert_calls("test_it:Store.get", at_most=most)
@fails(0)
def test_never(mlchaos): mlchaos.run(patient, 2).assert_calls("test_it:leaks", at_most=1)
@fails(0)
def test_computed(mlchaos): mlchaos.run(patient, 2).assert_calls("test_it" + ":Store.get" * len([0]), at_most=1)
@pytest.mark.parametrize("most", [1, 0])
def test_without_a_fault(mlchaos, most): mlchaos.pipeline(patient, 9).assert_calls("test_it:Store.get", at_most=most)
""",
    ).run(passed=6, failed=10)
    outcome.has(
        "NotExactlyOnce: the records in the files are not there exactly once: 1 key missing (of 3)",
        "NotExactlyOnce: the records in the files are not there exactly once: 1 key duplicated",
        "BadArgument: assert_exactly_once: key must be in the records of the golden run",
        "NotReleased: each call leaves something open",
        "open file: 1 (out.txt)",
        "TooManyCalls: test_it:Store.get was called 4 times, more than 2. The golden run called it",
        "TooManyCalls: test_it:Store.get was called 5 times, more than 4",
        "TooManyCalls: test_it:Store.get was called 1 time, more than 0",
        "which is never called, also not without faults",
        "BadArgument: assert_calls: target must be a text in the test function",
    )


@pytest.mark.slow
def test_databases_are_compared_by_their_rows_and_restorations_are_timed(example):
    """Bytes and the order of rows do not count; a lost row does, and so does the time to a right
    output.
    """
    outcome = cases(
        example,
        """
import sqlite3
def store(folder, lose):
    base = sqlite3.connect(folder / "out.db")
    base.execute("pragma journal_mode=wal")
    base.execute("create table if not exists t (id)")
    late = []
    for number in range(3):
        try: lookup(number); base.execute("insert into t values (?)", (number,)); base.commit()
        except ConnectionError: late.append(number)
    base.executemany("insert into t values (?)", [(number,) for number in late if not lose])
    base.commit(); base.close()
@pytest.mark.parametrize("lose", [False, True])
@fails(1)
def test_rows(mlchaos, tmp_path, lose): mlchaos.pipeline(store, tmp_path, lose).assert_same_output()
def patient(wait, attempts=4):
    for attempt in range(attempts):
        try: return lookup(1)
        except ConnectionError: time.sleep(wait)
    return 0.0
@pytest.mark.parametrize("wait", [30, 90])
@fails(range(2))
def test_inside_a_call(mlchaos, wait):
    run = mlchaos.pipeline(patient, wait)
    assert wait <= run.recovery_time < wait + 1
    run.assert_restored(within="1m")
@pytest.mark.parametrize("wait", [30, 90])
@fails(0)
def test_in_the_next_call(mlchaos, wait):
    run = mlchaos.pipeline(lambda: lookup(1))
    assert run.recovery_time is None
    time.sleep(wait)
    again = run.again()
    again.assert_restored(within="1m")
    assert 30 <= again.recovery_time < 31
@fails(0)
def test_by_itself(mlchaos):
    run = mlchaos.pipeline(lambda: lookup(1))
    run.assert_restored(within=1)
    assert run.recovery_time < 1
KEPT = {}
def poisoned():
    if "x" not in KEPT:
        try: KEPT["x"] = lookup(1)
        except ConnectionError: KEPT["x"] = 0.0
    return KEPT["x"]
@fails(0)
def test_never(mlchaos): mlchaos.pipeline(poisoned).assert_restored(within="1h")
""",
    ).run(passed=4, failed=4)
    outcome.has(
        "SilentlyDifferent",
        "out.db: table 't': 2 rows instead of 3 rows",
        "NotRecovered: the first right output came 1 min 30 s after the end of the fault, more than "
        "60 s",
        "NotRecovered: the output is not right after the fault has ended",
    )


@pytest.mark.slow
def test_objects_in_remote_stores_are_output(example):
    """They are compared, counted and restored, and what the next call finds is the trial's."""
    pytest.importorskip("fsspec")
    outcome = cases(
        example,
        """
import fsspec
fs = fsspec.filesystem("memory")
@pytest.fixture(autouse=True)
def store():
    fs.pipe("/pipeline/old", b"old")
    yield
    fs.rm("/pipeline", recursive=True)
def kept(fill):
    for number in range(3):
        try: yield lookup(number)
        except ConnectionError:
            if fill is None: raise
            if fill != "skip": yield fill
def opened(fill):
    with fsspec.open("memory://pipeline/out.csv", "w") as file:
        for value in kept(fill): file.write(f"{value}\\n")
def replaced(fill): fs.pipe("/pipeline/old", repr(list(kept(fill))).encode())
def appended(fill):
    old = fs.cat("/pipeline/old")
    fs.pipe("/pipeline/old", old + repr(list(kept(fill))).encode())
def locked(fill):
    fs.touch("/pipeline/lock"); values = list(kept(fill)); fs.rm("/pipeline/lock")
    replaced(None)
def retried():
    try: return appended(None)
    except ConnectionError: return appended(None)
@pytest.mark.parametrize("pipeline", [opened, replaced, appended])
@fails(1)
def test_filled(mlchaos, pipeline): mlchaos.pipeline(pipeline, 7.0).assert_same_output()
@fails(1)
def test_half_written(mlchaos): mlchaos.pipeline(opened, None).assert_same_output()
@fails(1)
def test_skipped(mlchaos): mlchaos.pipeline(opened, "skip").assert_complete()
@fails(1)
def test_repeated(mlchaos): mlchaos.pipeline(appended, 0.0).assert_idempotent()
@fails(1)
def test_lock(mlchaos): mlchaos.pipeline(locked, None).assert_no_leftovers()
def elsewhere(): fs.pipe("/elsewhere/x", repr(list(kept(None))).encode())
@chaos.call_failure(target="test_it:lookup", error="ConnectionError")
def test_each_trial_begins_alike(mlchaos): mlchaos.pipeline(elsewhere).assert_same_output()
@fails(1)
def test_sound(mlchaos):
    mlchaos.pipeline(retried).assert_same_output()
    assert fs.cat("/pipeline/old") == b"old[1.0, 3.0, 5.0]"
@chaos.crash(at=0)
def test_killed(mlchaos):
    def killed():
        try: fs.pipe("/pipeline/old", b"new"); visit("train.step")
        finally: fs.pipe("/pipeline/old", b"by the dead")
    run = mlchaos.pipeline(killed)
    assert type(run.error).__name__ == "SimulatedCrash" and fs.cat("/pipeline/old") == b"new"
def around(fill):
    from fsspec.implementations.memory import MemoryFile, MemoryFileSystem
    MemoryFileSystem.store["/pipeline/new"] = MemoryFile(fs, "/pipeline/new", repr(list(kept(fill))).encode())
@fails(1)
def test_named(mlchaos): mlchaos.pipeline(around, 0.0, outputs="memory://pipeline").assert_same_output()
@pytest.mark.parametrize("place", ["postgresql://host/db", "memory://", "/etc/out", "sqlite://", 3])
def test_wrong_place(mlchaos, place): mlchaos.pipeline(replaced, 0.0, outputs=[place])
""",
    ).run(passed=3, failed=13)
    outcome.has(
        "memory://pipeline/out.csv: different content (3 lines in both)",
        "HalfWritten",
        "Incomplete: memory://pipeline/out.csv: 2 lines instead of 3 lines",
        "NotIdempotent",
        "memory://pipeline/lock: 0 bytes",
        "memory://pipeline/new: different content",
        "outputs can be SQLite databases, got one of postgresql",
        "outputs must name a prefix, not a whole bucket",
        "outputs must be below tmp_path",
        "outputs must name a database file",
        "outputs must be paths or URLs, got 3",
    )


@pytest.mark.slow
def test_objects_in_s3_are_output(example):
    """Those of a client that exists before the trial, and those that a different client writes."""
    for package in ("s3fs", "moto.server", "boto3"):
        pytest.importorskip(package)
    outcome = cases(
        example,
        """
import boto3, moto.server, s3fs
@pytest.fixture(scope="module")
def url():
    server = moto.server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
@pytest.fixture
def fs(url, monkeypatch):
    for name, value in {"ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "x", "DEFAULT_REGION": "us-east-1", "ENDPOINT_URL": url}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    fs = s3fs.S3FileSystem(key="x", secret="x", endpoint_url=url)
    fs.mkdir("bucket")
    fs.pipe("bucket/old", b"old")
    yield fs
    fs.rm("bucket", recursive=True)
def kept(fill):
    for number in range(3):
        try: yield lookup(number)
        except ConnectionError:
            if fill is None: raise
            yield fill
def opened(fs, fill):
    with fs.open("bucket/out.csv", "w") as file:
        for value in kept(fill): file.write(f"{value}\\n")
def moved(fs, fill): fs.pipe("bucket/tmp", repr(list(kept(fill))).encode()); fs.mv("bucket/tmp", "bucket/old")
def parts(fs, fill):
    file = fs.open("bucket/big", "wb", block_size=5 * 2 ** 20)
    file.write(b"x" * 6 * 2 ** 20)
    list(kept(fill))
    file.close()
@pytest.mark.parametrize("pipeline", [opened, moved])
@fails(1)
def test_filled(mlchaos, fs, pipeline): mlchaos.pipeline(pipeline, fs, 7.0).assert_same_output()
@fails(1)
def test_sound(mlchaos, fs):
    mlchaos.pipeline(moved, fs, None).assert_same_output()
    assert fs.cat("bucket/old") == b"old"
@fails(1)
def test_other_client(mlchaos, fs, url):
    def put(): boto3.client("s3", endpoint_url=url).put_object(Bucket="bucket", Key="out/x", Body=repr(list(kept(0.0))).encode())
    mlchaos.pipeline(put, outputs=["s3://bucket/out"]).assert_same_output()
@fails(1)
def test_upload(mlchaos, fs): mlchaos.pipeline(parts, fs, None).assert_no_leftovers()
""",
    ).run(passed=1, failed=4)
    outcome.has(
        "s3://bucket/out.csv: different content (3 lines in both)",
        "s3://bucket/old: different content",
        "s3://bucket/out/x: different content",
        "s3://bucket/big: an unfinished upload",
    )


@pytest.mark.slow
def test_no_leftovers_of_a_removal_that_failed_is_accepted(example):
    """The pipeline tried to tidy up, while the storage was down."""
    example.with_tests(
        """
import pytest

def work(folder, tidy):
    temporary = folder / "a.tmp"
    try:
        temporary.write_text("content")
    except OSError:
        if tidy:
            temporary.unlink(missing_ok=True)
        raise
    temporary.rename(folder / "a.txt")

@pytest.mark.parametrize("tidy", [True, pytest.param(False, marks=pytest.mark.xfail(strict=True))])
@chaos.storage_outage(path="a.tmp", at=1)
def test_it(mlchaos, tmp_path, tidy):
    mlchaos.pipeline(work, tmp_path, tidy).assert_no_leftovers()
"""
    ).run(passed=1, xfailed=1)


@pytest.mark.slow
def test_again_finds_a_stale_listing_of_a_remote_store(example):
    """The expected output is that of a process whose listings are empty."""
    example.with_tests(
        """
import fsspec
from fsspec.implementations.memory import MemoryFileSystem
import pytest

class Listed(MemoryFileSystem):
    '''Keeps listings, as the filesystems of object stores do.'''
    protocol = "listed"
    cachable = True

    def ls(self, path, detail=True, refresh=False, **kwargs):
        if refresh or path not in self.dircache:
            self.dircache[path] = super().ls(path, detail=True)
        return [entry["name"] for entry in self.dircache[path]]

def total(folder, refresh):
    fs = Listed()
    return sum(int(fs.cat(path)) for path in fs.ls(folder, refresh=refresh))

def put(name):
    MemoryFileSystem().pipe(f"/days-of-a-test/{name}", b"1")

@pytest.mark.parametrize("refresh", [True, pytest.param(False, marks=pytest.mark.xfail(strict=True, raises=Exception))])
def test_it(mlchaos, refresh):
    MemoryFileSystem().pipe("/days-of-a-test/monday", b"1")
    run = mlchaos.pipeline(total, "/days-of-a-test", refresh)
    try:
        run.again(changed=lambda: put(f"day-{refresh}")).assert_same_output()
    except Exception as error:
        assert type(error).__name__ == "StaleResult"
        assert "an earlier call leaves a stale result" in str(error)
        raise
    finally:
        MemoryFileSystem().rm("/days-of-a-test", recursive=True)
"""
    ).run(passed=1, xfailed=1)


def test_call_that_raised_waits_for_threads_that_still_write(tmp_path):
    """They must not write into the directories of the golden run."""
    pipeline = Pipeline.__new__(Pipeline)
    pipeline._disk = SimpleNamespace(roots=(tmp_path,))

    def write():
        for number in range(5):
            (tmp_path / str(number)).write_text("content")
            time.sleep(0.005)

    thread = threading.Thread(target=write)
    thread.start()
    pipeline._let_threads_finish()
    assert len(list(tmp_path.iterdir())) == 5
    thread.join()
