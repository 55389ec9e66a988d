"""xgboost: predictions for records of a feature store."""

import numpy as np
import xgboost

NAMES = ("age", "balance", "products")


def prepare(workdir):
    pass


def features(user):
    return {"age": 25.0 + user, "balance": 900.0 * user, "products": 2.0}


def pipeline(workdir):
    rng = np.random.default_rng(0)
    rows = rng.uniform(0, [60, 5000, 5], (300, 3))
    data = xgboost.DMatrix(rows, rows @ [1, 0.01, 5])
    model = xgboost.train({"nthread": 1, "max_depth": 3, "seed": 0}, data, 8)
    found = [features(user) for user in range(1, 5)]
    table = np.array([[record.get(name) for name in NAMES] for record in found], dtype=float)
    return model.predict(xgboost.DMatrix(table)).round(4).tolist()
