"""The reference world model: encoder -> GRU cell -> decoder of o_t and predictor of o_{t+1} given a_t."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import config
from .base import CODED, GRU, Predictive, coded, mlp


class Recurrent(Predictive):
    """z_t is the state of a GRU that has seen o_1 ... o_t and a_0 ... a_{t-1}, or a linear map of it (`cfg.state`)."""

    def __init__(self, cfg: config.Model, features: int):
        super().__init__()
        state = cfg.state or cfg.latent
        self.encoder = mlp(features, cfg.width, state)
        self.cell = GRU(state + CODED, state)
        self.code = nn.Linear(state, cfg.latent) if cfg.state else nn.Identity()
        self.decoder = mlp(cfg.latent, cfg.width, features)
        self.predictor = mlp(cfg.latent + CODED, cfg.width, features)

    def encode(self, obs: Tensor, prev_action: Tensor) -> Tensor:
        """obs [B, T, F], prev_action [B, T] -> z [B, T, D]."""
        return self.code(self.cell(torch.cat([F.silu(self.encoder(obs)), coded(prev_action, obs)], -1)))
