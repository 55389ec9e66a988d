"""Pass the bytes of one direction of one connection, under the condition of its link."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import math
import random
import socket
import struct
from collections.abc import Callable
from typing import Any

from ...core.links import Condition, Cut, Flip, Slow
from .gloo_address import UnknownFormat
from .gloo_frames import Frames

__all__ = ["DirectionState", "Imposed", "Stream"]

CHUNK = 1 << 18
MAX_QUEUED = 1 << 26
"""The number of bytes on a slow link, after which the sender has to wait."""
SLOW_CHUNK_SECONDS = 0.02
"""A chunk takes at most about this time on a link with a limited bandwidth."""
_RESET = struct.pack("ii", 1, 0)


class Imposed:
    """A condition that was imposed, and the function to call at its first effect."""

    def __init__(self, condition: Condition, now: float, report: Callable[..., None]) -> None:
        self.condition: Any = condition
        self.until = now + getattr(condition, "heal_after", math.inf)
        self.reported = False
        self._report = report

    def took_effect(self, **details: object) -> None:
        """Report the effect, once."""
        if not self.reported:
            self.reported = True
            self._report(**details)


@dataclasses.dataclass(eq=False)
class DirectionState:
    """The condition of one direction of a link. All its connections share it."""

    cut: Imposed | None = None
    slow: Imposed | None = None
    flips: list[Imposed] = dataclasses.field(default_factory=list)
    free_at: float = 0.0
    random: random.Random = dataclasses.field(default_factory=random.Random)

    def impose(self, imposed: Imposed) -> None:
        """Add a condition. It replaces an earlier one of the same kind."""
        condition = imposed.condition
        if isinstance(condition, Cut):
            self.cut = imposed
        elif isinstance(condition, Slow):
            self.slow, self.free_at = imposed, 0.0
            self.random = random.Random(condition.seed)
        else:
            self.flips.append(imposed)

    def expire(self, now: float) -> None:
        """Remove conditions that have healed."""
        if self.cut is not None and now >= self.cut.until:
            self.cut = None
        if self.slow is not None and now >= self.slow.until:
            self.slow = None

    @property
    def heals_at(self) -> float:
        """Return the time of the next healing."""
        return min((x.until for x in (self.cut, self.slow) if x is not None), default=math.inf)

    @property
    def chunk(self) -> int:
        """Return the number of bytes to read at a time."""
        if self.slow is None or math.isinf(self.slow.condition.bandwidth):
            return CHUNK
        return max(1024, min(CHUNK, int(self.slow.condition.bandwidth * SLOW_CHUNK_SECONDS)))

    def arrival(self, size: int, now: float) -> float:
        """Return the time at which bytes arrive that are sent now."""
        if self.slow is None:
            return now
        slow: Slow = self.slow.condition
        self.free_at = max(now, self.free_at) + size / slow.bandwidth
        jitter = self.random.uniform(0.0, slow.jitter) if slow.jitter else 0.0
        if size:
            self.slow.took_effect()
        return self.free_at + slow.delay + jitter


class Stream:
    """One direction of one connection: the bytes from ``source`` to ``target``."""

    def __init__(
        self,
        source: socket.socket,
        target: socket.socket,
        state: DirectionState,
        frames: Frames,
    ) -> None:
        self.source, self.target, self.state = source, target, state
        self.unknown = ""  # how gloo's format differs from the known one
        self.over = False  # the end has arrived at the target
        self._frames: Frames | None = frames
        self._queue: collections.deque[tuple[float, memoryview]] = collections.deque()
        self._queued = 0
        self._last = 0.0  # the arrival of the last byte so far
        self._end: str | None = None  # how the source ended: "closed" or "reset"
        self._flips: list[int] = []  # the bits to invert in the current payload

    @property
    def wants_read(self) -> bool:
        """Return True if the next byte of the source can be handled."""
        if self.over or self._end is not None:
            return False
        cut = self.state.cut
        # a cut waits for the first byte, to report it
        return self._queued < MAX_QUEUED if cut is None else not cut.reported

    def wants_write(self, now: float) -> bool:
        """Return True if bytes are due."""
        return not self.over and bool(self._queue) and self._queue[0][0] <= now

    @property
    def due(self) -> float:
        """Return the time at which something arrives next."""
        if self.over:
            return math.inf
        if self._queue:
            return self._queue[0][0]
        return self._last if self._end is not None else math.inf

    def read(self, now: float) -> bool:
        """Read some bytes. Return False if none are there."""
        if not self.wants_read:
            return False
        cut = self.state.cut
        try:
            data = self.source.recv(*(1, socket.MSG_PEEK) if cut else (self.state.chunk,))
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            if cut is None:
                self._ended("reset", now)
                return False
        if cut is not None:
            cut.took_effect()  # a byte is there, or the end
            return False
        if not data:
            self._ended("closed", now)
            return False
        self._last = max(self._last, self.state.arrival(len(data), now))
        self._queue.append((self._last, memoryview(self._inspected(data))))
        self._queued += len(data)
        return True

    def write(self, now: float) -> None:
        """Write what is due, and end the target after the last byte."""
        while self.wants_write(now):
            due, data = self._queue[0]
            try:
                sent = self.target.send(data)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                # The target has ended. The opposite direction notices that, if it is not cut.
                self._queue.clear()
                self._queued, self.over = 0, True
                return
            self._queued -= sent
            if sent < len(data):
                self._queue[0] = (due, data[sent:])
            else:
                self._queue.popleft()
        if self._end is not None and not self._queue and self._last <= now and not self.over:
            self.over = True
            with contextlib.suppress(OSError):
                if self._end == "reset":
                    self.target.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    self.target.close()
                else:
                    self.target.shutdown(socket.SHUT_WR)

    def _ended(self, how: str, now: float) -> None:
        self._end = how
        self._last = max(self._last, self.state.arrival(0, now))

    def _inspected(self, data: bytes) -> bytes | bytearray:
        """Return the bytes, with inverted bits if a flip is due."""
        changed: bytearray | None = None
        try:
            for start, length, position, size in self._frames.feed(data) if self._frames else ():
                if not position:
                    self._flips = self._flips_for(size)
                for bit in self._flips:
                    byte = bit // 8 - position
                    if 0 <= byte < length:
                        changed = bytearray(data) if changed is None else changed
                        changed[start + byte] ^= 1 << bit % 8
        except UnknownFormat as error:
            self._frames, self.unknown = None, str(error)
        return data if changed is None else changed

    def _flips_for(self, size: int) -> list[int]:
        flips: list[int] = []
        while self.state.flips:
            imposed = self.state.flips.pop(0)
            if imposed.reported:  # a message to a different receiver had the bits
                continue
            flip: Flip = imposed.condition
            count = min(flip.bits, size * 8)
            flips += random.Random(flip.seed).sample(range(size * 8), count)
            imposed.took_effect(bits=count, payload=size)
        return flips
