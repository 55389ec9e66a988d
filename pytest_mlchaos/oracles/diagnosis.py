"""Why a resumed run diverged: the first thing in which it differs from the golden run, and what that suggests."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.crashes import Divergence, StepRecord, Trace

__all__ = ["align", "first_divergence", "lost_generator", "matching"]

RNGS = ("rng.torch", "rng.numpy", "rng.python")
SETTINGS = ("learning rate", "hyperparameters", "gradient scaler", "ema")
"""What nothing but a lost state changes."""
MOVED = ("parameters", "optimizer state", "buffers")
"""What each step changes: other data, or other random numbers, show here a step later (in buffers within the step)."""
STATE = ("optimizer state", *SETTINGS, "buffers")
"""What a checkpoint has to hold besides the parameters."""
_HINTS = {
    "optimizer state": "the optimizer's state is not restored",
    "learning rate": "the learning rate is not restored: is the scheduler's state saved, and loaded behind the optimizer's?",
    "hyperparameters": "the optimizer's hyperparameters are not restored",
    "gradient scaler": "the gradient scaler's state is not restored",
    "ema": "the moving average of the parameters (a copy of the model that is not trained) is not restored",
    "buffers": "buffers (running statistics, say) are not restored",
}


def align(golden: Trace, resumed: Trace) -> int | None:
    """The step of the golden run from which a resumed run went on, told by its parameters; None where they never were so.

    A run that takes no step at all had nothing left to do; one that goes on from the end does too much.
    """
    if not resumed.steps:
        return len(golden.steps)
    first = resumed.steps[0]
    parameters = first.digests.get("parameters")
    if parameters is None:
        return _by_count(golden, resumed)
    counted = _by_count(golden, resumed)
    candidates = [place for place, step in enumerate(golden.steps) if step.digests.get("parameters") == parameters]
    if not candidates:
        return len(golden.steps) if parameters == golden.final.get("parameters") else None
    return max(candidates, key=lambda place: (_alike(golden.steps[place], first), place == counted, place))


def _by_count(golden: Trace, resumed: Trace) -> int | None:
    at = len(golden.steps) - len(resumed.steps)
    return at if at >= 0 else None


def _alike(one: StepRecord, other: StepRecord) -> int:
    return sum(one.digests.get(name) == other.digests.get(name) for name in STATE)


def first_divergence(golden: Trace, resumed: Trace, at: int | None) -> Divergence | None:
    """The first difference that explains why the end is another; None where steps show none.

    ``at``: the golden step that the first resumed one stands for.
    """
    if at is None:
        return _never_existed(golden, resumed)
    for offset, step in enumerate(resumed.steps):
        place = at + offset
        if place >= len(golden.steps):
            more = len(resumed.steps) - offset
            done = "" if offset else ": the training was complete, and is not told from one that is not"
            return Divergence(place, "number of steps", f"it took {more} more than the run without a crash{done}")
        found = _at_step(golden, resumed, at, offset, step)
        if found is not None:
            return found
    if not resumed.stopped and at + len(resumed.steps) < len(golden.steps):
        missing = len(golden.steps) - at - len(resumed.steps)
        return Divergence(at + len(resumed.steps), "number of steps", f"it took {missing} fewer than the run without a crash")
    return _at_the_end(golden, resumed, at)


def matching(golden: Trace, resumed: Trace) -> int:
    """How many of a resumed run's last steps were the golden run's, but for generators that nobody draws from."""
    at, count = align(golden, resumed), 0
    if at is None or at + len(resumed.steps) > len(golden.steps):
        return 0
    unused = {name for name in RNGS if not _is_used(golden, name)}
    for mine, theirs in zip(reversed(resumed.steps), reversed(golden.steps[: at + len(resumed.steps)]), strict=False):
        same = all(theirs.digests.get(name) == digest for name, digest in mine.digests.items() if name not in unused)
        if not same or mine.data != theirs.data:
            break
        count += 1
    return count


def _never_existed(golden: Trace, resumed: Trace) -> Divergence:
    place = max(0, len(golden.steps) - len(resumed.steps))
    first = resumed.steps[0]
    same = [
        f"{name} as before step {number}"
        for name in STATE
        if (
            number := next(
                (i for i, step in enumerate(golden.steps) if name in first.digests and step.digests.get(name) == first.digests[name]), None
            )
        )
    ]
    known = f"; it has {same[0]}" if same else ""
    return Divergence(place, "parameters", f"it went on from parameters that the run without a crash never had{known}")


def _at_step(golden: Trace, resumed: Trace, at: int, offset: int, step: StepRecord) -> Divergence | None:
    """The first step that differs. Of what differs in it, what cannot come from anything else that does."""
    place = at + offset
    expected = golden.steps[place]
    if _differ(expected, step, "scheduler") and (late := _wrong_rate(golden, resumed, at, offset)) is not None:
        when = "" if late == place else f"; the rate is another from step {late} on"
        return Divergence(place, "learning rate", f"the scheduler's state is not restored{when}")
    lost = [name for name in (*(["optimizer state"] if not offset else []), *SETTINGS) if _differ(expected, step, name)]
    if lost and (not offset or not _differ(expected, step, "parameters")):
        return Divergence(place, lost[0], _HINTS[lost[0]])
    rngs = [name for name in RNGS if _is_used(golden, name) and _since(golden, resumed, at, offset, name) is not None]
    if step.data != expected.data or (not step.data and step.batches != expected.batches):
        return _data(golden, resumed, at, offset, rngs)
    moved = [name for name in MOVED if _differ(expected, step, name)]
    if not moved:
        return None
    if rngs and offset:
        since = min(_since(golden, resumed, at, offset, name) or 0 for name in rngs)
        return Divergence(at + since, rngs[0], _rng_detail(rngs))
    detail = (
        _HINTS.get(moved[0], "") if not offset else f"{moved[0]} differ though data, random numbers and what was restored were the same"
    )
    return Divergence(place, moved[0], detail)


def _wrong_rate(golden: Trace, resumed: Trace, at: int, offset: int) -> int | None:
    """The first step, from this one on, whose learning rate is another: a scheduler's state shows only there."""
    pairs = enumerate(zip(golden.steps[at + offset :], resumed.steps[offset:], strict=False), at + offset)
    return next((place for place, (one, other) in pairs if _differ(one, other, "learning rate")), None)


def lost_generator(golden: Trace, resumed: Trace) -> Divergence | None:
    """Of runs that take no steps: a global generator that the golden run draws from, and that ends in another state."""
    lost = [
        name
        for name in RNGS
        if name in golden.random and name in resumed.random and _drawn(golden, name) and golden.random[name][1] != resumed.random[name][1]
    ]
    return Divergence(0, lost[0], f"{_rng_detail(lost)}: at the end it is in another one than without a crash") if lost else None


def _drawn(trace: Trace, name: str) -> bool:
    before, after = trace.random[name]
    return before != after


def _since(golden: Trace, resumed: Trace, at: int, offset: int, name: str) -> int | None:
    """The first resumed step, up to ``offset``, that has another one."""
    return next((place for place in range(offset + 1) if _differ(golden.steps[at + place], resumed.steps[place], name)), None)


def _at_the_end(golden: Trace, resumed: Trace, at: int) -> Divergence | None:
    """What the last step has made different."""
    last, place = len(resumed.steps) - 1, at + len(resumed.steps)
    wrong = [
        name for name in (*SETTINGS, *MOVED) if name in golden.final and name in resumed.final and golden.final[name] != resumed.final[name]
    ]
    if not wrong:
        return None
    rngs = [name for name in RNGS if last >= 0 and _is_used(golden, name) and _since(golden, resumed, at, last, name) is not None]
    if rngs and wrong[0] in MOVED:
        return Divergence(at + (_since(golden, resumed, at, last, rngs[0]) or 0), rngs[0], _rng_detail(rngs))
    return Divergence(place, wrong[0], _HINTS.get(wrong[0], "they differ at the end, though all steps began alike"))


def _differ(one: StepRecord, other: StepRecord, name: str) -> bool:
    return name in one.digests and name in other.digests and one.digests[name] != other.digests[name]


def _is_used(golden: Trace, rng: str) -> bool:
    """Whether the golden run draws from it, for something that is used."""
    return rng not in golden.idle and len({step.digests.get(rng) for step in golden.steps}) > 1


def _rng_detail(rngs: Sequence[str]) -> str:
    others = f", nor {' and '.join(rngs[1:])}" if len(rngs) > 1 else ""
    return f"the random number generator's state is not restored{others}"


def _data(golden: Trace, resumed: Trace, at: int, offset: int, rngs: Sequence[str]) -> Divergence:
    """Other data than in the golden run: the same in another order, or other random numbers in it."""
    place = at + offset
    step, expected = resumed.steps[offset], golden.steps[place]
    if words := _lost_gradients(step.data, expected.data):
        return Divergence(place, "data order", words)
    same_batches = bool(step.batches) and step.batches == expected.batches
    elsewhere = None if same_batches else _elsewhere(golden, step, place)
    if elsewhere is not None:
        return Divergence(place, "data order", _order_detail(golden, elsewhere, place))
    if rngs:
        what = "so the data are other ones" if not same_batches else "so what is made of the same batch is another"
        return Divergence(place, rngs[0], f"{_rng_detail(rngs)}, {what}")
    return Divergence(place, "data order", "the data are other ones than in the run without a crash")


def _lost_gradients(given: Sequence[bytes], expected: Sequence[bytes]) -> str:
    """Of a step that is given but the last of its micro-batches: the gradients of the others are not in the checkpoint."""
    if not 0 < len(given) < len(expected) or tuple(given) != tuple(expected[-len(given) :]):
        return ""
    return f"the gradients that were accumulated before are lost: the step has the last {len(given)} of its {len(expected)} batches"


def _elsewhere(golden: Trace, step: StepRecord, place: int) -> int | None:
    """The golden step that was given the same data: the first of the epoch, if it is one of them, else the nearest."""
    mine = step.data or step.batches
    found = [number for number, other in enumerate(golden.steps) if (other.data or other.batches) == mine] if mine else []
    epoch = _epoch(golden, place)
    return epoch if epoch in found else min(found, key=lambda number: (abs(number - place), number), default=None)


def _epoch(golden: Trace, place: int) -> int:
    """The first step of the epoch that a step belongs to, as far as loaders tell."""
    return max((start for start in golden.epochs if start <= place), default=0)


def _order_detail(golden: Trace, found: int, place: int) -> str:
    if found == _epoch(golden, place):
        return "the position in the epoch is not restored: it begins with the epoch's first batch again"
    if found == place - 1:
        return f"off by one: the batch of step {found} is repeated"
    if found == place + 1:
        return f"off by one: the batch of step {place} is skipped"
    return f"the batch of step {found} comes instead"
