"""Faults of the device, and the judgement on what a step was given. (needs torch)"""

from __future__ import annotations

import os
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pytest_mlchaos import faults, sites
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.errors import BadArgument
from pytest_mlchaos.faults.devices import cuda

faults.load()
sites.load()

MIB = 2**20
LOOP = """
    import torch
    from torch import nn

    X = torch.linspace(-1, 1, 64 * 4).reshape(64, 4).sin()
    Y = X.sum(1, keepdim=True)

    def gradients(model, x, y, parts, scale=1.0):
        for some_x, some_y in zip(x.chunk(parts), y.chunk(parts)):
            (nn.functional.mse_loss(model(some_x), some_y, reduction="sum") / len(x) * scale).backward()

    def loop(attempt, sgd=torch.optim.SGD):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        optimizer = sgd(model.parameters(), lr=0.05)
        for x, y in zip(X.split(16), Y.split(16)):
            optimizer.zero_grad()
            attempt(model, optimizer, x, y)
"""


def armed(*declared, probing=False):
    """A trial with these faults."""
    return trial(Schedule(declared), Patches(), probing=probing)


def mib(count=1):
    """A tensor of so many MiB."""
    return torch.ones(count, 1024, 256)


def remark(controller):
    """Return the remark for a fault that never struck."""
    return controller.scheduled[0].remark


# -- a budget of memory ----------------------------------------------------------------------------


def test_what_does_not_fit_fails_with_torchs_own_error():
    """And says how much was wanted, and how much was alive."""
    with (
        armed(create("gpu_oom", budget="4MiB")) as controller,
        pytest.raises(torch.OutOfMemoryError) as caught,
    ):
        kept = [mib(), mib(), mib()]
        kept[0] + torch.ones(2, 1, 1)
    assert (
        "Tried to allocate 2.00 MiB. GPU 0 has a total capacity of 4.00 MiB of which 1.00 MiB is "
        "free." in str(caught.value)
    )
    assert controller.is_injected(caught.value)
    assert controller.journal[0].details == {
        "operator": "aten.add.Tensor",
        "wanted": "2 MiB",
        "live": "3 MiB of 4 MiB",
    }


def test_a_storage_counts_once_however_many_views_it_has():
    """Until the last of them is gone."""
    with armed(create("gpu_oom", budget="3MiB")) as controller:
        whole = mib(2)
        part = whole[1:].view(-1).detach()
        del whole
        with pytest.raises(torch.OutOfMemoryError):
            mib(2)
        del part
        mib(2)
        assert len(controller.journal) == 1


def test_freed_memory_can_be_used_again():
    """However often."""
    with armed(create("gpu_oom", budget="2MiB")) as controller:
        for _ in range(10):
            mib()
    assert remark(controller) == "the peak was 1 MiB of 2 MiB"


def test_memory_that_autograd_keeps_is_counted_until_backward():
    """Tensors saved for the backward pass are alive without a name."""
    with armed(create("gpu_oom", budget="6MiB")) as controller:
        x = mib().requires_grad_()
        y = x.exp().exp()
        with pytest.raises(torch.OutOfMemoryError):
            mib(4)
        y.sum().backward()
        del y
        mib(4)
    assert len(controller.journal) == 1


def test_what_was_there_before_counts_once_it_is_used():
    """Parameters that a fixture has made, say."""
    model = nn.Linear(512, 512)  # 1 MiB
    with armed(create("gpu_oom", budget="1.5MiB")), pytest.raises(torch.OutOfMemoryError):
        mib(1)
        model(torch.ones(1, 512))
        mib(1)


def test_a_storage_that_grows_counts_with_what_it_has_then():
    """And stays as it was where it cannot grow."""
    with armed(create("gpu_oom", budget="3MiB")):
        grown = torch.empty(MIB // 4)
        grown.resize_(MIB // 2)
        with pytest.raises(torch.OutOfMemoryError):
            grown.resize_(MIB)
        assert grown.untyped_storage().nbytes() == 2 * MIB
        mib()


def test_it_fails_as_often_as_times_says():
    """The retry fails, and the next one does not."""
    with armed(create("gpu_oom", budget="1MiB", times=2)) as controller:
        for _ in range(2):
            with pytest.raises(torch.OutOfMemoryError):
                mib(2)
        mib(2)
    assert len(controller.journal) == 2


def test_memory_in_pieces_has_no_room_for_a_large_tensor():
    """Though the sum of what is free would do; small ones still fit."""
    with (
        armed(create("gpu_oom", budget="8MiB", fragmentation=True)) as controller,
        pytest.raises(torch.OutOfMemoryError) as caught,
    ):
        kept = [mib(), mib()]
        mib(4)
    assert kept
    assert "of which 0.00 MiB is free" in str(caught.value)
    assert "6.00 MiB is reserved by PyTorch but unallocated" in str(caught.value)
    assert controller.journal[0].details["why"] == "fragmented"


def test_a_largest_allocation_can_be_given():
    """Without any budget."""
    with armed(create("gpu_oom", largest="1MiB")), pytest.raises(torch.OutOfMemoryError):
        kept = [mib() for _ in range(20)]
        kept.append(mib(2))


def test_random_numbers_of_what_did_not_fit_are_not_drawn():
    """The operator has not run."""
    with armed(create("gpu_oom", budget="1MiB")):
        before = torch.get_rng_state()
        with pytest.raises(torch.OutOfMemoryError):
            torch.randn(MIB)
        assert torch.equal(torch.get_rng_state(), before)


def test_a_users_mode_may_begin_before_and_end_inside():
    """The device's mode lies beneath: a with statement of the user's pops its own."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Mine(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.seen += 1
            return func(*args, **(kwargs or {}))

    mine = Mine()
    mine.__enter__()
    with armed(create("gpu_oom", budget="1MiB")):
        with pytest.raises(torch.OutOfMemoryError):
            mib(2)
        mine.__exit__(None, None, None)
        seen = mine.seen
        with Mine() as second, pytest.raises(torch.OutOfMemoryError):
            mib(2)
        assert (mine.seen, second.seen > 0) == (seen, True)
    assert torch._C._len_torch_dispatch_stack() == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"budget": "much"},
        {"budget": 0},
        {"budget": "1GiB", "at": 3},
        {"budget": "1GiB", "phase": "forward"},
        {"fragmentation": True},
        {"largest": "-1MiB"},
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(wrong):
    """Naming the fault."""
    with pytest.raises(BadArgument, match="gpu_oom: "):
        create("gpu_oom", **wrong)


def test_a_budget_prints_and_reads_back():
    """The printed text equals the written one."""
    fault = create("gpu_oom", budget="512MiB", times=2, fragmentation=True)
    assert Schedule.parse(repr(fault)).faults == (fault,)


@pytest.mark.slow
def test_a_training_that_fits_fails_its_test_with_the_peak(example):
    """No vacuous pass: how much memory would have been too little."""
    outcome = (
        example.with_tests(
            """
            import torch

            @chaos.gpu_oom(budget="1MiB")
            def test_train():
                torch.ones(1024) + 1
            """
        )
    ).run(fresh=True, failed=1)
    outcome.has("NeverStruck: gpu_oom(budget='1MiB') never struck", "the peak was 8 KiB of 1 MiB")


@pytest.mark.slow
def test_a_run_that_halves_its_batch_recovers_and_its_golden_run_has_all_the_memory(example):
    """The golden run is not disturbed, and a restart has its memory for itself."""
    example.with_file("loop.py", LOOP).with_tests(
        """
        import torch
        from loop import X, Y, gradients, loop

        def train(seen):
            def attempt(model, optimizer, x, y):
                parts = 1
                while True:
                    optimizer.zero_grad()
                    try:
                        hold = torch.ones(16 // parts, 1024)  # 64 KiB for a whole batch
                        gradients(model, x, y, parts)
                        break
                    except torch.OutOfMemoryError:
                        parts *= 2
                seen.append(parts)
                optimizer.step()
            loop(attempt)
            return seen

        @chaos.gpu_oom(budget="60KiB")
        def test_train(mlchaos):
            run = mlchaos.run(train, [])
            assert (run.value, run.golden.value) == ([2] * 4, [1] * 4)
            run.assert_same_effective_batch()
        """
    ).run(fresh=True, passed=1)


@pytest.mark.slow
def test_a_budget_is_there_in_each_example_and_each_trial(example):
    """It may be a user's own property test, or an exploration of other faults. Budgets can be
    drawn, too.
    """
    example.with_tests(
        """
        import pytest, torch
        from hypothesis import given, settings, strategies as st

        @chaos.gpu_oom(budget="1MiB")
        @settings(max_examples=5, deadline=None)
        @given(st.integers(2, 4))
        def test_examples(count):
            with pytest.raises(torch.OutOfMemoryError):
                torch.ones(count, 2**18)

        def train(folder):
            visit("my.site")
            try:
                torch.ones(2, 2**18)
            except torch.OutOfMemoryError:
                return "less"
            return "all"

        @chaos.gpu_oom(budget="1MiB")
        @chaos.crash(site="my.site")
        def test_explored(mlchaos, tmp_path):
            run = mlchaos.run(train, tmp_path)
            assert (run.value, run.golden.value) in [("less", "all"), ("all", "all")]

        @chaos.gpu_oom(budget=chaos.one_of("1MiB", "4MiB"))
        def test_drawn():
            torch.ones(2, 2**18)
        """
    ).run("--tb=short", fresh=True, passed=2, failed=1).has(
        "reproduce: @chaos.gpu_oom(budget='1MiB')"
    )


# -- the effective batch ---------------------------------------------------------------------------

RETRIES = [
    ("optimizer.zero_grad(); gradients(model, x, y, 2)", 8, None),
    ("optimizer.zero_grad(set_to_none=False); gradients(model, x, y, 4)", 8, None),
    (
        "gradients(model, x, y, 2)",
        8,
        "2 of 4 parameters are 2 times as long as in the golden run; gradients of a failed attempt",
    ),
    (
        "optimizer.zero_grad(); gradients(model, x, y, 2, scale=1.5)",
        0,
        "step 2: the scale of the gradient is 1.5 times that of the golden run",
    ),
    (
        "optimizer.zero_grad(); gradients(model, x[:8], y[:8], 1)",
        0,
        "step 2: 8 samples instead of 16: some are missing",
    ),
    (
        "optimizer.zero_grad(); gradients(model, x, y, 1); gradients(model, x[:8], y[:8], 1)",
        0,
        "step 2: 24 samples instead of 16: some are counted twice",
    ),
    (
        "optimizer.zero_grad()",
        8,
        "step 2: no parameters with a gradient where the golden run has 4 parameters with a "
        "gradient",
    ),
    (
        "return",
        0,
        "it took 3 optimizer steps instead of 4: batches were left out, the first at step 2",
    ),
]
RETRY = """
def retry_{number}(model, optimizer, x, y):
    {retry}
    optimizer.step()

@chaos.gpu_oom(at=2, op={op})
def test_{number}(mlchaos):
    mlchaos.run(train, retry_{number}).assert_same_effective_batch()
"""


@pytest.mark.slow
def test_what_a_retry_gets_wrong_is_said_in_words(example):
    """At which step, and what: samples, scale, what was left over, a batch that is left out; a
    batch in parts is the same batch.
    """
    tests = "".join(
        RETRY.format(number=number, retry=retry, op=op)
        for number, (retry, op, _) in enumerate(RETRIES)
    )
    train = """
import torch
from loop import gradients, loop

def train(retry):
    def attempt(model, optimizer, x, y):
        try:
            gradients(model, x, y, 1)
        except torch.OutOfMemoryError:
            return retry(model, optimizer, x, y)
        optimizer.step()
    loop(attempt)
"""
    outcome = (
        example.with_file("loop.py", LOOP)
        .with_tests(train + tests)
        .run("-rA", "--tb=short", fresh=True)
    )
    for number, (retry, _, said) in enumerate(RETRIES):
        if said is None:
            assert f"PASSED test_it.py::test_{number}\n" in outcome.text, retry
        else:
            section = outcome.text.partition(f"_ test_{number} _")[2].partition("mlchaos: failed")[
                0
            ]
            assert "BatchDiffers: the effective batch is not that of the golden run" in section, (
                retry
            )
            assert said in section


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["in-process", "process"])
def test_steps_of_a_restarted_run_are_held_against_the_end_of_the_golden_run(example, isolation):
    """Its last attempt is judged there, in a process of its own, too."""
    example.with_file("loop.py", LOOP).with_file(
        "subject.py",
        """
        import torch
        from loop import gradients, loop

        def train(path, scale):
            done = int(path.read_text()) if path.exists() else 0
            steps = iter(range(4))
            def attempt(model, optimizer, x, y):
                step = next(steps)
                if step >= done:
                    gradients(model, x, y, 1, scale=scale if done else 1.0)
                    optimizer.step()
                    path.write_text(str(step + 1))
            loop(attempt, lambda parameters, lr: torch.optim.SGD(parameters, lr=0))
        """,
    ).with_tests(
        f"""
        import pytest, subject

        @chaos.crash(at=2)
        @pytest.mark.parametrize("scale", [1.0, 0.5])
        def test_train(mlchaos, tmp_path, scale):
            mlchaos.run(subject.train, tmp_path / "done", scale, isolation="{isolation}").assert_same_effective_batch()
        """
    ).run(fresh=True, failed=1, passed=1).has(
        "step 2 of attempt 2: the scale of the gradient is 0.5 times"
    )


# -- retries that fail as well ---------------------------------------------------------------------


def test_the_retry_runs_out_of_memory_too():
    """at=1, times=2 strikes two backward passes in a row."""
    model = nn.Linear(4, 1)
    outcomes = []
    with armed(create("gpu_oom", at=1, times=2)):
        for _ in range(4):
            try:
                model(torch.ones(2, 4)).sum().backward()
                outcomes.append("ok")
            except torch.OutOfMemoryError:
                outcomes.append("oom")
    assert outcomes == ["ok", "oom", "oom", "ok"]


# -- a device that is lost -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("fallen_off_bus", "unspecified launch failure"),
        ("ecc", "uncorrectable ECC error encountered"),
        ("illegal_access", "an illegal memory access was encountered"),
        ("device_assert", "device-side assert triggered"),
    ],
)
def test_a_lost_device_says_what_torch_says(kind, text):
    """The class and the text that code looks for."""
    model = nn.Linear(4, 1)
    with (
        armed(create("gpu_lost", kind=kind, at=0)),
        pytest.raises(torch.AcceleratorError, match=f"^CUDA error: {text}\n"),
    ):
        model(torch.ones(2, 4)).sum().backward()


@pytest.mark.parametrize("phase", ["forward", "backward", "optimizer"])
@pytest.mark.parametrize(
    "again",
    [
        lambda model, optimizer, loss: model(torch.ones(2, 4)),
        lambda model, optimizer, loss: optimizer.step(),
        lambda model, optimizer, loss: loss.item(),
        lambda model, optimizer, loss: loss.detach().cpu(),
        lambda model, optimizer, loss: model.weight.detach().numpy(),
        lambda model, optimizer, loss: model.weight.tolist(),
        lambda model, optimizer, loss: model.state_dict(),
        lambda model, optimizer, loss: torch.save(model.weight, "/dev/null"),
        lambda model, optimizer, loss: nn.Linear(4, 1),
    ],
)
def test_whatever_touches_a_lost_device_fails(phase, again):
    """A retry in the same process does not work, nor does saving what was there; host data is still
    there.
    """
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loss = model(torch.ones(2, 4)).sum()
    model(torch.ones(2, 4)).sum().backward()
    with armed(create("gpu_lost", phase=phase, at=0)) as controller:
        with pytest.raises(torch.AcceleratorError):
            model(torch.ones(2, 4)).sum().backward()
            optimizer.step()
        for _ in range(2):
            with pytest.raises(torch.AcceleratorError) as caught:
                again(model, optimizer, loss)
            assert controller.is_injected(caught.value)
        assert torch.stack([torch.ones(3), torch.zeros(3)]).sum().item() == 3
    assert len(controller.journal) == 1
    assert model(torch.ones(2, 4)).shape == (2, 1)
    assert torch._C._len_torch_dispatch_stack() == 0
    assert "item" not in vars(torch.Tensor)


@pytest.mark.slow
def test_a_lost_device_is_back_for_the_next_process_and_the_golden_run(example):
    """Swallowing the error does not help; being started again does."""
    example.with_file("loop.py", LOOP).with_tests(
        """
        import torch
        from loop import gradients, loop

        tried = []

        def train(patient):
            def attempt(model, optimizer, x, y):
                for again in range(3):
                    try:
                        optimizer.zero_grad()
                        gradients(model, x, y, 1)
                        return optimizer.step()
                    except RuntimeError:
                        tried.append(again)
                        if again == 2:
                            raise
            loop(attempt)
            return "done"

        @chaos.gpu_lost(kind="ecc", at=2)
        def test_train(mlchaos):
            run = mlchaos.run(train, True)
            assert (run.value, run.restarts, tried) == ("done", 1, [0, 1, 2])
            assert "AcceleratorError: CUDA error: uncorrectable ECC" in run.attempts[0].ended
            run.assert_recovered()
        """
    ).run(fresh=True, passed=1)


# -- memory that others take, and devices that are slow --------------------------------------------


@pytest.mark.parametrize(
    "taken", [{"free": "1MiB", "total": "8MiB"}, {"share": 0.875, "total": "8MiB"}]
)
def test_memory_that_somebody_else_takes_is_missing_from_then_on(taken):
    """It is missing until the process ends."""
    model = nn.Linear(4, 1)
    with armed(create("gpu_memory_pressure", at=1, **taken)) as controller:
        model(torch.ones(1, 4))
        mib(4)
        model(torch.ones(1, 4))
        with pytest.raises(
            torch.OutOfMemoryError, match=r"Process 2 has 7\.00 MiB memory in use"
        ) as caught:
            mib(2)
        assert controller.is_injected(caught.value)
        assert controller.journal[0].details == {"free": "1 MiB"}
        controller.restart()
        mib(4)
    assert torch._C._len_torch_dispatch_stack() == 0


def test_what_a_subject_has_before_somebody_comes_is_not_taken_from_what_is_left():
    """Its weights have their place, however little is left for new tensors."""
    model = nn.Linear(512, 512)
    with armed(create("gpu_memory_pressure", at=1, free="500KiB", total="8MiB")):
        for _ in range(4):
            model(torch.ones(1, 512))
        with pytest.raises(torch.OutOfMemoryError):
            mib()


@pytest.mark.parametrize("fault", [{"name": "gpu_oom"}, {"name": "gpu_lost"}])
def test_a_model_in_evaluation_meets_the_faults_of_the_device_too(fault):
    """With the phase that is any call."""
    model = nn.Linear(4, 2).eval()
    with torch.no_grad(), armed(create(fault["name"], phase="call", at=1)):
        model(torch.ones(1, 4))
        with pytest.raises(RuntimeError, match="CUDA"):
            model(torch.ones(1, 4))


def test_gradients_that_float32_cannot_square_are_measured_silently():
    """And their norm is finite."""
    from pytest_mlchaos.runs.torch_steps import _norm

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _norm(torch.full((4,), 1e30)) == pytest.approx(2e30)
        assert _norm(torch.zeros(3)) == 0
        assert _norm(torch.tensor([3e-20, 4e-20])) == pytest.approx(5e-20)


@pytest.mark.slow
@pytest.mark.parametrize(("phase", "steps"), [("forward", 1), ("backward", 1), ("optimizer", 1)])
def test_a_slow_device_takes_its_time_in_the_phase_asked_for(example, phase, steps):
    """On the trial's clock."""
    example.with_file("loop.py", LOOP).with_tests(
        f"""
        from loop import gradients, loop

        def train():
            def attempt(model, optimizer, x, y):
                gradients(model, x, y, 1)
                optimizer.step()
            loop(attempt)

        @chaos.slow_compute(delay="1h", phase="{phase}", at=[1, 2])
        def test_train(mlchaos):
            run = mlchaos.run(train)
            assert 7200 <= run.duration < 7210
            assert run.golden.duration < 10
        """
    ).run(fresh=True, passed=1)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="worlds need Linux")
def test_a_straggler_is_one_rank_alone(example):
    """In a world; a limit of the device's memory holds in each rank, and a rank that is told to end
    may save.
    """
    example.with_file(
        "ranks.py",
        """
        import os, signal, sys, torch
        from pytest_mlchaos import visit

        def train(folder):
            rank = os.environ["RANK"]
            signal.signal(signal.SIGTERM, lambda number, frame: (folder / rank).write_text("saved"))
            model = torch.nn.Linear(2, 1)
            model(torch.ones(1, 2)).sum().backward()
            visit("my.site")
            try:
                torch.ones(2, 2**18)
            except torch.OutOfMemoryError:
                return "too little"
        """,
    ).with_tests(
        """
        import ranks

        @chaos.slow_compute(rank=1, delay=0.05, at=0)
        @chaos.gpu_oom(budget="1MiB")
        @chaos.preempt(site="my.site", at=0, grace=20)
        def test_world(mlchaos, tmp_path):
            world = mlchaos.world(ranks=2).run(ranks.train, tmp_path)
            world.assert_finished()
            assert [rank.value for rank in world.ranks] == ["too little"] * 2
            struck = [[strike.fault.partition("(")[0] for strike in rank.faults] for rank in world.ranks]
            assert struck == [["preempt", "gpu_oom"], ["slow_compute", "preempt", "gpu_oom"]]
            assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]
        """
    ).run(fresh=True, passed=1)


# -- real devices are looked at first --------------------------------------------------------------


class FakeNvml:
    """nvidia-ml-py, as far as it is used."""

    NVML_MEMORY_ERROR_TYPE_UNCORRECTED, NVML_VOLATILE_ECC = 1, 0

    class NVMLError(Exception):
        """The base class of NVML's errors."""

    def __init__(self, processes=(), ecc=(0, 0)):
        self.processes, self.ecc, self.open, self.asked = processes, list(ecc), 0, []

    def nvmlInit(self):
        self.open += 1

    def nvmlShutdown(self):
        self.open -= 1

    def nvmlDeviceGetHandleByIndex(self, number):
        self.asked.append(number)
        return number

    nvmlDeviceGetHandleByUUID = nvmlDeviceGetHandleByIndex

    def nvmlDeviceGetMemoryInfo(self, handle):
        return SimpleNamespace(total=80 * 2**30, free=79 * 2**30)

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        return [SimpleNamespace(pid=pid) for pid in self.processes]

    def nvmlDeviceGetName(self, handle):
        return b"NVIDIA H100"

    def nvmlDeviceGetTotalEccErrors(self, handle, kind, counter):
        if self.ecc[0] is None:
            raise self.NVMLError("not supported")
        return self.ecc.pop(0)


def test_a_device_of_ones_own_may_be_used(monkeypatch):
    """It is looked at before and after; the driver is left again."""
    nvml = FakeNvml(processes=[os.getpid()])
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-abc")
    with cuda.guard_device(1) as device:
        assert (device.name, device.total, device.ecc, device.others) == (
            "NVIDIA H100",
            80 * 2**30,
            0,
            (),
        )
    assert (nvml.open, nvml.asked) == (0, ["GPU-abc", "GPU-abc"])
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(ecc=[None]))
    assert cuda.look().ecc is None


def test_a_device_that_somebody_else_uses_is_refused(monkeypatch):
    """The check comes before the fault does anything."""
    nvml = FakeNvml(processes=[os.getpid(), 1234567])
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    with (
        pytest.raises(
            BadArgument,
            match=r"GPU 0 \(NVIDIA H100\) is used by process 1234567, not only by this test",
        ),
        cuda.guard_device(),
    ):
        pytest.fail("it was used")
    assert nvml.open == 0


def test_a_device_that_loses_memory_meanwhile_gives_no_verdict(monkeypatch):
    """The hardware's fault is not the subject's."""
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(ecc=[1, 3]))
    with (
        pytest.raises(BadArgument, match="2 uncorrectable memory errors during the test"),
        cuda.guard_device(),
    ):
        pass


def test_without_nvidia_ml_py_nothing_real_is_done(monkeypatch):
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(BadArgument, match=r"pytest-mlchaos\[gpu\]"):
        cuda.look()
