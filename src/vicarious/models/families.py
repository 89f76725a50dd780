"""Memories and objectives beside the reference's, each to be had with every encoder (`slots`: with `cells`).

JEPA predicts the next code and nothing else, kept from collapse by SIGReg (Balestriero & LeCun 2025, LeJEPA).
RSSM is a recurrent state-space model with categorical codes and balanced KL (Hafner et al. 2021, 2025: DreamerV2, V3).
VAE is a static code with a recurrent predictor: the V and M of Ha & Schmidhuber (2018).
Transformer is causal over frames (pre-norm blocks as in GPT-2; as a world model: Robine et al. 2023).
Slots attend to the cells of a frame and are carried on through time (Locatello et al. 2020; Kipf et al. 2022); all of
them share every weight, so that whatever is known about one body can be used about the other.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import config, world
from .base import CODED, GRU, Dynamics, Predictive, WorldModel, coded, decoder, encoder, mlp

SIGREG = 0.1  # of SIGReg against the squared error of prediction
KNOTS, REACH = 17, 3.0  # points at which characteristic functions are compared, and the largest of them
SLICES = 32  # directions drawn for every update
CLASSES = 4  # of each categorical variable
SAMPLES = 16  # of the prior, over which an expectation is taken
UNIMIX = 0.01  # share of the uniform distribution in every categorical one
RSSM_KL = 0.02  # weight against squared error: that of observations with a standard deviation of .1
DYNAMICS, REPRESENTATION = 5.0, 0.1  # balance: the prior is to learn from the posterior, and hardly the reverse
FREE = 0.1  # nats that the representation may keep for nothing
VAE_KL = 0.005  # weight against squared error: that of observations with a standard deviation of .05
BLOCKS, HEADS = 2, 4
SLOTS = 6


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

    foresees_frames = False

    def __init__(self, cfg: config.Model, features: int):
        super().__init__(cfg, features)
        self.noise = SLICES
        self.encoder = encoder(cfg, features, cfg.latent)
        self.dynamics = Dynamics(cfg.latent, cfg.width // 2, cfg.latent)

    def encode(self, obs: Tensor, prev_action: Tensor) -> Tensor:
        """obs [B, T, F] -> z [B, T, D]; actions are not used."""
        return self.encoder(obs)

    def losses(
        self,
        obs: Tensor,
        prev_action: Tensor,
        shown: Tensor | None = None,
        z: Tensor | None = None,
        given: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """{prediction, sigreg}: [B, T], the latter the same everywhere; given [B, T, SLICES]: uniform noise that makes
        the directions, fixed ones where there is none."""
        z = self.encode(obs, prev_action).float()
        told = self.dynamics(z[:, :-1], (prev_action if shown is None else shown)[:, 1:]).float()
        prediction = F.pad((told - z[:, 1:]).square().mean(-1), (0, 1))
        if given is None:
            drawn = torch.eye(z.shape[-1], device=z.device)[:, :SLICES]
        else:
            drawn = torch.special.ndtri(given.flatten(0, 1)[: z.shape[-1]])
        regular = sigreg(z.flatten(0, 1), F.normalize(drawn, dim=0))
        return {"prediction": prediction, "sigreg": (SIGREG * regular).expand_as(prediction)}

    def foresee(self, z: Tensor, prev_action: Tensor) -> Tensor:
        return self.dynamics(z[:, :-1], prev_action[:, 1:])

    def imagine(self, obs: Tensor, prev_action: Tensor, actions: Tensor) -> Tensor:
        """Codes [B, H, D] of H frames that follow obs [B, T, F], unseen: actions [B, H], coded as previous actions."""
        return self.dynamics.imagine(self.encode(obs, prev_action), prev_action, actions)


def kl_categorical(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) [...] in nats of independent categoricals, logs of probabilities p, q [..., variables, classes]."""
    return (p.exp() * (p - q)).sum((-2, -1))


class RSSM(WorldModel):
    """z_t = (h_t, s_t): the state of a GRU that has seen s and a up to t - 1, and the posterior's mode, one-hot."""

    def __init__(self, cfg: config.Model, features: int):
        super().__init__(cfg, features)
        self.latent, self.variables = cfg.latent, max(1, cfg.latent // CLASSES)
        self.stochastic = self.variables * CLASSES
        self.noise = self.stochastic
        self.encoder = encoder(cfg, features, cfg.latent)
        self.cell = GRU(self.stochastic + CODED, cfg.latent)
        self.posterior = nn.Linear(2 * cfg.latent, self.stochastic)
        self.prior = mlp(cfg.latent, cfg.latent, self.stochastic)
        self.decoder = decoder(cfg, features, cfg.latent + self.stochastic)

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
        self,
        obs: Tensor,
        prev_action: Tensor,
        shown: Tensor | None = None,
        z: Tensor | None = None,
        given: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """{reconstruction (squared error), dynamics, representation}: [B, T].

        given [B, T, S]: uniform noise for samples, none for modes.  An action that is not shown is missing from the
        state as well, since the state is the predictor.  dynamics moves the prior, representation (beyond
        `FREE` nats) the posterior.
        """
        h, s, post = self.observe(obs, prev_action if shown is None else shown, given)
        prior = self._log(self.prior(h))
        return {
            "reconstruction": self.error(self.decoder(torch.cat([h, s], -1)), obs),
            "dynamics": RSSM_KL * DYNAMICS * kl_categorical(post.detach(), prior),
            "representation": RSSM_KL * REPRESENTATION * kl_categorical(post, prior.detach()).clamp(min=FREE),
        }

    def foresee(self, z: Tensor, prev_action: Tensor) -> Tensor:
        """The mean of what is decoded from `SAMPLES` of the prior's, always by the same noise."""
        h, s = z[:, :-1].split([self.latent, self.stochastic], -1)
        h = self._next(h.float(), s, coded(prev_action[:, 1:], s))
        log_p, g = self._log(self.prior(h)), world.generator(0, "foresee", z.device)
        noise = torch.rand(SAMPLES, *s.shape, generator=g, device=z.device).clamp(min=1e-6)
        return sum(self.decoder(torch.cat([h, self._pick(log_p, own)], -1)) for own in noise) / SAMPLES

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


def kl_to_standard_normal(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, exp log_var) || N(0, 1)) [..., D] in nats (Kingma & Welling 2014, appendix B)."""
    return 0.5 * (mean.square() + log_var.exp() - 1 - log_var)


def gaussian_nll(x: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """-log N(x; mean, exp log_var) [..., D] in nats, without its constant."""
    return 0.5 * ((x - mean).square() * (-log_var).exp() + log_var)


class VAE(WorldModel):
    """z_t is the posterior mean of a variational autoencoder of o_t alone; time is known to the predictor only."""

    foresees_frames = False

    def __init__(self, cfg: config.Model, features: int):
        super().__init__(cfg, features)
        self.noise = cfg.latent
        self.encoder = encoder(cfg, features, 2 * cfg.latent)
        self.decoder = decoder(cfg, features, cfg.latent)
        self.dynamics = Dynamics(cfg.latent, cfg.width // 2, 2 * cfg.latent)

    def encode(self, obs: Tensor, prev_action: Tensor) -> Tensor:
        """obs [B, T, F] -> z [B, T, D]; actions are not used."""
        return self.encoder(obs).chunk(2, -1)[0]

    def losses(
        self,
        obs: Tensor,
        prev_action: Tensor,
        shown: Tensor | None = None,
        z: Tensor | None = None,
        given: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """{reconstruction (squared error), kl, prediction}: [B, T]; given [B, T, D]: uniform noise, none for means.

        prediction: negative log likelihood of the next posterior sample, of which the code itself learns nothing.
        """
        mean, log_var = (part.float() for part in self.encoder(obs).chunk(2, -1))
        log_var = log_var.clamp(-10, 10)
        z = mean if given is None else mean + (0.5 * log_var).exp() * torch.special.ndtri(given)
        actions = (prev_action if shown is None else shown)[:, 1:]
        told, spread = self.dynamics(z[:, :-1].detach(), actions).float().chunk(2, -1)
        ahead = gaussian_nll(z[:, 1:].detach(), told, spread.clamp(-10, 10)).mean(-1)
        return {
            "reconstruction": self.error(self.decoder(z), obs),
            "kl": VAE_KL * kl_to_standard_normal(mean, log_var).sum(-1),
            "prediction": F.pad(ahead, (0, 1)),
        }

    def foresee(self, z: Tensor, prev_action: Tensor) -> Tensor:
        return self.dynamics(z[:, :-1], prev_action[:, 1:]).chunk(2, -1)[0]

    def imagine(self, obs: Tensor, prev_action: Tensor, actions: Tensor) -> Tensor:
        """Codes [B, H, D] of H frames that follow obs [B, T, F], unseen: actions [B, H], coded as previous actions."""
        return self.dynamics.imagine(self.encode(obs, prev_action), prev_action, actions)


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
        super().__init__(cfg, features)
        self.encoder, self.action = encoder(cfg, features, cfg.latent), nn.Linear(CODED, cfg.latent)
        self.place = nn.Parameter(0.02 * torch.randn(cfg.data.frames, cfg.latent))
        self.blocks = nn.Sequential(*[Block(cfg.latent) for _ in range(BLOCKS)])
        self.norm = nn.LayerNorm(cfg.latent)
        self.decoder = decoder(cfg, features, cfg.latent)
        self.predictor = decoder(cfg, features, cfg.latent + CODED)

    def encode(self, obs: Tensor, prev_action: Tensor) -> Tensor:
        """obs [B, T, F], prev_action [B, T] -> z [B, T, D]; T at most the frames of an episode."""
        x = F.silu(self.encoder(obs) + self.action(coded(prev_action, obs))) + self.place[: obs.shape[1]]
        return self.norm(self.blocks(x).float())


class Slots(Predictive):
    """z_t is all slots side by side, D = SLOTS * d, after they have attended to o_t."""

    def __init__(self, cfg: config.Model, features: int):
        super().__init__(cfg, features)
        self.size, width, self.channels = max(2, cfg.latent // 4), cfg.width // 4, world.channels(cfg.data.world)
        cells = features // self.channels
        self.place = nn.Parameter(width**-0.5 * torch.randn(cells, width))
        self.content, self.token = nn.Linear(self.channels, width), mlp(width, width, 2 * self.size)
        self.first = nn.Parameter(torch.randn(SLOTS, self.size))
        self.norm, self.query = nn.LayerNorm(self.size), nn.Linear(self.size, self.size)
        self.cell = GRU(self.size, self.size)
        self.onward = mlp(2 * self.size + CODED, cfg.width, self.size)
        self.asking = nn.Parameter(torch.randn(cells, self.size))
        self.key, self.render = nn.Linear(self.size, self.size), mlp(width, self.channels)
        self.mixed = nn.Linear(self.size, width)

    def encode(self, obs: Tensor, prev_action: Tensor) -> Tensor:
        """obs [B, T, F], prev_action [B, T] -> z [B, T, D]."""
        tokens = F.silu(self.content(obs.unflatten(-1, (-1, self.channels))) + self.place)
        key, value = self.token(tokens).float().chunk(2, -1)  # [B, T, N, d]
        slots, states = self.first.expand(len(obs), -1, -1), []
        with torch.autocast(obs.device.type, enabled=False):  # products too small to gain from it
            for k, v, a in zip(key.unbind(1), value.unbind(1), coded(prev_action, obs).unbind(1), strict=True):
                slots = self._seen(self._on(slots, a), k, v)
                states.append(slots.flatten(-2))
        return torch.stack(states, 1)

    def _on(self, slots: Tensor, action: Tensor) -> Tensor:
        """Slots [..., S, d] one frame later, each given its own state, the mean of all, and the action [..., A + 1]."""
        now = self.norm(slots)  # what is added to a state must not grow with it, or it explodes within 500 updates
        shared = torch.cat([now.mean(-2), action.to(now.dtype)], -1)[..., None, :]
        return slots + self.onward(torch.cat([now, shared.expand(*now.shape[:-1], -1)], -1)).float()

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
        return self.render(F.silu(self.mixed(mixed) + self.place)).flatten(-2)

    def predict(self, z: Tensor, action: Tensor) -> Tensor:
        """z [..., D], actions [...] coded as previous actions -> o_{t+1} [..., F]."""
        slots = z.unflatten(-1, (SLOTS, self.size))
        return self.decode(self._on(slots, coded(action, z)).flatten(-2))
