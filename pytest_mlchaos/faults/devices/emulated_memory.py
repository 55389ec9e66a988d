"""Emulate the memory of a device: count the live bytes of storages, and refuse what does not fit."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ...core.sites import Effect
from ...core.validation import size_text

if TYPE_CHECKING:
    import torch

__all__ = ["LiveBytes", "emulate_memory", "out_of_memory"]

_MIB = 2**20


class _Reference(weakref.ref[Any]):
    """A weak reference to a storage that remembers the storage's key."""

    __slots__ = ("key",)
    key: int


class LiveBytes:
    """Count live bytes. A storage counts once, until the last tensor that shares it is gone.

    A C callback notes storages that are gone, and they are subtracted later. In a Python callback,
    a Ctrl-C would be lost.
    """

    def __init__(self) -> None:
        self.peak = 0
        self._bytes = 0
        self._known: dict[int, tuple[int, _Reference]] = {}
        self._gone: list[_Reference] = []

    @property
    def bytes(self) -> int:
        """Return the number of live bytes."""
        self._settle()
        return self._bytes

    def see(self, storage: Any) -> None:
        """Count a storage with its current size."""
        self._settle()
        key, size = storage._cdata, storage.nbytes()
        known = self._known.get(key)
        if known is not None and known[1]() is storage:
            counted, reference = known
        else:
            counted, reference = 0, _Reference(storage, self._gone.append)
            reference.key = key
        self._known[key] = size, reference
        self._bytes += size - counted
        self.peak = max(self.peak, self._bytes)

    def size_of(self, storage: Any) -> int | None:
        """Return the size with which a storage was counted, or None if it is unknown."""
        known = self._known.get(storage._cdata)
        return known[0] if known is not None and known[1]() is storage else None

    def _settle(self) -> None:
        while self._gone:
            gone = self._gone.pop()
            known = self._known.get(gone.key)
            if known is not None and known[1] is gone:
                self._bytes -= known[0]
                del self._known[gone.key]


@dataclasses.dataclass
class _Device:
    """An emulated device of ``total`` bytes. See ``emulate_memory``."""

    effect: Effect
    total: int
    largest: int | None
    pieces: bool
    taken: int
    peak: int = 0

    @property
    def live(self) -> LiveBytes:
        """Return the live bytes of this process."""
        live: LiveBytes | None = self.effect.memory.get("live")
        if live is None:
            live = self.effect.memory["live"] = LiveBytes()
        return live

    def refuses(self, live: int, wanted: int) -> str:
        """Return why this number of bytes does not fit beside the live ones, or ""."""
        free = self.total - self.taken - live
        if wanted > 0 and wanted > free:
            return "full"
        limit = min(self.largest or wanted, max(free, 0) // 2 if self.pieces else wanted)
        return "fragmented" if wanted > limit else ""

    def strikes(self, func: object, why: str, live: int, wanted: int) -> BaseException | None:
        """Return the error to raise, and add it to the journal. In a probe, return None."""
        error = out_of_memory(
            wanted,
            total=self.total,
            live=live,
            others=max(0, self.taken),
            fragmented=why == "fragmented",
        )
        details = {
            "operator": str(func),
            "wanted": size_text(wanted),
            "live": f"{size_text(live)} of {size_text(self.total)}",
        }
        return (
            error
            if self.effect.strike(error, **details, **({"why": why} if why != "full" else {}))
            else None
        )

    def keep(self, live: LiveBytes, storages: list[Any]) -> None:
        """Count storages that fit."""
        for storage in storages:
            live.see(storage)
        if live.peak > self.peak:
            self.peak = live.peak
            self.effect.remark(f"the peak was {size_text(live.peak)} of {size_text(self.total)}")


def emulate_memory(
    effect: Effect,
    *,
    total: int,
    largest: int | None,
    pieces: bool,
    taken: int = 0,
    free: bool = False,
) -> Any:
    """Return a dispatch mode in which at most ``total`` bytes of tensors can be live.

    A different process holds ``taken`` of them. If ``free`` is true, the limit applies only to new
    tensors, and existing ones have their place. ``largest`` is the limit for one allocation. With
    ``pieces``, that limit is half of the free memory.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    seeded = torch.Tag.nondeterministic_seeded
    device = _Device(effect, total, largest, pieces, taken)

    class Budget(TorchDispatchMode):  # type: ignore[misc]  # mypy does not check torch
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
        ) -> Any:
            kwargs = kwargs or {}
            if not effect.active:
                return func(*args, **kwargs)
            live = device.live
            given = list(_storages(torch.Tensor, (args, kwargs)))
            for storage in given:
                if live.size_of(storage) is None:
                    live.see(storage)
                    device.taken -= storage.nbytes() if free else 0
            random = torch.get_rng_state() if seeded in func.tags else None
            before = live.bytes
            result = func(*args, **kwargs)
            new = _new(live, torch.Tensor, result, given if _mutates(func) else ())
            wanted = sum(storage.nbytes() - (live.size_of(storage) or 0) for storage in new)
            why = device.refuses(before, wanted)
            error = device.strikes(func, why, before, wanted) if why else None
            if error is None:
                device.keep(live, new)
                return result
            if random is not None:
                # The operator must have no effect, also on the random state.
                torch.set_rng_state(random)
            _shrink(live, new)
            try:
                raise error
            finally:
                # This frame must not keep the error alive, nor the frames in its traceback.
                del error

    return Budget()


def _new(live: LiveBytes, tensor: torch.Tensor, result: object, given: Iterable[Any]) -> list[Any]:
    """Return the storages that an operator has made, enlarged or shrunk, each once."""
    made = {
        id(storage): storage
        for storage in _storages(tensor, result)
        if live.size_of(storage) is None
    }
    made.update(
        {id(storage): storage for storage in given if storage.nbytes() != live.size_of(storage)}
    )
    return list(made.values())


def _shrink(live: LiveBytes, storages: list[Any]) -> None:
    """Undo the growth of storages that did not fit."""
    for storage in storages:
        size = live.size_of(storage)
        if size is not None and storage.nbytes() > size:
            storage.resize_(size)


_mutating: dict[Any, bool] = {}


def _mutates(func: Any) -> bool:
    """Return True if an operator changes its arguments, and so may enlarge them."""
    known = _mutating.get(func)
    if known is None:
        known = _mutating[func] = bool(func._schema.is_mutable)
    return known


def _storages(tensor: torch.Tensor, value: object) -> Iterator[Any]:
    """Yield the storages of all tensors in a value. A sparse tensor has those of its parts."""
    if isinstance(value, tensor):
        try:
            storage = value.untyped_storage()
        except (NotImplementedError, RuntimeError):
            yield from _storages(tensor, _parts(value))
        else:
            if storage.device.type != "meta":  # a fake tensor has no memory
                yield storage
    elif isinstance(value, (list, tuple)):
        for part in value:
            if part is not None and not isinstance(part, (int, float)):
                yield from _storages(tensor, part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from _storages(tensor, part)


def _parts(tensor: torch.Tensor) -> list[Any]:
    names = (
        "_indices",
        "_values",
        "crow_indices",
        "col_indices",
        "ccol_indices",
        "row_indices",
        "values",
    )
    found = []
    for name in names:
        try:
            found.append(getattr(tensor, name)())
        except (AttributeError, NotImplementedError, RuntimeError):
            continue
    return [part for part in found if part is not tensor]


def out_of_memory(
    wanted: int, *, total: int, live: int, others: int = 0, fragmented: bool = False
) -> BaseException:
    """Return an error like that of torch's CUDA allocator."""
    import torch

    free = max(0, total - live - others)
    idle = free if fragmented else 0
    known = getattr(torch, "OutOfMemoryError", None) or torch.cuda.OutOfMemoryError
    error: BaseException = known(
        f"CUDA out of memory. Tried to allocate {wanted / _MIB:.2f} MiB. GPU 0 has a total "
        f"capacity of {total / _MIB:.2f} MiB of which "
        f"{(free - idle) / _MIB:.2f} MiB is free. "
        + (f"Process 2 has {others / _MIB:.2f} MiB memory in use. " if others else "")
        + f"Including non-PyTorch memory, this process has {(live + idle) / _MIB:.2f} MiB memory in use. Of the allocated memory "
        f"{live / _MIB:.2f} MiB is allocated by PyTorch, and {idle / _MIB:.2f} MiB is reserved by "
        f"PyTorch but unallocated. If reserved but "
        "unallocated memory is large try setting PYTORCH_ALLOC_CONF=expandable_segments:True to "
        "avoid fragmentation. (injected by mlchaos)"
    )
    return error
