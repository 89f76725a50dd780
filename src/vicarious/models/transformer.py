"""A causal transformer over frames (pre-norm blocks as in GPT-2; as a world model: Robine et al. 2023)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import config
from .base import CODED, Predictive, coded, mlp

BLOCKS, HEADS = 2, 4


class Block(nn.Module):
    """Causal self-attention over time and an MLP, each on normalised inputs and added to the stream."""

    def __init__(self, width: int):
        super().__init__()
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = mlp(width, width, width)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, D] -> [B, T, D]; frame t attends to frames up to t."""
        q, k, v = (
            part.unflatten(-1, (HEADS, -1)).transpose(-2, -3)  # [B, heads, T, D / heads]
            for part in self.qkv(self.before(x)).chunk(3, -1)
        )
        late = torch.ones(x.shape[-2], x.shape[-2], dtype=torch.bool, device=x.device).triu(1)
        weight = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).float().masked_fill(late, -torch.inf).softmax(-1)
        x = x + self.out((weight.to(v.dtype) @ v).transpose(-2, -3).flatten(-2))
        return x + self.mlp(self.between(x))


class Transformer(Predictive):
    """z_t is what the last block makes of frame t, given o_1 ... o_t and a_0 ... a_{t-1}."""

    def __init__(self, cfg: config.Model, features: int):
        super().__init__()
        self.encoder = mlp(features + CODED, cfg.latent, cfg.latent)
        self.place = nn.Parameter(0.02 * torch.randn(cfg.data.frames, cfg.latent))
        self.blocks = nn.Sequential(*[Block(cfg.latent) for _ in range(BLOCKS)])
        self.norm = nn.LayerNorm(cfg.latent)
        self.decoder = mlp(cfg.latent, cfg.width // 2, features)
        self.predictor = mlp(cfg.latent + CODED, cfg.width, features)

    def encode(self, obs: Tensor, prev_action: Tensor) -> Tensor:
        """obs [B, T, F], prev_action [B, T] -> z [B, T, D]; T at most the frames of an episode."""
        x = F.silu(self.encoder(torch.cat([obs, coded(prev_action, obs)], -1))) + self.place[: obs.shape[1]]
        return self.norm(self.blocks(x).float())
