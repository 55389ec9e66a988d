"""Faults of text: what becomes of strings, wherever they are, and of code that is given them."""

from __future__ import annotations

import collections
import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_mlchaos import faults
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.errors import PayloadMismatch
from pytest_mlchaos.faults.text import strings, typos
from pytest_mlchaos.testing import strike

faults.load()

Record = collections.namedtuple("Record", "text label")


@dataclasses.dataclass(frozen=True)
class Request:
    """A request of one's own."""

    prompt: str
    limit: int = 3


def struck(fault, payload, *, seed=0, **keywords):
    """Return the payload after one strike. Raise the error of a refusal."""
    outcome = strike(create(fault, at=0, **keywords), [payload], seed=seed).outcomes[0]
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def edits(one, other):
    """The fewest insertions, deletions, substitutions and swaps of neighbours that make one text of
    another.
    """
    table = np.zeros((len(one) + 1, len(other) + 1), int)
    table[:, 0], table[0] = range(len(one) + 1), range(len(other) + 1)
    for i, j in np.ndindex(len(one), len(other)):
        table[i + 1, j + 1] = min(
            table[i, j + 1] + 1, table[i + 1, j] + 1, table[i, j] + (one[i] != other[j])
        )
        if i and j and one[i] == other[j - 1] and one[i - 1] == other[j]:
            table[i + 1, j + 1] = min(table[i + 1, j + 1], table[i - 1, j - 1] + 1)
    return table[-1, -1]


TEXT = (
    "The quick brown fox jumps over the lazy dog, and naïve 漢字 \N{SNOWMAN}\N{GRINNING FACE} too. "
    * 4
)


@pytest.mark.parametrize(
    ("kind", "grows"),
    [("neighbour", 0), ("transposition", 0), ("deletion", -0.1), ("insertion", 0.1), ("any", 0)],
)
def test_typos_are_as_many_as_asked_for(kind, grows):
    """Each changes the text by one edit; insertions and deletions alone change its length by much."""
    fresh = struck("typos", TEXT, rate=0.1, kind=kind)
    typed = sum(not character.isspace() for character in TEXT)
    assert edits(TEXT, fresh) == pytest.approx(0.1 * typed, rel=0.4)
    assert len(fresh) - len(TEXT) == pytest.approx(grows * typed, abs=0.05 * typed)


def test_a_slip_hits_a_key_next_to_the_right_one():
    """On a QWERTY keyboard, in the same case."""
    table = typos._neighbours()
    assert {chr(key) for key in table[ord("s")]} <= set("qwedazx")
    assert {chr(key) for key in table[ord("P")]} <= set("OL")
    assert {chr(key) for key in table[ord("5")]} <= set("46")
    assert all(chr(key) == "," for key in table[ord(",")])


@settings(deadline=None)
@given(
    st.lists(st.text(), min_size=1), st.integers(0, 2**32), st.sampled_from(["any", *typos.KINDS])
)
def test_typos_stay_in_their_strings(strings, seed, kind):
    """The number of strings stays, and nearly their lengths. At least one differs if any can.
    Blanks stay.
    """
    fresh = typos.add_typos(strings, kind, 0.3, np.random.default_rng(seed))
    assert len(fresh) == len(strings)
    assert (fresh != strings) == any(ord(character) > 32 for text in strings for character in text)
    for old, new in zip(strings, fresh, strict=True):
        assert len(new) <= 2 * len(old)
        assert new.count(" ") == old.count(" ")
        if kind == "transposition":  # or typed twice, where it cannot be swapped: nothing is lost
            assert collections.Counter(old) <= collections.Counter(new)


@settings(deadline=None)
@given(
    st.lists(st.text(st.characters(codec="utf-8")), min_size=1),
    st.sampled_from(["cp1252", "latin-1", "cp437", "utf-16-le"]),
)
def test_many_strings_are_misread_as_each_would_be(strings, encoding):
    """By table or one by one: bytes of UTF-8, read in another encoding."""
    assert typos.misread(strings, encoding) == [
        text.encode().decode(encoding, "replace") for text in strings
    ]


def test_mojibake_and_replacement_characters():
    """Users see these characters."""
    assert struck("mojibake", "café – naïve") == "cafÃ© â€“ naÃ¯ve"
    assert struck("mojibake", "café", encoding="latin-1") == "cafÃ©"
    lost = struck("mojibake", ["plain text"] * 50, kind="replacement", rate=0.2)
    assert sum(text.count("\N{REPLACEMENT CHARACTER}") for text in lost) == pytest.approx(
        100, abs=35
    )
    assert {len(text) for text in lost} == {10}
    some = struck("mojibake", ["é"] * 100 + ["e"] * 100, fraction=0.3)
    assert sum(text == "Ã©" for text in some) == 30
    assert some[100:] == ["e"] * 100


@pytest.mark.parametrize(
    ("given", "keywords", "wanted"),
    [
        ("abcdef", {}, "abc"),
        ("abcdef", {"keep": 0}, ""),
        ("abcdef", {"length": 4}, "abcd"),
        (["abc", "abcdef", ""], {"length": 4}, ["abc", "abcd", ""]),
        ("abcdefghij", {"severity": 1}, "abcdefghi"),
        ("abcdefghij", {"severity": 5}, "a"),
        (
            "caf\N{LATIN SMALL LETTER E WITH ACUTE}",
            {"length": 4, "unit": "bytes"},
            "caf\N{REPLACEMENT CHARACTER}",
        ),
        (b"caf\xc3\xa9", {"length": 4, "unit": "bytes"}, b"caf\xc3"),
        ({"raw": b"1234", "text": "ascii"}, {"unit": "bytes"}, {"raw": b"12", "text": "as"}),
    ],
)
def test_text_is_cut(given, keywords, wanted):
    """In characters, or in bytes, also inside a character."""
    assert struck("truncation", given, **keywords) == wanted


@pytest.mark.parametrize(
    ("keywords", "wanted"),
    [
        ({"kind": "empty"}, ""),
        ({"kind": "whitespace"}, " " * 11),
        ({"kind": "one_token"}, "hello"),
        ({"length": 20}, "hello world hello wo"),
        ({"severity": 1}, ("hello world " * 90)[:1000]),
    ],
)
def test_prompts_get_extreme(keywords, wanted):
    """Nothing, blanks, one word, or very much."""
    assert struck("prompt_length", {"prompt": "hello world", "n": 3}, **keywords) == {
        "prompt": wanted,
        "n": 3,
    }


CARRIERS = [
    "hello",
    ["hello", "world"],
    ("hello", "world"),
    ["hello", None, 3],
    {"text": "hello", "n": 3},
    {"messages": [{"role": "user", "content": "hello"}]},
    Record("hello", 3),
    Request("hello"),
    np.array(["hello", "world!"]),
    np.array([["hello", None], [3, "world"]], dtype=object),
]


@pytest.mark.parametrize("payload", CARRIERS, ids=lambda payload: type(payload).__name__)
def test_strings_are_found_wherever_they_are(payload):
    """The copy has the type and shape of the original, which stays as it was."""
    before = repr(payload)
    fresh = struck("truncation", payload, length=3)
    assert type(fresh) is type(payload)
    assert repr(payload) == before
    assert repr(fresh).replace("hel", "hello").replace("wor", "world").replace("U3", "U6").replace(
        "d'", "d!'"
    ) in (
        before,
        before.replace("world'", "world!'"),
    )


def test_text_columns_of_tables_are_struck():
    """Object and string columns of pandas, one by one, also under names that occur twice; numbers
    stay.
    """
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"text": ["hello", None], "n": [1, 2]}, index=[7, 9])
    twice = pandas.concat([table, table["text"].astype("string")], axis=1)
    fresh = struck("truncation", {"table": twice}, length=3)["table"]
    assert fresh.iloc[0].tolist() == ["hel", 1, "hel"]
    assert fresh.dtypes.tolist() == twice.dtypes.tolist()
    assert list(fresh.index) == [7, 9]
    assert twice.iloc[0].tolist() == ["hello", 1, "hello"]
    assert struck("truncation", table["text"], length=3).tolist()[0] == "hel"
    assert struck("truncation", table, length=3, fields="text")["text"].iloc[0] == "hel"


def test_fields_choose_the_strings():
    """By name at any depth, by dotted path, by position; identifiers are left alone unless they are
    named.
    """
    chat = {"messages": [{"role": "user", "content": "hello"}], "model": "large", "note": "hello"}
    assert struck("truncation", chat, length=1)["messages"] == [{"role": "user", "content": "h"}]
    assert struck("truncation", chat, length=1)["model"] == "large"
    assert struck("truncation", chat, length=1, fields="content") == {
        **chat,
        "messages": [{"role": "user", "content": "h"}],
    }
    assert struck("truncation", chat, length=1, fields="messages.0.role")["messages"][0] == {
        "role": "u",
        "content": "hello",
    }
    assert struck("truncation", ("hello", "world"), length=1, fields=1) == ("hello", "w")
    assert struck("truncation", ("hello", 3, "world"), length=1, fields=2) == ("hello", 3, "w")
    with pytest.raises(PayloadMismatch, match="truncation: found no text 'prompt' in dict"):
        struck("truncation", chat, fields="prompt")


@pytest.mark.parametrize(
    ("fault", "payload", "message"),
    [
        ("typos", " \n", "left all 1 strings in str as they were: they hold only white space"),
        ("typos", np.arange(3), r"found no text in ndarray\[3\]"),
        ("mojibake", ["ascii"], "they are ASCII, which only kind='replacement' changes"),
        ("truncation", {"a": ""}, "they are empty"),
        ("prompt_length", "x" * 100_000, "they are that long already"),
    ],
)
def test_text_that_would_stay_as_it_is_is_refused(fault, payload, message):
    """Never a silent nothing."""
    with pytest.raises(PayloadMismatch, match=message):
        struck(fault, payload)


HANDLER = """
    def answer(prompt, *, history=()):
        if not prompt.strip():
            return "Please ask something."
        if len(prompt) > {limit}:
            raise ValueError("prompt too long")
        return f"You said {{prompt[:20]}}"
"""
SERVED = """
    import app
    import pytest

    QUESTIONS = ["one", "two", "three"]

    @chaos.prompt_length(kind="empty", target="app:answer", side="arguments", at=1)
    def test_an_empty_prompt_gets_a_hint(mlchaos):
        load = mlchaos.serve(lambda text: app.answer(text)).drive(QUESTIONS)
        assert [reply.value for reply in load.replies] == ["You said one", "Please ask something.", "You said three"]

    @chaos.prompt_length(kind="long", length=5000, target="app:answer", side="arguments", at=1)
    def test_a_long_prompt_is_survived(mlchaos):
        load = mlchaos.serve(lambda text: app.answer(text)).drive(QUESTIONS)
        assert load.error_rate == 0
"""


@pytest.mark.parametrize(("limit", "passed"), [(10_000, 2), (1_000, 1)])
def test_a_served_handler_meets_extreme_prompts(example, limit, passed):
    """A handler that refuses long prompts by an error is found out."""
    project = example.with_file("app.py", HANDLER.format(limit=limit)).with_tests(SERVED)
    outcome = project.run(fresh=True, passed=passed, failed=2 - passed)
    assert passed == 2 or outcome.has("assert 0.333")


def test_arguments_and_results_of_a_method_are_struck(example):
    """By keyword and position; the object that the method belongs to is not, though it holds text."""
    example.with_file(
        "client.py",
        """
        import dataclasses

        @dataclasses.dataclass
        class Client:
            url: str = "http://localhost"

            def ask(self, prompt, system="be kind"):
                return f"{self.url} {system} {prompt}"
        """,
    ).with_tests(
        """
        from client import Client

        @chaos.truncation(keep=0, target="client:Client.ask", side="arguments", at=0)
        def test_all():
            assert Client().ask("hello", system="x") == "http://localhost  "

        @chaos.truncation(length=2, fields="system", target="client:Client.ask", side="arguments", at=0)
        def test_by_keyword():
            assert Client().ask("hello", system="shout") == "http://localhost sh hello"

        @chaos.truncation(length=2, fields=1, target="client:Client.ask", side="arguments", at=0)
        def test_by_position():
            assert Client().ask("hello", system="shout") == "http://localhost shout he"

        @chaos.truncation(length=4, target="client:Client.ask", at=1)
        def test_results():
            assert [Client().ask("hello"), Client().ask("hello")] == ["http://localhost be kind hello", "http"]
        """
    ).run(fresh=True, passed=4)


def test_an_argument_is_found_by_its_name_however_it_is_given(example):
    """By position too, also inside of it; and what is called model is left alone in both forms."""
    example.with_file(
        "app.py",
        """
        def answer(model, prompt, messages=()):
            return [model, prompt, *(message["content"] for message in messages)]

        async def answer_later(prompt, /):
            return prompt
        """,
    ).with_tests(
        """
        import asyncio
        import pytest
        from app import answer, answer_later

        @chaos.truncation(length=2, fields="prompt", target="app:answer", side="arguments", at=[0, 1])
        def test_by_name():
            assert answer("tiny", "hello") == ["tiny", "he"]
            assert answer("tiny", prompt="hello") == ["tiny", "he"]

        @chaos.truncation(length=2, fields="messages.0.content", target="app:answer", side="arguments", at=0)
        def test_inside():
            assert answer("tiny", "hello", [{"content": "one"}, {"content": "two"}]) == ["tiny", "hello", "on", "two"]

        @chaos.truncation(length=2, target="app:answer", side="arguments", at=[0, 1])
        def test_identifiers():
            assert answer("tiny", "hello") == answer(model="tiny", prompt="hello") == ["tiny", "he"]

        @chaos.truncation(length=2, fields="prompt", target="app:answer_later", side="arguments", at=0)
        def test_coroutine():
            assert asyncio.run(answer_later("hello")) == "he"

        @chaos.truncation(length=2, fields="promt", target="app:answer", side="arguments", at=0)
        def test_no_such():
            answer("tiny", "hello")
        """
    ).run(fresh=True, passed=4, failed=1).has("found no text 'promt'", "model, prompt, messages")


def test_a_list_of_strings_is_one_place():
    """Many strings are worked on together."""
    many = [f"text number {number}" for number in range(1000)]
    (place,) = strings.texts({"text": many})
    assert place.strings is many
    fresh = struck("typos", many, rate=0.5)
    assert len(fresh) == len(many)
    assert sum(map(str.__ne__, fresh, many)) > 990
