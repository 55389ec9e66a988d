"""Find the ranks that the subject, or a launcher around the test, starts by itself.

A process becomes a rank when it initializes its process group. If ``RANK`` and ``WORLD_SIZE`` are
in its environment at its start, it is one from there on. Processes that are started as commands
join the trial by the hook of ``start_hook.py``, which the environment names.
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
import tempfile
from pathlib import Path

from .controller import Controller, current
from .import_hooks import when_imported
from .own_rank import become_rank
from .patching import Patches
from .scopes import INTERNAL_OPERATION, within
from .start_hook import RANKS_PREFIX, write_hook

__all__ = ["follow_ranks", "join_commands"]

_GROUPS = "torch.distributed.distributed_c10d"


def follow_ranks(controller: Controller, patches: Patches) -> None:
    """Let this process, and those that it forks, become ranks, if a fault strikes only in ranks."""
    if not any(map(controller.own_rank.is_awaited_by, controller.scheduled)):
        return
    number, size = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    if number.isdigit() and size.isdigit():
        become_rank(controller, int(number), int(size))
    when_imported(_GROUPS, patches, functools.partial(_follow_groups, patches))


def _follow_groups(patches: Patches) -> None:
    """Watch the one function of torch that sets the default group, in whatever way it is made."""
    groups = sys.modules[_GROUPS]
    original = getattr(groups, "_update_default_pg", None)
    if original is None:  # a torch without distributed
        return

    @functools.wraps(original)
    def update_default_group(group: object) -> None:
        original(group)
        controller = current()
        if group is not None and controller is not None:
            become_rank(controller, groups.get_rank(), groups.get_world_size())

    patches.set(groups, "_update_default_pg", update_default_group)


def join_commands(controller: Controller, patches: Patches) -> None:
    """Let the Python processes join the trial that the subject starts as commands.

    The environment names the hook only if a fault strikes only in ranks.
    """
    if not any(map(controller.own_rank.is_awaited_by, controller.scheduled)):
        return
    with within(INTERNAL_OPERATION):
        folder = Path(tempfile.mkdtemp(prefix=RANKS_PREFIX))
    patches.on_undo(functools.partial(_remove, folder))
    hook = _Hook(controller, folder)
    hook.write()
    controller.on_change.append(hook.write)
    before = os.environ.get("PYTHONPATH")
    patches.on_undo(functools.partial(_restore, str(folder)))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), *([before] if before else [])])


class _Hook:
    """The hook in a folder. It names the file of the current attempt, in which processes report."""

    def __init__(self, controller: Controller, folder: Path) -> None:
        self._controller = controller
        self._folder = folder
        self._written: object = None

    def write(self) -> None:
        """Write the hook again, if the attempt that it belongs to has ended."""
        controller = self._controller
        if controller.forks is not None and controller.forks is self._written:
            return
        if controller.scheduled and self._folder.is_dir():
            write_hook(self._folder, controller, "command", ())
            self._written = controller.forks


def _restore(folder: str) -> None:
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    left = [path for path in paths if path != folder]
    if left:
        os.environ["PYTHONPATH"] = os.pathsep.join(left)
    else:
        os.environ.pop("PYTHONPATH", None)


def _remove(folder: Path) -> None:
    with within(INTERNAL_OPERATION):
        shutil.rmtree(folder, ignore_errors=True)
