"""A process that is told to end: SIGTERM, a grace, and SIGKILL. (needs torch)"""

from __future__ import annotations

import pytest

from pytest_mlchaos import faults, sites
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.errors import BadArgument

faults.load()
sites.load()

SUBJECT = """
import os, signal, sys, time, torch
from torch import nn

def train(folder, on_sigterm=None, steps=12, every=4, look_every=None, at_the_end=None):
    path = folder / "last.pt"
    state = {"step": 0, "told": False}
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def save(pause=0.0, rename=True, name=path):
        temporary = name.with_name(name.name + ".tmp")
        with open(temporary, "wb") as file:
            torch.save({"model": model.state_dict(), "step": state["step"]}, file)
            if pause:
                time.sleep(pause)
        time.sleep(pause)
        if rename:
            os.replace(temporary, name)

    if path.exists():
        found = torch.load(path)
        model.load_state_dict(found["model"])
        state["step"] = found["step"]
    if on_sigterm is not None:
        signal.signal(signal.SIGTERM, lambda number, frame: on_sigterm(save, state))
    while state["step"] < steps:
        x = torch.full((8, 4), float(state["step"]) / steps)
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        state["step"] += 1
        time.sleep(2.0)
        if state["step"] % every == 0:
            save()
        if look_every and state["told"] and state["step"] % look_every == 0:
            save()
            return "left early"
    if at_the_end is not None:
        at_the_end()
    return {name: value.clone() for name, value in model.state_dict().items()}

def saves_and_leaves(save, state):
    save()
    sys.exit(143)

def saves_and_goes_on(save, state):
    save()

def sets_a_flag(save, state):
    state["told"] = True

def saves_slowly(save, state):
    save(pause=20.0)
    sys.exit(143)

def saves_too_slowly(save, state):
    save(pause=40.0)
    sys.exit(143)

def saves_elsewhere(save, state, folder=None):
    with open(folder / "emergency.log", "w") as file:
        file.write("told to end")
    sys.exit(143)

def leaves(save, state):
    sys.exit(143)
"""


@pytest.fixture
def example(example):
    """A project with a subject."""
    return example.with_file("subject.py", SUBJECT)


def written(*cases, isolation="in-process"):
    """One test each: the arguments of preempt, those of the subject, and what is asked of the run."""
    return "import functools, pytest, subject\n" + "".join(
        f"""
@chaos.preempt({fault})
def test_{number}(mlchaos, tmp_path):
    run = mlchaos.run(functools.partial(subject.train, {arguments}), tmp_path, isolation="{isolation}")
    run.assert_recovered()
    {judged}
"""
        for number, (fault, arguments, judged) in enumerate(cases)
    )


SAVED = "run.assert_emergency_save(); assert (run.restarts, run.lost_steps) == (1, 0)"
CASES = [
    ("at=6, grace='30s'", "on_sigterm=subject.saves_and_leaves", SAVED, None),
    (
        "at=6, grace='30s'",
        "on_sigterm=subject.saves_and_goes_on, steps=40, every=100",
        "run.assert_emergency_save()",
        None,
    ),
    ("at=5, grace='30s'", "on_sigterm=subject.sets_a_flag, look_every=2", SAVED, None),
    ("at=5, grace='90s'", "on_sigterm=subject.saves_slowly", SAVED, None),
    (
        "at=4, grace='30s'",
        "",
        "run.assert_emergency_save()",
        None,
    ),  # nothing to lose: a checkpoint was just written
    (
        "at=6, grace='30s'",
        "",
        "run.assert_emergency_save()",
        "no emergency save: the process has no handler for SIGTERM, which ended it at train.step "
        "6: 2 steps had to be done again",
    ),
    (
        "at=6, grace='30s'",
        "on_sigterm=subject.sets_a_flag, every=100, look_every=100, steps=40",
        "run.assert_emergency_save()",
        "no emergency save: no file changed between SIGTERM at train.step 6 and SIGKILL, 30 s "
        "later: ",
    ),
    (
        "at=6, grace='30s'",
        "on_sigterm=subject.saves_too_slowly",
        "run.assert_emergency_save()",
        "the emergency save was cut off: last.pt.tmp was still open for writing at SIGKILL, 30 s "
        "after SIGTERM at train.step 6",
    ),
    (
        "at=6, grace='30s'",
        "on_sigterm=subject.saves_slowly",
        "run.assert_emergency_save()",
        "the emergency save was cut off: last.pt.tmp was written, but not moved to its place "
        "before SIGKILL, 30 s after SIGTERM",
    ),
    (
        "at=6, grace='30s'",
        "on_sigterm=functools.partial(subject.saves_elsewhere, folder=tmp_path)",
        "run.assert_emergency_save()",
        "the emergency save (emergency.log) was not used: 2 steps had to be done again, and 0 were "
        "taken after it",
    ),
    (
        "at=6, grace='30s'",
        "on_sigterm=subject.leaves",
        "run.assert_emergency_save()",
        "no emergency save: no file changed between SIGTERM at train.step 6 and its own end, 0 s "
        "later: 2 steps",
    ),
]


@pytest.mark.slow
def test_what_a_process_does_with_its_grace_is_judged_in_words(example):
    """The report says whether it saved, whether the save is whole, and whether the restart used it."""
    outcome = example.with_tests(written(*(case[:3] for case in CASES))).run(
        "-rA", "--tb=short", fresh=True
    )
    for number, (_, arguments, _, said) in enumerate(CASES):
        if said is None:
            assert f"PASSED test_it.py::test_{number}\n" in outcome.text, (
                number,
                arguments,
                outcome.text,
            )
        else:
            section = outcome.text.partition(f"_ test_{number} _")[2].partition("mlchaos: failed")[
                0
            ]
            assert f"NoEmergencySave: {said}" in section, (said, section)


@pytest.mark.slow
def test_the_same_in_a_process_of_its_own(example):
    """SIGTERM and SIGKILL are real there; the journal, the words and the files are the same."""
    cases = [
        ("at=6, grace='30s'", "on_sigterm=subject.saves_and_leaves", SAVED),
        ("at=6, grace=0.5", "on_sigterm=subject.saves_slowly", "run.assert_emergency_save()"),
        ("at=6, grace='30s'", "", "run.assert_emergency_save()"),
        ("at=5, grace='30s'", "on_sigterm=subject.sets_a_flag, look_every=2", SAVED),
    ]
    slow = SUBJECT.replace("time.sleep(2.0)", "pass").replace(
        "def train(", "unused = None\ndef train("
    )
    tests = written(*cases, isolation="process")
    outcome = (
        example.with_file("subject.py", slow)
        .with_tests(tests)
        .run("-rA", "--tb=short", fresh=True, passed=2, failed=2)
    )
    outcome.has(
        "the emergency save was cut off: last.pt.tmp was still open for writing at SIGKILL, 0.5",
        "attempt 1: 6 steps, then SIGKILL, 0.5 s after SIGTERM at train.step 6",
        "no emergency save: the process has no handler for SIGTERM, which ended it at train.step "
        "6: 2 steps had to be done again",
    )


def test_on_the_real_clock_a_timer_kills(example):
    """In the middle of whatever the process does."""
    example.with_tests(
        """
        import signal, time

        def train(folder):
            if (folder / "told").exists():
                return "again"
            signal.signal(signal.SIGTERM, lambda number, frame: (folder / "told").write_text(""))
            visit("my.site")
            for _ in range(10_000):
                time.sleep(0.01)

        @chaos.preempt(grace=0.2, site="my.site", at=0)
        @chaos.settings(clock="real")
        def test_train(mlchaos, tmp_path):
            run = mlchaos.run(train, tmp_path)
            assert (run.value, run.restarts) == ("again", 1)
            assert run.duration < 20
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        """
    ).run(passed=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("site", "line"),
    [
        ("train.forward", "model(x)"),
        ("model.forward", "model.eval()(x)"),
        ("data.batch", "next(iter(DataLoader([1, 2])))"),
        ("storage.write", "(folder / 'a').write_text('content')"),
        ("my.warmup", "visit('my.warmup')"),
    ],
)
def test_it_strikes_wherever_the_process_is(example, site, line):
    """Its handler's own work passes sites, too; what the handler writes while another file is being
    written as well.
    """
    example.with_tests(
        f"""
        import signal, sys, torch
        from torch import nn
        from torch.utils.data import DataLoader

        model, x = nn.Linear(2, 1), torch.ones(1, 2)

        def train(folder):
            seen = sorted(path.name for path in folder.iterdir())
            def save(number, frame):
                (folder / "emergency").write_text("all there is")
                sys.exit(0)
            signal.signal(signal.SIGTERM, save)
            {line}
            return seen

        @chaos.preempt(site={site!r}, at=0, grace=10)
        @chaos.slow_storage(path="emergency", op="write", delay="1s", at=0)
        def test_train(mlchaos, tmp_path):
            run = mlchaos.run(train, tmp_path)
            assert run.restarts == 1
            assert "emergency" in run.value
            assert 1 <= run.preemptions[0].lasted < 1.5
            assert len(run.faults) == 2
            run.assert_emergency_save()
        """
    ).run(fresh=True, passed=1)


@pytest.mark.slow
def test_dataloader_workers_are_told_to_end_as_well(example):
    """They die of it, and the loader says so to a process that goes on."""
    example.with_file(
        "data.py",
        """
        def item(number):
            return number
        """,
    ).with_tests(
        """
        import signal, time
        from torch.utils.data import DataLoader, Dataset

        class Numbers(Dataset):
            def __len__(self):
                return 64
            def __getitem__(self, number):
                return number

        def train(told):
            signal.signal(signal.SIGTERM, lambda number, frame: told.write_text(""))
            for batch in DataLoader(Numbers(), num_workers=2):
                if told.exists():
                    time.sleep(0.05)
            return "done"

        @chaos.preempt(site="data.batch", at=3, grace=5, workers=True)
        def test_train(mlchaos, tmp_path):
            run = mlchaos.run(train, tmp_path / "told")
            assert run.value == "done"
            assert run.restarts == 1
            assert "DataLoader worker" in run.attempts[0].ended
            assert run.faults[0].details["workers"] == 2
        """
    ).run(fresh=True, passed=1)


def test_a_handler_that_raises_ends_a_plain_test_as_it_would_the_process(example):
    """Without mlchaos.run no restart follows: the test fails with the handler's error, and the kill
    says what to do.
    """
    outcome = example.with_tests(
        """
        import signal, time

        class Preempted(Exception):
            pass

        def leave(number, frame):
            raise Preempted("told to end")

        @chaos.preempt(site="my.site", at=0)
        def test_raises():
            signal.signal(signal.SIGTERM, leave)
            visit("my.site")

        @chaos.preempt(site="my.site", at=0, grace=5)
        def test_goes_on():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            visit("my.site")
            time.sleep(4)
            time.sleep(4)
            assert False, "dead by now"
        """
    ).run(failed=2)
    outcome.has(
        "Preempted: told to end", "CrashNotRestarted: SIGKILL, 5 s after SIGTERM at my.site 0"
    )


@pytest.mark.parametrize("wrong", [{"grace": "soon"}, {"grace": -1}, {"workers": 2}])
def test_bad_parameters_are_refused(wrong):
    """Naming the fault."""
    with pytest.raises(BadArgument, match="preempt"):
        create("preempt", **wrong)


def test_a_run_that_something_else_restarted_too_is_judged_by_its_files(example):
    """Whose steps were done again cannot be told; a run without any preemption passes, as the trial
    without faults has to.
    """
    example.with_tests(
        """
        import pytest, signal
        from pytest_mlchaos.errors import NoEmergencySave

        def train(path=None):
            if path is not None:
                signal.signal(signal.SIGTERM, lambda number, frame: path.write_text("saved"))
            visit("my.site")

        @chaos.crash(site="my.site", at=0)
        def test_none(mlchaos):
            mlchaos.run(train).assert_emergency_save()

        @chaos.crash(site="my.site", at=0)
        @chaos.preempt(site="my.site", at=1)
        def test_saved(mlchaos, tmp_path):
            mlchaos.run(train, tmp_path / "a").assert_emergency_save()

        @chaos.crash(site="my.site", at=0)
        @chaos.preempt(site="my.site", at=1)
        def test_two(mlchaos):
            with pytest.raises(NoEmergencySave, match="has no handler for SIGTERM, which ended it at my.site 1"):
                mlchaos.run(train).assert_emergency_save()
        """
    ).run(passed=3)


@pytest.mark.slow
def test_a_second_sigterm_does_not_prolong_the_grace(example):
    """Some schedulers tell a process more than once."""
    example.with_tests(
        """
        import signal, time

        def train(path):
            if path.exists():
                return path.read_text()
            told = []
            signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
            start = time.monotonic()
            while True:
                visit("my.site")
                path.write_text(f"{len(told)} signals, {time.monotonic() - start:.0f} s")
                time.sleep(2)

        @chaos.preempt(site="my.site", at=[1, 3], grace=7)
        def test_train(mlchaos, tmp_path):
            run = mlchaos.run(train, tmp_path / "told")
            assert (run.value, run.restarts) == ("2 signals, 8 s", 1)
            assert round(run.preemptions[0].lasted, 3) == 7
        """
    ).run(passed=1)


@pytest.mark.slow
def test_a_bare_preempt_strikes_between_the_step_and_its_counter(example):
    """A handler that saves behind optimizer.step(), before the step is counted, saves weights of a
    later step.
    """
    outcome = example.with_tests(
        """
        import os, signal, sys, torch

        def train(folder):
            torch.manual_seed(0)
            model, at = torch.nn.Linear(2, 1), {"step": 0}
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            path = folder / "last.pt"
            if path.exists():
                saved = torch.load(path)
                model.load_state_dict(saved["model"])
                at["step"] = saved["step"]

            def save(*_):
                torch.save({"model": model.state_dict(), "step": at["step"]}, folder / "tmp")
                os.replace(folder / "tmp", path)
                sys.exit(0)

            signal.signal(signal.SIGTERM, save)
            while at["step"] < 2:
                optimizer.zero_grad()
                (model(torch.ones(1, 2)) - 1).square().sum().backward()
                optimizer.step()
                at["step"] += 1
            return model.state_dict()

        @chaos.preempt
        def test_bare(mlchaos, tmp_path):
            mlchaos.run(train, tmp_path).assert_recovered()

        @chaos.preempt(site="train.step")
        def test_site(mlchaos, tmp_path):
            mlchaos.run(train, tmp_path).assert_recovered()

        @chaos.preempt(site="train.step", at=chaos.one_of(0, 1))
        def test_pinned_to_the_front(mlchaos, tmp_path):
            mlchaos.run(train, tmp_path).assert_recovered()
        """
    ).run(failed=2, passed=1)
    assert outcome.text.count("reproduce: @chaos.preempt(site='train.step.end', at=0)") == 2
