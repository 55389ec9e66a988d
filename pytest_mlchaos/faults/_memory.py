"""Memory of an emulated device: the live bytes of tensors' storages, and what does not fit."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

from ..core.sites import Effect
from ..core.values import size_text

__all__ = ["Live", "emulated", "out_of_memory"]
__tracebackhide__ = True  # a failure shows the user's code, not ours

_MIB = 2**20


class Live:
    """Bytes that are alive: each storage counts once, however many tensors share it, until the last of them is gone."""

    def __init__(self) -> None:
        self.bytes = self.peak = 0
        self._known: dict[int, list[Any]] = {}

    def see(self, storage: Any) -> int:
        """Count a storage; gives how many bytes that adds (it may be known, and may have been resized)."""
        key, size = storage._cdata, storage.nbytes()
        known = self._known.get(key)
        if known is not None and known[1]() is storage:
            added = size - known[0]
            known[0] = size
        else:
            self._known[key] = [size, weakref.ref(storage, lambda gone: self._free(key, gone))]
            added = size
        self.bytes += added
        self.peak = max(self.peak, self.bytes)
        return int(added)

    def knows(self, storage: Any) -> bool:
        """Whether a storage is counted already."""
        known = self._known.get(storage._cdata)
        return known is not None and known[1]() is storage

    def size_of(self, storage: Any) -> int:
        """The bytes that a storage was counted with."""
        return int(self._known[storage._cdata][0])

    def _free(self, key: int, gone: Any) -> None:
        known = self._known.get(key)
        if known is not None and known[1] is gone:
            self.bytes -= known[0]
            del self._known[key]


def emulated(effect: Effect, *, total: int, largest: int | None, pieces: bool, taken: int = 0) -> Any:
    """A dispatch mode in which ``total`` bytes of tensors can be alive.

    ``taken``: of which another process holds so many. ``largest``: the most that one allocation can have.
    ``pieces``: or half of what is free.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    seeded = torch.Tag.nondeterministic_seeded
    peak = {"all": 0}  # over all processes

    class Budget(TorchDispatchMode):  # type: ignore[misc]  # torch is not checked
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if not effect.active:
                return func(*args, **(kwargs or {}))
            live: Live = effect.memory.setdefault("live", Live())
            for storage in _storages(torch, (args, kwargs)):
                live.see(storage)
            random = torch.get_rng_state() if seeded in func.tags else None
            before = live.bytes
            result = func(*args, **(kwargs or {}))
            new = {storage._cdata: storage for storage in _storages(torch, (result, args))}
            wanted = sum(storage.nbytes() for storage in new.values() if not live.knows(storage)) + _grown(live, new)
            refused = self._refused(before, wanted)
            if refused is None:
                for storage in new.values():
                    live.see(storage)
                peak["all"] = max(peak["all"], live.peak)
                effect.remark(f"the peak was {size_text(peak['all'])} of {size_text(total)}")
                return result
            return self._fail(func, args, result, refused, before, wanted, random)

        def _refused(self, live: int, wanted: int) -> str | None:
            free = total - taken - live
            if wanted > 0 and wanted > free:
                return "full"
            limit = min(largest or wanted, max(free, 0) // 2 if pieces else wanted)
            return "fragmented" if wanted > limit else None

        def _fail(self, func: Any, args: Any, result: Any, why: str, live: int, wanted: int, random: Any) -> Any:
            error = out_of_memory(wanted, total=total, live=live, others=taken, fragmented=why == "fragmented")
            text = f"{size_text(live)} of {size_text(total)}"
            if not effect.strike(error, operator=str(func), wanted=size_text(wanted), live=text, **({"why": why} if why != "full" else {})):
                return result
            if random is not None:
                torch.set_rng_state(random)  # the operator has not run
            if func.__name__.startswith("resize_"):
                args[0].untyped_storage().resize_(effect.memory["live"].size_of(args[0].untyped_storage()))
            try:
                raise error
            finally:
                del error  # this frame would keep the error, and with it all that its frames hold

    return Budget()


def _grown(live: Live, new: dict[int, Any]) -> int:
    """Bytes by which storages that are known have grown."""
    return sum(max(0, storage.nbytes() - live.size_of(storage)) for storage in new.values() if live.knows(storage))


def _storages(torch: Any, values: Any) -> Iterator[Any]:
    """The storages behind all tensors in some values; a sparse tensor has those of its parts."""
    pending = list(torch.utils._pytree.tree_leaves(values))
    while pending:
        leaf = pending.pop()
        if isinstance(leaf, torch.Tensor) and leaf.device.type != "meta":
            try:
                storage = leaf.untyped_storage()
            except (NotImplementedError, RuntimeError):
                pending.extend(_parts(leaf))
            else:
                if storage.device.type != "meta":  # a fake tensor's, which holds nothing
                    yield storage


def _parts(tensor: Any) -> list[Any]:
    names = ("_indices", "_values", "crow_indices", "col_indices", "ccol_indices", "row_indices", "values")
    found = []
    for name in names:
        try:
            found.append(getattr(tensor, name)())
        except (AttributeError, NotImplementedError, RuntimeError):
            continue
    return [part for part in found if part is not tensor]


def out_of_memory(wanted: int, *, total: int, live: int, others: int = 0, fragmented: bool = False) -> BaseException:
    """The error of torch's CUDA allocator."""
    import torch

    free = total - live - others
    idle = free if fragmented else 0
    known = getattr(torch, "OutOfMemoryError", None) or torch.cuda.OutOfMemoryError
    error: BaseException = known(
        f"CUDA out of memory. Tried to allocate {wanted / _MIB:.2f} MiB. GPU 0 has a total capacity of {total / _MIB:.2f} MiB of which "
        f"{(free - idle) / _MIB:.2f} MiB is free. "
        + (f"Process 2 has {others / _MIB:.2f} MiB memory in use. " if others else "")
        + f"Including non-PyTorch memory, this process has {(live + idle) / _MIB:.2f} MiB memory in use. Of the allocated memory "
        f"{live / _MIB:.2f} MiB is allocated by PyTorch, and {idle / _MIB:.2f} MiB is reserved by PyTorch but unallocated. If reserved but "
        "unallocated memory is large try setting PYTORCH_ALLOC_CONF=expandable_segments:True to avoid fragmentation. (injected by mlchaos)"
    )
    return error
