"""Short digests of whatever training code holds: to tell whether two runs had the same, without keeping it."""

from __future__ import annotations

import hashlib
import random
import struct
import sys
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["digest", "random_states"]

SMALL = 1 << 20
"""Bytes up to which a tensor is digested whole; of larger ones, sums and samples."""


def digest(value: Any) -> bytes:
    """The same for the same contents, in every process.

    Of numbers, texts, tensors, arrays, and containers of them; of anything else the type alone.
    """
    hashed = hashlib.blake2b(digest_size=12)
    _feed(value, hashed, 0)
    return hashed.digest()


def _feed(value: Any, hashed: hashlib.blake2b, depth: int) -> None:
    if isinstance(value, float):
        hashed.update(struct.pack("d", value))
    elif value is None or isinstance(value, (bool, int, complex)):
        hashed.update(repr(value).encode())
    elif isinstance(value, (str, bytes)):
        hashed.update(value.encode(errors="surrogatepass") if isinstance(value, str) else value)
    elif _is("torch", "Tensor", value):
        _feed_tensor(value, hashed)
    elif _is("numpy", "ndarray", value) or _is("numpy", "generic", value):
        _feed_array(value, hashed)
    elif depth < 8 and isinstance(value, Mapping):
        for key, held in value.items():
            hashed.update(repr(key).encode())
            _feed(held, hashed, depth + 1)
    elif depth < 8 and isinstance(value, (list, tuple)):
        hashed.update(b"[%d" % len(value))
        for held in value:
            _feed(held, hashed, depth + 1)
    else:
        hashed.update(type(value).__qualname__.encode())


def _is(library: str, kind: str, value: object) -> bool:
    cls = getattr(sys.modules.get(library), kind, None)
    return cls is not None and isinstance(value, cls)


def _feed_tensor(tensor: Any, hashed: hashlib.blake2b) -> None:
    torch = sys.modules["torch"]
    tensor = tensor.detach()
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_nested or tensor.device.type == "meta":
        hashed.update(repr((tensor.layout, tensor.dtype)).encode())
        return
    if tensor.device.type != "cpu":
        tensor = tensor.cpu()
    if tensor.numel() == 1:  # of one value: a counter may be a number here, and a tensor there
        hashed.update(struct.pack("d", float(tensor)) if not tensor.is_complex() else repr(tensor.item()).encode())
        return
    flat = tensor.contiguous().reshape(-1)
    if flat.is_conj() or flat.is_neg():
        flat = flat.resolve_conj().resolve_neg()
    raw = flat.view(torch.uint8).numpy()
    if raw.nbytes <= SMALL:
        hashed.update(raw)
        return
    words = flat.view(torch.uint8)[: raw.nbytes // 8 * 8].view(torch.int64)
    hashed.update(repr([int(words.sum()), int(words[::2].sum()), int(words[1::3].sum())]).encode())
    hashed.update(raw[:4096].tobytes() + raw[-4096:].tobytes())


def _feed_array(array: Any, hashed: hashlib.blake2b) -> None:
    import numpy as np

    array = np.asarray(array)
    if array.dtype.hasobject:
        _feed(array.tolist() if array.size < 10_000 else array.size, hashed, 1)
    elif array.size == 1 and array.dtype.kind in "biuf":
        hashed.update(struct.pack("d", float(array.reshape(()))))
    else:
        hashed.update(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data if array.size else b"")


def random_states() -> Iterable[tuple[str, bytes]]:
    """The global random number generators of python, NumPy and torch, where they are loaded."""
    yield "rng.python", struct.pack("q", hash(random.getstate()))
    numpy = getattr(sys.modules.get("numpy"), "random", None)
    if numpy is not None:
        state = numpy.get_state(legacy=False)
        held = state["state"]
        yield "rng.numpy", digest([held.get("key"), held.get("pos"), state.get("has_gauss"), state.get("gauss")])
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_rng_state"):
        yield "rng.torch", digest(torch.get_rng_state())
