"""A function in a child process that is stopped at the beginning of each of its system calls, by
Linux' ptrace.
"""

import ctypes
import functools
import os
import signal
import sys

__all__ = ["missing", "run"]

_TRACE_ME, _SYSCALL, _SET_OPTIONS = 0, 24, 0x4200
_SYSGOOD, _EXIT_KILL = 0x1, 0x100000
_CALL = signal.SIGTRAP | 0x80


def run(function, look):
    """Call ``look(number)`` whenever the child's main thread begins a system call, before that has
    an effect.

    If it returns something true, the child is killed there.
    """
    pid = os.fork()
    if pid == 0:
        _ptrace(_TRACE_ME, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        function()
        os._exit(0)
    os.waitpid(pid, 0)
    _ptrace(_SET_OPTIONS, pid, _SYSGOOD | _EXIT_KILL)
    stops, deliver = 0, 0
    while True:
        _ptrace(_SYSCALL, pid, deliver)
        status = os.waitpid(pid, 0)[1]
        if not os.WIFSTOPPED(status):
            return
        deliver = 0 if os.WSTOPSIG(status) == _CALL else os.WSTOPSIG(status)
        if not deliver:
            stops += 1
            begins = stops % 2  # the next stop is its end
            if begins and look(stops // 2 + 1):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return


@functools.cache
def missing():
    """Return why processes cannot be traced here; nothing if they can."""
    if sys.platform != "linux":
        return f"{sys.platform} has no ptrace of Linux'"
    calls = []
    try:
        run(os.getppid, lambda number: calls.append(number))
    except OSError as error:
        return f"ptrace is not allowed here: {error}"
    return "" if calls else "ptrace stops at no system call here"


def _ptrace(request, pid, data=0):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    libc.ptrace.restype = ctypes.c_long
    if libc.ptrace(request, pid, None, data) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
