"""xgboost, early stopping on noisy labels, the booster and the patience kept each round."""

import os
import pickle

import numpy as np
import xgboost as xgb

KEPT = ("current_rounds", "best_scores", "stopping_history")
"""The attributes in which early stopping counts."""


class Keep(xgb.callback.TrainingCallback):
    """The newest booster and what early stopping has counted, in one file; called after early stopping."""

    def __init__(self, path, stopping):
        self.path, self.stopping = path, stopping

    def after_iteration(self, model, epoch, evals_log):
        with open(self.path + ".part", "wb") as file:
            pickle.dump(
                {
                    "booster": model.save_raw("ubj"),
                    **{name: vars(self.stopping)[name] for name in KEPT},
                },
                file,
            )
        os.replace(self.path + ".part", self.path)
        return False


def train(workdir, rounds):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(400, 5))
    y = ((x[:, 0] > 0) ^ (rng.random(400) < 0.35)).astype(int)
    fit, held_out = xgb.DMatrix(x[:200], y[:200]), xgb.DMatrix(x[200:], y[200:])
    path = os.path.join(workdir, "state.pickle")
    previous, stopping = None, xgb.callback.EarlyStopping(rounds=4)
    if os.path.exists(path):
        with open(path, "rb") as file:
            state = pickle.load(file)
        previous = xgb.Booster(model_file=state.pop("booster"))
        vars(stopping).update(state)
    booster = xgb.train(
        {
            "objective": "binary:logistic",
            "eval_metric": "logloss",
            "max_depth": 4,
            "eta": 0.2,
            "nthread": 1,
        },
        fit,
        rounds - (previous.num_boosted_rounds() if previous else 0),
        evals=[(held_out, "held_out")],
        xgb_model=previous,
        callbacks=[stopping, Keep(path, stopping)],
        verbose_eval=False,
    )
    return {"rounds": booster.num_boosted_rounds(), "best": round(float(booster.best_score), 6)}
