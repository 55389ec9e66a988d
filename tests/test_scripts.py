"""``mlchaos.script``: a file as a subject, run as the command line would run it."""

from __future__ import annotations

import pytest

TRAIN = """
import argparse, json, os, pathlib, sys
from steps import STEPS

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--in-place", action="store_true")
    arguments = parser.parse_args()
    file = arguments.out / "state.json"
    state = json.loads(file.read_text()) if file.exists() else {"step": 0}
    while state["step"] < STEPS:
        state["step"] += 1
        if arguments.in_place:
            file.write_text(json.dumps(state))
        else:
            file.with_suffix(".tmp").write_text(json.dumps(state))
            os.replace(file.with_suffix(".tmp"), file)
    print(sys.argv, __name__, __file__, os.path.basename(sys.modules["__main__"].__file__))

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def project(example):
    """A project with that script, and a module beside it."""
    files = example.with_file("train.py", TRAIN).with_file("steps.py", "STEPS = 4")
    return files.with_tests


def test_it_runs_as_the_main_module_with_its_arguments(project, capsys):
    """``sys.argv``, ``__name__`` and imports are those of the command line; afterwards they are the
    test's own again.
    """
    project("""
        import sys

        def test_it(mlchaos, tmp_path, capsys):
            before = sys.argv[:], sys.path[:], sys.modules["__main__"]
            assert mlchaos.script("train.py", "--out", tmp_path)() is None
            out = capsys.readouterr().out
            assert "train.py', '--out', '" in out and "] __main__ " in out and out.endswith("train.py\\n")
            assert (sys.argv, sys.path, sys.modules["__main__"]) == before
            assert (tmp_path / "state.json").read_text() == '{"step": 4}'
    """).run(passed=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "isolation"),
    [
        ('"--out"', "in-process"),
        ('"--out", tmp_path', "process"),
        ('f"--out={tmp_path}"', "in-process"),
    ],
)
def test_its_crash_states_are_explored(project, given, isolation):
    """With the work directory behind its arguments, or among them; in this process and in fresh
    ones.
    """
    project(f"""
        def test_sound(mlchaos, tmp_path):
            mlchaos.explore_crashes(mlchaos.script("train.py", {given}), tmp_path, isolation={isolation!r}).assert_recovers()

        def test_in_place(mlchaos, tmp_path):
            script = mlchaos.script("train.py", "--in-place", {given})
            mlchaos.explore_crashes(script, tmp_path, isolation={isolation!r}).assert_recovers()
    """).run(passed=1, failed=1).has("JSONDecodeError", "state.json cut at byte 0", "train.py:")


def test_it_is_restarted_after_a_crash(project):
    """At a file operation; the next attempt finds what the first has left on disk."""
    project("""
        import pytest
        from pytest_mlchaos import chaos
        from pytest_mlchaos.errors import BadArgument

        @chaos.crash(site="storage.rename", at=2)
        def test_it(mlchaos, tmp_path):
            run = mlchaos.run(mlchaos.script("train.py", "--out", tmp_path))
            assert run.restarts == 1 and (tmp_path / "state.json").read_text() == '{"step": 4}'
            with pytest.raises(BadArgument, match="explore_crashes"):
                run.assert_recovered()
    """).run(passed=1)


def test_an_exit_code_is_an_error_and_0_is_none(example):
    """The exit code has the same meaning as for a shell."""
    example.with_file("leaves.py", "import sys; sys.exit(int(sys.argv[1]))").with_tests("""
        import pytest

        def test_it(mlchaos):
            assert mlchaos.run(mlchaos.script("leaves.py", 0)).restarts == 0
            with pytest.raises(SystemExit, match="3"):
                mlchaos.run(mlchaos.script("leaves.py", 3))
    """).run(passed=1)


def test_a_file_that_is_not_there_is_told(project):
    """With the one that may be meant."""
    project("""
        def test_it(mlchaos):
            mlchaos.script("trian.py")
    """).run(failed=1).has("the file 'trian.py' does not exist", "did you mean 'train.py'")


def test_it_is_found_beside_the_test_from_anywhere(project, tmp_path):
    """The current directory may be another one."""
    project("""
        def test_it(mlchaos, tmp_path, monkeypatch):
            monkeypatch.chdir(tmp_path)
            mlchaos.script("train.py", "--out", tmp_path)()
    """).run(passed=1)


def test_what_a_script_trains_is_judged(example):
    """Torch is loaded by the script itself; its model is compared, though nothing is returned."""
    pytest.importorskip("torch")
    example.with_file(
        "learn.py",
        """
import os, sys, torch
file = os.path.join(sys.argv[1], "c.pt")
torch.manual_seed(0)
model = torch.nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
step = 0
if os.path.exists(file):
    held = torch.load(file)
    model.load_state_dict(held["model"]); step = held["step"]
    if "opt" in held: optimizer.load_state_dict(held["opt"])
while step < 6:
    optimizer.zero_grad()
    model(torch.full((4, 3), float(step))).sum().backward()
    optimizer.step(); step += 1
    held = {"model": model.state_dict(), "step": step}
    if "--all" in sys.argv: held["opt"] = optimizer.state_dict()
    torch.save(held, file + ".tmp"); os.replace(file + ".tmp", file)
os.remove(file)
""",
    ).with_tests("""
        from pytest_mlchaos import chaos

        @chaos.crash(at=3)
        def test_run(mlchaos, tmp_path):
            mlchaos.run(mlchaos.script("learn.py", tmp_path, "--all")).assert_recovered()

        @chaos.crash(at=3)
        def test_forgets(mlchaos, tmp_path):
            mlchaos.run(mlchaos.script("learn.py", tmp_path)).assert_recovered()
    """).run(passed=1, failed=1, fresh=True).has("NotRecovered", "trained parameters")
