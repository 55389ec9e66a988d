"""Define ``chaos``, the decorators. ``chaos.gpu_oom(at=3)`` is an ordinary pytest mark."""

from __future__ import annotations

import pytest

from . import faults
from .core.faults import EVERY, FAULTS, Every, OneOf, register
from .core.validation import did_you_mean
from .errors import BadArgument

__all__ = ["chaos"]


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
