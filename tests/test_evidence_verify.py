"""``python -m pytest_mlchaos verify``: each change of a folder of evidence is found and named."""

from __future__ import annotations

import hashlib
import random
import shutil
import subprocess
import sys

import pytest

from pytest_mlchaos.__main__ import main
from pytest_mlchaos.reports import evidence
from pytest_mlchaos.reports.evidence.chain import CHAIN, HEAD, seal, sealed
from pytest_mlchaos.reports.evidence.verify import verify
from tests.session_logs import everything

KINDS = ("edit", "bit", "drop", "swap", "add", "double", "truncate", "remove file", "add file")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The evidence of a session with each kind of end."""
    monkeypatch.chdir(tmp_path)
    evidence.write(everything(), "evidence")
    return tmp_path / "evidence"


def mutate(folder, dice):
    """Change one thing, and return the name of the file."""
    path = dice.choice(sorted(folder.iterdir()))
    before = path.read_bytes()
    while True:
        kind = dice.choice(KINDS)
        if kind == "remove file":
            path.unlink()
            return path.name
        if kind == "add file":
            (folder / "more.txt").write_bytes(dice.randbytes(9))
            return "more.txt"
        after = mutated(before, kind, dice)
        if after != before:
            path.write_bytes(after)
            return path.name


def mutated(content, kind, dice):
    """Return content with one change. It may be equal, for example if equal lines are swapped."""
    lines = content.splitlines(keepends=True)
    place = dice.randrange(len(lines))
    byte = dice.randrange(len(content))
    if kind == "edit":
        lines[place] = lines[place].replace(b"passed", b"failed").replace(b"1", b"2", 1)
    elif kind == "bit":
        return (
            content[:byte] + bytes([content[byte] ^ 1 << dice.randrange(8)]) + content[byte + 1 :]
        )
    elif kind == "drop":
        del lines[place]
    elif kind == "swap":
        other = dice.randrange(len(lines))
        lines[place], lines[other] = lines[other], lines[place]
    elif kind == "add":
        lines.insert(place, b"{}\n")
    elif kind == "double":
        lines.insert(place, dice.choice(lines))
    elif kind == "truncate":
        return content[:byte]
    return b"".join(lines)


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_each_mutation_is_found_and_its_file_is_named(folder, tmp_path, count):
    """The journal, the chain, the head and each other file are mutated."""
    dice = random.Random(19)
    for _ in range(count):
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        name = mutate(copy, dice)
        found = verify(copy).problems
        assert found, name
        assert found[0].startswith(f"{name}: "), (name, found)
    assert not verify(folder).problems


def changed(path, change):
    """Change the lines of a file."""
    lines = path.read_bytes().splitlines(keepends=True)
    change(lines)
    path.write_bytes(b"".join(lines))


def edit(lines):
    """Change a line."""
    lines[4] = lines[4].rstrip(b"\n") + b" \n"


def move(lines):
    """Move a line."""
    lines.insert(1, lines.pop(4))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (edit, "line 5 was edited"),
        (move, "line 2 was moved: it was line 5"),
        (lambda lines: lines.pop(4), "line 5 is missing"),
        (lambda lines: lines.insert(4, b"{}\n"), "line 5 is new"),
        (lambda lines: lines.pop(), "is missing at the end: it was truncated"),
        (lambda lines: lines.clear(), "are missing at the end: it was truncated"),
    ],
)
def test_the_line_of_the_journal_is_named(folder, change, text):
    """One problem for one change."""
    changed(folder / "journal.jsonl", change)
    (problem,) = verify(folder).problems
    assert problem.startswith("journal.jsonl: ")
    assert problem.endswith(text)


@pytest.mark.parametrize("name", [CHAIN, HEAD, "statement.json", "report.md", "configuration.json"])
def test_other_files_are_named_with_their_line(folder, name):
    """The chain and the head, too: the two others of the three tell which one it is."""
    changed(folder / name, edit if name != CHAIN else lambda lines: lines.pop(4))
    (problem,) = verify(folder).problems
    assert problem in (f"{name}: line 5 was edited", f"{name}: line 5 is missing")


def test_files_that_were_added_replaced_or_removed_are_named(folder, tmp_path):
    """Also links and folders, which could have any content later."""
    (folder / "report.md").rename(tmp_path / "report.md")
    (folder / "report.md").symlink_to(tmp_path / "report.md")
    (folder / "inner").mkdir()
    (folder / ".hidden").write_text("")
    found = verify(folder).problems
    assert "inner: was added: it is a folder" in found
    assert "report.md: was added: it is a link" in found
    assert "report.md: the file is missing" in found
    assert ".hidden: the file was added" in found


def test_a_folder_that_was_sealed_again_differs_from_a_noted_head(folder):
    """The chain alone cannot show it: who can write to the folder can compute it again."""
    head = verify(folder).head
    changed(folder / "journal.jsonl", edit)
    seal(folder)
    assert not verify(folder).problems
    (problem,) = verify(folder, head).problems
    assert problem.endswith("the whole folder was sealed again")
    assert verify(folder, verify(folder).head[:12].upper()).problems == []


def test_the_links_are_those_of_the_documentation():
    """SHA-256 over the previous link and the line, so that a few lines of any language check it."""
    rows = sealed({"journal.jsonl": b"a\nb"}).rows
    start = hashlib.sha256(b"pytest-mlchaos evidence 1").hexdigest()
    first = hashlib.sha256(f"{start}journal.jsonl 2\n".encode()).hexdigest()
    second = hashlib.sha256(f"{first}a\n".encode()).hexdigest()
    third = hashlib.sha256(f"{second}b".encode()).hexdigest()
    assert [row.link for row in rows] == [first, second, third]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_text("x"), "is not a folder"),
        (lambda path: path.mkdir(), "is not a folder of evidence: it is empty"),
        (
            lambda path: (path.mkdir(), (path / "head.json").write_text("{}")),
            "is not a folder of evidence: its chain.txt and head.json are missing or foreign",
        ),
    ],
)
def test_other_folders_get_one_clear_line(tmp_path, capsys, make, text):
    """And the exit code of a wrong command."""
    path = tmp_path / "x"
    make(path)
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(path)])
    assert ended.value.code == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert text in told[0]


def test_a_head_that_is_none_is_refused(folder, capsys):
    """A short one would fit to many folders."""
    with pytest.raises(SystemExit):
        main(["verify", str(folder), "--head", "ab"])
    assert "--head must be at least 12 hexadecimal digits, got 'ab'" in capsys.readouterr().err


def test_the_command_names_the_problems_or_the_head(folder, capsys):
    """The exit code is 1 if anything was changed."""
    assert main(["verify", str(folder)]) == 0
    assert f"are as they were sealed. Head: {verify(folder).head}" in capsys.readouterr().out
    changed(folder / "journal.jsonl", edit)
    assert main(["verify", str(folder)]) == 1
    assert capsys.readouterr().out == f"{folder}: journal.jsonl: line 5 was edited\n"


def test_the_command_loads_no_heavy_module(folder):
    """An auditor's machine has no torch, and verify takes less than a second."""
    code = (
        "import sys; from pytest_mlchaos.__main__ import main; main(['verify', 'evidence']); "
        "print(sorted({'torch', 'numpy', 'hypothesis', 'pandas'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder.parent, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
