"""Note how a rank waits for others by ``torch.distributed.rpc``.

A call is an access to a store that both sides share: the caller writes its request and reads the
reply, and the rank that runs the function reads the request and writes the reply. It is not followed
which reply a rank has read, so it comes after each one that was written before.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable

# By name, so that patches of the module's attributes do not affect it.
from time import monotonic
from typing import Any

from ...engine.import_hooks import when_imported
from ...engine.patching import Patches
from .timelines import Access, StoreRead, StoreWrite

__all__ = ["watch_rpc"]

API = "torch.distributed.rpc.api"
KEYS = frozenset({"torch.distributed.rpc"})
"""The key of all calls. No store has this key."""

Note = Callable[[StoreRead | StoreWrite], object]


def watch_rpc(patches: Patches, note: Note) -> None:
    """Note the calls of this rank, and those that it runs for others.

    Fidelity: functions of TorchScript and operators of torch are run by C++ code, unseen.
    """
    when_imported(API, patches, functools.partial(_install, patches, note))


def _install(patches: Patches, note: Note) -> None:
    import torch

    api = importlib.import_module(API)
    if not hasattr(api, "_invoke_rpc"):  # a torch without RPC
        return
    patches.set(api, "_invoke_rpc", _writing(api._invoke_rpc, note))
    remote = api.remote
    patches.replace_everywhere(remote, _writing(remote, note))
    internal = importlib.import_module("torch.distributed.rpc.internal")
    patches.set(internal, "_run_function", _running(internal._run_function, note))
    future, reference = torch._C.Future, importlib.import_module("torch._C._distributed_rpc").PyRRef
    for owner, name in ((future, "wait"), (future, "value"), (reference, "to_here")):
        patches.set(owner, name, _reading(getattr(owner, name), note))
    for name in ("then", "add_done_callback"):
        patches.set(future, name, _calling_back(getattr(future, name), note))


def _write(note: Note) -> None:
    note(StoreWrite(Access(KEYS, monotonic())))


def _read(note: Note) -> None:
    now = monotonic()
    note(StoreRead(Access(KEYS, now, now)))


def _writing(original: Callable[..., Any], note: Note) -> Callable[..., Any]:
    @functools.wraps(original)
    def sent(*args: object, **keywords: object) -> Any:
        _write(note)
        return original(*args, **keywords)

    return sent


def _reading(original: Callable[..., Any], note: Note) -> Callable[..., Any]:
    @functools.wraps(original)
    def read(*args: object, **keywords: object) -> Any:
        result = original(*args, **keywords)
        _read(note)
        return result

    return read


def _calling_back(original: Callable[..., Any], note: Note) -> Callable[..., Any]:
    @functools.wraps(original)
    def then(future: Any, callback: Callable[[Any], Any]) -> Any:
        def called(done: Any) -> Any:
            _read(note)
            return callback(done)

        return original(future, called)

    return then


def _running(original: Callable[..., Any], note: Note) -> Callable[..., Any]:
    @functools.wraps(original)
    def run(*args: object) -> Any:
        _read(note)
        try:
            return original(*args)
        finally:
            _write(note)

    return run
