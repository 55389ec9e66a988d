"""configparser: the settings of a service."""

import configparser

FALLBACKS = {"threshold": "0.5", "window": "10", "end": "yes"}


def prepare(workdir):
    text = "[alerts]\nthreshold = 0.93\nwindow = 25\nend = yes\n"
    (workdir / "service.ini").write_text(text)


def pipeline(workdir):
    parser = configparser.ConfigParser()
    with open(workdir / "service.ini") as file:
        parser.read_file(file)
    if not parser.getboolean("alerts", "end"):
        raise ValueError("service.ini is not complete")
    return {name: parser.get("alerts", name) for name, value in FALLBACKS.items()}
