"""configparser: the settings of a service."""

import configparser

FALLBACKS = {"threshold": "0.5", "window": "10", "end": "yes"}


def prepare(workdir):
    text = "[alerts]\nthreshold = 0.93\nwindow = 25\nend = yes\n"
    (workdir / "service.ini").write_text(text)


def pipeline(workdir):
    parser = configparser.ConfigParser()
    parser.read(workdir / "service.ini")
    return {name: parser.get("alerts", name, fallback=value) for name, value in FALLBACKS.items()}
