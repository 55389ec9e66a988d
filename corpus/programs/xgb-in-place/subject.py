"""xgboost: save_model() over the old file every 2 rounds, continued with xgb_model=."""

import os

import numpy as np
import xgboost as xgb

PARAMS = {
    "objective": "binary:logistic",
    "max_depth": 3,
    "eta": 0.3,
    "nthread": 1,
    "seed": 3,
    "tree_method": "exact",
}


class SaveEvery(xgb.callback.TrainingCallback):
    """Save the booster each ``every`` rounds."""

    def __init__(self, path, every):
        self.path, self.every = path, every

    def after_iteration(self, model, epoch, evals_log):
        """Called by xgboost behind each round."""
        if model.num_boosted_rounds() % self.every == 0:
            model.save_model(self.path)
        return False


def train(workdir, rounds):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 6))
    y = (x[:, 0] + x[:, 1] * x[:, 2] > 0).astype(int)
    data = xgb.DMatrix(x, y)
    path = os.path.join(workdir, "model.json")
    previous = None
    if os.path.exists(path):
        previous = xgb.Booster()
        previous.load_model(path)
    done = previous.num_boosted_rounds() if previous else 0
    booster = previous
    if done < rounds:
        booster = xgb.train(
            PARAMS,
            data,
            rounds - done,
            xgb_model=previous,
            callbacks=[SaveEvery(path, 2)],
            verbose_eval=False,
        )
    return {"step": booster.num_boosted_rounds(), "trees": booster.get_dump(with_stats=False)}
