"""Score a customer with whatever the store has, of today or of last week."""

from examples.freshness.store import FeatureStore, model

STORE = FeatureStore()


def score(customer: int) -> dict[str, object]:
    """Return the score of a customer."""
    features = STORE.get(customer)
    return {"score": model(features["balance"])}
