"""Run a test file in this process, with pytest-mlchaos as the only plugin."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

__all__ = ["run_test_file"]


def run_test_file(
    folder: Path, module: str, *arguments: str, test: str = "", plugins: Sequence[object] = ()
) -> None:
    """Run the file ``module`` of a folder, or one test of it.

    Raises:
        RuntimeError: A test failed. The message is what pytest printed.
    """
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    settings = folder / "pytest.ini"
    settings.write_text("[pytest]\n")
    target = f"{folder / module}.py{f'::{test}' if test else ''}"
    quiet = ["-q", "-p", "mlchaos", "-p", "no:cacheprovider", "-c", str(settings)]
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = pytest.main([*quiet, *arguments, target], plugins=plugins)
    if code:
        raise RuntimeError(output.getvalue())
