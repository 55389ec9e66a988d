"""Define faults of caches: they fail, forget, or return old values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from ...core.faults import Fault, is_drawn, register
from ...core.sites import CALL, Key, Visit
from ...core.validation import format_value, index
from ...engine.changes import alike, fingerprint
from ...errors import BadArgument, PayloadMismatch
from ..calls import error_name, make_error
from ..data_fault import RESULT

__all__ = ["CacheFailure", "StaleCache"]
LAYER = "Calls and services"
MAX_KEYS = 10_000
"""The number of keys whose earlier values are kept."""


def _check_target(fault: Any) -> None:
    if not is_drawn(fault.target) and not fault.target.strip():
        raise BadArgument(
            f"{fault.name}: target must be 'pkg.mod:function', got {format_value(fault.target)}"
        )


@register
class CacheFailure(Fault):
    """A cache fails: a call of ``get`` or ``set`` raises, or ``get`` finds nothing.

    Args:
        target: The function of the cache, ``"app:Cache.get"``.
        kind: ``"error"``: the call raises. ``"miss"``: it returns None, although the cache has the
            value. A search tries both.
        error: The exception, as for ``call_failure``.

    Imitates: a cache that is down, fails over, evicts under pressure, or restarts empty.

    Fidelity: with ``"error"``, the cache's own code does not run. A cache whose ``get`` says in a
    different way that it has nothing needs ``kind="error"`` with that error. A call that returns
    None anyway is not struck by ``"miss"``.

    Example: @chaos.cache_failure(target="json:loads", kind="error", at=0)
    """

    site = CALL
    random = False
    positions: ClassVar[Mapping[str, tuple[str, ...]]] = {"kind": ("error", "miss")}
    target: str
    kind: Literal["error", "miss"] = "error"
    error: Any = "ConnectionError"

    def check(self) -> None:
        """Check the parameters."""
        _check_target(self)
        if not is_drawn(self.error):
            object.__setattr__(self, "error", error_name(self.error, self.name))

    @property
    def key(self) -> Key:
        """Count the calls of the target, or their results."""
        return (RESULT if self.kind == "miss" else CALL, self.target)

    def possible(self, visit: Visit) -> bool:
        """Return False for a result that is None anyway."""
        return self.kind == "error" or visit.payload is not None

    def apply(self, visit: Visit) -> None:
        """Raise the error, or return None."""
        if self.kind == "error":
            visit.fail(make_error(self.error, self.target, self.name))
        if visit.payload is None:
            raise PayloadMismatch(
                f"{self.name}: kind='miss' needs a call of {self.target} that finds something, got "
                f"None"
            )
        visit.note(kind=self.kind)
        visit.payload = None


@register
class StaleCache(Fault):
    """A cache returns the value that it had before for the same key.

    Args:
        target: The function of the cache that reads, ``"app:Cache.get"``.
        lag: The number of different values to go back.

    Imitates: a replica that lags, an invalidation that was lost, a cache in each worker.

    Fidelity: the key is what the arguments are. A key that has always had the same value is not
    struck. None counts as a value only if it is the current one.

    Example: @chaos.stale_cache(target="json:loads", at=1)
    """

    site = RESULT
    random = False
    target: str
    lag: int = 1

    def check(self) -> None:
        """Check the parameters."""
        _check_target(self)
        if not is_drawn(self.lag) and not index(self.lag):
            raise BadArgument(f"{self.name}: lag must be 1 or more, got {format_value(self.lag)}")

    @property
    def key(self) -> Key:
        """Count the results of each target separately."""
        return (self.site, self.target)

    def observe(self, visit: Visit) -> None:
        """Keep the values of each key that differ, the latest last."""
        if visit.payload is None or len(visit.memory) >= MAX_KEYS:
            return
        kept = visit.memory.setdefault(_key_of(visit), [])
        if not kept or not alike(kept[-1], visit.payload):
            kept.append(visit.payload)
        del kept[: -self.lag - 1]

    def apply(self, visit: Visit) -> Any:
        """Return the earlier value."""
        earlier = [
            value
            for value in visit.memory.get(_key_of(visit), ())
            if not alike(value, visit.payload)
        ]
        if len(earlier) < self.lag:
            raise PayloadMismatch(
                f"{self.name}: {self.target} must have returned a different value for this key "
                f"before, got none yet. Strike a later call with at="
            )
        return earlier[-self.lag]


def _key_of(visit: Visit) -> Any:
    arguments = visit.attributes.get("arguments")
    if arguments is None:
        return None
    args, kwargs = arguments
    named = [*enumerate(args), *sorted(kwargs.items())]
    return tuple((name, fingerprint(value) or id(value)) for name, value in named)
