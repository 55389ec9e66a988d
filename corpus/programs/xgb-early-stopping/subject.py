"""xgboost, early stopping on noisy labels, the booster kept each round."""

import os

import numpy as np
import xgboost as xgb


class Keep(xgb.callback.TrainingCallback):
    """The newest booster, under one name."""

    def __init__(self, path):
        self.path = path

    def after_iteration(self, model, epoch, evals_log):
        model.save_model(self.path + ".part.json")
        os.replace(self.path + ".part.json", self.path)
        return False


def train(workdir, rounds):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(400, 5))
    y = ((x[:, 0] > 0) ^ (rng.random(400) < 0.35)).astype(int)
    fit, held_out = xgb.DMatrix(x[:200], y[:200]), xgb.DMatrix(x[200:], y[200:])
    path = os.path.join(workdir, "booster.json")
    previous = xgb.Booster(model_file=path) if os.path.exists(path) else None
    done = previous.num_boosted_rounds() if previous else 0
    if done >= rounds:
        return {"rounds": done}
    booster = xgb.train(
        {
            "objective": "binary:logistic",
            "eval_metric": "logloss",
            "max_depth": 4,
            "eta": 0.2,
            "nthread": 1,
        },
        fit,
        rounds - done,
        evals=[(held_out, "held_out")],
        xgb_model=previous,
        callbacks=[Keep(path), xgb.callback.EarlyStopping(rounds=4)],
        verbose_eval=False,
    )
    return {"rounds": booster.num_boosted_rounds(), "best": round(float(booster.best_score), 6)}
