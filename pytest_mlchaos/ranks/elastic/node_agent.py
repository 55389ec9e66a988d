"""Run torch's elastic agent of one node. The keeper forks the ranks that it asks for."""

from __future__ import annotations

import importlib
import math
import os
import pickle
import select
import signal
import socket
import time
from collections.abc import Mapping
from typing import Any, NoReturn

from ...core.privacy import error_text
from .options import ElasticOptions

__all__ = ["FAILED", "LIBRARIES", "main"]

LIBRARIES = (
    "torch.distributed.elastic.agent.server.api",
    "torch.distributed.elastic.multiprocessing.api",
    "torch.distributed.elastic.multiprocessing.errors",
    "torch.distributed.elastic.rendezvous.api",
    "torch.distributed.elastic.rendezvous.c10d_rendezvous_backend",
    "torch.distributed.elastic.rendezvous.dynamic_rendezvous",
)
"""The modules of the agent, which the warm process imports."""
FAILED = "its ranks failed"
"""The end of an agent that has no restart left."""
RUN_ID = "mlchaos"
MONITOR_SECONDS = 0.05
KEEP_ALIVE_SECONDS = 1
KEEP_ALIVE_ATTEMPTS = 4
"""An agent that is silent for so many intervals is lost. A busy machine may delay some of them."""
LAST_CALL_SECONDS = 1
"""The time that further nodes get to join after the smallest number has."""
POLL_SHARE = 0.1
"""The agents look at the state of the rendezvous ten times as often as torch does."""
MAX_SMALLER_ROUNDS = 20
STOP_SECONDS = 5.0
"""The time from SIGTERM to SIGKILL for a rank that its agent stops."""


def main(options: ElasticOptions, node: int, keeper: int, port: int) -> NoReturn:
    """Run the agent of one node, from the fork to the exit."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        home = _Keeper(socket.socket(fileno=keeper))
        try:
            home.tell("agent", node, _run(options, home, port))
            code = 0
        except Exception as error:  # noqa: BLE001  # the runner shows any error to the user
            home.tell("agent", node, error_text(error))
    finally:
        os._exit(code)


def _run(options: ElasticOptions, home: _Keeper, port: int) -> str:
    """Run the agent. Return an empty text if all its ranks have succeeded."""
    api = importlib.import_module("torch.distributed.elastic.agent.server.api")
    handler = _rendezvous_handler(options, port)
    spec = api.WorkerSpec(
        role="default",
        local_world_size=options.per_node,
        entrypoint=_run,
        args=(),
        rdzv_handler=handler,
        max_restarts=options.restarts,
        monitor_interval=MONITOR_SECONDS,
        local_addr="127.0.0.1",
    )
    agent = _agent_class(api)(spec, home, exit_barrier_timeout=options.timeout)
    try:
        result = agent.run()
    finally:
        handler.shutdown()
    return "" if result is None or not result.is_failed() else FAILED


def _rendezvous_handler(options: ElasticOptions, port: int) -> Any:
    """Return a handler of torch's c10d rendezvous, whose store the keeper hosts."""
    rendezvous = importlib.import_module("torch.distributed.elastic.rendezvous.api")
    c10d = importlib.import_module("torch.distributed.elastic.rendezvous.c10d_rendezvous_backend")
    dynamic = importlib.import_module("torch.distributed.elastic.rendezvous.dynamic_rendezvous")
    # Torch 2.13 caches the address of the shared store, so a node that joins later waits for it.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    socket.getfqdn = lambda name="": "localhost"  # the resolver may take seconds to answer
    for name, replacement in (
        ("_delay", _delay),
        # Torch describes each step for its logs, with the source code of all frames: some 100 ms.
        ("get_method_name", lambda depth=2: ""),
        ("construct_and_record_rdzv_event", lambda *event, **details: None),
    ):
        if hasattr(dynamic, name):
            setattr(dynamic, name, replacement)
    parameters = rendezvous.RendezvousParameters(
        backend="c10d",
        endpoint=f"127.0.0.1:{port}",
        run_id=RUN_ID,
        min_nodes=options.min_nodes,
        max_nodes=options.nodes,
        local_addr="127.0.0.1",
        is_host=False,
        read_timeout=max(1, math.ceil(options.timeout)),
        join_timeout=max(1, math.ceil(options.timeout)),
        last_call_timeout=LAST_CALL_SECONDS,
        close_timeout=5,
        keep_alive_interval=KEEP_ALIVE_SECONDS,
        keep_alive_max_attempt=KEEP_ALIVE_ATTEMPTS,
    )
    backend, store = c10d.create_backend(parameters)
    return dynamic.create_handler(store, backend, parameters)


def _delay(seconds: float | tuple[float, float]) -> None:
    time.sleep(POLL_SHARE * (min(seconds) if isinstance(seconds, tuple) else seconds))


class _Keeper:
    """The connection to the process that forks the ranks of this node."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._exits: dict[int, int] = {}

    def tell(self, *message: object) -> None:
        """Send one message."""
        self._connection.send(pickle.dumps(message))

    def start(self, attempt: str, environments: list[dict[str, str]]) -> list[int]:
        """Let the keeper fork a rank for each environment. Return their process ids."""
        self.tell("start", attempt, environments)
        pids: list[int] = self._answer("started")
        return pids

    def nodes(self) -> int:
        """Return the number of nodes that are not lost."""
        self.tell("alive")
        return int(self._answer("alive"))

    def _answer(self, kind: str) -> Any:
        while True:
            message = self._receive()
            if message[0] == kind:
                return message[1]

    def exits(self, seconds: float = 0.0) -> Mapping[int, int]:
        """Return the exit codes of ranks so far. Wait up to ``seconds`` for news."""
        while select.select([self._connection], [], [], seconds)[0]:
            self._receive()
            seconds = 0.0
        return self._exits

    def stop(self, pids: list[int]) -> None:
        """Stop ranks by SIGTERM, and after a while by SIGKILL, as torchrun does."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            left = [pid for pid in pids if pid not in self.exits()]
            if left:
                self.tell("stop", left, number)
            until = time.monotonic() + STOP_SECONDS
            while left and time.monotonic() < until:
                left = [pid for pid in left if pid not in self.exits(until - time.monotonic())]

    def _receive(self) -> Any:
        data = self._connection.recv(1 << 16)
        if not data:
            os._exit(1)  # the keeper has ended
        message = pickle.loads(data)  # the keeper wrote it
        if message[0] == "exit":
            self._exits[message[1]] = message[2]
        return message


def _agent_class(api: Any) -> Any:
    """Return torch's agent, with ranks that the keeper forks."""
    errors = importlib.import_module("torch.distributed.elastic.multiprocessing.errors")

    class NodeAgent(api.SimpleElasticAgent):  # type: ignore[misc]  # torch is imported late
        def __init__(self, spec: Any, home: _Keeper, **keywords: Any) -> None:
            super().__init__(spec, **keywords)
            self._home = home
            self._pids: dict[int, int] = {}  # by local rank

        def _rendezvous(self, worker_group: Any) -> None:
            # A node that is only slow must not be left out. Then a test would depend on the load.
            super()._rendezvous(worker_group)
            for _ in range(MAX_SMALLER_ROUNDS):
                if worker_group.group_world_size >= self._home.nodes():
                    break
                super()._rendezvous(worker_group)

        def _start_workers(self, worker_group: Any) -> dict[int, Any]:
            # All agents of one rendezvous share this store, and no others do.
            own = f"{os.getpid()}-{time.monotonic()}"
            attempt = worker_group.store.compare_set("mlchaos/attempt", "", own).decode()
            environments = [self._environment(worker_group, one) for one in worker_group.workers]
            self._pids = dict(enumerate(self._home.start(attempt, environments)))
            return dict(self._pids)

        def _environment(self, group: Any, worker: Any) -> dict[str, str]:
            """Return the variables that torchrun sets.

            The address of the store is missing: all attempts use that of the keeper, which outlives
            each node. Torch 2.13 gives a node that goes on the address of a lost one.
            """
            spec = group.spec
            return {
                "RANK": str(worker.global_rank),
                "LOCAL_RANK": str(worker.local_rank),
                "GROUP_RANK": str(group.group_rank),
                "ROLE_RANK": str(worker.role_rank),
                "ROLE_NAME": spec.role,
                "WORLD_SIZE": str(worker.world_size),
                "LOCAL_WORLD_SIZE": str(spec.local_world_size),
                "GROUP_WORLD_SIZE": str(group.group_world_size),
                "ROLE_WORLD_SIZE": str(worker.role_world_size),
                "TORCHELASTIC_RESTART_COUNT": str(spec.max_restarts - self._remaining_restarts),
                "TORCHELASTIC_MAX_RESTARTS": str(spec.max_restarts),
                "TORCHELASTIC_RUN_ID": RUN_ID,
            }

        def _stop_workers(self, worker_group: Any, *more: object, **options: object) -> None:
            self._shutdown()

        def _shutdown(self, *more: object, **options: object) -> None:
            self._home.stop(list(self._pids.values()))

        def _monitor_workers(self, worker_group: Any) -> Any:
            exits = self._home.exits()
            ended = {
                local: exits[pid] for local, pid in self._pids.items() if exits.get(pid) is not None
            }
            failed = {local: code for local, code in ended.items() if code}
            first = worker_group.workers[0].global_rank
            if failed:
                return api.RunResult(
                    state=api.WorkerState.FAILED,
                    failures={
                        first + local: errors.ProcessFailure(local, self._pids[local], code, "")
                        for local, code in failed.items()
                    },
                )
            if len(ended) == len(self._pids):
                values = {first + local: None for local in ended}
                return api.RunResult(state=api.WorkerState.SUCCEEDED, return_values=values)
            return api.RunResult(state=api.WorkerState.HEALTHY)

    return NodeAgent
