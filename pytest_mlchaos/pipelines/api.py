"""``mlchaos.pipeline``: the right output, or an error.

1. ``runner.py`` calls the pipeline once under the test's faults, and keeps its value or error and
   its files.
2. The first assertion that needs it makes the golden run: the same call without faults, with the
   directories as they were.
3. ``verdicts.py`` compares value and files with those of the golden run. ``again()`` calls the
   pipeline once more, perhaps on changed input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..engine.controller import Controller
from .output_places import Place
from .runner import Pipeline
from .verdicts import PipelineRun

__all__ = ["call"]


def call(
    controller: Controller,
    pipeline: Callable[..., Any],
    args: tuple[Any, ...],
    scratch: Path,
    workdirs: Iterable[Path],
    outputs: Place | Iterable[Place] = (),
) -> PipelineRun:
    """Call a pipeline under the trial's faults.

    Args:
        controller: The trial's controller.
        pipeline: The function to call.
        args: Its arguments.
        scratch: The test's temporary directory.
        workdirs: Further directories that the pipeline may write.
        outputs: More places where it writes: paths, and URLs of fsspec or of SQLite databases.
    """
    calls = Pipeline(controller, pipeline, args, scratch, workdirs, outputs)
    return PipelineRun(calls.run(), calls, (None,))
