"""List the descriptors, threads and child processes of this process, to find those that leak."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from time import sleep  # the real one

from ..core.privacy import is_name
from .activity import TOOL_PROCESSES, list_threads

__all__ = ["Resources", "growth", "list_resources", "wait_for_release"]

SETTLING_ROUNDS = 10
SETTLING_SECONDS = 0.02
SETTLING = {"thread", "child process"}
"""The kinds of resources that need time to end."""
_DESCRIPTORS = Path("/proc/self/fd" if sys.platform == "linux" else "/dev/fd")
_TASKS = Path("/proc/self/task")
_KINDS = (("socket:", "socket"), ("pipe:", "pipe"), ("anon_inode:", "kernel object"))

Resources = Mapping[str, tuple[str, str]]
"""For each resource, by an identity: its kind, and its name."""


def list_resources() -> Resources:
    """Return the open descriptors, the running threads and the child processes."""
    return {**_descriptors(), **_threads(), **_children()}


def growth(before: Resources, after: Resources) -> dict[str, list[str]]:
    """Return the names of new resources by kind, for each kind of which there are more."""
    had, has = (Counter(kind for kind, _ in found.values()) for found in (before, after))
    return {
        kind: sorted(
            name for key, (one, name) in after.items() if one == kind and key not in before
        )
        for kind in sorted(has)
        if has[kind] > had[kind]
    }


def wait_for_release(before: Resources) -> Resources:
    """Return the resources once threads that are ending have ended, and garbage is freed."""
    gc.collect()
    after = list_resources()
    for _ in range(SETTLING_ROUNDS):
        if not growth(before, after).keys() & SETTLING:
            break
        sleep(SETTLING_SECONDS)
        after = list_resources()
    return after


def _descriptors() -> Resources:
    found = {}
    with contextlib.suppress(OSError):
        for number in os.listdir(_DESCRIPTORS):
            with contextlib.suppress(OSError):  # It was that of the listing.
                target = os.readlink(_DESCRIPTORS / number)
                found[f"descriptor {number} {target}"] = _descriptor(target)
    return found


def _descriptor(target: str) -> tuple[str, str]:
    kind = next((kind for start, kind in _KINDS if target.startswith(start)), "open file")
    return kind, Path(target.removesuffix(" (deleted)")).name if kind == "open file" else ""


def _threads() -> Resources:
    return {
        f"thread {thread.ident}": ("thread", thread.name if is_name(thread.name) else "")
        for thread in list_threads()
        if thread is not threading.main_thread() and not thread.name.startswith("mlchaos")
    }


def _children() -> Resources:
    found = {}
    with contextlib.suppress(OSError):
        for task in os.listdir(_TASKS):
            for child in (_TASKS / task / "children").read_text().split():
                if int(child) not in TOOL_PROCESSES:
                    found[f"process {child}"] = ("child process", _program(child))
    return found


def _program(process: str) -> str:
    with contextlib.suppress(OSError):
        return Path("/proc", process, "comm").read_text().strip()
    return ""
