"""Controls: no world model at all (`Pixels`, `PCA`), an encoder that learns own reward and nothing else (`EndToEnd`),
and two that are privileged to know who is who (`Oracle`, `Disjoint`).  An untrained twin is any family with
`trained_on="nothing"`; `solitary` is a world model whose own world has no eventful episode."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import config, world
from .base import Recurrent, WorldModel, coded, mlp

FRAMES = 3


class Pixels(WorldModel):
    """Identity: the last three observations and previous actions, so that the heads see motion but no learnt code."""

    learns = False

    def encode(self, obs: Tensor, prev_action: Tensor) -> Tensor:
        """obs [B, T, F], prev_action [B, T] -> [B, T, 3 (F + A + 1)], zeros before the first frame."""
        frame = torch.cat([obs, coded(prev_action, obs)], -1)
        return torch.cat([F.pad(frame, (0, 0, lag, 0))[:, : frame.shape[1]] for lag in range(FRAMES)], -1)

    def losses(self, obs: Tensor, prev_action: Tensor) -> dict[str, Tensor]:
        return {}


class PCA(Pixels):
    """The same, as its first principal components, as many as the reference's code is wide."""

    def __init__(self, cfg: config.Model, features: int):
        super().__init__(cfg, features)
        inputs = FRAMES * (features + len(world.ACTIONS) + 1)
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("components", torch.zeros(inputs, min(cfg.latent, inputs)))

    def encode(self, obs: Tensor, prev_action: Tensor) -> Tensor:
        """obs [B, T, F], prev_action [B, T] -> z [B, T, D]."""
        return (super().encode(obs, prev_action) - self.mean) @ self.components

    def fit(self, obs: Tensor, prev_action: Tensor) -> None:
        """Find the components of episodes obs [B, T, F], prev_action [B, T]."""
        x = super().encode(obs, prev_action).flatten(0, 1).double()
        self.mean.copy_(x.mean(0))
        _, axes = torch.linalg.eigh(torch.cov(x.T))
        self.components.copy_(axes[:, -self.components.shape[1] :])


class EndToEnd(WorldModel):
    """A family's encoder and memory shaped by nothing but a reward model's own error: no model of the world."""

    def __init__(self, cfg: config.Model, features: int, body: WorldModel):
        super().__init__(cfg, features)
        self.body, self.head = body, mlp(cfg.latent, 128, 128, 1)

    def encode(self, obs: Tensor, prev_action: Tensor) -> Tensor:
        """obs [B, T, F], prev_action [B, T] -> z [B, T, D]."""
        return self.body.encode(obs, prev_action)

    def losses(self, obs: Tensor, prev_action: Tensor, reward: Tensor) -> dict[str, Tensor]:
        """{reward}: squared error [B, T] of own reward [B, T]."""
        z = self.encode(obs, prev_action)
        return {"reward": (self.head(z)[..., 0].float() - reward).square()}


def chambers(obs: Tensor, cfg: config.World) -> tuple[Tensor, Tensor]:
    """Own and other's chamber [..., N, C] of observations [..., F] whose glass shows which is which."""
    s, glass = cfg.size, world.channels(cfg) - 2
    grid = obs.unflatten(-1, (s, 2 * s + 1, -1))
    left, right = (half.flatten(-3, -2) for half in (grid[..., :s, :], grid[..., s + 1 :, :]))
    swap = grid[..., :1, s, glass, None] < 0
    return torch.where(swap, right, left), torch.where(swap, left, right)


def _marked(cfg: config.Model) -> config.World:
    """The world of a family that is told whose chamber is whose.  Raises ValueError where it is not shown."""
    if not cfg.data.world.marked or cfg.data.world.noise or cfg.data.world.view == "centred":
        raise ValueError(f"the family {cfg.family} needs a world with marked=True, not centred and without pixel noise")
    return cfg.data.world


class Oracle(WorldModel):
    """The true state with who-met-what marked: the observation, and what each body stands on, one-hot."""

    learns = False

    def __init__(self, cfg: config.Model, features: int):
        super().__init__(cfg, features)
        self.world = _marked(cfg)

    def encode(self, obs: Tensor, prev_action: Tensor) -> Tensor:
        """obs [B, T, F], prev_action [B, T] -> [B, T, F + M K]."""
        first, kinds, met = self.world.appearance, len(self.world.ladder), []
        for chamber in chambers(obs, self.world):
            body = chamber[..., :first].square().sum(-1, keepdim=True) > 0.5
            met.append((chamber[..., first : first + kinds] * body).sum(-2))
        return torch.cat([obs, *met], -1)

    def losses(self, obs: Tensor, prev_action: Tensor) -> dict[str, Tensor]:
        return {}


class Disjoint(WorldModel):
    """Two reference models of half the size that share nothing: one only ever sees the self's chamber and its actions,
    one only ever the other's.  z is both states side by side, so no unit codes both bodies."""

    def __init__(self, cfg: config.Model, features: int):
        super().__init__(cfg, features)
        self.world = _marked(cfg)
        state = cfg.state and cfg.state // 2
        half = {"family": "cells/gru", "latent": cfg.latent // 2, "width": cfg.width // 2, "state": state}
        seen = self.world.size**2 * world.channels(self.world)  # the glass between is left out
        half = cfg.model_copy(update=half)
        self.bodies = nn.ModuleDict({name: Recurrent(half, seen) for name in ("self", "other")})

    def _routed(self, obs: Tensor, *actions: Tensor) -> list[tuple[str, Tensor, list[Tensor]]]:
        own, other = (half.flatten(-2) for half in chambers(obs, self.world))
        return [("self", own, list(actions)), ("other", other, [torch.zeros_like(a) for a in actions])]

    def encode(self, obs: Tensor, prev_action: Tensor) -> Tensor:
        """obs [B, T, F], prev_action [B, T] -> z [B, T, D], the self's half first."""
        return torch.cat([self.bodies[name].encode(o, *a) for name, o, a in self._routed(obs, prev_action)], -1)

    def losses(self, obs: Tensor, prev_action: Tensor, shown: Tensor | None = None) -> dict[str, Tensor]:
        """Those of both models, {self_reconstruction, ...}: [B, T]."""
        routed = self._routed(obs, prev_action, prev_action if shown is None else shown)
        parts = {name: self.bodies[name].losses(o, *actions) for name, o, actions in routed}
        return {f"{name}_{loss}": error for name, own in parts.items() for loss, error in own.items()}
