"""Decide when a client tries again, and after which time."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping
from typing import Any

from ..core.replies import Reply
from ..core.sites import derive_seed
from ..core.validation import did_you_mean, format_value, index, is_real, parse_duration
from ..errors import BadArgument

__all__ = ["Retries", "parse_retries"]

TOO_MANY_REQUESTS = 429
MAX_ATTEMPTS = 1000
"""The number of attempts of one request after which a policy counts as one that never ends."""
Policy = Callable[[Reply, int], Any]


def is_worth_a_retry(reply: Reply) -> bool:
    """Return True for an error, a status of 429, and a client that ran out of patience."""
    return not reply.ok or reply.left is not None or reply.status == TOO_MANY_REQUESTS


@dataclasses.dataclass(frozen=True, slots=True)
class Retries:
    """A policy of retries.

    Attributes:
        number: The largest number of retries of one request.
        backoff: The seconds before the first retry.
        factor: The factor by which they grow.
        max: The largest number of seconds.
        jitter: The share of this time that is random: 0 for none, 1 for all of it.
        retry_after: True to wait as long as a ``Retry-After`` header asks for.
        when: A predicate on the reply: True to try again.
        policy: A function of the reply and the number of attempts so far, in place of all this.
    """

    number: int
    backoff: float = 0.1
    factor: float = 2.0
    max: float = 10.0
    jitter: float = 0.5
    retry_after: bool = True
    when: Callable[[Reply], object] = is_worth_a_retry
    policy: Policy | None = None

    def delay(self, reply: Reply, attempts: int, seed: int) -> float | None:
        """Return the seconds until the next attempt, or None for the last one.

        Args:
            reply: The reply to the last attempt.
            attempts: The number of attempts so far.
            seed: A number for the jitter, the same for all attempts of one request.

        Raises:
            BadArgument: The policy asks for more and more attempts.
        """
        if self.policy is not None:
            given = self.policy(reply, attempts)
            if given is None or given is False:
                return None
            if attempts >= MAX_ATTEMPTS:
                raise BadArgument(
                    f"drive: retries must end, but {reply} was sent {attempts} times, and the "
                    f"policy asks for more. Return None after a number of attempts"
                )
            return parse_duration(given, "drive: the result of retries")
        if attempts > self.number or not self.when(reply):
            return None
        full = min(self.max, self.backoff * self.factor ** (attempts - 1))
        if self.jitter:
            chance = random.Random(derive_seed("retry", seed, attempts)).random()
            full *= 1 - self.jitter * chance
        return max(full, self._asked(reply))

    def _asked(self, reply: Reply) -> float:
        """Return the seconds that the app asks its client to wait."""
        asked = reply.headers.get("retry-after", "") if self.retry_after else ""
        return float(asked) if str(asked).isdecimal() else 0.0


def parse_retries(value: Any) -> Retries | None:
    """Read a number of retries, a dict of a policy, or a function. Return None for no retries.

    Raises:
        BadArgument: It is none of these.
    """
    if value is None or (index(value) == 0 and not isinstance(value, bool)):
        return None
    if isinstance(value, Retries):
        return value
    number = index(value)
    if number is not None:
        return Retries(_bounded(number))
    if callable(value):
        return Retries(0, policy=value)
    if not isinstance(value, Mapping):
        raise BadArgument(
            f"drive: retries must be a number of retries, a dict such as "
            f"{{'number': 2, 'backoff': '100ms'}}, or a function of the reply and the number of "
            f"attempts, got {format_value(value)}"
        )
    return _from_mapping(value)


def _bounded(number: int) -> int:
    if number >= MAX_ATTEMPTS:
        raise BadArgument(f"drive: retries must be below {MAX_ATTEMPTS}, got {number}")
    return number


def _from_mapping(given: Mapping[Any, Any]) -> Retries:
    known = [field.name for field in dataclasses.fields(Retries) if field.name != "policy"]
    for name in given:
        if name not in known:
            raise BadArgument(
                f"drive: retries has no key {name!r}{did_you_mean(str(name), known)}. The keys are "
                f"{', '.join(known)}"
            )
    number = index(given.get("number"))
    if number is None:
        raise BadArgument(
            f"drive: retries['number'] must be a number of retries, got "
            f"{format_value(given.get('number'))}"
        )
    values: dict[str, Any] = {**given, "number": _bounded(number)}
    for name in ("backoff", "max"):
        if name in values:
            values[name] = parse_duration(values[name], f"drive: retries[{name!r}]")
    for name, least, most in (("factor", 1.0, 1e6), ("jitter", 0.0, 1.0)):
        value = values.get(name, least)
        if not is_real(value) or not least <= value <= most:
            raise BadArgument(
                f"drive: retries[{name!r}] must be from {least:g} to {most:g}, got "
                f"{format_value(value)}"
            )
    if not callable(values.get("when", is_worth_a_retry)):
        raise BadArgument(
            f"drive: retries['when'] must be a predicate on the reply, got "
            f"{format_value(values['when'])}"
        )
    return Retries(**values)
