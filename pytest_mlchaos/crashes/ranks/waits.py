"""Note how a rank waits for others: by collectives, new groups, values of a store, and remote calls."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence

# By name, so that patches of the module's attributes do not affect it.
from time import monotonic
from typing import Any

from ...core.collectives import CollectiveRecord
from ...core.schedule import Schedule
from ...engine.controller import Controller, current
from ...engine.patching import Patches
from ...sites.collectives import record_collectives
from .rpc_waits import watch_rpc
from .timelines import Access, Launch, Meeting, StoreRead, StoreWrite, Waited

__all__ = ["Mark", "watch_waits"]

Mark = Launch | Waited | Meeting | StoreWrite | StoreRead
Note = Callable[[Mark], Callable[[Mark | None], None]]
"""Called with a mark when it happens. The returned function replaces the mark, or removes it."""

_ASKS = ("is_completed",)
"""Methods of a ``Work`` that say if it is finished."""
_LEARNS = (
    *("wait", "result", "synchronize", "block_current_stream", "is_success", "exception"),
    *("get_future", "get_future_result"),
)
"""Methods of a ``Work`` after which its rank may know that it is finished. That of a future is not
the moment itself, but code may wait for the future unseen."""


def watch_waits(patches: Patches, note: Note) -> None:
    """Call ``note`` right before a rank lets others go on, and right after it has waited for them."""
    watch_collectives(patches, note)
    watch_stores(patches, note)
    watch_rpc(patches, note)


# -- collectives -----------------------------------------------------------------------------------


def watch_collectives(patches: Patches, note: Note) -> None:
    """Note the launches of collectives, the waits for them, and the calls in which ranks meet."""
    import torch.distributed as dist

    works = _Works(note)
    controller = current() or Controller(Schedule())
    record_collectives(controller, patches, works.launch)
    for name in (*_ASKS, *_LEARNS):
        if hasattr(dist.Work, name):
            patches.set(dist.Work, name, works.watched(getattr(dist.Work, name), name))
    with patches.together():
        for name in ("init_process_group", "new_group"):
            original = getattr(dist, name)
            patches.replace_everywhere(original, _meeting(original, name, note))


class _Works:
    """The works that the launches of this rank have made, and that it has not waited for."""

    def __init__(self, note: Note) -> None:
        self._note = note
        self._numbers: dict[int, tuple[int, Any]] = {}
        self._lock = threading.Lock()
        self._count = 0

    def launch(self, record: CollectiveRecord) -> Callable[[Any], None] | None:
        """Note a launch, and return a function that takes its work."""
        with self._lock:
            number = self._count = self._count + 1
        self._note(Launch(record, number, monotonic()))
        return None if record.waits else functools.partial(self._add, number)

    def _add(self, number: int, result: Any) -> None:
        from torch._C._distributed_c10d import Work

        boxed = result[-1] if isinstance(result, (list, tuple)) else result
        if boxed is not None:
            # While it is held, Python sees this same object wherever C++ returns the work.
            work = Work.unbox(boxed)
            self._numbers[id(work)] = number, work

    def watched(self, original: Callable[..., Any], name: str) -> Callable[..., Any]:
        """Return a method that notes when a work is first known to be finished."""

        @functools.wraps(original)
        def learned(work: Any, *args: object, **keywords: object) -> Any:
            result = original(work, *args, **keywords)
            if (name not in _ASKS or result) and id(work) in self._numbers:
                number, _ = self._numbers.pop(id(work))
                self._note(Waited(number, monotonic()))
            return result

        return learned


def _meeting(original: Callable[..., Any], name: str, note: Note) -> Callable[..., Any]:
    @functools.wraps(original)
    def called(*args: Any, **keywords: Any) -> Any:
        note(Meeting(name, _members(name, args, keywords)))
        return original(*args, **keywords)

    return called


def _members(name: str, args: Sequence[Any], keywords: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Return the ranks of a new group, or None for all. A rank that is not in it meets itself."""
    if name != "new_group":
        return None
    ranks = args[0] if args else keywords.get("ranks")
    if ranks is None:
        return None
    import torch.distributed as dist

    me = dist.get_rank()
    return tuple(sorted(ranks)) if me in ranks else (me,)


# -- stores ----------------------------------------------------------------------------------------

_READS = ("get", "multi_get", "wait", "check", "queue_pop", "queue_len", "list_keys", "num_keys")
_WRITES = ("set", "multi_set", "append", "delete_key", "queue_push")
_BOTH = ("add", "compare_set", "barrier")
_OF_ALL_KEYS = ("list_keys", "num_keys")


def watch_stores(patches: Patches, note: Note) -> None:
    """Note the accesses to stores."""
    import torch.distributed as dist

    prefixes = _Prefixes()
    patches.set(dist.PrefixStore, "__init__", prefixes.noting(dist.PrefixStore.__init__))
    for name in (*_READS, *_WRITES, *_BOTH):
        if hasattr(dist.Store, name):
            access = _accessing(getattr(dist.Store, name), name, prefixes, note)
            patches.set(dist.Store, name, access)


class _Prefixes:
    """The prefixes of the stores that Python code has made."""

    def __init__(self) -> None:
        self._known: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()

    def noting(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Return an ``__init__`` that notes the prefix."""

        @functools.wraps(original)
        def init(store: Any, prefix: str, *args: object, **keywords: object) -> None:
            original(store, prefix, *args, **keywords)
            self._known[store] = prefix

        return init

    def full(self, store: Any, key: str) -> str:
        """Return a key with all prefixes of its store."""
        while (inner := getattr(store, "underlying_store", None)) is not None:
            key, store = f"{self._known.get(store, '')}/{key}", inner
        return key


def _accessing(
    original: Callable[..., Any], name: str, prefixes: _Prefixes, note: Note
) -> Callable[..., Any]:
    @functools.wraps(original)
    def access(store: Any, *args: Any, **keywords: Any) -> Any:
        keys = _keys(name, store, args, keywords, prefixes)
        begun = Access(keys, monotonic())
        write = note(StoreWrite(begun)) if name not in _READS else None
        result = original(store, *args, **keywords)
        if name == "check" and not result:
            return result
        saw, wrote = _values(name, args, result)
        done = Access(keys, begun.start, monotonic(), saw, wrote)
        if write is not None:
            # Code may wait by adding nothing.
            write(None if saw is not None and saw == wrote else StoreWrite(done))
        if name not in _WRITES:
            note(StoreRead(done))
        return result

    return access


def _keys(
    name: str,
    store: Any,
    args: Sequence[Any],
    keywords: Mapping[str, Any],
    prefixes: _Prefixes,
) -> frozenset[str]:
    """Return the keys of an access, or an empty set for all keys."""
    if name in _OF_ALL_KEYS:
        return frozenset()
    given = args[0] if args else keywords.get("key", keywords.get("keys"))
    keys = [given] if isinstance(given, str) else list(given or ())
    return frozenset(prefixes.full(store, key) for key in keys)


def _values(name: str, args: Sequence[Any], result: Any) -> tuple[bytes | None, bytes | None]:
    """Return the value that an access has found, and the one that it has left, or None for each."""
    if name == "get":
        return result, None
    if name == "set" and len(args) > 1:
        return None, args[1].encode() if isinstance(args[1], str) else bytes(args[1])
    if name == "add" and len(args) > 1:
        return b"%d" % (result - args[1]), b"%d" % result
    return None, None
