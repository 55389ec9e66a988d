"""Define ``rpc.call``: the calls of ``torch.distributed.rpc``."""

from __future__ import annotations

import functools
import importlib
import sys
from typing import Any

from ..core.sites import Key, site
from ..engine.controller import Controller
from ..engine.import_hooks import when_imported
from ..engine.patching import Patches

__all__: list[str] = []

API = "torch.distributed.rpc.api"
CALLS = ("rpc_sync", "rpc_async", "remote")


@site(
    "rpc.call",
    "A call of torch.distributed.rpc, about to be sent: rpc_sync, rpc_async or remote. Payload: "
    "its (args, kwargs).",
    needs="torch",
)
def arm_rpc(controller: Controller, patches: Patches, key: Key) -> None:
    """Make a visit of each call that this process sends, under each name of the functions."""

    def install() -> None:
        api = importlib.import_module(API)
        for name in CALLS:
            original = getattr(api, name, None)
            if original is not None:
                call = _visiting(controller, key, name, original)
                patches.set(api, name, call)
                patches.replace_everywhere(original, call)

    when_imported(API, patches, install)


def _visiting(controller: Controller, key: Key, name: str, original: Any) -> Any:
    @functools.wraps(original)
    def call(*args: Any, **keywords: Any) -> Any:
        # torch's own calls, in init_rpc and shutdown
        if sys._getframe(1).f_globals.get("__name__") == API:
            return original(*args, **keywords)
        to = args[0] if args else keywords.get("to")
        gate = controller.begin(key, (args, keywords), {"op": name, "to": getattr(to, "name", to)})
        if gate is None:
            return original(*args, **keywords)
        with gate:
            gate.wait()
            args, keywords = gate.payload
            return original(*args, **keywords)

    return call
