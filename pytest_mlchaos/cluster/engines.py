"""The engines. A new one is a module and a row here."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from typing import TYPE_CHECKING, cast

from ..errors import MissingExtra

if TYPE_CHECKING:
    from .engine import Engine, Session

__all__ = ["ENGINES", "EngineKind", "engine_of"]


@dataclasses.dataclass(frozen=True, slots=True)
class EngineKind:
    """One engine.

    Attributes:
        module: Its module in this package.
        name: Its class there.
        library: The library that it needs, or an empty text.
        extra: The extra of this package that installs the library.
        apart: True if the library may end its process, so the session runs in a process apart.
    """

    module: str
    name: str
    library: str = ""
    extra: str = ""
    apart: bool = False

    def check(self, option: str) -> None:
        """Raise MissingExtra if the library is not installed."""
        if self.library and importlib.util.find_spec(self.library) is None:
            raise MissingExtra(option, self.library, self.extra)

    def make(self, session: Session, address: str | None) -> Engine:
        """Import the engine, and return one that runs in this process."""
        kind = getattr(importlib.import_module(f".{self.module}", __package__), self.name)
        return cast("Engine", kind(session, address) if self.library else kind(session))


def engine_of(name: str, session: Session, address: str | None) -> Engine:
    """Return an engine by its name.

    Raises:
        MissingExtra: Its library is not installed.
    """
    kind = ENGINES[name]
    kind.check(f"--on={name}")
    if kind.apart:
        from .apart import ApartEngine

        return ApartEngine(name, session, address)
    return kind.make(session, address)


ENGINES = {
    "local": EngineKind("local", "LocalEngine"),
    "ray": EngineKind("ray_actors", "RayEngine", "ray", "ray", apart=True),
    "dask": EngineKind("dask_client", "DaskEngine", "distributed", "dask"),
}
