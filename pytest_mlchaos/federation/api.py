"""Implement ``mlchaos.federation``: train a global model with many clients under faults.

1. ``options.py`` checks the options.
2. ``plain.py`` plays the server's loop for plain functions. An app of a library has a file of its
   own, named after the library.
3. ``exchange.py`` takes a round through its faults: it lets the clients train (on ``data.py``), and
   delivers their updates (``updates.py`` changes them).
4. ``runner.py`` runs the loop under faults, and once more without them when an assertion needs it.
5. ``verdicts.py`` judges the record (``records.py``), with ``models.py``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..engine.controller import Controller
from ..errors import BadArgument
from .data import Data
from .flower import FlowerFederation, evaluate_client, is_client_app
from .options import Options, as_function
from .plain import MAX_RESTARTS, PlainFederation
from .runner import Runner
from .verdicts import FederationRun, Measures

__all__ = ["federate"]


def federate(
    controller: Controller,
    client: Any,
    aggregate: Any,
    scratch: Path,
    workdirs: Iterable[Path],
    *,
    parameters: Any,
    data: Any,
    options: Options,
) -> FederationRun:
    """Run a federation, and return its result.

    Args:
        controller: The controller of the trial.
        client: The user's function that trains a client, or an app.
        aggregate: The user's function that aggregates updates, or a strategy.
        scratch: The test's temporary directory.
        workdirs: More directories that the federation works in.
        parameters: The global parameters at the start.
        data: The data of the clients.
        options: The options.
    """
    Data(data, options.clients)
    loop: PlainFederation | FlowerFederation
    if is_client_app(client):
        loop = FlowerFederation(controller, options)
        if options.evaluate_client is None:
            options = dataclasses.replace(options, evaluate_client=evaluate_client(client, options))
    else:
        loop = PlainFederation(controller, options)
        client = as_function(client, "client")
        aggregate = as_function(aggregate, "aggregate", "aggregate")
    if parameters is None and not (is_client_app(client) and not hasattr(aggregate, "start")):
        raise BadArgument(
            "mlchaos.federation: parameters must be the global parameters at the start: arrays, or "
            "a dict or list of them, got None"
        )
    runner = Runner(controller, loop, (client, aggregate, parameters, data), scratch, workdirs)
    loop.revive = runner.revive
    controller.may_restart(MAX_RESTARTS)
    measures = Measures(
        options.evaluate, options.evaluate_client, options.clients, controller.without_faults
    )
    first = len(controller.journal)
    history = runner.federate()
    faults = tuple(controller.journal[first:])

    def golden() -> FederationRun:
        return FederationRun(runner.golden(), (), None, measures)

    return FederationRun(history, faults, golden, measures)
