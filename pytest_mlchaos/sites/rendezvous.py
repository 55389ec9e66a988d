"""Define ``rendezvous``, ``store.get`` and ``store.set``: the places where ranks find each other."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

from ..core.sites import Key, name_of, site
from ..engine.controller import Controller
from ..engine.import_hooks import when_imported
from ..engine.patching import Patches

__all__: list[str] = []

RENDEZVOUS = "rendezvous"
STORE_OPERATIONS = {
    "store.get": ("get", "multi_get", "wait", "check"),
    "store.set": ("set", "multi_set", "compare_set", "add", "append"),
}
"""The methods of a store that pass each site."""
_FORWARDED = (
    *("get", "multi_get", "wait", "check", "set", "multi_set", "compare_set", "add", "append"),
    *("delete_key", "num_keys", "set_timeout", "has_extended_api"),
    *("queue_push", "queue_pop", "queue_len"),
)


@site(
    RENDEZVOUS,
    "A call of torch.distributed.init_process_group, in which the ranks meet. Payload: its "
    "(args, kwargs).",
    needs="torch",
)
def arm_rendezvous(controller: Controller, patches: Patches, key: Key) -> None:
    """Make a visit of each ``init_process_group``, under each name by which it was imported."""

    def install() -> None:
        c10d = importlib.import_module("torch.distributed.distributed_c10d")
        original = getattr(c10d, "init_process_group", None)
        if original is None:  # a torch without distributed
            return

        @functools.wraps(original)
        def init_process_group(*args: object, **keywords: object) -> Any:
            gate = controller.begin(key, (args, keywords))
            if gate is None:
                return original(*args, **keywords)
            with gate:
                gate.wait()
                args, keywords = gate.payload
                return original(*args, **keywords)

        patches.set(c10d, "init_process_group", init_process_group)
        patches.replace_everywhere(original, init_process_group)

    when_imported("torch.distributed.distributed_c10d", patches, install)


def arm_store(controller: Controller, patches: Patches, key: Key) -> None:
    """Make a visit of each access to a store, by Python code and by the groups of gloo."""

    def install() -> None:
        dist = importlib.import_module("torch.distributed")
        if not hasattr(dist, "Store"):  # a torch without distributed
            return
        for name in STORE_OPERATIONS[name_of(key)]:
            if hasattr(dist.Store, name):
                patches.set(dist.Store, name, _visiting(controller, key, dist.Store, name))
        if any(fault.key == key for fault in controller.schedule.faults):
            _show_accesses_of_gloo(patches)

    when_imported("torch.distributed.distributed_c10d", patches, install)


site(
    "store.get",
    "A value of a torch.distributed store, about to be read or waited for. Payload: its key, or a "
    "list of keys.",
    needs="torch",
)(arm_store)
site(
    "store.set",
    "A value of a torch.distributed store, about to be written. Payload: its key, or a list of "
    "keys.",
    needs="torch",
)(arm_store)


def _visiting(controller: Controller, key: Key, owner: Any, name: str) -> Callable[..., Any]:
    original = getattr(owner, name)

    def access(store: Any, *args: Any, **keywords: Any) -> Any:
        what = args[0] if args else next(iter(keywords.values()), None)
        gate = controller.begin(key, what, {"op": name})
        if gate is None:
            return original(store, *args, **keywords)
        with gate:
            gate.wait()
            return original(store, *args, **keywords)

    access.__name__ = name
    return access


def _show_accesses_of_gloo(patches: Patches) -> None:
    """Lead the C++ accesses of each new gloo group through the Python methods of its store."""
    c10d = importlib.import_module("torch.distributed.distributed_c10d")
    group_class = getattr(c10d, "ProcessGroupGloo", None)
    if group_class is None or getattr(group_class.__init__, "shows_accesses", False):
        return
    original, forwarding = group_class.__init__, _forwarding_class()
    # C++ keeps only its half of a store. The methods are in this half.
    kept: list[Any] = []

    @functools.wraps(original)
    def __init__(group: Any, store: Any, *args: object, **keywords: object) -> None:  # noqa: N807
        kept.append(forwarding(store))
        original(group, kept[-1], *args, **keywords)

    vars(__init__)["shows_accesses"] = True
    patches.set(group_class, "__init__", __init__)


def _forwarding_class() -> Any:
    dist = importlib.import_module("torch.distributed")

    class ForwardingStore(dist.Store):  # type: ignore[misc,name-defined]
        """A store whose methods call those of a different store."""

        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner = inner

    def forwarded(name: str) -> Any:
        def method(store: Any, *args: object, **keywords: object) -> Any:
            return getattr(store.inner, name)(*args, **keywords)

        method.__name__ = name
        return method

    for name in _FORWARDED:
        if hasattr(dist.Store, name):
            setattr(ForwardingStore, name, forwarded(name))
    return ForwardingStore
