"""Strike a fault by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ..core.clock import VirtualClock
from ..core.faults import Fault
from ..core.journal import Journal
from ..core.schedule import Schedule
from ..core.sites import Key
from ..engine.controller import NO_ATTRIBUTES, Controller
from ..engine.streams import Source

__all__ = ["StrikeResult", "strike"]


@dataclasses.dataclass(frozen=True)
class StrikeResult:
    """The result of some visits.

    Attributes:
        outcomes: For each visit, the payload that came out, or the exception in which it ended.
        journal: The strikes.
        duration: The seconds that passed on the virtual clock.
    """

    outcomes: Sequence[Any]
    journal: Journal
    duration: float


def strike(
    fault: Fault,
    payloads: Sequence[Any],
    *,
    seed: int = 0,
    operation: Callable[[Any], Any] | None = None,
    stream: bool = False,
    attributes: Mapping[str, Any] = NO_ATTRIBUTES,
) -> StrikeResult:
    """Visit the fault's site once for each payload, under a schedule of this fault alone.

    Delays take no time.

    Args:
        fault: The fault.
        payloads: The payloads, one for each visit.
        seed: The seed of the schedule.
        operation: A function of the payload, called at the site while contexts that the fault keeps
            open are open. Its result is the outcome. Without it, the outcome is the new payload.
        stream: If true, the payloads come from a stream, as a loader's batches do. More or fewer of
            them may come out.
        attributes: The attributes of each visit.
    """
    with (
        Controller(Schedule((fault,), seed), VirtualClock()) as controller,
        controller.resources,
        controller.process,
    ):
        controller.attributes = attributes  # faults of ranks look at them
        start = controller.clock.now()
        if stream:
            outcomes = list(
                _handed_out(controller, Source(fault.key, iter(payloads).__next__, attributes))
            )
        else:
            outcomes = [
                _outcome(controller, fault.key, payload, attributes, operation or _itself)
                for payload in payloads
            ]
        return StrikeResult(outcomes, controller.journal, controller.clock.now() - start)


def _itself(payload: object) -> Any:
    return payload


def _outcome(
    controller: Controller,
    key: Key,
    payload: object,
    attributes: Mapping[str, Any],
    operation: Callable[[Any], Any],
) -> Any:
    try:
        gate = controller.begin(key, payload, attributes)
        if gate is None:
            return operation(payload)
        with gate:
            gate.wait()
            return operation(gate.payload)
    except BaseException as error:  # noqa: BLE001  # how the visit ended is the outcome
        return error


def _handed_out(controller: Controller, source: Source) -> Iterator[Any]:
    while True:
        try:
            item = source.following(controller)
        except StopIteration:
            return
        except BaseException as error:  # noqa: BLE001  # how the visit ended is the outcome
            yield error
            if source.ended:
                return
        else:
            yield item
