"""optuna: the best threshold over four folds."""

import json

import optuna

optuna.logging.set_verbosity(optuna.logging.CRITICAL)


def prepare(workdir):
    for fold in range(4):
        (workdir / f"fold-{fold}.json").write_text(json.dumps([fold, 9 - 2 * fold, fold * fold]))


def pipeline(workdir):
    def objective(trial):
        fold = trial.suggest_int("fold", 0, 3)
        with open(workdir / f"fold-{fold}.json") as file:
            return float(sum(json.load(file)))

    study = optuna.create_study(sampler=optuna.samplers.GridSampler({"fold": range(4)}, seed=0))
    study.optimize(objective, n_trials=4, catch=())
    done = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    return sorted(trial.value for trial in done)
