"""Define faults of zones: one goes away, or some of them cannot reach each other."""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import Any, Literal

from ..core.faults import is_drawn, register
from ..core.network import Exchange, Outage, is_cut
from ..core.sites import Key, Visit
from ..core.validation import format_value, parse_positive_duration
from ..errors import BadArgument, PayloadMismatch
from .network import NetworkFault, fails

__all__ = ["ZoneOutage", "ZonePartition"]
LAYER = "Network"

OUTAGE_SECONDS = 600.0
"""The duration of an outage that names none."""


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class LastingOutage(NetworkFault):
    """A fault of the network that lasts, and heals."""

    heal_after: Any = None
    duration: Any = None
    connections: int | None = None
    kind: Literal["refused", "blackhole"] = "refused"

    def check(self) -> None:
        """Convert durations to seconds."""
        super().check()
        for name in ("heal_after", "duration"):
            value = getattr(self, name)
            if value is not None and not is_drawn(value):
                seconds = parse_positive_duration(value, f"{self.name}: {name}")
                object.__setattr__(self, name, seconds)
        if self.connections is not None and not is_drawn(self.connections) and self.connections < 1:
            raise BadArgument(f"{self.name}: connections must be 1 or more, got {self.connections}")
        given = [
            f"{name}="
            for name in ("heal_after", "duration", "connections")
            if getattr(self, name) is not None
        ]
        if len(given) > 1:
            raise BadArgument(
                f"{self.name}: {' and '.join(given)} exclude each other. Give one of them"
            )

    def begin(self, visit: Visit, apart: tuple[tuple[str, ...], ...] = ()) -> Exchange:
        """Fail this exchange, and those that follow until the end."""
        seconds = self.heal_after if self.duration is None else self.duration
        if self.connections is not None:
            outage = Outage(connections=self.connections - 1, apart=apart)
        elif seconds is None and self.times is not None:
            outage = Outage(apart=apart)
        else:
            outage = Outage(OUTAGE_SECONDS if seconds is None else seconds, apart=apart)
            visit.last(outage.seconds or 0.0)
        return dataclasses.replace(fails(visit, self.kind), outage=outage)


@register
class ZoneOutage(LastingOutage):
    """A zone goes away, and comes back: its proxies, and its members in ``mlchaos.zones``.

    Connections that are open are reset. A call that is under way loses its answer.

    Args:
        zone: The zone, as in ``mlchaos.zones({"eu": ...})`` or ``mlchaos.proxy(url, zone="eu")``.
            Without it, the zone of the first call or connection that ``at`` counts, and no other.
        heal_after: The seconds on the clock of the trial, or ``"30s"``. It is 10 minutes if neither
            it nor ``duration`` nor ``connections`` nor ``times`` is given.
        duration: The same as ``heal_after``.
        connections: The number of connections, requests and calls in a row that fail, instead of a
            duration.
        kind: ``"refused"``, or ``"blackhole"``: connections are accepted and never answer.
        url: A pattern of addresses, as for ``refused``.
        target: A client, as for ``refused``.

    Imitates: a region or an availability zone that fails, and its return.

    Fidelity: the servers keep running, so their data is the same afterwards. Code of the zone that
    runs already goes on, and its answer is lost at its end, not at once. Connections without a
    proxy, and calls of functions that are not members, belong to no zone.

    Source: AWS post-event summaries, https://aws.amazon.com/premiumsupport/technology/pes/

    Example: @chaos.zone_outage(zone="eu", connections=3, at=0)
    """

    def possible(self, visit: Visit) -> bool:
        """Return False for an exchange that belongs to no zone."""
        return self.zone is not None or bool(visit.payload.zone)

    def apply(self, visit: Visit) -> Exchange | None:
        """Fail this exchange, and those of the zone that follow."""
        if self.zone is None and visit.attributes.get("struck_elsewhere"):
            visit.skip()  # one zone at a time: nothing survives the loss of all
            return None
        if not self.possible(visit):
            raise PayloadMismatch(
                f"{self.name}: {visit.payload.origin} belongs to no zone. Name the zone with zone=, "
                f"or put it into one with mlchaos.zones"
            )
        return self.begin(visit)


@register
class ZonePartition(LastingOutage):
    """Zones cannot reach each other for some time, and then they can again.

    Calls, connections and requests from one group of zones to another fail. Those inside a group
    work. A call that is under way between two groups loses its answer. ``at`` counts the calls
    between the groups.

    Args:
        zones: The groups, as in ``[["eu"], ["us", "asia"]]``, or ``["eu", "us"]``. A zone in no
            group is reached from all. Without it, the zones of the caller and of the first call
            that ``at`` counts.
        heal_after: The seconds on the clock of the trial, or ``"30s"``. It is 10 minutes if neither
            it nor ``duration`` nor ``connections`` nor ``times`` is given.
        duration: The same as ``heal_after``.
        connections: The number of calls in a row that fail, instead of a duration.
        kind: ``"refused"``, or ``"blackhole"``: calls never answer.
        zone: The zone that is called.
        url: A pattern of addresses, as for ``refused``.
        target: A client, as for ``refused``.

    Imitates: a cut fibre between regions, a wrong route or firewall rule, a switch that fails.

    Fidelity: code runs in the zone of the member of ``mlchaos.zones`` that it belongs to, and other
    code (the balancer) in ``home=``, or in no zone. Code in no zone reaches all zones. Requests of
    a member's own threads count only if a thread pool runs them.

    Source: Bailis and Kingsbury, The Network is Reliable, ACM Queue 12(7), 2014

    Example: @chaos.zone_partition(zones=[["eu"], ["us"]], heal_after="30s", at=0)
    """

    zones: Any = None

    def check(self) -> None:
        """Check the groups."""
        super().check()
        if self.zones is None or is_drawn(self.zones):
            return
        groups = _groups(self.zones)
        named = list(itertools.chain(*(groups or ())))
        if groups is None or len(groups) < 2 or len(set(named)) < len(named):
            raise BadArgument(
                f"{self.name}: zones must be two or more groups of different zones, as in "
                f"[['eu'], ['us']], got {format_value(self.zones)}"
            )
        object.__setattr__(self, "zones", groups)

    @property
    def key(self) -> Key:
        """Count the calls between the groups."""
        chosen = super().key
        before = "" if isinstance(chosen, str) else f"{chosen[1]} "
        return (self.site, f"{before}apart={json.dumps(self.zones or [])}")

    def possible(self, visit: Visit) -> bool:
        """Return False for an exchange inside a zone, or of code in no zone."""
        return self._cuts(visit.payload)

    def _cuts(self, exchange: Exchange) -> bool:
        if not (exchange.caller and exchange.zone):
            return False
        return is_cut(self._apart(exchange), exchange.caller, exchange.zone)

    def _apart(self, exchange: Exchange) -> tuple[tuple[str, ...], ...]:
        return self.zones or ((exchange.caller,), (exchange.zone,))

    def apply(self, visit: Visit) -> Exchange | None:
        """Fail this exchange, and those between the groups that follow."""
        if self.zones is None and visit.attributes.get("struck_elsewhere"):
            visit.skip()
            return None
        exchange: Exchange = visit.payload
        if not self._cuts(exchange):
            raise PayloadMismatch(
                f"{self.name}: the call of {exchange.origin} crosses no two zones. Put the caller "
                f"and the called into zones with mlchaos.zones, or give it home="
            )
        visit.note(caller=exchange.caller)
        return self.begin(visit, self._apart(exchange))


def _groups(value: object) -> tuple[tuple[str, ...], ...] | None:
    """Return groups of zones as tuples, or None if they are none."""
    if not isinstance(value, (list, tuple)):
        return None
    groups = tuple((one,) if isinstance(one, str) else one for one in value)
    if not all(isinstance(group, (list, tuple, set, frozenset)) and group for group in groups):
        return None
    found = tuple(
        tuple(sorted(group) if isinstance(group, (set, frozenset)) else group) for group in groups
    )
    if not all(isinstance(zone, str) and zone.strip() for group in found for zone in group):
        return None
    return found
