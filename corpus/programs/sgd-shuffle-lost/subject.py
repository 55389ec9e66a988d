"""scikit-learn partial_fit; np.random.seed at the start of each run."""

import os
import pickle

import numpy as np
from sklearn.linear_model import SGDClassifier


def train(workdir, epochs):
    np.random.seed(0)
    x = np.random.randn(100, 8)
    y = (x[:, 0] > x[:, 1]).astype(int)
    clf, start, path = (
        SGDClassifier(random_state=4, learning_rate="constant", eta0=0.5),
        0,
        os.path.join(workdir, "clf.pkl"),
    )
    if os.path.exists(path):
        with open(path, "rb") as file:
            start, clf = pickle.load(file)
    for epoch in range(start, epochs):
        for batch in np.array_split(np.random.permutation(100), 5):
            clf.partial_fit(x[batch], y[batch], classes=[0, 1])
        with open(path + ".new", "wb") as file:
            pickle.dump((epoch + 1, clf), file)
        os.rename(path + ".new", path)
    return {"coef": clf.coef_, "epochs": epochs}
