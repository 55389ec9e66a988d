"""``python corpus/layers.py [PROGRAM ...]``: judge programs where their libraries are in a place other than the interpreter's own folder.

The places: a ``.pth`` layer, ``PYTHONPATH``, the user's folder seen by ``--system-site-packages``, and ``pip install --target lib`` beside
the program. All four share one set of files, by hard links. The exit code is 1 if a program is judged wrong in one of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

from environments import ROOT, WITHOUT_ITS_DEPENDENCIES
from program import Program, read

PROGRAMS = ("parquet-shards", "parquet-shards-in-place", "pl-weights-only")
FOLDER = ROOT / ".nox" / "corpus-layers"
OF_THE_PLUGIN = ("pytest", "hypothesis", "numpy", "cloudpickle", "psutil")


@dataclasses.dataclass(frozen=True)
class Layered:
    """An environment: its Python, the variables that show it its libraries, and where its programs are."""

    name: str
    python: Path
    variables: dict[str, str]
    programs: tuple[Path, ...]


def layered(folder: Path, layer: Path, programs: Sequence[Path]) -> Iterator[Layered]:
    """Make the environments below ``folder``, with the libraries in ``layer``."""
    yield Layered("pth", _with_pth(folder / "pth", layer), {}, tuple(programs))
    yield Layered(
        "PYTHONPATH", _venv(folder / "pythonpath"), {"PYTHONPATH": str(layer)}, tuple(programs)
    )
    user = folder / "user"
    _linked(layer, Path(sysconfig.get_path("purelib", f"{os.name}_user", {"userbase": str(user)})))
    python = _venv(folder / "system", "--system-site-packages")
    yield Layered("--system-site-packages", python, {"PYTHONUSERBASE": str(user)}, tuple(programs))
    python = _venv(folder / "target")
    for program in programs:
        place = folder / "projects" / program.name
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(program, place)
        _linked(layer, place / "lib")
        yield Layered(
            f"--target, {program.name}", python, {"PYTHONPATH": str(place / "lib")}, (place,)
        )


def _with_pth(folder: Path, layer: Path) -> Path:
    python = _venv(folder)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(
        subprocess.run(
            [python, "-c", code], check=True, capture_output=True, text=True
        ).stdout.strip()
    )
    (site / "layer.pth").write_text(f"{layer}\n")
    return python


def _venv(folder: Path, *options: str) -> Path:
    subprocess.run(
        [sys.executable, "-m", "venv", "--clear", "--without-pip", *options, folder], check=True
    )
    return folder / "bin" / "python"


def _linked(layer: Path, place: Path) -> None:
    """The same files there, by hard links where the disk has them."""
    shutil.rmtree(place, ignore_errors=True)
    try:
        shutil.copytree(layer, place, copy_function=os.link)
    except shutil.Error:
        shutil.copytree(layer, place, dirs_exist_ok=True)


def _installed(programs: Sequence[Program], folder: Path) -> Path:
    """The libraries, installed once into a folder of their own."""
    lines = sorted(
        {
            requirement.text
            for program in programs
            for requirement in program.requires
            if requirement.name not in WITHOUT_ITS_DEPENDENCIES
        }
    )
    layer = folder / f"layer-{hashlib.sha256(repr((sys.version, lines)).encode()).hexdigest()[:8]}"
    if not (layer / "complete").exists():
        shutil.rmtree(layer, ignore_errors=True)
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--target",
                layer,
                *OF_THE_PLUGIN,
                *lines,
            ],
            check=True,
        )
        (layer / "complete").touch()
    return layer


def main() -> int:
    """Judge the programs in each environment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "programs", nargs="*", default=PROGRAMS, help="names of programs, or their folders"
    )
    parser.add_argument(
        "--layer", type=Path, help="a folder of installed libraries to use instead of installing"
    )
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help="where environments are made, and kept"
    )
    options = parser.parse_args()
    programs = [
        path if (path := Path(name)).is_dir() else ROOT / "corpus" / "programs" / name
        for name in options.programs
    ]
    options.folder.mkdir(parents=True, exist_ok=True)
    layer = options.layer or _installed([read(program) for program in programs], options.folder)
    wrong = []
    for environment in layered(
        options.folder.resolve(), layer.resolve(), [program.resolve() for program in programs]
    ):
        print(f"\n{environment.name}", flush=True)
        command = [
            sys.executable,
            ROOT / "corpus" / "judge.py",
            "--python",
            environment.python,
            *environment.programs,
        ]
        if subprocess.run(command, env={**os.environ, **environment.variables}).returncode:
            wrong.append(environment.name)
    print(f"\njudged wrong in: {', '.join(wrong)}" if wrong else "\nall judged as expected")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
