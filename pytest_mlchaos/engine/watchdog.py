"""A time limit on code that runs in the main thread, interrupting sleeps and locks too."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from ..errors import TrialTimeout

__all__ = ["time_limit"]
__tracebackhide__ = True  # a failure shows the user's code, not ours

_SIGNAL = getattr(signal, "SIGVTALRM", None)  # nobody else's: SIGALRM belongs to pytest-timeout and to user code
_AGAIN = 1.0


class _Expired(BaseException):
    """Thrown into the code that took too long; no ``except Exception`` catches it."""


@contextlib.contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise :class:`~pytest_mlchaos.errors.TrialTimeout` in the main thread once the time is over.

    Code that swallows the interruption is interrupted again each second. Where there are no such signals (Windows), or
    outside the main thread, there is no limit: a ``pytest-timeout`` still holds.
    """
    if seconds is None or _SIGNAL is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    stop = threading.Event()
    places: list[str] = []

    def expired(signum: int, frame: FrameType | None) -> None:
        if not stop.is_set():
            places.append(_place(frame))
            raise _Expired

    def watch(main: int) -> None:
        wait = seconds
        while not stop.wait(wait):
            signal.pthread_kill(main, _SIGNAL)
            wait = _AGAIN

    before = signal.signal(_SIGNAL, expired)
    watcher = threading.Thread(target=watch, args=(threading.get_ident(),), name="mlchaos-timeout", daemon=True)
    watcher.start()
    try:
        yield
    except _Expired:
        pass
    finally:
        stop.set()
        watcher.join()  # no signal is under way behind this line
        signal.signal(_SIGNAL, before or signal.SIG_DFL)
    if places:
        raise TrialTimeout(f"the trial took longer than {seconds:g} s (setting timeout); it stood {places[0]}") from None


def _place(frame: FrameType | None) -> str:
    if frame is None:
        return "nowhere"
    return f"in {frame.f_code.co_name} ({frame.f_code.co_filename}:{frame.f_lineno})"
