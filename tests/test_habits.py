"""Test what the project promises about itself: its metadata, its release, its templates."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import pytest_mlchaos

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_only_systems_that_are_tried_are_claimed():
    """Not every operating system."""
    assert [name for name in PROJECT["classifiers"] if name.startswith("Operating System")] == [
        "Operating System :: POSIX :: Linux"
    ]


def test_each_python_that_is_claimed_is_in_the_matrix():
    """And none of them as an experiment."""
    claimed = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))
    matrix = re.search(
        r"python: (\[.*\])", (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    )[1]
    assert re.findall(r"3\.\d+", matrix) == claimed


def test_changelog_begins_with_this_version():
    """With its date, or as not yet released."""
    heading = re.search(
        r"^## (\S+) \((unreleased|\d{4}-\d\d-\d\d)\)$",
        (ROOT / "CHANGELOG.md").read_text(),
        re.MULTILINE,
    )
    assert heading[1] == pytest_mlchaos.__version__


def test_the_addresses_of_the_project_agree():
    """Reports link to the documentation that the package names."""
    from pytest_mlchaos.core.help import DOCS

    assert DOCS.startswith(PROJECT["urls"]["Documentation"])


@pytest.mark.parametrize(
    "path",
    sorted([*ROOT.glob(".github/**/*.yml"), *ROOT.glob(".*.yaml")]),
    ids=lambda path: path.name,
)
def test_configuration_files_can_be_read(path):
    """A mistake in one shows up only after a push."""
    yaml = pytest.importorskip("yaml")
    assert yaml.safe_load(path.read_text())


def test_each_program_that_the_page_of_findings_names_exists():
    """And the page names the release that the program is pinned to."""
    page = (ROOT / "docs" / "found.md").read_text()
    for section in page.split("\n## ")[1:]:
        folders = [
            ROOT / "corpus" / "programs" / name
            for name in re.findall(r"\[`corpus/programs/([^`]+)`\]", section)
        ]
        pins = " ".join((folder / "expected.toml").read_text() for folder in folders)
        for release in re.findall(
            r" (\d+\.\d+\.\d+)", section.partition("Shown on")[2].partition("\n")[0]
        ):
            assert f"=={release}" in pins
