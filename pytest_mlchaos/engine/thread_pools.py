"""Keep work that is submitted to thread pools part of the request that submits it."""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.thread
import functools
import multiprocessing.pool
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any

from .activity import ABANDONED
from .attribution import carry_scope
from .patching import Patches
from .virtual_time import installed_clock
from .zones import carry_place

__all__ = ["abandon", "carry_scopes", "have_work"]

_given: weakref.WeakSet[Any] = weakref.WeakSet()
"""The futures and results of submitted work."""
_OF_POOLS = ("apply_async", "_map_async", "imap", "imap_unordered")
"""The methods that all other methods of ``multiprocessing.pool.ThreadPool`` call.

Each takes the function first.
"""


def carry_scopes(patches: Patches) -> None:
    """Attribute the work of thread pools to the request that submits it.

    This lasts until ``patches`` are undone.
    """
    # Work that never ends must not count in a later trial.
    patches.on_undo(_given.clear)
    pools = concurrent.futures.ThreadPoolExecutor, multiprocessing.pool.ThreadPool
    patches.set(pools[0], "submit", _carrying(pools[0].submit))
    for name in _OF_POOLS:
        patches.set(pools[1], name, _carrying(getattr(pools[1], name)))


def have_work() -> bool:
    """Return True if work in a thread pool is not finished."""
    return any(
        not (one.done() if isinstance(one, concurrent.futures.Future) else one.ready())
        for one in list(_given)
    )


def _carrying(submit: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(submit)
    def submitting(self: object, function: object, /, *args: object, **kwargs: object) -> Any:
        if callable(function):
            function = _in_turn(carry_scope(carry_place(function)))
        given = submit(self, function, *args, **kwargs)
        if hasattr(given, "done") or hasattr(given, "ready"):  # not an iterator
            _given.add(given)
        return given

    return submitting


def _in_turn(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function for a thread of a pool, which may be older than the trial.

    Under load, such a thread joins the others, and waits for its turn.
    """
    clock = installed_clock()
    if clock is None or not (clock.takes_turns and clock.governs):
        return function

    def starting(*args: object, **kwargs: object) -> Any:
        if clock.join_in is not None and not clock.is_mine:
            clock.join_in()
        return function(*args, **kwargs)

    return starting


def abandon(threads: Iterable[threading.Thread]) -> None:
    """Leave threads that are blocked for ever, so that the process can end without them."""
    for thread in threads:
        ABANDONED.add(thread)
        concurrent.futures.thread._threads_queues.pop(thread, None)  # type: ignore[attr-defined]
        lock = getattr(thread, "_tstate_lock", None)
        getattr(threading, "_shutdown_locks", set()).discard(lock)
