"""Record what happened in a federation, round by round."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

__all__ = ["History", "RoundRecord"]


@dataclasses.dataclass(slots=True)
class RoundRecord:
    """One round of a federation.

    Attributes:
        number: The number of the round, from 0.
        clients: The clients that took part.
        answered: The clients whose updates reached the server, once for each update.
        late: Those of them whose update is of an earlier round.
        failed: By client: the error of a client that failed, in words.
        struck: By client: the faults that struck it in this round.
        restarted: True if the server died in this round, so that the round was repeated.
    """

    number: int
    clients: tuple[int, ...]
    answered: list[int] = dataclasses.field(default_factory=list)
    late: list[int] = dataclasses.field(default_factory=list)
    failed: dict[int, str] = dataclasses.field(default_factory=dict)
    struck: dict[int, list[str]] = dataclasses.field(default_factory=dict)
    restarted: bool = False


@dataclasses.dataclass(slots=True)
class History:
    """Hold what happened in a federation.

    Attributes:
        rounds: The rounds, with those that a restart of the server repeated.
        models: The global model at the start, and after each complete round: the arrays alone, in
            the form in which they can be compared.
        values: The same models, in the user's form.
        error: The exception that ended the federation, or None.
        restarts: The number of restarts of the server.
        metrics: What the server reported about each round, if it did.
    """

    rounds: list[RoundRecord] = dataclasses.field(default_factory=list)
    models: list[Any] = dataclasses.field(default_factory=list)
    values: list[Any] = dataclasses.field(default_factory=list)
    error: BaseException | None = None
    restarts: int = 0
    metrics: Mapping[int, Any] = dataclasses.field(default_factory=dict)
