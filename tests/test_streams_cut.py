"""``stream_cut``: streams of a dotted target that end early."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import sys
import types

import pytest

from pytest_mlchaos import faults, sites
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial

faults.load()
sites.load()

CODE = """
closed = []

def generator():
    try:
        yield from range(5)
    finally:
        closed.append("generator")
    return "end"

async def async_generator():
    try:
        for number in range(5):
            yield number
    finally:
        closed.append("async_generator")

def iterator():
    return iter(range(5))

async def awaited():
    return async_generator()
"""


@pytest.fixture
def module(monkeypatch):
    """A module with streams of each kind."""
    made = types.ModuleType("streams_of_test")
    exec(CODE, vars(made))
    monkeypatch.setitem(sys.modules, made.__name__, made)
    return made


@contextlib.contextmanager
def cut(kind, **keywords):
    """A trial in which streams of this kind are cut."""
    fault = create("stream_cut", target=f"streams_of_test:{kind}", at=0, **keywords)
    with trial(Schedule((fault,)), Patches()) as controller:
        yield controller


def items(module, kind):
    """Return the items of a stream that arrive, and its error."""
    found = []

    async def collect(stream):
        async for item in stream:
            found.append(item)

    async def main(stream):
        await collect(await stream if inspect.iscoroutine(stream) else stream)

    try:
        stream = getattr(module, kind)()
        if hasattr(stream, "__next__"):
            for item in stream:
                found.append(item)
        else:
            asyncio.run(main(stream))
    except ConnectionError as error:
        return found, type(error).__name__
    return found, None


@pytest.mark.parametrize("kind", ["generator", "async_generator", "iterator", "awaited"])
@pytest.mark.parametrize(("how", "error"), [("end", None), ("error", "ConnectionError")])
def test_a_stream_of_each_kind_ends_early(module, kind, how, error):
    """Each call is a visit, and only the first is struck."""
    with cut(kind, after=2, how=how) as controller:
        assert items(module, kind) == ([0, 1], error)
        assert items(module, kind) == ([0, 1, 2, 3, 4], None)
    (strike,) = controller.journal
    assert (strike.visit, strike.details) == (0, {"how": how})


def test_a_stream_that_is_short_is_not_struck(module):
    """It ends by itself before."""
    with cut("generator", after=6) as controller:
        assert items(module, "generator") == ([0, 1, 2, 3, 4], None)
    assert len(controller.journal) == 0


@pytest.mark.parametrize("kind", ["generator", "async_generator"])
def test_a_stream_that_is_cut_is_closed(module, kind):
    """Run its clean-up."""
    with cut(kind, after=2):
        assert items(module, kind)[0] == [0, 1]
        assert module.closed == [kind]


def test_functions_keep_their_kind(module):
    """Frameworks look at it."""
    with cut("async_generator"):
        assert inspect.isasyncgenfunction(module.async_generator)
    with cut("generator"):
        assert inspect.isgeneratorfunction(module.generator)


def test_a_bare_cut_finds_a_part_taken_for_the_whole(example):
    """The program that looks for the end passes."""
    example.with_file(
        "source.py",
        """
        def tokens():
            yield from ["a", "b", "c", "<end>"]
        """,
    ).with_tests("""
        import pytest
        import source

        def trusts(request):
            return "".join(source.tokens())

        def looks(request):
            found = list(source.tokens())
            if found[-1:] != ["<end>"]:
                raise RuntimeError("incomplete")
            return "".join(found)

        @pytest.mark.parametrize("app", [trusts, looks])
        @chaos.stream_cut(target="source:tokens")
        def test_it(mlchaos, app):
            load = mlchaos.serve(app).drive([1, 2])
            for reply in load.replies:
                assert reply.error is not None or reply.value == "abc<end>"
    """).run(passed=1, failed=1).has("stream_cut(", "reproduce:")
