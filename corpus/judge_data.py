"""``python corpus/judge_data.py [NAME ...]``: ask each pipeline in ``corpus/data`` if it survives bad data or bad storage.

Each pipeline gets an ordinary test with one decorator and one assertion. All tests of an environment run in one pytest session.
An unsound pipeline must fail by its assertion, and the reported schedule must have a fault that its ``expected.toml`` names.
A sound one must pass. The exit code is 1 if one is judged wrong.
"""

from __future__ import annotations

from environments import ROOT
from judge_twins import Verdict, arguments, judge, main, problem
from pipeline import AREAS, chosen

__all__ = ["Verdict", "judge", "problem"]

if __name__ == "__main__":
    options = arguments(__doc__, ROOT / "corpus" / "data").parse_args()
    raise SystemExit(main(options, lambda: chosen(options.folder, options.names), AREAS))
