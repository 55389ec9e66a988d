"""Divide a session among machines: each runs one shard of the crash states, schedules and tests.

The division depends on texts alone (the ids of states and tests, the lines of schedules), by a hash
that is the same in each process, on each machine and in each version of Python.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Callable, Mapping

from ..errors import BadArgument
from .sites import derive_seed

__all__ = ["AUTO", "Shard"]

AUTO = "auto"
_SHARD = re.compile(r"(\d+)/(\d+)")
_SHARDS = re.compile(r"(\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*)/(\d+)")
COUNT = "MLCHAOS_SHARD_COUNT"
INDEX = "MLCHAOS_SHARD_INDEX"


@dataclasses.dataclass(frozen=True, slots=True)
class Shard:
    """One part of a session that is divided among machines.

    Attributes:
        index: The number of the shard, from 1.
        count: The number of shards.
        also: Further shards that the same session runs. ``python -m pytest_mlchaos run`` gives
            several to a worker, which makes its golden runs once for all of them.
    """

    index: int
    count: int
    also: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise BadArgument(
                f"--mlchaos-shard must be K/N with K from 1 to N, got '{self.index}/{self.count}'"
            )

        if list(self.indexes) != sorted({*self.indexes}) or self.indexes[-1] > self.count:
            raise BadArgument(
                f"--mlchaos-shard: several shards must be different numbers in rising order, and at "
                f"most {self.count}, got '{self}'"
            )

    @property
    def indexes(self) -> tuple[int, ...]:
        """Return the numbers of all shards that the session runs."""
        return (self.index, *self.also)

    def __str__(self) -> str:
        """Return ``3/100``, or ``1-4,9/100`` for several."""
        return f"{self._numbers()}/{self.count}"

    def _numbers(self) -> str:
        ranges: list[list[int]] = []
        for index in self.indexes:
            if ranges and index == ranges[-1][1] + 1:
                ranges[-1][1] = index
            else:
                ranges.append([index, index])
        return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)

    @property
    def words(self) -> str:
        """Return the shard in words: ``shard 3 of 100``."""
        return f"shard{'s' if self.also else ''} {self._numbers()} of {self.count}"

    @classmethod
    def parse(cls, text: str, environment: Mapping[str, str] | None = None) -> Shard:
        """Return the shard that a text names: ``3/100``, or ``auto``.

        Args:
            text: The value of ``--mlchaos-shard``.
            environment: The variables for ``auto``. By default those of this process.

        Raises:
            BadArgument: The text does not name a shard, or ``auto`` finds none.
        """
        if text.strip() == AUTO:
            return cls.auto(environment)
        found = _SHARD.fullmatch(text.strip())
        if found is None and (several := _SHARDS.fullmatch(text.strip())):
            index, *also = _listed(several[1], int(several[2]))
            return cls(index, int(several[2]), tuple(also))
        if found is None:
            raise BadArgument(
                f"--mlchaos-shard must be K/N with K from 1 to N, for example 3/100, or auto, got "
                f"{text!r}"
            )
        return cls(int(found[1]), int(found[2]))

    @classmethod
    def auto(cls, environment: Mapping[str, str] | None = None) -> Shard:
        """Return the shard that the environment of a cluster or of CI names.

        ``MLCHAOS_SHARD_INDEX`` (from 0) and ``MLCHAOS_SHARD_COUNT`` come first. The others are the
        variables of Kubernetes, GitLab, Buildkite, SLURM arrays and torchrun.

        Raises:
            BadArgument: No provider gives both numbers, or two of them disagree.
        """
        variables = os.environ if environment is None else environment
        own = _own(variables)
        if own is not None:
            return own
        found = {name: shard for name, read in _PROVIDERS.items() if (shard := read(variables))}
        if len(set(found.values())) > 1:
            told = " and ".join(f"{name}: {shard}" for name, shard in found.items())
            raise BadArgument(
                f"--mlchaos-shard=auto is ambiguous ({told}). Set {INDEX} (from 0) and {COUNT}, or "
                f"write the shard as K/N"
            )
        if not found:
            raise BadArgument(
                f"--mlchaos-shard=auto: {_hint(variables)}. Set {INDEX} (from 0) and {COUNT}, or "
                f"write the shard as K/N"
            )
        return next(iter(found.values()))

    def owns(self, key: str) -> bool:
        """Return True if the state, schedule or test of this name belongs to the shard.

        Each name belongs to exactly one of the shards.
        """
        digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.count + 1 in self.indexes

    def seed_for(self, *parts: object) -> int:
        """Return a seed that no other shard has, for ``parts`` such as a seed and a test's name."""
        return derive_seed("shard", self.index, self.count, *parts)


def _listed(text: str, count: int) -> list[int]:
    """Return the numbers in a list such as ``1-4,9``."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not int(first) <= int(last or first) <= count:
            raise BadArgument(
                f"--mlchaos-shard: {part} is not a range of shards from 1 to {count}, got "
                f"'{text}/{count}'"
            )
        found += range(int(first), int(last or first) + 1)
    return found


# -- what the environments give --------------------------------------------------------------------


def _number(variables: Mapping[str, str], name: str) -> int | None:
    text = variables.get(name, "").strip()
    return int(text) if re.fullmatch(r"\d{1,9}", text) else None


def _pair(index: str, count: str, first: int = 0) -> Callable[[Mapping[str, str]], Shard | None]:
    """Return a function that reads an index, which counts from ``first``, and the count."""

    def read(variables: Mapping[str, str]) -> Shard | None:
        number, total = _number(variables, index), _number(variables, count)
        if number is None or total is None:
            return None
        if not first <= number < total + first:
            raise BadArgument(
                f"--mlchaos-shard=auto: {index}={number} is not one of {count}={total} shards, "
                f"counted from {first}"
            )
        return Shard(number - first + 1, total)

    return read


def _own(variables: Mapping[str, str]) -> Shard | None:
    return _pair(INDEX, COUNT)(variables)


def _slurm(variables: Mapping[str, str]) -> Shard | None:
    """Read the variables of a SLURM array, whose numbers may begin anywhere and have a step."""
    names = ("TASK_ID", "TASK_COUNT", "TASK_MIN", "TASK_STEP", "TASK_MAX")
    task, count, least, step, most = (_number(variables, f"SLURM_ARRAY_{one}") for one in names)
    if task is None or count is None or least is None:
        return None
    step = step or 1
    place, rest = divmod(task - least, step)
    # ``--array=1,2,9`` has no step, so a task cannot know its place in the list.
    is_listed = most is not None and (most - least) // step + 1 != count
    if rest or not 0 <= place < count or is_listed:
        raise BadArgument(
            "--mlchaos-shard=auto needs a SLURM array without gaps, as --array=1-100. Its "
            f"{count} numbers begin at {least}, and this task is {task}"
        )
    return Shard(place + 1, count)


_PROVIDERS: Mapping[str, Callable[[Mapping[str, str]], Shard | None]] = {
    # Kubernetes gives a pod its index. The number of completions is only in the Job's spec.
    "Kubernetes": _pair("JOB_COMPLETION_INDEX", COUNT),
    "GitLab": _pair("CI_NODE_INDEX", "CI_NODE_TOTAL", first=1),
    "Buildkite": _pair("BUILDKITE_PARALLEL_JOB", "BUILDKITE_PARALLEL_JOB_COUNT"),
    "SLURM": _slurm,
    "torchrun": _pair("RANK", "WORLD_SIZE"),
}


def _hint(variables: Mapping[str, str]) -> str:
    """Return what is missing, in words."""
    if _number(variables, "JOB_COMPLETION_INDEX") is not None:
        return (
            f"Kubernetes gives JOB_COMPLETION_INDEX, but not the number of completions, so {COUNT} "
            f"must have the Job's completions"
        )
    if variables.get("GITHUB_ACTIONS"):
        return (
            "GitHub gives the number of a job to the workflow alone, so the job needs "
            f"{INDEX}: ${{{{ strategy.job-index }}}} and {COUNT}: ${{{{ strategy.job-total }}}} in "
            "env"
        )
    return "the environment names no shard"
