"""Two versions of a model that estimates if a credit is paid back, and customers who ask."""

CUSTOMERS = [{"user": number, "balance": 50.0 * number} for number in range(200)]


def first(customer: dict[str, float]) -> float:
    """Return the probability that a credit is paid back."""
    return round(customer["balance"] / (customer["balance"] + 300.0), 4)


def second(customer: dict[str, float]) -> float:
    """Return the same probability, by a simpler formula."""
    return round(1 - 300.0 / (customer["balance"] + 300.0), 4)


MODELS = {"v1": first, "v2": second}
