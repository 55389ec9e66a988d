"""LightGBM: save_model() over the old file every 2 rounds, continued with init_model=."""

import os

import lightgbm as lgb
import numpy as np

PARAMS = {
    "objective": "regression",
    "num_leaves": 4,
    "min_data_in_leaf": 5,
    "num_threads": 1,
    "verbosity": -1,
    "deterministic": True,
}


def train(workdir, rounds):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 4))
    y = x[:, 0] * x[:, 1] + x[:, 2]
    path = os.path.join(workdir, "model.txt")
    booster = lgb.Booster(model_file=path) if os.path.exists(path) else None
    done = booster.num_trees() if booster else 0

    def save(env):
        if (env.iteration + 1) % 2 == 0:
            env.model.save_model(path)

    if done < rounds:
        booster = lgb.train(
            PARAMS, lgb.Dataset(x, y), rounds - done, init_model=booster, callbacks=[save]
        )
    return {"trees": booster.num_trees(), "predictions": np.round(booster.predict(x[:20]), 6)}
