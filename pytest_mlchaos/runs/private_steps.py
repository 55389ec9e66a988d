"""Record the optimizer steps that add noise for differential privacy, and what is accounted.

Nothing here knows a library. An optimizer is private if it, or an object whose method calls its
``step``, has a positive number ``noise_multiplier``. An accountant is an object with a method
``get_epsilon`` and a list ``history`` of (noise multiplier, sample rate, number of steps).
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

from ..core.records import Accounted, PrivateStep
from ..engine.digests import digest
from ..engine.user_code import PACKAGE
from ..processes.child import tell as tell_home

if TYPE_CHECKING:
    import torch

__all__ = ["PrivateSteps", "accounted_of", "private_steps_of"]

MAX_FRAMES = 40
"""The number of callers of a step in which an accountant is looked for."""
MAX_OBJECTS = 2_000
"""The number of objects that are looked at in one search."""


class PrivateSteps:
    """Record the steps of one attempt.

    Attributes:
        steps: The steps so far.
    """

    def __init__(self) -> None:
        self.steps: list[PrivateStep] = []
        self._accountant: Any = None
        self._searched: set[int] = set()
        self._begun: tuple[float, bytes] | None = None

    def before_step(
        self, optimizer: torch.optim.Optimizer, args: object, kwargs: object, frame: FrameType
    ) -> None:
        """Note the noise of a step that begins, and the parameters before it."""
        noise, holder = _noise(optimizer, frame)
        if noise and id(holder) not in self._searched:
            self._searched.add(id(holder))
            self._accountant = _accountant([holder], frame) or self._accountant
        self._begun = noise, digest(_parameters(optimizer))

    def after_step(self, optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        """Record a step that has been taken."""
        if self._begun is None:
            return
        (noise, before), self._begun = self._begun, None
        history = _history(self._accountant)
        step = PrivateStep(
            noise=noise,
            rate=history[-1][1] if history else None,
            before=before,
            after=digest(_parameters(optimizer)),
        )
        self.steps.append(step)
        # At once: a real SIGKILL leaves no time at the end
        tell_home("private_step", step)

    def accounted(self) -> Accounted | None:
        """Return what the accountant of the last private step holds now, or None."""
        if self._accountant is None:
            return None
        return Accounted(type(self._accountant), tuple(_history(self._accountant)))


def private_steps_of(trained: object) -> Sequence[PrivateStep]:
    """Return the recorded steps of an attempt. Empty if they were not recorded."""
    found: PrivateSteps | None = getattr(trained, "private", None)
    return () if found is None else found.steps


def accounted_of(trained: object) -> Accounted | None:
    """Return what an attempt's accountant holds, or None."""
    found: PrivateSteps | None = getattr(trained, "private", None)
    return None if found is None else found.accounted()


def _parameters(optimizer: torch.optim.Optimizer) -> list[Any]:
    return [parameter.detach() for group in optimizer.param_groups for parameter in group["params"]]


def _noise(optimizer: object, frame: FrameType) -> tuple[float, object]:
    """Return the noise multiplier of a step, and the object that has it. 0 if it adds none."""
    for caller in (optimizer, *(one.f_locals.get("self") for one in _callers(frame))):
        noise = getattr(caller, "noise_multiplier", None)
        if isinstance(noise, (int, float)) and not isinstance(noise, bool) and noise > 0:
            return float(noise), caller
    return 0.0, optimizer


def _callers(frame: FrameType | None) -> Iterator[FrameType]:
    for _ in range(MAX_FRAMES):
        if frame is None or frame.f_code.co_filename.startswith(PACKAGE):
            return
        yield frame
        frame = frame.f_back


def _accountant(first: Iterable[Any], frame: FrameType) -> object | None:
    """Return the accountant that objects hold, or that the callers of a step hold."""
    levels: list[list[Any]] = [
        list(first),
        *([*caller.f_locals.values()] for caller in _callers(frame)),
    ]
    known: set[int] = set()
    for level in levels:
        pending = level
        while pending and len(known) < MAX_OBJECTS:
            held: list[Any] = []
            for value in pending:
                if id(value) in known:
                    continue
                known.add(id(value))
                if _is_accountant(value):
                    found: object = value
                    return found
                held += _held(value)
            pending = held
    return None


def _is_accountant(value: object) -> bool:
    return callable(getattr(type(value), "get_epsilon", None)) and isinstance(
        getattr(value, "history", None), list
    )


def _held(value: object) -> Iterable[Any]:
    """Return the objects that may lead to an accountant."""
    if isinstance(value, types.FunctionType):
        return [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
    if isinstance(value, types.MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, (list, tuple)):
        return value if len(value) <= 20 else ()
    if isinstance(value, dict):
        return value.values() if len(value) <= 50 else ()
    if isinstance(value, (type, types.ModuleType)) or not hasattr(value, "__dict__"):
        return ()
    return [one for one in vars(value).values() if not isinstance(one, (str, bytes, int, float))]


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _history(accountant: object) -> list[tuple[float, float, int]]:
    """Return the entries of an accountant that are of the known form."""
    entries = getattr(accountant, "history", None)
    if not isinstance(entries, list):
        return []
    try:
        return [(float(noise), float(rate), int(steps)) for noise, rate, steps in entries]
    except (TypeError, ValueError):
        return []
