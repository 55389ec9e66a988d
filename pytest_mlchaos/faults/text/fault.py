"""Define the base class of faults of text: which strings they strike."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

from ...core.faults import is_drawn
from ...core.sites import Key, Visit
from ...core.validation import format_value
from ...errors import BadArgument, PayloadMismatch
from ..batches.pytree import children
from ..rows import RowFault
from .strings import Texts, describe_texts, replace_texts, texts

__all__ = ["TextFault"]

_NO_TEXT = ("role", "type", "id", "model")
"""Strings under these names are identifiers that no user types. They are struck only if named."""


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class TextFault(RowFault):
    """A fault that changes strings: in batches, in what a function returns, or in its arguments.

    Args:
        target: A function, ``"pkg.mod:function"``. The fault then strikes the strings of its calls,
            instead of those of batches.
        side: ``"results"``, what calls of ``target`` return, or ``"arguments"``, what it is called
            with.
        fields: Names, positions or dotted paths of the strings. A name is found at any depth.
            Without it, all strings are struck except those called role, type, id or model. With
            ``side="arguments"``, a position is that of a positional argument (from 0, ``self``
            included), and a name is that of a parameter.
    """

    kinds: ClassVar[tuple[type, ...]] = (str,)
    site = "data.batch"
    side: Literal["results", "arguments"] = "results"
    fields: Any = None

    def check(self) -> None:
        """Check the parameters."""
        if self.side == "arguments" and self.target is None:
            raise BadArgument(
                f"{self.name}: side='arguments' needs target='pkg.mod:function', the function "
                f"whose arguments the fault strikes"
            )
        if self.fields is not None and not is_drawn(self.fields):
            wanted = [self.fields] if isinstance(self.fields, (str, int)) else list(self.fields)
            if not wanted or not all(
                isinstance(name, (str, int)) and not isinstance(name, bool) for name in wanted
            ):
                raise BadArgument(
                    f"{self.name}: fields must be names or positions, got "
                    f"{format_value(self.fields)}"
                )
            object.__setattr__(self, "fields", tuple(wanted) if len(wanted) > 1 else wanted[0])

    @property
    def key(self) -> Key:
        """Count the visits of the site, or of the target's results or calls."""
        return (
            ("call", self.target)
            if self.side == "arguments" and self.target is not None
            else super().key
        )

    def change(self, strings: Sequence[Any], seed: int) -> list[Any]:
        """Return the strings after the fault."""
        raise NotImplementedError

    def apply(self, visit: Visit) -> Any:
        """Return a changed copy."""
        chosen = list(self._chosen(visit.payload, visit.attributes.get("parameters", ())))
        strings = (
            [string for place in chosen for string in place.strings]
            if len(chosen) != 1
            else chosen[0].strings
        )
        fresh = self.change(strings, visit.seed)
        changed = sum(map(operator.ne, fresh, strings))
        if not changed:
            raise PayloadMismatch(
                f"{self!r} left all {len(strings)} strings in {describe_texts(visit.payload)} as "
                f"they were: {self.why_not()}"
            )
        visit.note(strings=len(strings), changed=changed, fields=[place.name for place in chosen])
        return replace_texts(visit.payload, chosen, fresh)

    def why_not(self) -> str:
        """Return why texts did not change."""
        return "they are empty"

    def _chosen(self, payload: Any, parameters: Sequence[str]) -> Iterator[Texts]:
        wanted = self.fields if isinstance(self.fields, tuple) else (self.fields,)
        single = any(part.isdigit() for name in wanted for part in str(name).split("."))
        roots: list[tuple[tuple[Any, ...], Any]] = [((), payload)]
        if self.side == "arguments":
            # Several texts among the arguments are separate values, not one list.
            roots = [
                ((side, name), given)
                for side, held in enumerate(payload)
                for name, given in children(held)
            ]
        places = (
            place for path, root in roots for place in texts(root, self.kinds, path, single=single)
        )
        found = [place for place in places if not self._is_self(place, payload)]
        if self.fields is None:
            struck = [
                place
                for place in found
                if "".join(self._words(place.path, parameters)[-1:]).lower() not in _NO_TEXT
            ]
        else:
            struck = [
                place
                for place in found
                if any(self._is_at(name, place.path, parameters) for name in wanted)
            ]
            for name in wanted:
                if not any(self._is_at(name, place.path, parameters) for place in found):
                    hint = (
                        f". The parameters of the function are {', '.join(parameters)}"
                        if parameters
                        else ""
                    )
                    raise PayloadMismatch(
                        f"{self.name}: found no text {name!r} in {describe_texts(payload)}{hint}"
                    )
        if not struck:
            raise PayloadMismatch(
                f"{self.name} found no text in {describe_texts(payload)}. Name it with fields="
            )
        yield from struck

    def _is_self(self, place: Texts, payload: Any) -> bool:
        """Return True if a string belongs to the object whose method is called. It is not an input."""
        if self.side != "arguments" or place.path[:2] != (0, 0):
            return False
        owner = (self.target or "").replace(":", ".").split(".")[-2:][0]
        return any(cls.__name__ == owner for cls in type(payload[0][0]).__mro__)

    def _words(self, path: tuple[Any, ...], parameters: Sequence[str]) -> tuple[str, ...]:
        """Return the path to a string. A positional argument has the name of its parameter."""
        words = tuple(map(str, path))
        if (
            self.side == "arguments"
            and len(path) > 1
            and path[0] == 0
            and path[1] < len(parameters)
        ):
            return (words[0], parameters[path[1]], *words[2:])
        return words

    def _is_at(self, name: str | int, path: tuple[Any, ...], parameters: Sequence[str]) -> bool:
        words = tuple(map(str, path))
        if self.side == "arguments":  # the path is (0, position, ...) or (1, keyword, ...)
            words = words[1:] if isinstance(name, str) or words[0] == "0" else ()
        if isinstance(name, int):
            return words[:1] == (str(name),)
        parts = tuple(name.split("."))
        ways = (words, self._words(path, parameters)[1:]) if self.side == "arguments" else (words,)
        return any(
            way[start : start + len(parts)] == parts for way in ways for start in range(len(way))
        )
