"""Provide the cases for the faults of served apps."""

from __future__ import annotations

import itertools

from pytest_mlchaos.core.clients import Company
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.core.network import Exchange
from pytest_mlchaos.testing import Case

_turn = itertools.cycle(range(8))


def arguments():
    """Return the arguments of a call."""
    return (), {}


def document():
    """Return the argument of a request."""
    return {"user": "Ada", "features": [1.0, 2.0, 3.0], "age": 36}


def batch():
    """Return the arguments of a call with a batch."""
    return ([document(), document(), document()],), {}


def weights():
    """Return a model that is a dict of weights."""
    return {"weights": [0.5, 0.25, 0.75], "bias": 0.5}


def version():
    """Return a model of a new version, for eight visits."""
    return {"weight": float(next(_turn))}


def rewritten(exchange):
    """Return what arrives of a stream of events, or of a body of JSON."""
    body = b'{"rows": [{"a": 1}, {"a": 2}]}'
    if exchange.url.endswith("stream"):
        body = b'data: {"a": 1}\n\n' * 3
    if exchange.url.endswith("empty"):
        body = b""
    if exchange.rewrite is None:
        return body
    rewriter = exchange.rewrite()
    return rewriter.feed(body[:9]) + rewriter.feed(body[9:]) + rewriter.end()


def request(path="data"):
    """Return a request over HTTP."""
    return Exchange(f"http://api/{path}", "http")


def plain():
    """Return a connection whose bytes are not understood."""
    return Exchange("redis://cache")


MODEL = {"model": "a:b"}

CASES = {
    "malformed_request": Case(
        create("malformed_request"),
        document,
        wrong=[lambda: 7],
        bad=[{"kind": "odd"}, {"field": " "}, {"value": 1, "kind": "nan"}],
    ),
    "malformed_request by its value": Case(create("malformed_request", value=[1, "x"]), document),
    "poisoned_batch": Case(
        create("poisoned_batch", target="a:b", kind="wrong_type"),
        batch,
        wrong=[arguments, lambda: (([1.0],), {})],
        bad=[{"target": " "}, {"item": -1}],
    ),
    "batcher_failure": Case(
        create("batcher_failure", target="a:b"),
        arguments,
        bad=[{"target": " "}, {"moment": "never"}, {"when": "after"}],
    ),
    "response_corruption": Case(
        create("response_corruption", target="a:b"),
        document,
        wrong=[lambda: object()],
        bad=[{"kind": "odd"}, {"target": " "}, {"url": "http://x"}, {"zone": "eu"}],
    ),
    "response_corruption of a body": Case(
        create("response_corruption", kind="truncated"),
        request,
        operation=rewritten,
        neutral=lambda: request("empty"),
        wrong=[plain],
    ),
    "dependency_partial": Case(
        create("dependency_partial", target="a:b"),
        document,
        wrong=[lambda: 7],
        bad=[{"keep": 2}, {"url": "http://x"}],
    ),
    "dependency_partial of a body": Case(
        create("dependency_partial"),
        request,
        operation=rewritten,
        neutral=lambda: request("empty"),
        wrong=[plain],
        bad=[{"url": " "}],
    ),
    "dependency_slow": Case(
        create("dependency_slow", target="a:b", delay="1ms"), arguments, bad=[{"delay": "soon"}]
    ),
    "rate_limited": Case(
        create("rate_limited"), request, wrong=[plain], bad=[{"status": 200}, {"retry_after": "x"}]
    ),
    "provider_error": Case(create("provider_error"), request, wrong=[plain], bad=[{"status": 200}]),
    "provider_stream": Case(
        create("provider_stream"),
        lambda: request("stream"),
        operation=rewritten,
        neutral=request,
        wrong=[plain],
        bad=[{"chunk": -1}, {"kind": "odd"}, {"url": " "}],
    ),
    "cache_failure": Case(
        create("cache_failure", target="a:b"),
        arguments,
        bad=[{"error": "NoSuchError"}, {"target": " "}, {"kind": "odd"}],
    ),
    "cache_failure by a miss": Case(
        create("cache_failure", target="a:b", kind="miss"), document, wrong=[lambda: None]
    ),
    "stale_cache": Case(
        create("stale_cache", target="a:b"),
        version,
        wrong=[weights],
        bad=[{"target": " "}, {"lag": 0}],
    ),
    "overload": Case(
        create("overload", duration="1s"),
        Company,
        wrong=[object],
        bad=[{"factor": 1}, {"duration": "0s"}],
    ),
    "retry_storm": Case(
        create("retry_storm"), Company, wrong=[object], bad=[{"retries": 0}, {"after": "soon"}]
    ),
    "model_unavailable": Case(
        create("model_unavailable", **MODEL),
        arguments,
        bad=[{"error": "NoSuchError"}, {"model": " "}, {"model": None}, {"target": "a:b"}],
    ),
    "model_slow": Case(
        create("model_slow", delay="1ms", **MODEL),
        arguments,
        bad=[{"delay": "soon"}, {"model": " "}, {"model": None}],
    ),
    "cold_start": Case(
        create("cold_start", delay="1ms", **MODEL),
        arguments,
        bad=[{"delay": "soon"}, {"model": " "}, {"calls": 0}],
    ),
    "model_load_failure": Case(
        create("model_load_failure", target="a:b"), arguments, bad=[{"target": " "}]
    ),
    "corrupt_model": Case(
        create("corrupt_model", target="a:b", kind="wrong_weights"),
        weights,
        wrong=[object, lambda: None],
        bad=[{"target": " "}, {"kind": "odd"}],
    ),
    "stale_model": Case(
        create("stale_model", target="a:b"),
        version,
        wrong=[weights],
        bad=[{"target": " "}, {"duration": "0s"}],
    ),
    "wrong_model": Case(
        create("wrong_model", target="a:b"), version, wrong=[weights], bad=[{"target": " "}]
    ),
    "hot_reload_failure": Case(
        create("hot_reload_failure", target="a:b"),
        arguments,
        bad=[{"target": " "}, {"line": -1}, {"when": "never"}],
    ),
}
