"""Prediction of the next code and nothing else, kept from collapse by SIGReg (Balestriero & LeCun 2025, LeJEPA)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import config
from .base import Dynamics, WorldModel, mlp

WEIGHT = 0.1  # of SIGReg against the squared error of prediction
KNOTS, REACH = 17, 3.0  # points at which characteristic functions are compared, and the largest of them
SLICES = 32  # directions drawn for every update


def sigreg(z: Tensor, slices: Tensor) -> Tensor:
    """Sketched isotropic Gaussian regularisation [] of codes z [R, D] along unit directions slices [D, M].

    The Epps-Pulley statistic of each projection against N(0, 1), mean over directions:
    R * integral of |phi_R(t) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt, by the trapezoid rule on |t| <= REACH.
    """
    t = torch.linspace(0, REACH, KNOTS, device=z.device)
    target = (-t.square() / 2).exp()
    angle = (z @ slices)[..., None] * t  # [R, M, knots]
    error = (angle.cos().mean(0) - target).square() + angle.sin().mean(0).square()
    return 2 * len(z) * torch.trapezoid(error * target, t, dim=-1).mean()


class JEPA(WorldModel):
    """z_t is an embedding of o_t alone, such that a recurrent predictor can tell the next one; there is no decoder."""

    def __init__(self, cfg: config.Model, features: int):
        super().__init__()
        self.noise = SLICES
        self.encoder = mlp(features, 2 * cfg.width, cfg.latent)
        self.dynamics = Dynamics(cfg.latent, cfg.width // 2, cfg.latent)

    def encode(self, obs: Tensor, prev_action: Tensor) -> Tensor:
        """obs [B, T, F] -> z [B, T, D]; actions are not used."""
        return self.encoder(obs)

    def losses(
        self, obs: Tensor, prev_action: Tensor, z: Tensor | None = None, given: Tensor | None = None
    ) -> dict[str, Tensor]:
        """{prediction, sigreg}: [B, T], the latter the same everywhere; given [B, T, SLICES]: uniform noise that makes
        the directions, fixed ones where there is none."""
        z = self.encode(obs, prev_action).float()
        told = self.dynamics(z[:, :-1], prev_action[:, 1:]).float()
        prediction = F.pad((told - z[:, 1:]).square().mean(-1), (0, 1))
        if given is None:
            drawn = torch.eye(z.shape[-1], device=z.device)[:, :SLICES]
        else:
            drawn = torch.special.ndtri(given.flatten(0, 1)[: z.shape[-1]])
        regular = sigreg(z.flatten(0, 1), F.normalize(drawn, dim=0))
        return {"prediction": prediction, "sigreg": (WEIGHT * regular).expand_as(prediction)}

    def imagine(self, obs: Tensor, prev_action: Tensor, actions: Tensor) -> Tensor:
        """Codes [B, H, D] of H frames that follow obs [B, T, F], unseen: actions [B, H], coded as previous actions."""
        return self.dynamics.imagine(self.encode(obs, prev_action), prev_action, actions)
