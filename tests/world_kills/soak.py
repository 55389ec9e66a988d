"""Kill worlds at random moments: ``python tests/world_kills/soak.py [--kills 500] [--minutes 60]
[--seed 0] [--only NAME ...]``.

Each scenario has a runner: a pytest process that runs one world after the other. At a moment that
is drawn uniformly from the length of an undisturbed world, the runner, the warm process, an agent
or a helper of it, a rank or a child of a rank gets SIGKILL (a runner also SIGTERM or SIGINT).
Afterwards no process of the world, no listening port, no segment of shared memory, no file in the
temporary directory and no network namespace may be left, and the world must have ended in time.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import json
import os
import pathlib
import random
import re
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable

from pytest_mlchaos.ranks.links.namespaces import why_no_namespaces

HERE = pathlib.Path(__file__).parent
MARK = "MLCHAOS_KILLS"
SCENARIOS = re.findall(r"^def test_(\w+)", (HERE / "scenarios.py").read_text(), re.MULTILINE)
RUNNER_SHARE = 0.03
"""The share of kills of the runner itself, and of its warm process. New ones take seconds."""
START_SECONDS, END_SECONDS, GONE_SECONDS = 300.0, 120.0, 60.0
"""The time limits for a runner to start, for a world to end, and for processes to disappear."""


@dataclasses.dataclass
class Kill:
    """One kill, and what was wrong afterwards."""

    scenario: str
    victim: str
    signum: int
    ended: str = ""
    wrong: list[str] = dataclasses.field(default_factory=list)


class Runner:
    """A pytest process with the worlds of one scenario, and a temporary directory of its own."""

    def __init__(self, scenario: str) -> None:
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="mlchaos-kills-"))
        self.temp = self.folder / "temp"
        self.temp.mkdir()
        shutil.copy(HERE / "scenarios.py", self.folder)
        (self.folder / "pytest.ini").write_text("[pytest]\n")
        self.mark = secrets.token_hex(8)
        self._told, theirs = os.pipe()
        awaited, self._go = os.pipe()
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-s"]
        command += [f"--basetemp={self.folder / 'base'}", f"scenarios.py::test_{scenario}"]
        self._log = (self.folder / "log").open("w+")
        self.process = subprocess.Popen(
            command,
            cwd=self.folder,
            env={
                **os.environ,
                MARK: self.mark,
                "MLCHAOS_KILLS_PIPES": f"{theirs},{awaited}",
                "TMPDIR": str(self.temp),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            pass_fds=(theirs, awaited),
            stdout=self._log,
            stderr=self._log,
            stdin=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(awaited)
        self._text = b""
        # The first world starts the warm process. The second shows how long a world takes.
        self.world(START_SECONDS)
        start = time.monotonic()
        self.world(END_SECONDS)
        self.length = time.monotonic() - start
        self.idle = set(self.marked())
        self.files = self.temporary_files()

    def world(self, limit: float) -> str:
        """Run an undisturbed world. Return how it ended."""
        self.begin()
        return self.ended(limit) or "nothing"

    def begin(self) -> None:
        """Let the next world begin, and wait until it does."""
        os.write(self._go, b".")
        self._next(START_SECONDS, "begin")

    def ended(self, limit: float) -> str | None:
        """Return how the world ended, or None if the runner has ended or it took too long."""
        return self._next(limit, "end")

    def _next(self, limit: float, kind: str) -> str | None:
        until = time.monotonic() + limit
        while True:
            line, found, rest = self._text.partition(b"\n")
            if found:
                self._text = rest
                told, what = json.loads(line)
                if told == kind:
                    return str(what)
                continue
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._told], [], [], left)[0]:
                return None
            data = os.read(self._told, 1 << 16)
            if not data:
                return None
            self._text += data

    def marked(self) -> dict[int, str]:
        """Return the processes of this runner, with their command lines."""
        wanted, found = f"{MARK}={self.mark}".encode(), {}
        for path in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if wanted not in (path / "environ").read_bytes().split(b"\0"):
                    continue
                state = (path / "stat").read_text().rpartition(")")[2].split()[0]
                if state not in "ZX":
                    text = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    found[int(path.name)] = text[:80]
        return found

    def victims(self) -> dict[int, str]:
        """Return the processes that may be killed, with what each of them is."""
        parents = {}
        for pid in self.marked():
            with contextlib.suppress(OSError):
                stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
                parents[pid] = int(stat.rpartition(")")[2].split()[1])
        told = {}
        for pid in parents:
            above, depth = pid, 0
            while above != self.process.pid and above in parents and depth < 9:
                above, depth = parents[above], depth + 1
            names = ("runner", "warm process", "agent", "rank or helper")
            told[pid] = names[depth] if depth < len(names) else "below a rank"
        return told

    def temporary_files(self) -> set[str]:
        """Return what is in the temporary directory.

        A process that gets SIGKILL cannot remove the directory that ``multiprocessing`` has made
        for it, with or without mlchaos.
        """
        names = {path.name for path in self.temp.iterdir()}
        return {name for name in names if not name.startswith("pymp-")}

    def close(self) -> None:
        """End the runner, if it still runs."""
        for fd in (self._go, self._told):
            os.close(fd)
        if self.process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(GONE_SECONDS)
        self.process.kill()
        self.process.wait()
        self._log.close()

    def last_lines(self) -> str:
        """Return the end of what pytest has printed."""
        return (self.folder / "log").read_text(errors="replace")[-1500:]


def listening() -> dict[str, int]:
    """Return the listening sockets of this machine, with their ports."""
    found = {}
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in pathlib.Path(path).read_text().splitlines()[1:]:
                part = line.split()
                if part[3] == "0A":
                    found[f"socket:[{part[9]}]"] = int(part[1].rpartition(":")[2], 16)
    return found


def sockets_of(pids: Iterable[int]) -> set[str]:
    """Return the listening sockets of these processes."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    found.add(os.readlink(fd))
    return found.intersection(listening())


def segments(pids: set[int]) -> list[str]:
    """Return the segments of shared memory whose name has one of these process ids."""
    with contextlib.suppress(OSError):
        return [
            name
            for name in os.listdir("/dev/shm")
            if pids.intersection(map(int, re.findall(r"\d+", name)))
        ]
    return []


def namespaces(pids: Iterable[str | int]) -> set[str]:
    """Return the network namespaces of these processes."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/{pid}/ns/net"))
    return found


def named_namespaces() -> set[str]:
    """Return the names of the network namespaces that outlive their processes."""
    return {path.name for path in pathlib.Path("/run/netns").glob("*")}


@dataclasses.dataclass
class Before:
    """Keep what was there when a process was killed."""

    pids: set[int]
    sockets: set[str]
    spaces: set[str]
    named: set[str]


def strike(runner: Runner, scenario: str, drawn: random.Random) -> Kill:
    """Kill one process of a world. Return what was wrong afterwards."""
    named = named_namespaces()
    share = drawn.random()
    moment = drawn.uniform(0, runner.length)
    runner.begin()
    time.sleep(moment)
    victims = runner.victims()
    seen = set(victims)
    sockets = sockets_of(seen)
    spaces = namespaces(seen) - namespaces(["self"])
    above = ("runner", "warm process")
    below = sorted(pid for pid, what in victims.items() if what not in above)
    warm = [pid for pid, what in victims.items() if what == "warm process"]
    pid = runner.process.pid
    if share > RUNNER_SHARE:
        pid = drawn.choice(below if share > 2 * RUNNER_SHARE else warm) if below and warm else 0
    if not pid:
        return Kill(scenario, "", 0, runner.ended(END_SECONDS) or "")
    signum = signal.SIGKILL
    if pid == runner.process.pid:
        signum = drawn.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
    kill = Kill(scenario, victims.get(pid, "runner"), signum)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)
    ended = runner.ended(END_SECONDS)
    if pid == runner.process.pid:
        try:
            runner.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            kill.wrong.append(f"the runner did not end in {END_SECONDS} s after signal {signum}")
        may_be = set()
    else:
        if ended is None:
            kill.wrong.append(f"the world did not end in {END_SECONDS} s:\n{runner.last_lines()}")
        kill.ended = ended or ""
        may_be = runner.idle
    before = Before(seen, sockets, spaces, named)
    until = time.monotonic() + GONE_SECONDS
    # A process whose environment has gone may hold its ports and namespaces for a moment.
    while (left := _left(runner, may_be - {pid}, before)) and time.monotonic() < until:
        time.sleep(0.02)
    kill.wrong += left
    if pid != runner.process.pid and victims.get(pid) == "warm process":
        runner.world(START_SECONDS)
        runner.idle = set(runner.marked())
    return kill


def _describe(pid: int) -> str:
    """Return what a process is waiting for, for a report."""
    found = [str(pid)]
    with contextlib.suppress(OSError):
        path = pathlib.Path(f"/proc/{pid}")
        fields = (path / "stat").read_text().rpartition(")")[2].split()
        files = sorted({os.readlink(fd) for fd in (path / "fd").iterdir()})
        found += [f"state {fields[0]}", f"parent {fields[1]}", f"session {fields[3]}"]
        found += [f"in {(path / 'wchan').read_text()}", *files[:12]]
    return ", ".join(found)


def _left(runner: Runner, may_be: set[int], before: Before) -> list[str]:
    """Describe what should have gone."""
    left = {pid: what for pid, what in runner.marked().items() if pid not in may_be}
    if left:
        return [f"process left: {what} ({_describe(pid)})" for pid, what in left.items()]
    sockets = before.sockets - sockets_of(runner.marked())
    found = [f"port left: {port}" for one, port in listening().items() if one in sockets]
    found += [f"shared memory left: {name}" for name in segments(before.pids - may_be)]
    more = runner.temporary_files() - runner.files
    found += [f"temporary file left: {name}" for name in sorted(more)]
    running = [path.name for path in pathlib.Path("/proc").glob("[0-9]*")]
    spaces = before.spaces & namespaces(running) if before.spaces else set()
    spaces |= named_namespaces() - before.named
    return found + [f"network namespace left: {name}" for name in sorted(spaces)]


def main() -> int:
    """Kill, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ends", action="store_true", help="also print how each world ended")
    parser.add_argument("--only", nargs="*", default=SCENARIOS, choices=SCENARIOS)
    given = parser.parse_args()
    until = time.monotonic() + 60 * given.minutes
    kills: list[Kill] = []
    if "real" in given.only and (why := why_no_namespaces()):
        print(f"real: left out, because {why}")
        given.only = [name for name in given.only if name != "real"]
    for place, name in enumerate(given.only):
        count = (given.kills * (place + 1)) // len(given.only) - len(kills)
        until_here = time.monotonic() + (until - time.monotonic()) / (len(given.only) - place)
        drawn = random.Random(f"{name}/{given.seed}")
        kills += _scenario(name, count, until_here, drawn, ends=given.ends)
    print(f"all: {_figures(kills)}")
    if len(kills) < given.kills:
        print(f"only {len(kills)} of {given.kills} kills within {given.minutes:g} minutes")
    return 1 if any(kill.wrong for kill in kills) else 0


def _scenario(
    name: str, count: int, until: float, drawn: random.Random, *, ends: bool
) -> list[Kill]:
    """Kill a number of worlds of one scenario."""
    kills: list[Kill] = []
    runner: Runner | None = None
    while len(kills) < count and time.monotonic() < until:
        runner = runner or Runner(name)
        kill = strike(runner, name, drawn)
        if not kill.victim:
            continue  # the world had already ended
        kills.append(kill)
        if ends:
            print(f"  {kill.victim}, signal {kill.signum}: {kill.ended}", flush=True)
        for text in kill.wrong:
            print(f"  {name}: {kill.victim}, signal {kill.signum}: {text}", flush=True)
        if kill.victim == "runner" or kill.wrong or runner.process.poll() is not None:
            runner.close()
            shutil.rmtree(runner.folder, ignore_errors=True)
            runner = None
    if runner is not None:
        runner.close()
        shutil.rmtree(runner.folder, ignore_errors=True)
    print(f"{name}: {_figures(kills)}", flush=True)
    return kills


def _figures(kills: list[Kill]) -> str:
    victims = collections.Counter(kill.victim for kill in kills)
    told = ", ".join(f"{number} {victim}" for victim, number in sorted(victims.items()))
    wrong = sum(bool(kill.wrong) for kill in kills)
    return f"{len(kills)} worlds killed ({told}): {wrong} left something or did not end"


if __name__ == "__main__":
    sys.exit(main())
