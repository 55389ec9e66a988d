"""jax with orbax."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp


@jax.jit
def update(w, x, y):
    return w - 0.1 * jax.grad(lambda w: jnp.mean((x @ w - y) ** 2))(w)


def train(workdir, steps):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(32, 4)), jnp.float32)
    y = x @ jnp.arange(4, dtype=jnp.float32)
    w = jnp.zeros(4, jnp.float32)
    folder = os.path.abspath(os.path.join(workdir, "orbax"))
    with ocp.CheckpointManager(
        folder, options=ocp.CheckpointManagerOptions(max_to_keep=2, save_interval_steps=2)
    ) as manager:
        step = manager.latest_step() or 0
        if step:
            w = manager.restore(step, args=ocp.args.StandardRestore({"w": w}))["w"]
        while step < steps:
            w = update(w, x, y)
            step += 1
            manager.save(step, args=ocp.args.StandardSave({"w": w}))
        manager.wait_until_finished()
    return {"w": np.asarray(w), "step": step}
