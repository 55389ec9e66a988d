"""Applicants for a loan in two regions. In the country, incomes and rents are lower."""

from pathlib import Path

import numpy as np
import pandas as pd

APPLICANTS = 4_000


def table() -> pd.DataFrame:
    """Return the applicants: region, income and rent, and whether each repays the loan."""
    rng = np.random.default_rng(0)
    rural = np.arange(APPLICANTS) % 5 == 0
    income = rng.normal(np.where(rural, 26, 40), 8)
    rent = income / 4 + rng.normal(0, 0.5, APPLICANTS)
    # Living is cheaper in the country, so a lower income is enough there.
    repays = income > np.where(rural, 24, 38)
    return pd.DataFrame(
        {
            "region": np.where(rural, "rural", "city"),
            "income": income.round(3),
            "rent": rent.round(3),
            "repays": repays,
        }
    )


def write(path: Path) -> Path:
    """Write the applicants to a CSV file, and return its path."""
    table().to_csv(path, index=False)
    return path
