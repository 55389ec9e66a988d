"""Describe keys, differences, exceptions and arguments without showing the user's data.

Reports may leave the machine with the data: in a CI log, a JUnit file, a journal. So they show
names of the code, shapes, counts and constant texts. ``mlchaos_show_values = true`` shows
everything. The rules are:

- A key is shown if it is a name in code: an identifier, or a dotted path of them, that the
  interpreter has interned. The interpreter interns the names and the identifier-like constants of
  all code, and the names of attributes. It does not intern text from a file, a request or a table.
- From an exception's message, the words that are constant text in the code that raised it are
  shown. If compiled code raised it, plain words are shown, without numbers and quoted texts.
- A difference is shown unless it reveals one of the two values. It does so if the other value is 0.
"""

from __future__ import annotations

import contextlib
import dis
import math
import os
import re
import sys
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "MAX_SHOWN_COUNT",
    "attribute_text",
    "child_error",
    "command_text",
    "compiled_text",
    "data_text",
    "difference_text",
    "error_text",
    "is_name",
    "key_text",
    "kind_text",
    "label_text",
    "labels_text",
    "location_text",
    "may_be_hinted",
    "option_text",
    "path_text",
    "remember_text",
    "show_values",
    "shows_values",
    "traceback_text",
]

_PACKAGE = __name__.partition(".")[0]
_TEXT = "_mlchaos_text"
"""The attribute of an exception that holds the text to show for it."""
_NEAR = 0.8
_LONGEST_NAME = 100
_LONGEST_PART = 40
_LONGEST_TEXT = 160
_LONGEST_OPTION = 60
_MOST_ITEMS = 6
_RAISING_FRAMES = 3
"""The number of innermost frames whose constants may be in a message.

Helpers such as ``pytest.fail`` raise the text of their caller.
"""
MAX_SHOWN_COUNT = 9
"""The largest difference of whole numbers that counts as a count, and is shown."""
_HIDDEN = "…"

_settings = {"show_values": False}


def show_values(on: bool) -> None:
    """Show or hide values in all texts of this process from now on."""
    _settings["show_values"] = on


def shows_values() -> bool:
    """Return True if texts may hold values of the user's data."""
    return _settings["show_values"]


# -- names of code ---------------------------------------------------------------------------------

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SEPARATOR = re.compile(r"[./:-]")
_interned: dict[str, bool] = {}


def is_name(text: str) -> bool:
    """Return True if a text is a name in code, such as ``optimizer`` or ``layers.0.weight``."""
    parts = _SEPARATOR.split(text)
    if len(text) > _LONGEST_NAME or not any(_IDENTIFIER.fullmatch(part) for part in parts):
        return False
    return all(_is_position(part) or (_is_name_like(part) and _is_in_code(part)) for part in parts)


def may_be_hinted(wrong: str, known: str) -> bool:
    """Return True if a hint may show a name: one in code, or one that the user nearly wrote."""
    # Imported late: it takes 2 ms, and only errors need it.
    import difflib

    return (
        shows_values()
        or is_name(known)
        or difflib.SequenceMatcher(None, wrong.casefold(), known.casefold()).ratio() >= _NEAR
    )


def _is_position(part: str) -> bool:
    return part.isascii() and part.isdigit() and len(part) <= 3


def _is_name_like(part: str) -> bool:
    """Return True for an identifier without a number, a date or a digest that may identify data."""
    if not _IDENTIFIER.fullmatch(part) or len(part) > _LONGEST_PART or re.search(r"\d{4}", part):
        return False
    return all(
        len(re.findall(r"\d+", word)) < 2 or re.search(r"\dx\d", word) for word in part.split("_")
    )


def _is_in_code(part: str) -> bool:
    if part not in _interned:
        # A new object: ``intern`` returns a different one if an equal string is interned already.
        copy = f"{part} "[:-1]
        _interned[part] = sys.intern(copy) is not copy or len(part) == 1
    return _interned[part]


def key_text(key: object, place: int, total: int, *, names: bool = False, noun: str = "key") -> str:
    """Return a key as reports show it: ``'weight'``, ``3``, or ``<str key 3 of 20>`` if it is data.

    Args:
        key: A key of a mapping, or a column's name.
        place: Its position among the keys, from 0.
        total: The number of keys.
        names: True if all keys are known to be names, for example of a model's parameters.
        noun: The word for the key in the text.
    """
    shown = shows_values() or key is None or isinstance(key, bool)
    if isinstance(key, str):
        shown = shown or (
            all(_is_position(p) or _is_name_like(p) for p in _SEPARATOR.split(key))
            if names
            else is_name(key)
        )
    elif isinstance(key, int):
        shown = shown or 0 <= key < total
    return repr(key) if shown else f"<{type(key).__name__} {noun} {place + 1} of {total}>"


def label_text(name: object, place: int, total: int, *, noun: str = "column") -> str:
    """Return one of several names as reports show it, without quotes.

    Args:
        name: The name, for example of a column.
        place: Its position among the names, from 0.
        total: The number of names.
        noun: The word for the name in the text.

    Returns:
        The name (``income``), or ``<str column 3 of 20>`` if it is data.
    """
    text = key_text(name, place, total, noun=noun)
    return text if text.startswith("<") else str(name)


def labels_text(names: Iterable[object], *, noun: str = "key") -> str:
    """Return names as a list for a report."""
    known = list(names)
    return ", ".join(
        label_text(name, place, len(known), noun=noun) for place, name in enumerate(known)
    )


def path_text(parts: Iterable[object]) -> str:
    """Return a path into nested containers, with dots: ``inputs.0``.

    A key that is data is shown as ``<str>``.
    """
    return ".".join(
        str(part) if shows_values() or _is_step(part) else f"<{type(part).__name__}>"
        for part in parts
    )


def _is_step(part: object) -> bool:
    """Return True for a name in code, and for a number that may be a position."""
    return is_name(part) if isinstance(part, str) else isinstance(part, int) and 0 <= part < 1000


def attribute_text(name: str) -> str:
    """Return an attribute's name, or ``<attribute>`` if it looks like data."""
    return name if shows_values() or _is_name_like(name) or name == "<state>" else "<attribute>"


def command_text(command: Sequence[str]) -> str:
    """Return the program and the script of a command line. The other arguments may be data."""
    if shows_values():
        return _cut(" ".join(command), _LONGEST_OPTION)
    known = [Path(part).name for part in command[:1]] + [
        Path(part).name for part in command[1:2] if part.endswith(".py")
    ]
    return " ".join([*known, *(["..."] if len(command) > len(known) else [])])


# -- values ----------------------------------------------------------------------------------------


def kind_text(value: object) -> str:
    """Return a value's type with its shape or length.

    Examples are ``dict of 3``, ``ndarray float32[8, 4]`` and ``str of 12 characters``.
    """
    name = type(value).__name__
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if isinstance(shape, Sequence) and not isinstance(value, type):
        kind = (
            f"{str(dtype).removeprefix('torch.')}"
            if dtype is not None and not hasattr(value, "columns")
            else ""
        )
        return f"{name} {kind}{list(shape)}"
    if isinstance(value, str):
        return f"{name} of {len(value)} character{'' if len(value) == 1 else 's'}"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"{name} of {len(value)} byte{'' if len(value) == 1 else 's'}"
    if isinstance(value, (Mapping, Sequence, set, frozenset)):
        return f"{name} of {len(value)}"
    return name


def option_text(value: object) -> str:
    """Return an option's value: as it was written if it is short and plain, else its kind."""
    if shows_values():
        return _cut(repr(value), _LONGEST_OPTION)
    if isinstance(value, BaseException):
        return error_text(value)
    if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType)):
        return _cut(_qualified_name(value), _LONGEST_OPTION)
    return repr(value) if _is_plain(value) else f"<{kind_text(value)}>"


def data_text(value: object) -> str:
    """Return a value that was given as data: its kind.

    A small whole number or a function is shown itself.
    """
    if (
        shows_values()
        or value is None
        or callable(value)
        or (isinstance(value, int) and abs(value) < 1000)
    ):
        return f"{option_text(value)} ({type(value).__name__})"
    return kind_text(value)


def _is_plain(value: object) -> bool:
    if value is None or isinstance(value, (bool, int, float, complex, range)):
        return len(repr(value)) <= _LONGEST_OPTION
    if isinstance(value, str):
        return len(value) <= _LONGEST_OPTION
    if type(value) in (list, tuple):
        items: Any = value
        return (
            len(items) <= _MOST_ITEMS
            and all(map(_is_plain, items))
            and len(repr(value)) <= _LONGEST_OPTION
        )
    if isinstance(value, os.PathLike):
        return len(os.fspath(value)) <= _LONGEST_OPTION
    return (
        not getattr(value, "__dict__", None)
        and type(value).__module__ == "numpy"
        and not getattr(value, "shape", (0,))
    )


def _qualified_name(value: Any) -> str:
    return f"<{'class' if isinstance(value, type) else 'function'} {value.__qualname__}>"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def difference_text(actual: object, expected: object, gap: float, amount: str) -> str:
    """Return how far two numbers are apart: ``differs by 0.5``.

    If that amount would reveal a value, give it in percent of the larger number.

    Args:
        actual: One number.
        expected: The number to compare it with.
        gap: The absolute difference.
        amount: The difference in words.
    """
    if shows_values() or not math.isfinite(gap) or _is_harmless(actual, expected, gap):
        return f"differs by {amount}"
    if expected == 0:
        return "differs from 0"
    return "differs: it is 0" if actual == 0 else f"differs by {_percent(actual, expected, gap)}"


def _is_harmless(actual: Any, expected: Any, gap: float) -> bool:
    """Return True if a difference reveals neither number: it is well below both, or small."""
    smaller = min(abs(actual), abs(expected))
    return bool(
        2 * gap <= smaller
        or (
            smaller
            and gap <= MAX_SHOWN_COUNT
            and isinstance(actual, int)
            and isinstance(expected, int)
        )
    )


def _percent(actual: Any, expected: Any, gap: float) -> str:
    """Return a difference in percent of the larger of two numbers."""
    return f"{100 * (gap / float(max(abs(actual), abs(expected)))):.3g} %"


def location_text(name: str) -> str:
    """Return a request with only the path segments that are names in code.

    For example, ``GET /score/7`` becomes ``GET /score/*``.
    """
    method, space, path = name.partition(" ")
    if shows_values() or not space:
        return name
    return f"{method} {'/'.join(part if not part or is_name(part) else '*' for part in path.split('/'))}"


# -- exceptions ------------------------------------------------------------------------------------


def error_text(error: BaseException, *, root: str = "", length: int = _LONGEST_TEXT) -> str:
    """Return an exception's class, and the part of its message's first line that may be shown.

    Args:
        error: The exception.
        root: The work directory, which is shown as ``workdir``.
        length: The maximum length of the message.
    """
    message = message_text(error, root)
    return f"{type(error).__name__}: {_cut(message, length)}" if message else type(error).__name__


def message_text(error: BaseException, root: str = "") -> str:
    """Return the part of the message's first line that may be shown."""
    kept = getattr(error, _TEXT, None)
    text = str(error).strip().partition("\n")[0]
    if shows_values() or _is_ours(error):
        return _under(text, root)
    if isinstance(kept, str):
        return _under(kept.strip().partition("\n")[0], root)
    if isinstance(error, SystemExit):
        return str(error.code) if isinstance(error.code, int) else ""
    if (
        isinstance(error, OSError)
        and isinstance(error.errno, int)
        and error.strerror == os.strerror(error.errno)
    ):
        return f"[Errno {error.errno}] {error.strerror}{_files(error, root)}"
    if isinstance(error, KeyError) and len(error.args) == 1:
        key = error.args[0]
        if isinstance(key, str) and is_name(key):
            return repr(key)
        words = _constant_words(str(key), error)
        return repr(words) if words else ""
    if (
        isinstance(error, ModuleNotFoundError)
        and error.name
        and all(map(str.isidentifier, error.name.split(".")))
    ):
        return f"No module named {error.name!r}"
    return _constant_words(text, error)


def _is_ours(error: BaseException) -> bool:
    return any(cls.__module__ == f"{_PACKAGE}.errors" for cls in type(error).__mro__)


def _under(text: str, root: str) -> str:
    return text.replace(root, "workdir") if root else text


def _files(error: OSError, root: str) -> str:
    """Return the files that an error names, if they are in the work directory."""
    found = []
    for name in (error.filename, error.filename2):
        path = os.fspath(name) if isinstance(name, (str, os.PathLike)) else None
        if isinstance(path, str) and root and Path(path).is_relative_to(root):
            found.append(repr(_under(path, root)))
    return f": {' -> '.join(found)}" if found else ""


def remember_text(error: BaseException, text: str | None = None) -> None:
    """Store on an exception the text that may be shown of it, by default its message.

    Call it where the exception is raised, if more is known there.
    """
    with contextlib.suppress(AttributeError, TypeError):
        setattr(error, _TEXT, message_text(error) if text is None else text)


def child_error(text: str) -> ChildProcessError:
    """Return an error for one of a different process, with the text that was made there."""
    error = ChildProcessError(text)
    remember_text(error, text)
    return error


def _constant_words(text: str, error: BaseException) -> str:
    """Return the words of a message that are constant text in the code that raised it."""
    traces = _traces(error)
    if not traces:
        return ""
    frame, last = traces[-1].tb_frame, traces[-1].tb_lasti
    instruction = (
        dis.opname[frame.f_code.co_code[last]] if 0 <= last < len(frame.f_code.co_code) else ""
    )
    if instruction in ("RAISE_VARARGS", "RERAISE"):
        codes = [trace.tb_frame.f_code for trace in traces[-_RAISING_FRAMES:]]
        codes += [
            code
            for cls in type(error).__mro__
            for name in ("__init__", "__str__")
            if (code := _code(cls, name)) is not None
        ]
        return _mask(text, frozenset(word for code in codes for word in _words_of(code)))
    # It was thrown into a generator or a coroutine, so it was made elsewhere.
    thrown = instruction in ("YIELD_VALUE", "SEND", "RESUME")
    ours = frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE
    return "" if thrown or ours or isinstance(error, KeyError) else compiled_text(text)


def compiled_text(text: str) -> str:
    """Return the part of a message from compiled code that may be shown: its plain words."""
    return text if shows_values() else _mask(_TAG.sub("", text), None)


def _traces(error: BaseException) -> list[types.TracebackType]:
    found, trace = [], error.__traceback__
    while trace is not None:
        found.append(trace)
        trace = trace.tb_next
    return found


def _code(cls: type, name: str) -> types.CodeType | None:
    return getattr(cls.__dict__.get(name), "__code__", None)


def _words_of(code: types.CodeType) -> Iterator[str]:
    for constant in code.co_consts:
        yield from _words_in(constant)


def _words_in(constant: object) -> Iterator[str]:
    if isinstance(constant, str):
        yield from re.findall(r"[A-Za-z]+", constant)
    elif isinstance(constant, (tuple, frozenset)):
        for one in constant:
            yield from _words_in(one)


_QUOTED = re.compile(r"""(?<!\w)(?:'([^']*)'|"([^"]*)"|`([^`]*)`)(?!\w)|(?<!\w)['"`<\[{].*$""")
_TAG = re.compile(r"""^(?:\[[^\[\]'"`]*\]\s*)+""")
"""The parts that compiled code often puts before a message: its file and line, or its rank."""
_WORD = re.compile(r"""\(?([A-Za-z_]+(?:['’-][a-z]+)?)(?:\(s?\))?\)?[.,:;!?]*""")


def _mask(text: str, allowed: frozenset[str] | None) -> str:
    """Return a message with only plain words and quoted names in code.

    If ``allowed`` is given, only these words are shown.
    """
    pieces: list[str] = []
    start = 0
    for match in _QUOTED.finditer(text):
        pieces += _masked_words(text[start : match.start()], allowed)
        quoted = next((group for group in match.groups() if group is not None), "")
        pieces.append(match[0] if quoted and is_name(quoted) else _HIDDEN)
        start = match.end()
    pieces += _masked_words(text[start:], allowed)
    told = re.sub(rf"{_HIDDEN}[.,:;!?]*(?: {_HIDDEN})+", _HIDDEN, " ".join(pieces))
    return told if re.search("[A-Za-z]", told) else ""


def _masked_words(text: str, allowed: frozenset[str] | None) -> list[str]:
    return [
        word if _may_be_shown(word, allowed) else _HIDDEN + "".join(re.findall(r"[.,:;!?]+$", word))
        for word in text.split()
    ]


def _may_be_shown(word: str, allowed: frozenset[str] | None) -> bool:
    if set(word) <= set("().,:;!?-="):
        return True
    match = _WORD.fullmatch(word)
    return match is not None and (
        allowed is None or allowed.issuperset(re.findall("[A-Za-z]+", match[1]))
    )


def traceback_text(error: BaseException, trace: types.TracebackType | None) -> str:
    """Return a traceback with only the parts of messages that may be shown."""
    import traceback  # imported late: only errors need it

    lines: list[str] = []
    chain: list[tuple[str, BaseException, types.TracebackType | None]] = []
    seen: set[int] = set()
    link, current, own = "", error, trace
    while True:
        chain.append((link, current, own))
        seen.add(id(current))
        if current.__cause__ is not None and id(current.__cause__) not in seen:
            link, current = (
                "\nThe above exception was the direct cause of the following exception:\n\n",
                current.__cause__,
            )
        elif (
            current.__context__ is not None
            and not current.__suppress_context__
            and id(current.__context__) not in seen
        ):
            link, current = (
                "\nDuring handling of the above exception, another exception occurred:\n\n",
                current.__context__,
            )
        else:
            break
        own = current.__traceback__
    for place in range(len(chain) - 1, -1, -1):
        _, one, frames = chain[place]
        lines += [
            "Traceback (most recent call last):\n",
            *traceback.format_tb(frames),
            f"{error_text(one)}\n",
        ]
        if place:
            lines.append(chain[place][0])
    return "".join(lines)
