"""A recurrent state-space model with categorical codes and balanced KL (Hafner et al. 2021, 2025: DreamerV2 and V3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import config, world
from .base import CODED, GRU, WorldModel, coded, mlp

CLASSES = 4  # of each categorical variable
UNIMIX = 0.01  # share of the uniform distribution in every categorical one
KL = 0.02  # weight against squared error: that of observations with a standard deviation of .1
DYNAMICS, REPRESENTATION = 5.0, 0.1  # balance: the prior is to learn from the posterior, and hardly the reverse
FREE = 0.1  # nats that the representation may keep for nothing


def kl_categorical(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) [...] in nats of independent categoricals, logs of probabilities p, q [..., variables, classes]."""
    return (p.exp() * (p - q)).sum((-2, -1))


class RSSM(WorldModel):
    """z_t = (h_t, s_t): the state of a GRU that has seen s and a up to t - 1, and the posterior's mode, one-hot."""

    def __init__(self, cfg: config.Model, features: int):
        super().__init__()
        self.latent, self.variables = cfg.latent, max(1, cfg.latent // CLASSES)
        self.stochastic = self.variables * CLASSES
        self.noise = self.stochastic
        self.encoder = mlp(features, cfg.width, cfg.latent)
        self.cell = GRU(self.stochastic + CODED, cfg.latent)
        self.posterior = nn.Linear(2 * cfg.latent, self.stochastic)
        self.prior = mlp(cfg.latent, cfg.latent, self.stochastic)
        self.decoder = mlp(cfg.latent + self.stochastic, cfg.width, features)

    def _log(self, logits: Tensor) -> Tensor:
        """Logs of probabilities [..., variables, classes], some of them uniform."""
        p = logits.float().unflatten(-1, (self.variables, CLASSES)).softmax(-1)
        return ((1 - UNIMIX) * p + UNIMIX / CLASSES).log()

    def _pick(self, log_p: Tensor, noise: Tensor | None) -> Tensor:
        """One-hot classes, flat [..., variables * classes], with the gradient of the probabilities straight through.

        A sample by uniform noise of the same shape (Gumbel's trick), or the mode.
        """
        score = log_p if noise is None else log_p - (-noise.unflatten(-1, log_p.shape[-2:]).log()).log()
        hard, p = F.one_hot(score.argmax(-1), CLASSES).to(log_p.dtype), log_p.exp()
        return (hard + p - p.detach()).flatten(-2)

    def _next(self, h: Tensor, s: Tensor, action: Tensor) -> Tensor:
        return self.cell.step(self.cell.input(torch.cat([s, action.to(s.dtype)], -1)).float(), h)

    def observe(self, obs: Tensor, prev_action: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """obs [B, T, F] -> h [B, T, D], s [B, T, S] and logs of the posterior [B, T, variables, classes]."""
        seen, taken = F.silu(self.encoder(obs)), coded(prev_action, obs)
        h, s = seen.new_zeros(len(obs), self.latent).float(), seen.new_zeros(len(obs), self.stochastic).float()
        states, picked, logs = [], [], []
        for t in range(obs.shape[1]):
            h = self._next(h, s, taken[:, t])
            log_p = self._log(self.posterior(torch.cat([h, seen[:, t]], -1)))
            s = self._pick(log_p, None if noise is None else noise[:, t])
            states.append(h), picked.append(s), logs.append(log_p)
        return torch.stack(states, 1), torch.stack(picked, 1), torch.stack(logs, 1)

    def encode(self, obs: Tensor, prev_action: Tensor) -> Tensor:
        """obs [B, T, F], prev_action [B, T] -> z [B, T, D + S]."""
        return torch.cat(self.observe(obs, prev_action)[:2], -1)

    def losses(
        self, obs: Tensor, prev_action: Tensor, z: Tensor | None = None, given: Tensor | None = None
    ) -> dict[str, Tensor]:
        """{reconstruction (squared error), dynamics, representation}: [B, T].

        given [B, T, S]: uniform noise for samples, none for modes.  dynamics moves the prior, representation (beyond
        `FREE` nats) the posterior.
        """
        h, s, post = self.observe(obs, prev_action, given)
        prior = self._log(self.prior(h))
        return {
            "reconstruction": (self.decoder(torch.cat([h, s], -1)) - obs).square().sum(-1),
            "dynamics": KL * DYNAMICS * kl_categorical(post.detach(), prior),
            "representation": KL * REPRESENTATION * kl_categorical(post, prior.detach()).clamp(min=FREE),
        }

    def imagine(self, obs: Tensor, prev_action: Tensor, actions: Tensor) -> Tensor:
        """Codes [B, H, D + S] of H frames that follow obs [B, T, F], unseen: sampled from the prior, always by the same
        noise.  actions [B, H], coded as previous actions."""
        h, s = (part[:, -1] for part in self.observe(obs, prev_action)[:2])
        g, states = world.generator(0, "imagine", obs.device), []
        for action in coded(actions, obs).unbind(1):
            h = self._next(h, s, action)
            noise = torch.rand(len(obs), self.stochastic, generator=g, device=obs.device).clamp(min=1e-6)
            s = self._pick(self._log(self.prior(h)), noise)
            states.append(torch.cat([h, s], -1))
        return torch.stack(states, 1)
