"""Other people's agents in the chambers: Stable-Baselines3's PPO and DQN, trained on own reward alone and probed.

They have no world model and see single frames; the battery evaluates their value function.  Needs the packages
of the extra `outsiders`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from gymnasium.spaces import Discrete
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from .. import battery, config
from . import probe
from .envs import ACTIONS, Chambers

Policy = Callable[[np.ndarray], np.ndarray]
TESTED = 4096  # episodes in which a policy's reward is counted


class Worlds(VecEnv):
    """Many chambers for Stable-Baselines3, stepped as one batch: all end together, and begin anew at once."""

    def __init__(self, count: int, seed: int, **options):
        self.chambers, self.random = Chambers(**options), np.random.default_rng(seed)
        super().__init__(count, self.chambers.observations, Discrete(ACTIONS))

    def reset(self) -> np.ndarray:
        return self.chambers.reset(self.num_envs, int(self.random.integers(2**62)))

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = torch.as_tensor(np.asarray(actions, np.int64))

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        scripted = torch.full_like(self._actions, -1)
        observed, gains, ends = self.chambers.step(torch.stack([self._actions, scripted], 1))
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if ends:  # by the clock: what would follow is still worth something
            infos = [{"TimeLimit.truncated": True, "terminal_observation": last} for last in observed]
            observed = self.reset()
        return observed, gains[:, 0].astype(np.float32), np.full(self.num_envs, ends), infos

    def close(self) -> None: ...

    def get_attr(self, attr_name: str, indices=None) -> list[Any]:
        return [getattr(self, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices=None) -> None:
        raise NotImplementedError("all worlds are stepped as one")

    def env_method(self, method_name: str, *args, indices=None, **kwargs) -> list[Any]:
        raise NotImplementedError("all worlds are stepped as one")

    def env_is_wrapped(self, wrapper_class, indices=None) -> list[bool]:
        return [False] * self.num_envs


def train(cfg: config.External) -> BaseAlgorithm:
    """One agent after `steps` steps over all worlds.  It meets episodes of every kind, as at company p = 1."""
    seed = int(config.digest(["outsider", cfg.algorithm, cfg.data.seed]), 16) % 2**31
    worlds = Worlds(cfg.worlds, seed, cfg=cfg.data.world, drawn=cfg.data.seed, frames=cfg.data.frames)
    usual = {"gamma": cfg.battery.gamma, "learning_rate": cfg.rate, "seed": seed, "device": "cpu", "verbose": 0}
    usual["policy_kwargs"] = {"net_arch": [cfg.width] * cfg.depth}
    if cfg.algorithm == "ppo":
        steps = cfg.data.frames - 1
        own = {"n_steps": steps, "batch_size": cfg.worlds // 4 * steps, "n_epochs": 4, "ent_coef": 0.01}
        return PPO("MlpPolicy", worlds, gae_lambda=0.95, **usual, **own).learn(cfg.steps)
    own = {"buffer_size": 200_000, "learning_starts": min(10_000, cfg.steps // 4), "batch_size": 256, "train_freq": 1}
    own |= {"gradient_steps": cfg.worlds // 4, "target_update_interval": 2_000}
    explores = {"exploration_fraction": 0.3, "exploration_final_eps": 0.1}
    return DQN("MlpPolicy", worlds, **usual, **own, **explores).learn(cfg.steps)


def mean_reward(cfg: config.External, policy: Policy | None, purpose: float | None = None) -> float:
    """Own reward per step of a policy (frames [B, H, W, C] -> actions [B]) in worlds that nobody has learnt from.

    None: of the scripted conduct, at this purpose if one is given.
    """
    usual = {"eventful": config.World.model_fields["eventful"].default}
    changed = usual if purpose is None else usual | {"purpose": purpose}
    chambers = Chambers(cfg.data.world.model_copy(update=changed), cfg.data.seed, cfg.data.frames)
    observed, total, ends = chambers.reset(TESTED, cfg.data.seed), 0.0, False
    while not ends:
        mine = np.full(TESTED, -1) if policy is None else policy(observed)
        actions = torch.stack([torch.as_tensor(mine, dtype=torch.int64), torch.full((TESTED,), -1)], 1)
        observed, gains, ends = chambers.step(actions)
        total += float(gains[:, 0].mean())
    return total / (cfg.data.frames - 1)


def external_tables(
    cfg: config.External, model: BaseAlgorithm, scenes: battery.Scenes, value: torch.Tensor
) -> dict[str, pd.DataFrame]:
    """Tables `outsiders`, what `vicarious probe` reports of it, and `measures`: its gate, and own reward per step.

    scenes, value: the battery's templates and V_pi of the self.
    """
    report = probe(model, cfg.data.world, cfg.data.seed, cfg.battery, (scenes, value))
    gate = report.gates["value"]
    rewards = {
        "gain": mean_reward(cfg, lambda observed: model.predict(observed, deterministic=True)[0]),
        "gain_scripted": mean_reward(cfg, None),
        "gain_aimless": mean_reward(cfg, None, 0.0),
    }
    found = {"own_slope": gate["own"], "value_r": gate["agreement"], "passed": float(gate["passed"]), **rewards}
    rows = [(name, "self", 1.0, float(x)) for name, x in found.items()]
    return {
        "outsiders": report.table.drop(columns=["low", "high"]),
        "measures": pd.DataFrame(rows, columns=["measure", "mover", "similarity", "value"]),
    }


def weights(model: BaseAlgorithm) -> dict[str, torch.Tensor]:
    """The tensors of its policy."""
    return dict(model.policy.state_dict())
