"""A score of features that a store returns as a dict."""

import math


def prepare(workdir):
    pass


def features(user):
    return {"age": 20.0 + user, "income": 1000.0 * user, "visits": 3.0}


def pipeline(workdir):
    scores = []
    for user in range(1, 5):
        found = features(user)
        age, income, visits = (found[name] for name in ("age", "income", "visits"))
        score = 0.1 * float(age) + 0.001 * float(income) + float(visits)
        if not math.isfinite(score):
            raise ValueError(f"user {user} has no score")
        scores.append(score)
    return scores
