"""Keep what the parent process knows about one rank, from messages, output and exit code."""

from __future__ import annotations

import pickle
import signal
from collections import deque
from collections.abc import Mapping, Sequence

# Imported by name, so that a virtual clock of the test's code does not reach it.
from time import monotonic
from typing import Any

from ..core.collectives import MAX_LOGGED, CollectiveLog, CollectiveRecord
from ..core.journal import Strike
from ..core.privacy import child_error, error_text
from ..core.records import Outcome
from ..core.sites import Key
from ..engine.remote_state import RemoteState
from ..errors import BadArgument
from ..processes import stack_dumps
from ..processes.messages import Inbox
from .bounded_output import BoundedOutput
from .step_states import StepStates

__all__ = ["Rank"]


class Rank(RemoteState):
    """The state of one rank, as far as the parent process knows it."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.joining = False
        self.joined = False
        self.struck: float | None = None
        self.stepped: float | None = None
        self.number = number
        self.exitcode: int | None = None
        self.left = 0.0
        self.outcome: Outcome | None = None
        self.raised: tuple[str, bytes | None] | None = None
        self.exited_by_fault = False
        self._before = 0
        self._sent: dict[str, bytes] = {}
        self._unsent: dict[str, str] = {}
        self._ident = 0
        self._dump = bytearray()
        self._written = {"stdout": BoundedOutput(), "stderr": BoundedOutput()}
        self._inbox = Inbox()
        self.numbers: Sequence[int] = ()  # the numbers of its visits at its end, by place
        self._places: dict[int, Key] = {}
        self._collectives: deque[CollectiveRecord] = deque(maxlen=MAX_LOGGED)
        self._launched = 0
        self.learned: Sequence[str] = ()  # the libraries that it had to import

    # -- listening ---------------------------------------------------------------------------------

    def hear(self, data: bytes) -> None:
        """Handle bytes of the rank's messages."""
        for message in self._inbox.feed(data):
            self.take(*message)

    def write(self, stream: str, data: bytes) -> None:
        """Handle bytes of the rank's output."""
        self._written[stream].feed(data)

    def dump(self, data: bytes) -> None:
        """Handle bytes of the rank's stacks."""
        self._dump += data

    def _on_hello(self, ident: int) -> None:
        self._ident = ident

    def _on_raised(self, text: str, data: bytes | None) -> None:
        self.raised = (text, data)

    def _on_injected_exit(self) -> None:
        self.exited_by_fault = True

    def _on_strike(self, index: int, strike: Strike) -> None:
        self.struck = monotonic() if self.struck is None else self.struck
        super()._on_strike(index, strike)

    def _on_visit(self, key: Key, number: int) -> None:
        if key == "train.step" and self.stepped is None:
            self.stepped = monotonic()
        super()._on_visit(key, number)

    def _on_learned(self, names: Sequence[str]) -> None:
        self.learned = names

    def _on_joining(self) -> None:
        self.joining = True

    def _on_joined(self) -> None:
        self.joined = True

    def _on_counted(self, key: Key, place: int) -> None:
        self._places[place] = key

    def take_numbers(self) -> None:
        """Take over the visits that the agent has read, when all messages have been read."""
        for place, key in self._places.items():
            if place < len(self.numbers) and self.numbers[place]:
                self.passed[key] = self.numbers[place]

    def _on_collective(self, *record: Any) -> None:
        self._launched += 1
        self._collectives.append(CollectiveRecord(*record))

    def _on_value(self, data: bytes) -> None:
        self._sent["value"] = data

    def _on_parameters(self, data: bytes) -> None:
        self._sent["parameters"] = data

    def _on_states(self, data: bytes) -> None:
        self._sent["states"] = data

    def _on_not_finite(self, data: bytes) -> None:
        self._sent["not_finite"] = data

    def _on_unsent(self, what: str, why: str) -> None:
        self._unsent[what] = why

    # -- telling -----------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Return True if the process has not ended, as far as is known."""
        return self.exitcode is None

    @property
    def started(self) -> bool:
        """Return True if the process has reached the subject."""
        return bool(self._ident)

    @property
    def failed(self) -> bool:
        """Return True if the process failed by itself."""
        return self.outcome == "failed"

    @property
    def steps(self) -> int:
        """Return the number of optimizer steps begun in this attempt."""
        # A rank that ended before its first message has told nothing.
        return max(0, self.passed.get("train.step", 0) - self._before)

    @property
    def collectives(self) -> CollectiveLog:
        """Return the collectives that it launched, if they are recorded."""
        return CollectiveLog(tuple(self._collectives), self._launched)

    def begins_at(self, steps: int) -> None:
        """Set the number of steps that the attempts before have taken."""
        self._before = steps

    @property
    def stack(self) -> str:
        """Return the frames of its threads, main thread and innermost frame first, if they were
        requested.
        """
        return stack_dumps.all_threads(self._dump.decode(errors="replace"), self._ident)

    @property
    def output(self) -> str:
        """Return its output on stdout, then on stderr."""
        return "".join(written.text for written in self._written.values())

    def text(self, stream: str) -> str:
        """Return the output on one stream."""
        return self._written[stream].text

    @property
    def ended(self) -> str:
        """Return in words how the rank ended."""
        if self.outcome == "finished":
            return (
                "returned"
                if "value" in self._sent or "value" in self._unsent
                else f"exited with code 0{self._injected_at()}"
            )
        if self.outcome == "failed":
            return self._failure()
        where = stack_dumps.place(self.stack)
        words = {
            "hung": "hung",
            "halted": f"{'was delayed' if self.halted is None else 'hung'} (injected)",
            "stopped": "was stopped for the restart",
        }
        return words[self.outcome or "hung"] + (f" in {where}" if where else "")

    def _failure(self) -> str:
        code = self.exitcode or 0
        if code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            words = self._injected_at() or stack_dumps.last_words(
                self.text("stderr"), self._ident, -code
            )
            return f"was killed by {name}{words}"
        if self.raised is not None and not self.raised[0].startswith("SystemExit"):
            return f"raised {self.raised[0].partition(chr(10))[0]}"
        return f"exited with code {code}{self._injected_at()}"

    def mentions(self, name: bytes) -> bool:
        """Return True if this name is in what the rank has sent or printed."""
        return any(name in data for data in self._sent.values()) or any(
            written.mentions(name) for written in self._written.values()
        )

    def _injected_at(self) -> str:
        """Return in words at which visit a fault ended it, or "" if none did."""
        injected = (self.crash is not None or self.exited_by_fault) and self.strikes
        return f" {self.strikes[-1][1].place}" if injected else ""

    def load_value(self) -> Any:
        """Return what the subject returned, or None."""
        return self._load("value", None)

    def load_parameters(self) -> Sequence[Sequence[Any]]:
        """Return the parameters that the rank trained: a list of tensors for each optimizer."""
        found: Sequence[Sequence[Any]] = self._load("parameters", ())
        return found

    def load_not_finite(self) -> Mapping[tuple[str, str], int]:
        """Return the number of non-finite values at its end, by class and name of models and
        optimizers.
        """
        found: Mapping[tuple[str, str], int] = self._load("not_finite", {})
        return found

    def load_states(self) -> StepStates | None:
        """Return the digests of the state after each step, or None if there are none."""
        found: StepStates | None = self._load("states", None)
        return found

    def load_error(self) -> BaseException | None:
        """Return the error that the rank raised.

        If it cannot be pickled, or if the process died without a message, return an error that says
        so.
        """
        if self.raised is None:
            return (
                None
                if self.outcome == "finished"
                else child_error(f"rank {self.number} {self.ended}")
            )
        text, data = self.raised
        if data is None:
            return child_error(f"rank {self.number} raised {text}")
        try:
            error: BaseException = pickle.loads(data)
        except Exception:  # noqa: BLE001
            # It could be unpickled there, but this process may lack modules that the rank has
            # imported.
            return child_error(f"rank {self.number} raised {text}")
        return error

    def _load(self, what: str, default: object) -> Any:
        if what in self._unsent:
            raise BadArgument(
                f"the {what} of rank {self.number} cannot be sent back from its process: "
                f"{self._unsent[what]}"
            )
        try:
            return pickle.loads(self._sent[what]) if what in self._sent else default
        except Exception as error:
            raise BadArgument(
                f"the {what} of rank {self.number} cannot be loaded here: {error_text(error)}"
            ) from error
