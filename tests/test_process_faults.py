"""Faults of the process and of those that it has: signals, DataLoader workers, clocks. (needs
torch)
"""

from __future__ import annotations

import pytest

from pytest_mlchaos import faults, sites
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.errors import BadArgument

faults.load()
sites.load()


# -- SIGINT ----------------------------------------------------------------------------------------


def test_an_interrupted_subject_is_started_again(example):
    """KeyboardInterrupt at the site; what the subject does about it counts."""
    example.with_tests(
        """
        def train(folder):
            done = folder / "done"
            try:
                for step in range(int(done.read_text()) if done.exists() else 0, 5):
                    visit("my.step")
                    done.write_text(str(step + 1))
            except KeyboardInterrupt:
                (folder / "interrupted").write_text("")
                raise
            return (folder / "interrupted").exists()

        @chaos.interrupt(site="my.step", at=2)
        def test_train(mlchaos, tmp_path):
            run = mlchaos.run(train, tmp_path)
            assert (run.value, run.restarts) == (True, 1)
            assert run.attempts[0].ended == "the process ended with KeyboardInterrupt"
        """
    ).run(passed=1)


@pytest.mark.slow
def test_a_handler_of_the_users_runs_instead(example):
    """And the subject goes on; afterwards Ctrl-C is what it was."""
    example.with_tests(
        """
        import signal

        def train(told):
            signal.signal(signal.SIGINT, lambda number, frame: told.append(number))
            visit("my.step")
            return told

        @chaos.interrupt(site="my.step", at=0)
        def test_train(mlchaos):
            run = mlchaos.run(train, [])
            assert (run.value, run.restarts) == ([signal.SIGINT], 0)

        def test_afterwards():
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        """
    ).run(passed=2)


@pytest.mark.slow
def test_an_interrupt_arrives_where_a_shell_has_it_ignored(example):
    """Shells ignore SIGINT in background jobs, also on CI systems."""
    example.with_tests(
        """
        import pytest, signal

        @chaos.interrupt(site="my.step", at=0)
        def test_it():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            with pytest.raises(KeyboardInterrupt):
                visit("my.step")
        """
    ).run(passed=1)


@pytest.mark.slow
def test_an_interrupt_that_leaves_a_test_fails_it_and_no_other(example):
    """The session goes on; a Ctrl-C of the user's ends it."""
    tests = """
        import signal

        @chaos.interrupt(site="my.step", at=0)
        def test_plain():
            visit("my.step")

        @chaos.interrupt(site="my.step", at=0)
        def test_handled():
            try:
                visit("my.step")
            except KeyboardInterrupt:
                pass

        def test_other():
            pass
    """
    outcome = example.with_tests(tests).run(failed=1, passed=2)
    outcome.has(
        "Interrupted: KeyboardInterrupt (injected by mlchaos) left the test",
        "struck: interrupt(site='my.step', at=0) at my.step 0",
    )
    real = tests.replace(
        "try:",
        "visit('my.step') if False else signal.raise_signal(signal.SIGINT)\n            try:",
    )
    assert example.with_tests(real).run(fresh=True).exit_code == 2


@pytest.mark.slow
def test_an_interrupt_in_a_process_of_its_own(example):
    """Ends it, and it is started again."""
    example.with_file(
        "subject.py",
        """
        from pytest_mlchaos import visit

        def train(path):
            visit("my.step")
            return "done"
        """,
    ).with_tests(
        """
        import subject

        @chaos.interrupt(site="my.step", at=0)
        def test_train(mlchaos, tmp_path):
            run = mlchaos.run(subject.train, tmp_path, isolation="process")
            assert (run.value, run.restarts) == ("done", 1)
        """
    ).run(passed=1, fresh=True)


# -- crashes in a row ------------------------------------------------------------------------------


def test_a_crash_may_come_again_during_recovery(example):
    """at=3, times=2: the restart dies at the next visit as well."""
    example.with_tests(
        """
        def train(path):
            for step in range(int(path.read_text()) if path.exists() else 0, 6):
                visit("my.step")
                path.write_text(str(step + 1))
            return step

        @chaos.crash(site="my.step", at=3, times=2)
        def test_train(mlchaos, tmp_path):
            run = mlchaos.run(train, tmp_path / "steps")
            assert (run.value, run.restarts) == (5, 2)
            assert [strike.visit for strike in run.faults] == [3, 4]
        """
    ).run(passed=1)


# -- DataLoader workers ----------------------------------------------------------------------------

LOADER = """
    import os, pytest, time
    from torch.utils.data import DataLoader, Dataset

    class Numbers(Dataset):
        def __len__(self):
            return 32
        def __getitem__(self, number):
            return number

    def seen(workers=2, **keywords):
        return [number for batch in DataLoader(Numbers(), 4, num_workers=workers, **keywords) for number in batch.tolist()]
"""


@pytest.mark.slow
def test_a_worker_is_really_killed(example):
    """The loader raises; the subject is started again, with workers of its own; another may be
    searched for.
    """
    example.with_file("data.py", LOADER).with_tests(
        """
        import pytest
        from data import DataLoader, Numbers, seen

        @chaos.worker_death(worker=1, at=2)
        def test_restarted(mlchaos):
            run = mlchaos.run(seen)
            assert (run.value, run.restarts) == (list(range(32)), 1)
            assert "DataLoader worker (pid" in run.attempts[0].ended
            assert run.faults[0].details == {"worker": 1, "workers": 2, "how": "killed"}

        @chaos.worker_death(worker=0, at=0)
        def test_plain():
            with pytest.raises(RuntimeError, match="is killed by signal: Killed"):
                seen()

        @chaos.worker_death
        @chaos.settings(max_trials=4)
        def test_searched(mlchaos):
            assert mlchaos.run(seen).value == list(range(32))
        """
    ).run(fresh=True, passed=3)


@pytest.mark.slow
def test_a_death_is_heard_of_whatever_ran_before_in_this_process(example):
    """A trainer that puts back the handlers of all signals at its end leaves torch's loaders deaf:
    not those of a new process.
    """
    example.with_tests(
        """
        import signal
        import pytest, torch
        from torch.utils.data import DataLoader

        def train(folder=None):
            before = signal.getsignal(signal.SIGCHLD)
            try:
                return [int(batch[0]) for batch in DataLoader(torch.arange(4), 1, num_workers=1, prefetch_factor=4)]
            finally:
                signal.signal(signal.SIGCHLD, before)

        def test_before():
            assert train() == [0, 1, 2, 3]

        @chaos.worker_death(at=2)
        def test_death(mlchaos):
            with pytest.raises(RuntimeError, match="is killed by signal"):
                train()

        @chaos.worker_death(at=2, times=2)
        def test_deaths(mlchaos, tmp_path):
            run = mlchaos.run(train, tmp_path)
            assert run.value == [0, 1, 2, 3] and run.restarts == 2
            assert all("is killed by signal" in attempt.ended for attempt in run.attempts[:2])
        """
    ).run(fresh=True, passed=3)


@pytest.mark.slow
def test_forked_and_spawned_workers_are_struck(example):
    """A worker that is a new interpreter is armed as it starts."""
    example.with_tests(
        """
        import pytest, torch
        from torch.utils.data import DataLoader

        def load(place):
            return torch.tensor(place)

        class Items:
            def __len__(self):
                return 2
            def __getitem__(self, place):
                return load(place)

        @pytest.mark.parametrize("method", ["fork", "spawn"])
        @chaos.call_failure(target="test_it:load", at=0)
        def test_load(mlchaos, method):
            try:
                list(DataLoader(Items(), num_workers=1, multiprocessing_context=method))
            except RuntimeError as error:
                assert "injected" in str(error)
        """
    ).run(fresh=True, passed=2)


@pytest.mark.slow
def test_a_worker_that_hangs_is_found_by_a_timeout_alone(example):
    """And is not left behind."""
    example.with_file("data.py", LOADER).with_tests(
        """
        import os, pytest
        from data import DataLoader, Numbers, seen

        def remember(number):
            print(number)

        pids = []

        @chaos.worker_death(worker=0, at=1, how="hangs")
        def test_timeout(mlchaos):
            def train():
                iterator = iter(DataLoader(Numbers(), 4, num_workers=2, timeout=1))
                pids.extend(worker.pid for worker in iterator._workers)
                return len(list(iterator))
            run = mlchaos.run(train)
            assert (run.value, run.restarts) == (8, 1)
            assert "DataLoader timed out after" in run.attempts[0].ended

        def test_afterwards():
            for pid in pids:
                try:
                    status = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0]
                except OSError:
                    continue
                assert status == "Z"

        @chaos.worker_death(worker=0, at=1, how="hangs")
        @chaos.settings(timeout=3)
        def test_for_ever():
            seen()
        """
    ).run(fresh=True, passed=2, failed=1).has("TrialTimeout: the trial took longer than 3 s")


@pytest.mark.slow
def test_a_loader_without_such_a_worker_is_told(example):
    """No silent pass."""
    outcome = (
        example.with_file("data.py", LOADER)
        .with_tests(
            """
        from data import seen

        @chaos.worker_death(at=1)
        def test_none():
            seen(workers=0)

        @chaos.worker_death(at=1, worker=2)
        def test_too_few():
            seen()

        @chaos.worker_death(at=1)
        def test_other(mlchaos):
            list(mlchaos.batches([1, 2, 3]))
        """
        )
        .run(fresh=True, failed=3)
    )
    outcome.has(
        "PayloadMismatch: worker_death: found no worker 0: the batch (Tensor) comes from a "
        "DataLoader in this process alone",
        "PayloadMismatch: worker_death: found no worker 2: the batch (Tensor) comes from a "
        "DataLoader with 2 workers",
        "PayloadMismatch: worker_death: found no worker 0: the batch (int) comes from an iterable "
        "that is not a torch DataLoader",
    )


# -- clocks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("clock", ["virtual", "real"])
def test_the_wall_clock_jumps_and_the_monotonic_clock_does_not(example, clock):
    """Under every name, until the process ends; values are of the usual types."""
    example.with_file(
        "subject.py",
        """
        import datetime as dt, pickle, time
        from datetime import date, datetime
        from time import time as now
        from pytest_mlchaos import visit

        def read():
            aware = dt.datetime.now(dt.timezone.utc)
            assert type(aware) is type(datetime(2020, 1, 1)) is type(datetime.fromtimestamp(0)) is type(datetime.strptime("2020", "%Y"))
            assert isinstance(aware, datetime) and isinstance(aware, date) and not isinstance(date(2020, 1, 1), datetime)
            assert pickle.loads(pickle.dumps(aware)) == aware
            return {
                "time": now(),
                "time_ns": time.time_ns() / 1e9,
                "aware": aware.timestamp(),
                "naive": datetime.now().timestamp(),
                "today": datetime.today().timestamp(),
                "localtime": time.mktime(time.localtime()),
                "gmtime": __import__("calendar").timegm(time.gmtime()),
                "ctime": time.mktime(time.strptime(time.ctime())),
                "strftime": time.mktime(time.strptime(time.strftime("%Y-%m-%d %H:%M:%S"), "%Y-%m-%d %H:%M:%S")),
            }, date.today(), time.monotonic()

        def train(seen):
            before = read()
            visit("my.step")
            seen.append((before, read()))
            visit("my.end")
            return seen
        """,
    ).with_tests(
        f"""
        import datetime, subject
        from datetime import datetime as kept

        seen = []

        @chaos.clock_jump(by="-50h", site="my.step", at=0)
        @chaos.crash(site="my.end", at=0)
        @chaos.settings(clock="{clock}")
        def test_train(mlchaos):
            assert mlchaos.run(lambda: subject.train(seen)).restarts == 1
            (before, day, start), (after, later, end) = seen[0]
            for name in before:
                assert -50 * 3600 - 2 < after[name] - before[name] < -50 * 3600 + 30, name
            assert 1 <= (day - later).days <= 3
            assert 0 <= end - start < 30
            (before, _, _), (after, _, _) = seen[1]
            for name in before:
                assert abs(after[name] - before[name]) < 30, name

        def test_afterwards():
            assert type(vars(datetime.datetime)["now"]).__name__ == type(vars(dict)["fromkeys"]).__name__ == "classmethod_descriptor"
            assert subject.now is subject.time.time
        """
    ).run(passed=2)


# -- memory of the host ----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_subject_that_does_not_cope_with_memory_errors_is_started_again(example):
    """At the batch; the run goes on."""
    example.with_tests(
        """
        @chaos.host_oom(at=2)
        def test_train(mlchaos):
            def train():
                return sum(mlchaos.batches([1, 2, 3]))
            run = mlchaos.run(train)
            assert (run.value, run.restarts) == (6, 1)
            assert run.attempts[0].ended.startswith("the process ended with MemoryError: out of memory at data.batch 2")
        """
    ).run(passed=1)


@pytest.mark.slow
def test_a_limit_of_memory_is_real_in_a_process_of_its_own(example):
    """An allocation beyond the limit gets a MemoryError. The golden run has no limit. In process it
    is refused.
    """
    outcome = (
        example.with_file(
            "subject.py",
            """
            def train(path):
                try:
                    held = bytearray(16 << 30)
                except MemoryError:
                    path.write_text("small")
                    held = bytearray(1 << 20)
                return len(held) < 2 << 20

            def careless(path):
                if path.exists():
                    return "second"
                path.write_text("first")
                return len(bytearray(16 << 30))
            """,
        )
        .with_tests(
            """
            import subject

            @chaos.host_oom(limit="12GiB")
            def test_copes(mlchaos, tmp_path):
                run = mlchaos.run(subject.train, tmp_path / "size", isolation="process")
                assert run.value is True
                assert run.faults[0].details == {"limit": "12 GiB"}

            @chaos.host_oom(limit="12GiB")
            def test_careless(mlchaos, tmp_path):
                run = mlchaos.run(subject.careless, tmp_path / "size", isolation="process")
                assert (run.value, run.restarts) == ("second", 1)
                assert "MemoryError" in run.attempts[0].ended

            @chaos.host_oom(limit="12GiB")
            def test_here(mlchaos, tmp_path):
                mlchaos.run(subject.train, tmp_path / "size")

            @chaos.host_oom(limit="1MiB")
            def test_too_little(mlchaos, tmp_path):
                mlchaos.run(subject.train, tmp_path / "size", isolation="process")
            """
        )
        .run(fresh=True, passed=2, failed=2)
    )
    outcome.has(
        "host_oom(limit='12GiB') limits a whole process, which must be the subject's own. Use "
        'mlchaos.run(..., isolation="process")',
        "of address space when it begins, so limit=1 MiB is too small",
    )


# -- a process that gets little of the CPU ---------------------------------------------------------


@pytest.mark.slow
def test_a_starved_process_waits_for_what_it_used(example):
    """On the trial's clock; one CPU and one thread while it lasts, and all of them again
    afterwards.
    """
    example.with_tests(
        """
        import os, time, torch

        def work(seconds):
            until = time.process_time() + seconds
            while time.process_time() < until:
                pass

        def train():
            start, times = time.monotonic(), []
            for step in range(4):
                work(0.05)
                visit("my.step")
                times.append((time.monotonic() - start, len(os.sched_getaffinity(0)), torch.get_num_threads()))
                start = time.monotonic()
            return times

        before = os.sched_getaffinity(0), torch.get_num_threads()

        @chaos.cpu_starved(share=0.1, site="my.step", at=1)
        def test_train(mlchaos):
            start = time.perf_counter()
            run = mlchaos.run(train)
            (first, *_), (second, *_), (third, cpus, threads), (fourth, *_) = run.value
            assert first < 0.01 and 0.04 < second < 0.06
            assert 0.44 < third < 2 and 0.44 < fourth < 2
            assert (cpus, threads) == (1, 1)
            assert (os.sched_getaffinity(0), torch.get_num_threads()) == before
            assert run.golden.value[2][1:] == (len(before[0]), before[1])
        """
    ).run(passed=1, fresh=True)


@pytest.mark.parametrize(
    ("name", "wrong"), [("worker_death", {"worker": -1}), ("worker_death", {"how": "sleeps"})]
)
def test_bad_parameters_are_refused(name, wrong):
    """Naming the fault."""
    with pytest.raises(BadArgument, match=name):
        create(name, **wrong)
