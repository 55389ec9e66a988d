"""Every code block of the documentation is executed, and what it shows is what happens. (needs torch)"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_mlchaos import faults
from pytest_mlchaos.core.faults import FAULTS
from pytest_mlchaos.reports.catalogue import markdown

ROOT = Path(__file__).parent.parent
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page, language):
    """The code blocks of a page in one language."""
    return [text for kind, text in FENCE.findall(page.read_text()) if kind == language]


def project(page):
    """The files that a page shows: each block's first line is its name."""
    files = {}
    for text in blocks(page, "python"):
        name, _, body = text.partition("\n")
        assert name.startswith("# ") and name.endswith(".py"), f"{page.name}: a block without a file name: {name!r}"  # noqa: PT018  # one claim
        files[name.removeprefix("# ")] = body
    return files


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_blocks_run(page, example):
    """All tests pass, but the README's first, which is there to fail."""
    files = project(page)
    if not files:
        assert page.name == "faults.md"
        return
    for name, text in files.items():
        example = example.with_file(name, text)
    count = sum(text.count("\ndef test_") for text in files.values())
    failing = 1 if page.name == "README.md" else 0
    example.run("--mlchaos-seed=0", fresh=True, failed=failing, passed=count - failing)


def test_the_output_that_the_readme_shows_is_real(example):
    """Line by line, figures included."""
    page = ROOT / "README.md"
    for name, text in project(page).items():
        example = example.with_file(name, text)
    command, *shown = next(text for text in blocks(page, "console") if text.startswith("$ pytest")).splitlines()
    outcome = example.run(*command.split()[2:], "test_train.py", fresh=True, failed=1)
    for line in shown:
        outcome.has(line.rstrip())


def test_the_fix_that_the_readme_names_works(example):
    """Clearing the gradients in front of the retry makes the test green."""
    files = project(ROOT / "README.md")
    retry = "            for half in x.chunk(2):"
    assert retry in files["train.py"]
    files["train.py"] = files["train.py"].replace(retry, f"            optimizer.zero_grad()\n{retry}")
    for name in ("train.py", "test_train.py"):
        example = example.with_file(name, files[name])
    example.run("--mlchaos-seed=0", fresh=True, passed=1)


def test_the_first_screen_of_the_readme_is_short():
    """One test of at most 12 lines."""
    assert len(project(ROOT / "README.md")["test_train.py"].strip().splitlines()) <= 12


def test_the_commands_of_the_readme_are_what_ci_runs():
    """The two set-up commands stand in it word by word."""
    text = (ROOT / "README.md").read_text()
    assert "python -m pip install nox && python -m nox -s demo\n" in text
    assert "python -m pip install nox && python -m nox -s tests\n" in text
    assert "python -m pip install nox && python -m nox -s tests\n" in (ROOT / ".ci" / "run").read_text()


def test_the_page_of_faults_is_current():
    """``python docs/make.py`` would change nothing."""
    faults.load()
    kept = dict(FAULTS)
    try:
        for name, cls in kept.items():
            if not cls.__module__.startswith("pytest_mlchaos"):
                del FAULTS[name]
        assert (ROOT / "docs" / "faults.md").read_text() == markdown()
    finally:
        FAULTS.update(kept)


def test_links_of_the_pages_lead_somewhere():
    """To files of the repository."""
    for page in [*PAGES, ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", ROOT / "examples" / "README.md"]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
