"""Define faults of parameter servers: the holder of the parameters fails, or restarts with old ones."""

from __future__ import annotations

import collections
from typing import Any, Literal

from ...core.faults import Fault, is_drawn, register
from ...core.sites import Key, Visit
from ...core.validation import format_value
from ...errors import BadArgument, PayloadMismatch, SimulatedCrash
from ...oracles.state import first_difference
from ..calls import error_name, make_error
from .object_state import save_state

__all__ = ["ParameterServerFailure"]
LAYER = "Ranks"

RPC = "rpc.call"
"""The site of the calls that a rank sends."""


@register
class ParameterServerFailure(Fault):
    """A parameter server fails: a call raises, its process dies, or it restarts with old parameters.

    ``at`` counts the calls of ``target`` in the process in which it runs. For a method that other
    ranks call by RPC, this is the rank that serves.

    Args:
        target: A method of the object that holds the parameters (``"jobs:Server.push"``), or a
            function through which the ranks reach it. Without it, any call of
            ``torch.distributed.rpc`` that a rank sends, in ``mode="raise"``.
        mode: ``"restart"`` (the object gets the state again that it had ``lost`` calls before, and
            the call goes on), ``"raise"`` (the call raises ``error``) or ``"kill"`` (the process in
            which the target runs gets SIGKILL).
        lost: The number of calls whose effects a restart loses. Calls of the target alone count.
        error: An exception class or instance, or its name, as for ``call_failure``.

    Imitates: a server that is restarted from its last checkpoint, behind the workers (``restart``);
    a server that is not reachable (``raise``); a node that is lost (``kill``).

    Fidelity: a restart takes no time, and connections and references stay valid. Of the object,
    its attributes are restored: tensors and arrays, modules and optimizers, and what can be
    deep-copied. Locks, threads and connections stay. The state is copied before each call up to the
    strike.

    Source: M. Li et al., Scaling Distributed Machine Learning with the Parameter Server, OSDI 2014

    Example: @chaos.parameter_server_failure(target="json:JSONDecoder.decode", mode="raise", at=3)
    """

    site = "call"
    random = False
    target: str | None = None
    mode: Literal["restart", "raise", "kill"] = "restart"
    lost: int = 2
    error: Any = "ConnectionError"

    def check(self) -> None:
        """Check the parameters, and store ``error`` by its name."""
        if self.target is None and not is_drawn(self.mode) and self.mode != "raise":
            raise BadArgument(
                f"{self.name}: mode={self.mode!r} needs target=, a method of the object that holds "
                f"the parameters"
            )
        if isinstance(self.target, str) and not self.target.strip():
            raise BadArgument(
                f"{self.name}: target must be 'pkg.mod:function', got {format_value(self.target)}"
            )
        if not is_drawn(self.lost) and self.lost < 1:
            raise BadArgument(f"{self.name}: lost must be 1 or more, got {self.lost}")
        if not is_drawn(self.error):
            object.__setattr__(self, "error", error_name(self.error, self.name))

    @property
    def strikes_processes(self) -> bool:  # type: ignore[override]  # it depends on a parameter
        """Return True if its strike kills the process of the parameter server."""
        return self.mode == "kill" or is_drawn(self.mode)

    @property
    def ends_process(self) -> bool:  # type: ignore[override]  # it depends on a parameter
        """Return True if its strike ends the process."""
        return self.mode == "kill"

    @property
    def key(self) -> Key:
        """Count the visits of each target separately."""
        return RPC if self.target is None else (self.site, self.target)

    def possible(self, visit: Visit) -> bool:
        """Return False for a call before which a restart could lose nothing."""
        return self.mode != "restart" or (visit.index >= 1 and _holder(visit) is not None)

    def observe(self, visit: Visit) -> None:
        """Keep the state of the server before each of the last calls."""
        holder = _holder(visit)
        if self.mode == "restart" and holder is not None:
            # The holder is kept, so that its id stays unique.
            kept = visit.memory.setdefault(
                id(holder), (holder, collections.deque(maxlen=self.lost + 1))
            )
            kept[1].append(save_state(holder))

    def apply(self, visit: Visit) -> None:
        """Fail, die, or restart the server."""
        if self.mode == "kill":
            visit.fail(
                SimulatedCrash(
                    f"the parameter server died at {self.target} {visit.index} (injected by "
                    f"mlchaos)"
                )
            )
        if self.mode == "raise":
            called = (
                self.target or f"torch.distributed.rpc.{visit.attributes.get('op', 'rpc_sync')}"
            )
            visit.fail(make_error(self.error, called, self.name))
        holder = _holder(visit)
        if holder is None:
            raise PayloadMismatch(
                f"{self.name}: a restart needs the object that holds the parameters, and "
                f"{self.target} is not a method of one. Name a method, or use mode='raise'"
            )
        _, states = visit.memory[id(holder)]
        if first_difference(states[-1].data, states[0].data) is None:
            visit.skip()  # nothing is lost
        else:
            states[0].restore()
            visit.note(lost=len(states) - 1)


def _holder(visit: Visit) -> Any:
    """Return the object whose method is called, or None for a plain function."""
    args = visit.payload[0]
    parameters = visit.attributes.get("parameters", ("self",))
    return args[0] if args and tuple(parameters)[:1] == ("self",) else None
