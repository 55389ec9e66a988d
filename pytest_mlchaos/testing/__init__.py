"""Test your own faults: strike one by hand, and check the promises that all faults make."""

from __future__ import annotations

from .conformance import PROMISES, Case, check_fault, conformance
from .striking import StrikeResult, strike

__all__ = ["PROMISES", "Case", "StrikeResult", "check_fault", "conformance", "strike"]
