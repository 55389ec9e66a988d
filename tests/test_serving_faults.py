"""Each fault of a service reveals an unsound app, and its sound twin passes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

SERVED = Path(__file__).parent / "served"


@pytest.mark.parametrize("topic", sorted(file.stem for file in SERVED.glob("pairs_*.py")))
def test_each_fault_reveals_its_unsound_app(example, topic):
    """With no visit given, and the twin passes."""
    source = (SERVED / f"{topic}.py").read_text()
    project = example.with_file(f"{topic}.py", source)
    outcome = project.run("-rA", "--mlchaos-max-trials=12", f"{topic}.py", interpreter=True)
    ended = re.findall(r"^(PASSED|FAILED|ERROR) (\S+)", outcome.text, re.MULTILINE)
    wrong = [
        (how, test) for how, test in ended if how != ("PASSED" if "[sound]" in test else "FAILED")
    ]
    assert not wrong, outcome.text
    assert len(ended) == len(re.findall(r"^@twins", source, re.MULTILINE)) * 2 + len(
        re.findall(r'ids=\["(?:un)?sound"\]\)$', source, re.MULTILINE)
    )
    assert "FaultError" not in outcome.text
