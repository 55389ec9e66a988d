"""xgboost, one round at a time with Booster.update, the model renamed into place; labels come from torch."""

from pathlib import Path

import numpy as np
import torch
import xgboost as xgb


def fit(workdir, rounds):
    g = torch.Generator().manual_seed(5)
    x = torch.randn(200, 6, generator=g)
    y = (x[:, 0] * x[:, 1] > 0).int()
    data = xgb.DMatrix(np.asarray(x), np.asarray(y))
    path = Path(workdir) / "model.ubj"
    booster = xgb.Booster(
        {
            "objective": "binary:logistic",
            "max_depth": 3,
            "eta": 0.3,
            "nthread": 1,
            "base_score": 0.5,
        },
        [data],
    )
    if path.exists():
        booster.load_model(path)
    for iteration in range(booster.num_boosted_rounds(), rounds):
        booster.update(data, iteration)
        if iteration % 3 == 2:
            temporary = path.with_name("model.part.ubj")
            booster.save_model(temporary)
            temporary.replace(path)
    return {
        "rounds": booster.num_boosted_rounds(),
        "margin": torch.from_numpy(booster.predict(data, output_margin=True)).round(decimals=4),
    }
