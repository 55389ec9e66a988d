"""scikit-learn partial_fit with all its state in one file that is renamed into place."""

import os
import tempfile

import joblib
import numpy as np
from sklearn.linear_model import SGDRegressor
from sklearn.preprocessing import StandardScaler


def save(state, path):
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".tmp-")
    with os.fdopen(handle, "wb") as file:
        joblib.dump(state, file, compress=3)
    os.replace(temporary, path)


def train(workdir, epochs):
    data = np.random.default_rng(0)
    x = data.normal(size=(120, 10)) * 3 + 1
    y = x @ data.normal(size=10)
    path = os.path.join(workdir, "state.joblib")
    state = {
        "reg": SGDRegressor(random_state=0),
        "scaler": StandardScaler(),
        "epoch": 0,
        "rng": np.random.default_rng(1),
    }
    if os.path.exists(path):
        state = joblib.load(path)
    while state["epoch"] < epochs:
        order = state["rng"].permutation(len(x))
        for i in range(0, len(x), 30):
            batch = order[i : i + 30]
            state["scaler"].partial_fit(x[batch])
            state["reg"].partial_fit(state["scaler"].transform(x[batch]), y[batch])
        state["epoch"] += 1
        save(state, path)
    return {"coef": state["reg"].coef_, "mean": state["scaler"].mean_, "t": state["reg"].t_}
