"""``python corpus/judge_serve.py [NAME ...]``: ask each service in ``corpus/serve`` if it survives its faults.

The test of each is in its ``expected.toml``. Faults are declared without ``at=``, and settings are the defaults.
An unsound service must fail by an error that ``expected.toml`` names. A sound one must pass.
Slow ones run with ``--slow``, or if they are named. The exit code is 1 if one is judged wrong.
"""

from __future__ import annotations

from environments import ROOT
from judge_twins import Verdict, arguments, judge, main, problem
from service import AREAS, chosen

__all__ = ["Verdict", "judge", "problem"]

if __name__ == "__main__":
    parser = arguments(__doc__, ROOT / "corpus" / "serve")
    parser.add_argument("--slow", action="store_true", help="slow ones, too")
    options = parser.parse_args()

    def wanted():
        found = chosen(options.folder, options.names)
        return [one for one in found if options.slow or options.names or not one.slow]

    raise SystemExit(main(options, wanted, AREAS))
