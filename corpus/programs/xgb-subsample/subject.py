"""xgboost with row and column sampling; the model is renamed into place."""

import os

import numpy as np
import xgboost as xgb

PARAMS = {
    "max_depth": 3,
    "eta": 0.3,
    "subsample": 0.5,
    "colsample_bytree": 0.7,
    "nthread": 1,
    "seed": 11,
    "tree_method": "hist",
}
EVERY = 3


def train(workdir, rounds):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 6))
    y = x[:, 0] + x[:, 1] * x[:, 2] + 0.1 * rng.normal(size=300)
    data = xgb.DMatrix(x, y)
    path = os.path.join(workdir, "model.json")
    model, done = None, 0
    if os.path.exists(path):
        model = xgb.Booster(model_file=path)
        done = model.num_boosted_rounds()
    history = {}

    class Save(xgb.callback.TrainingCallback):
        def after_iteration(self, model, epoch, evals_log):
            if model.num_boosted_rounds() % EVERY == 0:
                model.save_model(path.replace(".json", ".tmp.json"))
                os.replace(path.replace(".json", ".tmp.json"), path)
            return False

    if done < rounds:
        model = xgb.train(
            PARAMS,
            data,
            rounds - done,
            evals=[(data, "train")],
            evals_result=history,
            xgb_model=model,
            callbacks=[Save()],
            verbose_eval=False,
        )
    return {"step": model.num_boosted_rounds(), "prediction": model.predict(data)}
