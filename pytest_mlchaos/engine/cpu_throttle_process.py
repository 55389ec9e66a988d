"""Stop and continue the parent process, in turn.

This runs as a script. Its arguments are the process, and the seconds that it runs and rests in each
period. Its input ends when the process is to run freely again.
"""

import contextlib
import os
import select
import signal
import sys
import time

__all__: list[str] = []


def main(process: int, running: float, resting: float) -> None:
    """Stop the process for a part of each period, until the input or the process ends."""
    os.write(1, b"+")
    while not select.select([0], [], [], running)[0] and os.getppid() == process:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGSTOP)
            time.sleep(resting)
            os.kill(process, signal.SIGCONT)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]))
