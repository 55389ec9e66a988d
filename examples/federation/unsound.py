"""Average what the gardens send."""

import numpy as np


def aggregate(updates: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the new parameters of all gardens."""
    weights = np.stack([update["weights"] for update in updates])
    return {"weights": weights.mean(axis=0)}
