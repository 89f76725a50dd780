"""The glass chambers for other people's agents: a gymnasium environment, a vector of them, and a PettingZoo one.

Importing this module registers `vicarious/Chambers-v0`.  Needs the packages of the extra `outsiders`.
"""

from __future__ import annotations

import os
from typing import Any

import gymnasium
import matplotlib.pyplot as plt
import numpy as np
import pettingzoo
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector.utils import batch_space
from torch import Tensor

from .. import drawings, world
from ..config import World

AGENTS = ("self", "other")
ACTIONS = len(world.ACTIONS)


class Chambers:
    """What all interfaces share: a batch of chambers, how one seed draws them, and how long an episode is.

    cfg: the world; drawn: the seed whose appearances and item kinds are drawn, as `config.Episodes.seed`; frames: of an
    episode, the first one included; kappa: coupling of the other's gain into the self's reward.
    """

    def __init__(self, cfg: World | None = None, drawn: int = 0, frames: int = 20, kappa: float = 0.0):
        if frames < 2:
            raise ValueError(f"frames={frames}: an episode has at least two")
        self.cfg, self.frames, self.kappa = cfg or World(), frames, kappa
        self.appearance, self.worth = world.appearance(self.cfg, drawn), world.values(self.cfg)
        self.state, self.g, self.at = None, None, 0

    @property
    def observations(self) -> Box:
        """[H, W, C]: appearance, item kinds, glass and expression, in every cell."""
        bound = np.inf if self.cfg.noise else max(1.0, 2 * self.cfg.expression * max(map(abs, self.cfg.ladder)))
        rows, columns = world.grid(self.cfg)
        channels = world.features(self.cfg) // (rows * columns)
        return Box(-bound, bound, (rows, columns, channels), np.float32)

    def reset(self, batch: int, seed: int) -> np.ndarray:
        """Observations [B, H, W, C] of the first frame."""
        self.g, self.at = torch.Generator().manual_seed(seed), 0
        self.state = world.reset(self.cfg, batch, self.g)
        return self.observe()

    def step(self, actions: Tensor) -> tuple[np.ndarray, np.ndarray, bool]:
        """Actions [B, M], -1 where a body moves by its own script -> observations, gains [B, M], whether it ends."""
        scripted = world.conduct(self.state, self.cfg, self.g)
        self.state = world.step(self.state, torch.where(actions < 0, scripted, actions), self.cfg, self.g)
        self.at += 1
        return self.observe(), self.gains(), self.at >= self.frames - 1

    def observe(self) -> np.ndarray:
        return world.observe(self.state, self.cfg, self.appearance, self.g).numpy()

    def gains(self) -> np.ndarray:
        """What each body's contact is worth to it [B, M]; the self's with its share of the other's."""
        own = torch.stack([self.worth[m][self.state.contact[:, m]] for m in range(2)], 1)
        own[:, 0] += self.kappa * own[:, 1]
        return own.numpy()

    def picture(self, index: int = 0) -> np.ndarray:
        """RGB [rows, columns, 3] of one of the batch."""
        fig = plt.figure(figsize=(3.5, 1.5), dpi=80)
        try:
            ax = fig.add_axes((0, 0, 1, 1))
            drifter = bool(self.state.purpose[index, 1] == 0)
            drawings.scene(ax, self.state, self.cfg.ladder, index, drifter)
            fig.canvas.draw()
            return np.asarray(fig.canvas.buffer_rgba())[..., :3].copy()
        finally:
            plt.close(fig)


class ChambersEnv(gymnasium.Env):
    """One self among scripted others: it is rewarded for its own item alone.  Options as `Chambers`."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None, **options):
        self.chambers, self.render_mode = Chambers(**options), render_mode
        self.observation_space, self.action_space = self.chambers.observations, Discrete(ACTIONS)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return self.chambers.reset(1, int(self.np_random.integers(2**62)))[0], {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if not 0 <= int(action) < ACTIONS:
            raise ValueError(f"action {action}: it is 0 to {ACTIONS - 1}")
        observed, gains, ends = self.chambers.step(torch.tensor([[int(action), -1]]))
        return observed[0], float(gains[0, 0]), False, ends, {"other": float(gains[0, 1])}

    def render(self) -> np.ndarray | None:
        return self.chambers.picture() if self.render_mode == "rgb_array" else None


class ChambersVectorEnv(gymnasium.vector.VectorEnv):
    """Many such worlds at once, stepped as one batch; all end together, and begin anew with the next step."""

    metadata = {  # noqa: RUF012
        "render_modes": ["rgb_array"],
        "render_fps": 4,
        "autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP,
    }

    def __init__(self, num_envs: int = 1, render_mode: str | None = None, **options):
        self.num_envs, self.chambers, self.render_mode = num_envs, Chambers(**options), render_mode
        self.single_observation_space, self.single_action_space = self.chambers.observations, Discrete(ACTIONS)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._ended = False

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._ended = False
        return self.chambers.reset(self.num_envs, int(self.np_random.integers(2**62))), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        never = np.zeros(self.num_envs, bool)
        if self._ended:
            return *self.reset()[:1], np.zeros(self.num_envs), never, never.copy(), {}
        mine = torch.as_tensor(np.asarray(actions, dtype=np.int64))
        observed, gains, self._ended = self.chambers.step(torch.stack([mine, torch.full_like(mine, -1)], 1))
        return observed, gains[:, 0].astype(float), never, np.full(self.num_envs, self._ended), {"other": gains[:, 1]}

    def render(self) -> tuple[np.ndarray, ...] | None:
        return tuple(map(self.chambers.picture, range(self.num_envs))) if self.render_mode == "rgb_array" else None


class ChambersParallelEnv(pettingzoo.ParallelEnv):
    """Both bodies as agents, `self` and `other`, who see the same and are each rewarded for their own item."""

    metadata = {"name": "chambers_v0", "render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None, **options):
        self.chambers, self.render_mode = Chambers(**options), render_mode
        self.possible_agents, self.agents = list(AGENTS), []
        self.observation_spaces = {body: self.chambers.observations for body in AGENTS}
        self.action_spaces = {body: Discrete(ACTIONS) for body in AGENTS}
        self._random = np.random.default_rng()

    def observation_space(self, agent: str) -> Box:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> Discrete:
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        if seed is not None:
            self._random = np.random.default_rng(seed)
        self.agents = list(AGENTS)
        observed = self.chambers.reset(1, int(self._random.integers(2**62)))[0]
        return {body: observed.copy() for body in AGENTS}, {body: {} for body in AGENTS}

    def step(self, actions: dict[str, int]) -> tuple[dict, dict, dict, dict, dict]:
        observed, gains, ends = self.chambers.step(torch.tensor([[int(actions[body]) for body in AGENTS]]))
        self.agents = [] if ends else self.agents
        return (
            {body: observed[0].copy() for body in AGENTS},
            {body: float(gain) for body, gain in zip(AGENTS, gains[0], strict=True)},
            dict.fromkeys(AGENTS, False),
            dict.fromkeys(AGENTS, ends),
            {body: {} for body in AGENTS},
        )

    def render(self) -> np.ndarray | None:
        return self.chambers.picture() if self.render_mode == "rgb_array" else None


if hasattr(os, "register_at_fork"):  # a forked child, of AsyncVectorEnv for one, has none of its parent's threads
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))
gymnasium.register(
    "vicarious/Chambers-v0",
    entry_point="vicarious.interop.envs:ChambersEnv",
    vector_entry_point="vicarious.interop.envs:ChambersVectorEnv",
)
