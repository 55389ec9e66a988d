"""scikit-learn partial_fit, the classifier dumped in place each epoch."""

import os

import joblib
import numpy as np
from sklearn.linear_model import SGDClassifier


def train(workdir, epochs):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 10))
    y = (x @ rng.normal(size=10) > 0).astype(int)
    path = os.path.join(workdir, "clf.joblib")
    if os.path.exists(path):
        clf, start = joblib.load(path)
    else:
        clf, start = SGDClassifier(random_state=0, learning_rate="constant", eta0=0.1), 0
    for epoch in range(start, epochs):
        for i in range(0, 120, 30):
            clf.partial_fit(x[i : i + 30], y[i : i + 30], classes=[0, 1])
        joblib.dump((clf, epoch + 1), path)
    return {"coef": clf.coef_, "intercept": clf.intercept_, "t": clf.t_}
