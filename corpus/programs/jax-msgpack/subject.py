"""jax, optax, flax.serialization."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import serialization


def train(workdir, steps):
    x = jax.random.normal(jax.random.key(0), (32, 4))
    y = jnp.sum(x, axis=1)
    optimizer = optax.adam(1e-1)
    params = {"w": jnp.zeros(4), "b": jnp.zeros(())}
    state = {"step": 0, "params": params, "opt": optimizer.init(params)}
    path = Path(workdir) / "state.msgpack"
    if path.exists():
        state = serialization.from_bytes(state, path.read_bytes())
    grad = jax.jit(jax.grad(lambda p: jnp.mean((x @ p["w"] + p["b"] - y) ** 2)))
    while state["step"] < steps:
        updates, opt = optimizer.update(grad(state["params"]), state["opt"])
        state = {
            "step": state["step"] + 1,
            "params": optax.apply_updates(state["params"], updates),
            "opt": opt,
        }
        if state["step"] % 3 == 0:
            path.write_bytes(serialization.to_bytes(state))
    return {"params": jax.tree.map(np.asarray, state["params"]), "step": state["step"]}
