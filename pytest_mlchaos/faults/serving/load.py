"""Define faults of the load on a served app: too many requests, and clients that try again."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from ...core.clients import Company
from ...core.faults import Fault, is_drawn, register
from ...core.sites import Visit
from ...core.validation import format_value, is_real, parse_duration, parse_positive_duration
from ...engine.controller import current_clock
from ...errors import BadArgument, PayloadMismatch

__all__ = ["Overload", "RetryStorm"]
LAYER = "Calls and services"


def _company(visit: Visit) -> Company | None:
    """Return what comes with a request, which passes the site beside the request or by itself."""
    company = visit.attributes.get("company", visit.payload)
    return company if isinstance(company, Company) else None


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class LoadFault(Fault):
    """A fault of the load, which lasts for some time.

    It begins at the request that ``at`` counts. With several numbers in ``at``, or with ``p``, only
    these requests are struck.
    """

    site = "serve.request"
    random = False
    duration: Any = "10s"

    def check(self) -> None:
        """Convert ``duration`` to seconds."""
        if not is_drawn(self.duration):
            seconds = parse_positive_duration(self.duration, f"{self.name}: duration")
            object.__setattr__(self, "duration", seconds)

    @property
    def is_consecutive(self) -> bool:
        """Return True if the requests from one on are struck, until the time is over."""
        return isinstance(self.at, tuple) and len(self.at) == 1

    def possible(self, visit: Visit) -> bool:
        """Return True if the app can get several requests at the same time."""
        return _company(visit) is not None

    def apply(self, visit: Visit) -> Company | None:
        """Send more requests, unless the time is over."""
        company = _company(visit)
        if company is None:
            raise PayloadMismatch(
                f"{self.name}: the app must be an ASGI app or a coroutine function. A plain function "
                f"gets one request after another"
            )
        if self.is_consecutive and self.times is None:
            now = current_clock().now()
            if now >= visit.memory.setdefault("until", now + self.duration):
                visit.skip()
                return None
        if company is visit.payload:
            company = dataclasses.replace(company)
        self.multiply(company, visit)
        return company if isinstance(visit.payload, Company) else None

    def multiply(self, company: Company, visit: Visit) -> None:
        """Say how many requests come with this one."""
        raise NotImplementedError


@register
class Overload(LoadFault):
    """More requests arrive for some time: copies of those that arrive anyway.

    Judge with ``load.assert_sheds_load()``, ``load.assert_slo(...)`` or
    ``load.assert_recovered(...)``. The replies to the copies are not part of the load.

    Args:
        factor: The factor by which the number of requests grows, above 1.
        duration: The time for which it lasts: seconds, or ``"10s"``.

    Imitates: a campaign, a crawler, a neighbour that fails over to this service.

    Fidelity: the copies arrive at the same moment as their original, mostly just before it, and ask
    for the same. Give the app a capacity with ``mlchaos.capacity``, because computing takes no time
    on the virtual clock. A plain function gets one request after another, so it is not struck.

    Example: @chaos.overload(factor=3, at=0)
    """

    factor: float = 3.0

    def check(self) -> None:
        """Check the parameters."""
        super().check()
        if not is_drawn(self.factor) and not (is_real(self.factor) and 1 < self.factor < math.inf):
            raise BadArgument(
                f"{self.name}: factor must be a number above 1, got {format_value(self.factor)}"
            )

    def multiply(self, company: Company, visit: Visit) -> None:
        """Let copies arrive, so many that the mean is right."""
        extra = visit.memory.get("extra", 0.0) + self.factor - 1
        company.copies += int(extra)
        visit.memory["extra"] = extra - int(extra)
        visit.note(copies=company.copies)


@register
class RetryStorm(LoadFault):
    """Clients give up early and try again at once, for some time.

    Each request is sent several times. The client leaves all attempts but the last, whose reply is
    judged.

    Args:
        retries: The number of attempts that the client gives up.
        after: The time after which it does: seconds, or ``"10ms"``.
        duration: The time for which it lasts: seconds, or ``"10s"``.

    Imitates: clients without a back-off after a slow moment, a balancer that tries again by itself.

    Fidelity: an attempt that is given up may have done its work, as in production. Clients that try
    again after errors alone are those of ``drive(retries=...)``. A plain function gets one request
    after another, so it is not struck.

    Example: @chaos.retry_storm(retries=3, at=0)
    """

    retries: int = 3
    after: Any = "10ms"

    def check(self) -> None:
        """Check the parameters."""
        super().check()
        if not is_drawn(self.retries) and self.retries < 1:
            raise BadArgument(f"{self.name}: retries must be 1 or more, got {self.retries}")
        if not is_drawn(self.after):
            object.__setattr__(self, "after", parse_duration(self.after, f"{self.name}: after"))

    def multiply(self, company: Company, visit: Visit) -> None:
        """Let the client give up some attempts."""
        company.retries += self.retries
        company.after = self.after
        visit.note(retries=self.retries)
