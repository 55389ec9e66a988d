"""Reports link to the page of failures, and the page has a section for each error."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from pytest_mlchaos import errors
from pytest_mlchaos.core.help import DOCS, add_help, help_line

PAGE = (Path(__file__).parent.parent / "docs" / "failures.md").read_text()
ERRORS = [
    error
    for _, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, BaseException)
]
LINK = re.compile(rf"help: {re.escape(DOCS)}/failures/#(\S+)")


def sections():
    """The titles of the page's sections."""
    return re.findall(r"^### (.+)$", PAGE, re.MULTILINE)


def anchors():
    """The anchors of the page's headings, as GitHub and MkDocs make them."""
    return {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
    }


def test_each_public_error_has_a_section_and_each_section_an_error():
    """A class that is added without one, or renamed, fails here."""
    assert sorted(title for title in sections() if " " not in title) == sorted(
        error.__name__ for error in ERRORS
    )


@pytest.mark.parametrize(
    "error", [error for error in ERRORS if issubclass(error, errors.MlchaosError)]
)
def test_link_of_an_error_has_an_anchor_on_the_page(error):
    """The line of a report leads to a section."""
    made = error("a", "b", None) if issubclass(error, errors.MissingExtra) else error("a")
    assert LINK.search(help_line(made))[1] in anchors()


def test_link_of_a_subclass_leads_to_the_public_error():
    """A class of the user's own has no section."""

    class Stricter(errors.NotRecovered):
        pass

    error = Stricter("no")
    add_help(error)
    add_help(error)
    assert error.__notes__ == [help_line(errors.NotRecovered("no"))]


def test_links_inside_the_page_have_anchors():
    """From one section to another."""
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= anchors()


def test_failing_test_shows_the_link_and_other_errors_do_not(example):
    """It comes after the error's own lines, once; and for an error in a fixture, too."""
    outcome = example.with_tests("""
        import pytest

        @chaos.crash(at=0)
        def test_crash():
            visit("train.step")

        @chaos.call_failure(target="json:dumps", at=0)
        def test_user():
            import json
            json.dumps({})

        def half_saved(folder):
            if (folder / "state").exists():
                raise ValueError("half a state")
            (folder / "state").touch()
            visit("train.step")

        @chaos.crash(at=0)
        def test_restart(mlchaos, tmp_path):
            mlchaos.run(half_saved, tmp_path).assert_recovered()

        @pytest.fixture
        def broken(mlchaos):
            mlchaos.clock

        def test_fixture(broken):
            pass
        """).run("-rN")
    assert LINK.findall(outcome.text) == [
        "mlchaoserror",
        "crashnotrestarted",
        "an-error-of-your-own-code",
    ]
    assert "an-error-of-your-own-code" in anchors()
    assert "help" not in outcome.text.partition("test_user ___")[2].partition("test_restart ___")[0]
