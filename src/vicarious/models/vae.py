"""A static code with a recurrent predictor: the V and M of Ha & Schmidhuber (2018)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import config
from .base import Dynamics, WorldModel, mlp

KL = 0.005  # weight against squared error: that of observations with a standard deviation of .05


def kl_to_standard_normal(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, exp log_var) || N(0, 1)) [..., D] in nats (Kingma & Welling 2014, appendix B)."""
    return 0.5 * (mean.square() + log_var.exp() - 1 - log_var)


def gaussian_nll(x: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """-log N(x; mean, exp log_var) [..., D] in nats, without its constant."""
    return 0.5 * ((x - mean).square() * (-log_var).exp() + log_var)


class VAE(WorldModel):
    """z_t is the posterior mean of a variational autoencoder of o_t alone; time is known to the predictor only."""

    def __init__(self, cfg: config.Model, features: int):
        super().__init__()
        self.noise = cfg.latent
        self.encoder = mlp(features, 3 * cfg.width // 4, 2 * cfg.latent)
        self.decoder = mlp(cfg.latent, cfg.width, features)
        self.dynamics = Dynamics(cfg.latent, cfg.width // 2, 2 * cfg.latent)

    def encode(self, obs: Tensor, prev_action: Tensor) -> Tensor:
        """obs [B, T, F] -> z [B, T, D]; actions are not used."""
        return self.encoder(obs).chunk(2, -1)[0]

    def losses(
        self, obs: Tensor, prev_action: Tensor, z: Tensor | None = None, given: Tensor | None = None
    ) -> dict[str, Tensor]:
        """{reconstruction (squared error), kl, prediction}: [B, T]; given [B, T, D]: uniform noise, none for means.

        prediction: negative log likelihood of the next posterior sample, of which the code itself learns nothing.
        """
        mean, log_var = (part.float() for part in self.encoder(obs).chunk(2, -1))
        log_var = log_var.clamp(-10, 10)
        z = mean if given is None else mean + (0.5 * log_var).exp() * torch.special.ndtri(given)
        told, spread = self.dynamics(z[:, :-1].detach(), prev_action[:, 1:]).float().chunk(2, -1)
        ahead = gaussian_nll(z[:, 1:].detach(), told, spread.clamp(-10, 10)).mean(-1)
        return {
            "reconstruction": (self.decoder(z) - obs).square().sum(-1),
            "kl": KL * kl_to_standard_normal(mean, log_var).sum(-1),
            "prediction": F.pad(ahead, (0, 1)),
        }

    def imagine(self, obs: Tensor, prev_action: Tensor, actions: Tensor) -> Tensor:
        """Codes [B, H, D] of H frames that follow obs [B, T, F], unseen: actions [B, H], coded as previous actions."""
        return self.dynamics.imagine(self.encode(obs, prev_action), prev_action, actions)
