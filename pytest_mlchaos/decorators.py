"""Define ``chaos``, the decorators. ``chaos.gpu_oom(at=3)`` is an ordinary pytest mark."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from . import faults
from .core.faults import EVERY, FAULTS, Every, OneOf, Scale, register
from .core.validation import did_you_mean, format_value, is_real
from .errors import BadArgument

__all__ = ["chaos"]

MOST_STEPS = 1000


class _Chaos:
    """The decorators that declare faults: ``@chaos.gpu_oom``, ``@chaos.crash(at=3)``.

    Use them with or without arguments, on functions and classes, in ``pytestmark`` and in
    ``pytest.param(..., marks=...)``. ``@chaos.settings(max_trials=200)`` changes the settings of a
    test. ``pytest --mlchaos-faults`` lists the faults.
    """

    EVERY: Every = EVERY
    register = staticmethod(register)

    @staticmethod
    def one_of(*values: object) -> OneOf:
        """Return a parameter whose value the search draws from these values.

        Earlier ones count as simpler.
        """
        if not values:
            raise BadArgument("chaos.one_of: give it one value or more")
        return OneOf(values)

    @staticmethod
    def scale(low: float, high: float, *, steps: int = 32) -> Scale:
        """Return the range of a parameter for ``mlchaos.breaking_point``, from weak to strong.

        Two whole numbers that are further apart than 1 stand for all whole numbers between them,
        with both ends: ``severity=chaos.scale(1, 5)``. Other numbers are divided into ``steps``,
        and ``low`` stands for no damage: ``fraction=chaos.scale(0, 1)``.
        """
        if not is_real(low) or not is_real(high) or low == high:
            raise BadArgument(
                f"chaos.scale: low and high must be two different numbers, got "
                f"{format_value(low)} and {format_value(high)}"
            )
        if not isinstance(steps, int) or isinstance(steps, bool) or not 2 <= steps <= MOST_STEPS:
            raise BadArgument(
                f"chaos.scale: steps must be from 2 to {MOST_STEPS}, got {format_value(steps)}"
            )
        scale = Scale(low, high, steps)
        if len(scale.levels) > MOST_STEPS:
            raise BadArgument(
                f"chaos.scale: the range must have at most {MOST_STEPS} whole numbers, got "
                f"{scale!r}. Write them as floats"
            )
        return scale

    @staticmethod
    def edge_cases(schema: Any, *, rows: int = 3) -> Any:
        """Return a Hypothesis strategy of edge cases: extremes, the unseen, the empty, the missing.

        Each value has at least one edge case, and simpler ones have exactly one: numbers at the
        limits of their types and just beyond the examples, NaN and infinity, empty and very long
        texts, Unicode, unseen categories, dates far away, lists of the wrong length, None.

        Use it in Hypothesis' ``@given``, to draw requests or records, and as a parameter of a
        fault: ``@chaos.malformed_request(value=chaos.edge_cases(Request))``.

        Args:
            schema: A table of pandas (the result is a table with its columns and dtypes), a model
                of pydantic (a dict that JSON can hold), a dict of examples or of types, or a list
                of such dicts (a dict), or one example or type (a value).
            rows: The number of rows of a table.

        Raises:
            BadArgument: The schema has no fields, or a kind that is not known.

        Fidelity: fields are not removed, which ``malformed_request`` does. The result may be
        valid: what is right for it, your test decides.
        """
        from .faults.edge_cases.strategies import edge_cases

        return edge_cases(schema, rows)

    @staticmethod
    def steady_state(check: Callable[..., object], *, during: bool = True) -> pytest.MarkDecorator:
        """Check a steady state before, during and after the faults of a test.

        ``check`` returns true, or raises nothing, if it holds. Its arguments are fixtures of the
        test. If it does not hold before any fault, that is an error of the set-up
        (``SteadyStateFailed``). During and after the faults, it is a verdict (``NotSteady``).
        During the test it is asked before each visit, unless ``during`` is False.
        """
        # A mark that is called with a function alone would decorate it.
        return pytest.mark.mlchaos_steady_state.with_args(check, during=during)

    @staticmethod
    def owner(name: str) -> pytest.MarkDecorator:
        """Name the owner of a test, a person or a team: ``@chaos.owner("recommendations")``.

        A policy can require one. The closest owner counts, so that of a module or a class is a
        default.
        """
        return pytest.mark.mlchaos_owner(name)

    @property
    def settings(self) -> pytest.MarkDecorator:
        """Change the settings of one test: ``@chaos.settings(max_trials=…, seed=…, timeout=…)``."""
        return pytest.mark.mlchaos_settings

    def __getattr__(self, name: str) -> pytest.MarkDecorator:
        if not name.startswith("_"):
            faults.load()
            if name in FAULTS:
                return pytest.mark.mlchaos(fault=name)
        raise AttributeError(
            f"chaos has no fault {name!r}{did_you_mean(name, FAULTS)}; `pytest --mlchaos-faults` "
            f"lists them"
        )

    def __dir__(self) -> list[str]:
        faults.load()
        return sorted({*super().__dir__(), *FAULTS})

    def __repr__(self) -> str:
        return "<chaos: decorators of faults>"


chaos = _Chaos()
