"""optuna with RDBStorage on sqlite; one trial at a time, each with a sampler of its own seed."""

import os

import optuna
from optuna.trial import TrialState


def objective(trial):
    x = trial.suggest_float("x", -3, 3)
    kind = trial.suggest_categorical("kind", ["a", "b"])
    return (x - 1) ** 2 + (kind == "a")


def search(workdir, trials):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = "sqlite:///" + os.path.join(os.path.abspath(workdir), "study.db")
    study = optuna.create_study(study_name="s", storage=storage, load_if_exists=True)
    while (done := len(study.get_trials(states=[TrialState.COMPLETE], deepcopy=False))) < trials:
        study.sampler = optuna.samplers.RandomSampler(seed=100 + done)
        study.optimize(objective, n_trials=1)
    complete = study.get_trials(states=[TrialState.COMPLETE])
    return {
        "values": [round(trial.value, 9) for trial in complete],
        "params": [trial.params for trial in complete],
    }
