"""optuna with the study pickled by a callback."""

import os
import pickle

import optuna


def search(workdir, trials):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = os.path.join(workdir, "study.pkl")

    def keep(study, trial):
        with open(path + "~", "wb") as file:
            pickle.dump(study, file)
        os.replace(path + "~", path)

    if os.path.exists(path):
        with open(path, "rb") as file:
            study = pickle.load(file)
    else:
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    if len(study.trials) < trials:
        study.optimize(
            lambda trial: trial.suggest_float("x", -1, 1) ** 2,
            n_trials=trials - len(study.trials),
            callbacks=[keep],
        )
    return {"values": [trial.value for trial in study.trials], "best": study.best_params}
