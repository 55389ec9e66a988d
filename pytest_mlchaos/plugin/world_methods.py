"""Define the methods of the fixture ``mlchaos`` that run many ranks or clients."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

from ..core.faults import create
from ..core.policy import check_fault
from ..core.validation import PATH, check_arguments
from ..crashes.ranks.api import explore_world, run_world_once
from ..crashes.ranks.runner import Launch
from ..crashes.report import CrashReport
from ..federation.api import federate
from ..federation.options import Options as FederationOptions
from ..federation.verdicts import FederationRun
from ..ranks.api import World
from ..ranks.torchrun import OWNER, torchrun
from ..ranks.verdicts import WorldRun
from ..runs.scripts import script
from .fixture_base import FixtureBase
from .part import Part

__all__ = ["WorldMethods"]


class WorldMethods(FixtureBase):
    """Run a world of ranks, or a federation of clients."""

    def world(
        self,
        ranks: int = 2,
        backend: str = "gloo",
        restarts: int = 0,
        timeout: float | str = 30,
        *,
        grace: float | str = 5,
        elastic: bool = False,
        min_ranks: int | None = None,
        nodes: int | None = None,
    ) -> World:
        """Return ranks that are real processes, as under torchrun:
        ``mlchaos.world(ranks=2).run(train, tmp_path)``.

        The subject finds ``RANK``, ``WORLD_SIZE``, ``MASTER_ADDR``, ``MASTER_PORT`` and torchrun's
        other variables in its environment, and calls ``init_process_group`` itself. The faults of
        the test work in every rank, and each rank counts its own visits. Time is real in ranks. No
        process is left at the end. Ranks import the subject's module afresh, without the patches of
        fixtures in the test's process.

        Args:
            ranks: The number of ranks.
            backend: The backend for an ``init_process_group`` that names none.
            restarts: If a rank fails, the others get SIGTERM and all ranks restart, at most
                ``restarts`` times.
            timeout: The time limit for all ranks, in seconds.
            grace: The time limit for the remaining ranks after one has failed, in seconds.
            elastic: If true, torch's own elastic agents start the ranks, stop them and start them
                again, as under torchrun. ``node_loss`` and ``rank_rejoin`` need it. ``timeout``
                then limits each attempt, and each rendezvous.
            min_ranks: The smallest world in which an elastic job goes on. Without it, ``ranks``.
            nodes: The number of nodes of an elastic world, each with an agent. Without it, each
                rank is on a node of its own.
        """
        check_fault(*self._controller.schedule.faults, isolated=True)
        return World(
            lambda: self._controller,
            lambda outer: Part(self._controller, "world.run", outer=outer).hand_over,
            self._scratch,
            self._workdirs,
            ranks=ranks,
            backend=backend,
            restarts=restarts,
            timeout=timeout,
            grace=grace,
            elastic=elastic,
            min_ranks=min_ranks,
            nodes=nodes,
            explore=self._explore_world,
        )

    def _explore_world(
        self,
        launch: Launch,
        ranks: int,
        subject: Callable[..., Any],
        workdir: Any,
        args: tuple[Any, ...],
        options: dict[str, Any],
    ) -> CrashReport:
        if not self._may_crash():
            report = run_world_once(launch, ranks, subject, workdir, args)
            self._test_info.explored.append(report)
            return report
        check_fault(create("crash", at=0), via="world.explore_crashes")
        with self._running("world.explore_crashes", subject, each=True) as part:
            return part.hand_over(
                explore_world(
                    self._controller,
                    launch,
                    ranks,
                    subject,
                    workdir,
                    args,
                    options,
                    self._scratch,
                    self._test_info,
                    self._settings(),
                )
            )

    @check_arguments("mlchaos.torchrun", path=PATH)
    def torchrun(
        self,
        path: str | os.PathLike[str],
        *args: Any,
        nproc: int = 1,
        nnodes: int = 1,
        min_nodes: int | None = None,
        restarts: int = 0,
        backend: str = "gloo",
        timeout: float | str = 30,
        grace: float | str = 5,
    ) -> WorldRun:
        """Run a script in ranks, as ``torchrun --nproc-per-node=2 train.py --out DIR`` does.

        Torch's own elastic agents start it, one for each node (``mlchaos.world(elastic=True)``).

        Args:
            path: The script. A relative path is looked up in the current directory, then in that of
                the test.
            *args: Its arguments.
            nproc: The number of ranks on each node.
            nnodes: The number of nodes. All are processes of this machine.
            min_nodes: The smallest number of nodes with which the job goes on.
            restarts: The number of restarts after a failure, as ``--max-restarts``.
            backend: The backend for an ``init_process_group`` that names none.
            timeout: The time limit for each attempt, in seconds.
            grace: The time limit for the remaining ranks after one has failed, in seconds.

        Fidelity: each rank is forked from a process that has imported torch.
        """
        check_fault(*self._controller.schedule.faults, isolated=True)
        world = functools.partial(
            World,
            lambda: self._controller,
            lambda outer: Part(self._controller, "mlchaos.torchrun", outer=outer).hand_over,
            self._scratch,
            self._workdirs,
            restarts=restarts,
            backend=backend,
            timeout=timeout,
            grace=grace,
        )
        subject = script(path, args, self._test_info.folder, OWNER)
        return torchrun(world, subject, nproc=nproc, nnodes=nnodes, min_nodes=min_nodes)

    def federation(
        self,
        client: Any,
        aggregate: Any,
        *,
        clients: int = 10,
        rounds: int = 5,
        parameters: Any = None,
        data: Any = None,
        evaluate: Callable[[Any], Any] | None = None,
        evaluate_client: Callable[[Any, int], Any] | None = None,
        per_round: int | None = None,
        updates: str = "parameters",
        restore: Callable[[], Any] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> FederationRun:
        """Train a global model with the updates of many clients, under the faults of the test.

        The plugin plays the network and the server's loop, in this process. In each round, each
        client trains on a copy of the global parameters, and the updates are aggregated. A client
        that fails sends no update. A server that fails restarts, and repeats the round. If it
        raises an error of its own after a fault, the federation ends with that error.

        Args:
            client: A function of ``(parameters, config)`` that trains and returns an update, or
                its dotted name. ``config`` has ``client``, ``round`` and ``clients``. Or a
                ClientApp of Flower, with a strategy or a ServerApp as ``aggregate``.
            aggregate: A function of ``(updates)``, ``(updates, parameters)`` or ``(updates,
                parameters, config)`` that returns the new parameters, its dotted name, or an object
                with such a method ``aggregate``.
            clients: The number of clients.
            rounds: The number of rounds.
            parameters: The global parameters at the start: numbers, arrays or tensors, nested in
                dicts and lists. An update is anything that holds parameters of this form.
            data: A dataset for each client, which ``client`` receives as its third argument. Or
                the function by which clients load their data, ``"pkg.mod:function"``. Faults can
                poison it.
            evaluate: A function of the parameters that returns a metric, or a dict of metrics.
            evaluate_client: A function of the parameters and the number of a client that returns a
                metric of that client.
            per_round: The number of clients in a round, drawn by its number. Without it, all.
            updates: ``"parameters"``, or ``"differences"`` if updates hold differences from the
                global parameters.
            restore: A function that returns the parameters from which a new server starts, or None
                to begin afresh. Without it, it has those of the last complete round.
            config: More entries of ``config``. For a ClientApp, its ``run_config``.

        Returns:
            A ``FederationRun``.

        Fidelity: clients train one after the other in one process, so their modules are shared.
        Each begins with its own random numbers, which depend on the round and its number alone.
        """
        options = FederationOptions.checked(
            clients,
            rounds,
            per_round,
            updates,
            config,
            evaluate=evaluate,
            evaluate_client=evaluate_client,
            restore=restore,
        )
        subject = client if callable(client) else aggregate
        with self._running("mlchaos.federation", subject) as part:
            given = (self._controller, client, aggregate, self._scratch, self._workdirs())
            run = federate(*given, parameters=parameters, data=data, options=options)
            return part.hand_over(run)
