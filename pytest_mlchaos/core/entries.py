"""Define the entries of the journal: what a session did, as lines of JSON.

Each line names the version of this schema, so that lines of several journals can be put together
in any order, and the half line that a killed session leaves does no harm.
``docs/journal.md`` is generated from the docstrings here in ``provenance.py`` and in
``coverage_entries.py``.
"""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

from .journal import Strike

__all__ = [
    "KINDS",
    "SCHEMA",
    "BreakingPointEntry",
    "Curve",
    "Detection",
    "Entry",
    "Exploration",
    "Judgement",
    "Line",
    "NewerSchema",
    "Point",
    "Progress",
    "Rank",
    "RecoveryTime",
    "Requests",
    "ResultEntry",
    "State",
    "StrikeEntry",
    "Test",
    "Timing",
    "Trial",
    "entry_kind",
    "parse_line",
    "without_times",
]

SCHEMA = 1
"""The version of the schema. It grows when a key or a kind changes its meaning or disappears."""

Verdict: TypeAlias = Literal["passed", "failed", "inconclusive"]
E = TypeVar("E", bound="type[Entry]")
KINDS: dict[str, type[Entry]] = {}


class NewerSchema(ValueError):
    """A line has a newer schema than this version of the plugin can read."""


def entry_kind(name: str) -> Callable[[E], E]:
    """Give a class of entries the name of its kind."""

    def declare(entry: E) -> E:
        entry.kind = name
        KINDS[name] = entry
        return entry

    return declare


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of the journal."""

    kind: ClassVar[str] = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the entry as plain data. Fields that have their defaults are left out."""
        return {
            field.name: value
            for field in dataclasses.fields(self)
            if not _is_default(field, value := getattr(self, field.name))
        }


def _is_default(field: dataclasses.Field[Any], value: object) -> bool:
    if field.default_factory is not dataclasses.MISSING:
        return not value
    return field.default is not dataclasses.MISSING and value == field.default


@entry_kind("test")
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Test(Entry):
    """A test ended. This is its last entry that does not depend on time.

    Attributes:
        outcome: ``passed``, ``failed``, ``skipped`` or ``interrupted``.
        file: The file of the test, relative to the root directory of pytest.
        line: Its line, from 1.
        faults: The declared faults, as decorators without ``@chaos.``.
        trials: The number of trials.
        strikes: The number of strikes in all trials.
        real_clock: True if the clock of a trial had to be real.
        untried: The visits at which no fault was tried, because ``max_trials`` or ``budget`` ended
            the search.
        error: The type of the error that failed it.
        message: The report that the terminal shows, without durations of the wall clock.
        place: The user's line of the first cause, as ``train.py:12 in train``.
        reproduce: The decorators that repeat the failure, as text to paste.
        replay: The schedule that repeats it, as the argument of ``--mlchaos-replay``.
        environment: The versions of Python, pytest, this plugin, and some libraries.
        rank: The rank of the session, as ``1 of 2``, if a launcher runs the test in several.
    """

    __test__: ClassVar[bool] = False  # pytest must not collect it

    outcome: str
    file: str = ""
    line: int = 0
    faults: tuple[str, ...] = ()
    trials: int = 0
    strikes: int = 0
    real_clock: bool = False
    untried: tuple[str, ...] = ()
    error: str = ""
    message: str = ""
    place: str = ""
    reproduce: str = ""
    replay: str = ""
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    rank: str = ""


@entry_kind("trial")
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trial(Entry):
    """A trial ended.

    Attributes:
        outcome: ``passed``, ``failed`` or ``skipped``.
        schedule: The schedule, as the argument of ``--mlchaos-replay``. Empty without faults.
        probing: True for a trial without faults: the first one of a search, or a control.
        control: ``quiet`` (no faults) or ``loud`` (strong ones) for a control trial of alerts.
        visits: The number of visits by site, in all processes of the trial. The target of a call
            fault follows the site's name after a space.
        error: The type of the error that ended it.
        cause: The error in one line.
        place: The user's line that raised it, as ``train.py:12 in train``.
    """

    outcome: str
    schedule: str = ""
    probing: bool = False
    control: str = ""
    visits: Mapping[str, int] = dataclasses.field(default_factory=dict)
    error: str = ""
    cause: str = ""
    place: str = ""


@entry_kind("strike")
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StrikeEntry(Entry):
    """A fault struck.

    Attributes:
        fault: The fault's name.
        site: The name of the site.
        visit: The number of the visit, from 0.
        details: The effect, in shapes and counts, and ``rank``, ``path`` or ``target``.
        point: The fault point, as ``call client:Client.get``. It and the following are recorded
            with ``--mlchaos-cov``.
        through: Further fault points that the user's code had called into when it struck.
        function: The user's function that met it, as ``features.py:load``.
        line: The line at which the test function was, or 0 if it is not known.
        result: The number of the result inside which it struck, or None.
    """

    fault: str
    site: str
    visit: int
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    point: str = ""
    through: tuple[str, ...] = ()
    function: str = ""
    line: int = 0
    result: int | None = None

    @classmethod
    def of(cls, strike: Strike) -> StrikeEntry:
        """Return the entry of a strike."""
        return cls(**strike.as_dict())


@entry_kind("result")
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ResultEntry(Entry):
    """A method of the fixture returned a result.

    Attributes:
        number: Its number in the trial, from 0.
        method: The method, as ``mlchaos.run``.
        struck: The number of strikes inside it.
        attempts: How each attempt of the subject ended, in words.
        steps: The optimizer steps of each attempt.
    """

    number: int
    method: str
    struck: int = 0
    attempts: tuple[str, ...] = ()
    steps: tuple[int, ...] = ()


@entry_kind("judgement")
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Judgement(Entry):
    """An oracle judged.

    Attributes:
        oracle: The oracle, as ``Run.assert_recovered``, or ``attributes`` if the test only read
            public attributes of a result.
        verdict: ``passed``, ``failed`` or ``inconclusive``.
        result: The number of the result that it judged, or None for a function that is not a
            method of a result.
        error: The type of its error.
        arguments: Its limits, for example ``{"p99": "150ms"}``.
    """

    oracle: str
    verdict: Verdict
    result: int | None = None
    error: str = ""
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@entry_kind("exploration")
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Exploration(Entry):
    """An exploration of crash states ended.

    Attributes:
        number: The number of its result in the trial.
        states: The number of crash states.
        tried: The number of them that were tried.
        bad: The number of them that do not recover, as the test judged them.
        steps: The steps of the run without a crash.
        writes: The number of files that it wrote.
        saves: The step and the path of each file that it completed.
        measured: True if steps were seen, so that lost steps are known.
        max_lost_steps: The largest number of steps that a resumed run took again.
        left_out: What the budget left out, in words.
        notes: Further facts in words.
        interrupted: True if it did not end by itself.
    """

    number: int
    states: int
    tried: int
    bad: int
    steps: int = 0
    writes: int = 0
    saves: tuple[tuple[int, str], ...] = ()
    measured: bool = False
    max_lost_steps: int = 0
    left_out: str = ""
    notes: tuple[str, ...] = ()
    interrupted: bool = False


@entry_kind("state")
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class State(Entry):
    """A run resumed from a crash state.

    Attributes:
        exploration: The number of the exploration's result in the trial.
        state: The name that ``chaos.crash(state=...)`` takes.
        verdict: ``recovered``, ``diverged``, ``failed``, ``hung`` or ``restarted``.
        path: The file that the state is about.
        what: The state in words.
        step: The number of complete steps when it appeared.
        until: The number of complete steps when it disappeared.
        torn: True if the state was derived, not observed.
        cause: The error or the divergence in words.
        divergence_step: The first step that differs.
        component: The component that differs there.
        place: The user's line that raised the error.
        resumed_at: The step from which the run resumed.
        lost_steps: The steps that it took again.
        follows: The state whose run decided this verdict. Empty if this state was run itself.
    """

    exploration: int
    state: str
    verdict: str
    path: str = ""
    what: str = ""
    step: int = 0
    until: int = 0
    torn: bool = False
    cause: str = ""
    divergence_step: int | None = None
    component: str = ""
    place: str = ""
    resumed_at: int | None = None
    lost_steps: int | None = None
    follows: str = ""


@entry_kind("rank")
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rank(Entry):
    """A rank of a world ended its last attempt.

    Attributes:
        result: The number of the world's result in the trial.
        rank: The number of the rank.
        outcome: ``finished``, ``failed``, ``hung``, ``halted`` or ``stopped``.
        ended: The end in words.
        steps: Its optimizer steps.
    """

    result: int
    rank: int
    outcome: str
    ended: str = ""
    steps: int = 0


@entry_kind("requests")
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Requests(Entry):
    """A load on a served app ended.

    All lists have one item per request, in the order of the requests. Times are those of the
    virtual clock. On the real clock they are in a ``timing`` entry, because they differ from run
    to run.

    Attributes:
        result: The number of the load's result in the trial.
        failed: The numbers of the requests that failed.
        struck: The numbers of the requests that a fault struck.
        starts: The arrivals, in seconds from the start of the load.
        latencies: The latencies in seconds.
    """

    result: int
    failed: tuple[int, ...] = ()
    struck: tuple[int, ...] = ()
    starts: tuple[float, ...] = ()
    latencies: tuple[float, ...] = ()


@entry_kind("recovery_time")
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryTime(Entry):
    """A load, a pipeline or a rollout had the time to recover from its faults.

    The time is that of the virtual clock. On the real clock it is in a ``timing`` entry.

    Attributes:
        result: The number of its result in the trial.
        seconds: The seconds from the end of the last fault to the first request from which on all
            succeed, or to the first right output. Of a rollout, those from the first bad answer of
            a worse version to its last one. None if it did not recover.
    """

    result: int
    seconds: float | None = None


@entry_kind("detection")
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Detection(Entry):
    """An alert was watched.

    Attributes:
        result: The number of the watch's result in the trial.
        monitor: The alert.
        fault: The name and the kind of a fault that struck. Empty without one.
        outcome: ``detected``, ``missed``, ``false alarm`` (before any strike) or ``quiet``.
        visits: The further visits of the struck site before it fired.
        seconds: The seconds until it fired, on the virtual clock.
        expected: ``fired`` or ``quiet``, as the test asserts. Empty if it asserts neither.
    """

    result: int
    monitor: str
    fault: str = ""
    outcome: str = ""
    visits: int | None = None
    seconds: float | None = None
    expected: str = ""


@entry_kind("breaking_point")
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BreakingPointEntry(Entry):
    """A breaking point was searched.

    Attributes:
        result: The number of its result in the trial.
        name: The name of the subject, or as the test gave it.
        fault: The fault, with the range of its parameter.
        parameter: The parameter.
        low: The strongest level that is survived, or None.
        high: The weakest level that breaks the subject, or None.
        confidence: The confidence of this interval. 1 if one trial decides a level.
        curve: Each level that was tried, with the survived trials and all trials.
        baseline: The interval of the baseline, in words.
        change: ``better``, ``worse``, ``same`` or ``new``. Empty if it was not compared.
    """

    result: int
    name: str
    fault: str
    parameter: str
    low: float | None = None
    high: float | None = None
    confidence: float = 0.95
    curve: tuple[tuple[float, int, int], ...] = ()
    baseline: str = ""
    change: str = ""


@entry_kind("federation_round")
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FederationRound(Entry):
    """A round of a federation ended.

    Attributes:
        result: The number of the federation's result in the trial.
        number: The number of the round, from 0.
        clients: The clients that took part.
        answered: The clients whose updates reached the server, once for each update.
        late: Those of them whose update is of an earlier round.
        failed: The clients that failed with an error.
        restarted: True if the server died, so that the round was repeated.
    """

    result: int
    number: int
    clients: tuple[int, ...] = ()
    answered: tuple[int, ...] = ()
    late: tuple[int, ...] = ()
    failed: tuple[int, ...] = ()
    restarted: bool = False


@entry_kind("curve")
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Curve(Entry):
    """The loss at each backward pass of a run.

    Losses are divided by the first loss of the golden run, because the journal holds no values of
    the user. ``--mlchaos-show-values`` leaves them as they are.

    Attributes:
        result: The number of the run's result in the trial.
        golden: True for the golden run.
        values: The losses, in order. None is not finite.
        attempts: The number of values of each attempt.
    """

    result: int
    golden: bool = False
    values: tuple[float | None, ...] = ()
    attempts: tuple[int, ...] = ()


@entry_kind("point")
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Point(Entry):
    """A trial reached ``mlchaos.reachable`` or ``mlchaos.sometimes``.

    Attributes:
        name: The name of the point.
        condition: True for ``sometimes``.
        place: Its line, as ``train.py:12``.
        reached: How often it was reached.
        held: How often its condition was true.
    """

    name: str
    condition: bool = False
    place: str = ""
    reached: int = 0
    held: int = 0


@entry_kind("timing")
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Timing(Entry):
    """How long something took on the wall clock.

    These entries are in a file of their own, because they differ from run to run.

    Attributes:
        of: ``test``, ``trial``, ``result``, ``attempt``, ``exploration``, ``state``, ``rank``,
            ``requests``, ``recovery`` or ``strike``.
        number: The number of the result, exploration or strike in the trial.
        name: The name of the state, or the number of the attempt or the rank.
        start: The start, in seconds since 1970. 0 if it is unknown.
        seconds: The duration. For a strike, its time since the start of the trial, on the clock of
            the trial.
        message: For a test, the report that the terminal shows, with its durations.
        restart: The median seconds until a resumed run took its first step.
        starts: As in ``requests``.
        latencies: As in ``requests``.
    """

    of: str
    number: int = 0
    name: str = ""
    start: float = 0.0
    seconds: float = 0.0
    message: str = ""
    restart: float | None = None
    starts: tuple[float, ...] = ()
    latencies: tuple[float, ...] = ()


@entry_kind("progress")
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Progress(Entry):
    """How far the running test is. These entries are with the timings.

    Attributes:
        what: What is counted, for example ``crash states``.
        done: The number that was tried.
        total: The largest number to try, or 0 if it is not known.
        bad: The number of failures so far.
        note: The current phase, for example ``shrinking``.
    """

    what: str
    done: int
    total: int = 0
    bad: int = 0
    note: str = ""


def without_times(text: str) -> str:
    """Return a text without the durations in it, which differ from run to run."""
    return _DURATION.sub("… s", text)


_DURATION = re.compile(r"\d+(?:\.\d+)? m?s\b")


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """One line of a journal.

    Attributes:
        test: The node id of the test.
        trial: The number of the trial, from 1, or 0 for an entry about the whole test.
        entry: The entry.
    """

    test: str
    trial: int
    entry: Entry

    def text(self) -> str:
        """Return the line as JSON, with its keys in a fixed order, and without a line end."""
        return json.dumps(
            {
                "schema": SCHEMA,
                "kind": self.entry.kind,
                "test": self.test,
                "trial": self.trial,
                **self.entry.as_dict(),
            },
            sort_keys=True,
            default=str,
        )


def parse_line(text: str) -> Line | None:
    """Return the line of a journal, or None if its kind is not known here.

    Raises:
        NewerSchema: The line has a newer schema.
        ValueError: The text is not a line of a journal.
    """
    data = json.loads(text)
    if not isinstance(data, dict) or not isinstance(data.get("schema"), int):
        raise ValueError("it is not an entry of a journal of pytest-mlchaos")
    if data["schema"] > SCHEMA:
        raise NewerSchema(f"schema {data['schema']} is newer than {SCHEMA}")
    kind = KINDS.get(data.get("kind", ""))
    if kind is None:
        return None
    hints = _hints(kind)
    try:
        entry = kind(**{name: _read(hints[name], data[name]) for name in hints if name in data})
        return Line(str(data["test"]), int(data["trial"]), entry)
    except (KeyError, TypeError) as error:
        raise ValueError(f"its {kind.kind} entry is damaged: {error}") from None


def _hints(kind: type[Entry]) -> dict[str, Any]:
    found = _HINTS.get(kind)
    if found is None:
        names = {field.name for field in dataclasses.fields(kind)}
        hints = typing.get_type_hints(kind)
        found = _HINTS[kind] = {name: hint for name, hint in hints.items() if name in names}
    return found


_HINTS: dict[type[Entry], dict[str, Any]] = {}


def _read(hint: Any, value: Any) -> Any:
    """Return a value of JSON as the field's type."""
    origin = typing.get_origin(hint)
    if origin is tuple:
        if not isinstance(value, list):
            raise TypeError(f"expected a list, got {type(value).__name__}")
        inner, *more = typing.get_args(hint)
        # ``tuple[int, str]`` is a pair, and ``tuple[int, ...]`` has any number of items.
        each = [inner] * len(value) if more == [...] else [inner, *more]
        return tuple(_read(one, item) for one, item in zip(each, value, strict=True))
    if origin is Mapping or hint is Mapping:
        return dict(value)
    return value
