"""Adapt ``torch.distributed`` in the ranks of a world."""

from __future__ import annotations

import errno
import functools
import importlib
import itertools
import os
import socket
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

from ..core.privacy import remember_text
from ..engine.patching import Patches
from ..engine.world_store import world_store

__all__ = ["adapt", "search_early"]

_found_early: list[types.ModuleType] = []
"""The modules of the warm process that have one of the functions."""
_kept: list[Any] = []
"""The groups that this rank has destroyed. They outlive the patches, because a model may, too."""
_newest = ""
"""The last module that the warm process has imported."""


def search_early() -> None:
    """Search the modules of the warm process.

    A search in each rank would copy the memory pages of all modules, which takes 20 ms.
    """
    global _newest
    import torch.distributed as dist

    if not dist.is_available():
        return
    functions = {"init_process_group", "destroy_process_group"}
    _newest = next(reversed(sys.modules))
    _found_early[:] = [
        module
        for module in [*sys.modules.values()]
        if isinstance(module, types.ModuleType)
        and any(vars(module).get(name) is getattr(dist, name) for name in functions)
    ]


def _modules() -> Iterator[types.ModuleType]:
    """Yield the modules that were found in the warm process, and those that are newer."""
    yield from _found_early
    for name in [*itertools.takewhile(lambda name: name != _newest, reversed(sys.modules))]:
        module = sys.modules[name]
        if isinstance(module, types.ModuleType):
            yield module


def adapt(
    patches: Patches, *, backend: str, port: int, prefix: str, tell: Callable[[str], object]
) -> None:
    """Patch ``init_process_group`` and ``destroy_process_group`` for a world.

    ``init_process_group`` uses the world's backend if the call names none, and a store of its own
    if the call names a port that is not the world's. ``tell`` gets ``"joining"``
    before each call, and ``"joined"`` after each success.

    With a ``prefix``, the ranks of one attempt do not read what those of an earlier one have left
    in the store, for example addresses. Torch 2.13 itself leaves them there for a restart.
    """
    import torch.distributed as dist

    # the package has a function of the same name
    rendezvous = importlib.import_module("torch.distributed.rendezvous")
    for name, wrap in (
        ("init_process_group", _initialising(backend, tell)),
        ("destroy_process_group", _keep),
    ):
        original = getattr(dist, name)
        wrapper = wrap(original)
        # The subject's modules are loaded, and may have imported the function by its name.
        for module in _modules():
            if vars(module).get(name) is original:
                patches.set(module, name, wrapper)
    create = getattr(rendezvous, "_create_c10d_store", None)
    if create is not None:
        patches.set(rendezvous, "_create_c10d_store", _store_creator(create, port, prefix))


def _initialising(default: str, tell: Callable[[str], object]) -> Callable[[Any], Any]:
    def wrap(original: Callable[..., Any]) -> Any:
        @functools.wraps(original)
        def init_process_group(backend: Any = None, *args: object, **keywords: object) -> Any:
            _kept.clear()
            tell("joining")
            result = original(default if backend is None else backend, *args, **keywords)
            tell("joined")
            return result

        return init_process_group

    return wrap


def _keep(original: Callable[..., Any]) -> Any:
    """Keep destroyed groups alive until new ones are made, or the process ends.

    torch's DDP releases the last reference to its group while it holds the GIL, and gloo then waits
    for a thread that may need the GIL (pytorch issue 56297). About every tenth job would hang at
    its end.
    """
    import torch.distributed.distributed_c10d as c10d

    @functools.wraps(original)
    def destroy_process_group(*args: object, **keywords: object) -> Any:
        _kept.extend(getattr(getattr(c10d, "_world", None), "pg_map", ()))
        return original(*args, **keywords)

    return destroy_process_group


def _store_creator(create: Any, agents_port: int, prefix: str) -> Any:
    """Let rank 0 host a rendezvous at a port that is not the agent's, as without torchrun."""
    hosted: set[int] = set()

    @functools.wraps(create)
    def create_store(hostname: Any, port: Any, rank: Any, *args: object, **keywords: object) -> Any:
        if port == agents_port:
            store = create(hostname, port, rank, *args, **keywords)
            return _with_prefix(prefix, store) if prefix else store
        world_store.is_replaced = True
        agent = os.environ.pop("TORCHELASTIC_USE_AGENT_STORE", None)
        try:
            if rank == 0 and port not in hosted:
                _check_free(hostname, port)
                hosted.add(port)
            return create(hostname, port, rank, *args, **keywords)
        finally:
            if agent is not None:
                os.environ["TORCHELASTIC_USE_AGENT_STORE"] = agent

    return create_store


def _with_prefix(prefix: str, store: Any) -> Any:
    import torch.distributed as dist

    return dist.PrefixStore(prefix, store)


def _check_free(hostname: str, port: int) -> None:
    """Raise an error if the port is in use, before torch tries it.

    torch would listen on a different interface, and wait for an answer from the program that has
    the port on this one.
    """
    try:
        socket.create_server((hostname, port)).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            taken = OSError(
                error.errno,
                f"port {port} is in use, so rank 0 cannot host the store. Use the MASTER_PORT that "
                f"mlchaos sets",
            )
            remember_text(taken, str(taken))
            raise taken from None
