"""Control families: no world model at all (`Pixels`), one that never learnt (`Untrained`), one that only learns reward
(`EndToEnd`), and two that are privileged to know who is who (`Oracle`, `Disjoint`)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import config
from .base import CODED, GRU, Recurrent, WorldModel, coded, mlp

FRAMES = 3


class Pixels(WorldModel):
    """Identity: the last three observations and previous actions, so that the heads see motion but no learnt code."""

    trained = False

    def __init__(self, cfg: config.Model, features: int):
        super().__init__()

    def encode(self, obs: Tensor, prev_action: Tensor) -> Tensor:
        """obs [B, T, F], prev_action [B, T] -> [B, T, 3 (F + A + 1)], zeros before the first frame."""
        frame = torch.cat([obs, coded(prev_action, obs)], -1)
        return torch.cat([F.pad(frame, (0, 0, lag, 0))[:, : frame.shape[1]] for lag in range(FRAMES)], -1)

    def losses(self, obs: Tensor, prev_action: Tensor, z: Tensor | None = None) -> dict[str, Tensor]:
        return {}


class Untrained(Recurrent):
    """The reference architecture with its random initial weights, frozen."""

    trained = False


class EndToEnd(WorldModel):
    """The reference encoder shaped by nothing but a reward model's own error, at p = 0: no model of the world."""

    supervised = True

    def __init__(self, cfg: config.Model, features: int):
        super().__init__()
        self.world = cfg.data.world
        self.encoder, self.cell = mlp(features, cfg.width, cfg.latent), GRU(cfg.latent + CODED, cfg.latent)
        self.head = mlp(cfg.latent, cfg.width, cfg.width, 1)

    def encode(self, obs: Tensor, prev_action: Tensor) -> Tensor:
        """obs [B, T, F], prev_action [B, T] -> z [B, T, D]."""
        return self.cell(torch.cat([F.silu(self.encoder(obs)), coded(prev_action, obs)], -1))

    def losses(self, obs: Tensor, prev_action: Tensor, z: Tensor | None = None, *, given: Tensor) -> dict[str, Tensor]:
        """{reward}: squared error [B, T] where it is known; given [B, T, 2]: own reward, and 1 where it is."""
        z = self.encode(obs, prev_action) if z is None else z
        reward, known = given.unbind(-1)
        return {"reward": (self.head(z)[..., 0].float() - reward).square() * known}


def chambers(obs: Tensor, cfg: config.World) -> tuple[Tensor, Tensor]:
    """Own and other's chamber [..., N, C] of observations [..., F] whose view draws the own one on the left."""
    s = cfg.size
    grid = obs.unflatten(-1, (s, 2 * s + 1, -1))
    return tuple(half.flatten(-3, -2) for half in (grid[..., :s, :], grid[..., s + 1 :, :]))


def _privileged(cfg: config.Model) -> config.World:
    """The world of a family that must know whose chamber is whose.  Raises ValueError where its view hides that."""
    if cfg.data.world.view != "left" or cfg.data.world.noise:
        raise ValueError(
            f"the family {cfg.family} needs a world with view='left' and no pixel noise: it knows who is who"
        )
    return cfg.data.world


class Oracle(WorldModel):
    """The true state with who-met-what marked: the observation, own chamber left, and each body's contact, one-hot."""

    trained = False

    def __init__(self, cfg: config.Model, features: int):
        super().__init__()
        self.world = _privileged(cfg)

    def encode(self, obs: Tensor, prev_action: Tensor) -> Tensor:
        """obs [B, T, F], prev_action [B, T] -> [B, T, F + M K]."""
        first, kinds, met = self.world.appearance, len(self.world.ladder), []
        for chamber in chambers(obs, self.world):
            body = chamber[..., :first].square().sum(-1, keepdim=True) > 0.5
            met.append((chamber[..., first : first + kinds] * body).sum(-2))
        return torch.cat([obs, *met], -1)

    def losses(self, obs: Tensor, prev_action: Tensor, z: Tensor | None = None) -> dict[str, Tensor]:
        return {}


class Disjoint(WorldModel):
    """Two reference models of half the size that share nothing: one only ever sees the self's chamber and its actions,
    one only ever the other's.  z is both states side by side, so no unit codes both bodies."""

    def __init__(self, cfg: config.Model, features: int):
        super().__init__()
        self.world = _privileged(cfg)
        state = cfg.state and cfg.state // 2
        half = cfg.model_copy(update={"latent": cfg.latent // 2, "width": cfg.width // 2, "state": state})
        seen = features // (2 * self.world.size + 1) * self.world.size  # the glass between is left out
        self.bodies = nn.ModuleDict({name: Recurrent(half, seen) for name in ("self", "other")})

    def _routed(self, obs: Tensor, prev_action: Tensor) -> list[tuple[str, Tensor, Tensor]]:
        own, other = (half.flatten(-2) for half in chambers(obs, self.world))
        return [("self", own, prev_action), ("other", other, torch.zeros_like(prev_action))]

    def encode(self, obs: Tensor, prev_action: Tensor) -> Tensor:
        """obs [B, T, F], prev_action [B, T] -> [B, T, D], the self's half first."""
        return torch.cat([self.bodies[name].encode(o, a) for name, o, a in self._routed(obs, prev_action)], -1)

    def losses(self, obs: Tensor, prev_action: Tensor, z: Tensor | None = None) -> dict[str, Tensor]:
        """Those of both models, {self_reconstruction, ...}: [B, T]."""
        halves = (None, None) if z is None else z.chunk(2, -1)
        routed = zip(self._routed(obs, prev_action), halves, strict=True)
        parts = {name: self.bodies[name].losses(o, a, own) for (name, o, a), own in routed}
        return {f"{name}_{loss}": error for name, own in parts.items() for loss, error in own.items()}
