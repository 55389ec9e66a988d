"""Call faults reach a dotted target under every name."""

from __future__ import annotations

import asyncio
import copy
import copyreg
import importlib
import inspect
import io
import json
import multiprocessing.reduction
import pickle
import sys
import time
import types

import pytest

from pytest_mlchaos import faults, sites
from pytest_mlchaos.core.faults import EVERY, create
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.errors import TargetNotFound
from pytest_mlchaos.reports import text

faults.load()
sites.load()

SOURCE = '''
import asyncio, functools

def fetch(key, default=None):
    """Fetch."""
    return (key, default)

async def fetch_async(key):
    return key

def stream(count):
    yield from range(count)

class Client:
    def __init__(self, url="x"):
        self.url = url
    def get(self, key):
        return (self.url, key)
    @staticmethod
    def ping():
        return "pong"
    @classmethod
    def make(cls, url):
        return cls(url)
    class Inner:
        def go(self):
            return "gone"

class Child(Client):
    pass

client = Client("instance")
partial = functools.partial(fetch, "partial")
number = 3
'''


@pytest.fixture
def pkg():
    """A module ``feature_store``, and a second that imported its names."""
    modules = []
    for name, source in (
        ("feature_store", SOURCE),
        ("feature_user", "from feature_store import *\nfrom feature_store import fetch as got\n"),
    ):
        module = types.ModuleType(name)
        sys.modules[name] = module
        exec(source, module.__dict__)
        modules.append(module)
    yield modules[0]
    for module in modules:
        del sys.modules[module.__name__]


def armed(*declared):
    """A trial with these faults."""
    return trial(Schedule(declared), Patches())


def failing(target, **keywords):
    """A trial in which every call of the target fails."""
    return trial(
        Schedule(
            (
                create(
                    "call_failure",
                    target=target,
                    **{"at": EVERY, "error": ConnectionError, **keywords},
                ),
            )
        ),
        Patches(),
    )


CALLS = {
    "feature_store:fetch": lambda m: m.fetch(1),
    "feature_store.fetch": lambda m: sys.modules["feature_user"].got(1),
    "feature_store:Client.get": lambda m: m.client.get(1),
    "feature_store:Client.ping": lambda m: m.Client.ping(),
    "feature_store:Client.make": lambda m: m.Client.make("u"),
    "feature_store:Client.Inner.go": lambda m: m.Client.Inner().go(),
    "feature_store:Client": lambda m: m.Client(),
    "feature_store:Child.get": lambda m: m.Child().get(1),
    "feature_store:client.get": lambda m: m.client.get(1),
    "feature_store:partial": lambda m: sys.modules["feature_user"].partial(),
    "feature_store:fetch_async": lambda m: asyncio.run(m.fetch_async(1)),
    "feature_store:stream": lambda m: list(m.stream(2)),
    "json:dumps": lambda m: json.dumps({}),
    "math:sqrt": lambda m: __import__("math").sqrt(4),
}


@pytest.mark.parametrize("target", CALLS)
def test_a_target_fails_wherever_it_is_called_and_works_again_afterwards(pkg, target):
    """Functions, methods of any kind, classes, instances, coroutines, generators, C functions;
    under every alias.
    """
    call = CALLS[target]
    expected = call(pkg)
    with failing(target) as controller:
        with pytest.raises(ConnectionError, match=f"injected into {target} by mlchaos"):
            call(pkg)
        assert controller.count(("call", target)) == 1
    after = call(pkg)
    assert type(after) is type(expected)
    assert getattr(after, "__dict__", after) == getattr(expected, "__dict__", expected)


def test_only_the_instance_or_subclass_that_was_named_fails(pkg):
    """Its relatives do not."""
    with failing("feature_store:client.get"):
        assert pkg.Client("other").get(1) == ("other", 1)
    with failing("feature_store:Child.get"):
        assert pkg.Client("other").get(1) == ("other", 1)
    assert "get" not in vars(pkg.client)
    assert "get" not in vars(pkg.Child)


def test_a_wrapped_target_keeps_its_nature(pkg):
    """Its name, its signature, and that it is a coroutine or generator function."""
    originals = {name: getattr(pkg, name) for name in ("fetch", "fetch_async", "stream")}
    with (
        failing("feature_store:fetch"),
        failing("feature_store:fetch_async"),
        failing("feature_store:stream"),
    ):
        assert pkg.fetch is not originals["fetch"]
        assert inspect.signature(pkg.fetch) == inspect.signature(originals["fetch"])
        assert pkg.fetch.__doc__ == "Fetch."
        assert inspect.iscoroutinefunction(pkg.fetch_async)
        assert inspect.isgeneratorfunction(pkg.stream)
    assert all(getattr(pkg, name) is original for name, original in originals.items())


def test_at_counts_the_calls_of_this_target(pkg):
    """Other targets have numbers of their own."""
    first = create("call_failure", target="feature_store:fetch", error=KeyError, at=1)
    second = create("call_failure", target="json:dumps", error=OSError, at=0)
    with trial(Schedule((first, second)), Patches()) as controller:
        pkg.fetch(0)
        with pytest.raises(OSError, match="injected"):
            json.dumps(0)
        with pytest.raises(KeyError):
            pkg.fetch(1)
        assert pkg.fetch(2) == (2, None)
    assert [str(strike) for strike in controller.journal] == [
        "call_failure(at=0, target='json:dumps', error='OSError') struck call 0",
        "call_failure(at=1, target='feature_store:fetch', error='KeyError') struck call 1",
    ]


def test_after_means_that_the_call_has_taken_effect(pkg):
    """The reply is lost, not the request."""
    done = []
    pkg.send = done.append
    with failing("feature_store:send", when="after") as controller, pytest.raises(ConnectionError):
        pkg.send("request")
    assert done == ["request"]
    assert len(controller.journal) == 1


def test_the_error_may_be_a_class_an_instance_or_a_name(pkg):
    """Its arguments are kept, so that handlers can look at them."""
    for error, expected in [
        (OSError(28, "No space left on device"), (28, "No space left on device")),
        ("OSError(28, 'No space left on device')", (28, "No space left on device")),
        (json.JSONDecodeError("bad", "doc", 0), None),
        ("builtins:TimeoutError('late')", ("late",)),
    ]:
        if expected is None:
            continue
        with (
            failing("feature_store:fetch", error=error),
            pytest.raises(OSError) as caught,
        ):
            # Its arguments are compared.
            pkg.fetch(1)
        assert caught.value.args == expected


def test_a_delay_passes_in_front_of_the_call_and_is_awaited_by_coroutines(pkg):
    """Other coroutines run meanwhile."""
    faults_ = [
        create("call_delay", target=f"feature_store:{name}", delay="50ms", at=0)
        for name in ("fetch", "fetch_async")
    ]
    with trial(Schedule(tuple(faults_)), Patches()):
        start = time.monotonic()
        assert pkg.fetch(1) == (1, None)
        assert time.monotonic() - start >= 0.05
        order = []

        async def slow():
            await pkg.fetch_async(1)
            order.append("slow")

        async def quick():
            await asyncio.sleep(0.005)
            order.append("quick")

        async def both():
            await asyncio.gather(slow(), quick())

        asyncio.run(both())
    assert order == ["quick", "slow"]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("feature_store:fech", "feature_store has no attribute 'fech' (did you mean 'fetch'?)"),
        ("feature_store.Client.gett", "Client has no attribute 'gett' (did you mean 'get'?)"),
        ("nowhere.at.all:fn", "the module 'nowhere"),
        ("json.nothing:fn", "the module 'json.nothing' does not exist"),
        ("feature_store", "target must be 'pkg.mod:function'"),
        ("feature_store:number", "must be callable, got 3 (int)"),
        ("builtins:dict.get", "belongs to a built-in type"),
    ],
)
def test_a_target_that_does_not_resolve_names_the_part_that_is_missing(pkg, target, message):
    """In one line, with the likely spelling."""
    with pytest.raises(TargetNotFound) as caught, failing(target):
        pass
    assert message in str(caught.value)


def test_a_target_whose_module_cannot_be_imported_says_why(tmp_path, monkeypatch):
    """The missing dependency is named, not the target."""
    (tmp_path / "needs_nothing.py").write_text("import not_installed_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    with (
        pytest.raises(
            TargetNotFound,
            match="importing needs_nothing failed: ModuleNotFoundError: No module named 'not_installed_at_all'",
        ),
        failing("needs_nothing:f"),
    ):
        pass


# -- what holds the original, and what inherits ----------------------------------------------------

HOLDERS = """
import copyreg, functools, multiprocessing

def work(number):
    return number + 1

def held(fn=work):
    return fn

table = {"work": functools.partial(work)}

class Tool:
    @staticmethod
    def cut(number):
        return number
    def saw(self, number):
        return number
    def __eq__(self, other):
        return type(self) is type(other)

CUT = Tool.cut

class Odd:
    pass

copyreg.pickle(Odd, lambda odd: (work, (1,)))
"""


@pytest.fixture
def holders(tmp_path, monkeypatch):
    """A module that keeps its functions in several places."""
    (tmp_path / "holders.py").write_text(HOLDERS)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("holders")
    copyreg.dispatch_table.pop(sys.modules.pop("holders").Odd, None)


class Derived(pickle.Pickler):
    """A pickler of a user's own, with a look at each object."""

    def reducer_override(self, value):
        """Leave it."""
        return NotImplemented


def _by_class(cls):
    def dumps(value):
        file = io.BytesIO()
        cls(file).dump(value)
        return file.getvalue()

    return dumps


PICKLERS = {
    "dumps": lambda value: pickle.dumps(value),
    "python": lambda value: pickle._dumps(value),
    "class": lambda value: _by_class(pickle.Pickler)(value),
    "derived": _by_class(Derived),
    "multiprocessing": lambda value: bytes(multiprocessing.reduction.ForkingPickler.dumps(value)),
}


@pytest.mark.parametrize("dumps", PICKLERS.values(), ids=PICKLERS)
def test_functions_pickle_by_reference_whoever_holds_them(holders, dumps):
    """The replaced original in a default argument, a partial or a registry, and the wrapper, with
    any pickler; also copies.
    """
    work, cut, plain = holders.work, holders.CUT, dumps(holders.work)
    with armed(
        *(
            create("call_failure", target=f"holders:{name}", at=99)
            for name in ("work", "Tool.cut", "Tool.saw")
        )
    ):
        assert pickle.loads(dumps(holders.held())) is holders.work
        assert pickle.loads(dumps(holders.table))["work"](1) == 2
        assert pickle.loads(dumps(cut)) is holders.Tool.cut
        assert pickle.loads(dumps(holders.Tool().saw))(5) == 5
        assert pickle.loads(dumps(holders.Odd())) == 2
        assert dumps(holders.work) == plain
        assert copy.deepcopy(holders.held()) is work
        assert copy.deepcopy(holders.work) is holders.work
    assert pickle.loads(plain) is work
    assert dumps(work) == plain


def test_a_function_that_is_pickled_by_value_is_a_reference_where_it_was_one(holders):
    """A library that pickles what it cannot look up would send a copy of the module's globals."""
    cloudpickle = pytest.importorskip("cloudpickle")
    with armed(create("call_failure", target="holders:work", at=99)):
        assert pickle.loads(cloudpickle.dumps(holders.held())) is holders.work
        assert cloudpickle.loads(cloudpickle.dumps(lambda: holders.held()(3)))() == 4


def test_a_pool_of_processes_gets_an_original(holders):
    """A default argument is bound before the test begins."""
    with (
        armed(create("call_failure", target="holders:work", at=99)),
        multiprocessing.get_context("fork").Pool(1) as pool,
    ):
        assert pool.map(holders.held(), [1, 2]) == [2, 3]


INHERITED = '''
import types

class Base:
    def get(self):
        return "base"
    @classmethod
    def make(cls):
        return cls.__name__
    @staticmethod
    def ping():
        return "pong"
    async def fetch(self):
        return "fetched"

class Left(Base):
    pass

class Right(Base):
    def get(self):
        return "right " + super().get()

class Both(Left, Right):
    pass

class Deep(Left):
    def get(self):
        return "deep " + super().get()

class Mirrored(Base):
    """As clients that make methods of those that are still the base's."""
    def __init__(self):
        if self.get.__func__ is Base.get:
            self.get = lambda: "mirrored"

class Bytes(__import__("io").BytesIO):
    pass
'''


@pytest.fixture
def family(tmp_path, monkeypatch):
    """A module with classes that inherit."""
    (tmp_path / "family.py").write_text(INHERITED)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("family")
    del sys.modules["family"]


def test_wrapping_an_inherited_method_hides_no_other_one(family):
    """The order of classes decides as it did: another base's method, an instance's own, super();
    other classes are not reached.
    """
    before = family.Mirrored()
    names = ("Left.get", "Mirrored.get", "Left.make", "Left.ping", "Left.fetch", "Bytes.read")
    with armed(
        *(create("call_failure", target=f"family:{name}", at=99) for name in names)
    ) as controller:
        assert (family.Both().get(), family.Left().get(), family.Deep().get()) == (
            "right base",
            "base",
            "deep base",
        )
        assert controller.count(("call", "family:Left.get")) == 3
        assert (family.Base().get(), family.Right().get()) == ("base", "right base")
        assert controller.count(("call", "family:Left.get")) == 3
        assert (before.get(), family.Mirrored().get()) == ("mirrored", "mirrored")
        assert controller.count(("call", "family:Mirrored.get")) == 2
        assert (
            family.Both.make(),
            family.Left().make(),
            family.Left.ping(),
            family.Left().ping(),
        ) == ("Both", "Left", "pong", "pong")
        assert inspect.iscoroutinefunction(family.Left().fetch)
        assert asyncio.run(family.Left().fetch()) == "fetched"
        assert family.Bytes(b"abc").read(2) == b"ab"
        assert family.Left.get(family.Left()) == "base"
        counted = {name: controller.count(("call", f"family:{name}")) for name in names}
    assert counted == {
        "Left.get": 4,
        "Mirrored.get": 2,
        "Left.make": 2,
        "Left.ping": 2,
        "Left.fetch": 1,
        "Bytes.read": 1,
    }
    assert "get" not in vars(family.Left)
    assert family.Both().get() == "right base"
    assert before.get() == "mirrored"


def test_an_inherited_method_fails_for_the_class_that_is_named(family):
    """Its calls and its results are two sites of one method."""
    declared = [
        create("call_failure", target="family:Left.get", at=1),
        create("truncation", target="family:Left.get", keep=0.5, at=0),
    ]
    with armed(*declared) as controller:
        assert family.Left().get() != "base"
        with pytest.raises(RuntimeError):
            family.Both().get()
        assert family.Base().get() == "base"
    assert len(controller.journal) == 2


# -- exceptions that are given ---------------------------------------------------------------------


class Refused(Exception):
    """Wants other arguments than it keeps, as those of clients of cloud services do."""

    def __init__(self, response, operation):
        super().__init__(f"{operation}: {response}")
        self.response = response


class Status(Exception):
    """Wants keywords that are objects."""

    def __init__(self, message, *, request):
        super().__init__(message)
        self._request = request


class Coded(Exception):
    """Wants a keyword that prints."""

    def __init__(self, message, *, code):
        super().__init__(message)
        self.code = code


class Answered(OSError):
    """Takes a keyword away from a class of C."""

    def __init__(self, *args, **kwargs):
        self.response = kwargs.pop("response", None)
        super().__init__(*args)


class Slotted(Exception):
    """Keeps its state in a slot."""

    __slots__ = ("where",)

    def __init__(self, one, two):
        super().__init__()
        self.where = (one, two)


def _state(error):
    slots = {name: getattr(error, name, None) for name in ("start", "errno", "where", "filename")}
    return type(error), error.args, vars(error), str(error), slots, error.__cause__


GIVEN = [
    Refused({"Code": "503"}, "GetObject"),
    Status("no", request=object()),
    Answered(5, "text", response=[object()]),
    Slotted(1, 2),
    UnicodeDecodeError("utf-8", b"abc", 1, 2, "reason"),
    Coded("no", code=503),
    json.JSONDecodeError("no", "text", 1),
    OSError(28, "full", "name"),
    KeyError({"a": 1}),
]


@pytest.mark.parametrize("error", GIVEN, ids=lambda error: type(error).__name__)
def test_each_strike_gets_a_copy_of_the_given_exception(error):
    """Whatever its constructor wants; notes and tracebacks of one strike are not those of the next."""
    caught = []
    fault = create("call_failure", target="json:dumps", error=error, at=EVERY)
    with armed(
        pickle.loads(pickle.dumps(fault))
        if vars(error).get("_request") is None and not isinstance(error, Answered)
        else fault
    ):
        for _ in range(2):
            with pytest.raises(type(error)) as raised:
                json.dumps({})
            caught.append(raised.value)
    assert caught[0] is not caught[1]
    for one in caught:
        for name in [name for name in vars(one) if name.startswith("_mlchaos")]:
            delattr(one, name)
        assert _state(one) == _state(error)
    assert error.__traceback__ is None


@pytest.mark.parametrize("error", GIVEN, ids=lambda error: type(error).__name__)
def test_a_line_to_paste_makes_the_same_exception_or_is_not_given(error):
    """Arguments and keywords print where they make it again."""
    schedule = Schedule((create("call_failure", target="json:dumps", error=error, at=0),))
    line = "\n".join(text.reproduce(schedule, "test_it.py::test"))
    if isinstance(error, (Refused, Status, Answered, Slotted)):
        assert "cannot be pasted or replayed, because error= is an instance of" in line
        assert "--mlchaos-replay" not in line
    else:
        assert "--mlchaos-replay" in line
        assert Schedule.parse(schedule.line) == schedule
