"""Control families: no world model at all (`Pixels`), and one that never learnt (`Untrained`)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import config
from ..world import ACTIONS
from .recurrent import Recurrent

FRAMES = 3


class Pixels(nn.Module):
    """Identity: the last three observations and previous actions, so that the heads see motion but no learnt code."""

    trained = False

    def __init__(self, cfg: config.Model, features: int):
        super().__init__()

    def encode(self, obs: Tensor, prev_action: Tensor) -> Tensor:
        """obs [B, T, F], prev_action [B, T] -> [B, T, 3 (F + A + 1)], zeros before the first frame."""
        frame = torch.cat([obs, F.one_hot(prev_action, len(ACTIONS) + 1).to(obs.dtype)], -1)
        return torch.cat([F.pad(frame, (0, 0, lag, 0))[:, : frame.shape[1]] for lag in range(FRAMES)], -1)

    def losses(self, obs: Tensor, prev_action: Tensor) -> dict[str, Tensor]:
        return {}


class Untrained(Recurrent):
    """The reference architecture with its random initial weights, frozen."""

    trained = False
