"""Answer with the prior if the features are older than a day, and say so."""

import datetime

from examples.freshness.store import PRIOR, FeatureStore, model

STORE = FeatureStore()
OLDEST = datetime.timedelta(days=1)


def score(customer: int) -> dict[str, object]:
    """Return the score of a customer."""
    features = STORE.get(customer)
    if datetime.datetime.now(datetime.UTC) - features["computed"] > OLDEST:
        return PRIOR
    return {"score": model(features["balance"])}
