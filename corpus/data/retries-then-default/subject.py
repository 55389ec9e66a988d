"""tenacity: the texts that no rule blocks."""

import json

import tenacity


def prepare(workdir):
    (workdir / "rules.json").write_text(json.dumps(["spam", "scam"]))


@tenacity.retry(
    stop=tenacity.stop_after_attempt(3),
    wait=tenacity.wait_exponential(),
    retry_error_callback=lambda state: [],
)
def rules(path):
    with open(path) as file:
        return json.load(file)


def pipeline(workdir):
    blocked = rules(workdir / "rules.json")
    return [text for text in ("ham", "spam", "jam") if text not in blocked]
