"""Test what a fault may do with a stream, remember, and keep up."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import types

import pytest

from pytest_mlchaos import Fault, batches, faults, sites
from pytest_mlchaos.core.faults import EVERY, FAULTS, create, register
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.errors import FaultError, TargetNotFound

faults.load()
sites.load()


@pytest.fixture(autouse=True)
def _no_fault_stays_registered():
    known = dict(FAULTS)
    yield
    FAULTS.clear()
    FAULTS.update(known)


def fault(apply, **members):
    """A registered class of faults of batches, with this apply."""
    FAULTS.pop("suspect", None)
    return register(
        type(
            "Suspect",
            (Fault,),
            {"site": "data.batch", "name": "suspect", "apply": apply, **members},
        )
    )


def armed(*declared, seed=0):
    """A trial with these faults."""
    return trial(Schedule(declared, seed), Patches())


def passed(declared, items):
    """Return the payloads of a loop over these, and the visits that were struck."""
    with armed(declared) as controller:
        out = list(batches(items))
    return out, [strike.visit for strike in controller.journal]


def test_what_is_pulled_and_pushed_makes_no_visit():
    """Visits are batches that come from the loader."""

    def swap(self, visit):
        following = visit.stream.pull()
        visit.stream.push(visit.payload, "extra")
        return following

    with armed(fault(swap)(at=[1, 2])) as controller:
        assert list(batches(range(5))) == [0, 2, 1, "extra", 4, 3, "extra"]
    assert controller.count("data.batch") == 3


def test_a_stream_that_ends_while_a_fault_pulls_ends_for_the_loop():
    """The strike is recorded, the fault does not count as broken, and the next epoch is whole."""
    out, struck = passed(fault(lambda self, visit: visit.stream.pull())(at=2), range(3))
    assert out == [0, 1]
    assert struck == [2]


def test_what_a_loader_raises_while_a_fault_pulls_is_the_users_own():
    """It is raised as without the fault, and does not count as a strike of it."""

    def broken_loader():
        yield 0
        raise ValueError("a broken sample")

    with (
        armed(fault(lambda self, visit: visit.stream.pull())(at=0)) as controller,
        pytest.raises(ValueError, match="a broken sample") as caught,
    ):
        list(batches(broken_loader()))
    assert not controller.is_injected(caught.value)
    assert controller.broken is None


def test_a_mistake_in_a_fault_is_still_its_own():
    """An error of the same type that the stream has not raised."""
    with (
        pytest.raises(FaultError, match="has a bug"),
        armed(fault(lambda self, visit: next(iter(())))(at=0)),
    ):
        list(batches([1]))


def test_a_stream_ends_with_an_error_if_one_is_given():
    """Each time that it is asked, and what was pushed comes first."""

    def end(self, visit):
        visit.stream.push("pushed")
        visit.stream.end(KeyError("gone"))

    with armed(fault(end)(at=0)):
        iterator = iter(batches([1, 2, 3]))
        assert [next(iterator), next(iterator)] == [1, "pushed"]
        with pytest.raises(KeyError, match="gone"):
            next(iterator)


def test_a_site_that_is_no_stream_says_so():
    """A fault of streams at a visit by hand."""
    with (
        pytest.raises(FaultError, match="is not a stream"),
        armed(fault(lambda self, visit: visit.stream.pull())(at=0)) as controller,
    ):
        controller.visit("data.batch", 1)


def test_a_fault_may_observe_every_visit_and_remember():
    """In front of what strikes there; only what is needed is kept; nothing is observed when nothing
    is due any more.
    """
    seen = []

    def observe(self, visit):
        seen.append((visit.index, visit.is_due(visit.index + 1)))
        visit.memory[visit.index] = visit.payload

    out, struck = passed(
        fault(lambda self, visit: visit.memory[visit.index - 1], observe=observe)(at=[1, 3]),
        range(10, 16),
    )
    assert out == [10, 10, 12, 12, 14, 15]
    assert struck == [1, 3]
    assert seen == [(0, True), (1, False), (2, True), (3, False)]


def test_memory_ends_with_the_process():
    """A restart knows nothing of the attempt before."""
    sizes = []

    def observe(self, visit):
        visit.memory[visit.index] = True
        sizes.append(len(visit.memory))

    with armed(fault(lambda self, visit: None, observe=observe)(at=99)) as controller:
        with controller.attempt():
            list(batches(range(3)))
        with controller.attempt():
            list(batches(range(2)))
    assert sizes == [1, 2, 3, 1, 2]


def test_what_outlasts_a_visit_is_closed_when_the_process_ends():
    """In the attempt that struck, and in the reverse order."""
    log = []

    @contextlib.contextmanager
    def effect(number):
        log.append(f"on {number}")
        yield
        log.append(f"off {number}")

    with armed(
        fault(lambda self, visit: visit.keep_until_exit(effect(visit.index)))(at=[0, 1, 3])
    ) as controller:
        with contextlib.suppress(RuntimeError), controller.attempt():
            list(batches(range(3)))
            raise RuntimeError
        log.append("restart")
        list(batches(range(1)))
    assert log == ["on 0", "on 1", "off 1", "off 0", "restart", "on 3", "off 3"]


def test_one_visit_and_so_many_times_is_a_row():
    """``at=3, times=2``: visits 3 and 4."""
    assert passed(fault(lambda self, visit: -1)(at=3, times=2), range(7)) == (
        [0, 1, 2, -1, -1, 5, 6],
        [3, 4],
    )
    assert passed(fault(lambda self, visit: -1)(at=[3], times=1), range(7))[1] == [3]
    assert passed(fault(lambda self, visit: -1)(at=[3, 5], times=2), range(7))[1] == [3, 5]
    assert passed(fault(lambda self, visit: -1)(at=EVERY, times=2), range(7))[1] == [0, 1]


def test_a_spared_visit_is_no_strike():
    """And it does not count as one of its times; a fault that spares every visit never struck."""

    def apply(self, visit):
        if visit.payload % 2:
            visit.skip()
            return None
        return -1

    assert passed(fault(apply)(at=EVERY, times=2), range(1, 8)) == ([1, -1, 3, -1, 5, 6, 7], [1, 3])


def test_a_fault_that_spares_every_visit_never_struck(example):
    """No vacuous pass."""
    example.with_tests("""
        @chaos.stale_batch(at=0)
        def test_it(mlchaos):
            assert list(mlchaos.batches([1, 2])) == [1, 2]
    """).run(failed=1).has("NeverStruck", "stale_batch(at=0)")


@pytest.fixture
def library(monkeypatch):
    """A module with functions of each kind."""
    module = types.ModuleType("a_library")
    source = """
        def load(): return [1, 2]
        async def fetch(): return [3, 4]
        def stream():
            try:
                yield [5]
                yield [6]
            finally:
                closed.append(True)
            return 'done'
        async def stream_async():
            yield [7]
            yield [8]
        closed = []
    """
    exec("\n".join(line[8:] for line in source.splitlines()), module.__dict__)
    monkeypatch.setitem(sys.modules, "a_library", module)
    return module


def at_result(target, apply, at=0):
    """A fault of what calls of this target return."""

    def key(self):
        return ("call.result", target)

    return fault(apply, site="call.result", key=property(key))(at=at)


def test_results_of_functions_are_struck(library):
    """Under every name, once for each call; not its arguments."""
    with armed(
        at_result(
            "a_library:load", lambda self, visit: [*visit.payload, visit.attributes["target"]], at=1
        )
    ):
        assert library.load() == [1, 2]
        assert library.load() == [1, 2, "a_library:load"]
    assert library.load() == [1, 2]


def test_results_of_coroutine_functions_are_struck(library):
    """A coroutine function stays one, and awaits a delay."""

    def apply(self, visit):
        visit.sleep(0.001)
        return visit.payload[:1]

    with armed(at_result("a_library:fetch", apply)):
        assert asyncio.run(library.fetch()) == [3]
        assert asyncio.run(library.fetch()) == [3, 4]


def test_each_item_of_a_generator_is_a_visit_of_a_stream(library):
    """It can be dropped; the generator is closed, and returns what it returned."""
    with armed(at_result("a_library:stream", lambda self, visit: visit.stream.pull())):
        iterator = library.stream()
        assert next(iterator) == [6]
        with pytest.raises(StopIteration) as end:
            next(iterator)
        assert end.value.value == "done"
    assert library.closed == [True]


def test_each_item_of_an_asynchronous_generator_is_a_visit(library):
    """It stays one; but it is not a stream that could be reordered."""

    async def items():
        return [item async for item in library.stream_async()]

    with armed(at_result("a_library:stream_async", lambda self, visit: visit.payload * 2, at=1)):
        assert asyncio.run(items()) == [[7], [8, 8]]


def test_results_of_a_failing_call_are_no_visit(library):
    """There is nothing to strike at."""
    library.fail = lambda: 1 / 0
    with (
        armed(at_result("a_library:fail", lambda self, visit: 1)) as controller,
        contextlib.suppress(ZeroDivisionError),
    ):
        library.fail()
    assert not controller.journal


def test_a_target_that_is_not_there_is_refused(library):
    """With what was meant."""
    with (
        pytest.raises(TargetNotFound, match="did you mean 'load'"),
        armed(create("drop_batch", target="a_library:lood", at=0)),
    ):
        pass


def test_faults_of_batches_strike_at_results_of_targets(library):
    """``target=`` on any of them."""
    with armed(create("drop_batch", target="a_library:stream", at=0)):
        assert list(library.stream()) == [[6]]
    with armed(create("duplicate_batch", target="a_library:stream", at=1)):
        assert list(library.stream()) == [[5], [6], [6]]
