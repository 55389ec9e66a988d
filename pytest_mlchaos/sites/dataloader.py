"""Define ``data.batch``: each batch that a DataLoader or a wrapped iterable gives.

The batches of its workers count too.
"""

from __future__ import annotations

import functools
import signal
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from ..core.sites import Key, site
from ..engine.controller import Controller, current
from ..engine.hang import let_children_hang
from ..engine.patching import Patches, family
from ..engine.streams import Source

__all__ = ["Batches", "batches", "watch_batches"]

T = TypeVar("T")
SITE = "data.batch"


@site(SITE, "A batch, about to reach the training loop. Payload: the batch.", needs="torch")
def arm_batch(controller: Controller, patches: Patches, key: Key) -> None:
    """Make each batch a visit."""
    let_children_hang(patches)
    _hear_of_deaths(controller, patches)
    sources: weakref.WeakKeyDictionary[Any, Source] = weakref.WeakKeyDictionary()

    def following(iterator: object, original: Callable[[Any], Any]) -> Any:
        source = sources.get(iterator)
        if source is None:
            alive = weakref.proxy(iterator)
            source = sources[iterator] = Source(SITE, lambda: original(alive), {"loader": alive})
        return source.following(controller)

    _wrap_iterators(patches, following)
    _on_reset(patches, lambda iterator: sources.pop(iterator, None))


def _hear_of_deaths(controller: Controller, patches: Patches) -> None:
    """Let each simulated process detect the deaths of its workers, as a new process does.

    torch sets its handler of SIGCHLD only once. If the program restores the previous handler, as
    trainers do at their end, torch does not notice. The next test in this process would detect a
    death late or never.
    """
    from torch.utils.data._utils import signal_handling

    original = signal_handling._set_SIGCHLD_handler
    known = False

    def forget() -> None:
        nonlocal known
        known = False

    @functools.wraps(original)
    def set_handler() -> None:
        nonlocal known
        if not known:
            known = True
            controller.process.callback(forget)
            if (
                getattr(signal.getsignal(signal.SIGCHLD), "__module__", None)
                != signal_handling.__name__
            ):
                signal_handling._SIGCHLD_handler_set = False
        original()

    if hasattr(signal, "SIGCHLD"):
        patches.set(signal_handling, "_set_SIGCHLD_handler", set_handler)


def _on_reset(patches: Patches, forget: Callable[[Any], object]) -> None:
    """Forget the changes of faults to a stream when its epoch ends.

    With persistent workers, all epochs use the same iterator, which torch resets.
    """
    from torch.utils.data import dataloader

    base = dataloader._BaseDataLoaderIter
    original: Any = base._reset

    @functools.wraps(original)
    def reset(self: object, *args: object, **kwargs: object) -> None:
        forget(self)
        original(self, *args, **kwargs)

    patches.set(base, "_reset", reset)


def watch_batches(
    patches: Patches,
    on_batch: Callable[[Any], Any],
    on_epoch: Callable[[Any], object] = lambda loader: None,
    on_seeded: Callable[[bool], object] = lambda used: None,
) -> None:
    """Call ``on_batch`` with each batch of a DataLoader, and return its result instead.

    Args:
        patches: The patches of the trial or run.
        on_batch: A function that returns the new batch.
        on_epoch: A function that is called with the loader before an iterator is made.
        on_seeded: A function that is called when an iterator has drawn its seed. Its argument is
            True if the iterator has workers, which are the only users of the seed.
    """
    _wrap_iterators(
        patches, lambda iterator, original: on_batch(original(iterator)), on_epoch, on_seeded
    )


def _wrap_iterators(
    patches: Patches,
    on_next: Callable[[Any, Callable[[Any], Any]], Any],
    on_epoch: Callable[[Any], object] = lambda loader: None,
    on_seeded: Callable[[bool], object] = lambda used: None,
) -> None:
    """Call ``on_next(iterator, its own __next__)`` for each batch, and return its result.

    This patches ``__next__`` of all classes of DataLoader iterators, also of those that are defined
    later.
    """
    from torch.utils.data import dataloader

    base = dataloader._BaseDataLoaderIter
    inside = threading.local()
    wrapped: set[type] = set()

    def wrap(cls: type) -> None:
        """Wrap the class's own ``__next__``.

        If it calls that of its parent, this makes one visit, not two.
        """
        wrapped.add(cls)
        original = cls.__dict__.get("__next__")
        if original is None:
            return

        def alone(iterator: object) -> Any:
            inside.on = True
            try:
                return original(iterator)
            finally:
                inside.on = False

        @functools.wraps(original)
        def following(self: object) -> Any:
            return original(self) if getattr(inside, "on", False) else on_next(self, alone)

        patches.set(cls, "__next__", following)

    def wrap_family(cls: type) -> None:
        for relative in cls.__mro__:
            if issubclass(relative, base) and relative not in wrapped:
                wrap(relative)

    construct = base.__init__

    @functools.wraps(construct)
    def constructed(self: object, *args: object, **kwargs: object) -> None:
        wrap_family(type(self))
        on_epoch(args[0] if args else kwargs.get("loader"))
        construct(self, *args, **kwargs)
        on_seeded(bool(getattr(self, "_num_workers", 1)))

    patches.set(base, "__init__", constructed)
    for cls in family(base):
        wrap_family(cls)


class _Outer(Source):
    """The source for an iterable that may be, or contain, a DataLoader.

    That makes the visit itself.
    """

    def __init__(self, iterator: Iterator[Any]) -> None:
        super().__init__(SITE, iterator.__next__)

    def following_if(self, controller: Controller | None) -> Any:
        if controller is None or self.prepared:
            return self.pull()
        before = controller.count(SITE)
        batch = self.pull()
        return batch if controller.count(SITE) != before else self.visited(controller, batch)


class Batches(Generic[T]):
    """An iterable whose items pass ``data.batch``: ``for batch in mlchaos.batches(loader)``.

    Use it for loaders that are not a torch DataLoader. You can iterate over it as often as over the
    wrapped object. Outside of a trial it does nothing. All else (``len``, attributes) is passed to
    the wrapped object.
    """

    def __init__(self, iterable: Iterable[T]) -> None:
        self._iterable = iterable

    def __iter__(self) -> Iterator[T]:
        source = _Outer(iter(self._iterable))
        while True:
            try:
                batch = source.following_if(current())
            except StopIteration:
                return
            yield batch

    def __len__(self) -> int:
        # Like the wrapped object: a TypeError if it has no length.
        return len(self._iterable)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_iterable" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self._iterable, name)


def batches(iterable: Iterable[T]) -> Batches[T]:
    """Wrap an iterable so that each item is a ``data.batch`` visit.

    Use it for loaders that are not a ``torch.utils.data.DataLoader``.
    """
    return Batches(iterable)
