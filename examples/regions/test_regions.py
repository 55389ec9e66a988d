"""A region fails, and comes back. Does the job go on from its newest checkpoint, both times?"""

from collections.abc import Iterator

import pytest

from examples.regions import sound, store, unsound
from pytest_mlchaos import chaos

DAYS = (1.0, 2.0, 3.0, 4.0)


@pytest.fixture
def buckets() -> Iterator[list[str]]:
    """Serve a bucket in each of two regions."""
    with store.bucket() as eu, store.bucket() as us:
        yield [eu, us]


def proxies(mlchaos, buckets):
    """Put a proxy before each bucket, with the name of its region."""
    return [mlchaos.proxy(url, zone=zone) for url, zone in zip(buckets, ("eu", "us"), strict=True)]


@chaos.zone_outage(zone="eu", connections=3)
def test_unsound_regions(mlchaos, buckets):
    """Three requests fail over. Then the first region is back, with an old checkpoint."""
    run = mlchaos.pipeline(unsound.train, proxies(mlchaos, buckets), DAYS)
    run.assert_same_output()


@chaos.zone_outage(zone="eu", connections=3)
def test_sound_regions(mlchaos, buckets):
    """The newest checkpoint counts, and the region that was away gets it."""
    run = mlchaos.pipeline(sound.train, proxies(mlchaos, buckets), DAYS)
    run.assert_same_output()
