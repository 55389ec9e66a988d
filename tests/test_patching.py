"""Test that each patch is restored in any case."""

from __future__ import annotations

import sys
import types

import pytest

from pytest_mlchaos.engine.patching import Patches, aliases


@pytest.fixture
def module():
    """A module of the test's own, with a class in it."""
    made = types.ModuleType("mlchaos_patch_subject")

    class Base:
        def hello(self):
            return "hello"

    class Child(Base):
        pass

    made.Base, made.Child, made.number = Base, Child, 3
    sys.modules[made.__name__] = made
    yield made
    del sys.modules[made.__name__]


def test_attributes_come_back_last_in_first_out(module):
    """Two patches of one attribute restore the first value."""
    with Patches() as patches:
        patches.set(module, "number", 4)
        patches.set(module, "number", 5)
        assert module.number == 5
    assert module.number == 3


def test_an_attribute_that_was_inherited_is_inherited_again(module):
    """The owner's own dictionary ends as it was."""
    with Patches() as patches:
        patches.set(module.Child, "hello", lambda self: "patched")
        assert module.Child().hello() == "patched"
        assert module.Base().hello() == "hello"
    assert "hello" not in vars(module.Child)
    assert module.Child().hello() == "hello"


def test_what_cannot_be_patched_is_told_once_and_harms_nothing(module):
    """A type that is written in C: its own error comes out, at the patch and not at the end."""
    with Patches() as patches:
        patches.set(module, "number", 4)
        with pytest.raises(TypeError, match="immutable type"):
            patches.set(dict, "get", None)
    assert module.number == 3


def test_everything_is_undone_though_one_undo_fails(module):
    """The error comes out at the end."""
    patches = Patches()
    patches.set(module, "number", 4)
    patches.on_undo(lambda: 1 / 0)
    patches.set(module, "number", 5)
    with pytest.raises(ZeroDivisionError):
        patches.undo()
    assert module.number == 3
    assert not patches


def test_an_interrupted_undo_goes_on_when_called_again(module):
    """Ctrl-C in the middle of the clean-up leaves nothing behind."""
    interrupts = [KeyboardInterrupt()]

    def interrupted():
        if interrupts:
            raise interrupts.pop()

    patches = Patches()
    patches.set(module, "number", 4)
    patches.on_undo(interrupted)
    with pytest.raises(KeyboardInterrupt):
        patches.undo()
    assert module.number == 4
    patches.undo()
    assert module.number == 3


def test_every_alias_is_replaced_and_restored_also_one_made_in_between(module):
    """A module imported during the trial would keep the replacement."""

    def original():
        return "original"

    def replacement():
        return "replacement"

    module.one = module.two = original
    with Patches() as patches:
        patches.replace_everywhere(original, replacement)
        assert (module.one(), module.two()) == ("replacement", "replacement")
        module.three = module.one
    assert sorted(name for _, name in aliases(original)) == ["one", "three", "two"]
    assert not list(aliases(replacement))


def test_what_is_replaced_together_within_another_is_part_of_that_one(module):
    """A library that is imported while others are being patched."""

    def one():
        return 1

    def two():
        return 2

    module.one, module.two = one, two
    with Patches() as patches:
        with patches.together():
            with patches.together():
                patches.replace_everywhere(one, lambda: 10)
            patches.replace_everywhere(two, lambda: 20)
            assert module.one is one
        assert (module.one(), module.two()) == (10, 20)
    assert (module.one, module.two) == (one, two)
