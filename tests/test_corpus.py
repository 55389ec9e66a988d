"""The corpus: its programs say what must be found in them, and the runner judges by that and by
nothing else.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CORPUS = Path(__file__).resolve().parent.parent / "corpus"


if not CORPUS.exists():
    pytest.skip("no corpus beside the tests", allow_module_level=True)
sys.path.insert(0, str(CORPUS))
try:
    from environments import Interpreter, group
    from layers import layered
    from program import BadProgram, Program, Requirement, chosen, read
    from verdict import Facts, differences, problems, unpaired
finally:
    sys.path.remove(str(CORPUS))
PROGRAMS = sorted(path for path in (CORPUS / "programs").iterdir() if path.is_dir())


def program(name="p", requires=("numpy",), sound=True, **rest):
    """A program that is nowhere on disk."""
    return Program(Path(name), tuple(map(Requirement.parse, requires)), "train", sound, **rest)


def outcome(verdict, component=None):
    """One outcome, as the runner writes it down."""
    return {
        "state": "x",
        "verdict": verdict,
        "error": None,
        "step": 3,
        "component": component,
        "detail": "",
    }


def facts(*outcomes, not_recovered=None):
    """A report with these outcomes."""
    return Facts(outcomes=outcomes, states=len(outcomes), not_recovered=not_recovered)


@pytest.mark.parametrize("folder", PROGRAMS, ids=lambda path: path.name)
def test_each_program_says_what_it_is(folder):
    """A comment in front of ``expected.toml`` tells why it is sound or not; all keys are known;
    what it imports is required.
    """
    found = read(folder)
    first = (folder / "expected.toml").read_text().splitlines()[:2]
    assert all(line.startswith("# ") for line in first)
    source = (folder / "subject.py").read_text()
    assert f"def {found.entry}(workdir" in source
    for module, package in {
        "torch": "torch",
        "xgboost": "xgboost",
        "sklearn": "scikit-learn",
        "jax": "jax",
        "h5py": "h5py",
    }.items():
        if f"import {module}\n" in source or f"from {module}" in source:
            assert found.needs(package)


def test_half_of_the_programs_are_sound():
    """False alarms are looked for as much as bugs are."""
    sound = sum(read(folder).sound for folder in PROGRAMS)
    assert 0.4 <= sound / len(PROGRAMS) <= 0.6


def test_a_sound_program_is_flagged_by_a_single_state():
    """Each other verdict than recovered is a false alarm."""
    assert not problems(program(), facts(outcome("recovered")))
    for verdict in ("diverged", "failed", "hung", "restarted"):
        assert (
            verdict
            in problems(
                program(), facts(outcome("recovered"), outcome(verdict), not_recovered="...")
            )[0]
        )


def test_a_sound_program_must_pass_assert_recovers_too():
    """All recovered, but assert_recovers raised: wrong."""
    assert problems(program(), facts(outcome("recovered"), not_recovered="lost 7 steps")) == [
        "lost 7 steps"
    ]


def test_an_unsound_program_needs_one_of_its_verdicts():
    """Other findings do not count, nor does a report that assert_recovers passes."""
    unsound = program(sound=False, find=("failed", "hung"))
    assert not problems(unsound, facts(outcome("recovered"), outcome("hung"), not_recovered="..."))
    assert problems(unsound, facts(outcome("diverged", "data order"), not_recovered="..."))
    assert problems(unsound, facts(outcome("hung"))) == ["assert_recovers() passes"]


def test_the_first_divergence_must_name_the_cause():
    """Not any later one."""
    unsound = program(sound=False, find=("diverged",), cause=("data order",))
    first, second = outcome("diverged", "data order"), outcome("diverged", "parameters")
    assert not problems(unsound, facts(outcome("recovered"), first, second, not_recovered="..."))
    assert problems(unsound, facts(second, first, not_recovered="...")) == [
        "the first divergence is parameters, not data order"
    ]


def test_lost_work_means_all_recover_but_not_within_the_bound():
    """A failure beside it is wrong, and so is a bound that is kept."""
    slow = program(sound=False, find=("lost work",), max_lost_steps=5)
    assert not problems(slow, facts(outcome("recovered"), not_recovered="lost 9 steps"))
    assert problems(slow, facts(outcome("recovered")))
    assert problems(slow, facts(outcome("failed"), not_recovered="..."))


def test_no_report_and_no_state_are_wrong():
    """Nothing explored is nothing proved."""
    assert problems(program(), Facts(error="GoldenRunFailed")) == ["GoldenRunFailed"]
    assert problems(program(), facts())


def explored(*verdicts, groups=(), **found):
    """A report whose states have these verdicts, and further facts of the last one."""
    outcomes = [outcome(verdict) | {"state": str(place)} for place, verdict in enumerate(verdicts)]
    outcomes[-1] |= found
    return Facts(outcomes=tuple(outcomes), states=len(verdicts), groups=groups)


def test_equal_reports_do_not_differ():
    """How a verdict was found does not matter."""
    mine = explored("failed", "recovered", groups=(("failed", "EOFError"),), follows="0")
    assert not differences(mine, explored("failed", "recovered", groups=mine.groups))


@pytest.mark.parametrize(
    ("mine", "says"),
    [
        (
            explored("recovered", "recovered", follows="0"),
            "1: recovered (not run, as 0), but failed",
        ),
        (explored("recovered", "recovered", ended_early=True), "1: recovered (ended early), but"),
        (dataclasses.replace(explored("recovered"), states=2), "1 states were not tried"),
        (
            explored("recovered", "failed", groups=(("failed", "EOFError"),)),
            "the causes are failed",
        ),
        (Facts(outcomes=explored("recovered", "failed").outcomes, not_recovered="..."), "raises"),
    ],
)
def test_each_difference_from_an_exhaustive_report_is_named(mine, says):
    """The verdict of a state, a state that is not there, a cause, and the assertion."""
    (line,) = differences(mine, explored("recovered", "failed"))
    assert says in line


def test_states_with_random_names_are_compared_in_order():
    """Equally many on both sides are pairs. Of others, nothing is known."""
    mine, theirs = (
        explored("recovered", "recovered", state="a"),
        explored("recovered", "failed", state="b"),
    )
    assert differences(mine, theirs) == ["a: recovered, but failed if all are run"]
    assert not unpaired(mine, theirs)
    assert unpaired(mine, explored("recovered")) == 1
    assert not differences(mine, explored("recovered"))


def test_states_are_counted_by_how_their_verdicts_were_found():
    """Run, skipped, run to check a skip, and ended early. A state that was not run did not end."""
    found = explored("recovered", "recovered", "failed", follows="0", ended_early=True)
    found.outcomes[0]["ended_early"] = True
    found.outcomes[1]["verified"] = True
    assert (found.run, found.skipped, found.verified, found.ended_early) == (2, 1, 1, 1)


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("sound = true\nfind = ['failed']", "nothing to find"),
        ("sound = false", "needs find"),
        ("sound = false\nfind = ['broken']", "broken"),
        ("sound = false\nfind = ['lost work']", "max_lost_steps"),
        ("sound = true\nsuond = true", "suond"),
        ("args = []", "lacks"),
    ],
)
def test_an_expectation_that_cannot_be_judged_by_is_refused(tmp_path, toml, says):
    """The message names the program and what is wrong."""
    (tmp_path / "expected.toml").write_text(f"requires = []\nentry = 'train'\n{toml}\n")
    with pytest.raises(BadProgram, match=says):
        read(tmp_path)


def test_current_pins_share_an_environment_and_older_ones_another():
    """Programs share an environment if their pins agree. Those without torch stay in one without
    it.
    """
    old = program("old", ("torch==2.13.0", "lib==1.9"))
    new = program("new", ("torch==2.13.0", "lib==1.10"))
    other = program("other", ("torch==2.13.0", "numpy"))
    light = program("light", ("lib==1.10",))
    found = {environment.name: environment for environment in group([old, new, other, light])}
    assert {
        name: [each.name for each in environment.programs] for name, environment in found.items()
    } == {
        "current": ["new", "other"],
        "current-no-torch": ["light"],
        "older-1": ["old"],
    }
    assert found["current"].requires == ("lib==1.10", "numpy", "torch==2.13.0")
    assert [environment.current for environment in found.values()] == [True, True, False]


def test_an_interpreter_suits_what_its_versions_meet():
    """A local version does not matter; another release does."""
    interpreter = Interpreter(
        Path("python"), {"torch": "2.13.0+cpu", "numpy": "2.4.6"}, has_plugin=True
    )
    assert interpreter.suits(program(requires=("torch==2.13.0", "numpy")))
    assert not interpreter.suits(program(requires=("numpy==1.26.0",)))
    assert not interpreter.suits(program(requires=("numpy", "h5py")))


def test_a_name_that_matches_nothing_is_refused():
    """A typo never passes as "nothing wrong"."""
    with pytest.raises(BadProgram, match="numpy-savz"):
        chosen([CORPUS / "programs"], ["numpy-savz"])


@pytest.mark.slow
def test_the_runner_tells_right_from_wrong(tmp_path):
    """A program that is unsound, and the same one called sound: OK and WRONG, and the exit code
    says so.
    """
    subject = (CORPUS / "programs" / "numpy-savez" / "subject.py").read_text()
    for name, expected in {
        "rightly": "sound = false\nfind = ['failed']",
        "wrongly": "sound = true",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "subject.py").write_text(subject)
        (tmp_path / name / "expected.toml").write_text(
            f"requires = ['numpy']\nentry = 'train'\nargs = [8]\n{expected}\n"
        )
    results = tmp_path / "results.json"
    done = subprocess.run(
        [
            sys.executable,
            CORPUS / "judge.py",
            "--python",
            sys.executable,
            "--json",
            results,
            tmp_path,
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    assert {
        each["program"]: bool(each["problems"]) for each in json.loads(results.read_text())
    } == {"rightly": False, "wrongly": True}
    assert "1 of 1 sound ones flagged" in done.stdout


@pytest.mark.slow
def test_the_runner_compares_with_explorations_of_all_states(tmp_path):
    """Both explorations are made, and the table says how many states were not run."""
    results = tmp_path / "results.json"
    program = CORPUS / "programs" / "exists-renamed"
    options = ["--against-exhaustive", "--python", sys.executable, "--json", results]
    done = subprocess.run(
        [sys.executable, CORPUS / "judge.py", *options, program], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = json.loads(results.read_text())
    skipped = sum(each["follows"] is not None for each in found["outcomes"])
    assert 0 < skipped < len(found["outcomes"])
    assert not any(each["follows"] for each in found["exhaustive"]["outcomes"])
    assert f"and {skipped} skipped" in done.stdout


@pytest.mark.skipif(os.name == "nt", reason="environments have their commands elsewhere")
def test_libraries_are_found_in_each_kind_of_layer_and_are_not_the_users(tmp_path):
    """A ``.pth`` file, ``PYTHONPATH``, the user's folder, and a folder beside the program; the
    program is the user's in all of them.
    """
    layer, job = tmp_path / "layer", tmp_path / "job"
    for path, text in {
        layer / "a_tool.py": "",
        layer / "tool-1.0.dist-info" / "METADATA": "Name: tool\nVersion: 1.0\n",
        layer / "tool-1.0.dist-info" / "RECORD": "a_tool.py,,\n",
        job / "subject.py": "def train(): pass\n",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    code = "import sys; sys.path.insert(0, sys.argv[1]); import a_tool, subject; from pytest_mlchaos.engine.user_code import *; "
    code += "set_project(Project((sys.argv[1],))); print(a_tool.__file__, is_users(a_tool.__file__), is_users(subject.__file__))"
    found = {}
    for environment in layered(tmp_path / "environments", layer, [job]):
        path = os.pathsep.join(
            [*filter(None, [environment.variables.get("PYTHONPATH")]), str(CORPUS.parent)]
        )
        variables = {**os.environ, **environment.variables, "PYTHONPATH": path}
        command = [environment.python, "-c", code, environment.programs[0]]
        said = subprocess.run(
            command, env=variables, check=True, capture_output=True, text=True
        ).stdout
        found[environment.name] = said.split()
    folder = tmp_path / "environments"
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    assert found == {
        "pth": [str(layer / "a_tool.py"), "False", "True"],
        "PYTHONPATH": [str(layer / "a_tool.py"), "False", "True"],
        "--system-site-packages": [
            str(folder / "user" / "lib" / version / "site-packages" / "a_tool.py"),
            "False",
            "True",
        ],
        "--target, job": [str(folder / "projects" / "job" / "lib" / "a_tool.py"), "False", "True"],
    }
