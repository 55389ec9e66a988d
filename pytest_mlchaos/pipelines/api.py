"""``mlchaos.pipeline``: the right output, or an error.

1. ``runner.py`` calls the pipeline once under the test's faults, and keeps what it returned or raised and the files that it left.
2. The first judgement that needs it asks for the golden run: the same call, with the directories as they were, without faults.
3. ``verdicts.py`` compares value and files with those of the golden run; ``again()`` calls the pipeline once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..engine.controller import Controller
from .runner import Pipeline
from .verdicts import PipelineRun

__all__ = ["call"]


def call(
    controller: Controller, pipeline: Callable[..., Any], args: tuple[Any, ...], scratch: Path, workdirs: Iterable[Path]
) -> PipelineRun:
    """Call a pipeline under the trial's faults."""
    calls = Pipeline(controller, pipeline, args, scratch, workdirs)
    return PipelineRun(calls.run(), calls.golden, calls.again)
