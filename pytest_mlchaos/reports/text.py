"""Format the texts of a failure: what was tried, what failed, and the line to paste."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from ..core.composites import CompositeFault
from ..core.faults import Fault
from ..core.journal import Strike
from ..core.schedule import Schedule
from ..core.sites import SITES, Key, name_of
from ..core.validation import count_text, did_you_mean

__all__ = [
    "Group",
    "describe_exploration",
    "describe_interrupted",
    "describe_names_seen",
    "describe_never_struck",
    "describe_not_tried",
    "describe_passed_sites",
    "describe_strikes",
    "replay_command",
]

AT_REST = "storage.file"
SHOWN_STRIKES = 5
SHOWN_GROUPS = 5


class Group(Protocol):
    """Trials that failed for one cause."""

    count: int
    smallest: Schedule

    @property
    def summary(self) -> str:
        """Return the cause in one line."""
        ...


def site_text(key: Key) -> str:
    """Return a site's name: ``train.step``, or ``call pkg.mod:function``."""
    return key if isinstance(key, str) else " ".join(key)


def describe_passed_sites(passed: Mapping[Key, int]) -> str:
    """Return ``data.batch, train.step 20 times each, train.forward 40 times``."""
    counts: dict[int, list[str]] = {}
    for key in sorted(passed, key=site_text):
        counts.setdefault(passed[key], []).append(site_text(key))
    groups = [
        f"{', '.join(names)} {count_text(count, 'time')}{' each' if len(names) > 1 else ''}"
        for count, names in counts.items()
    ]
    return ", ".join(groups) or "no site at all"


def describe_strikes(strikes: Sequence[Strike]) -> list[str]:
    """Return a line for each of the first strikes."""
    lines = []
    for strike in strikes[:SHOWN_STRIKES]:
        details = ", ".join(f"{name}={value}" for name, value in strike.details.items())
        lines.append(
            f"  struck: {strike.fault} at {strike.site} "
            f"{strike.visit}{f' ({details})' if details else ''}"
        )
    if len(strikes) > SHOWN_STRIKES:
        lines.append(f"  ... and {count_text(len(strikes) - SHOWN_STRIKES, 'more strike')}")
    return lines


def reproduce(schedule: Schedule, nodeid: str) -> list[str]:
    """Return the lines to paste. If a parameter does not print, say what to do instead."""
    for name, value in (item for fault in schedule.faults for item in fault.opaque.items()):
        why = f"cannot be pasted or replayed, because {name}= is {value.text}, which no text makes again"
        return [f"  reproduce: {schedule.line}", f"             {why}: give the visits in the test"]
    decorators = repr(schedule).splitlines()
    lines = [f"  reproduce: {decorators[0]}", *(f"             {line}" for line in decorators[1:])]
    return [
        *lines,
        f"         or: {replay_command(nodeid, schedule.line)}",
    ]


def replay_command(nodeid: str, schedule: str = "") -> str:
    """Return the command that runs a test under a schedule, or as it is without one."""
    replay = f" --mlchaos-replay {quote(schedule, always=True)}" if schedule else ""
    return f"pytest {quote(nodeid)}{replay}"


def quote(text: str, *, always: bool = False) -> str:
    """Quote a text for the shell, with double quotes if possible, because schedules hold single
    quotes.
    """
    if not always and shlex.quote(text) == text:
        return text
    return shlex.quote(text) if set(text) & set('"$`!\\') else f'"{text}"'


def real_clock(reason: str) -> list[str]:
    """Say why a clock was real although the settings ask for a virtual one."""
    return [f"  clock: real, because {reason}"] if reason else []


def describe_exploration(
    trials: int,
    failing: int,
    groups: Sequence[Group],
    strikes: Sequence[Strike],
    nodeid: str,
    sites: Mapping[Key, int],
    cut_short: bool,
    clock: str,
    untried: Sequence[str] = (),
) -> str:
    """Return the report of an exploration that found failures, the worst kind first."""
    fail = f"{failing} fail{'s' if failing == 1 else ''}"
    head = f"mlchaos: {count_text(trials, 'schedule')} tried (shrinking included) over {describe_passed_sites(sites)}: {fail}"
    lines = [
        head + (" (out of budget)" if cut_short else ""),
        *_describe_groups(groups, "smallest"),
    ]
    if untried:
        lines.append(f"  not tried: {describe_not_tried(untried)}")
    return "\n".join(
        [
            *lines,
            *describe_strikes(strikes),
            *real_clock(clock),
            *reproduce(groups[0].smallest, nodeid),
        ]
    )


def describe_interrupted(
    test: str, trials: int, groups: Sequence[Group], nodeid: str, *, shrinking: bool
) -> str:
    """Return the report of a search that was interrupted: the failures that it found so far."""
    failing = sum(group.count for group in groups)
    head = (
        f"mlchaos: {test} was interrupted{' while shrinking' if shrinking else ''}: "
        f"{count_text(trials, 'schedule')} tried, "
        f"{failing} fail{'s' if failing == 1 else ''}"
    )
    found = reproduce(groups[0].smallest, nodeid) if groups else []
    return "\n".join([head, *_describe_groups(groups, "smallest so far"), *found])


def _describe_groups(groups: Sequence[Group], smallest: str) -> list[str]:
    """Return two lines for each of the first causes."""
    lines = []
    for group in groups[:SHOWN_GROUPS]:
        lines.append(f"  {group.count}x  {group.summary}")
        lines.append(f"       {smallest}: {group.smallest.line}")
    if len(groups) > SHOWN_GROUPS:
        lines.append(f"  ... and {count_text(len(groups) - SHOWN_GROUPS, 'more cause')}")
    return lines


def describe_not_tried(positions: Sequence[str]) -> str:
    """Name the first few positions at which no fault was tried."""
    more = f" ... and {len(positions) - SHOWN_GROUPS} more" if len(positions) > SHOWN_GROUPS else ""
    return ", ".join(positions[:SHOWN_GROUPS]) + more


def does_not_print(schedule: Schedule) -> str:
    """Explain why the report gives no line to paste: a predicate chose the visits.

    The test did not fail in the same way when the fault was pinned to these visits.
    """
    faults = "; ".join(repr(fault) for fault in schedule.faults if fault.where is not None)
    return (
        f"  reproduce: run this test as it is. where= of {faults} does not print, "
        "and pinned to the visits struck the test did not fail so"
    )


def one_trial(
    schedule: Schedule, strikes: Sequence[Strike], nodeid: str, clock: str, caveat: str = ""
) -> str:
    """Return the report of one failed trial under a fixed schedule.

    ``caveat`` replaces a line to paste that would not reproduce the failure.
    """
    faults, struck = (
        count_text(len(schedule.faults), "declared fault"),
        count_text(len(strikes), "strike"),
    )
    head = f"mlchaos: failed under {faults}, {struck}"
    if not strikes:
        return "\n".join(["mlchaos: no fault had struck when this failed", *real_clock(clock)])
    return "\n".join(
        [
            head,
            *describe_strikes(strikes),
            *real_clock(clock),
            *([caveat] if caveat else reproduce(schedule, nodeid)),
        ]
    )


def describe_never_struck(
    faults: Iterable[Fault], passed: Mapping[Key, int], hint: str = ""
) -> str:
    """Return the error for declared faults that never struck."""
    lines = []
    for fault in faults:
        if isinstance(fault, CompositeFault):
            names = ", ".join(dict.fromkeys(member.name for member, _ in fault.members()))
            lines.append(f"{fault!r} never struck: nothing fits any of its faults ({names})")
            continue
        if fault.continuous:
            lines.append(f"{fault!r} never struck")
            continue
        count = passed.get(fault.key, 0)
        seen = (
            f"{site_text(fault.key)} was passed {count_text(count, 'time')}"
            if count
            else f"{site_text(fault.key)} was never passed"
        )
        lines.append(f"{fault!r} never struck: {seen}{_why(fault, count)}")
    return "\n".join(
        [*lines, f"sites passed: {describe_passed_sites(passed)}", *([hint] if hint else [])]
    )


def describe_struck_in_part(fault: Fault, struck: Sequence[int], wanted: int) -> str:
    """Return the error for a declared fault that struck some of its visits."""
    visits = ", ".join(map(str, struck[:SHOWN_STRIKES])) + (
        ", ..." if len(struck) > SHOWN_STRIKES else ""
    )
    return (
        f"{fault!r} struck {count_text(len(struck), 'visit')} of {wanted} ({visits}): "
        f"{site_text(fault.key)} was not passed at the others, "
        "or there was nothing to strike. Declare the visits that exist, or set "
        "@chaos.settings(allow_quiet=True)"
    )


def describe_names_seen(
    faults: Iterable[Fault], passed: Mapping[Key, int], names: Mapping[str, Iterable[str]]
) -> str:
    """Name what a site saw, for example files, if a fault's filter matched none of it."""
    singles = [
        single
        for fault in faults
        for single in (
            [member for member, _ in fault.members()]
            if isinstance(fault, CompositeFault)
            else [fault]
        )
    ]
    if any(name_of(fault.key) == AT_REST for fault in singles):
        return _opened_files(list(names.get(AT_REST, ())))
    missed = dict.fromkeys(
        name_of(fault.key).partition(".")[0] for fault in singles if not passed.get(fault.key)
    )
    lines = [
        f"{site} saw, among others: {', '.join(names[site])}" for site in missed if names.get(site)
    ]
    if "storage" in missed and not names.get("storage"):
        lines.append(
            "storage saw no file: it watches the files below tmp_path, and files elsewhere that "
            "path= matches. Files that C++ or Rust code writes by itself are reached by "
            "@chaos.disk_full(real=True)"
        )
    return "\n".join(lines)


def _opened_files(names: list[str]) -> str:
    if names:
        return (
            f"no file that matches was opened for reading. These were, among others: "
            f"{', '.join(names)}"
        )
    return (
        "no file below tmp_path was opened for reading. Files that exist when the subject starts "
        "can be struck: copy others to tmp_path, or pass their path to mlchaos.pipeline or run"
    )


def _why(fault: Fault, count: int) -> str:
    if not count:
        name = name_of(fault.key)
        if isinstance(fault.key, tuple):
            return " in the test's process or one that it forked" if name == "call" else ""
        if name == "data.table":
            return ". To strike at the return value of a function, give target='package.module:function'"
        return "" if name in SITES else did_you_mean(name, SITES)
    if isinstance(fault.at, (tuple, range)) and fault.at[0] >= count:
        return f" (visits 0 to {count - 1})"
    if fault.where is not None:
        return ", but where= was false at each visit that was due"
    if fault.rank is not None:
        return f", but not in rank {fault.rank} of a world (mlchaos.world)"
    if fault.p is not None:
        return f", but p={fault.p} chose none of them with this seed. Raise p, or change the seed with @chaos.settings(seed=...)"
    if fault.on_links:
        return ", but its links carried nothing after it, or it was not in a rank of mlchaos.world"
    if not fault.applies_to({}):
        return ", but not in a rank of a world (mlchaos.world)"
    far = " and ".join(
        f"{name}={getattr(fault, name)!r}"
        for name in fault.searchable
        if getattr(fault, name) is not None
    )
    return ", but found nothing to do there" + (f" (is {far} too far?)" if far else "")
