"""``mlchaos.world``: a subject in several ranks, which are real processes."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..core.faults import FAULTS
from ..core.sites import SITES
from ..core.values import index, parse_duration, shown
from ..engine.controller import Controller
from ..engine.places import take_subject
from ..engine.processes.forkserver import ForkServer
from ..engine.ranks.agent import ENTRY
from ..engine.ranks.world import Terms, WorldSupervisor
from ..errors import BadArgument, MissingExtra
from ..oracles.world import WorldRun
from ..sites import torch_train

__all__ = ["World"]
__tracebackhide__ = True  # a failure shows the user's code, not ours

MOST_RANKS = 60
"""So many pipes can be handed to another process at once."""
# torch._dynamo: DistributedDataParallel imports it when one is made, which takes a second
_LIBRARIES = ("torch", "torch.distributed", "torch.nn.parallel", "torch.utils.data", "torch._dynamo", "cloudpickle", "pytest", "hypothesis")


@functools.cache
def _server() -> ForkServer:
    """The warm process of this session."""
    modules = {site.arm.__module__ for site in SITES.values()} | {cls.__module__ for cls in FAULTS.values()}
    package = __name__.partition(".")[0]
    return ForkServer([*_LIBRARIES, __name__, *sorted(name for name in modules if name.startswith(package))], ENTRY)


class World:
    """Ranks that run a subject; each :meth:`run` starts new ones."""

    def __init__(
        self,
        controller: Callable[[], Controller],
        begun: Callable[[], Callable[[WorldRun], WorldRun]],
        scratch: Path,
        workdirs: Callable[[], Iterable[Path]],
        *,
        ranks: int,
        backend: str,
        restarts: int,
        timeout: Any,
        grace: Any,
    ) -> None:
        if not index(ranks) or ranks > MOST_RANKS:
            raise BadArgument(f"mlchaos.world: expected ranks to be a number from 1 to {MOST_RANKS} but got {shown(ranks)}")
        if index(restarts) is None:
            raise BadArgument(f"mlchaos.world: expected restarts to be 0 or more but got {shown(restarts)}")
        if importlib.util.find_spec("torch") is None:
            raise MissingExtra("mlchaos.world", "torch", "torch")
        _check_backend(backend, ranks)
        seconds = {"timeout": parse_duration(timeout, "timeout"), "grace": parse_duration(grace, "grace")}
        if not seconds["timeout"]:
            raise BadArgument(f"mlchaos.world: expected timeout to be longer than nothing but got {shown(timeout)}")
        self._terms = Terms(ranks=ranks, backend=backend, restarts=restarts, **seconds)
        self._controller = controller
        self._begun = begun
        self._scratch = scratch
        self._workdirs = workdirs

    def __repr__(self) -> str:
        return f"<World of {self._terms.ranks} ranks, {self._terms.backend}>"

    def run(self, subject: Callable[..., Any], *args: Any) -> WorldRun:
        """Run ``subject(*args)`` in every rank, as torchrun would, and wait until all have ended.

        A rank that fails raises nothing here: judge the :class:`~pytest_mlchaos.WorldRun`. Raises ``BadArgument`` for what cannot be
        sent to another process.
        """
        take_subject(subject)
        hand_over, watch = self._begun(), torch_train.trained_parameters
        controller = self._controller()
        with controller.subject_of("mlchaos.world"):
            supervisor = WorldSupervisor(_server(), controller, self._terms, subject, args, self._scratch, watch, self._workdirs())
            return hand_over(WorldRun(supervisor.run(), lambda: WorldRun(supervisor.golden())))


def _check_backend(backend: str, ranks: int) -> None:
    if backend not in ("gloo", "nccl"):
        raise BadArgument(f"mlchaos.world: expected backend to be 'gloo' or 'nccl' but got {shown(backend)}")
    if backend == "nccl":
        import torch

        devices = torch.cuda.device_count() if torch.distributed.is_nccl_available() else 0
        if devices < ranks:
            raise BadArgument(
                f"mlchaos.world: backend 'nccl' needs a CUDA device a rank, {ranks}, but there are {devices} here; use 'gloo'"
            )
