"""Writes the generated pages: ``python docs/make.py``."""

from __future__ import annotations

from pathlib import Path

from pytest_mlchaos import faults
from pytest_mlchaos.reports.catalogue import markdown

if __name__ == "__main__":
    faults.load()
    (Path(__file__).parent / "faults.md").write_text(markdown(), encoding="utf-8")
