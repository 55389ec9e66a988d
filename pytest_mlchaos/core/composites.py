"""Define composite faults: one decorator that stands for many faults."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterator
from typing import Any, ClassVar

from ..errors import BadArgument
from .faults import FAULTS, Fault, fields_of, is_drawn
from .validation import did_you_mean, format_value

__all__ = ["CompositeFault", "Member"]

RANKS_PER_INSTANCE = 3
"""How many ranks later a composite tries the next instance of one fault."""
Member = tuple[Fault, frozenset[str]]
"""A fault that a composite tries, and the keywords that it was given."""


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class CompositeFault(Fault):
    """A fault that stands for all faults that name it in ``member_of``.

    A search tries its members one at a time. The printed schedule has the member that failed.

    Args:
        path: A pattern of files. Only members that strike files are tried, at these files.
        target: A function, ``"pkg.mod:function"``. Only members that strike calls are tried, at
            this function. With ``path`` too, members of both kinds.
        exclude: The names of faults to leave out: ``"missing_values"``, or a list of names.
    """

    site = "any site"
    trials: ClassVar[int] = 200
    """The number of trials, unless the test sets ``max_trials``."""
    includes: ClassVar[tuple[str, ...]] = ()
    """The names of further composites whose members it tries."""

    path: str | None = None
    target: str | None = None
    exclude: Any = ()

    def check(self) -> None:
        """Refuse what only a single fault can have."""
        for name in ("at", "p"):
            if getattr(self, name) is not None:
                raise BadArgument(
                    f"{self.name}: {name}= must not be given, because each of its faults has "
                    f"visits of its own. Declare that fault by itself"
                )
        if is_drawn(self.exclude) or is_drawn(self.path) or is_drawn(self.target):
            raise BadArgument(f"{self.name}: path=, target= and exclude= must be plain values")
        for name in ("path", "target"):
            value = getattr(self, name)
            if value is not None and not value.strip():
                raise BadArgument(f"{self.name}: {name} must not be empty, got {value!r}")
        names = [self.exclude] if isinstance(self.exclude, str) else self.exclude
        if not isinstance(names, (list, tuple)) or not all(isinstance(one, str) for one in names):
            raise BadArgument(
                f"{self.name}: exclude must be the name of a fault or a list of names, got "
                f"{format_value(self.exclude)}"
            )
        object.__setattr__(self, "exclude", tuple(names))

    @property
    def budget_seconds(self) -> float | None:
        """Return the time limit of the search, unless the test sets ``budget``."""
        return None

    def members(self) -> list[Member]:
        """Return the faults to try, the most telling first."""
        ranked = [
            (rank + RANKS_PER_INSTANCE * number, member)
            for cls in FAULTS.values()
            if (rank := self._rank(cls)) is not None and self._wants(cls)
            for number, member in enumerate(self._instances(cls))
        ]
        self._check_excluded()
        return [
            member for _, member in sorted(ranked, key=lambda item: (item[0], repr(item[1][0])))
        ]

    def names(self) -> list[str]:
        """Return the names of all members, also of those that are left out here."""
        return sorted(cls.name for cls in FAULTS.values() if self._rank(cls) is not None)

    def _rank(self, cls: type[Fault]) -> int | None:
        """Return the rank of a fault here, or None if it is not a member."""
        ranks = [cls.member_of.get(name) for name in (self.name, *self.includes)]
        return min((rank for rank in ranks if rank is not None), default=None)

    def _wants(self, cls: type[Fault]) -> bool:
        missing = cls.needs is not None and importlib.util.find_spec(cls.needs[0]) is None
        return not missing and cls.name not in self.exclude

    def _check_excluded(self) -> None:
        known = self.names()
        for name in self.exclude:
            if name not in known:
                raise BadArgument(
                    f"{self.name}: exclude must name faults that {self.name} tries, got "
                    f"{name!r}{did_you_mean(name, known)}. They are {', '.join(known)}"
                )

    def _instances(self, cls: type[Fault]) -> Iterator[Member]:
        names = fields_of(cls)
        required = {
            field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING
        }
        common = {
            name: value
            for name in ("times", "where", "rank")
            if (value := getattr(self, name)) is not None
        }
        asked = self.path is not None or self.target is not None
        made: set[str] = set()
        for tried in cls.tried_as:
            narrowed = self._narrowed(names, tried)
            keywords: dict[str, Any] = {**tried, **narrowed}
            if (asked and not narrowed) or required - keywords.keys():
                continue
            member = cls(
                **common,
                **keywords,
                _origin=self._origin,
                _searched=frozenset(keywords),
                _composite=True,
            )
            if repr(member) not in made:
                made.add(repr(member))
                yield member, frozenset({*common, *keywords})

    def _narrowed(self, names: list[str], tried: Any) -> dict[str, Any]:
        """Return the keywords that restrict a member to this composite's files or function."""
        found: dict[str, Any] = {}
        if self.path is not None:
            # A fault of tables strikes files if it is tried with file=.
            name = "path" if "path" in names else "file" if "file" in names else None
            if name is not None and (name == "path" or "file" in tried or self.target is None):
                found[name] = self.path
        if self.target is not None and not found and "target" in names and "file" not in tried:
            found["target"] = self.target
        return found
