"""Which code of a file is recovery code."""

from __future__ import annotations

import textwrap

import pytest

from pytest_mlchaos.core.recovery_blocks import recovery_blocks


def found(source: str) -> list[tuple[int, str, str]]:
    """Return line, kind and function of each block."""
    return [
        (block.line, block.what, block.function)
        for block in recovery_blocks(textwrap.dedent(source))
    ]


@pytest.mark.parametrize(
    ("source", "blocks"),
    [
        ("try:\n    a()\nexcept ValueError:\n    b()\n", [(3, "except ValueError", "")]),
        ("try:\n    a()\nexcept (A, B.C) as e:\n    b()\n", [(3, "except (A, B.C)", "")]),
        ("try:\n    a()\nexcept:\n    b()\n", [(3, "except", "")]),
        ("try:\n    a()\nexcept* OSError:\n    b()\n", [(3, "except* OSError", "")]),
        ("try:\n    a()\n# why\nfinally:\n    # c\n    b()\n", [(4, "finally", "")]),
        ("with suppress(KeyError, E):\n    a()\n", [(1, "suppress(KeyError, E)", "")]),
        ("with open(x) as f, contextlib.suppress(E):\n    a()\n", [(1, "suppress(E)", "")]),
        (
            "def load_fallback():\n    '''Doc.'''\n    a()\n",
            [(1, "fallback function", "load_fallback")],
        ),
        ("if x:\n    a()\nelse:\n    b()\n", []),
        ("not python(", []),
    ],
)
def test_blocks_of_each_kind(source, blocks):
    """Each kind has its line and its text."""
    assert found(source) == blocks


def test_blocks_name_their_function():
    """Methods, coroutines and nested functions have their qualified names."""
    assert found(
        """
        class Loader:
            async def read(self):
                try:
                    await a()
                except OSError:
                    try:
                        b()
                    finally:
                        c()

            def items(self):
                def inner():
                    try:
                        yield 1
                    except GeneratorExit:
                        return
        """
    ) == [
        (6, "except OSError", "Loader.read"),
        (9, "finally", "Loader.read"),
        (16, "except GeneratorExit", "Loader.items.inner"),
    ]


def test_blocks_after_a_retry_loop():
    """The end of a retry loop is recovery code. The end of any other loop is not."""
    assert found(
        """
        def fetch():
            for attempt in range(3):
                try:
                    return get()
                except OSError:
                    wait()
            raise GaveUp

        def fetch_else():
            for attempt in range(3):
                try:
                    value = get()
                    break
                except OSError:
                    wait()
            else:
                value = None
            return value

        def convert():
            for item in items:
                try:
                    take(item)
                except ValueError:
                    skipped += 1
            return skipped

        def search():
            for item in items:
                if item:
                    return item
            return None
        """
    ) == [
        (6, "except OSError", "fetch"),
        (8, "after the last attempt", "fetch"),
        (15, "except OSError", "fetch_else"),
        (17, "else after the last attempt", "fetch_else"),
        (25, "except ValueError", "convert"),
    ]


def test_blocks_know_what_they_guard():
    """A handler guards the body of its try. A finally guards the handlers as well."""
    handler, last = recovery_blocks(
        "try:\n    a()\nexcept E:\n    b()\nelse:\n    c()\nfinally:\n    d()\n"
    )
    assert (handler.guarded, handler.lines, handler.always_runs) == ((2, 2), (4, 4), False)
    assert (last.guarded, last.lines, last.always_runs) == ((2, 6), (8, 8), True)
