"""Reject phrases that readers stumble over.

``python docs/prose.py [PATH ...]`` names the lines. The session ``lint`` runs it.
Markdown is checked as text. In Python, docstrings, comments and string literals are; code is not.
"""

from __future__ import annotations

import ast
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
CHECKED = (
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "docs",
    "examples",
    "pytest_mlchaos",
    "tests",
    "benchmarks",
    "corpus",
    "conftest.py",
    "noxfile.py",
)
PHRASES = {
    r"\b(?:is|are) no [a-z]": "say 'is not a'",
    r"\bwhoever\b": "a program is not a person",
    r"\bnobody\b": "a program is not a person",
    r"\botherwise than\b": "say 'differs from'",
    r"\bheld against\b": "say 'compared with'",
    r"\bso often\b": "say 'at most N times'",
    r", say[,)]": "say 'for example'",
}
FIRST = re.compile(r"(?:What|Whether|Where|Who|Of|So|As)\b")


def main(paths: list[str]) -> int:
    """Print each finding; return how many there are, at most 1."""
    found = [
        line
        for path in _files(paths or CHECKED)
        for line in (_python(path) if path.suffix == ".py" else _markdown(path))
    ]
    print(*found, sep="\n")
    return min(len(found), 1)


def _files(paths: tuple[str, ...] | list[str]) -> Iterator[Path]:
    for path in (ROOT / name for name in paths):
        files = [path] if path.is_file() else sorted([*path.rglob("*.md"), *path.rglob("*.py")])
        yield from (file for file in files if file != Path(__file__))


def _markdown(path: Path) -> Iterator[str]:
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        yield from _phrases(path, number, line)


def _python(path: Path) -> Iterator[str]:
    source = path.read_text()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text and FIRST.match(text):
                yield f"{_shown(path)}:{getattr(node, 'lineno', 1)}: {text.splitlines()[0]!r}: begin with a verb in the imperative"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from _phrases(path, node.lineno, node.value)
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.COMMENT:
                yield from _phrases(path, token.start[0], token.string)


def _phrases(path: Path, number: int, text: str) -> Iterator[str]:
    for phrase, advice in PHRASES.items():
        for found in re.finditer(phrase, text, re.IGNORECASE):
            yield f"{_shown(path)}:{number + text[: found.start()].count(chr(10))}: {found[0]!r}: {advice}"


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
