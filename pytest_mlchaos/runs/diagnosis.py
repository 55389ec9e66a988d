"""Explain why a resumed run diverged: its first difference, and the likely cause."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Container, Sequence

from .traces import Divergence, StepRecord, Trace

__all__ = ["align", "first_divergence", "lost_generator", "step_keys", "unused_generators"]

RNGS = ("rng.torch", "rng.numpy", "rng.python")
SETTINGS = ("learning rate", "hyperparameters", "gradient scaler", "ema")
"""Components that change only if their state is not restored."""
MOVED = ("parameters", "optimizer state", "buffers")
"""Components that each step changes.

Different data or random numbers show here one step later (in buffers, in the same step).
"""
STATE = ("optimizer state", *SETTINGS, "buffers")
"""Components that a checkpoint must hold besides the parameters."""
_HINTS = {
    "optimizer state": "the optimizer's state is not restored",
    "learning rate": "the learning rate is not restored: check that the scheduler's state is saved, and loaded after the optimizer's",
    "hyperparameters": "the optimizer's hyperparameters are not restored",
    "gradient scaler": "the gradient scaler's state is not restored",
    "ema": "the moving average of the parameters (a copy of the model that is not trained) is not restored",
    "buffers": "buffers (for example, running statistics) are not restored",
}


def align(golden: Trace, resumed: Trace) -> int | None:
    """Return the golden run's step from which a resumed run continued, found by its parameters.

    Return None if the golden run never had these parameters. A run that takes no step had nothing
    left to do. One that continues from the end takes too many steps.
    """
    if not resumed.steps:
        return len(golden.steps)
    first = resumed.steps[0]
    parameters = first.digests.get("parameters")
    if parameters is None:
        return _by_count(golden, resumed)
    counted = _by_count(golden, resumed)
    candidates = [
        place
        for place, step in enumerate(golden.steps)
        if step.digests.get("parameters") == parameters
    ]
    if not candidates:
        return len(golden.steps) if parameters == golden.final.get("parameters") else None
    return max(
        candidates, key=lambda place: (_alike(golden.steps[place], first), place == counted, place)
    )


def _by_count(golden: Trace, resumed: Trace) -> int | None:
    end = resumed.stopped_after if resumed.stopped else len(golden.steps)
    at = end - len(resumed.steps)
    return at if at >= 0 else None


def _alike(one: StepRecord, other: StepRecord) -> int:
    return sum(one.digests.get(name) == other.digests.get(name) for name in STATE)


def first_divergence(golden: Trace, resumed: Trace, at: int | None) -> Divergence | None:
    """Return the first difference that explains the different end, or None if no step shows one.

    Args:
        golden: The golden run.
        resumed: The resumed run.
        at: The golden step that corresponds to the first resumed step.
    """
    if at is None:
        return _never_existed(golden, resumed)
    skipped = _skipped(golden, resumed, at)
    if skipped is not None:
        return skipped
    for offset, step in enumerate(resumed.steps):
        place = at + offset
        if place >= len(golden.steps):
            more = len(resumed.steps) - offset
            done = "" if offset else ": the training was complete, and the job did not detect that"
            return Divergence(
                place, "number of steps", f"it took {more} more than the run without a crash{done}"
            )
        found = _at_step(golden, resumed, at, offset, step)
        if found is not None:
            return found
    if not resumed.stopped and at + len(resumed.steps) < len(golden.steps):
        missing = len(golden.steps) - at - len(resumed.steps)
        return Divergence(
            at + len(resumed.steps),
            "number of steps",
            f"it took {missing} fewer than the run without a crash",
        )
    return _at_the_end(golden, resumed, at)


def _skipped(golden: Trace, resumed: Trace, at: int) -> Divergence | None:
    """Detect a checkpoint that counts more steps than its parameters have taken.

    The resumed run has the parameters from before a step, and continues after it.
    """
    end = len(golden.steps)
    if resumed.stopped:
        return None
    if not resumed.steps:
        if golden.final.get("parameters") in resumed.held:
            return None
        known = [
            place
            for place, step in enumerate(golden.steps)
            if step.digests.get("parameters") in resumed.held
        ]
        before = max(known, default=end)
        following, then = end, "no step follows"
    else:
        if _epoch(golden, at) is not None:
            # With a loader, a batch is skipped. Then a position in the data says more than a count.
            return None
        before, following = at, end - len(resumed.steps)
        mine = _given(resumed.steps[0])
        if (
            not at < following < end
            or not mine
            or mine != _given(golden.steps[following])
            or mine == _given(golden.steps[at])
        ):
            return None
        # In a checkpoint that was written too early, everything is from before the step. If not,
        # only the parameters are not restored.
        if _differ(golden.steps[at], resumed.steps[0], "optimizer state") or (
            at == 0 and following > 1
        ):
            return None
        then = f"the run continues with step {following}"
    missing = following - before
    if missing <= 0:
        return None
    words = "off by one: one step is missing" if missing == 1 else f"{missing} steps are missing"
    return Divergence(
        before,
        "number of steps",
        f"{words}: it resumed with the parameters from before step {before}, and {then}",
    )


def _given(step: StepRecord) -> tuple[bytes, ...]:
    """Return the data of a step, as far as they are known."""
    return step.data or step.batches


def unused_generators(golden: Trace) -> frozenset[str]:
    """Return the generators that the golden run does not use. Their states need not be equal."""
    return frozenset(name for name in RNGS if not _is_used(golden, name))


def step_keys(steps: Sequence[StepRecord], unused: Container[str]) -> list[bytes]:
    """Return for each step a key that is equal if all that is traced is equal.

    Args:
        steps: The steps.
        unused: The generators to leave out.
    """
    return [_step_key(step, unused) for step in steps]


def _step_key(step: StepRecord, unused: Container[str]) -> bytes:
    told = hashlib.blake2b(digest_size=16)
    for name in sorted(step.digests):
        if name not in unused:
            told.update(name.encode())
            told.update(step.digests[name])
    for one in step.data:
        told.update(one)
    return told.digest()


def _never_existed(golden: Trace, resumed: Trace) -> Divergence:
    place = max(0, len(golden.steps) - len(resumed.steps))
    first = resumed.steps[0]
    same = [
        f"{name} from before step {number}"
        for name in STATE
        if (
            number := next(
                (
                    i
                    for i, step in enumerate(golden.steps)
                    if name in first.digests and step.digests.get(name) == first.digests[name]
                ),
                None,
            )
        )
    ]
    known = f"; it has the {same[0]}" if same else ""
    return Divergence(
        place,
        "parameters",
        f"it resumed with parameters that the run without a crash never had{known}",
    )


def _at_step(
    golden: Trace, resumed: Trace, at: int, offset: int, step: StepRecord
) -> Divergence | None:
    """Describe a step that differs.

    Name the component whose difference no other one can explain.
    """
    place = at + offset
    expected = golden.steps[place]
    if (
        _differ(expected, step, "scheduler")
        and (late := _wrong_rate(golden, resumed, at, offset)) is not None
    ):
        when = "" if late == place else f"; the learning rate differs from step {late} on"
        return Divergence(place, "learning rate", f"the scheduler's state is not restored{when}")
    lost = [
        name
        for name in (*(["optimizer state"] if not offset else []), *SETTINGS)
        if _differ(expected, step, name)
    ]
    if lost and (not offset or not _differ(expected, step, "parameters")):
        return Divergence(place, lost[0], _HINTS[lost[0]])
    rngs = _generators(golden, resumed, at, offset)
    if step.data != expected.data or (not step.data and step.batches != expected.batches):
        return _data(golden, resumed, at, offset, rngs)
    moved = [name for name in MOVED if _differ(expected, step, name)]
    if not moved:
        return None
    # Different noise in a forward pass moves them in the same step.
    if not offset and moved == ["buffers"] and rngs.lost:
        consequence = "buffers differ in the same step: as a consequence, or because they are not restored either"
        return Divergence(place, rngs.lost[0], f"{_rng_detail(rngs.lost)}; {consequence}")
    if offset and (found := _by_generators(golden, resumed, at, offset, rngs)) is not None:
        return found
    if not offset:
        return Divergence(place, moved[0], _HINTS.get(moved[0], ""))
    same = (
        "data, random numbers and the restored state"
        if not rngs.drawn
        else "data and the restored state"
    )
    consequence = (
        f"; {_named(rngs.drawn)} differs in the same step, perhaps as a consequence"
        if rngs.drawn
        else ""
    )
    return Divergence(
        place, moved[0], f"{moved[0]} differ although {same} were the same{consequence}"
    )


def _wrong_rate(golden: Trace, resumed: Trace, at: int, offset: int) -> int | None:
    """Return the first step from here whose learning rate differs.

    Only the rate shows a scheduler's state.
    """
    pairs = enumerate(
        zip(golden.steps[at + offset :], resumed.steps[offset:], strict=False), at + offset
    )
    return next(
        (place for place, (one, other) in pairs if _differ(one, other, "learning rate")), None
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Generators:
    """The generators that the golden run uses, and whose state differs in the resumed run."""

    lost: list[str]
    """The resumed run started with a different state."""
    drawn: list[str]
    """It started with the same state, and has drawn different numbers since.

    This is a consequence of something else.
    """
    since: int
    """The first resumed step at which a lost generator differs.

    If none is lost, it is the first at which any differs.
    """


def _generators(golden: Trace, resumed: Trace, at: int, offset: int) -> _Generators:
    since = {
        name: found
        for name in RNGS
        if _is_used(golden, name)
        and (found := _since(golden, resumed, at, offset, name)) is not None
    }
    drawn = [name for name in since if _is_restored(golden, resumed, at, name)]
    lost = [name for name in since if name not in drawn]
    return _Generators(lost, drawn, min((since[name] for name in lost or drawn), default=0))


def _is_restored(golden: Trace, resumed: Trace, at: int, name: str) -> bool:
    """Return True if the generator's state was restored.

    It was the golden run's when it was loaded, or at the first step.
    """
    first = resumed.steps[0].digests.get(name)
    if first is not None and first == golden.steps[at].digests.get(name):
        return True
    return any(
        mark.name == name and mark.step == at and mark.state == resumed.restored.get(name)
        for mark in golden.marks
    )


def _by_generators(
    golden: Trace, resumed: Trace, at: int, offset: int, rngs: _Generators
) -> Divergence | None:
    """Explain different parameters by different random numbers of an earlier step."""
    if rngs.lost:
        return Divergence(at + rngs.since, rngs.lost[0], _rng_detail(rngs.lost))
    if rngs.drawn and rngs.since < offset:
        return Divergence(
            at + rngs.since, rngs.drawn[0], f"{_named(rngs.drawn)} was restored, but {_DRAWN}"
        )
    return None


_DRAWN = (
    "different numbers were drawn after it was loaded than without a crash: "
    "the value that decides how many are drawn (for example, the length of a buffer) is not "
    "restored, "
    "or some code draws only after a restart"
)


def lost_generator(golden: Trace, resumed: Trace) -> Divergence | None:
    """Find a lost generator in runs without steps.

    The golden run uses it, and its state differs at the end.

    A generator that was set to a state from the golden run was restored. Its different state at the
    end is a consequence.
    """
    saved = {(mark.name, mark.state) for mark in golden.marks if mark.read}
    lost = [
        name
        for name in RNGS
        if name in golden.random
        and name in resumed.random
        and _drawn(golden, name)
        and golden.random[name][1] != resumed.random[name][1]
        and (name, resumed.restored.get(name)) not in saved
    ]
    return (
        Divergence(
            0, lost[0], f"{_rng_detail(lost)}: at the end, it differs from the run without a crash"
        )
        if lost
        else None
    )


def _drawn(trace: Trace, name: str) -> bool:
    before, after = trace.random[name]
    return before != after


def _since(golden: Trace, resumed: Trace, at: int, offset: int, name: str) -> int | None:
    """Return the first resumed step, up to ``offset``, at which this generator differs."""
    return next(
        (
            place
            for place in range(offset + 1)
            if _differ(golden.steps[at + place], resumed.steps[place], name)
        ),
        None,
    )


def _at_the_end(golden: Trace, resumed: Trace, at: int) -> Divergence | None:
    """Describe the differences after the last step."""
    last, place = len(resumed.steps) - 1, at + len(resumed.steps)
    wrong = [
        name
        for name in (*SETTINGS, *MOVED)
        if name in golden.final
        and name in resumed.final
        and golden.final[name] != resumed.final[name]
    ]
    if not wrong:
        return None
    if last >= 0 and wrong[0] in MOVED:
        found = _by_generators(
            golden, resumed, at, last + 1, _generators(golden, resumed, at, last)
        )
        if found is not None:
            return found
    return Divergence(
        place,
        wrong[0],
        _HINTS.get(
            wrong[0], "they differ at the end, although all steps started with the same state"
        ),
    )


def _differ(one: StepRecord, other: StepRecord, name: str) -> bool:
    return (
        name in one.digests and name in other.digests and one.digests[name] != other.digests[name]
    )


def _is_used(golden: Trace, rng: str) -> bool:
    """Return True if the golden run uses the numbers of this generator."""
    return rng not in golden.idle and len({step.digests.get(rng) for step in golden.steps}) > 1


def _named(names: Sequence[str]) -> str:
    return " and ".join(names)


def _rng_detail(rngs: Sequence[str]) -> str:
    others = f", nor {' and '.join(rngs[1:])}" if len(rngs) > 1 else ""
    return f"the random number generator's state is not restored{others}"


def _data(golden: Trace, resumed: Trace, at: int, offset: int, rngs: _Generators) -> Divergence:
    """Describe different data: in a different order, or with different random numbers."""
    place = at + offset
    step, expected = resumed.steps[offset], golden.steps[place]
    if words := _lost_gradients(step.data, expected.data):
        return Divergence(place, "data order", words)
    same_batches = bool(step.batches) and step.batches == expected.batches
    elsewhere = None if same_batches else _elsewhere(golden, step, place)
    epoch = _epoch(golden, place)
    if elsewhere is not None and not (rngs.lost and epoch is None):
        return Divergence(
            place, "data order", _order_detail(epoch, elsewhere, place) + _drawn_too(rngs)
        )
    if rngs.lost:
        what = (
            "so the data differ"
            if not same_batches
            else "so the inputs made from the same batch differ"
        )
        if elsewhere is not None:
            what = f"{what}: the step got the batch of step {elsewhere} instead"
        also = (
            "" if epoch is not None else " (unless the source of the data is not restored either)"
        )
        return Divergence(place, rngs.lost[0], f"{_rng_detail(rngs.lost)}, {what}{also}")
    what = (
        "this step got different data"
        if not same_batches
        else "this step made different inputs from the same batch"
    )
    return Divergence(
        place, "data order", f"{what} than in the run without a crash{_drawn_too(rngs)}"
    )


def _drawn_too(rngs: _Generators) -> str:
    """Describe generators that differ although they were restored.

    They explain the data, or the data explain them.
    """
    if rngs.lost or not rngs.drawn:
        return ""
    names = _named(rngs.drawn)
    return (
        f"; {names} was restored, but differs in the same step: either the source of the data (for "
        f"example, a buffer or a list) is "
        f"not restored, which also changes {names}, or more or fewer numbers were drawn after the "
        f"load, which also changes the data"
    )


def _lost_gradients(given: Sequence[bytes], expected: Sequence[bytes]) -> str:
    """Describe a step that received only the last of its micro-batches.

    The gradients of the others are not in the checkpoint.
    """
    if not 0 < len(given) < len(expected) or tuple(given) != tuple(expected[-len(given) :]):
        return ""
    return f"the gradients that were accumulated before are lost: the step has the last {len(given)} of its {len(expected)} batches"


def _elsewhere(golden: Trace, step: StepRecord, place: int) -> int | None:
    """Return the golden step with the same data.

    It is the first of the epoch, if that is one of them, or the nearest.
    """
    mine = step.data or step.batches
    found = (
        [
            number
            for number, other in enumerate(golden.steps)
            if (other.data or other.batches) == mine
        ]
        if mine
        else []
    )
    epoch = _epoch(golden, place)
    return (
        epoch
        if epoch in found
        else min(found, key=lambda number: (abs(number - place), number), default=None)
    )


def _epoch(golden: Trace, place: int) -> int | None:
    """Return the first step of a step's epoch, or None if its data come from an unknown loader.

    A loader for something else, such as a validation, gives no batch between the first step after
    its start and this one.
    """
    start = max((start for start in golden.epochs if start <= place), default=None)
    if start is None or start == place:
        return start
    between = any(step.batches for step in golden.steps[start + 1 : place + 1])
    return start if between or not any(step.batches for step in golden.steps) else None


def _order_detail(epoch: int | None, found: int, place: int) -> str:
    if found == epoch:
        return "the position in the epoch is not restored: it starts with the epoch's first batch again"
    if found == place - 1:
        return f"off by one: the batch of step {found} is repeated"
    if found == place + 1:
        return f"off by one: the batch of step {place} is skipped"
    return f"the step got the batch of step {found} instead"
