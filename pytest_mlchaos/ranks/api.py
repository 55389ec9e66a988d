"""Implement ``mlchaos.world``: run a subject in several ranks, which are real processes.

1. ``world.py`` runs one attempt after the other, and the golden run when an assertion needs it.
2. ``attempt.py`` asks the fork server for an agent, reads the messages of the ranks, and decides
   when to stop waiting.
3. ``agent.py`` is that process. It forks the ranks, hosts their store, and ends all processes.
4. ``rank.py`` runs the subject with a controller of its own. ``process_groups.py`` adapts
   ``torch.distributed`` there.
5. ``rank_view.py`` keeps what the parent knows about a rank. The controller takes this over in the
   order of the ranks.
6. ``verdicts.py`` has the result, and ``judgements/`` its assertions. ``world_diagnosis.py``
   compares the traces of ranks that ended in different states.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

# Imported by name, so that a virtual clock of the test's code does not reach it.
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..core.faults import FAULTS
from ..core.records import WorldRecord
from ..core.validation import (
    FLAG,
    PATTERNS,
    TOLERANCE,
    check_arguments,
    format_value,
    index,
    optional,
    parse_duration,
)
from ..engine.controller import Controller
from ..engine.fresh_starts import site_modules
from ..engine.user_code import take_subject
from ..errors import BadArgument, MissingExtra, MlchaosError
from ..processes.fork_server import ForkServer
from ..runs.torch_trace import traced_steps
from ..runs.workdirs import WorkDirs
from ..sites import torch_train
from .agent import ENTRY, PREPARE
from .elastic.node_agent import LIBRARIES as ELASTIC_LIBRARIES
from .elastic.options import check_nodes
from .launcher import Launcher
from .rank import OF_RANKS, REREAD
from .verdicts import WorldRun
from .world import RankOptions, WorldSupervisor

if TYPE_CHECKING:
    from ..crashes.report import CrashReport

__all__ = ["World"]

Explore = Callable[..., "CrashReport"]
"""Explores crash states by worlds that a function starts. The area of crash states has it."""
UNDISTURBED = ("mlchaos.explore_crashes",)
"""The methods whose subjects may run a world. No fault strikes in them, and no visits are counted.
"""
_INVERSE_TRACE_SHARE = 4
"""One traced run of a world may take a quarter of the trial's remaining time.

A diagnosis may need two traced runs.
"""
MAX_RANKS = 60
"""The largest number of ranks.

Linux sends at most 253 file descriptors in one message, and each rank needs ``PIPES_PER_RANK``.
"""
# DistributedDataParallel imports torch._dynamo when one is made, which takes a second.
_LIBRARIES = (
    "torch",
    "torch.distributed",
    "torch.nn.parallel",
    "torch.utils.data",
    "torch._dynamo",
    *ELASTIC_LIBRARIES,
    "cloudpickle",
    "pytest",
    "hypothesis",
)


_IMPORT_READS = ("TORCH", "PYTORCH", "ATEN_", "OMP_", "GOMP_", "KMP_", "MKL_", "DNNL_", "ONEDNN_")
"""The prefixes of variables that torch and its native libraries read at import."""


@functools.cache
def _server() -> ForkServer:
    """Return the fork server of this session."""
    # Ranks import all of these. A module that the warm process lacks costs each rank its import.
    modules = {*site_modules(), *(cls.__module__ for cls in FAULTS.values())}
    package = __name__.partition(".")[0]
    return ForkServer(
        [*_LIBRARIES, __name__, *sorted(name for name in modules if name.startswith(package))],
        ENTRY,
        _IMPORT_READS,
        REREAD,
        PREPARE,
        OF_RANKS,
    )


class World:
    """Ranks that run a subject. Each ``run`` starts new ones."""

    def __init__(
        self,
        controller: Callable[[], Controller],
        begun: Callable[[str], Callable[[WorldRun], WorldRun]],
        scratch: Path,
        workdirs: Callable[[], Iterable[Path]],
        *,
        ranks: int,
        backend: str,
        restarts: int,
        timeout: Any,
        grace: Any,
        explore: Explore | None = None,
        elastic: bool = False,
        min_ranks: int | None = None,
        nodes: int | None = None,
        owner: str = "mlchaos.world",
    ) -> None:
        if not index(ranks) or ranks > MAX_RANKS:
            raise BadArgument(
                f"{owner}: ranks must be a number from 1 to {MAX_RANKS}, got {format_value(ranks)}"
            )
        if index(restarts) is None:
            raise BadArgument(f"{owner}: restarts must be 0 or more, got {format_value(restarts)}")
        if backend not in ("gloo", "nccl"):
            raise BadArgument(
                f"{owner}: backend must be 'gloo' or 'nccl', got {format_value(backend)}"
            )
        seconds = {
            "timeout": parse_duration(timeout, "timeout"),
            "grace": parse_duration(grace, "grace"),
        }
        if not seconds["timeout"]:
            raise BadArgument(f"{owner}: timeout must be positive, got {format_value(timeout)}")
        if importlib.util.find_spec("torch") is None:
            raise MissingExtra("mlchaos.world", "torch", "torch")
        _check_devices(backend, ranks)
        self._options = RankOptions(
            ranks=ranks,
            backend=backend,
            restarts=restarts,
            nodes=check_nodes(
                owner,
                ranks=ranks,
                elastic=elastic,
                min_ranks=min_ranks,
                nodes=nodes,
                restarts=restarts,
                timeout=seconds["timeout"],
            ),
            **seconds,
        )
        self._controller = controller
        self._begun = begun
        self._scratch = scratch
        self._workdirs = workdirs
        self._explore = explore

    def __repr__(self) -> str:
        return f"<World of {self._options.ranks} ranks, {self._options.backend}>"

    def run(self, subject: Callable[..., Any], *args: Any) -> WorldRun:
        """Run ``subject(*args)`` in every rank, as torchrun would, and wait until all have ended.

        A rank that fails raises nothing here: judge the ``WorldRun``. The subject of
        ``mlchaos.explore_crashes`` may run a world. A crash then ends all its ranks at once, and no
        fault strikes there.

        Raises:
            BadArgument: An object cannot be sent to a process.
        """
        take_subject(subject)
        controller, watch = self._controller(), torch_train.trained_parameters
        part = controller.subject_of("mlchaos.world", within=UNDISTURBED)
        hand_over = self._begun(part.outer)
        with part:
            with controller.without_faults():  # a call by the tool itself does not count as a visit
                disk = (
                    WorkDirs((), self._scratch)
                    if part.outer
                    else WorkDirs.of(subject, args, self._scratch, self._workdirs())
                )
            supervisor = WorldSupervisor(
                _server(), controller, self._options, subject, args, disk, watch
            )
            # Without faults, a world is its own golden run.
            record = supervisor.run()
            if part.outer:
                return hand_over(WorldRun(record))
            return hand_over(
                WorldRun(
                    record,
                    lambda fresh: WorldRun(supervisor.golden(fresh=fresh)),
                    _traced(controller, supervisor, record),
                    lambda: supervisor.check_undisturbed(_most(controller)),
                )
            )

    @check_arguments(
        "world.explore_crashes",
        torn_writes=FLAG,
        exhaustive=FLAG,
        cross_device=FLAG,
        rtol=TOLERANCE,
        atol=TOLERANCE,
        compare=optional(PATTERNS),
    )
    def explore_crashes(
        self,
        subject: Callable[..., Any],
        workdir: Any,
        *args: Any,
        resume_ranks: int | None = None,
        torn_writes: bool = True,
        durability: str = "process",
        budget: float | str | None = None,
        max_states: int | None = None,
        require_all: bool | None = None,
        exhaustive: bool = False,
        cross_device: bool = False,
        depth: int = 1,
        jobs: int | str = 1,
        timeout: float | str | None = None,
        rtol: float = 0.0,
        atol: float = 0.0,
        compare: str | Sequence[str] | None = None,
        **unsupported: Any,
    ) -> CrashReport:
        """Resume a world of ``subject(workdir, *args)`` from every crash state of ``workdir``.

        All ranks work in this directory. One golden world is recorded, in each of its ranks. From
        its changes follow the states in which one rank has died, and the others have gone on to
        where they wait for it. States in which all ranks have died at once are tried, too. What a
        wait excludes is not tried: if rank 1 writes after a barrier, each state with this file also
        has what rank 0 wrote before the barrier.

        Args:
            subject: The function that each rank runs.
            workdir: A directory below ``tmp_path``, or an empty one. It is emptied and refilled.
            *args: Further arguments of the subject.
            resume_ranks: The number of ranks of the resumed worlds. Without it, as many as before.
            torn_writes: If true, also try files cut where a kill can cut them unseen.
            durability: ``"process"``, or ``"power"``: also lose what no ``fsync`` has written back.
            budget: Start no further world after this time. A text like ``"5m"``, or seconds.
            max_states: The largest number of states to try.
            require_all: If true, the assertions also fail if a budget left out a state.
            exhaustive: If true, also try states in which all ranks have died at once, with one of
                them ahead of the others by any number of changes.
            cross_device: If true, moves into ``workdir`` from outside fail with ``EXDEV``.
            depth: The number of crashes in a row. The first ones also strike a world that resumes.
            jobs: The number of worlds that run at a time, each in a directory of its own. ``"auto"``
                uses the processors if that gains time.
            timeout: The time limit for one world.
            rtol: Returned values may differ by ``atol + rtol * abs(expected)``.
            atol: See ``rtol``.
            compare: Patterns of the files to compare if the ranks return nothing and train nothing.
            **unsupported: Keywords of ``mlchaos.explore_crashes`` that worlds do not have. They
                raise ``BadArgument`` with the reason.

        Returns:
            A ``CrashReport``, as of ``mlchaos.explore_crashes``.

        Raises:
            BadArgument: An argument is wrong, or the ranks write nothing there.
            GoldenRunFailed: A rank fails without a crash.
            NonDeterministicSubject: Two worlds without a crash differ.

        Imitates: SIGKILL or the kernel's OOM killer in one rank, preempted and failing nodes.

        Fidelity: a rank that lives stops in the collective, and does nothing about the dead one
        (no handler, no emergency save). A rank waits for others in collectives and messages, in
        ``init_process_group`` and ``new_group``, for values of a store and results of RPC, or by
        looking at their files. If it waits in a different way, for example for a file outside
        ``workdir`` or a message on a socket of its own, states may be tried that cannot occur. With
        gloo, the sender of a message and the root of a broadcast wait for the receivers. With NCCL
        they may go on, which is not tried. The threads of a rank keep the order that was seen.

        Source: consistent cuts of events in a distributed system (Chandy and Lamport, 1985).
        """
        if self._explore is None:
            raise MlchaosError("this world was not made by mlchaos.world")
        _refuse(unsupported)
        if resume_ranks is not None and not index(resume_ranks):
            raise BadArgument(
                f"world.explore_crashes: resume_ranks must be 1 or more, got "
                f"{format_value(resume_ranks)}"
            )
        options = {
            "resume_ranks": resume_ranks,
            "torn_writes": torn_writes,
            "durability": durability,
            "budget": budget,
            "max_states": max_states,
            "require_all": require_all,
            "exhaustive": exhaustive,
            "cross_device": cross_device,
            "depth": depth,
            "jobs": jobs,
            "timeout": timeout,
            "rtol": rtol,
            "atol": atol,
            "compare": compare,
        }
        launcher = Launcher(_server(), self._controller, self._options, self._scratch)
        return self._explore(launcher, self._options.ranks, subject, workdir, args, options)


_UNSUPPORTED: Mapping[str, tuple[str, tuple[object, ...]]] = {
    "horizon": (
        "a world runs to its end, because its ranks cannot all stop after the same step",
        (None,),
    ),
    "isolation": ("each rank is a new process", ("auto", "process")),
    "record": ("each rank records its own changes, without strace", ("auto",)),
    "storage_options": ("the ranks share a local directory", (None,)),
    "allow_remote": ("the ranks share a local directory", (False,)),
}
"""The keywords of ``mlchaos.explore_crashes`` that worlds do not have. Each has the reason, and the
values that say the same."""


def _refuse(unsupported: Mapping[str, object]) -> None:
    for name, value in unsupported.items():
        if name not in _UNSUPPORTED:
            raise TypeError(f"world.explore_crashes() got an unexpected keyword argument {name!r}")
        why, allowed = _UNSUPPORTED[name]
        if value not in allowed:
            raise BadArgument(f"world.explore_crashes: {name} is not supported: {why}")


def _traced(
    controller: Controller, supervisor: WorldSupervisor, record: WorldRecord
) -> Callable[[bool], WorldRecord | None]:
    """Return a function that runs the world once more and traces the steps of each rank.

    A trace costs time at each step, so only a world that must be diagnosed is traced. It is not
    traced if the trial's time limit is close.
    """

    def again(faults: bool) -> WorldRecord | None:
        most = _most(controller)
        if most < record.duration:
            return None
        return supervisor.once_more(traced_steps, faults=faults, most=most)

    return again


def _most(controller: Controller) -> float:
    """Return the seconds that one more run of the world may take."""
    left = math.inf if controller.limit is None else controller.limit[1] - monotonic()
    return left / _INVERSE_TRACE_SHARE


def _check_devices(backend: str, ranks: int) -> None:
    if backend == "nccl":
        import torch

        if not torch.distributed.is_nccl_available():
            raise BadArgument(
                f"mlchaos.world: backend='nccl' needs NCCL, which torch {torch.__version__} is "
                f"built without. Use 'gloo'"
            )
        devices = torch.cuda.device_count()
        if devices < ranks:
            raise BadArgument(
                f"mlchaos.world: backend='nccl' needs one CUDA device per rank ({ranks}), but "
                f"there are {devices}. NCCL refuses two ranks on one device. Use 'gloo', "
                f"which also takes CUDA tensors"
            )
