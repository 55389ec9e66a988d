"""Flask: a model that is reloaded while it serves."""

from flask import Flask, jsonify

app = Flask(__name__)
VERSIONS = {1: (10.0, 0.5), 2: (100.0, 7.0)}


class Served:
    version = 1
    model = VERSIONS[1]


def reload():
    version = Served.version % 2 + 1
    Served.version, Served.model = version, VERSIONS[version]


@app.post("/reload")
def reloaded():
    reload()
    return jsonify(version=Served.version)


@app.get("/predict/<int:value>")
def predict(value):
    scale, weight = Served.model
    return jsonify(value=value, prediction=value / scale * weight)


def is_of_one_version(reply):
    found = reply.json
    if "prediction" not in found:
        return True
    return any(
        found["prediction"] == found["value"] / scale * weight
        for scale, weight in VERSIONS.values()
    )
