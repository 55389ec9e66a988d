"""Run one shard of a session (``--mlchaos-shard=K/N``).

Explorations of crash states and searches run in each shard, which takes its part of them. Each
other test belongs to one shard.
"""

from __future__ import annotations

import pytest

from ..core.shards import Shard
from ..errors import BadArgument

__all__ = ["read_shard", "shard_of"]

_shard: pytest.StashKey[Shard | None] = pytest.StashKey()


def read_shard(config: pytest.Config) -> Shard | None:
    """Read the option once. A wrong one ends the session."""
    given = config.getoption("mlchaos_shard")
    try:
        config.stash[_shard] = None if given is None else Shard.parse(given)
    except BadArgument as error:
        raise pytest.UsageError(str(error)) from None
    return config.stash[_shard]


def shard_of(config: pytest.Config) -> Shard | None:
    """Return the shard that this session runs, or None if it runs everything."""
    return config.stash.get(_shard, None)
