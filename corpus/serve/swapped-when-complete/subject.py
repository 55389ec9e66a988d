"""FastAPI, torch: a classifier that loads a new version while it serves."""

import torch
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

app = FastAPI()
VOCABULARIES = {1: ["cat", "dog", "mouse"], 2: ["mouse", "cat", "dog"]}


def load_vocabulary(version):
    return {word: place for place, word in enumerate(VOCABULARIES[version])}


def load_weights(version):
    return torch.eye(3)[[VOCABULARIES[1].index(word) for word in VOCABULARIES[version]]]


class Served:
    vocabulary = load_vocabulary(1)
    weights = load_weights(1)


class Reload(BaseModel):
    version: int


@app.post("/reload")
async def reload(wanted: Reload):
    try:
        loaded = load_vocabulary(wanted.version), load_weights(wanted.version)
        Served.vocabulary, Served.weights = loaded
    except OSError:
        raise HTTPException(503, "still on the version before") from None
    return {"version": wanted.version}


@app.get("/label/{word}")
async def label(word: str):
    row = Served.weights[Served.vocabulary[word]]
    return {"label": VOCABULARIES[1][int(row.argmax())]}


def is_of_version_1(reply):
    return reply.json.get("label") == str(reply.request).rpartition("/")[2]
