"""Make the screenshots of the terminal, ``images/*.svg``: ``python -m docs.screenshots``.

Real sessions of pytest run on a pseudo-terminal (pexpect), pyte imitates its screen, and rich draws
that as SVG. The project is that of the README, with more epochs.
"""

from __future__ import annotations

import io
import itertools
import re
import sys
import tempfile
from pathlib import Path

import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

from tests.terminal import Terminal

HERE = Path(__file__).parent
IMAGES = HERE / "images"
COLUMNS = 110
TEST = """
from train import train


def test_any_moment(mlchaos, tmp_path):
    mlchaos.explore_crashes(train, tmp_path).assert_recovers(max_lost_steps=3)
"""
FIXES = (
    ("epochs):\n", "epochs):\n        torch.manual_seed(epoch)\n"),
    (
        ", checkpoint)\n",
        ', workdir / "last.tmp")\n        (workdir / "last.tmp").replace(checkpoint)\n',
    ),
)
"""The two changes that the README names."""
NO_FONT = re.compile(r"@font-face \{.*?\}", re.DOTALL)
"""rich refers to a font on a server. The page's own font does."""


def main() -> None:
    """Write the four images."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train = _readme_block("train.py").replace("range(done, 4)", "range(done, epochs)")
        broken = train.replace("(workdir)", "(workdir, epochs=20)", 1)
        fixed = broken
        for wrong, right in FIXES:
            assert wrong in fixed, wrong
            fixed = fixed.replace(wrong, right)
        (folder / "test_train.py").write_text(TEST)
        (folder / "pytest.ini").write_text(
            "[pytest]\naddopts = --no-header --tb=short -p no:cacheprovider\n"
        )
        for script, image in ((fixed, "passed"), (broken, "failed")):
            (folder / "train.py").write_text(script)
            terminal = _pytest(folder)
            terminal.end()
            _draw(terminal, folder, image)
        while not _interrupted(folder):
            pass


def _interrupted(folder: Path) -> bool:
    """Press Ctrl-C in a session, and return True if pytest raised no warning while it ended.

    pytest formats the arguments of all functions, and some of torch's warn then.
    """
    terminal = _pytest(folder)
    terminal.wait_for(r"states 1\d/\d+ \S+ \d+ bad \S+ ~\d:\d\d left\x1b\[\d+D")
    _draw(terminal, folder, "running")
    terminal.press_ctrl_c()
    terminal.end()
    if terminal.find("Warning"):
        return False
    _draw(terminal, folder, "interrupted")
    return True


def _readme_block(name: str) -> str:
    text = (HERE.parent / "README.md").read_text(encoding="utf-8")
    found = re.search(
        rf"^```python\n# {re.escape(name)}\n(.*?)^```", text, re.DOTALL | re.MULTILINE
    )
    assert found is not None, name
    return found[1]


def _pytest(folder: Path) -> Terminal:
    # Other plugins would change the output.
    environment = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "mlchaos"]
    return Terminal(command, str(folder), columns=COLUMNS, rows=60, **environment)


def _draw(terminal: Terminal, folder: Path, name: str) -> None:
    """Write the screen as an image."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text("$ pytest test_train.py", style="bold"))
    for row in range(max(row for row, line in enumerate(terminal.lines) if line) + 1):
        console.print(_without_paths(_line(terminal, row), folder))
    svg = console.export_svg(title="pytest-mlchaos", unique_id=name)
    (IMAGES / f"{name}.svg").write_text(NO_FONT.sub("", svg), encoding="utf-8")


def _line(terminal: Terminal, row: int) -> Text:
    characters = [terminal.screen.buffer[row][column] for column in range(COLUMNS)]
    line = Text()
    for style, group in itertools.groupby(characters, _style):
        line.append("".join(character.data for character in group), style)
    line.rstrip()
    return line


def _style(character: pyte.screens.Char) -> Style:
    return Style(
        color=_colour(character.fg),
        bgcolor=_colour(character.bg),
        bold=character.bold,
        reverse=character.reverse,
    )


def _colour(name: str) -> str | None:
    if name == "default":
        return None
    if re.fullmatch("[0-9a-f]{6}", name):
        return f"#{name}"
    # rich has different names for these.
    return name.replace("brown", "yellow").replace("bright", "bright_")


def _without_paths(line: Text, folder: Path) -> Text:
    """Cut the folders of this machine out of a line."""
    for pattern in (re.escape(f"{folder}/"), r"/\S+/(?:site-packages|python3\.\d+)/"):
        while found := re.search(pattern, line.plain):
            line = line[: found.start()] + line[found.end() :]
    assert not re.search(r"(?<![\w.])/\w+/", line.plain), line.plain
    return line


if __name__ == "__main__":
    main()
