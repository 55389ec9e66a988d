"""Test that no name of a replaced function is missed, although few modules are searched."""

from __future__ import annotations

import importlib
import sys
import threading
import time
import types
import weakref

import pytest

from pytest_mlchaos import faults, sites
from pytest_mlchaos.core.faults import EVERY, create
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.engine import dict_versions, module_names, patching, virtual_time
from pytest_mlchaos.engine.module_names import ModuleNames
from pytest_mlchaos.engine.patching import Patches, aliases
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.errors import TargetNotFound

faults.load()
sites.load()
LIBRARY, USER = "mlchaos_names_library", "mlchaos_names_user"


@pytest.fixture(params=["versioned", "unversioned"])
def names(request, monkeypatch):
    """New names, with the versions of dicts and without."""
    if request.param == "unversioned":
        monkeypatch.setattr(module_names, "is_versioned", lambda: False)
    made = ModuleNames()
    monkeypatch.setattr(patching, "names", made)
    return made


@pytest.fixture
def library(tmp_path, monkeypatch, names):
    """A library with a function, and a user that is not imported yet. One trial has been."""
    (tmp_path / f"{LIBRARY}.py").write_text("def function():\n    return 'original'\n")
    (tmp_path / f"{USER}.py").write_text(f"from {LIBRARY} import function\nother = None\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    importlib.invalidate_caches()
    library = importlib.import_module(LIBRARY)
    with replaced(library):
        pass
    yield library
    for name in (LIBRARY, USER):
        sys.modules.pop(name, None)


def replaced(library):
    """A trial: the function is replaced under all its names."""
    patches = Patches()
    patches.replace_everywhere(library.function, lambda: "replacement")
    return patches


def test_a_module_imported_between_trials_is_replaced(library):
    """Its name is found, although the function was searched for before."""
    user = importlib.import_module(USER)
    with replaced(library):
        assert user.function() == "replacement"
    assert user.function() == "original"


def test_a_module_imported_in_a_trial_is_restored(library):
    """It copied the replacement."""
    with replaced(library):
        user = importlib.import_module(USER)
        assert user.function() == "replacement"
    assert user.function() == "original"


def test_a_from_import_in_a_trial_is_restored_and_replaced(library):
    """A statement in a function writes a global name."""
    user = importlib.import_module(USER)
    code = f"def act():\n    global other\n    from {LIBRARY} import function as other\nact()"
    with replaced(library):
        exec(code, vars(user))
        assert user.other() == "replacement"
    assert user.other() == "original"
    with replaced(library):
        assert user.other() == "replacement"


def test_an_attribute_rebound_between_trials_is_replaced(library):
    """The number of names stays the same."""
    user = importlib.import_module(USER)
    with replaced(library):
        assert user.other is None
    user.other = library.function
    with replaced(library):
        assert user.other() == "replacement"
    user.other = None
    with replaced(library):
        assert user.other is None
    assert user.other is None


def test_a_name_rebound_in_a_trial_stays_so(library):
    """A trial restores its replacements only."""
    user = importlib.import_module(USER)
    with replaced(library):
        user.function = len
    assert user.function is len
    with replaced(library):
        assert user.function is len


def test_a_monkeypatched_name_is_replaced_and_restored(library):
    """A fixture patches around a trial, and in it."""
    user = importlib.import_module(USER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(user, "other", library.function)
        with replaced(library):
            assert user.other() == "replacement"
        assert user.other() == "original"
    with replaced(library), pytest.MonkeyPatch.context() as patch:
        patch.setattr(user, "other", user.function)
        assert user.other() == "replacement"
    assert user.other is None


def test_a_monkeypatch_that_restores_a_replacement_is_swept(library):
    """It remembers the replacement, and sets it again after the trial."""
    user, patch = importlib.import_module(USER), pytest.MonkeyPatch()
    with replaced(library) as patches:
        patch.setattr(user, "function", None)
    patch.undo()
    assert user.function() == "replacement"
    patches.sweep()
    assert user.function() == "original"


def test_a_reloaded_module_is_replaced(library):
    """The namespace is the same, and the user of a reloaded library has a new function."""
    user = importlib.import_module(USER)
    user.other = library.function
    with replaced(library):
        pass
    importlib.reload(user)
    with replaced(library):
        assert (user.function(), user.other) == ("replacement", None)
    importlib.reload(library)
    assert user.function is not library.function
    with replaced(library):
        assert (library.function(), user.function()) == ("replacement", "original")
    importlib.reload(user)
    with replaced(library):
        assert (library.function(), user.function()) == ("replacement", "replacement")


def test_a_module_reloaded_in_a_trial_is_restored(library):
    """It took the replacement from the library."""
    user = importlib.import_module(USER)
    with replaced(library):
        importlib.reload(user)
        assert user.function() == "replacement"
    assert user.function() == "original"


def test_a_module_that_is_removed_is_left_alone(library):
    """The trials search ``sys.modules`` alone."""
    user = importlib.import_module(USER)
    with replaced(library):
        assert user.function() == "replacement"
    del sys.modules[USER]
    with replaced(library):
        assert user.function() == "original"
    sys.modules[USER] = user
    with replaced(library):
        assert user.function() == "replacement"
    assert user.function() == "original"


def test_a_module_that_takes_the_place_of_another_is_replaced(library):
    """The key in sys.modules and the number of modules are the same."""
    importlib.import_module(USER)
    with replaced(library):
        pass
    other = sys.modules[USER] = types.ModuleType(USER)
    other.function = library.function
    with replaced(library):
        assert other.function() == "replacement"
    assert other.function() == "original"


def test_a_function_that_was_never_replaced_is_found_in_old_modules(library, names):
    """A trial that knows one function searches all modules for another."""
    user = importlib.import_module(USER)
    user.other = original = lambda: "other"
    with replaced(library):
        pass
    with replaced(library), Patches() as patches:
        patches.replace_everywhere(original, lambda: "replacement")
        assert user.other() == "replacement"
    assert user.other is original


def test_a_module_that_computes_its_names_is_searched_each_time(library):
    """It may show a different namespace each time."""

    class Computed(types.ModuleType):
        @property
        def __dict__(self):
            return spaces[-1]

        def __setattr__(self, name, value):
            spaces[-1][name] = value

    spaces = [{}]
    sys.modules[USER] = Computed(USER)
    with replaced(library):
        pass
    spaces.append({"function": library.function})
    with replaced(library):
        assert spaces[-1]["function"]() == "replacement"
    assert spaces[-1]["function"]() == "original"


def test_an_object_that_claims_to_be_a_module_is_searched(library):
    """A proxy in the place of a module cannot be referred to weakly."""

    class Proxy:
        __slots__ = ("__dict__",)
        __class__ = types.ModuleType

    user = sys.modules[USER] = Proxy()
    user.function = library.function
    with replaced(library):
        assert user.function() == "replacement"
    assert user.function() == "original"


def test_a_name_that_is_gone_is_forgotten(library):
    """A search for the same function finds what is bound now."""
    user = importlib.import_module(USER)
    user.other = library.function
    assert {name for _, name in aliases(library.function)} == {"function", "other"}
    user.other = None
    assert [name for _, name in aliases(library.function)] == ["function", "function"]


def test_a_name_that_a_patch_binds_is_found_once(library):
    """The plugin's own changes are changes, too."""
    user = importlib.import_module(USER)
    assert len(list(aliases(library.function))) == 2
    with Patches() as patches:
        patches.set(user, "other", library.function)
        assert len(list(aliases(library.function))) == 3
        patches.set(user, "function", None)
        assert len(list(aliases(library.function))) == 2
    assert len(list(aliases(library.function))) == 2


def test_a_patch_does_not_hide_a_change_of_its_module(library):
    """The user binds a name, and the plugin a different one, before a search."""
    user = importlib.import_module(USER)
    with replaced(library):
        pass
    user.other = library.function
    with Patches() as patches:
        patches.set(user, "another", 1)
        patches.replace_everywhere(library.function, lambda: "replacement")
        assert user.other() == "replacement"
    assert user.other() == "original"


def test_a_subclass_of_modules_is_searched_when_it_changed(library):
    """A library may set the class of its module."""

    class Lazy(types.ModuleType):
        """It has a namespace like all others."""

    user = sys.modules[USER] = Lazy(USER)
    with replaced(library):
        pass
    user.function = library.function
    for _ in range(2):
        with replaced(library):
            assert user.function() == "replacement"
        assert user.function() == "original"


def test_entries_that_are_not_modules_are_passed_over(library, monkeypatch):
    """None forbids an import, and other objects may be there."""
    monkeypatch.setitem(sys.modules, "mlchaos_names_none", None)
    monkeypatch.setitem(sys.modules, "mlchaos_names_object", 3)
    with replaced(library):
        assert library.function() == "replacement"
    assert library.function() == "original"


def test_names_keep_no_module_and_no_function_alive(library, names):
    """A removed module is gone, with what it held."""
    user = importlib.import_module(USER)
    user.other = lambda: None
    with Patches() as patches:
        patches.replace_everywhere(user.other, lambda: None)
    module, function = weakref.ref(user), weakref.ref(user.other)
    del sys.modules[USER], user, patches
    assert module() is None
    assert function() is None


@pytest.mark.slow
def test_changes_by_other_threads_are_noticed(library):
    """A thread binds the function while trials come and go."""
    user, stop = importlib.import_module(USER), threading.Event()
    original = library.function

    def bind():
        while not stop.is_set():
            user.other = None
            user.other = original

    thread = threading.Thread(target=bind)
    thread.start()
    try:
        for _ in range(50):
            with replaced(library):
                pass
    finally:
        stop.set()
        thread.join()
    with replaced(library):
        assert user.other() == "replacement"
    assert user.other() == "original"


def test_a_target_keeps_its_aliases_over_trials(library):
    """The site itself, in trials of one test."""
    user = importlib.import_module(USER)
    schedule = Schedule((create("call_failure", target=f"{LIBRARY}:function", at=EVERY),))
    for _ in range(3):
        with trial(schedule, Patches()), pytest.raises(RuntimeError, match="injected"):
            user.function()
        assert user.function() == "original"
    del user.function, library.function
    with pytest.raises(TargetNotFound), trial(schedule, Patches()):
        pass


def test_virtual_time_reaches_names_bound_later(library, names, monkeypatch):
    """A module takes ``sleep`` between two trials, in place of another value."""
    monkeypatch.setattr(virtual_time, "names", names)
    user = importlib.import_module(USER)
    with trial(Schedule(()), Patches(), clock="virtual"):
        pass
    real = user.other = time.sleep
    with trial(Schedule(()), Patches(), clock="virtual") as controller:
        user.other(1000)
        assert controller.clock.now() >= 1000
    assert user.other is real


def test_few_modules_are_searched_in_later_trials(library, monkeypatch):
    """The modules that did not change are not looked at."""
    if not dict_versions.is_versioned():
        pytest.skip("this interpreter has no versions of dicts")
    monkeypatch.setattr(module_names, "is_versioned", lambda: True)
    monkeypatch.setattr(patching, "names", ModuleNames())
    with replaced(library):
        pass
    searched = []
    bound = module_names._bound

    def counted(wanted, modules):
        searched.extend(modules)
        return bound(wanted, modules)

    monkeypatch.setattr(module_names, "_bound", counted)
    with replaced(library):
        pass
    assert len(searched) < len(sys.modules) / 10
