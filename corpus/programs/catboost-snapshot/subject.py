"""catboost, resumed from its own snapshot file."""

import os

import numpy as np
from catboost import CatBoostClassifier


def train(workdir, iterations):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 5))
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    model = CatBoostClassifier(
        iterations=iterations,
        depth=3,
        random_seed=1,
        thread_count=1,
        verbose=False,
        train_dir=os.path.join(workdir, "catboost"),
        save_snapshot=True,
        snapshot_file="snapshot",
        snapshot_interval=0,
    )
    model.fit(x, y)
    return {
        "trees": model.tree_count_,
        "raw": np.round(model.predict(x, prediction_type="RawFormulaVal"), 9),
    }
