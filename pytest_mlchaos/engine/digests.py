"""Compute short digests of objects, to compare two runs without storing the objects."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import random
import struct
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["digest", "random_states"]

MAX_WHOLE_BYTES = 1 << 20
"""The size in bytes up to which a tensor is digested whole.

Larger ones are digested by sums and samples.
"""

_MAX_DEPTH = 8
_DOUBLE = struct.Struct("d").pack
_Update = Callable[[Any], object]
_numpy_seen: dict[bytes, bytes] = {}
# SHA-1 is twice as fast as BLAKE2 if the processor has instructions for it.
_new = functools.partial(hashlib.sha1, usedforsecurity=False)


def digest(value: object) -> bytes:
    """Return a digest that is the same for the same contents, in each process.

    It covers numbers, texts, tensors, arrays and containers of them. For other objects it covers
    only the type.
    """
    hashed = _new()
    _feed(value, hashed.update, 0)
    return hashed.digest()


def _feed(value: Any, update: _Update, depth: int) -> None:
    kind = type(value)
    if kind is float:
        update(_DOUBLE(value))
    elif kind in (dict, list, tuple) and depth < _MAX_DEPTH:
        (_feed_mapping if kind is dict else _feed_sequence)(value, update, depth)
    elif kind is str:
        update(value.encode(errors="surrogatepass"))
    elif kind is bytes:
        update(value)
    elif _is("torch", "Tensor", value):
        _feed_tensor(value, update)
    else:
        _feed_rare(value, update, depth)


def _feed_rare(value: object, update: _Update, depth: int) -> None:
    if isinstance(value, float):
        update(_DOUBLE(value))
    elif value is None or isinstance(value, (bool, int, complex)):
        update(repr(value).encode())
    elif isinstance(value, (str, bytes)):
        update(value.encode(errors="surrogatepass") if isinstance(value, str) else value)
    elif _is("numpy", "ndarray", value) or _is("numpy", "generic", value):
        _feed_array(value, update)
    elif depth < _MAX_DEPTH and isinstance(value, Mapping):
        _feed_mapping(value, update, depth)
    elif depth < _MAX_DEPTH and isinstance(value, (list, tuple)):
        _feed_sequence(value, update, depth)
    else:
        update(type(value).__qualname__.encode())


def _feed_mapping(value: Mapping[Any, Any], update: _Update, depth: int) -> None:
    for key, held in value.items():
        update(repr(key).encode())
        _feed(held, update, depth + 1)


def _feed_sequence(value: Sequence[Any], update: _Update, depth: int) -> None:
    update(b"[%d" % len(value))
    for held in value:
        _feed(held, update, depth + 1)


def _is(library: str, kind: str, value: object) -> bool:
    cls = getattr(sys.modules.get(library), kind, None)
    return cls is not None and isinstance(value, cls)


def _feed_tensor(tensor: torch.Tensor, update: _Update) -> None:
    torch = sys.modules["torch"]
    try:
        if hasattr(tensor, "placements") and hasattr(tensor, "to_local"):
            # A DTensor. Its value would be gathered by a collective, and its storage is empty.
            tensor = tensor.detach().to_local()
        if (
            tensor.layout is not torch.strided
            or tensor.is_quantized
            or tensor.is_nested
            or tensor.is_meta
        ):
            update(repr((tensor.layout, tensor.dtype)).encode())
        elif tensor.numel() == 1:
            # One value: a counter may be a number in one run, and a tensor in the other.
            value = tensor.item()
            update(repr(value).encode() if isinstance(value, complex) else _DOUBLE(value))
        elif _lies_plain(tensor, torch) and (address := tensor.data_ptr()):
            update(ctypes.string_at(address, tensor.nbytes))  # ten times faster than a NumPy view
        else:
            _feed_any_tensor(tensor.detach(), update)
    except (
        RuntimeError,
        NotImplementedError,
    ):
        # The tensor holds no data of its own, for example under torch.func.
        update(repr((tensor.layout, tensor.dtype)).encode())


def _lies_plain(tensor: torch.Tensor, torch: ModuleType) -> bool:
    """Return True if the memory at the tensor's address holds its content.

    A subclass may have no data there.
    """
    return (
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and tensor.is_cpu
        and tensor.is_contiguous()
        and tensor.nbytes <= MAX_WHOLE_BYTES
        and not (tensor.is_complex() or tensor.is_neg() or tensor.storage_offset())
    )


def _feed_any_tensor(tensor: torch.Tensor, update: _Update) -> None:
    torch = sys.modules["torch"]
    if tensor.numel() and not tensor.untyped_storage().nbytes():
        # Reading it would end the process.
        raise RuntimeError("its storage was freed, as a sharded model's is")
    flat = tensor.cpu().contiguous().reshape(-1)
    if flat.is_conj() or flat.is_neg():
        flat = flat.resolve_conj().resolve_neg()
    raw = flat.view(torch.uint8).numpy()
    if raw.nbytes <= MAX_WHOLE_BYTES:
        update(raw)
        return
    words = flat.view(torch.uint8)[: raw.nbytes // 8 * 8].view(torch.int64)
    update(repr([int(words.sum()), int(words[::2].sum()), int(words[1::3].sum())]).encode())
    update(raw[:4096].tobytes() + raw[-4096:].tobytes())


def _feed_array(array: object, update: _Update) -> None:
    import numpy as np

    array = np.asarray(array)
    if array.dtype.hasobject:
        _feed(array.tolist() if array.size < 10_000 else array.size, update, 1)
    elif array.size == 1 and array.dtype.kind in "biuf":
        update(_DOUBLE(float(array.reshape(()))))
    else:
        update(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data if array.size else b"")


def random_states() -> Iterable[tuple[str, bytes]]:
    """Yield the states of the global generators of Python, NumPy and torch.

    Libraries that are not imported are left out.
    """
    yield "rng.python", struct.pack("q", hash(random.getstate()))
    numpy = getattr(sys.modules.get("numpy"), "random", None)
    if numpy is not None:
        yield "rng.numpy", _numpy_state(numpy)
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_rng_state"):
        yield "rng.torch", digest(torch.get_rng_state())


def _numpy_state(numpy: ModuleType) -> bytes:
    """Return a digest of NumPy's global state.

    NumPy takes 40 µs to return its state. Comparing the raw memory with the last one takes 1 µs.
    """
    raw = _twister(numpy)
    if raw is not None and raw in _numpy_seen:
        return _numpy_seen[raw]
    state = numpy.get_state(legacy=False)
    held = state["state"]
    found = digest([held.get("key"), held.get("pos"), state.get("has_gauss"), state.get("gauss")])
    _numpy_seen.clear()
    # NumPy may hold a second normal number. If user code takes it, the raw memory does not change.
    # So such a state is not cached.
    if raw is not None and not state.get("has_gauss"):
        _numpy_seen[raw] = found
    return found


def _twister(numpy: ModuleType) -> bytes | None:
    """Return the memory of NumPy's global Mersenne Twister, or None for a different generator.

    It has 624 words and a position.
    """
    generator: Any = numpy.get_bit_generator() if hasattr(numpy, "get_bit_generator") else None
    if type(generator).__name__ != "MT19937":
        return None
    return ctypes.string_at(generator.ctypes.state_address, 625 * 4)
