"""pandas: cross-validation that goes on where its table ends."""

import os

import numpy as np
import pandas as pd


def cross_validate(workdir, folds):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 3)), rng.normal(size=60)
    path = os.path.join(workdir, "results.csv")
    rows = pd.read_csv(path).to_dict("records") if os.path.exists(path) else []
    for fold in range(len(rows), folds):
        held_out = np.arange(60) % folds == fold
        w, *_ = np.linalg.lstsq(x[~held_out], y[~held_out], rcond=None)
        error = float(np.square(x[held_out] @ w - y[held_out]).mean())
        rows.append({"fold": fold, "error": round(error, 9)})
        pd.DataFrame(rows).to_csv(path, index=False)
    return {"rows": [(int(row["fold"]), row["error"]) for row in rows]}
