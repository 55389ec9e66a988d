"""A stranger adds a fault and a site in files of their own, as the documentation says, with public
names only.
"""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

import pytest

import pytest_mlchaos
import pytest_mlchaos.testing

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "extend.md").read_text()
FILES = dict(re.findall(r"^```python\n# (\S+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
PUBLIC = {
    "pytest_mlchaos": pytest_mlchaos.__all__,
    "pytest_mlchaos.testing": pytest_mlchaos.testing.__all__,
}


@pytest.mark.parametrize("name", FILES)
def test_file_of_the_page_imports_public_names_only(name):
    """From the package itself, and from its part for authors."""
    for node in ast.walk(ast.parse(FILES[name])):
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith("pytest_mlchaos") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module.startswith("pytest_mlchaos"):
            assert {alias.name for alias in node.names} <= set(PUBLIC[node.module])


def test_fault_has_at_most_ten_lines():
    """From the decorator to the end."""
    assert len(FILES["sensor_faults.py"].partition("@chaos.register")[2].strip().splitlines()) <= 10


@pytest.mark.slow
def test_stranger_adds_a_fault_and_a_site(example):
    """Both strike as declared, keep the promises, are listed, and leave nothing patched."""
    for name, body in FILES.items():
        example = example.with_file(name, body)
    outcome = example.run(fresh=True)
    assert set(outcome.outcomes) <= {"passed", "skipped"}, outcome.text
    assert outcome.outcomes["passed"] > 10


@pytest.mark.slow
def test_error_in_a_site_is_reported_with_its_line(example):
    """A mistake in ``arm`` fails the test that names the site, and only that test."""
    outcome = example.with_tests("""
        from pytest_mlchaos import site

        @site("broken.place", "A place. Payload: nothing.")
        def arm_place(controller, patches, key):
            patches.set(object(), "name", 1)

        @chaos.register
        class BrokenPlace(Fault):
            '''Something.'''
            site = "broken.place"

            def apply(self, visit):
                return 1

        @chaos.broken_place(at=0)
        def test_one():
            pass

        @chaos.call_failure(target="json:dumps", at=0)
        def test_two():
            import json
            try:
                json.dumps({})
            except RuntimeError:
                pass
        """).run(fresh=True, failed=1, passed=1)
    outcome.has("AttributeError", 'patches.set(object(), "name", 1)')


def test_fault_of_the_contributing_page_keeps_its_promises(example):
    """In a file of the package, the page's fault is in the catalogue, and its example strikes."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    fault = textwrap.dedent(
        re.search(r"^   ```text\n(.*?)^   ```", text, re.MULTILINE | re.DOTALL)[1]
    )
    case = re.search(r'`"constant_batch": (Case\(.*\))`', text)[1]
    assert "__all__" in fault
    example = example.with_file("constant.txt", fault).with_file(
        "test_it.py",
        f"""
        import importlib.machinery
        import importlib.util

        import numpy as np

        name = "pytest_mlchaos.faults.batches.constant"
        loader = importlib.machinery.SourceFileLoader(name, "constant.txt")
        module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
        import sys

        sys.modules[name] = module
        loader.exec_module(module)

        from pytest_mlchaos.core.faults import create
        from pytest_mlchaos.core.schedule import Schedule
        from pytest_mlchaos.reports.catalogue import layers, sections
        from pytest_mlchaos.testing import Case, conformance

        case = {case}
        parts = sections(module.ConstantBatch)
        test_promises = conformance(case, Case(Schedule.parse(parts["Example"]).faults[0], lambda: np.ones(3)))

        def test_catalogue():
            assert {{"summary", "Imitates", "Fidelity", "Source", "Example"}} <= parts.keys()
            assert module.ConstantBatch not in layers().get("Yours", ())
        """,
    )
    outcome = example.run("-k", "not elsewhere", fresh=True)
    assert set(outcome.outcomes) <= {"passed", "skipped", "deselected"}, outcome.text
