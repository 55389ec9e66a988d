"""Search a learning rate with Optuna. The study is kept in a file."""

from __future__ import annotations

from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

TRIALS = 4

optuna.logging.set_verbosity(optuna.logging.ERROR)


def search(out: Path) -> int:
    """Complete the study: make the trials that are missing, and return how many are complete."""
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(out / "study.log"))),
        study_name="rates",
        load_if_exists=True,
        sampler=optuna.samplers.GridSampler({"rate": [0.001, 0.01, 0.1, 1.0]}, seed=0),
    )
    complete = [optuna.trial.TrialState.COMPLETE]
    while (missing := TRIALS - len(study.get_trials(states=complete))) > 0:
        study.optimize(lambda trial: (trial.suggest_float("rate", 0, 1) - 0.1) ** 2, missing)
    return len(study.get_trials(states=complete))
