"""Damaged files in tests as a user writes them."""

from __future__ import annotations

import pytest

TESTS = """
    import csv
    import json

    import pytest
    from pytest_mlchaos import chaos


    def put(folder, count=3):
        (folder / "in").mkdir()
        for number in range(count):
            lines = ["x", *(str(number + row) for row in range(10))]
            (folder / "in" / f"{number}.csv").write_text("\\n".join(lines) + "\\n")
        return folder


    def add(folder, names=("0.csv", "1.csv", "2.csv")):
        total = 0
        for name in names:
            with (folder / "in" / name).open() as file:
                total += sum(int(row["x"]) for row in csv.DictReader(file))
        return total


    @chaos.settings(max_trials=3)
    @chaos.damaged_file(kind="cut", path="in/*.csv")
    def test_cut(mlchaos, tmp_path):
        mlchaos.pipeline(add, put(tmp_path)).assert_same_output()


    @chaos.damaged_file(at=0, path="in/*.csv", spot=0)
    def test_body(tmp_path):
        put(tmp_path)
        assert add(tmp_path) == 165


    @chaos.damaged_file(at=2, kind="empty")
    def test_unread(mlchaos, tmp_path):
        mlchaos.pipeline(add, put(tmp_path), ("0.csv", "1.csv")).assert_same_output()


    @chaos.damaged_file(path="*.parquet")
    def test_pattern(mlchaos, tmp_path):
        mlchaos.pipeline(add, put(tmp_path)).assert_same_output()


    def cached(folder):
        cache = folder / "cache.json"
        if not cache.exists():
            cache.write_text(json.dumps(list(range(900))))
        return len(json.loads(cache.read_text()))


    @chaos.settings(max_trials=5)
    @chaos.damaged_file(path="cache.json", kind="cut")
    def test_cache(mlchaos, tmp_path):
        mlchaos.pipeline(cached, tmp_path)
        mlchaos.pipeline(cached, tmp_path).assert_same_output()


    @pytest.mark.parametrize("isolation", ["in-process", "process"])
    @chaos.damaged_file(path="in/1.csv", kind="missing", at=0)
    def test_run(mlchaos, tmp_path, isolation):
        run = mlchaos.run(add, put(tmp_path), isolation=isolation)
        assert run.value == 165
        assert len(run.attempts) == 2


    @chaos.damaged_file(path="in/1.csv", kind="late", delay="1m")
    def test_late(mlchaos, tmp_path):
        import time

        def wait(folder):
            for _ in range(9):
                if (folder / "in" / "1.csv").exists():
                    return add(folder)
                time.sleep(10)
            raise TimeoutError

        mlchaos.pipeline(wait, put(tmp_path)).assert_same_output()
"""


@pytest.mark.slow
def test_damaged_files_are_found_where_they_are_read(example):
    """The cut file is named with its place.

    The caches and waits are sound, and a run that raised starts again on the originals.
    """
    outcome = example.with_file("test_them.py", TESTS).run("--tb=short")
    assert outcome.outcomes == {"failed": 4, "passed": 4}, outcome.text
    outcome.has(
        "path=in/0.csv, kind=cut, offset=12, size=22, place=after record 5 of 10",
        "@chaos.damaged_file(at=0, path='in/*.csv', spot=0)",
        "NeverStruck: damaged_file(at=2, kind='empty') never struck",
        "no file that matches was opened for reading. These were, among others: in/0.csv, in/1.csv",
        "NeverStruck: damaged_file(path='*.parquet') never struck",
    )
    replayed = example.with_file("test_them.py", TESTS).run(
        "test_them.py::test_cut",
        "--mlchaos-replay",
        "damaged_file(at=0, path='in/*.csv', spot=0)",
    )
    replayed.has("SilentlyDifferent", "place=after record 5 of 10")
