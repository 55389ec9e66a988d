"""Jobs that a launcher starts in ranks: they save each step, and go on after a restart."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from unittest import mock

import torch
import torch.distributed as dist

STEPS = 6
SECONDS = 400
"""The time limit for a launcher, on a busy machine."""

FRESH_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
"""Torch 2.13 gives the ranks of a restart the store of the attempt before, and gloo connects to
the addresses of dead ranks. That is so without mlchaos, too.
"""


def train(folder, resumes=True, steps=STEPS):
    """Take steps in the default group. Rank 0 saves.

    With ``resumes=False``, the parameters of the save are taken, but not its step.
    """
    rank = dist.get_rank()
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    saved, begun = Path(folder) / "last.pt", 0
    if saved.exists():
        begun, value = torch.load(saved)
        weight.data.copy_(value)
    for step in range(begun if resumes else 0, steps):
        weight.grad = torch.full((2,), float(step + rank))
        dist.all_reduce(weight.grad)
        optimizer.step()
        if rank == 0:
            torch.save((step + 1, weight.detach()), saved.with_suffix(".tmp"))
            os.replace(saved.with_suffix(".tmp"), saved)
        dist.barrier()


def end_of(folder):
    """Return the state that the job has saved last."""
    step, value = torch.load(Path(folder) / "last.pt")
    return {"step": step, "weight": value}


def command(folder, launcher, script, *args):
    """Run a script under a launcher, as a shell does."""
    path = Path(folder) / "train.py"
    path.write_text(script)
    root = Path(__file__).parents[1]
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    line = [sys.executable, *launcher, str(path), str(folder), *map(str, args)]
    environment = {**os.environ, **FRESH_STORE, "PYTHONPATH": os.pathsep.join(paths)}
    ended = subprocess.run(
        line, env=environment, check=False, capture_output=True, text=True, timeout=SECONDS
    )
    if ended.returncode:
        raise RuntimeError(f"the launcher ended with {ended.returncode}:\n{ended.stderr[-3000:]}")


TORCHRUN = """
import sys
import torch.distributed as dist
from tests.launcher_jobs import train

dist.init_process_group("gloo")
train(sys.argv[1], sys.argv[2] == "True")
dist.destroy_process_group()
"""


def under_torchrun(folder, resumes):
    """Use torch's own launcher, which starts all ranks again."""
    meeting = ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"]
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--max-restarts=1"]
    command(folder, [*launcher, *meeting], TORCHRUN, resumes)
    return end_of(folder)


ACCELERATE = """
import sys
from accelerate import Accelerator
from tests.launcher_jobs import train

accelerator = Accelerator(cpu=True)
assert accelerator.num_processes == 2, accelerator.state
train(sys.argv[1], sys.argv[2] == "True")
accelerator.end_training()
"""


def under_accelerate(folder, resumes):
    """Use ``accelerate launch``."""
    options = ["--multi_gpu", "--num_processes=2", "--num_machines=1", "--mixed_precision=no"]
    options += ["--dynamo_backend=no", "--main_process_port=0", "--max_restarts=1"]
    options += ["--rdzv_backend=c10d"]
    command(folder, ["-m", "accelerate.commands.launch", *options], ACCELERATE, resumes)
    return end_of(folder)


def in_group(rank, folder, resumes, meeting="meet"):
    """Join a group at a file, train, and leave it."""
    method = f"file://{folder}/{meeting}"
    limit = timedelta(seconds=SECONDS)
    dist.init_process_group("gloo", init_method=method, rank=rank, world_size=2, timeout=limit)
    train(folder, resumes)
    dist.destroy_process_group()


def under_spawn(folder, resumes):
    """Let ``torch.multiprocessing`` spawn the ranks, and once more if one dies."""
    for attempt in range(2):
        try:
            torch.multiprocessing.spawn(in_group, (folder, resumes, f"meet-{attempt}"), nprocs=2)
            break
        except torch.multiprocessing.ProcessExitedException:
            if attempt:
                raise
    return end_of(folder)


def in_notebook(folder, resumes):
    """The function that accelerate runs in each process."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == 2, accelerator.state
    train(folder, resumes)
    accelerator.end_training()


def under_notebook_launcher(folder, resumes):
    """Use accelerate's launcher for notebooks, which forks the ranks."""
    from accelerate import notebook_launcher

    with mock.patch.dict(os.environ, FRESH_STORE):
        notebook_launcher(
            in_notebook,
            (folder, resumes),
            num_processes=2,
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            max_restarts=1,
        )
    return end_of(folder)


LIGHTNING = """
import sys
from tests.lightning_job import fit

fit(sys.argv[1], sys.argv[2] == "True", "ddp")
"""


def again_if_it_fails(launch):
    """Start a job once more after a failure, as a scheduler does."""
    try:
        launch()
    except (RuntimeError, torch.multiprocessing.ProcessExitedException):
        launch()


def weights_of(folder):
    """Return the parameters that Lightning has saved last."""
    return torch.load(Path(folder) / "last.ckpt", weights_only=False)["state_dict"]


def under_lightning_ddp(folder, resumes):
    """Let Lightning start the second rank by running the script again."""
    again_if_it_fails(lambda: command(folder, [], LIGHTNING, resumes))
    return weights_of(folder)


def under_lightning_ddp_spawn(folder, resumes):
    """Let Lightning spawn both ranks."""
    from tests.lightning_job import fit

    again_if_it_fails(lambda: fit(folder, resumes, "ddp_spawn"))
    return weights_of(folder)
