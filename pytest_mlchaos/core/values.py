"""Checks of arguments at the border, and the texts of their errors."""

from __future__ import annotations

import operator
import re
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any, Literal, Union, get_args, get_origin

from ..errors import BadArgument

__all__ = ["check_fields", "check_share", "did_you_mean", "index", "parse_duration", "parse_size", "shown", "size_text", "type_matches"]
__tracebackhide__ = True  # a failure shows the user's code, not ours

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kKMGT]?)(i?)B\s*")
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zµ]*)\s*")


def shown(value: object) -> str:
    """A value and its type, cut short: ``'3' (str)``."""
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """``" (did you mean 'gpu_oom'?)"`` or nothing."""
    import difflib  # 2 ms that only an error is worth

    close = difflib.get_close_matches(wrong, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def index(value: object) -> int | None:
    """A non-negative integer (NumPy's included), or None when it is not one."""
    if isinstance(value, bool):
        return None
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None
    return number if number >= 0 else None


def check_share(owner: str, name: str, value: float) -> None:
    """Refuse what is not a share between 0 (excluded) and 1."""
    if not 0 < value <= 1:
        raise BadArgument(f"{owner}: expected {name} to be a share above 0 and up to 1 but got {shown(value)}")


def parse_duration(value: object, what: str = "a duration") -> float:
    """Seconds of ``2``, ``0.5``, ``"150ms"``, ``"2s"``, ``"5m"``, ``"1h"``."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf"):
        return float(value)
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    unit = match and (match[2] or "s")
    if not match or unit not in _UNITS:
        raise BadArgument(f"expected {what} in seconds, or a text such as '150ms', '2s' or '5m', but got {shown(value)}")
    return float(match[1]) * _UNITS[unit]


def parse_size(value: object, what: str = "a size") -> int:
    """Bytes of ``1048576``, ``"512MiB"``, ``"2GB"``; more than none."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    size = int(float(match[1]) * (1024 if match[3] else 1000) ** " KMGT".index(match[2].upper() or " ")) if match else 0
    if not size:
        raise BadArgument(f"expected {what} in bytes, or a text such as '512MiB' or '2GB', but got {shown(value)}")
    return size


def size_text(size: float) -> str:
    """``"312.5 MiB"``, ``"96 B"``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.1f}".removesuffix(".0") + f" {unit}"


def _is_literal(value: object, hint: Any) -> bool:
    return any(value == choice and type(value) is type(choice) for choice in get_args(hint))


def type_matches(value: object, hint: Any) -> bool:
    """Whether a value fits a simple annotation; what is too rich to check fits."""
    if hint is Any:
        return True
    origin = get_origin(hint)
    if origin is Literal:
        return _is_literal(value, hint)
    if origin in (Union, types.UnionType):
        return any(type_matches(value, option) for option in get_args(hint))
    if origin is not None:
        return isinstance(value, origin) if isinstance(origin, type) else True
    if hint is None or hint is type(None):
        return value is None
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint) if isinstance(hint, type) else True


def _expected(hint: Any) -> str:
    origin = get_origin(hint)
    if origin is Literal:
        return " or ".join(map(repr, get_args(hint)))
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_expected, get_args(hint))))
    if origin is not None:
        return str(getattr(origin, "__name__", origin))
    return "None" if hint is type(None) else str(getattr(hint, "__name__", hint))


def check_fields(owner: str, instance: object, hints: typing.Mapping[str, Any], skip: Callable[[object], bool]) -> None:
    """Refuse field values that do not fit their annotations; ``skip`` lets placeholders pass."""
    for name, hint in hints.items():
        value = getattr(instance, name)
        if not skip(value) and not type_matches(value, hint):
            raise BadArgument(f"{owner}: expected {name} to be {_expected(hint)} but got {shown(value)}")
