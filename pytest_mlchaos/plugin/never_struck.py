"""Explain why declared faults did not strike."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from ..core.faults import Fault
from ..core.sites import CRASH_STATE, SITES, name_of
from ..core.validation import count_text
from ..engine.controller import Controller
from ..engine.counters import ScheduledFault
from ..reports import text
from ..serving.processes.command import REAL_TIME

__all__ = ["absent", "elsewhere", "in_set_up", "remarks", "struck_in_part", "unused_state"]


def struck_in_part(scheduled: ScheduledFault) -> str:
    """Return an explanation of the declared visits that a fault did not strike, or "" if it struck
    all.

    A predicate leaves out visits on purpose. If ``times`` is given, that number of strikes is
    enough.
    """
    fault = scheduled.fault
    if not isinstance(fault.at, (tuple, range)) or fault.where is not None or fault.continuous:
        return ""
    wanted = (
        fault.times if fault.is_consecutive else min(len(fault.at), fault.times or len(fault.at))
    )
    struck = {visit for _, visit in scheduled.strikes}
    return (
        text.describe_struck_in_part(fault, sorted(struck), wanted)
        if wanted is not None and len(struck) < wanted
        else ""
    )


def remarks(controller: Controller) -> str:
    """Return how close the continuous faults came that never struck."""
    return "\n".join(
        scheduled.remark
        for scheduled in controller.scheduled
        if scheduled.remark and not scheduled.total
    )


def elsewhere(faults: Sequence[Fault], controller: Controller) -> str:
    """Return a hint if the missed visits may have happened in a different process."""
    reason = controller.clock.reason
    if all(controller.passed().get(fault.key) for fault in faults):
        return ""
    if afresh := controller.started_afresh:
        methods = " and ".join(map(repr, dict.fromkeys(afresh)))
        return (
            f"the test started {count_text(len(afresh), 'new process', 'new processes')} "
            f"(start method {methods}). Each is a new "
            "interpreter, in which this fault does not strike. Forked processes are part of the trial: use "
            "multiprocessing.get_context('fork'), "
            "or num_workers=0 to load in this process"
        )
    if reason == REAL_TIME:
        return _in_server(faults)
    if "process" in reason and any(fault.ends_process for fault in faults):
        return (
            f"{reason}: a fault that ends the process does not strike in a process that the "
            f"subject forked. num_workers=0 loads in this "
            "process"
        )
    if "subprocess" in reason:
        return f"{reason}: its visits are not seen"
    return "\n".join(map(_other_kinds, faults)).strip()


def _in_server(faults: Sequence[Fault]) -> str:
    """Return why a fault may not have struck in a server process."""
    if any(fault.ends_process for fault in faults):
        return (
            f"{REAL_TIME}: a fault that ends the process does not strike there. Use "
            f"@chaos.worker_death(of='server'), or service.kill() and service.restart()"
        )
    return (
        f"{REAL_TIME}: a target is reached in the modules that it imports, not in the script that "
        f"runs as __main__, and only if its processes run sitecustomize"
    )


def _other_kinds(fault: Fault) -> str:
    """Return a hint if a parameter that was not searched lets the fault strike elsewhere."""
    if fault.at is None and fault.p is None:
        return ""
    found = []
    for name, values in fault.positions.items():
        for value in values:
            keywords: dict[str, Any] = {name: value}
            other = dataclasses.replace(fault, **keywords)
            if name != "site" and other.key != fault.key:
                found.append(f"with {name}={value!r} it strikes at {name_of(other.key)}")
    here = f"{fault.name} strikes at {name_of(fault.key)} here"
    return f"{here}: {', '.join(found)}" if found else ""


def unused_state(faults: Sequence[Fault]) -> str:
    """Return a hint if a fault names a crash state."""
    named = any(name_of(fault.key) == CRASH_STATE for fault in faults)
    return (
        "crash(state=...) only works with mlchaos.explore_crashes(train, tmp_path) or "
        "mlchaos.run(train, tmp_path)"
        if named
        else ""
    )


def absent(faults: Sequence[Fault]) -> str:
    """Return a hint if the test never imports the package that a site watches."""
    found = [
        site
        for fault in faults
        if (site := SITES.get(name_of(fault.key))) and site.needs and site.needs not in sys.modules
    ]
    return "".join(
        f"{site.name} watches {site.needs}, which this test never imports. You can visit the site "
        f"with mlchaos.visit"
        for site in found[:1]
    )


def in_set_up(fault: Fault, controller: Controller) -> str:
    """Return a hint if a fault could strike only in the test's own body."""
    if not any(
        scheduled.outside
        for scheduled in controller.scheduled
        if scheduled.fault._origin == fault._origin
    ):
        return ""
    return (
        "it could strike only in the test's own body, which a search leaves out, because set-up "
        "code is not tested. Let the subject do this work, or give at="
    )
