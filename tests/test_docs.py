"""Every code block of the documentation is executed, and what it shows is what happens. (needs
torch)
"""

from __future__ import annotations

import contextlib
import dataclasses
import html
import re
import runpy
import shlex
from pathlib import Path

import pytest

import pytest_mlchaos
from pytest_mlchaos import faults
from pytest_mlchaos.core.faults import FAULTS
from pytest_mlchaos.reports.catalogue import arguments, own_parameters
from tests.example import Outcome

ROOT = Path(__file__).parent.parent
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
GENERATED = ("faults.md", "settings.md", "journal.md")


def blocks(page):
    """The code blocks of a page, in order: what they are in, and their text."""
    return FENCE.findall(page.read_text())


def named(page, text):
    """A python block's file name, which is its first line, and the rest."""
    name, _, body = text.partition("\n")
    assert re.fullmatch(r"# \S+\.py", name), f"{page.name}: a block without a file name: {name!r}"
    return name.removeprefix("# "), body


def project(page):
    """The files that a page shows; one that is shown again is a newer version."""
    return dict(named(page, text) for kind, text in blocks(page) if kind == "python")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_blocks_run_and_the_output_shown_is_real(page, example):
    """From the top: files are written as they come, each ``$ pytest`` is run and gives the lines
    that are shown.

    Integers are exact, and floats are within a relative tolerance. Test files that no command runs
    pass.
    """
    unseen = set()
    for kind, text in blocks(page):
        if kind == "python":
            name, body = named(page, text)
            example = example.with_file(name, body)
            unseen |= {name} if "\ndef test_" in body else set()
        elif text.startswith("$ pytest"):
            command, *shown = text.splitlines()
            arguments = shlex.split(command)[2:]
            outcome = example.run(*arguments, fresh=True)
            for line in shown:
                for part in line.split(" ... "):
                    outcome.shows(part.strip())
            unseen -= {argument.partition("::")[0] for argument in arguments}
    if unseen:
        outcome = example.run(*sorted(unseen), "--mlchaos-seed=0", fresh=True)
        # A page may show a test that needs a program, and is skipped without it
        assert set(outcome.outcomes) - {"skipped"} == {"passed"}, outcome.text


@pytest.mark.parametrize(
    ("line", "same"),
    [
        ("differs by 0.000484; 30 of 32 entries differ", True),
        ("differs by 0.000487; 30 of 32 entries differ", True),
        ("differs by 4.84e-4; 30 of 32 entries differ", True),
        ("differs by 0.000484; 31 of 32 entries differ", False),
        ("differs by 0.000497; 30 of 32 entries differ", False),
        ("differs by -0.000484; 30 of 32 entries differ", False),
        ("by at most 0.50", True),
        ("by at most 1.0 (float32[8, 4]), with torch 2.13.0 (rtol=1e-4)", True),
        ("by at most 0.99 (float32[8, 4]), with torch 2.13.0 (rtol=1e-4)", False),
        ("by at most 1.0 (float32[8, 5]), with torch 2.13.0 (rtol=1e-4)", False),
        ("by at most 1.0 (float32[8, 4]), with torch 2.13.1 (rtol=1e-4)", False),
    ],
)
def test_numbers_in_shown_output_are_compared_with_a_tolerance(line, same):
    """Floats within a hundredth; counts, shapes, versions and words exactly."""
    text = (
        "differs by 0.000484231; 30 of 32 entries differ\nby at most 0.4999\n"
        "by at most 1.00312 (float32[8, 4]), with torch 2.13.0 (rtol=1e-4)\n"
    )
    with contextlib.nullcontext() if same else pytest.raises(AssertionError, match="is not in"):
        assert Outcome({}, text, 0).shows(line)


CRASHES = (
    (
        "    for epoch in range(done, 4):\n",
        "    for epoch in range(done, 4):\n        torch.manual_seed(epoch)\n",
    ),
    (
        '"epochs": epoch + 1}, checkpoint)\n',
        '"epochs": epoch + 1}, workdir / "last.tmp")\n        (workdir / '
        '"last.tmp").replace(checkpoint)\n',
    ),
)
RETRY = (
    (
        "            for half in x.chunk(2):",
        "            optimizer.zero_grad()\n            for half in x.chunk(2):",
    ),
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "test", "fixes"),
    [("train", "test_train.py", CRASHES), ("test_retry", "test_retry.py", RETRY)],
)
def test_the_fixes_that_the_readme_names_work(example, module, test, fixes):
    """A checkpoint that is renamed, and an order by epoch; gradients that are cleared in front of
    the retry: the test is green.
    """
    files = project(ROOT / "README.md")
    text = files[f"{module}.py"]
    for wrong, right in fixes:
        assert wrong in text
        text = text.replace(wrong, right)
    for name in {f"{module}.py", test}:
        example = example.with_file(name, text if name == f"{module}.py" else files[name])
    example.run("--mlchaos-seed=0", fresh=True, passed=1)


def test_the_first_screen_of_the_readme_is_short():
    """One test of at most 12 lines."""
    assert len(project(ROOT / "README.md")["test_train.py"].strip().splitlines()) <= 12


def test_the_commands_of_the_readme_are_what_ci_runs():
    """The two set-up commands stand in it word by word."""
    text = (ROOT / "README.md").read_text()
    assert "python -m pip install nox && python -m nox -s demo\n" in text
    assert "python -m pip install nox && python -m nox -s tests\n" in text
    assert (
        "python -m pip install nox && python -m nox -s tests\n"
        in (ROOT / ".ci" / "run").read_text()
    )


def test_the_generated_pages_are_current():
    """``python docs/make.py`` would change nothing."""
    pages = runpy.run_path(str(ROOT / "docs" / "make.py"))["pages"]
    faults.load()
    kept = dict(FAULTS)
    try:
        for name, cls in kept.items():
            if not cls.__module__.startswith("pytest_mlchaos"):
                del FAULTS[name]
        assert {name: (ROOT / "docs" / name).read_text() for name in GENERATED} == pages()
    finally:
        FAULTS.update(kept)


def test_every_parameter_of_every_fault_is_explained():
    """One entry for each parameter, by its name, and none for what is not a parameter."""
    faults.load()
    for name, cls in FAULTS.items():
        if cls.__module__.startswith("pytest_mlchaos"):
            assert (
                set(own_parameters(cls))
                <= set(arguments(cls))
                <= {field.name for field in dataclasses.fields(cls)}
            ), name


def test_the_api_page_has_every_public_name():
    """Each name that the package exports has an entry, which mkdocstrings fills from its docstring."""
    entries = set(
        re.findall(
            r"^::: pytest_mlchaos\.(\w+)$",
            (ROOT / "docs" / "reference.md").read_text(),
            re.MULTILINE,
        )
    )
    assert set(pytest_mlchaos.__all__) - {"__version__", "MlchaosError"} == entries - {"errors"}


@pytest.mark.parametrize("name", ["running", "passed", "failed", "interrupted"])
def test_screenshots_show_nothing_of_the_machine(name):
    """No paths, and no font from a server. They come from ``python -m docs.screenshots``."""
    image = ROOT / "docs" / "images" / f"{name}.svg"
    shown = [html.unescape(text) for text in re.findall(r">([^<>]+)</text>", image.read_text())]
    assert any("test_any_moment" in text for text in shown)
    assert not [text for text in shown if re.search(r"(?<![\w.:/])/\w+/", text)]
    assert "@font-face" not in image.read_text()
    assert f"images/{name}.svg" in (ROOT / "docs" / "howto" / "watch.md").read_text()


def test_links_of_the_pages_lead_somewhere():
    """To files of the repository."""
    for page in [
        *PAGES,
        ROOT / "ARCHITECTURE.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "examples" / "README.md",
    ]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
