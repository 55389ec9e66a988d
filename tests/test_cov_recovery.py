"""The recovery code that no fault has reached, in sessions that coverage.py measures."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("pytest_cov")

COV = ("--cov=.", "--cov-report=", "--mlchaos-cov", "-v")

STORE = """
import asyncio
import contextlib


def send(key):
    return key


def is_ready():
    return True


def plain(key):
    try:
        return send(key)
    except OSError:                                   # plain: REACHED
        return None


def other_type(key):
    try:
        return send(key)
    except (ValueError, KeyError):                    # other_type
        return None
    except OSError:                                   # other_type os: REACHED
        return None


def nested(key):
    try:
        try:
            return send(key)
        except ValueError:                            # nested inner
            return 1
    except OSError:                                   # nested outer: REACHED
        return 2


def bare(key):
    try:
        return send(key)
    except:                                           # bare: REACHED
        return None


def bare_never(key):
    try:
        return is_ready()
    except:                                           # bare_never
        return None


def groups(key):
    try:
        try:
            return send(key)
        except OSError as error:                      # groups wrap: REACHED
            raise ExceptionGroup("all", [error])
    except* ValueError:                               # groups ValueError
        pass
    except* OSError:                                  # groups OSError: REACHED
        pass


def closes(key):
    log = []
    try:
        return send(key)
    finally:                                          # closes: REACHED
        log.append(key)


def closes_quietly(key):
    log = []
    try:
        is_ready()
    finally:                                          # closes_quietly
        log.append(key)
    return send(key)


def closes_later(key):
    log = []
    try:
        send(key)
    except OSError:                                   # closes_later send: REACHED
        pass
    try:
        is_ready()
    finally:                                          # closes_later: after the strike, not by it
        log.append(key)


def swallows(key):
    try:
        send(key)
    finally:                                          # swallows: REACHED
        return key


def suppresses(key):
    with contextlib.suppress(OSError):                # suppresses: REACHED
        return send(key)


def suppresses_other(key):
    with contextlib.suppress(KeyError):               # suppresses_other
        is_ready()
    return send(key)


def retries(key):
    for attempt in range(2):
        try:
            return send(key)
        except OSError:                               # retries: REACHED
            continue
    return None                                       # retries after


def retries_else(key):
    for attempt in range(2):
        try:
            send(key)
            break
        except OSError:                               # retries_else: REACHED
            continue
    else:                                             # retries_else else: REACHED
        return "gave up"


def retry(function):
    def call(key):
        try:
            return function(key)
        except OSError:                               # retry decorator: REACHED
            return fallback(key)
    return call


def fallback(key):                                    # fallback: REACHED
    '''Documented.'''
    return key


def never_fallback(key):                              # never_fallback
    return key


@retry
def decorated(key):
    return send(key)


class Loader:
    def read(self, key):
        try:
            return send(key)
        except OSError:                               # Loader.read: REACHED
            return None

    def check(self, key):
        try:
            return is_ready()
        except OSError:                               # Loader.check
            return None

    async def fetch(self, key):
        try:
            await asyncio.sleep(0)
            return send(key)
        except OSError:                               # Loader.fetch: REACHED
            return None
        finally:                                      # Loader.fetch finally: REACHED
            await asyncio.sleep(0)

    def items(self, keys):
        for key in keys:
            try:
                yield send(key)
            except OSError:                           # Loader.items: REACHED
                yield None
            except GeneratorExit:                     # Loader.items exit
                return


def left_out(key):
    try:
        return is_ready()
    except OSError:  # pragma: no cover
        return None


def cold_start():
    try:
        raise FileNotFoundError                       # a cold start, in each run
    except FileNotFoundError:                         # cold_start: before and after the strike
        pass


def starts_twice(key):
    cold_start()
    try:
        send(key)
    except OSError:                                   # starts_twice: REACHED
        pass
    cold_start()


def starts(key):
    try:
        raise FileNotFoundError                       # a cold start, in each run
    except FileNotFoundError:                         # starts
        pass
    return send(key)
"""
TESTS = """
import asyncio
import pytest
import store

CASES = [name for name in (
    "plain", "other_type", "nested", "bare", "bare_never", "groups", "closes", "closes_quietly",
    "swallows", "suppresses", "suppresses_other", "retries", "decorated", "starts", "starts_twice", "closes_later",
) ]

@chaos.call_failure(target="store:send", error=OSError(5, "no"), at=0)
@chaos.settings(allow_quiet=True)
@pytest.mark.parametrize("name", CASES)
def test_functions(name, mlchaos):
    try:
        getattr(store, name)("key")
    except OSError:
        pass
    assert True

@chaos.call_failure(target="store:send", error=OSError(5, "no"), at=[0, 1])
def test_all_attempts_fail(mlchaos):
    assert store.retries_else("key") == "gave up"

@chaos.call_failure(target="store:send", error=OSError(5, "no"), at=0)
def test_loader(mlchaos):
    assert store.Loader().read("key") is None
    store.Loader().check("key")

@chaos.call_failure(target="store:send", error=OSError(5, "no"), at=0)
def test_coroutine(mlchaos):
    assert asyncio.run(store.Loader().fetch("key")) is None

@chaos.call_failure(target="store:send", error=OSError(5, "no"), at=0)
def test_generator(mlchaos):
    assert list(store.Loader().items(["a", "b"])) == [None, "b"]
"""


def expected() -> list[int]:
    """The lines of the handlers that no test reaches."""
    return [
        number
        for number, line in enumerate(STORE.strip().splitlines(), 1)
        if re.search(r"   # \w", line) and "REACHED" not in line and "raise File" not in line
    ]


def missing(text: str) -> list[int]:
    """The lines that the output names."""
    return [int(number) for number in re.findall(r"^  store\.py:(\d+)", text, re.M)]


@pytest.mark.parametrize(
    "more",
    [
        (),
        *(
            pytest.param(more, marks=pytest.mark.slow)
            for more in (("-n2",), ("--cov-context=test",), ("--cov-branch",))
        ),
    ],
)
def test_exactly_the_handlers_never_exercised_are_named(example, more):
    """There are 33 blocks of all kinds, and the list is exact."""
    found = example.with_file("store.py", STORE.strip() + "\n").with_tests(TESTS)
    outcome = found.run(*COV, *more, interpreter=True, passed=20)
    assert missing(outcome.text) == expected()
    total = len(expected()) + STORE.count("REACHED")
    assert (len(expected()), total) == (13, 33)
    outcome.has(f"no fault has reached: {len(expected())} of {total}")
