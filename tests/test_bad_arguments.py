"""Every public function refuses arguments of the wrong kind in one clear line."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re

import pytest

from pytest_mlchaos import (
    assert_converged,
    assert_not_worse,
    assert_row_independent,
    assert_same_state,
    assert_slo,
    faults,
    visit,
)
from pytest_mlchaos.core import safety
from pytest_mlchaos.core.clock import VirtualClock
from pytest_mlchaos.core.faults import FAULTS, create, fields_of, type_hints
from pytest_mlchaos.core.records import Attempt, Record
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.core.settings import Settings, parse_settings
from pytest_mlchaos.core.validation import COUNT, check_arguments
from pytest_mlchaos.crashes.report import CrashReport
from pytest_mlchaos.engine.controller import Controller
from pytest_mlchaos.errors import BadArgument
from pytest_mlchaos.plugin.fixture import Mlchaos
from pytest_mlchaos.runs.verdicts import Run
from pytest_mlchaos.sites.calls import resolve

faults.load()

NAN, INF = math.nan, math.inf
NOT_FLAGS = ["no", 0, 1, None]
NOT_WHOLE = [-1, 1.5, True, "3", NAN, [1]]
NOT_COUNTS = [0, *NOT_WHOLE]
NOT_TOLERANCES = [-1, NAN, INF, True, "3", None, 1j]
NOT_FUNCTIONS = [3, None, "train"]
NOT_SERIES = [3, None, "abc", b"abc", {"a": 1}, list]
NOT_DURATIONS = [0, -1, NAN, INF, True, "soon", 10**12, 10**400, [1]]
NOT_NAMES = [3, None, "", " ", b"x"]


def in_words(value):
    """Name a value in a test's id. Addresses would differ between the workers of xdist."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def subject(*args):
    """A subject that does nothing."""


async def coroutine():
    """A subject that would only give a coroutine."""


@pytest.fixture
def mlchaos(tmp_path):
    """A fixture in a trial of its own."""
    with Controller(Schedule(), VirtualClock()) as controller, controller.resources:
        yield Mlchaos(tmp_path)


def cases(**wrong):
    """(name of the argument, value) for each wrong value."""
    return [(name, value) for name, values in wrong.items() for value in values]


def each(calls):
    """A parameter set for each wrong value of each call: (call, argument, value)."""
    return [
        pytest.param(call, name, value, id=f"{label}-{name}={in_words(value)}"[:80])
        for label, call, wrong in calls
        for name, value in cases(**wrong)
    ]


RECORD = Record(1, (Attempt("returned", 1),), (), 0.0, (), 1)
RUN = Run(RECORD, lambda: Run(RECORD))
REPORT = CrashReport(steps=1, writes=1, states=[], outcomes=[], duration=0.0)
TOLERANCES = {"rtol": NOT_TOLERANCES, "atol": NOT_TOLERANCES}
ORACLES = [
    (
        "assert_slo",
        lambda **wrong: assert_slo(**{"latencies": [1], "p50": 1, **wrong}),
        {"latencies": NOT_SERIES, "errors": NOT_WHOLE},
    ),
    (
        "assert_row_independent",
        lambda **wrong: assert_row_independent(**{"handler": list, "rows": [1, 2], **wrong}),
        {"handler": NOT_FUNCTIONS, "rows": [3, None, [], [1], {}], **TOLERANCES},
    ),
    (
        "assert_converged",
        lambda **wrong: assert_converged(**{"losses": [1.0], "below": 2, **wrong}),
        {
            "losses": NOT_SERIES,
            "below": [NAN, INF, "3", None, True],
            "window": NOT_COUNTS,
            "by": NOT_WHOLE,
        },
    ),
    (
        "assert_not_worse",
        lambda **wrong: assert_not_worse(
            **{"chaos": [1.0] * 9, "golden": [1.0] * 9, "margin": 1.0, **wrong}
        ),
        {
            "chaos": NOT_SERIES,
            "golden": NOT_SERIES,
            "higher_is_better": NOT_FLAGS,
            "paired": NOT_FLAGS,
            "margin": NOT_TOLERANCES[:6],
            "alpha": [0, -1, 1, NAN, True, "3", None],
        },
    ),
    (
        "assert_same_state",
        lambda **wrong: assert_same_state(1, 1, **wrong),
        {**TOLERANCES, "name": [3, None]},
    ),
    ("assert_recovered", RUN.assert_recovered, TOLERANCES),
    (
        "assert_same_effective_batch",
        RUN.assert_same_effective_batch,
        {"rtol": NOT_TOLERANCES, "gradients": NOT_FLAGS},
    ),
    ("assert_recovers", REPORT.assert_recovers, {**TOLERANCES, "max_lost_steps": NOT_WHOLE}),
]


@pytest.mark.parametrize(("call", "name", "value"), each(ORACLES))
def test_an_oracle_names_the_wrong_argument(call, name, value):
    """No verdict comes of a bound that is none."""
    with pytest.raises(BadArgument, match=rf"\b{name}\b.*(,| but) got"):
        call(**{name: value})


FIXTURE = [
    (
        "run",
        lambda m, **wrong: m.run(**{"subject": subject, **wrong}),
        {"subject": NOT_FUNCTIONS, "max_restarts": NOT_WHOLE},
    ),
    ("pipeline", lambda m, **wrong: m.pipeline(**wrong), {"pipeline": [*NOT_FUNCTIONS, coroutine]}),
    (
        "explore_crashes",
        lambda m, **wrong: m.explore_crashes(**{"subject": subject, "workdir": "x", **wrong}),
        {
            "subject": [*NOT_FUNCTIONS, coroutine],
            "torn_writes": NOT_FLAGS,
            "cross_device": NOT_FLAGS,
            "allow_remote": NOT_FLAGS,
            "jobs": NOT_COUNTS,
            "depth": NOT_COUNTS,
            "horizon": NOT_COUNTS,
            "timeout": NOT_DURATIONS,
            **TOLERANCES,
            "storage_options": [3, "x", [1]],
            "durability": ["fire", None, 3],
            "isolation": ["", None, True],
            "workdir": [3, None],
        },
    ),
    (
        "serve",
        lambda m, **wrong: m.serve(**{"app": subject, **wrong}),
        {"app": NOT_FUNCTIONS, "lifespan": NOT_FLAGS, "timeout": NOT_DURATIONS},
    ),
    (
        "drive",
        lambda m, **wrong: m.serve(lambda request: request).drive(**{"requests": [1], **wrong}),
        {
            "requests": NOT_SERIES,
            "concurrency": NOT_COUNTS,
            "is_error": NOT_FUNCTIONS,
            "rate": [0, -1, NAN, INF, True, "3"],
        },
    ),
    (
        "world",
        lambda m, **wrong: m.world(**wrong),
        {
            "ranks": [*NOT_COUNTS, 10**12],
            "restarts": NOT_WHOLE,
            "timeout": NOT_DURATIONS,
            "grace": NOT_DURATIONS[1:],
            "backend": ["mpi", None, 3],
        },
    ),
    ("script", lambda m, **wrong: m.script(**wrong), {"path": [3, None, b"x.py", True]}),
    ("visit", lambda m, **wrong: m.visit(**wrong), {"site": NOT_NAMES}),
    ("batches", lambda m, **wrong: m.batches(**wrong), {"iterable": NOT_SERIES}),
    (
        "call",
        lambda m, **wrong: m.call(**{"function": subject, **wrong}),
        {"function": NOT_FUNCTIONS, "name": [3, "", b"x"]},
    ),
    ("filesystem", lambda m, **wrong: m.filesystem(**wrong), {"fs": [3, None, "x", dict]}),
]


@pytest.mark.parametrize(("call", "name", "value"), each(FIXTURE))
def test_the_fixture_names_the_wrong_argument(mlchaos, call, name, value):
    """Before anything is run."""
    with pytest.raises(BadArgument, match=rf"(\b{name}\b|\bsubject\b).*(,| but) got"):
        call(mlchaos, **{name: value})


@pytest.mark.parametrize("site", NOT_NAMES, ids=in_words)
def test_a_site_of_the_users_own_needs_a_name(site):
    """Also outside of a trial, where ``visit`` does nothing else."""
    with pytest.raises(BadArgument, match="visit: site must be a name, got"):
        visit(site)


@pytest.mark.parametrize("site", [*NOT_NAMES, [1]], ids=in_words)
def test_a_visit_after_good_ones_checks_its_name(site, mlchaos):
    """Each name is checked, at each visit."""
    with Controller(Schedule(())):
        for each in (visit, mlchaos.visit):
            each("queue.get")
            each("queue.get")
            with pytest.raises(BadArgument, match=r"visit: site must be a name, got"):
                each(site)


def test_rules_hold_for_each_way_to_pass_an_argument():
    """By position, by keyword and by keyword only. Defaults are not checked."""

    @check_arguments("act", first=COUNT, second=COUNT, last=COUNT)
    def act(first, second=0, *, last=0):
        return first, second, last

    assert act(1) == (1, 0, 0)
    assert act(second=2, first=1, last=3) == (1, 2, 3)
    for args, kwargs, name in (
        ((0,), {}, "first"),
        ((1, -1), {}, "second"),
        ((1,), {"second": -1}, "second"),
        ((), {"first": 1, "last": -1}, "last"),
        ((-1,), {"last": -1}, "first"),
    ):
        with pytest.raises(BadArgument, match=f"act: {name} must be 1 or more"):
            act(*args, **kwargs)
    with pytest.raises(TypeError, match="too many positional"):
        act(1, -1, -1, last=2)
    with pytest.raises(TypeError, match="first"):
        act(second=-1)


@pytest.mark.parametrize(
    ("setting", "value"),
    cases(
        max_trials=[*NOT_COUNTS[:4], "²", "٣", "0", "-1", "1.5", "", "9" * 5000, None],
        max_faults=["²", 0, None, True],
        seed=["²", -1, True, 1.5, "x", NAN],
        timeout=[*NOT_DURATIONS, "²s", "1e400"],
        budget=[*NOT_DURATIONS, "²"],
        clock=[None, 3, True, ""],
        isolation=[None, 3, ""],
    ),
)
def test_a_setting_names_itself(setting, value):
    """Text and values alike; digits are ASCII."""
    with pytest.raises(BadArgument, match=f"{setting} must be .*, got"):
        parse_settings({setting: value}, Settings())


# -- faults: each parameter of each fault ----------------------------------------------------------

WRONG = [
    None,
    -1,
    0,
    NAN,
    INF,
    True,
    "no",
    b"x",
    object(),
    [],
    {},
    10**12,
    10**400,
    (),
    1.5,
    "",
    int,
    lambda: True,
]
PARAMETERS = [
    (name, parameter) for name, cls in sorted(FAULTS.items()) for parameter in fields_of(cls)
]


def required(cls):
    """Values for the parameters that have no default."""
    return {
        field.name: "a:b"
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING
    }


@pytest.mark.parametrize(("name", "parameter"), PARAMETERS)
def test_a_fault_takes_a_value_or_refuses_it_by_name(name, parameter):
    """Whatever is given, there is a fault, or one line that names the fault; never an error of
    Python's.
    """
    for value in WRONG:
        try:
            create(name, **{**required(FAULTS[name]), parameter: value})
        except BadArgument as error:
            assert name in str(error)
            assert "\n" not in str(error)


def test_the_parameters_of_all_faults_are_checked_by_their_annotations():
    """An annotation that does not resolve would switch the checks of its fault off."""
    assert not [
        (name, parameter)
        for name, parameter in PARAMETERS
        if parameter not in {*type_hints(FAULTS[name]), "at", "where"}
    ]


FLAGS = [
    (name, parameter)
    for name, parameter in PARAMETERS
    if type_hints(FAULTS[name]).get(parameter) is bool
]


@pytest.mark.parametrize(
    ("name", "parameter", "value"),
    [(*one, value) for one, value in itertools.product(FLAGS, ("no", 0, None))],
)
def test_a_flag_of_a_fault_is_true_or_false(name, parameter, value):
    """A text is always true, also "no"."""
    with pytest.raises(BadArgument, match=f"{name}: {parameter} must be bool, got"):
        create(name, **{**required(FAULTS[name]), parameter: value})


@pytest.mark.parametrize("value", [NAN, INF, -INF, "3", True, 10**400])
def test_a_magnitude_is_a_finite_number(value):
    """Noise of the size NaN would not be noise."""
    with pytest.raises(BadArgument, match="corrupt_batch: magnitude must be a finite number"):
        create("corrupt_batch", kind="noise", magnitude=value)


async def strikes(visit):
    """A predicate that would hold for every visit."""


@pytest.mark.parametrize(
    "where",
    [lambda: True, lambda a, b: True, lambda *, key: True, 3, "x", True, strikes, bool],
    ids=in_words,
)
def test_a_predicate_takes_the_visit(where):
    """Its arity is looked at where it is declared: the mistake is the user's, not the fault's."""
    with pytest.raises(BadArgument, match="crash: where must be a predicate on the visit"):
        create("crash", at=0, where=where)


@pytest.mark.parametrize(
    "where", [lambda visit: True, lambda *args: True, lambda visit, more=1: True, print]
)
def test_a_predicate_may_take_more_that_has_defaults(where):
    """A callable qualifies if it can be called with the visit alone."""
    create("crash", at=0, where=where)


@pytest.mark.parametrize(
    "target",
    [
        ":loads",
        "json:",
        ":",
        "",
        " ",
        ".",
        "json.",
        "..json",
        "json:a..b",
        "json.:loads",
        "no_such_module:f",
        "json",
    ],
)
def test_a_target_that_names_nothing_is_refused(target):
    """Empty parts, too, which Python's import would refuse in its own words."""
    with pytest.raises(BadArgument, match="target"):
        resolve(target)


@pytest.mark.parametrize("pattern", ["ENV", "", "=prod", " = x"])
def test_a_production_pattern_has_a_name_and_a_value(pattern):
    """One without "=" would protect nothing."""
    with pytest.raises(BadArgument, match="each pattern must be NAME=pattern"):
        safety.refuse_production([pattern])
