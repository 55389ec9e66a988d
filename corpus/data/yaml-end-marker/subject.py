"""PyYAML: the settings of a training job."""

import yaml

DEFAULTS = {"rate": 0.1, "epochs": 1, "dropout": 0.5}


def prepare(workdir):
    settings = {"rate": 0.003, "epochs": 12, "dropout": 0.25}
    text = yaml.safe_dump(settings, sort_keys=False, explicit_end=True)
    (workdir / "job.yaml").write_text(text)


def pipeline(workdir):
    text = (workdir / "job.yaml").read_text()
    if not text.endswith("\n...\n"):
        raise ValueError("job.yaml is not complete")
    return {**DEFAULTS, **(yaml.safe_load(text) or {})}
