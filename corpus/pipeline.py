"""A pipeline of the corpus: a folder with ``subject.py`` and ``expected.toml``, and its twin."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import twins
from program import BadProgram
from twins import Twin

__all__ = ["AREAS", "Pipeline", "chosen", "read"]

AREAS = ("damaged files", "tables in files", "storage", "network", "records", "time and streams")
DECORATORS = ("bad_data", "bad_storage")
NEEDED = {"requires", "area", "decorator", "sound", "twin"}
KEYS = NEEDED | {"entry", "keywords", "assertion", "again", "changed", "proxy", "find"}
NO_FAULT = "no fault"
"""``find`` of a pipeline that fails when its input changes, in the trial without faults."""

TEST = """
import types
import pytest
from pytest_mlchaos import chaos
import {module} as subject

@pytest.fixture
def workdir(tmp_path):
    made = subject.prepare(tmp_path)
    if isinstance(made, types.GeneratorType):
        next(made)
    yield tmp_path
    if isinstance(made, types.GeneratorType):
        next(made, None)

@chaos.{decorator}({keywords})
def test_pipeline(mlchaos, workdir):
{first}    run = mlchaos.pipeline(subject.{entry}, workdir)
{judgements}
"""


@dataclasses.dataclass(frozen=True)
class Pipeline(Twin):
    """A pipeline to run under one composite fault, and the verdict that it must get."""

    decorator: str
    entry: str = "pipeline"
    keywords: tuple[tuple[str, str], ...] = ()
    """The arguments of the decorator. ``subject:`` in a value stands for the program's module."""
    assertion: str = "assert_same_output()"
    again: bool = False
    """Judge the next call, too."""
    proxy: bool = False
    """Put a proxy in front of the server at the program's ``URL``."""
    changed: str = ""
    """The function of the program that changes its input before the next call."""
    find: tuple[str, ...] = ()
    """The faults of which the reported schedule must have one."""

    def test(self) -> str:
        """Return the source of its test."""
        keywords = ", ".join(
            f"{name}={value.replace('subject:', f'{self.module}:')!r}"
            if isinstance(value, str)
            else f"{name}={value!r}"
            for name, value in self.keywords
        )
        judgements = [f"run.{self.assertion}"] if not self.changed else []
        if self.changed:
            changed = f"changed=lambda: subject.{self.changed}(workdir)"
            judgements.append(f"run.again({changed}).{self.assertion}")
        elif self.again:
            judgements.append(f"run.again().{self.assertion}")
        return TEST.format(
            module=self.module,
            decorator=self.decorator,
            keywords=keywords,
            entry=self.entry,
            first="    subject.URL = mlchaos.proxy(subject.URL)\n" if self.proxy else "",
            judgements="\n".join(f"    {line}" for line in judgements),
        )

    def problem_of(self, error: str, faults: Sequence[str]) -> str:
        """Return in words why the reported schedule is not the expected one."""
        if set(faults or [NO_FAULT]) & set(self.find):
            return ""
        return f"the schedule has {', '.join(faults) or 'no fault'}, none of {', '.join(self.find)}"


def read(folder: Path) -> Pipeline:
    """Return the pipeline in a folder. Raise ``BadProgram`` if it cannot be judged."""
    expected = twins.read_expected(folder, NEEDED, KEYS)
    pipeline = Pipeline(
        folder=folder.resolve(),
        keywords=tuple(sorted(expected.pop("keywords", {}).items())),
        find=tuple(expected.pop("find", ())),
        **expected,
    )
    _check(pipeline)
    return pipeline


def _check(pipeline: Pipeline) -> None:
    for key, known in (("area", AREAS), ("decorator", DECORATORS)):
        if getattr(pipeline, key) not in known:
            raise BadProgram(
                f"{pipeline.name}: {key} must be one of {', '.join(known)}, "
                f"got {getattr(pipeline, key)!r}"
            )
    if pipeline.sound == bool(pipeline.find):
        raise BadProgram(
            f"{pipeline.name}: an unsound pipeline needs find=[...], a sound one must not have it"
        )


def chosen(folder: Path, names: Sequence[str] = ()) -> list[Pipeline]:
    """Return the pipelines in a folder whose names match one of the patterns; all if none."""
    return twins.chosen(folder, names, read, "pipeline")
