"""A feature store, and the model that was made for its features."""

import datetime

PRIOR = {"score": 0.5, "reason": "features are too old"}


class FeatureStore:
    """Keep the last features of each customer."""

    def get(self, customer: int) -> dict[str, object]:
        """Return the features of a customer, and when they were computed."""
        return {
            "balance": 100.0 * customer,
            "computed": datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=5),
        }


def model(balance: float) -> float:
    """Return the probability that a credit is paid back."""
    return round(balance / (balance + 300.0), 4)
