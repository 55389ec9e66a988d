"""Compare pickles by value, without loading them: a small symbolic unpickler.

A round trip through pickle changes which values are shared (for example NumPy's dtypes), and so the
bytes. Here every shared value is written out where it is used. Nothing is imported or called.
"""

from __future__ import annotations

import hashlib
import io
import pickletools
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

__all__ = ["pickle_digest"]

_ARRAY_FIELDS = {"shape", "dtype", "order"}
"""Attributes of an object that stands for an array whose raw bytes follow in the file."""
_PADDING_FIELD = "numpy_array_alignment_bytes"
"""If an array's stand-in has this attribute, one byte tells how many bytes of padding follow."""
_IGNORED = {"PROTO", "FRAME"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_EMPTY = {"EMPTY_LIST": "list", "EMPTY_TUPLE": "tuple", "EMPTY_DICT": "dict", "EMPTY_SET": "set"}
_FROM_MARK = {"LIST": "list", "TUPLE": "tuple", "DICT": "dict", "FROZENSET": "set"}
_CALLS = {"REDUCE": 2, "NEWOBJ": 2, "NEWOBJ_EX": 3}
_MARK = object()


class _Node:
    """A value: its kind, and the nodes that it is made of. A leaf has none, and tells its value."""

    __slots__ = ("kind", "leaf", "parts")

    def __init__(self, kind: str, parts: list[_Node] | None = None, leaf: object = None) -> None:
        self.kind = kind
        self.parts = parts or []
        self.leaf = leaf


def pickle_digest(data: bytes, named: Callable[[str], bytes | None]) -> bytes:
    """Return a digest that is equal for pickles of equal values, or the data if it is not a pickle.

    Args:
        data: One pickle or several, one after the other.
        named: Returns the digest of the file that a text names, or None if it names none.
    """
    for with_arrays in (False, True):
        try:
            values = list(_pickles(data, with_arrays))
            return b"\n".join(_Digests(named).of(value) for value in values)
        except Exception:  # noqa: BLE001  # not a pickle after all, or a torn one
            continue
    return data


def _pickles(data: bytes, with_arrays: bool) -> Iterator[_Node]:
    file = io.BytesIO(data)
    while file.tell() < len(data):
        if data[file.tell()] != 0x80:
            yield _Node("rest", leaf=file.read())
            return
        yield _Machine(file, with_arrays).run()


class _Machine:
    """The stack and the memo of pickle's virtual machine, with nodes for values."""

    def __init__(self, file: BinaryIO, with_arrays: bool) -> None:
        self._file = file
        self._with_arrays = with_arrays
        self._stack: list[Any] = []
        self._memo: dict[object, _Node] = {}

    def run(self) -> _Node:
        """Read operations up to the end of one pickle. Return its value."""
        for op, argument, _ in pickletools.genops(self._file):
            if op.name == "STOP":
                (value,) = self._stack
                return value  # type: ignore[no-any-return]
            if op.name not in _IGNORED:
                self._do(op.name, argument)
        raise ValueError("no end")

    def _do(self, name: str, argument: object) -> None:
        stack = self._stack
        if name == "MARK":
            stack.append(_MARK)
        elif name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[len(self._memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif name in _EMPTY:
            stack.append(_Node(_EMPTY[name]))
        elif name in _FROM_MARK:
            stack.append(_Node(_FROM_MARK[name], self._marked()))
        elif name in _TUPLES:
            stack.append(_Node("tuple", self._popped(_TUPLES[name])))
        elif name in ("APPEND", "SETITEM"):
            parts = self._popped(1 if name == "APPEND" else 2)
            stack[-1].parts += parts
        elif name in ("APPENDS", "SETITEMS", "ADDITEMS"):
            parts = self._marked()
            stack[-1].parts += parts
        elif name in _CALLS:
            stack.append(_Node("call", self._popped(_CALLS[name])))
        elif name == "STACK_GLOBAL":
            stack.append(_Node("global", self._popped(2)))
        elif name in ("INST", "OBJ"):
            stack.append(_Node("object", self._marked(), argument))
        elif name == "BUILD":
            self._build()
        elif name == "BINPERSID":
            stack.append(_Node("persistent", self._popped(1)))
        elif name in ("POP", "POP_MARK"):
            self._popped(1) if name == "POP" else self._marked()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name in ("NEXT_BUFFER", "READONLY_BUFFER", "EXT1", "EXT2", "EXT4", "GLOBAL", "PERSID"):
            stack.append(_Node(name, leaf=argument))
        else:  # a constant
            stack.append(
                _Node(type(argument).__name__ if argument is not None else name, leaf=argument)
            )

    def _popped(self, count: int) -> list[_Node]:
        parts = self._stack[-count:]
        if len(parts) < count or _MARK in parts:
            raise ValueError("the stack is too short")
        del self._stack[-count:]
        return parts

    def _marked(self) -> list[_Node]:
        place = len(self._stack) - 1 - self._stack[::-1].index(_MARK)
        parts = self._stack[place + 1 :]
        del self._stack[place:]
        return parts

    def _build(self) -> None:
        (state,) = self._popped(1)
        owner = self._stack[-1]
        owner.parts.append(_Node("state", [state]))
        if not self._with_arrays or state.kind != "dict":
            return
        pairs = list(zip(state.parts[::2], state.parts[1::2], strict=True))
        fields = {key.leaf: value for key, value in pairs}
        if fields.keys() >= _ARRAY_FIELDS:
            owner.parts.append(_Node("bytes", leaf=self._array(fields)))
            state.parts = [
                part for key, value in pairs if key.leaf != _PADDING_FIELD for part in (key, value)
            ]

    def _array(self, fields: dict[object, _Node]) -> bytes:
        """Read the raw bytes of an array from the file."""
        import numpy as np

        size = np.dtype(_dtype_name(fields["dtype"])).itemsize
        for length in fields["shape"].parts:
            size *= int(length.leaf)  # type: ignore[call-overload]
        if _PADDING_FIELD in fields:
            self._file.read(self._file.read(1)[0])
        data = self._file.read(size)
        if len(data) < size:
            raise ValueError("the array is cut")
        return data


def _dtype_name(node: _Node) -> str:
    """Return the name in ``numpy.dtype(name, align, copy)``. Arrays of objects have no raw bytes."""
    name = node.parts[1].parts[0].leaf
    if not isinstance(name, str) or name.startswith("O"):
        raise ValueError("not an array of numbers")
    return name


class _Digests:
    """Digests of nodes. A value within itself counts as a cycle, whichever it is."""

    def __init__(self, named: Callable[[str], bytes | None]) -> None:
        self._named = named
        self._known: dict[int, bytes] = {}

    def of(self, node: _Node) -> bytes:
        """Return the digest of a node; a shared one is digested once."""
        if id(node) not in self._known:
            self._known[id(node)] = b"cycle"
            parts = [self.of(part) for part in node.parts]
            if node.kind == "set":
                parts.sort()  # the order of a set depends on how this process hashes texts
            told = hashlib.blake2b(f"{node.kind} {len(parts)} ".encode(), digest_size=16)
            told.update(self._leaf(node.leaf))
            for part in parts:
                told.update(part)
            self._known[id(node)] = told.digest()
        return self._known[id(node)]

    def _leaf(self, leaf: object) -> bytes:
        if isinstance(leaf, str) and (file := self._named(leaf)) is not None:
            return b"file " + file
        return leaf if isinstance(leaf, bytes) else repr(leaf).encode()
