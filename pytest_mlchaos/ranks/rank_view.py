"""What the runner knows of one rank: told by messages, by its output, and by how it ended."""

from __future__ import annotations

import pickle
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from ..core.privacy import child_error, error_text
from ..core.records import Outcome
from ..engine.remote_state import RemoteState
from ..errors import BadArgument
from ..processes import stack_dumps
from ..processes.messages import Inbox

__all__ = ["Rank"]


class Rank(RemoteState):
    """What is known of one rank."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.joined = False
        self.number = number
        self.exitcode: int | None = None
        self.left = 0.0
        self.outcome: Outcome | None = None
        self.raised: tuple[str, bytes | None] | None = None
        self._before = 0
        self._sent: dict[str, bytes] = {}
        self._unsent: dict[str, str] = {}
        self._ident = 0
        self._dump = bytearray()
        self._written = {"stdout": bytearray(), "stderr": bytearray()}
        self._inbox = Inbox()

    # -- listening ---------------------------------------------------------------------------------------------

    def hear(self, data: bytes) -> None:
        """Bytes of its messages."""
        for message in self._inbox.feed(data):
            self.take(*message)

    def write(self, stream: str, data: bytes) -> None:
        """Bytes of its output."""
        self._written[stream] += data

    def dump(self, data: bytes) -> None:
        """Bytes of its stacks."""
        self._dump += data

    def _on_hello(self, ident: int) -> None:
        self._ident = ident

    def _on_raised(self, text: str, data: bytes | None) -> None:
        self.raised = (text, data)

    def _on_joined(self) -> None:
        self.joined = True

    def _on_value(self, data: bytes) -> None:
        self._sent["value"] = data

    def _on_parameters(self, data: bytes) -> None:
        self._sent["parameters"] = data

    def _on_not_finite(self, data: bytes) -> None:
        self._sent["not_finite"] = data

    def _on_unsent(self, what: str, why: str) -> None:
        self._unsent[what] = why

    # -- telling -----------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether its process has not ended, as far as is known."""
        return self.exitcode is None

    @property
    def started(self) -> bool:
        """Whether its process came as far as the subject."""
        return bool(self._ident)

    @property
    def failed(self) -> bool:
        """Whether it ended by itself, and badly."""
        return self.outcome == "failed"

    @property
    def steps(self) -> int:
        """Optimizer steps begun in this attempt."""
        return self.passed.get("train.step", 0) - self._before

    def begins_at(self, steps: int) -> None:
        """So many steps were taken in the attempts before."""
        self._before = steps

    @property
    def stack(self) -> str:
        """The frames of its threads, the main thread's first and the innermost first, if they were asked for."""
        return stack_dumps.all_threads(self._dump.decode(errors="replace"), self._ident)

    @property
    def output(self) -> str:
        """What it printed, then what it wrote to stderr."""
        return "".join(text.decode(errors="replace") for text in self._written.values())

    def text(self, stream: str) -> str:
        """One stream."""
        return self._written[stream].decode(errors="replace")

    @property
    def ended(self) -> str:
        """How it ended, in words."""
        if self.outcome == "finished":
            return "returned" if "value" in self._sent or "value" in self._unsent else "exited with code 0"
        if self.outcome == "failed":
            return self._failure()
        where = stack_dumps.place(self.stack)
        words = {"hung": "hung", "halted": "hung (injected)", "stopped": "was stopped for the restart"}
        return words[self.outcome or "hung"] + (f" in {where}" if where else "")

    def _failure(self) -> str:
        code = self.exitcode or 0
        if code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            return f"was killed by {name}"
        if self.raised is not None and not self.raised[0].startswith("SystemExit"):
            return f"raised {self.raised[0].partition(chr(10))[0]}"
        return f"exited with code {code}"

    def load_value(self) -> Any:
        """What it returned; None if it did not."""
        return self._load("value", None)

    def load_parameters(self) -> Sequence[Sequence[Any]]:
        """The parameters that it trained, a list of tensors an optimizer."""
        found: Sequence[Sequence[Any]] = self._load("parameters", ())
        return found

    def load_not_finite(self) -> Mapping[tuple[str, str], int]:
        """How many values of its models and optimizers were not finite at its end, by the class and the name."""
        found: Mapping[tuple[str, str], int] = self._load("not_finite", {})
        return found

    def load_error(self) -> BaseException | None:
        """What it raised; where that cannot be pickled, or where it died without a word, an error that says so."""
        if self.raised is None:
            return None if self.outcome == "finished" else child_error(f"rank {self.number} {self.ended}")
        text, data = self.raised
        if data is None:
            return child_error(f"rank {self.number} raised {text}")
        try:
            error: BaseException = pickle.loads(data)
        except Exception:  # noqa: BLE001  # it has been unpickled there, but this process may lack what the rank has imported
            return child_error(f"rank {self.number} raised {text}")
        return error

    def _load(self, what: str, default: Any) -> Any:
        if what in self._unsent:
            raise BadArgument(f"the {what} of rank {self.number} cannot be sent back from its process: {self._unsent[what]}")
        try:
            return pickle.loads(self._sent[what]) if what in self._sent else default
        except Exception as error:
            raise BadArgument(f"the {what} of rank {self.number} does not load here: {error_text(error)}") from error
