"""LitServe: a scorer with a feature store."""

import litserve
from fastapi import HTTPException


def features_of(user):
    return [user * 1.5, user + 2.0]


class Scorer(litserve.LitAPI):
    def setup(self, device):
        self.weights = [0.5, -0.25]

    def decode_request(self, request):
        try:
            return features_of(request["user"])
        except ConnectionError:
            raise HTTPException(503, "no features") from None

    def predict(self, features):
        return sum(one * weight for one, weight in zip(features, self.weights, strict=True))

    def encode_response(self, output):
        return {"score": output}


def run(port):
    server = litserve.LitServer(Scorer(), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=port, generate_client_file=False)
