"""Flask: a model that is reloaded while it serves."""

from flask import Flask, jsonify

app = Flask(__name__)
VERSIONS = {1: (10.0, 0.5), 2: (100.0, 7.0)}


class Served:
    version = 1
    scale, weight = VERSIONS[1]


def reload():
    version = Served.version % 2 + 1
    Served.scale = VERSIONS[version][0]
    Served.weight = VERSIONS[version][1]
    Served.version = version


@app.post("/reload")
def reloaded():
    reload()
    return jsonify(version=Served.version)


@app.get("/predict/<int:value>")
def predict(value):
    return jsonify(value=value, prediction=value / Served.scale * Served.weight)


def is_of_one_version(reply):
    found = reply.json
    if "prediction" not in found:
        return True
    return any(
        found["prediction"] == found["value"] / scale * weight
        for scale, weight in VERSIONS.values()
    )
