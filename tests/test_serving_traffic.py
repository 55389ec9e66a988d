"""Traffic: arrivals, classes, sources of requests, and clients with patience and retries."""

from __future__ import annotations

import collections
import itertools
import json
import random

import pytest

from pytest_mlchaos.core.replies import Reply
from pytest_mlchaos.errors import BadArgument
from pytest_mlchaos.serving.arrivals import Arrivals
from pytest_mlchaos.serving.retries import parse_retries
from pytest_mlchaos.serving.sources import replay
from pytest_mlchaos.serving.traffic import make_traffic

HOUR = 3600.0
NOTHING = dict.fromkeys(
    ["rate", "number", "duration", "pattern", "peak", "period", "classes", "think_time"]
)


def traffic(requests=("/a", "/b"), **how):
    """The load of these arguments."""
    return make_traffic(requests, **{**NOTHING, "returning": 0.0, "seed": 0, **how})


# -- arrivals --------------------------------------------------------------------------------------


def arrivals(pattern, seed=0, length=HOUR, rate=25.0, **how):
    """The times within a length."""
    times = Arrivals(pattern, rate, **how).times(random.Random(seed), length)
    return list(itertools.takewhile(lambda time: time < length, times))


@pytest.mark.parametrize(
    ("pattern", "how", "shape"),
    [
        ("constant", {}, [1, 1, 1, 1, 1]),
        ("poisson", {}, [1, 1, 1, 1, 1]),
        ("burst", {"peak": 100, "period": HOUR}, [0, 0.625, 3.75, 0.625, 0]),
        ("ramp", {}, [0.2, 0.6, 1, 1.4, 1.8]),
        ("ramp", {"peak": 30}, [0.84, 0.92, 1, 1.08, 1.16]),
        ("diurnal", {"peak": 50}, [0.24, 1.03, 1.45, 1.03, 0.24]),
        ("diurnal", {"peak": 200}, [0, 0.02, 4.96, 0.02, 0]),
    ],
)
def test_arrivals_have_the_mean_rate_and_the_shape_of_their_pattern(pattern, how, shape):
    """Over an hour, in fifths of it."""
    times = arrivals(pattern, **how)
    assert times == sorted(times)
    assert len(times) == pytest.approx(25 * HOUR, rel=0.02)
    fifths = collections.Counter(int(5 * time / HOUR) for time in times)
    found = [fifths[place] / (5 * HOUR) for place in range(5)]
    if pattern in ("diurnal", "burst"):
        assert found[2] == max(found)
        assert found[0] == pytest.approx(found[4], abs=0.05)
    else:
        assert found == pytest.approx(shape, abs=0.05)
    assert arrivals(pattern, **how) == times


def test_gaps_of_poisson_arrivals_are_exponential():
    """Their standard deviation is their mean, and another seed gives others."""
    times = arrivals("poisson")
    gaps = [after - before for before, after in itertools.pairwise(times)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert variance**0.5 == pytest.approx(mean, rel=0.02)
    assert arrivals("poisson", seed=1) != times


# -- loads -----------------------------------------------------------------------------------------


def test_requests_come_again_until_the_duration_is_over():
    """A list shorter than the load is repeated in its order."""
    load = traffic(rate=2, duration=3)
    assert list(load.requests) == ["/a", "/b"] * 3
    assert load.arrivals == [0, 0.5, 1, 1.5, 2, 2.5]
    assert list(traffic(number=3).requests) == ["/a", "/b", "/a"]


def test_a_repeated_request_is_a_copy():
    """An app that changes its request would see its own change."""
    first, second = traffic([{"user": 1}], number=2).requests
    assert first == second
    assert first is not second


def test_classes_are_drawn_by_their_shares():
    """Each request has its class, and its own requests in turn."""
    classes = {"small": (0.9, ["/s", "/t"]), "large": (0.1, "/large")}
    load = traffic(None, classes=classes, number=5000)
    groups = collections.Counter(map(load.requests.group, range(5000)))
    assert groups["large"] == pytest.approx(500, abs=60)
    requests = collections.Counter(load.requests)
    assert requests["/large"] == groups["large"]
    assert abs(requests["/s"] - requests["/t"]) <= 1
    assert list(traffic(5000, classes=classes).requests) == list(load.requests)


def test_classes_may_change_given_requests():
    """By a function."""
    classes = {"one": (0.5, lambda path: path + "?n=1"), "two": (0.5, lambda path: path + "?n=2")}
    load = traffic(["/a", "/b"], classes=classes)
    assert [request[:2] for request in load.requests] == ["/a", "/b"]


def test_users_return():
    """A share of the requests are earlier ones of the same class."""
    pages = [f"/{page}" for page in range(1000)]
    load = traffic(pages, returning=0.5)
    assert len(set(load.requests)) == pytest.approx(500, abs=60)
    assert max(collections.Counter(load.requests).values()) > 5


def test_requests_are_drawn_from_a_strategy():
    """The same for the same seed, and again after some hundred."""
    st = pytest.importorskip("hypothesis.strategies")
    numbers = st.integers(0, 10**9)
    first, second, other = (
        list(traffic(numbers, number=600, seed=seed).requests) for seed in (0, 0, 1)
    )
    assert first == second
    assert first != other
    assert len(set(first)) > 50
    assert list(traffic(st.just("/a"), number=3).requests) == ["/a"] * 3


# -- recorded traffic ------------------------------------------------------------------------------


def test_an_access_log_is_replayed_with_its_times(tmp_path):
    """Requests of one second are spread over it, and port scans are left out."""
    log = tmp_path / "access.log"
    log.write_text(
        '1.2.3.4 - - [10/Oct/2026:13:55:36 +0000] "GET /a?x=1 HTTP/1.1" 200 12 "-" "curl"\n'
        '1.2.3.4 - bob [10/Oct/2026:13:55:38 +0000] "POST /b HTTP/1.1" 500 0\n'
        '1.2.3.4 - - [10/Oct/2026:13:55:38 +0000] "GET /c HTTP/1.1" 200 5\n'
        '1.2.3.4 - - [10/Oct/2026:13:55:38 +0000] "\\x16\\x03" 400 5\n'
    )
    recorded = replay(log, speed=2)
    assert recorded.times == (0, 1, 1.25)
    assert recorded.requests == (("GET", "/a?x=1"), ("POST", "/b"), ("GET", "/c"))
    assert recorded.skipped == 1
    load = traffic(recorded)
    assert load.arrivals == [0, 1, 1.25]
    assert traffic(recorded, rate=10, number=4).arrivals == [0, 0.1, 0.2, pytest.approx(0.3)]
    assert traffic(recorded, duration=1.1).arrivals == [0, 1]


def test_json_lines_are_replayed_in_the_order_of_their_times(tmp_path):
    """With a request of any kind, or httpx's keywords among others."""
    log = tmp_path / "traffic.jsonl"
    lines = [
        {"ts": "2026-10-10T13:55:38Z", "method": "POST", "path": "/b", "json": [1], "status": 200},
        {"time": 1791640536, "request": {"user": 7}},
    ]
    log.write_text("\n".join(map(json.dumps, lines)))
    recorded = replay(log)
    assert recorded.requests == ({"user": 7}, {"method": "POST", "url": "/b", "json": [1]})
    assert recorded.times == (0, 2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("hello\n", "line 1 of log cannot be read: it is neither in common"),
        ('{"time": 1, "request": 1}\n{"request": 1}', "line 2 of log cannot be read: it has no ti"),
        ('{"time": -1, "request": 1}', "its time must be a number of seconds, 0 or more"),
        ('{"time": 1}', "it has no request"),
        ('1 - - [10/Oct/2026:13:55:38 +0000] "-" 400 5', "holds no HTTP request"),
        ('1 - - [yesterday] "GET / HTTP/1.1" 400 5', "its time must be as"),
    ],
)
def test_a_log_that_cannot_be_read_is_an_error(tmp_path, text, said):
    """In one line, with the number of the line in the file."""
    path = tmp_path / "log"
    path.write_text(text)
    with pytest.raises(BadArgument, match=said) as caught:
        replay(path)
    assert "\n" not in str(caught.value).partition("\n  help:")[0]


# -- retries ---------------------------------------------------------------------------------------


def reply(**fields):
    """A reply."""
    return Reply(**{"number": 0, "request": "/", "name": "", **fields})


def test_retries_wait_longer_each_time():
    """With jitter that depends on the seed alone, and for as long as the app asks."""
    failed = reply(ok=False)
    plain = parse_retries({"number": 3, "backoff": "1s", "max": "3s", "jitter": 0})
    assert [plain.delay(failed, attempts, 0) for attempts in (1, 2, 3, 4)] == [1, 2, 3, None]
    assert plain.delay(reply(), 1, 0) is None
    asked = reply(status=429, headers={"retry-after": "7"})
    assert plain.delay(asked, 1, 0) == 7
    jittered = parse_retries(2)
    assert 0.05 <= jittered.delay(failed, 1, 0) <= 0.1
    assert jittered.delay(failed, 1, 0) == jittered.delay(failed, 1, 0)
    assert jittered.delay(failed, 1, 0) != jittered.delay(failed, 1, 1)
    own = parse_retries(lambda reply, attempts: "2s" if attempts < 2 else None)
    assert [own.delay(failed, attempts, 0) for attempts in (1, 2)] == [2, None]
    assert parse_retries(0) is None


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (-1, "retries must be a number of retries, a dict"),
        (10**6, "retries must be below 1000"),
        ({"number": 2, "backof": 1}, "did you mean 'backoff'"),
        ({"backoff": 1}, r"retries\['number'\] must be a number"),
        ({"number": 2, "jitter": 2}, r"retries\['jitter'\] must be from 0 to 1"),
        ({"number": 2, "backoff": "soon"}, r"retries\['backoff'\] must be in seconds"),
        ({"number": 2, "when": 1}, r"retries\['when'\] must be a predicate"),
    ],
)
def test_wrong_retries_are_refused(value, said):
    """With the key."""
    with pytest.raises(BadArgument, match=said):
        parse_retries(value)


# -- wrong loads -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"requests": []}, "requests must not be empty"),
        ({"requests": iter([]), "number": 3}, "requests must not be empty"),
        ({"requests": None}, "requests must be a list of requests, got None"),
        ({"requests": iter([1]), "rate": 1, "duration": 0.0}, "no request arrives within"),
        ({"rate": 1, "pattern": "bursty"}, r"one of constant, .*did you mean 'burst'"),
        ({"rate": 1, "pattern": "replay"}, "pattern='replay' needs recorded requests"),
        ({"pattern": "poisson"}, "pattern= needs rate="),
        ({"rate": 1, "pattern": "poisson", "peak": 2}, "peak= needs pattern='burst'"),
        ({"rate": 9, "pattern": "diurnal", "peak": 5}, "peak must be above the mean rate of 9"),
        ({"rate": 9, "pattern": "ramp", "peak": 50}, "or the ramp would begin below 0"),
        ({"rate": 1e9, "duration": HOUR}, "one load has at most 5e"),
        ({"number": 10**9}, "number must be at most 5000000"),
        ({"classes": {"a": (1.0, "/")}}, "has requests of its own"),
        ({"requests": None, "classes": {"a": (1.0, "/")}}, "number of requests is not known"),
        ({"requests": 5, "classes": {"a": (0.5, "/")}}, r"must sum to 1, got 0.5 = 0.5"),
        ({"requests": 5, "classes": {"a": (-0.5, "/")}}, r"share of classes\['a'\] must be from 0"),
        ({"requests": 5, "classes": {"a": "/"}}, r"classes\['a'\] must be \(share, request\)"),
        ({"requests": 5, "classes": {}}, "classes must be a dict such as"),
        ({"requests": 5, "classes": {"a": (1, [])}}, "requests must not be empty"),
    ],
)
def test_wrong_loads_are_refused(how, said):
    """In one line."""
    with pytest.raises(BadArgument, match=said) as caught:
        traffic(**how)
    assert "\n" not in str(caught.value).partition("\n  help:")[0]
