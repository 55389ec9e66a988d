"""Run one rank of a world: a process with its own controller, which reports each event at once."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..core.privacy import error_text
from ..engine import randomness
from ..engine.continuous_faults import activate_continuous_faults
from ..engine.counters import ProcessCounts
from ..engine.patching import Patches
from ..engine.trial import arm
from ..errors import BadArgument, MlchaosError
from ..processes.child import Start, become, exit_code, leave, pack_error, print_error
from ..processes.imported_modules import LateImports
from ..processes.messages import Outbox
from ..processes.remote_controller import ReportingClock, ReportingController, tell_before_exit
from ..processes.shared_numbers import SharedNumbers
from ..processes.subject_pickling import SameFiles, dumps
from ..runs.supervisor import not_finite_of
from ..sites.collectives import record_collectives
from .elastic.options import ElasticOptions, Nodes
from .links.client import links_of_rank
from .links.namespaces import RealLinks
from .process_groups import adapt
from .step_digests import watch_states

__all__ = ["OF_RANKS", "REREAD", "RankJob", "main"]

OF_RANKS = (
    "RANK",
    "LOCAL_RANK",
    "GROUP_RANK",
    "ROLE_RANK",
    "ROLE_NAME",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "GROUP_WORLD_SIZE",
    "ROLE_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "TORCHELASTIC_RESTART_COUNT",
    "TORCHELASTIC_MAX_RESTARTS",
    "TORCHELASTIC_RUN_ID",
    "TORCHELASTIC_USE_AGENT_STORE",
)
"""The variables that ranks have of their own, so that no process can read them in advance."""
REREAD = ("TORCH_DISTRIBUTED_DEBUG",)
"""The variables that torch reads at import, and that each rank reads again."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankJob:
    """The job of the ranks of one attempt.

    ``payload`` is (subject, args), pickled. ``schedule`` is (schedule, watch), pickled.
    With ``links``, connections between ranks pass the process at the port ``switch``. The last
    ones are for elastic worlds: their shape, the variables that the agent of the rank sets, the
    access to its node, and the prefix of this attempt in the store.
    """

    ranks: int
    payload: bytes
    schedule: bytes
    port: int
    own_store: bool
    backend: str
    start: Start
    files: SameFiles
    sites: Sequence[str]
    own: Sequence[Path]
    probing: bool
    attempt: int
    restarts: int
    records_collectives: bool
    records_steps: bool
    orphan_grace: float | None = None
    resumed: Mapping[int, ProcessCounts]
    links: bool = False
    switch: int = 0
    real_links: bool = False
    elastic: ElasticOptions | None = None
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    nodes: Nodes | None = None
    prefix: str = ""

    def environment_of(self, rank: int) -> dict[str, str]:
        """Return the variables that torchrun sets, in addition to those of the test."""
        ranks = str(self.ranks)
        # All but the first are in OF_RANKS.
        return {
            "OMP_NUM_THREADS": "1",
            **self.start.environment,
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "GROUP_RANK": "0",
            "ROLE_RANK": str(rank),
            "ROLE_NAME": "default",
            "WORLD_SIZE": ranks,
            "LOCAL_WORLD_SIZE": ranks,
            "GROUP_WORLD_SIZE": "1",
            "ROLE_WORLD_SIZE": ranks,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self.port),
            "TORCHELASTIC_RESTART_COUNT": str(self.attempt),
            "TORCHELASTIC_MAX_RESTARTS": str(self.restarts),
            "TORCHELASTIC_RUN_ID": "mlchaos",
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            **self.environment,
        }


def main(
    job: RankJob,
    rank: int,
    messages: int,
    out: int,
    err: int,
    stacks: int,
    *,
    shared: SharedNumbers | None = None,
) -> NoReturn:
    """Run one rank, from the fork to the exit."""
    code = 1
    try:
        send = Outbox(messages)
        _start(job, rank, out, err, stacks)
        send("hello", threading.get_ident())
        code = _run(job, rank, send, shared)
    except SystemExit as stop:
        code = exit_code(stop)
    except BaseException:  # noqa: BLE001
        # the process ends here, and prints its error as every process does
        traceback.print_exc()
    finally:
        leave(code)


def _start(job: RankJob, rank: int, out: int, err: int, stacks: int) -> None:
    """Set up the process as torchrun would have."""
    become(
        dataclasses.replace(job.start, environment=job.environment_of(rank)),
        job.files,
        out,
        err,
        stacks,
    )
    importlib.import_module("torch").set_num_threads(
        int(os.environ["OMP_NUM_THREADS"].partition(",")[0])
    )
    set_debug_level = getattr(
        importlib.import_module("torch.distributed"), "set_debug_level_from_env", None
    )
    if set_debug_level is not None:  # a torch without distributed lacks it
        set_debug_level()


def _run(job: RankJob, rank: int, send: Outbox, shared: SharedNumbers | None) -> int:
    for name in job.sites:
        importlib.import_module(name)
    late = LateImports()
    try:
        schedule, watch = pickle.loads(job.schedule)  # our parent process made these bytes
        subject, args = pickle.loads(job.payload)
    except Exception as error:  # noqa: BLE001  # an import of the user's modules may raise anything
        send(
            "unusable",
            f"the subject cannot be loaded in the process of a rank: {error_text(error)}",
        )
        traceback.print_exc()
        return 1
    attributes: dict[str, Any] = {"rank": rank, "world_size": job.ranks}
    if job.nodes is not None:
        attributes["nodes"] = job.nodes
    controller = ReportingController(
        send,
        attributes,
        schedule,
        ReportingClock(send),
        shared=shared,
        probing=job.probing,
        own=job.own,
    )
    controller.inside = "mlchaos.world"
    controller.go_on_from(job.resumed.get(rank, ProcessCounts()))
    with (
        Patches() as patches,
        controller,
        controller.on_crash(functools.partial(os.kill, os.getpid(), signal.SIGKILL)),
    ):
        adapt(
            patches,
            backend=job.backend,
            port=job.port,
            prefix=job.prefix,
            tell=send,
        )
        tell_before_exit(controller, patches)
        arm(controller, patches, everything=job.probing)
        if job.records_collectives:
            # Each is sent at once, so that the log survives any end of the process.
            record_collectives(controller, patches, lambda record: send("collective", *record))
        randomness.seed_all("rank", rank, job.attempt)
        try:
            with (
                _linked(job, rank, controller, patches),
                watch() as trained,
                _states_reported(job, trained, send),
                controller.resources,
            ):
                activate_continuous_faults(controller, fresh=True)
                _send_home(send, functools.partial(subject, *args), trained)
        except SystemExit as stop:
            send("raised", *pack_error(stop))
            if controller.is_injected(stop):
                send("injected_exit")
            return exit_code(stop)
        except BaseException as error:  # noqa: BLE001
            # the error ends this process, as it would end any
            send("raised", *pack_error(error))
            print_error(error)
            return 1
        finally:
            controller.report()
            send("learned", late.imported())
    return 0


@contextlib.contextmanager
def _states_reported(job: RankJob, trained: Any, send: Outbox) -> Iterator[None]:
    """Report the states after each step at the end, also after an error."""
    if not job.records_steps:
        yield
        return
    with contextlib.ExitStack() as stack:
        # Called after the watch has ended, which records the last state.
        stack.callback(lambda: send("states", pickle.dumps(states)))
        states = stack.enter_context(watch_states(trained.models))
        yield


@contextlib.contextmanager
def _linked(
    job: RankJob, rank: int, controller: ReportingController, patches: Patches
) -> Iterator[None]:
    """Lead the links of this rank through the switch, if a fault may disturb them."""
    if job.real_links:
        real = RealLinks()
        controller.attributes = {**controller.attributes, "links": real}
        with contextlib.closing(real):
            yield
        return
    if not job.switch:
        yield
        return

    def refuse(error: MlchaosError) -> None:
        controller.broken = controller.broken or error

    with links_of_rank(patches, job.switch, rank, refuse) as links:
        controller.attributes = {**controller.attributes, "links": links}
        yield


def _send_home(send: Outbox, subject: Callable[[], Any], trained: Callable[[], Any]) -> None:
    value = subject()
    for what, held in (
        ("value", value),
        ("parameters", trained()),
        ("not_finite", not_finite_of(trained)),
    ):
        try:
            send(what, dumps(held))
        except BadArgument as error:
            send("unsent", what, str(error))
