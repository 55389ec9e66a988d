"""PPO on CartPole with the callback that saves checkpoints."""

from pathlib import Path

import gymnasium
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import CheckpointCallback


def train(workdir, time_steps):
    torch.set_num_threads(1)
    env = gymnasium.make("CartPole-v1")
    found = sorted(
        Path(workdir).glob("ppo_*_steps.zip"), key=lambda path: int(path.stem.split("_")[1])
    )
    if found:
        model = PPO.load(found[-1], env=env, device="cpu")
        model.set_random_seed(0)
    else:
        model = PPO(
            "MlpPolicy",
            env,
            n_steps=32,
            batch_size=16,
            n_epochs=2,
            seed=0,
            device="cpu",
            policy_kwargs={"net_arch": [8]},
        )
    left = time_steps - model.num_timesteps
    if left > 0:
        model.learn(
            left,
            callback=CheckpointCallback(32, str(workdir), name_prefix="ppo"),
            reset_num_timesteps=not found,
        )
    return {"policy": model.policy.state_dict(), "time_steps": model.num_timesteps}
