"""Test functions in fresh processes: what they find, how they end, and that no process is left."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import linecache
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from pytest_mlchaos.engine import module_names
from pytest_mlchaos.engine.controller import current
from pytest_mlchaos.errors import BadArgument
from pytest_mlchaos.processes.subprocess_runner import FreshProcesses, fresh_processes

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
IMPORTED_BY = os.getpid()
"""The process that imported this module."""


@pytest.fixture
def fresh():
    """Provide the session's processes. None runs after the test."""
    return fresh_processes()


def add(a, b=1):
    """A module's function."""
    return a + b


def running(pid):
    """Return True if a process runs."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    return False


def ended_soon(pid, seconds=10):
    """Return True if it ends by then."""
    until = time.monotonic() + seconds
    while running(pid) and time.monotonic() < until:
        time.sleep(0.02)
    return not running(pid)


def sleeper(*flags):
    """Start a process that sleeps; gives its id."""
    return subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session="session" in flags
    ).pid


# -- what it finds ---------------------------------------------------------------------------------


def late(name, environment):
    """Return True if a library was imported before. Import it now."""
    os.environ.update(environment)
    had = name in sys.modules
    importlib.import_module(name)
    return had


@pytest.mark.slow
@pytest.mark.parametrize(("environment", "again"), [({}, True), ({"MLCHAOS_TEST": "1"}, False)])
def test_a_library_is_imported_once_for_all_unless_the_environment_was_changed(environment, again):
    """A library that one process had to import is ready in the next one.

    If it was imported under a different environment, each process imports it itself.
    """
    name = next(
        name
        for name in ("mailbox", "wave", "sched", "chunk", "filecmp", "tabnanny")
        if name not in sys.modules
    )
    fresh = FreshProcesses()
    try:
        assert [fresh.run(late, name, environment).value for _ in range(3)] == [False, again, again]
    finally:
        fresh.stop()


def test_a_function_runs_in_another_process_and_its_value_comes_home(fresh):
    """With its arguments, exit code 0, and nothing said."""
    ended = fresh.run(add, 2, 3)
    assert (ended.value, ended.error, ended.hung, ended.exitcode, ended.output) == (
        5,
        None,
        False,
        0,
        "",
    )
    assert (ended.stack, ended.left, ended.started, ended.traceback) == ("", (), None, "")
    assert 0 < ended.duration < 60
    assert fresh.run(os.getpid).value not in (os.getpid(), fresh.run(os.getpid).value)


def test_it_finds_environment_directory_path_and_arguments_of_now(fresh, monkeypatch, tmp_path):
    """They are those of its start, not of the start of the first process."""
    pytest.importorskip("cloudpickle")
    fresh.run(add, 1)
    monkeypatch.setenv("MINE", "x")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", "--fast"])
    found = fresh.run(lambda: (dict(os.environ), os.getcwd(), list(sys.path), list(sys.argv))).value
    assert found == (
        dict(os.environ),
        str(tmp_path),
        [os.path.abspath(path) for path in sys.path],
        ["train.py", "--fast"],
    )


def test_each_begins_where_the_first_began(fresh):
    """A value that one process leaves in a module's globals is not in the next one."""
    assert [fresh.run(leaves_a_global).value for _ in range(2)] == ["mine", "mine"]
    assert leaves_a_global() == "mine"
    assert leaves_a_global() == "another's"
    del globals()["LEFT"]


def leaves_a_global():
    """Return True if an earlier call has left its mark."""
    found = "another's" if "LEFT" in globals() else "mine"
    globals()["LEFT"] = True
    return found


def imported_by():
    """Which process imported this module."""
    return IMPORTED_BY


def test_the_users_modules_are_imported_once_for_all(fresh):
    """By a process that all are forked from, out of the very file that is loaded here."""
    first, second = fresh.run(imported_by).value, fresh.run(imported_by).value
    assert first == second != os.getpid()
    assert fresh.run(file_of_this).value == __file__


def file_of_this():
    """Return the file of this module."""
    return __file__


def here():
    """The file and line of the caller's code, and the file's line as a traceback shows it."""
    frame = sys._getframe(1)
    return (
        frame.f_code.co_filename,
        frame.f_lineno,
        linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip(),
    )


def code_made_locally():
    """Functions of each kind that no module holds, and what they return here."""
    decorated_by = "a wrapper"

    def wrapped(function):
        def wrapper():
            return decorated_by, here(), function()

        return wrapper

    class Local:
        inherited = staticmethod(lambda: [here()])

        def method(self):
            return (lambda: [here() for _ in range(2)])(), next(here() for _ in (self,))

        @property
        def attribute(self):
            return here()

        @classmethod
        def of_class(cls):
            def nested():
                return here(), cls.__name__

            return nested()

    class Child(Local):
        def __call__(self):
            return super().method(), self.attribute

    def generator():
        yield here()
        yield here()

    return {
        "lambda": lambda: here(),
        "decorated": wrapped(lambda: here()),
        "method": Local().method,
        "property": lambda: Local().attribute,
        "classmethod": Local.of_class,
        "staticmethod": Local.inherited,
        "callable of a subclass": Child(),
        "partial": functools.partial(lambda x: (x, here()), 1),
        "generator": lambda: list(generator()),
        "default": lambda made=lambda: here(): made(),
        "eval": eval("lambda: here()", globals()),
    }


@pytest.mark.parametrize("kind", code_made_locally())
def test_code_that_is_sent_keeps_its_file_and_lines(fresh, kind):
    """Whatever kind of function it is, and however deep the code is nested; so do functions that
    come home.
    """
    pytest.importorskip("cloudpickle")
    function = code_made_locally()[kind]
    assert fresh.run(function).value == function()
    assert fresh.run(lambda: function).value() == function()


def test_a_traceback_and_a_stack_name_the_users_line_of_a_local_function(fresh):
    """With the text of the line, though the code came by cloudpickle."""
    pytest.importorskip("cloudpickle")

    def subject(ends):
        if ends:
            raise LookupError("mine")  # this line
        time.sleep(600)  # that line

    line = subject.__code__.co_firstlineno + 2
    assert (
        f'File "{__file__}", line {line}, in subject\n    raise LookupError("mine")  # this line\n'
        in fresh.run(subject, True).traceback
    )
    assert (
        f'File "{__file__}", line {line + 1} in subject'
        in fresh.run(subject, False, timeout=0.3).stack
    )


def test_libraries_are_there_before_they_are_asked_for(fresh):
    """Also one that was imported here after the first process had been started."""
    # One that no earlier test has imported
    late = next(name for name in ("poplib", "imaplib", "mailbox") if name not in sys.modules)
    assert not fresh.run(loaded, late).value
    importlib.import_module(late)
    assert fresh.run(loaded, late).value
    assert fresh.run(loaded, "_pytest.runner").value


def loaded(name):
    """Return True if a module is loaded."""
    return name in sys.modules


def _lines_read():
    import linecache
    import traceback

    known = set(linecache.cache)
    traceback.format_stack()
    return known, set(linecache.cache)


def test_lines_of_code_that_one_has_read_are_at_hand_for_the_next(fresh):
    """A traceback there reads no file that an earlier one has read."""
    first, second = (fresh.run(_lines_read).value for _ in range(2))
    assert __file__ in first[1]
    assert second[0] >= first[1]
    assert second[1] == second[0]


def _born():
    return int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])


@linux
def test_the_next_one_is_forked_ahead_and_knows_what_was_imported_since(
    fresh, tmp_path, monkeypatch
):
    """It is there before it is asked for; a module that is loaded later is in it all the same."""
    fresh.run(_born)
    time.sleep(0.5)
    asked = time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")
    assert fresh.run(_born).value < asked - 10
    (tmp_path / "came_later.py").write_text(
        "import os\nHERE = os.getpid()\ndef told(): return HERE, os.getpid()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    told = importlib.import_module("came_later").told
    first, second = (fresh.run(told).value for _ in range(2))
    # Each was forked from a process that had imported the module
    assert first[0] != first[1]
    assert second[0] != second[1]
    assert first[1] != second[1]


def test_a_module_that_is_loaded_again_from_another_file_is_another_one_there_too(
    fresh, tmp_path, monkeypatch
):
    """The warm process does not stick to what it has."""
    found = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "of_many.py").write_text(f"def which(): return {number}\n")
        monkeypatch.syspath_prepend(folder)
        sys.modules.pop("of_many", None)
        import of_many

        found.append(fresh.run(of_many.which).value)
    assert found == [0, 1]
    sys.modules.pop("of_many", None)


@pytest.mark.slow
@linux
def test_a_module_that_starts_a_thread_is_imported_by_each_process_itself(tmp_path, monkeypatch):
    """A fork of the thread's process could hang; and the thread is there, too."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "has_thread.py").write_text(
        "import os, threading\nWHO = os.getpid()\nworker = "
        "threading.Thread(target=threading.Event().wait, daemon=True)\nworker.start()\n"
        "def who(): return WHO, os.getpid(), worker.is_alive()\n"
    )
    import has_thread

    fresh = FreshProcesses()
    try:
        fresh.run(os.getpid)
        before = fresh.threads  # an allocator of a library's may have one
        for _ in range(2):
            importer, own, alive = fresh.run(has_thread.who).value
            assert importer == own
            assert alive
        assert fresh.threads == before
    finally:
        fresh.stop()
        sys.modules.pop("has_thread")


@linux
@pytest.mark.parametrize(
    "code",
    [
        "import threading\nworker = threading.Thread(target=threading.Event().wait, daemon=True)\n"
        "worker.start()\n",
        "import os\nif os.getpid() != HERE: os._exit(3)\n",
    ],
    ids=["thread", "exit"],
)
def test_an_unsafe_module_spares_the_others(tmp_path, monkeypatch, code):
    """A function may need several modules. The others are imported once, in advance."""
    monkeypatch.syspath_prepend(tmp_path)
    told = "import os\nHERE = os.getpid()\ndef told(): return HERE, os.getpid()\n"
    (tmp_path / "unsafe.py").write_text(code.replace("HERE", str(os.getpid())))
    (tmp_path / "unsafe_not.py").write_text(told)
    importlib.import_module("unsafe")
    function = importlib.import_module("unsafe_not").told
    fresh = FreshProcesses()
    try:
        first, second = (fresh.run(function).value for _ in range(2))
        assert first[0] != first[1]
        assert second[0] != second[1]
    finally:
        fresh.stop()
        for name in ("unsafe", "unsafe_not"):
            sys.modules.pop(name)


def test_no_fault_strikes_there(fresh, mlchaos):
    """Whatever goes on here."""
    assert current() is not None
    assert fresh.run(is_there_a_controller).value is False


def is_there_a_controller():
    """Return True if a trial is active in this process."""
    return current() is not None


# -- how it ends -----------------------------------------------------------------------------------


def fails(code):
    """Prints and raises."""
    print("to stdout")
    raise KeyError(code)


def test_what_it_raises_comes_home_with_its_traceback_and_output(fresh):
    """The very type; the traceback begins at the function."""
    ended = fresh.run(fails, 7)
    assert isinstance(ended.error, KeyError)
    assert ended.error.args == (7,)
    assert ended.exitcode == 1
    assert ended.output.startswith("to stdout\nTraceback")
    assert ended.output.rstrip().endswith("KeyError: 7")
    assert ended.traceback.splitlines()[1].endswith("in fails")


class Stubborn(Exception):
    """Cannot be pickled."""

    def __reduce__(self):
        raise TypeError("no")


def stubborn():
    """Raises it."""
    raise Stubborn("its words")


def test_an_error_that_cannot_be_sent_comes_home_in_words(fresh):
    """Its type and text."""
    error = fresh.run(stubborn).error
    assert isinstance(error, ChildProcessError)
    assert "Stubborn: its words" in str(error)


@pytest.mark.parametrize(
    ("leave", "argument", "exitcode"),
    [(sys.exit, 3, 3), (os._exit, 4, 4), (os.abort, None, -signal.SIGABRT), (sys.exit, None, 0)],
)
def test_exit_codes_are_those_of_processes(fresh, leave, argument, exitcode):
    """``sys.exit``, ``os._exit`` and signals."""
    ended = fresh.run(leave) if argument is None else fresh.run(leave, argument)
    assert (ended.exitcode, ended.value, ended.hung, ended.started) == (exitcode, None, False, None)
    assert isinstance(ended.error, SystemExit) == (leave is sys.exit)


def dies():
    """Die in the middle of a write, like ``kill -9``."""
    print("a line")
    os.write(2, b"half a li")
    os.kill(os.getpid(), signal.SIGKILL)


def test_one_that_is_killed_has_told_what_it_wrote(fresh):
    """And the next one is not concerned."""
    ended = fresh.run(dies)
    assert (ended.exitcode, ended.output, ended.hung, ended.started) == (
        -9,
        "a line\nhalf a li",
        False,
        None,
    )
    assert fresh.run(add, 1).value == 2


def talks(size):
    """Writes more than a pipe holds; so do others for it."""
    print("x" * size)
    subprocess.run([sys.executable, "-c", "print('from below')"], check=True)


def test_output_is_caught_whatever_writes_it_and_however_much(fresh):
    """Output below Python is captured too, even if no thread reads it in between."""
    task = fresh.start(talks, 1 << 20, timeout=60)
    assert task.wait().output == "x" * (1 << 20) + "\nfrom below\n"


def a_lot():
    """A value of 8 MB."""
    return bytes(1 << 23)


def test_values_may_be_large_in_both_directions(fresh):
    """8 MB each."""
    assert fresh.run(len, bytes(1 << 23)).value == 1 << 23
    assert fresh.run(a_lot).value == bytes(1 << 23)


def hangs(how):
    """In a line of its own."""
    print("now")
    how(600)


def test_one_that_hangs_is_cut_off_and_shows_where_it_stood(fresh):
    """The innermost frame first, and only those of the function."""
    begun = time.monotonic()
    ended = fresh.run(hangs, time.sleep, timeout=0.3)
    assert time.monotonic() - begun < 20
    assert (ended.hung, ended.exitcode, ended.output, ended.value) == (True, -9, "now\n", None)
    assert len(ended.stack.splitlines()) == 1
    assert ended.stack.endswith("in hangs")


def blocks_sigterm(_):
    """Takes every signal but one for nothing."""
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    time.sleep(600)


def test_one_that_blocks_all_signals_is_cut_off_too(fresh):
    """Without a stack, then."""
    ended = fresh.run(hangs, blocks_sigterm, timeout=0.1)
    assert (ended.hung, ended.exitcode, ended.stack) == (True, -9, "")


def leaves_thread(seconds):
    """Returns at once; a thread works on."""
    threading.Thread(target=lambda: (time.sleep(seconds), print("done"))).start()


def test_threads_that_are_no_daemons_are_waited_for(fresh):
    """The interpreter waits for them, and their time counts for the process."""
    ended = fresh.run(leaves_thread, 0.2)
    assert ended.output == "done\n"
    assert ended.duration >= 0.2
    assert fresh.run(leaves_thread, 600, timeout=0.2).hung


def registers(path):
    """For its end."""
    import atexit
    import tempfile

    atexit.register(Path(path).write_text, "left")
    global held
    held = tempfile.TemporaryDirectory()
    return held.name


def test_it_leaves_as_interpreters_do(fresh, tmp_path):
    """Exit functions run, temporary directories of its own are removed."""
    folder = fresh.run(registers, str(tmp_path / "a")).value
    assert (tmp_path / "a").read_text() == "left"
    assert not os.path.exists(folder)


@pytest.mark.parametrize(
    "what", [lambda: (i for i in ()), threading.Lock], ids=["generator", "lock"]
)
def test_what_cannot_be_sent_home_is_an_error_that_says_so(fresh, what):
    """With the type."""
    pytest.importorskip("cloudpickle")
    error = fresh.run(what).error
    assert isinstance(error, BadArgument)
    assert "cannot be sent back" in str(error)
    assert type(what()).__name__ in str(error)


def test_what_cannot_be_sent_there_is_refused(fresh, monkeypatch):
    """With the reason, and the cure where there is one."""
    reason = "TypeError.*generator" if importlib.util.find_spec("cloudpickle") else "TypeError"
    with pytest.raises(
        BadArgument, match=f"add and its arguments cannot be sent to a fresh process: {reason}"
    ):
        fresh.run(add, (i for i in ()))
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(BadArgument, match=r"lambda.*pip install 'pytest-mlchaos\[process\]'"):
        fresh.run(lambda: 1)


def test_a_function_that_does_not_load_there_was_not_started(fresh, tmp_path, monkeypatch):
    """And the reason is in words."""
    (tmp_path / "only_here.py").write_text(
        f"import os\nassert os.getpid() == {os.getpid()}, 'not here'\ndef f(): return 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import only_here

    ended = fresh.run(only_here.f)
    sys.modules.pop("only_here")
    assert (
        ended.started == "the function does not load in a fresh process: AssertionError: not here"
    )
    assert (ended.value, ended.error) == (None, None)


# -- several ---------------------------------------------------------------------------------------


def meet(folder, own, other):
    """Wait for one that waits for this one."""
    (Path(folder) / own).touch()
    while not (Path(folder) / other).exists():
        time.sleep(0.005)
    return own


def test_several_run_at_once(fresh, tmp_path):
    """Each would wait for the other for ever."""
    tasks = [fresh.start(meet, tmp_path, *names, timeout=30) for names in ("ab", "ba")]
    assert [task.wait().value for task in tasks] == ["a", "b"]
    assert tasks[0].wait().value == "a"


def test_one_is_ended_on_request_and_no_other(fresh, tmp_path):
    """It tells how it ended all the same."""
    long, short = fresh.start(time.sleep, 600), fresh.start(meet, tmp_path, "a", "b", timeout=30)
    long.end()
    assert (long.wait().exitcode, long.wait().hung) == (-9, False)
    (tmp_path / "b").touch()
    assert short.wait().value == "a"
    short.end()


# -- no process is left ----------------------------------------------------------------------------


def leaves(path, *flags):
    """Starts a process, and goes."""
    Path(path).write_text(str(sleeper(*flags)))


def test_one_may_be_ended_at_any_moment_of_its_start(fresh):
    """Nothing that is said to its supervisor is lost."""
    for _ in range(20):
        task = fresh.start(time.sleep, 600)
        task.end()
        assert task.wait().exitcode == -9


@linux
@pytest.mark.parametrize(
    "flags", [(), ("session",)], ids=["in its group", "in a session of its own"]
)
def test_processes_that_it_leaves_are_named_and_ended(fresh, tmp_path, flags):
    """Whatever session they are in, and not those of another task."""
    other = fresh.start(meet, tmp_path, "a", "b", timeout=30)
    ended = fresh.run(leaves, tmp_path / "pid", *flags)
    assert ended.value is None
    assert len(ended.left) == 1
    assert "python" in ended.left[0]
    assert not running(int((tmp_path / "pid").read_text()))
    (tmp_path / "b").touch()
    assert other.wait().left == ()


def hangs_with_family(path):
    """Two processes below it."""
    Path(path).write_text(f"{os.getpid()} {sleeper()} {sleeper('session')}")
    time.sleep(600)


@linux
def test_one_that_is_cut_off_takes_its_family_along(fresh, tmp_path):
    """All are gone when that is told."""
    ended = fresh.run(hangs_with_family, tmp_path / "pids", timeout=1)
    assert len(ended.left) >= 1
    assert not [pid for pid in (tmp_path / "pids").read_text().split() if running(pid)]


def pool():
    """Processes that the standard library starts end by themselves."""
    import multiprocessing

    with multiprocessing.get_context("spawn").Pool(1) as workers:
        return workers.map(abs, [-1])


@linux
def test_a_pool_that_ends_with_its_process_is_nobody_left(fresh):
    """A resource tracker lives a moment longer."""
    ended = fresh.run(pool, timeout=60)
    assert (ended.value, ended.left) == ([1], ())


@linux
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT], ids=lambda signum: signum.name)
def test_when_the_runner_is_gone_nobody_is_left(tmp_path, signum):
    """Killed or interrupted, waiting or not; the warm process and the keepers go, too."""
    pytest.importorskip("cloudpickle")  # the script's own function is sent
    script = """
    import os, subprocess, sys, time
    from pytest_mlchaos.processes.subprocess_runner import fresh_processes

    def family(path):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
        open(path, "w").write(f"{os.getpid()} {os.getppid()} {child.pid}")
        os.rename(path, path + "!")
        time.sleep(600)

    fresh = fresh_processes()
    one = fresh.start(family, sys.argv[1] + "/a")
    fresh.run(family, sys.argv[1] + "/b")
    """
    (tmp_path / "runner.py").write_text(textwrap.dedent(script))
    runner = subprocess.Popen(
        [sys.executable, tmp_path / "runner.py", tmp_path],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + 60
        while (
            not ((tmp_path / "a!").exists() and (tmp_path / "b!").exists())
            and time.monotonic() < until
        ):
            time.sleep(0.02)
        pids = [int(pid) for name in ("a!", "b!") for pid in (tmp_path / name).read_text().split()]
        warm = int(Path(f"/proc/{runner.pid}/task/{runner.pid}/children").read_text())
        assert all(running(pid) for pid in (*pids, warm))
        runner.send_signal(signum)
        runner.wait(90)
        assert all(ended_soon(pid) for pid in (*pids, warm))
    finally:
        runner.kill()
        runner.wait()


@pytest.mark.slow
@linux
def test_stopping_ends_all_and_the_next_start_begins_anew():
    """Also the warm process; a task that ran says that it was not to be heard of any more."""
    fresh = FreshProcesses()
    task, pid = fresh.start(time.sleep, 600), fresh.run(os.getppid).value
    warm = fresh._server._process.pid
    fresh.stop()
    assert ended_soon(pid)
    assert not running(warm)
    assert "does not answer" in task.wait().started
    assert fresh.run(add, 1).value == 2
    fresh.stop()


@linux
@pytest.mark.parametrize(
    "call", [lambda fresh: fresh.run(add, 1), FreshProcesses.prepare], ids=["run", "prepare"]
)
def test_an_interrupt_before_a_supervisor_is_used_leaves_none_behind(fresh, monkeypatch, call):
    """It waits until the supervisor is taken, and comes before a job is sent to it."""

    class Interrupted(list):
        def pop(self):
            signal.raise_signal(signal.SIGINT)
            return super().pop()

    fresh.prepare()
    monkeypatch.setattr(fresh, "_idle", Interrupted(fresh._idle))
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            call(fresh)
    finally:
        signal.signal(signal.SIGINT, handler)
        monkeypatch.setattr(fresh, "_idle", list(fresh._idle))
    assert fresh._supervisors == set(fresh._idle)
    assert fresh.run(add, 1).value == 2


@linux
def test_a_supervisor_that_is_killed_is_replaced(fresh):
    """By the machine's memory killer, say."""
    os.kill(fresh.run(os.getppid).value, signal.SIGKILL)
    assert fresh.run(add, 1).value == 2


@linux
def test_a_supervisor_that_is_killed_with_its_job_unread_is_replaced(fresh):
    """The job has not begun, so another supervisor does it."""
    fresh.run(add, 1)
    supervisor = fresh.run(os.getppid).value
    os.kill(supervisor, signal.SIGSTOP)
    task = fresh.start(add, 1)
    os.kill(supervisor, signal.SIGKILL)
    assert task.wait().value == 2


# -- random numbers and threads --------------------------------------------------------------------


def test_global_random_numbers_are_the_functions_to_seed(fresh):
    """Seeded alike they are alike."""
    pytest.importorskip("cloudpickle")

    def draw():
        random.seed(3)
        return random.random()

    assert fresh.run(draw).value == fresh.run(draw).value


def test_torch_computes_there_with_threads(fresh, monkeypatch):
    """A fork of a process that had used OpenMP would hang; here each has its own, as many as the
    environment says.
    """
    torch = pytest.importorskip("torch")
    pytest.importorskip("cloudpickle")
    matrix = torch.rand(300, 300)
    matrix @ matrix

    def compute():
        return torch.get_num_threads(), float((matrix @ matrix).sum())

    for number in (1, 2):
        monkeypatch.setenv("OMP_NUM_THREADS", str(number))
        found, total = fresh.run(compute, timeout=60).value
        assert found == number
        assert total == pytest.approx(float((matrix @ matrix).sum()), rel=1e-4)


def searched_for_names(function):
    """Return how many modules are searched for names of a function, and which have one."""
    search, searched = module_names._bound, []

    def counting(wanted, modules):
        searched.append(len(modules))
        return search(wanted, modules)

    module_names._bound = counting
    try:
        found = {at.module.__name__ for at in module_names.names.find([function])}
    finally:
        module_names._bound = search
    return sum(searched), found


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="dicts have no version")
def test_fresh_process_knows_the_names_of_system_functions(fresh):
    """A search of all modules would take longer than all else that a run in it needs."""
    ended = fresh.run(searched_for_names, os.stat)
    assert ended.error is None
    searched, found = ended.value
    assert {"os", "posix"} <= found
    assert searched < len(sys.modules) / 10
