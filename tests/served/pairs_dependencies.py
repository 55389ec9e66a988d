"""Apps that a fault of a cache or dependency reveals, each with its sound twin."""

import asyncio
import math

from twins import twins

from pytest_mlchaos import chaos


def read_features(user):
    """Return the features of a user."""
    return {"income": 10.0 * user, "debt": 1.0}


async def read_slowly(user):
    """Return the features of a user, over the network."""
    await asyncio.sleep(0.01)
    return read_features(user)


def predict(features):
    """Return the probability of one class, from a model."""
    return 1 / (1 + math.exp(-features["income"] / 100))


# -- caches ----------------------------------------------------------------------------------------


class Cache:
    """A cache in memory."""

    def __init__(self):
        self.held = {}

    def get(self, key):
        return self.held.get(key)

    def set(self, key, value):
        self.held[key] = value


@twins
@chaos.cache_failure(target="pairs_dependencies:Cache.get")
def test_cache_failure(mlchaos, sound):
    """A cache that is down takes the service with it."""
    cache = Cache()

    def app(user):
        try:
            found = cache.get(user)
        except ConnectionError:
            if not sound:
                raise
            found = None
        if found is None:
            found = read_features(user)["income"]
            cache.held[user] = found
        return found

    mlchaos.serve(app).drive([1, 2, 1, 2]).assert_slo(error_rate=0)


@twins
@chaos.cache_failure(target="pairs_dependencies:Cache.get", kind="miss")
def test_cache_miss(mlchaos, sound):
    """The cache alone has the value: a session, a conversation."""
    cache, store = Cache(), {}

    def app(user):
        count = cache.get(user)
        if count is None:
            count = store.get(user, 0) if sound else 0
        store[user] = count + 1
        cache.set(user, count + 1)
        return count + 1

    mlchaos.serve(app).drive([7] * 4).assert_isolated()


@twins
@chaos.stale_cache(target="pairs_dependencies:Cache.get")
def test_stale_cache(mlchaos, sound):
    """A counter in a cache is read, changed and written."""
    cache = Cache()
    versions = {"balance": 0}

    def app(amount):
        held = cache.get("balance") or (0, 0)
        version, balance = held
        if sound and version != versions["balance"]:
            version, balance = versions["balance"], versions["value"]
        version, balance = version + 1, balance + amount
        versions.update(balance=version, value=balance)
        cache.set("balance", (version, balance))
        return balance

    mlchaos.serve(app).drive([1] * 5).assert_isolated()


# -- dependencies ----------------------------------------------------------------------------------


@twins
@chaos.dependency_slow(target="pairs_dependencies:read_slowly", delay="30s")
def test_dependency_slow(mlchaos, sound):
    """A request waits as long as its dependency does."""

    async def app(user):
        try:
            async with asyncio.timeout(0.1 if sound else None):
                return (await read_slowly(user))["income"]
        except TimeoutError:
            return 0

    mlchaos.serve(app).drive(range(4)).assert_slo(max="1s", error_rate=0)


@twins
@chaos.dependency_failure(target="pairs_dependencies:read_features")
def test_dependency_failure(mlchaos, sound):
    """The connection stays marked as busy after an error."""
    busy = []

    def app(user):
        if len(busy) > 0:
            return "no connection"
        busy.append(user)
        try:
            return read_features(user)["income"]
        finally:
            if sound:
                busy.clear()

    def unsound(user):
        if len(busy) > 0:
            return "no connection"
        busy.append(user)
        found = read_features(user)["income"]
        busy.clear()
        return found

    mlchaos.serve(app if sound else unsound).drive(range(4)).assert_isolated()


@twins
@chaos.dependency_partial(target="pairs_dependencies:read_features")
def test_dependency_partial(mlchaos, sound):
    """A feature that is missing counts as zero."""

    def app(user):
        features = read_features(user)
        if sound and features.keys() != {"income", "debt"}:
            return "unknown"
        return features.get("income", 0) - features.get("debt", 0)

    mlchaos.serve(app).drive(range(4)).assert_fallback(value="unknown")


@twins
@chaos.response_corruption(target="pairs_dependencies:predict")
def test_response_corruption(mlchaos, sound):
    """Pass on what the model gives."""

    def app(user):
        score = predict(read_features(user))
        if sound and not (isinstance(score, float) and 0 <= score <= 1):
            return "unknown"
        return score

    mlchaos.serve(app).drive(range(4)).assert_fallback(value="unknown")
