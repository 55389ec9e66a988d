"""Arguments are checked at the border."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_mlchaos import faults
from pytest_mlchaos.core.faults import EVERY, Fault, create, register
from pytest_mlchaos.core.settings import Settings, parse_settings
from pytest_mlchaos.core.validation import format_number, parse_duration
from pytest_mlchaos.errors import BadArgument

faults.load()


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (2, 2.0),
        (0.5, 0.5),
        ("150ms", 0.15),
        ("2s", 2.0),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("3", 3.0),
        ("10 us", 1e-5),
    ],
)
def test_durations_are_seconds_or_texts_with_a_unit(given, seconds):
    """Users write time as they say it."""
    assert parse_duration(given) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "given", ["fast", "-1s", -1, None, True, float("nan"), float("inf"), "5 parsecs", ""]
)
def test_what_is_no_duration_is_refused(given):
    """And the error shows the value and an example."""
    with pytest.raises(BadArgument, match="such as '150ms'"):
        parse_duration(given)


@pytest.mark.parametrize("at", ["3", 1.5, -1, [1, "x"], [], [-1], True, {1: 2}])
def test_an_at_that_is_no_visit_is_refused(at):
    """The error names the fault, what was expected, and what was given."""
    with pytest.raises(BadArgument, match=r"gpu_oom: at must be a visit number .*, got"):
        create("gpu_oom", at=at)


def test_visits_are_taken_from_numpy_too():
    """An index computed with NumPy is an index."""
    assert create("gpu_oom", at=np.int64(3)) == create("gpu_oom", at=3)
    assert create("gpu_oom", at=[np.int32(3), 4]) == create("gpu_oom", at=(3, 4))


@pytest.mark.parametrize(
    ("name", "keywords", "message"),
    [
        ("gpu_oom", {"fase": "x"}, "unknown keyword 'fase' (did you mean 'phase'?)"),
        (
            "gpu_oom",
            {"phase": "sideways"},
            "phase must be 'forward' or 'backward' or 'optimizer' or 'call', got 'sideways' (str)",
        ),
        ("gpu_oom", {"op": "3"}, "op must be int, got '3' (str)"),
        ("gpu_oom", {"op": -1}, "op must be the number of an operator"),
        ("gpu_oom", {"p": 1.5}, "p must be a probability"),
        ("gpu_oom", {"at": 1, "times": 0}, "times must be 1 or more"),
        ("corrupt_batch", {"fraction": 0.0}, "fraction must be above 0"),
        ("corrupt_batch", {"fraction": 2}, "fraction must be above 0"),
        ("corrupt_batch", {"kind": "nan", "magnitude": 2.0}, "takes no magnitude"),
        ("corrupt_batch", {"fields": [1.5]}, "fields must be names or positions"),
        ("call_failure", {}, "missing 1 required keyword-only argument: 'target'"),
        ("call_failure", {"target": "a:b", "error": "Nonsense"}, "found no exception 'Nonsense'"),
        ("call_failure", {"target": "a:b", "error": int}, "error must be an exception"),
        ("call_failure", {"target": "a:b", "when": "later"}, "when must be"),
        ("call_delay", {"target": "a:b", "delay": "soon"}, "call_delay: delay"),
    ],
)
def test_a_wrong_parameter_shows_the_value_and_what_was_expected(name, keywords, message):
    """One line each, with the cure."""
    with pytest.raises(BadArgument) as caught:
        create(name, **keywords)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_registered_class_becomes_a_fault_with_its_name_in_snake_case():
    """``class LostPacketTCP`` is ``lost_packet_tcp``; parameters come from annotations and are
    checked.
    """

    @register
    class LostPacketTCP(Fault):
        """Loses a packet."""

        site = "net.send"
        share: float = 0.5

    assert repr(create("lost_packet_tcp", at=1, share=0.25)) == "lost_packet_tcp(at=1, share=0.25)"
    with pytest.raises(BadArgument, match="share must be float"):
        create("lost_packet_tcp", share="much")


def test_a_fault_without_a_site_is_refused():
    """A fault that could strike nowhere is a mistake."""
    with pytest.raises(BadArgument, match="a fault must name its site"):

        @register
        class Nowhere(Fault):
            """No site."""


def test_two_faults_of_one_name_are_refused():
    """The second of two classes would silently replace the first."""
    with pytest.raises(BadArgument, match="registered already"):

        @register
        class Other(Fault):
            """Takes a name that is taken."""

            name = "gpu_oom"
            site = "x"


def test_a_probability_strikes_its_share_of_the_visits():
    """``p=0.05`` of 20,000 visits is about 1,000; another seed strikes others."""
    fault = create("crash", p=0.05)
    struck = {visit for visit in range(20_000) if fault.strikes_at(visit, seed=1)}
    assert 850 < len(struck) < 1150
    assert struck != {visit for visit in range(20_000) if fault.strikes_at(visit, seed=2)}


def test_every_visit_is_every_visit():
    """``at=chaos.EVERY`` leaves none out."""
    assert all(create("crash", at=EVERY).strikes_at(visit, seed=0) for visit in range(100))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_trials": 0}, "max_trials must be a whole number of 1 or more"),
        ({"max_trials": "many"}, "max_trials must be a whole number"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"timeout": "soon"}, "timeout must be in seconds"),
        ({"clock": "sundial"}, "clock must be 'virtual' or 'real'"),
        ({"allow_quiet": "perhaps"}, "allow_quiet must be true or false, got 'perhaps' (str)"),
        ({"allow_quiet": 2}, "allow_quiet must be true or false, got 2 (int)"),
        ({"max_trails": 3}, "did you mean 'max_trials'?"),
    ],
)
def test_a_wrong_setting_shows_the_value_and_what_was_expected(values, message):
    """From the mark, the ini file and the command line alike."""
    with pytest.raises(BadArgument) as caught:
        parse_settings(values, Settings())
    assert message in str(caught.value)


def test_settings_come_as_text_or_as_values():
    """The ini file and the command line give texts, the mark gives values."""
    assert parse_settings({"max_trials": "7", "timeout": "2m"}, Settings()) == parse_settings(
        {"max_trials": 7, "timeout": 120}, Settings()
    )
    assert parse_settings({"timeout": "none"}, Settings()).timeout is None
    assert (
        parse_settings({"allow_quiet": " True"}, Settings()).allow_quiet
        is parse_settings({"allow_quiet": True}, Settings()).allow_quiet
    )
    assert parse_settings({"allow_quiet": "off"}, Settings(allow_quiet=True)).allow_quiet is False


@pytest.mark.parametrize(
    ("value", "beside", "text"),
    [
        (0.000484231, None, "0.000484"),
        (0.00048423, None, "0.000484"),
        (2.68936, None, "2.69"),
        (1234.567, None, "1230"),
        (1.0, None, "1"),
        (-1.2345e-9, None, "-1.23e-09"),
        (123456789.0, None, "1.23e+08"),
        (float("nan"), None, "nan"),
        (float("inf"), 1.0, "inf"),
        (0.50004, 0.5, "0.50004"),
        (0.49996, 0.5, "0.49996"),
        (0.5, 0.5, "0.5"),
        (0.5678912, 0.5, "0.568"),
        (1000.0001, 1000.0, "1000.0001"),
    ],
)
def test_computed_numbers_have_three_digits_or_as_many_as_tell_them_from_a_bound(
    value, beside, text
):
    """The further digits of floats differ between processors."""
    assert format_number(value, beside) == text
