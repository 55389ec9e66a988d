"""Keep breaking points in a file of the repository, so that a change for the worse is found."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..engine.scopes import INTERNAL_OPERATION, within
from ..errors import BadArgument

__all__ = ["Baselines", "Interval", "compare"]

VERSION = 1
DIGITS = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Interval:
    """The place of a breaking point.

    Attributes:
        low: The strongest level that is survived. None if not even the weakest is.
        high: The weakest level that breaks the subject. None if not even the strongest does.
    """

    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.low is None:
            return f"at or below {self.high:g}" if self.high is not None else "anywhere"
        return (
            f"above {self.low:g}"
            if self.high is None
            else f"between {self.low:g} and {self.high:g}"
        )


def compare(new: Interval, base: Interval, *, falling: bool = False) -> str:
    """Return ``worse``, ``better`` or ``same``.

    Intervals that touch do not contradict each other.

    Args:
        new: The new breaking point.
        base: That of the baseline.
        falling: True if the stronger levels have smaller values.
    """
    sign = -1.0 if falling else 1.0
    if new.high is not None and base.low is not None and sign * (base.low - new.high) >= 0:
        return "worse"
    if new.low is not None and base.high is not None and sign * (new.low - base.high) >= 0:
        return "better"
    return "same"


class Baselines:
    """The file of the baselines.

    Args:
        path: The file.
        test: The name of the test.
        update: True to write new baselines.
    """

    def __init__(self, path: Path, test: str, *, update: bool = False) -> None:
        self.path, self._test, self.update = path, test, update

    def read(self, name: str, fault: str) -> Interval | None:
        """Return the baseline of a breaking point, or None.

        Raise ``BadArgument`` if the file is damaged, or if the baseline is that of a different
        fault.
        """
        with within(INTERNAL_OPERATION):
            found = self._content().get(self._key(name))
        if found is None:
            return None
        try:
            was, interval = found["fault"], Interval(found["low"], found["high"])
        except (KeyError, TypeError):
            raise BadArgument(f"{self.path}: the entry {self._key(name)!r} is damaged") from None
        if was != fault:
            raise BadArgument(
                f"{self.path.name}: the baseline of {self._key(name)!r} is that of {was}, and this "
                f"is {fault}. Run pytest with --mlchaos-update-baselines"
            )
        return interval

    def write(self, name: str, entry: Mapping[str, Any]) -> None:
        """Write the baseline of a breaking point. Other processes may write theirs."""
        with within(INTERNAL_OPERATION):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(self.path):
                content = {**self._content(), self._key(name): dict(entry)}
                text = json.dumps(
                    {"version": VERSION, "breaking_points": content}, indent=2, sort_keys=True
                )
                temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
                temporary.write_text(f"{text}\n", encoding="utf-8")
                os.replace(temporary, self.path)

    def _key(self, name: str) -> str:
        return f"{self._test}: {name}"

    def _content(self) -> dict[str, Any]:
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
            points = data["breaking_points"]
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadArgument(f"{self.path} is not a file of baselines: {error}") from None
        if data.get("version") != VERSION or not isinstance(points, dict):
            raise BadArgument(
                f"{self.path} must have version {VERSION}, got {data.get('version')!r}"
            )
        return points


def rounded(value: float | None) -> float | None:
    """Return a level as the file has it, with few digits, so that its differences can be read."""
    return None if value is None else float(f"{value:.{DIGITS}g}")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let no other process write meanwhile. Workers of xdist share one file."""
    try:
        import fcntl
    except ImportError:  # Windows: the last writer wins
        yield
        return
    lock = path.with_name(f".{path.name}.lock")
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                lock.unlink()
