"""A fault, struck by hand."""

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
    """What became of some visits: what came out of each (or the exception that it ended in), the journal, and the seconds that passed."""

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
    """Pass the fault's site once for each payload, under a schedule of this fault alone; delays take no time.

    What comes out of a visit is the payload to go on with. ``operation(payload)``: what is done with it at the site, while contexts that
    the fault has entered are open; then its result is what comes out. ``stream``: the payloads come from a stream, as a loader's batches
    do, and there may come out more or fewer of them. ``attributes``: of each visit.
    """
    with Controller(Schedule((fault,), seed), VirtualClock()) as controller, controller.resources, controller.process:
        start = controller.clock.now()
        if stream:
            outcomes = list(_handed_out(controller, Source(fault.key, iter(payloads).__next__, attributes)))
        else:
            outcomes = [_outcome(controller, fault.key, payload, attributes, operation or _itself) for payload in payloads]
        return StrikeResult(outcomes, controller.journal, controller.clock.now() - start)


def _itself(payload: Any) -> Any:
    return payload


def _outcome(controller: Controller, key: Key, payload: Any, attributes: Mapping[str, Any], operation: Callable[[Any], Any]) -> Any:
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
