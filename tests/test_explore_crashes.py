"""``mlchaos.explore_crashes`` as a user meets it. Torch-free subjects; those on torch are in
test_explore_torch.py.
"""

from __future__ import annotations

import re
import textwrap

import pytest

SUBJECTS = '''
import itertools, json, os, pathlib, pickle, random, threading, time
import pytest

def save(state, file, atomic):
    state["weights"] = bytes([state["step"]]) * 9000  # more than one page
    if atomic:
        tmp = file.with_name(file.name + ".tmp")
        tmp.write_bytes(pickle.dumps(state))
        os.replace(tmp, file)
    else:
        file.write_bytes(pickle.dumps(state))

def train(workdir, steps=6, *, atomic=True, every=2):
    """Adds up; keeps the sum and its step in a file."""
    file = pathlib.Path(workdir) / "last.pkl"
    state = pickle.loads(file.read_bytes()) if file.exists() else {"step": 0, "sum": 0.0}
    while state["step"] < steps:
        state["sum"] += state["step"] ** 2
        state["step"] += 1
        if state["step"] % every == 0:
            save(state, file, atomic)
    return state

def in_place(workdir):
    return train(workdir, atomic=False)
'''


@pytest.fixture
def project(example):
    """A project with these subjects."""
    return lambda tests: example.with_tests(SUBJECTS + textwrap.dedent(tests))


@pytest.mark.slow
def test_a_sound_subject_recovers_from_every_crash_state(project):
    """Atomic writes: temporary files that are left over, cut short, do no harm."""
    project("""
        def test_it(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(train, tmp_path)
            report.assert_recovers()
            assert {outcome.verdict for outcome in report.outcomes} == {"recovered"} and not report.failures
            assert len(report.states) == len(report.outcomes) > 10 and any(state.torn for state in report.states)
            assert "all recover" in str(report)
            assert train(tmp_path / "other") if (tmp_path / "other").mkdir() else True
            assert sorted(path.name for path in tmp_path.iterdir()) == ["last.pkl", "other"]  # as the golden run left it
    """).run(passed=1)


@pytest.mark.slow
def test_changes_that_were_not_seen_are_reported_though_all_recover(project):
    """One call writes two files by turns: no run resumes from what it left in between, and the
    report says so.
    """
    project("""
        import collections

        def by_turns(workdir):
            fds = [os.open(workdir / name, os.O_WRONLY | os.O_CREAT) for name in "ab"]
            collections.deque(itertools.starmap(os.pwrite, [(fd, str(number).encode(), 0) for number in range(100) for fd in fds]), 0)
            for fd in fds:
                os.close(fd)
            return (workdir / "a").read_text()

        def test_it(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(by_turns, tmp_path / "inside", isolation="in-process")
            report.assert_recovers(from_scratch=True)
            assert report.unseen == 199
            assert "all recover\\n  some 199 changes inside one call were not seen, so no run resumed from" in str(report)
            assert "what they left: record='syscalls' sees each" in str(report)

        def test_nothing(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(train, tmp_path, isolation="in-process")
            assert report.unseen == 0 and "not seen" not in str(report)

        def test_in_runs_that_resume(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(by_turns, tmp_path, isolation="in-process", depth=2)
            assert report.unseen > 400 and "changes inside" in str(report)
    """).run(passed=3)


@pytest.mark.slow
def test_a_torn_checkpoint_is_found_and_named(project):
    """The report says what broke, where, and how to repeat it; the line works."""
    project("""
        def test_it(mlchaos, tmp_path):
            mlchaos.explore_crashes(in_place, tmp_path).assert_recovers()
    """).run(failed=1).has(
        "resume raised EOFError: Ran out of input",
        "in train",
        "first: last.pkl cut at byte 0 of ",
        'reproduce: @chaos.crash(state="last.pkl@0#0")',
        """test_it" --mlchaos-replay "crash(state='last.pkl@0#0')\"""",
        "not measured (no optimizer step",
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "append",
    [
        "with open(log, 'a') as file: file.write(line)",
        "with open(log, 'a', buffering=1) as file: print(line, end='', file=file)",
        "with open(log, 'ab', buffering=0) as file: file.write(line.encode())",
        "fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND); os.write(fd, line.encode()); "
        "os.close(fd)",
        "thread = threading.Thread(target=appended, args=(log, line)); thread.start(); "
        "thread.join()",
        "child = multiprocessing.get_context('fork').Process(target=appended, args=(log, line)); "
        "child.start(); child.join()",
        "subprocess.run(['sh', '-c', 'printf %s \"$1\" >> \"$2\"', 'sh', line, str(log)], "
        "check=True)",
    ],
    ids=["buffered", "line-buffered", "unbuffered", "os.write", "thread", "fork", "child"],
)
def test_lines_that_single_writes_append_are_never_cut(project, append):
    """No kill cuts a short write, so a job that goes on from its last whole line is sound."""
    project(f"""
        import multiprocessing, subprocess

        def appended(log, line):
            with open(log, "a") as file:
                file.write(line)

        def counts(workdir):
            log = workdir / "log.jsonl"
            lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
            for number in range(len(lines), 5):
                line = json.dumps({{"number": number}}) + chr(10)
                {append}
            return [json.loads(line) for line in log.read_text().splitlines()]

        def test_it(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(counts, tmp_path, isolation="in-process")
            report.assert_recovers()
            assert len(report.states) >= 6
    """).run(passed=1)


@pytest.mark.slow
def test_a_power_loss_cuts_what_a_kill_does_not(project):
    """``durability="power"`` finds the line that was not written back."""
    project("""
        def counts(workdir):
            log = workdir / "log.jsonl"
            with open(log, "a") as file:
                for number in range(len(log.read_text().splitlines()), 3):
                    file.write(json.dumps({"number": number}) + chr(10))
                    file.flush()
            return [json.loads(line) for line in log.read_text().splitlines()]

        def test_killed(mlchaos, tmp_path):
            mlchaos.explore_crashes(counts, tmp_path).assert_recovers()

        def test_power(mlchaos, tmp_path):
            mlchaos.explore_crashes(counts, tmp_path, durability="power").assert_recovers()
    """).run(passed=1, failed=1).has("JSONDecodeError", "by a power loss")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["@chaos.crash(state='last.pkl@0#0')", "replayed"])
def test_one_state_is_created_again(project, form):
    """By a decorator and by ``--mlchaos-replay``: exactly that state, struck and journalled."""
    mark, arguments = (
        ("", ["--mlchaos-replay=crash(state='last.pkl@0#0')"]) if form == "replayed" else (form, [])
    )
    project(f"""
        {mark}
        def test_it(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(in_place, tmp_path)
            assert [outcome.verdict for outcome in report.outcomes] == ["failed"] and isinstance(report.failures[0].error, EOFError)
            assert [strike.fault for strike in mlchaos.journal] == ["crash(state='last.pkl@0#0')"]
    """).run(*arguments, passed=1)


def test_a_run_dies_so_that_it_leaves_the_named_state(project):
    """``mlchaos.run`` restarts from it: a sound subject recovers, an unsound one fails in its
    second attempt.
    """
    project("""
        @chaos.crash(state="last.pkl#0")
        def test_sound(mlchaos, tmp_path):
            run = mlchaos.run(train, tmp_path)
            run.assert_recovered()
            assert run.restarts == 1 and [strike.site for strike in run.faults] == ["crash.state"]

        @chaos.crash(state="last.pkl@0#0")
        def test_unsound(mlchaos, tmp_path):
            mlchaos.run(in_place, tmp_path).assert_recovered()
    """).run(passed=1, failed=1).has(
        "EOFError", "attempt 1: 0 steps, then the process died and left last.pkl cut at byte 0"
    )


def test_a_state_that_does_not_exist_is_refused(project):
    """With the nearest one that does; and one that nothing is made of never struck."""
    project("""
        @chaos.crash(state="last.pkl@1#0")
        def test_wrong(mlchaos, tmp_path):
            mlchaos.explore_crashes(in_place, tmp_path)

        @chaos.crash(state="last.pkl@0#0")
        def test_unused(mlchaos, tmp_path):
            in_place(tmp_path)

        @chaos.crash(state="last.pkl@0#0", at=3)
        def test_both(mlchaos, tmp_path):
            in_place(tmp_path)
    """).run(failed=3).has(
        "state must be one of the",
        "got 'last.pkl@1#0' (did you mean",
        "never struck",
        "crash(state=...) only works with",
        "cannot be given too",
    )


@pytest.mark.slow
def test_states_are_kept_to_look_at(project):
    """``--mlchaos-keep-state`` leaves the directory of each state that a report names."""
    tests = project("""
        def test_it(mlchaos, tmp_path):
            mlchaos.explore_crashes(in_place, tmp_path).assert_recovers()
    """)
    tests.run("--mlchaos-keep-state=kept", failed=1).has("kept: ")
    assert (tests.pytester.path / "kept" / "last.pkl@0#0" / "last.pkl").read_bytes() == b""


@pytest.mark.slow
def test_a_checkpoint_that_is_deleted_too_early_is_a_restart(project):
    """To begin from scratch gives the right end, and loses everything: the report says which
    checkpoint there had been.
    """
    project("""
        def rotates(workdir, steps=12):
            folder = pathlib.Path(workdir)
            kept = sorted(folder.glob("*.pkl"), key=lambda path: int(path.stem))
            state = pickle.loads(kept[-1].read_bytes()) if kept else {"step": 0, "sum": 0}
            while state["step"] < steps:
                state = {"step": state["step"] + 1, "sum": state["sum"] + state["step"]}
                for old in folder.glob("*.pkl"):
                    old.unlink()
                save(state, folder / f"{state['step']}.pkl", True)
            return state

        def test_it(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(rotates, tmp_path)
            assert {outcome.verdict for outcome in report.outcomes} == {"recovered", "restarted"}
            report.assert_recovers()
    """).run(failed=1).has(
        "resume began from scratch", "although a checkpoint had been complete before"
    )


@pytest.mark.slow
def test_what_is_returned_is_compared(project):
    """A counter that no checkpoint holds shows in the returned value; an entry that only says where
    the run went on from does not.
    """
    project("""
        def forgets(workdir):
            patience = 0
            state = train(workdir, steps=2)
            for step in range(state["step"], 6):
                patience += 1
                state = train(workdir, steps=step + 1)
            return {**state, "patience": patience}

        def tells(workdir):
            file = pathlib.Path(workdir) / "last.pkl"
            start = pickle.loads(file.read_bytes())["step"] if file.exists() else 0
            visits = [visit("train.step") for _ in range(6 - start)]
            return {**train(workdir), "began_at": start}

        def test_lost(mlchaos, tmp_path):
            mlchaos.explore_crashes(forgets, tmp_path).assert_recovers()
    """).run(failed=1).has("different result: returned value", "['patience']: differs by")


@pytest.mark.slow
def test_files_are_judged_where_nothing_is_returned(project):
    """A script's result is what it leaves; files that differ from run to run are left out."""
    project("""
        def writes(workdir, forgets=False):
            log = pathlib.Path(workdir) / "log.txt"
            done = len(log.read_text().splitlines()) if log.exists() else 0
            for number in range(0 if forgets else done, 4):
                with log.open("a") as file:
                    file.write(f"{number}\\n")
            (pathlib.Path(workdir) / "time.txt").write_text(repr(time.perf_counter_ns()) + str(os.urandom(4)))

        def test_sound(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(writes, tmp_path, torn_writes=False)
            report.assert_recovers()

        def test_unsound(mlchaos, tmp_path):
            mlchaos.explore_crashes(writes, tmp_path, True, torn_writes=False).assert_recovers()
    """).run(passed=1, failed=1).has(
        "different result: files", "log.txt has different content at the end"
    )


@pytest.mark.slow
def test_the_report_does_not_name_the_folders_of_the_machine(project):
    """The work directory is called so: reports of two runs are alike, and tell nothing of the
    machine.
    """
    project("""
        def pointed(workdir):
            latest = workdir / "latest"
            if latest.exists():
                return (workdir / latest.read_text()).read_text()
            (workdir / "one").write_text("1")
            with open(latest, "wb", buffering=0) as file:
                file.write(b"o")
                file.write(b"ne")
            return "1"

        def test_it(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(pointed, tmp_path)
            assert report.failures
            assert "No such file or directory: 'workdir/o'" in str(report) and str(tmp_path) not in str(report)
    """).run(passed=1)


@pytest.mark.slow
def test_a_second_crash_during_the_recovery_is_explored(project):
    """``depth=2`` finds what breaks only when the recovery itself is interrupted."""
    project("""
        def recovers_once(workdir):
            folder = pathlib.Path(workdir)
            if (folder / "last.pkl").exists() and not (folder / "last.pkl").read_bytes():
                (folder / "repairing").touch()
                (folder / "last.pkl").unlink()
            elif (folder / "repairing").exists() and not (folder / "last.pkl").exists():
                raise RuntimeError("interrupted repair")
            try:
                return train(workdir, 4, atomic=False)
            except (EOFError, pickle.UnpicklingError):
                (folder / "last.pkl").unlink()
                return train(workdir, 4, atomic=False)

        def test_once(mlchaos, tmp_path):
            assert not [o for o in mlchaos.explore_crashes(recovers_once, tmp_path).failures if o.verdict == "failed"]

        def test_twice(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(recovers_once, tmp_path, depth=2)
            failed = [outcome for outcome in report.failures if outcome.verdict == "failed"]
            assert failed and all(">" in outcome.state.id for outcome in failed)
            print("FIRST", failed[0].state.id)

        @chaos.crash(state="last.pkl@0#0>last.pkl~removed#0")
        def test_one(mlchaos, tmp_path):
            (outcome,) = mlchaos.explore_crashes(recovers_once, tmp_path).outcomes
            assert outcome.verdict == "failed" and str(outcome.error) == "interrupted repair"
    """).run(passed=3)


@pytest.mark.slow
def test_tolerance_is_the_way_on_for_noise(project):
    """A subject whose runs differ is refused, with the first difference; ``rtol`` admits it."""
    outcome = project("""
        def noisy(workdir):
            state = train(workdir)
            return {**state, "sum": state["sum"] + random.SystemRandom().random() * 1e-6}

        def test_refused(mlchaos, tmp_path):
            mlchaos.explore_crashes(noisy, tmp_path)

        def test_allowed(mlchaos, tmp_path):
            mlchaos.explore_crashes(noisy, tmp_path, rtol=1e-3).assert_recovers()
    """)
    outcome = outcome.run(passed=1, failed=1)
    outcome.has(
        "NonDeterministicSubject: two runs of the subject differ",
        "['sum']: differs by",
        ">       mlchaos.explore_crashes(noisy, tmp_path)",
    )
    # The failure shows the user's line, and nothing behind it.
    assert "contextlib" not in outcome.text


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["in-process", "process"])
def test_a_judgement_that_the_subject_raises_is_the_outcome_of_its_state(project, isolation):
    """Verdicts of this package, raised in a resumed run, do not end the exploration. A mistake in
    the test does.
    """
    project(f"""
        from pytest_mlchaos import errors

        def guarded(workdir, error):
            file = pathlib.Path(workdir) / "last.pkl"
            try:
                return train(workdir, atomic=False)
            except (EOFError, pickle.UnpicklingError):
                raise error("what it says") from None

        @pytest.mark.parametrize("error", [errors.RankFailed, errors.StateDiffers, errors.GoldenRunFailed])
        def test_verdict(mlchaos, tmp_path, error):
            report = mlchaos.explore_crashes(guarded, tmp_path, error, isolation={isolation!r})
            assert {{(o.verdict, type(o.error)) for o in report.failures}} == {{("failed", error)}}
            assert len(report.outcomes) == len(report.states) > len(report.failures) and "what it says" in str(report)

        @pytest.mark.parametrize("error", [errors.BadArgument, errors.MlchaosError])
        def test_mistake(mlchaos, tmp_path, error):
            with pytest.raises(error, match="what it says"):
                mlchaos.explore_crashes(guarded, tmp_path, error, isolation={isolation!r})
    """).run(passed=5)


@pytest.mark.slow
def test_state_that_a_subject_keeps_in_its_process_is_told_and_does_no_harm(project):
    """Globals are put back; what cannot be is a reason for fresh processes, and the report says so."""
    project("""
        SEEN = []

        def remembers(workdir):
            SEEN.append(1)
            return {**train(workdir), "seen": len(SEEN)}

        class Counter:
            runs = 0

        def counts(workdir):
            Counter.runs += 1
            return {**train(workdir), "runs": Counter.runs}

        def test_globals(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(remembers, tmp_path)
            report.assert_recovers()
            assert "restored before each run" in str(report) and ".SEEN" in str(report)

        def test_class(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(counts, tmp_path)
            report.assert_recovers()
            assert "each run in a fresh process: in one process, a second run differs from the first" in str(report)

        def test_in_process(mlchaos, tmp_path):
            mlchaos.explore_crashes(counts, tmp_path, isolation="in-process")
    """).run(passed=2, failed=1).has("isolation='process' makes each run in a fresh process")


@pytest.mark.slow
def test_fresh_processes_and_several_jobs_find_the_same(project):
    """Verdicts do not depend on where the runs are made."""
    project("""
        @pytest.mark.parametrize("how", [{"isolation": "process"}, {"jobs": 2}])
        def test_it(mlchaos, tmp_path, how):
            (tmp_path / "a").mkdir(); (tmp_path / "b").mkdir()
            here = mlchaos.explore_crashes(in_place, tmp_path / "a", isolation="in-process")
            there = mlchaos.explore_crashes(in_place, tmp_path / "b", **how)
            told = [[(o.state.id, o.verdict, type(o.error).__name__) for o in report.outcomes] for report in (here, there)]
            assert told[0] == told[1] and len(here.failures) > 3
    """).run(passed=2)


@pytest.mark.parametrize(
    ("body", "call", "says"),
    [
        ("return 1", "", "the subject wrote nothing below its work directory"),
        (
            "train(workdir); raise KeyError('x')",
            "",
            "GoldenRunFailed: the subject fails without any fault: KeyError: 'x'",
        ),
        (
            "train(workdir); threading.Event().wait()",
            "timeout=0.3",
            "did not end in time without any fault: it was in wait",
        ),
        (
            "train(workdir); os.chdir(workdir); return 1",
            "",
            "the subject changed the working directory to ",
        ),
        (
            "train(workdir); threading.Thread(target=done.wait, name='saver').start(); return 1",
            "isolation='in-process'",
            "left the thread saver running",
        ),
        (
            "train(workdir); return None if os.remove(str(workdir) + '/last.pkl') else None",
            "",
            "there is nothing to judge",
        ),
        (
            "return train(workdir)",
            "durability='fire'",
            "durability must be 'process' or 'power', got 'fire' (str)",
        ),
        ("return train(workdir)", "jobs=0", "jobs must be 1 or more, or 'auto', got 0 (int)"),
        ("return train(workdir)", "jobs=2, isolation='in-process'", "needs fresh processes"),
        ("return train(workdir)", "horizon=-1", "horizon must be 1 or more"),
        ("return train(workdir)", "timeout=0", "timeout must be positive, got 0"),
        ("return train(workdir)", "rtol=-1", "rtol must be a number of 0 or more"),
    ],
)
def test_what_cannot_be_explored_gets_one_clear_error(project, body, call, says):
    """The reason, and the cure."""
    project(f"""
        done = threading.Event()

        @pytest.fixture(autouse=True)
        def ends():
            yield
            done.set()

        def subject(workdir):
            {body}

        def test_it(mlchaos, tmp_path):
            mlchaos.explore_crashes(subject, tmp_path, {call})
    """).run("--mlchaos-timeout=20", failed=1).has(says)


@pytest.mark.slow
def test_a_work_directory_that_is_not_the_tests_own_is_refused(project):
    """It would be emptied: nothing in it is touched."""
    project("""
        def test_it(mlchaos):
            home = pathlib.Path("precious").absolute()
            home.mkdir(); (home / "thesis.txt").write_text("x")
            with pytest.raises(ValueError, match="not below the test's temporary directory"):
                mlchaos.explore_crashes(train, home)
            with pytest.raises(ValueError, match="must be a path or a URL, got 3"):
                mlchaos.explore_crashes(train, 3)
            assert (home / "thesis.txt").read_text() == "x"
    """).run(passed=1)


@pytest.mark.slow
def test_a_resumed_run_that_hangs_is_cut_off_and_said_to_hang(project):
    """The report names the line, in process and in a fresh process."""
    project("""
        def waits(workdir):
            lock = pathlib.Path(workdir) / "lock"
            while lock.exists():
                time.sleep(0.01)
            lock.touch()
            state = train(workdir, 1)
            lock.unlink()
            return state

        @pytest.mark.parametrize("isolation", ["in-process", "process"])
        def test_it(mlchaos, tmp_path, isolation):
            report = mlchaos.explore_crashes(waits, tmp_path, timeout=1, torn_writes=False, isolation=isolation)
            assert {o.verdict for o in report.failures} == {"hung"} and "resume did not end: it was in " in str(report)
            assert "waits" in str(report)
    """).run("--mlchaos-clock=real", passed=2)


TICKS = """
        @pytest.fixture(autouse=True)
        def ticks(monkeypatch):
            # The budget's clock moves by one second each time that it is read: once for each state.
            monkeypatch.setattr("pytest_mlchaos.crashes.tested.perf_counter", itertools.count().__next__)
"""


@pytest.mark.slow
def test_a_budget_passes_by_what_was_tried(project):
    """The report and a warning say how many states of which kinds were not tried."""
    project(f"""{TICKS}
        def test_it(mlchaos, tmp_path):
            with pytest.warns(UserWarning, match="crash states were tried"):
                report = mlchaos.explore_crashes(train, tmp_path, isolation="in-process", exhaustive=True)
            tried, states, untried = len(report.outcomes), len(report.states), len(report.untried)
            assert 3 < tried < states and tried + untried == states and not report.failures
            assert f"{{tried}} of {{states}} crash states were tried, at least one of each kind; not tried: {{untried}} (" in str(report)
            assert "--mlchaos-budget (6 seconds were left for this test) ran out" in str(report)
            assert f"{{tried}} of {{states}} crash states in" in str(report) and "these recover" in str(report)
            report.assert_recovers()
    """).run("--mlchaos-budget=6", passed=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keywords", "why"),
    [
        ("max_states=4, require_all=True", "inconclusive, because require_all is set"),
        (
            "max_states=1",
            "inconclusive, because no state of these kinds was tried: torn files, complete",
        ),
        (
            "budget='1us'",
            "inconclusive, because no state of these kinds was tried: torn files, complete",
        ),
    ],
)
def test_too_few_states_are_inconclusive(project, keywords, why):
    """A kind of state that was not tried allows no pass, nor does a single state if all are
    required.
    """
    project(f"""
        @pytest.mark.filterwarnings("ignore:mlchaos")
        def test_it(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(train, tmp_path, isolation="in-process", torn_writes=False, {keywords})
            report.assert_recovers()
    """).run(failed=1).has("Inconclusive", "not tried", why)


@pytest.mark.slow
def test_the_settings_limit_the_number_of_states(project):
    """The lower one of the setting and the keyword holds."""
    project("""
        @pytest.mark.filterwarnings("ignore:mlchaos")
        @pytest.mark.parametrize(("most", "tried"), [(None, 4), (3, 3), (9, 4)])
        def test_it(mlchaos, tmp_path, most, tried):
            report = mlchaos.explore_crashes(train, tmp_path, isolation="in-process", max_states=most)
            assert len(report.outcomes) == tried
            assert f"max_states={tried}" in str(report)
    """).run("--mlchaos-max-states=4", passed=3)


@pytest.mark.slow
def test_a_failure_within_the_budget_is_a_failure(project):
    """A failure that was found does not depend on the states that were not tried."""
    project(f"""{TICKS}
        def test_it(mlchaos, tmp_path):
            with pytest.warns(UserWarning, match="not tried"):
                report = mlchaos.explore_crashes(in_place, tmp_path, isolation="in-process")
            report.assert_recovers()
    """).run("--mlchaos-budget=8", failed=1).has(
        "NotRecovered", "UnpicklingError", "crash states were tried"
    )


@pytest.mark.slow
def test_explorations_of_one_test_share_the_budget(project):
    """The budget is for one test: the second exploration finds it used up, and starts no further
    run.
    """
    project(f"""{TICKS}
        @pytest.mark.filterwarnings("ignore:mlchaos")
        def test_it(mlchaos, tmp_path):
            for name in ("a", "b"):
                (tmp_path / name).mkdir()
            assert mlchaos.explore_crashes(train, tmp_path / "a", isolation="in-process").untried
            report = mlchaos.explore_crashes(train, tmp_path / "b", isolation="in-process")
            assert [outcome.state.id for outcome in report.outcomes] == ["start#0"]
            assert len(report.untried) == len(report.states) - 1
    """).run("--mlchaos-budget=6", passed=1)


@pytest.mark.slow
def test_a_budget_ends_the_search_for_second_crashes(project):
    """With depth=2, the report says how many states were not crashed again."""
    project(f"""{TICKS}
        def test_it(mlchaos, tmp_path):
            with pytest.warns(UserWarning, match="no second crash was tried after"):
                report = mlchaos.explore_crashes(train, tmp_path, 2, isolation="in-process", depth=2, torn_writes=False)
            assert not report.failures
    """).run("--mlchaos-budget=6", passed=1)


@pytest.mark.slow
def test_a_state_that_is_asked_for_is_tried_without_a_budget(project):
    """A replay tries its one state however little time the settings give."""
    project("""
        @chaos.crash(state="start#0")
        def test_it(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(train, tmp_path, isolation="in-process")
            report.assert_recovers()
            assert len(report.outcomes) == 1 and not report.untried
    """).run("--mlchaos-budget=0.000001", passed=1)


@pytest.mark.slow
def test_the_timeout_of_the_settings_holds_for_resumed_runs(project):
    """A test that sets it waits no longer for a resumed run that hangs."""
    project("""
        def waits(workdir):
            lock = pathlib.Path(workdir) / "lock"
            while lock.exists():
                time.sleep(0.01)
            lock.touch()
            lock.unlink()
            return 1

        @chaos.settings(timeout=1, clock="real")
        def test_it(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(waits, tmp_path, isolation="in-process")
            assert {o.verdict for o in report.failures} == {"hung"} and max(o.duration for o in report.failures) < 10
    """).run(passed=1)


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [10**6, 10**30])
def test_jobs_are_at_most_the_processors(project, jobs):
    """However many are asked for."""
    pytest.importorskip("cloudpickle")
    project(f"""
        def test_it(mlchaos, tmp_path):
            mlchaos.explore_crashes(train, tmp_path, 2, jobs={jobs}, torn_writes=False).assert_recovers()
    """).run(passed=1)


@pytest.mark.slow
def test_a_budget_that_runs_out_names_the_slowest_state(project):
    """The report says how many states were tried, and which of them took the longest."""
    project(f"""{TICKS}
        def test_it(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(train, tmp_path, isolation="in-process")
            assert f"{{len(report.outcomes)}} crash states were tried, the slowest of them last.pkl" in str(report)
    """).run("--mlchaos-budget=6", passed=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "phase"),
    [
        (1, "in the golden run"),
        (2, "in the second golden run"),
        (3, r"resuming from crash state \S+, number 2 of \d+"),
    ],
)
def test_what_ends_an_exploration_from_outside_says_what_it_was_doing(project, first, phase):
    """The phase, its time, and the user's own line, as when pytest-timeout ends the test."""
    outcome = project(f"""
        def impatient(root):
            if len(pathlib.Path(COUNT).read_text()) == {first} - 1:
                pytest.fail("Timeout >1.0s")
            with open(COUNT, "a") as file:
                file.write("x")
            return train(root)

        def test_it(mlchaos, tmp_path, tmp_path_factory):
            global COUNT
            COUNT = str(tmp_path_factory.mktemp("count") / "runs")
            pathlib.Path(COUNT).write_text("")
            mlchaos.explore_crashes(impatient, tmp_path, isolation="in-process").assert_recovers()
    """).run(failed=1)
    assert re.search(
        rf"explore_crashes was {phase}, for \d+\.\d s; .*; the code was at test_it\.py:\d+ in impatient",
        outcome.text,
    )


@pytest.mark.slow
def test_what_exists_before_is_left_out_of_garbage_collections(project):
    """Until the exploration ends, however it ends."""
    project("""
        import gc
        from pytest_mlchaos.errors import GoldenRunFailed
        def test_it(mlchaos, tmp_path):
            def checks(workdir):
                assert gc.get_freeze_count() > 1000
                return train(workdir)
            mlchaos.explore_crashes(checks, tmp_path).assert_recovers()
            assert gc.get_freeze_count() == 0

        def test_that_fails(mlchaos, tmp_path):
            with pytest.raises(GoldenRunFailed):
                mlchaos.explore_crashes(lambda workdir: 1 / 0, tmp_path)
            assert gc.get_freeze_count() == 0
    """).run(passed=2)
