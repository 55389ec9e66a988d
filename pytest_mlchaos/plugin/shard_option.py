"""Add the option ``--mlchaos-shard``. Without it, nothing of ``sharding.py`` is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ..core.shards import Shard
    from ..reports.collector import Collector

__all__ = ["add_option", "begin", "note", "shard_of_search", "shard_of_states"]


def add_option(group: pytest.OptionGroup) -> None:
    """Add the option."""
    group.addoption(
        "--mlchaos-shard",
        dest="mlchaos_shard",
        metavar="K/N",
        help="run part K of N of the crash states, schedules and tests, or auto: as the cluster says",
    )


def _given(config: pytest.Config) -> bool:
    return config.getoption("mlchaos_shard") is not None


def begin(config: pytest.Config) -> None:
    """Register the plugin that divides the session, if it is a shard."""
    if _given(config):
        from .sharding import begin_shard

        begin_shard(config)


def note(config: pytest.Config, collector: Collector) -> None:
    """Let the journal say which shard it is of."""
    if _given(config):
        from .sharding import note_shard

        note_shard(config, collector)


def shard_of_search(item: pytest.Item) -> Shard | None:
    """Return the shard if this test tries a part of its schedules, or None for all of them."""
    if not _given(item.config):
        return None
    from .sharding import shard_of_search as found

    return found(item)


def shard_of_states(item: pytest.Item) -> Shard | None:
    """Return the shard if this test tries a part of its crash states, or None for all of them."""
    if not _given(item.config):
        return None
    from .sharding import shard_of_states as found

    return found(item)
