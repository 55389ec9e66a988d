"""Make the processes of a command part of the trial: a server, and the workers that it starts.

They run ``sitecustomize``, as each Python process does at its start. Ours is in a directory of our
own, which only the command finds in ``PYTHONPATH``. It arms the process by an order, as
``fresh_starts.py`` does. The user's modules are not imported yet, so a site is armed when the
module is imported that it patches.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from ..core.sites import CALL, SITES, Key, name_of
from .controller import Controller
from .fresh_starts import Order, join_trial, order_for, site_modules
from .import_hooks import when_imported
from .patching import Patches
from .remote_state import pack_error
from .scopes import INTERNAL_OPERATION, within
from .user_code import Project, current_project, set_project

__all__ = ["RANKS_PREFIX", "armed_processes", "join", "without_hook", "write_hook"]

_SITES = f"{__name__.partition('.')[0]}.sites"
_WITH_TARGET = (CALL, "call.result")
"""The sites whose keys name a function of the user."""
RANKS_PREFIX = "mlchaos-ranks-"
"""The beginning of the name of a folder with the hook for ranks that the subject starts."""
_ORDER, _ARMED = "order.pickle", "armed-"
_PROGRAM = '''\
"""Make this process part of a trial of mlchaos, then do as if this file were not there."""
import sys

_FOLDER, _PACKAGE = {folder!r}, {package!r}


def _join():
    while _FOLDER in sys.path:
        sys.path.remove(_FOLDER)
    own = sys.modules.pop("sitecustomize")
    try:
        import sitecustomize  # the one that this file hides
    except ImportError:
        pass
    finally:
        sys.modules.setdefault("sitecustomize", own)
    sys.path.append(_PACKAGE)
    try:
        from {module} import join
        join(_FOLDER)
    except Exception as error:
        print("mlchaos: no fault strikes in this process:", repr(error), file=sys.stderr)
    finally:
        sys.path.remove(_PACKAGE)


_join()
'''


def without_hook(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without the hook for ranks. Processes of the plugin must not join."""
    paths = environment.get("PYTHONPATH", "").split(os.pathsep)
    left = [path for path in paths if not os.path.basename(path).startswith(RANKS_PREFIX)]
    if len(left) == len(paths):
        return dict(environment)
    plain = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
    return {**plain, "PYTHONPATH": os.pathsep.join(left)} if left else plain


def write_hook(folder: Path, controller: Controller, name: str, outside: Iterable[Key]) -> bool:
    """Write the hook into ``folder``. Return False if no fault can strike in a new process.

    Args:
        folder: An empty directory.
        controller: The trial's controller.
        name: The name of the process in the journal.
        outside: The keys at which only the test's process makes visits.
    """
    keys = {scheduled.fault.key for scheduled in controller.scheduled} - {*outside}
    modules = sorted({module for key in keys for module in _site_modules(key)})
    order = order_for(controller, modules) if modules else None
    if order is None:
        return False
    named = dataclasses.replace(order, forks=order.forks._replace(name=name))
    with within(INTERNAL_OPERATION):
        (folder / _ORDER).write_bytes(pickle.dumps((named, current_project(), tuple(outside))))
        program = _PROGRAM.format(
            folder=os.fspath(folder),
            package=os.fspath(Path(__file__).parents[2]),
            module=__name__,
        )
        (folder / "sitecustomize.py").write_text(program)
    return True


def _site_modules(key: Key) -> list[str]:
    """Return the modules that arm the site of a key: its own, and those of its mechanisms."""
    site = SITES.get(name_of(key))
    if site is None:
        return []
    own = site.arm.__module__
    package = own.rpartition(".")[0]
    beside = f"{package}." if package != _SITES else own
    return [name for name in site_modules() if name == own or name.startswith(beside)]


def armed_processes(folder: Path) -> int:
    """Return the number of processes that have run the hook."""
    with within(INTERNAL_OPERATION):
        return sum(name.startswith(_ARMED) for name in os.listdir(folder))


def join(folder: str) -> None:
    """Take part in the trial, in a process that has just started. The hook calls it."""
    path = Path(folder)
    order: Order
    project: Project
    order, project, outside = pickle.loads((path / _ORDER).read_bytes())  # the test wrote it
    (path / f"{_ARMED}{os.getpid()}").touch()
    set_project(project)
    from .own_ranks import follow_ranks

    join_trial(order, functools.partial(_arm_when_imported, outside, follow_ranks))


def _arm_when_imported(
    outside: Iterable[Key],
    follow: Callable[[Controller, Patches], None],
    controller: Controller,
    patches: Patches,
) -> None:
    """Arm the site of each fault when what it patches is imported."""
    follow(controller, patches)
    for key in {scheduled.fault.key for scheduled in controller.scheduled} - {*outside}:
        site = SITES.get(name_of(key))
        if site is None:
            continue
        arm = functools.partial(_arm, controller, patches, key, site.arm)
        modules = [*_modules_of(key), *([site.needs] if site.needs else [])]
        if not modules:
            arm()
        for module in modules:
            when_imported(module, patches, arm)


def _modules_of(key: Key) -> Iterator[str]:
    """Yield the modules that may define the target of a key. None for a key without a target."""
    if isinstance(key, str) or key[0] not in _WITH_TARGET:
        return
    module, colon, _ = str(key[1]).partition(":")
    parts = module.split(".")
    lengths = [len(parts)] if colon else range(1, len(parts))
    yield from (".".join(parts[:length]) for length in lengths)


def _arm(
    controller: Controller,
    patches: Patches,
    key: Key,
    arm: Callable[[Controller, Patches, Key], None],
) -> None:
    armed = vars(controller).setdefault("armed_here", set())
    if key in armed:
        return
    try:
        arm(controller, patches, key)
    except Exception as error:  # noqa: BLE001  # the server must not fail because of it
        if controller.forks is not None:
            with contextlib.suppress(Exception):
                controller.forks.tell("broken", *pack_error(error))
        return
    armed.add(key)
