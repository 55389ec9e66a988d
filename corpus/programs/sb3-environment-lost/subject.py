"""PPO on CartPole, in rollouts of 32 steps."""

import os

import gymnasium
import torch
from stable_baselines3 import PPO

ROLLOUT = 32


def train(workdir, time_steps):
    torch.set_num_threads(1)
    path = os.path.join(workdir, "ppo.zip")
    env = gymnasium.make("CartPole-v1")
    if os.path.exists(path):
        model = PPO.load(path, env=env, device="cpu")
        model.set_random_seed(0)
    else:
        model = PPO(
            "MlpPolicy",
            env,
            n_steps=ROLLOUT,
            batch_size=16,
            n_epochs=2,
            seed=0,
            device="cpu",
            policy_kwargs={"net_arch": [8]},
        )
    while model.num_timesteps < time_steps:
        model.learn(ROLLOUT, reset_num_timesteps=False)
        model.save(os.path.join(workdir, "writing.zip"))
        os.replace(os.path.join(workdir, "writing.zip"), path)
    return {"policy": model.policy.state_dict(), "time_steps": model.num_timesteps}
