"""Slot attention over the cells of a frame, carried on through time (Locatello et al. 2020; Kipf et al. 2022).

All slots share every weight, so that whatever is known about one body can be used about the other.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import config
from .base import CODED, GRU, Predictive, coded, mlp
from .conv import Grid

SLOTS = 6


class Slots(Predictive):
    """z_t is all slots side by side, D = SLOTS * d, after they have attended to o_t."""

    def __init__(self, cfg: config.Model, features: int):
        super().__init__()
        self.size, width = max(2, cfg.latent // 4), cfg.width // 4
        self.grid = Grid(cfg.data.world, features, width, width**-0.5)
        self.content, self.token = nn.Linear(self.grid.channels, width), mlp(width, width, 2 * self.size)
        self.first = nn.Parameter(torch.randn(SLOTS, self.size))
        self.norm, self.query = nn.LayerNorm(self.size), nn.Linear(self.size, self.size)
        self.cell = GRU(self.size, self.size)
        self.onward = mlp(2 * self.size + CODED, cfg.width, self.size)
        self.asking = nn.Parameter(torch.randn(self.grid.cells, self.size))
        self.key, self.render = nn.Linear(self.size, self.size), mlp(width, self.grid.channels)
        self.mixed = nn.Linear(self.size, width)

    def encode(self, obs: Tensor, prev_action: Tensor) -> Tensor:
        """obs [B, T, F], prev_action [B, T] -> z [B, T, D]."""
        tokens = F.silu(self.content(self.grid.split(obs)) + self.grid.place)
        key, value = self.token(tokens).float().chunk(2, -1)  # [B, T, N, d]
        slots, states = self.first.expand(len(obs), -1, -1), []
        with torch.autocast(obs.device.type, enabled=False):  # products too small to gain from it
            for k, v, a in zip(key.unbind(1), value.unbind(1), coded(prev_action, obs).unbind(1), strict=True):
                slots = self._seen(self._on(slots, a), k, v)
                states.append(slots.flatten(-2))
        return torch.stack(states, 1)

    def _on(self, slots: Tensor, action: Tensor) -> Tensor:
        """Slots [..., S, d] one frame later, each given its own state, the mean of all, and the action [..., A + 1]."""
        shared = torch.cat([slots.mean(-2), action.to(slots.dtype)], -1)[..., None, :]
        return slots + self.onward(torch.cat([slots, shared.expand(*slots.shape[:-1], -1)], -1)).float()

    def _seen(self, slots: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Slots [B, S, d] that compete for the cells of a frame, key and value [B, N, d]."""
        query = self.query(self.norm(slots)).float()
        share = (key @ query.transpose(-1, -2) * self.size**-0.5).softmax(-1)  # of each cell, over slots [B, N, S]
        update = (share / (share.sum(-2, keepdim=True) + 1e-6)).transpose(-1, -2) @ value
        return self.cell.step(self.cell.input(update).float(), slots)

    def decode(self, z: Tensor) -> Tensor:
        """Each cell mixes the slots that it attends to and renders the mixture (Sajjadi et al. 2022)."""
        slots = z.unflatten(-1, (SLOTS, self.size))
        share = (self.asking @ self.key(slots).transpose(-1, -2) * self.size**-0.5).softmax(-1)
        mixed = share.to(slots.dtype) @ slots  # [..., N, d]
        return self.render(F.silu(self.mixed(mixed) + self.grid.place)).flatten(-2)

    def predict(self, z: Tensor, action: Tensor) -> Tensor:
        """z [..., D], actions [...] coded as previous actions -> o_{t+1} [..., F]."""
        slots = z.unflatten(-1, (SLOTS, self.size))
        return self.decode(self._on(slots, coded(action, z)).flatten(-2))
