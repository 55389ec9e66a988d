"""Give a client its data, changed if a fault poisons it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ..core.federation import Change
from ..core.privacy import data_text
from ..engine.patching import Patches
from ..errors import BadArgument
from ..sites.calls import replace, resolve

__all__ = ["Data"]


class Data:
    """The data of all clients.

    Args:
        given: ``data=`` of ``mlchaos.federation``: a dataset for each client, or a dotted function
            that clients call to load their data. None if it is not known.
        clients: The number of clients.
    """

    def __init__(self, given: Any, clients: int) -> None:
        self._target = given if isinstance(given, str) else ""
        self._given = given
        if self._target:
            resolve(self._target)
        elif given is not None and not _fits(given, clients):
            raise BadArgument(
                f"mlchaos.federation: data must be a list with a dataset for each of {clients} "
                f"clients, or 'pkg.mod:function' that loads one, got {data_text(given)}"
            )

    @property
    def is_known(self) -> bool:
        """Return True if it can be changed."""
        return self._given is not None

    @property
    def is_passed(self) -> bool:
        """Return True if clients receive it as an argument."""
        return self.is_known and not self._target

    def of(self, client: int, changes: Sequence[Change]) -> Any:
        """Return the data of a client."""
        return _changed(self._given[client], changes)

    @contextlib.contextmanager
    def loaded(self, changes: Sequence[Change]) -> Iterator[None]:
        """Change what the loading function returns inside."""
        if not self._target or not changes:
            yield
            return

        def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(function)
            def load(*args: Any, **kwargs: Any) -> Any:
                return _changed(function(*args, **kwargs), changes)

            return load

        with Patches() as patches:
            replace(patches, self._target, wrap)
            yield


def _fits(given: Any, clients: int) -> bool:
    if isinstance(given, Mapping):
        return all(client in given for client in range(clients))
    return isinstance(given, Sequence) and len(given) == clients


def _changed(data: Any, changes: Sequence[Change]) -> Any:
    for change in changes:
        data = change(data)
    return data
