"""Check the options of a federation."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

from ..core.privacy import data_text
from ..core.sites import derive_seed
from ..core.validation import format_value, index
from ..errors import BadArgument
from ..sites.calls import resolve

__all__ = ["Options", "Updates", "as_function", "required_arguments"]

Updates: TypeAlias = Literal["parameters", "differences"]


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """The options of a federation, checked.

    Attributes:
        clients: The number of clients.
        rounds: The number of rounds.
        per_round: The number of clients that take part in a round.
        updates: What updates hold: ``parameters``, or ``differences`` from the global ones.
        evaluate: A function of the global parameters, or None.
        evaluate_client: A function of the global parameters and the number of a client, or None.
        restore: A function that returns the parameters from which a new server starts, or None.
        config: More entries of the configuration that clients receive.
    """

    clients: int
    rounds: int
    per_round: int
    updates: Updates
    evaluate: Callable[[Any], Any] | None
    evaluate_client: Callable[[Any, int], Any] | None
    restore: Callable[[], Any] | None
    config: Mapping[str, Any]

    @classmethod
    def checked(
        cls,
        clients: Any,
        rounds: Any,
        per_round: Any,
        updates: Any,
        config: Any = None,
        **functions: Any,
    ) -> Options:
        """Return the options. Raise ``BadArgument`` for one that is wrong."""
        for name, value, least in (("clients", clients, 1), ("rounds", rounds, 1)):
            if (index(value) or 0) < least:
                raise BadArgument(
                    f"mlchaos.federation: {name} must be {least} or more, got {format_value(value)}"
                )
        per_round = clients if per_round is None else per_round
        if not 1 <= (index(per_round) or 0) <= clients:
            raise BadArgument(
                f"mlchaos.federation: per_round must be from 1 to {clients}, the number of "
                f"clients, got {format_value(per_round)}"
            )
        if updates not in ("parameters", "differences"):
            raise BadArgument(
                f"mlchaos.federation: updates must be 'parameters' or 'differences', got "
                f"{format_value(updates)}"
            )
        for name, function in functions.items():
            if function is not None and not callable(function):
                raise BadArgument(
                    f"mlchaos.federation: {name} must be a function, got {data_text(function)}"
                )
        if config is not None and not isinstance(config, Mapping):
            raise BadArgument(f"mlchaos.federation: config must be a dict, got {data_text(config)}")
        return cls(
            int(clients),
            int(rounds),
            int(per_round),
            updates,
            config=dict(config or {}),
            **functions,
        )

    def sample(self, number: int) -> tuple[int, ...]:
        """Return the clients that take part in a round. The choice depends on its number alone."""
        order = sorted(range(self.clients), key=functools.partial(derive_seed, "clients", number))
        return tuple(sorted(order[: self.per_round]))


def as_function(given: Any, name: str, method: str = "") -> Callable[..., Any]:
    """Return a function, given itself, by its dotted name or as a method of an object."""
    if isinstance(given, str):
        owner, attribute, *_ = resolve(given)
        given = getattr(owner, attribute)
    if method and callable(getattr(given, method, None)) and not inspect.isclass(given):
        given = getattr(given, method)
    if not callable(given) or inspect.iscoroutinefunction(given):
        raise BadArgument(
            f"mlchaos.federation: {name} must be a plain function, its dotted name"
            f"{f' or an object with {method}()' if method else ''}, got {data_text(given)}"
        )
    function: Callable[..., Any] = given
    return function


def required_arguments(function: Callable[..., Any]) -> int:
    """Return the number of positional arguments without a default."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 1  # a C function without a signature
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(one.kind in kinds and one.default is one.empty for one in parameters)
