"""Storage as a user meets it: found bugs, journals, and what is said when a fault met nothing."""

from __future__ import annotations

import importlib.util

import pytest

from .example import entries_in

SAVERS = """
import json, os, pathlib

def in_place(path, value):
    with open(path, "w") as file:
        json.dump(value, file)

def atomic(path, value):
    temporary = path.with_suffix(".tmp")
    with open(temporary, "w") as file:
        json.dump(value, file)
    os.replace(temporary, path)

def appending(path, line):
    for attempt in range(5):
        try:
            with open(path, "ab", buffering=0) as file:
                file.write(line)
            return
        except OSError:
            continue

def careful(path, line):
    content = path.read_bytes() if path.exists() else b""
    for attempt in range(5):
        try:
            temporary = path.with_suffix(".tmp")
            temporary.write_bytes(content + line)
            os.replace(temporary, path)
            return
        except FileNotFoundError:
            return
        except OSError:
            continue

def count_to(ten, folder, save):
    path = folder / "state.json"
    done = json.loads(path.read_text()) if path.exists() else 0
    for number in range(done + 1, ten + 1):
        save(path, number)
    return number
"""


def test_a_saver_that_writes_in_place_is_found(example):
    """A crash at any storage operation: one between truncating and writing leaves an empty file;
    renaming has no such moment.
    """
    outcome = (
        example.with_file("savers.py", SAVERS)
        .with_tests(
            """
            import savers

            @chaos.settings(max_trials=15)
            @chaos.crash(site="storage")
            def test_in_place(mlchaos, tmp_path):
                assert mlchaos.run(savers.count_to, 4, tmp_path, savers.in_place).value == 4

            @chaos.settings(max_trials=15)
            @chaos.crash(site="storage")
            def test_atomic(mlchaos, tmp_path):
                mlchaos.run(savers.count_to, 4, tmp_path, savers.atomic).assert_recovered()
            """
        )
        .run(failed=1, passed=1)
    )
    outcome.has(
        "JSONDecodeError",
        "FAILED test_it.py::test_in_place",
        "struck: crash(site='storage', at=1) at storage 1",
    )
    assert outcome.reproduce == ["@chaos.crash(site='storage', at=1)"]


def test_a_retry_that_appends_is_found(example):
    """A write that took effect and failed: the retry appends the line a second time."""
    outcome = (
        example.with_file("savers.py", SAVERS)
        .with_tests(
            """
            import pytest, savers

            @chaos.settings(max_trials=20)
            @pytest.mark.parametrize("log", [savers.appending, savers.careful])
            @chaos.flaky_storage(op=chaos.one_of("write", "rename"), when=chaos.one_of("before", "after"), error="EIO")
            def test_it(tmp_path, log):
                for number in range(3):
                    log(tmp_path / "log", b"%d\\n" % number)
                assert (tmp_path / "log").read_bytes() == b"0\\n1\\n2\\n"
            """
        )
        .run("-v", failed=1, passed=1)
    )
    outcome.has("test_it[appending] FAILED")
    assert outcome.reproduce == ["@chaos.flaky_storage(at=0, when='after', op='write')"]


def test_a_pattern_that_matches_nothing_is_told_what_there_was(example):
    """The files, a few of them; and where there was none, which files count."""
    outcome = example.with_tests(
        """
        import pathlib

        @chaos.flaky_storage(path="*.ckpt", at=0)
        def test_fixed(tmp_path):
            (tmp_path / "model.pt").write_text("x")
            (tmp_path / "log.csv").write_text("x")

        @chaos.slow_storage(path="*.ckpt")
        def test_explored(tmp_path):
            (tmp_path / "model.pt").write_text("x")

        @chaos.truncated_read(at=0)
        def test_elsewhere():
            pathlib.Path(__file__).read_text()

        @chaos.flaky_storage(op="rename", at=3)
        def test_too_late(tmp_path):
            (tmp_path / "a").touch()
            (tmp_path / "a").rename(tmp_path / "b")
        """
    ).run(failed=4)
    outcome.has(
        "flaky_storage(at=0, path='*.ckpt') never struck: storage *.ckpt was never passed",
        "storage saw, among others: model.pt, log.csv",
        "slow_storage(path='*.ckpt') never struck: storage *.ckpt was never passed",
        "storage saw, among others: model.pt\n",
        "storage saw no file: it watches the files below tmp_path, and files elsewhere that path= "
        "matches",
        "flaky_storage(at=3, op='rename') never struck: storage.rename was passed 1 time (visits 0 "
        "to 0)",
    )


JOURNALED = """
    import json, os, tempfile

    def save(folder, number):
        handle, name = tempfile.mkstemp(dir=folder)
        with os.fdopen(handle, "w") as file:
            json.dump(number, file)
        os.replace(name, folder / "state.json")

    @chaos.flaky_storage
    @chaos.settings(seed=5, max_trials=10)
    def test_explored_and_with_a_name_of_more_than_thirty_letters_one(tmp_path):
        for number in range(3):
            try:
                save(tmp_path, number)
            except OSError:
                pass

    @chaos.flaky_storage(p=0.3, when="after")
    @chaos.settings(seed=5)
    def test_explored_and_with_a_name_of_more_than_thirty_letters_two(tmp_path):
        for number in range(10):
            try:
                save(tmp_path, number)
            except OSError:
                pass
"""


@pytest.mark.parametrize("arguments", [(), ("-n", "2")])
def test_the_same_schedule_gives_the_same_journal(example, arguments):
    """Twice, and in workers; names of temporary files included."""
    if arguments and importlib.util.find_spec("xdist") is None:
        pytest.skip("needs pytest-xdist")
    project = example.with_tests(JOURNALED)
    journals = []
    for options in ((), arguments):
        project.run("--mlchaos-journal=j.jsonl", *options, passed=2)
        journals.append(sorted((example.pytester.path / "j.jsonl").read_text().splitlines()))
    assert journals[0] == journals[1]
    strikes = entries_in(example.pytester.path / "j.jsonl", "strike")
    assert {entry["details"]["op"] for entry in strikes} == {"open", "write", "rename"}


def test_golden_runs_and_restarts_count_and_show_no_files_of_ours(example):
    """Directories are copied behind the subject's back."""
    example.with_file("savers.py", SAVERS).with_tests(
        """
        import savers

        @chaos.crash(site="storage.rename", at=[1, 3])
        def test_it(mlchaos, tmp_path):
            run = mlchaos.run(savers.count_to, 4, tmp_path, savers.atomic)
            before = mlchaos._controller.passed()
            run.assert_recovered()
            assert run.restarts == 2
            assert mlchaos._controller.passed() == before == {"storage.rename": 6}
            assert list(mlchaos._controller.names["storage"]) == ["state.tmp", "state.json"]
        """
    ).run(passed=1)


def test_a_client_of_ones_own_is_wrapped_by_the_fixture(example):
    """``mlchaos.filesystem``."""
    example.with_tests(
        """
        import pytest

        class Client:
            def cat(self, path):
                return b"0123456789"

        @chaos.truncated_read(keep=0.2, path="bucket/*", at=1)
        def test_it(mlchaos):
            client = mlchaos.filesystem(Client())
            assert [client.cat("bucket/a") for _ in range(3)] == [b"0123456789", b"01", b"0123456789"]
        """
    ).run(passed=1)


def test_files_of_pytest_and_the_plugin_are_left_alone(example):
    """Every operation fails, and the report is written as ever."""
    example.with_tests(
        """
        import logging, pytest, sys

        @chaos.flaky_storage(at=chaos.EVERY)
        @chaos.flaky_storage(at=chaos.EVERY, path="*")
        def test_it(tmp_path, capsys, caplog):
            with pytest.raises(OSError):
                open(tmp_path / "a", "w")
            print("printed")
            sys.stderr.write("written")
            logging.getLogger().warning("logged")
            import this
            assert "printed" in capsys.readouterr().out
            assert caplog.messages == ["logged"]
        """
    ).run("--mlchaos-journal=j.jsonl", "--junitxml=x.xml", passed=1)


def test_what_the_tool_does_with_files_is_no_visit(example):
    """Copies of directories, made, swapped and thrown away in the middle of a trial, are not the
    test's operations.
    """
    (
        example.with_tests(
            """
            import gc, os, pytest
            from pytest_mlchaos.core.faults import EVERY

            def subject(folder):
                (folder / "b").write_text("x")
                return 1

            def use(mlchaos, tmp_path):
                for _ in range(2):
                    (tmp_path / "a").touch()
                    run = mlchaos.run(subject, tmp_path)
                    run.assert_recovered(atol=0)
                    del run
                    gc.collect()

            @chaos.slow_storage(op="remove", delay=1, at=EVERY)
            def test_nothing_is_removed(mlchaos, tmp_path):
                use(mlchaos, tmp_path)

            @chaos.settings(allow_quiet=True)
            @chaos.flaky_storage(op="remove", at=0)
            def test_the_first_removal_is_the_tests_own(mlchaos, tmp_path):
                use(mlchaos, tmp_path)
                with pytest.raises(OSError):
                    os.remove(tmp_path / "a")
                assert mlchaos.journal[0].details["path"] == "a"
            """
        )
    ).run(passed=1, failed=1).has("never struck: storage.remove was never passed")
