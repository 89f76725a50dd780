"""One function for every cell: a convolutional encoder that is pooled over the grid, and a broadcast decoder.

What a cell and its neighbours hold is coded alike wherever it is (deep sets, Zaheer et al. 2017); where it is enters
as a coordinate.  The decoder is a spatial broadcast (Watters et al. 2019).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import config, world
from .base import CODED, GRU, Predictive, coded, mlp


class Grid(nn.Module):
    """Observations as cells: obs [..., F] -> [..., N, C], each with its neighbours, and a learnt place of each cell.

    scale: standard deviation of the initial places.
    """

    def __init__(self, cfg: config.World, features: int, width: int, scale: float = 1.0):
        super().__init__()
        rows, columns = world.grid(cfg)
        self.cells = rows * columns
        self.channels = features // self.cells
        self.place = nn.Parameter(scale * torch.randn(self.cells, width))
        padded = F.pad(torch.arange(self.cells).view(1, rows, columns), (1, 1, 1, 1), value=self.cells)
        self.near = padded.unfold(1, 3, 1).unfold(2, 3, 1).flatten(-2).flatten(0, -2)  # [N, 9], N where there is none

    def split(self, obs: Tensor) -> Tensor:
        """[..., N, C]"""
        return obs.unflatten(-1, (self.cells, self.channels))

    def patches(self, obs: Tensor) -> Tensor:
        """[..., N, 9 C]: what each cell and the eight around it hold."""
        return F.pad(self.split(obs), (0, 0, 0, 1))[..., self.near.to(obs.device), :].flatten(-2)


class Broadcast(nn.Module):
    """A code sent to every cell, which makes of it and of its place what it holds: x [..., inputs] -> [..., F]."""

    def __init__(self, inputs: int, width: int, grid: Grid):
        super().__init__()
        self.place = nn.Parameter(torch.randn(grid.cells, width))
        self.sent, self.out = nn.Linear(inputs, width), mlp(width, width, grid.channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.silu(self.sent(x)[..., None, :] * self.place.to(x.dtype))).flatten(-2)


class Conv(Predictive):
    """z_t is the state of a GRU over pooled features of the grid and actions."""

    def __init__(self, cfg: config.Model, features: int):
        super().__init__()
        width = cfg.width // 4
        self.grid = Grid(cfg.data.world, features, cfg.latent)
        self.filters = nn.Linear(9 * self.grid.channels, cfg.latent)  # a 3 x 3 convolution
        self.pooled = nn.Linear(cfg.latent, cfg.latent)
        self.cell = GRU(cfg.latent + CODED, cfg.latent)
        self.decoder = Broadcast(cfg.latent, width, self.grid)
        self.predictor = mlp(cfg.latent + CODED, cfg.width, features)

    def encode(self, obs: Tensor, prev_action: Tensor) -> Tensor:
        """obs [B, T, F], prev_action [B, T] -> z [B, T, D]."""
        features = F.silu(self.filters(self.grid.patches(obs)))
        pooled = self.pooled((features * self.grid.place.to(features.dtype)).sum(-2))
        return self.cell(torch.cat([F.silu(pooled), coded(prev_action, obs)], -1))
