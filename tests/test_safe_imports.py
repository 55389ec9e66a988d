"""Libraries that a process imports in advance for those that are forked from it."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import textwrap

from pytest_mlchaos.ranks.rank import OF_RANKS, RankJob

MODULES = {
    "good": "",
    "inner": "import threading, time; threading.Thread(target=time.sleep, args=[60], daemon=True).start()",
    "outer": "import inner",
    "beside": "",
    "of_rank": "import os; os.environ.get('RANK', 0)",
    "setting": "import os; os.environ['SET'] = '1'",
    "failing": "1 / 0",
    "leaving": "import os; os._exit(3)",
    "pack/part": "",
    "pack/other": "",
    "pack/__init__": "import inner",
    "reading": "import os; os.getenv('LEVEL'); os.environ['HOME']",
    "last": "",
}
CODE = """
import json, sys
from pytest_mlchaos.processes.safe_imports import SafeImports
sys.path.insert(0, sys.argv[1])
names = json.loads(sys.argv[2])
safe = SafeImports({"HOME": "/home/me", "TEST": "now"}, ["RANK", "TEST"])
safe.run(names)
print(json.dumps([safe.refused, safe.reads, [name for name in names if name in sys.modules]]))
"""


def test_libraries_are_imported_in_advance_if_that_is_safe(tmp_path):
    """Libraries that start threads, use the variables of a rank, or end are left out, and no others."""
    for name, text in MODULES.items():
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
    names = [name.replace("/__init__", "").replace("/", ".") for name in MODULES]
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path), json.dumps(names)],
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    refused, reads, imported = json.loads(done.stdout)
    assert imported == ["good", "beside", "reading", "last"]
    assert {*refused} == {
        *("outer", "inner", "of_rank", "setting", "leaving", "pack", "pack.part", "pack.other"),
    }
    assert {"LEVEL": None, "HOME": "/home/me"}.items() <= reads.items()


def test_variables_of_ranks_are_those_that_they_get():
    """A variable that is missing in the list could be read in advance, without the rank's value."""
    job = RankJob.__new__(RankJob)
    given = {"start": type("Start", (), {"environment": {}}), "environment": {}, "attempt": 0}
    for name, value in {**given, "ranks": 2, "port": 1, "restarts": 0}.items():
        object.__setattr__(job, name, value)
    assert {*job.environment_of(0)} == {"OMP_NUM_THREADS", *OF_RANKS}


def test_library_that_two_worlds_imported_is_there_for_the_next(mlchaos):
    """A library that each rank imports by itself costs each world of a search its import."""
    world = mlchaos.world(ranks=1)
    runs = [world.run(import_late) for _ in range(3)]
    assert [run.ranks[0].value for run in runs] == [False, False, True]


def import_late():
    """Import a library that no other test needs. Return True if it was there before."""
    was_there = "mailbox" in sys.modules
    importlib.import_module("mailbox")
    return was_there
