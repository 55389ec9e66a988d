"""Leave out what is not finite, and take the median, which few liars cannot move far."""

import numpy as np


def aggregate(updates: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the new parameters of all gardens."""
    weights = np.stack([update["weights"] for update in updates])
    weights = weights[np.isfinite(weights).all(axis=(1, 2))]
    if len(weights) <= len(updates) // 2:
        raise ValueError(f"only {len(weights)} of {len(updates)} updates are finite")
    return {"weights": np.median(weights, axis=0)}
