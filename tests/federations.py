"""Clients and servers of federations: sound ones, and twins that a fault reveals."""

from __future__ import annotations

import numpy as np

TRUE = np.array([1.0, -2.0, 3.0])
START = {"w": np.zeros(3)}
CLIENTS = 5
ROUNDS = 4


def samples(client, size=40):
    """The data of a client: a line with noise."""
    rng = np.random.default_rng(client)
    x = rng.normal(size=(size, 3))
    return x, x @ TRUE + 0.1 * rng.normal(size=size)


def learned(w, x, y, steps=5):
    """The parameters after some steps of gradient descent."""
    for _ in range(steps):
        w = w - 0.1 * 2 * x.T @ (x @ w - y) / len(y)
    return w


def train(parameters, config):
    """Train, and send the parameters with client and round."""
    w = learned(parameters["w"], *samples(config["client"]))
    return {"parameters": {"w": w}, "client": config["client"], "round": config["round"]}


def train_differences(parameters, config):
    """Train, and send what has changed."""
    update = train(parameters, config)
    return {**update, "parameters": {"w": update["parameters"]["w"] - parameters["w"]}}


def train_on(parameters, config, data):
    """Train on the data that is handed over."""
    return {"w": learned(parameters["w"], *data)}


def loss(parameters, client=99):
    """The loss on data of no client, or on that of one."""
    x, y = samples(client)
    return float(((x @ parameters["w"] - y) ** 2).mean())


def weights(updates):
    """The parameters in the updates."""
    return np.stack([update["parameters"]["w"] for update in updates])


def mean(updates):
    """Average what has arrived."""
    return {"w": weights(updates).mean(0)}


def mean_of_all(updates, parameters, config):
    """Divide by the number of all clients. Unsound: some may be missing."""
    return {"w": weights(updates).sum(0) / config["clients"]}


def median(updates):
    """Take the median, which passes NaN on."""
    return {"w": np.median(weights(updates), axis=0)}


def finite_median(updates):
    """Take the median of the finite updates."""
    found = weights(updates)
    return {"w": np.median(found[np.isfinite(found).all(1)], axis=0)}


def mean_by_name(updates):
    """Average each name that comes. Unsound: names may be wrong."""
    names = {name for update in updates for name in update["parameters"]}
    return {
        name: np.mean(
            [one["parameters"][name] for one in updates if name in one["parameters"]], axis=0
        )
        for name in sorted(names)
    }


def mean_of_known_names(updates, parameters):
    """Leave out updates with other names."""
    return mean([one for one in updates if one["parameters"].keys() == parameters.keys()])


def mean_of_distinct(updates):
    """Count each client once."""
    return mean(list({(one["client"], one["round"]): one for one in updates}.values()))


def sum_of_differences(updates, parameters, config):
    """Add what comes. Unsound: it may be old."""
    return {"w": parameters["w"] + 0.5 * weights(updates).sum(0)}


def sum_of_fresh_differences(updates, parameters, config):
    """Add the mean of what belongs to this round."""
    fresh = [one for one in updates if one["round"] == config["round"]]
    return {"w": parameters["w"] + weights(fresh).mean(0)}


def mean_or_same(updates, parameters):
    """Keep the model if no client answers."""
    return mean(updates) if updates else parameters


def mean_or_error(updates):
    """Refuse to go on without clients."""
    if not updates:
        raise RuntimeError("no client answered")
    return mean(updates)


class Momentum:
    """A server with momentum. Unsound: a restart loses it."""

    def __init__(self):
        self.velocity = np.zeros(3)

    def aggregate(self, updates, parameters):
        """Move on in the direction so far."""
        self.velocity = 0.5 * self.velocity + (weights(updates).mean(0) - parameters["w"])
        return {"w": parameters["w"] + self.velocity}


class SavedMomentum(Momentum):
    """The same with a checkpoint of its state."""

    def state_dict(self):
        """The momentum."""
        return {"velocity": self.velocity}

    def load_state_dict(self, state):
        """Restore it."""
        self.velocity = state["velocity"]


class Remembering:
    """Uses the last update of a client that is missing."""

    def __init__(self):
        self.last = {}

    def aggregate(self, updates):
        """Average the last updates of all clients."""
        self.last |= {update["client"]: update for update in updates}
        return mean(list(self.last.values()))


class Server:
    """A server that survives each fault of clients, and of its own process.

    It lacks what the fault with the name ``flaw`` requires. So no other fault may reveal the flaw.
    """

    def __init__(self, flaw=""):
        self.flaw, self.velocity = flaw, np.zeros(3)

    def aggregate(self, updates, parameters, config):
        """Combine what is sound in the updates, and move on with momentum."""
        answered = {update["client"] for update in updates}
        late = [update for update in updates if update["round"] != config["round"]]
        rows = [update for update in updates if update["round"] == config["round"]]
        if self.flaw != "duplicate_update":
            rows = list({update["client"]: update for update in rows}.values())
        known = [update for update in rows if update["parameters"].keys() == parameters.keys()]
        if not known:
            return {} if self.flaw == "all_clients_gone" else parameters
        sent = weights(known)
        if self.flaw != "malicious_update-nan":
            sent = sent[np.isfinite(sent).all(1)]
        combine = np.mean if self.flaw == "malicious_update" else np.median
        found = combine(sent, axis=0)
        if self.flaw == "client_dropout":
            found = found * len(answered) / config["clients"]
        if self.flaw == "late_update" and late:
            found = 0.5 * found + 0.5 * weights(late).mean(0)
        self.velocity = 0.3 * self.velocity + (found - parameters["w"])
        more = mean_by_name(rows) if self.flaw == "wrong_keys" else {}
        return {**more, "w": parameters["w"] + self.velocity}


class SavedServer(Server):
    """The same with a checkpoint of its momentum."""

    def state_dict(self):
        """Return the momentum."""
        return {"velocity": self.velocity}

    def load_state_dict(self, state):
        """Restore it."""
        self.velocity = state["velocity"]


def server(flaw=""):
    """Return a server with a flaw. One that loses its momentum has no checkpoint of it."""
    return Server() if flaw == "server_restart" else SavedServer(flaw)
