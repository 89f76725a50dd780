"""What world models are made of: encoders and decoders of frames, memories, and what families have in common."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import config, world
from ..world import ACTIONS

CODED = len(ACTIONS) + 1  # values of a previous action: none yet (or not shown), or one of five


def mlp(*widths: int) -> nn.Sequential:
    """Linear layers of the given widths with SiLU between them."""
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
    return nn.Sequential(*[m for layer in layers[:-1] for m in (layer, nn.SiLU())], layers[-1])


def coded(action: Tensor, like: Tensor) -> Tensor:
    """Previous actions [...] one-hot [..., A + 1] in the precision of another tensor."""
    return F.one_hot(action, CODED).to(like.dtype)


class GRU(nn.Module):
    """A gated recurrent unit over time (Cho et al. 2014), in the form and with the initialisation of `torch.nn.GRU`.

    Written out because `nn.GRU` cannot be trained as a population of stacked weights.
    """

    def __init__(self, inputs: int, latent: int):
        super().__init__()
        self.input, self.state = nn.Linear(inputs, 3 * latent), nn.Linear(latent, 3 * latent)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(latent**-0.5), latent**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, inputs] -> states [B, T, D], from zeros; gates in float32 where products are in bfloat16."""
        gates = self.input(x)
        gates = gates.to(torch.promote_types(gates.dtype, torch.float32))
        h, states = gates.new_zeros(len(x), gates.shape[-1] // 3), []
        for now in gates.unbind(1):  # indexing gates[:, t] instead costs a quarter of the update
            h = self.step(now, h)
            states.append(h)
        return torch.stack(states, 1)

    def step(self, now: Tensor, h: Tensor) -> Tensor:
        """The next state [..., D] from the input's part of the gates, now [..., 3 D], and the state h [..., D]."""
        before = self.state(h)
        r_in, u_in, n_in = now.chunk(3, -1)
        r_h, u_h, n_h = before.chunk(3, -1)
        reset, update = torch.sigmoid(r_in + r_h), torch.sigmoid(u_in + u_h)
        return torch.lerp(torch.tanh(torch.addcmul(n_in, reset, n_h)), h, update)


# Encoders and decoders: classes with the same arguments, (configuration, features, outputs or inputs).


class Flat(nn.Module):
    """An encoder with separate weights for every place: obs [..., F] -> [..., outputs]."""

    def __init__(self, cfg: config.Model, features: int, outputs: int):
        super().__init__()
        self.net = mlp(features, cfg.width, outputs)

    def forward(self, obs: Tensor) -> Tensor:
        return self.net(obs)


class FlatDecoder(nn.Module):
    """The decoder beside `Flat`: x [..., inputs] -> [..., F]."""

    def __init__(self, cfg: config.Model, features: int, inputs: int):
        super().__init__()
        self.net = mlp(inputs, cfg.width, cfg.width, features)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Cells(nn.Module):
    """An encoder that is one function for all cells: what a cell holds is coded alike wherever it is (deep sets, Zaheer
    et al. 2017), and where it is enters as learnt factors: obs [..., F] -> [..., outputs]."""

    def __init__(self, cfg: config.Model, features: int, outputs: int):
        super().__init__()
        self.channels, width = world.channels(cfg.data.world), cfg.width // 4
        self.content = nn.Linear(self.channels, width)
        self.place = nn.Parameter(torch.randn(features // self.channels, width))
        self.pooled = nn.Linear(width, outputs)

    def forward(self, obs: Tensor) -> Tensor:
        content = F.silu(self.content(obs.unflatten(-1, (-1, self.channels))))
        return self.pooled((content * self.place.to(content.dtype)).sum(-2))


class CellsDecoder(nn.Module):
    """The decoder beside `Cells`: a code sent to every cell, which makes of it and of its own place what it holds (the
    spatial broadcast of Watters et al. 2019): x [..., inputs] -> [..., F]."""

    def __init__(self, cfg: config.Model, features: int, inputs: int):
        super().__init__()
        channels, width = world.channels(cfg.data.world), cfg.width // 8
        self.sent = mlp(inputs, cfg.width // 2, width)
        self.place = nn.Parameter(torch.randn(features // channels, width))
        self.out = mlp(width, width, channels)

    def forward(self, x: Tensor) -> Tensor:
        sent = F.silu(self.sent(x))[..., None, :]
        return self.out(sent * self.place.to(sent.dtype)).flatten(-2)


ENCODERS = {"cells": (Cells, CellsDecoder), "flat": (Flat, FlatDecoder)}


def encoder(cfg: config.Model, features: int, outputs: int) -> nn.Module:
    """The encoder that a family names: obs [..., F] -> [..., outputs]."""
    return ENCODERS[cfg.family.split("/")[0]][0](cfg, features, outputs)


def decoder(cfg: config.Model, features: int, inputs: int) -> nn.Module:
    """The decoder beside it: x [..., inputs] -> [..., F]."""
    return ENCODERS[cfg.family.split("/")[0]][1](cfg, features, inputs)


class WorldModel(nn.Module):
    """What the training loop asks of a family.

    learns: whether there is anything to train by an objective; foresees_frames: whether `foresee` gives frames, and not
    codes; noise: uniform numbers that it takes for every frame it learns from; weight [F]: of errors in every channel
    of every cell, `cfg.bodies` in those of bodies and expression.
    """

    learns: bool = True
    foresees_frames: bool = True
    noise: int = 0

    def __init__(self, cfg: config.Model, features: int):
        super().__init__()
        weight = torch.ones(world.channels(cfg.data.world))
        weight[: cfg.data.world.appearance] = weight[-1] = cfg.bodies
        self.register_buffer("weight", weight.repeat(features // len(weight)), persistent=False)

    def error(self, guess: Tensor, obs: Tensor) -> Tensor:
        """Weighted squared error [...] of frames [..., F], summed over channels and cells."""
        return ((guess.float() - obs).square() * self.weight).sum(-1)

    def foresee(self, z: Tensor, prev_action: Tensor) -> Tensor:
        """What is expected of o_{t+1} [B, T - 1, F], or of its code [B, T - 1, D], given codes z [B, T, D] up to t and
        the own action that follows."""
        raise NotImplementedError


class Predictive(WorldModel):
    """A family that decodes o_t from z_t and predicts o_{t+1} from z_t and a_t (the other's action has to be expected,
    and the own one where it is not shown).

    It has `encode` and `decoder`, `predictor`, or methods `decode` and `predict` of its own, and imagines by seeing
    what it predicts.
    """

    def decode(self, z: Tensor) -> Tensor:
        """z [..., D] -> o_t [..., F]."""
        return self.decoder(z)

    def predict(self, z: Tensor, action: Tensor) -> Tensor:
        """z [..., D] and actions [...] coded as previous actions, 0 where not shown -> o_{t+1} [..., F]."""
        return self.predictor(torch.cat([z, coded(action, z)], -1))

    def foresee(self, z: Tensor, prev_action: Tensor) -> Tensor:
        return self.predict(z[:, :-1], prev_action[:, 1:])

    def losses(
        self, obs: Tensor, prev_action: Tensor, shown: Tensor | None = None, z: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Errors {reconstruction, prediction}: [B, T], zero in prediction's last frame.

        shown [B, T]: previous actions as the predictor is given them; z [B, T, D]: the codes, if they are at hand.
        """
        z = self.encode(obs, prev_action) if z is None else z
        guess = self.predict(z[:, :-1], (prev_action if shown is None else shown)[:, 1:])
        losses = {
            "reconstruction": self.error(self.decode(z), obs),
            "prediction": F.pad(self.error(guess, obs[:, 1:]), (0, 1)),
        }
        assert all(loss.shape == obs.shape[:2] for loss in losses.values())
        return losses

    def imagine(self, obs: Tensor, prev_action: Tensor, actions: Tensor) -> Tensor:
        """Codes [B, H, D] of H frames that follow obs [B, T, F], unseen: actions [B, H], coded as previous actions."""
        for action in actions.unbind(1):
            last = self.encode(obs, prev_action)[:, -1]
            obs = torch.cat([obs, self.predict(last, action)[:, None]], 1)
            prev_action = torch.cat([prev_action, action[:, None]], 1)
        return self.encode(obs, prev_action)[:, -actions.shape[1] :]


class Dynamics(nn.Module):
    """A recurrent predictor of codes: a GRU over (z_t, a_t) whose state tells z_{t+1}, from static codes."""

    def __init__(self, latent: int, width: int, outputs: int):
        super().__init__()
        self.cell = GRU(latent + CODED, width)
        self.out = mlp(width, 2 * width, outputs)

    def forward(self, z: Tensor, actions: Tensor) -> Tensor:
        """z [B, T, D], actions [B, T] that follow, coded as previous actions -> [B, T, outputs] about the next z."""
        return self.out(self.cell(torch.cat([z, coded(actions, z)], -1)))

    def imagine(self, z: Tensor, prev_action: Tensor, actions: Tensor) -> Tensor:
        """Codes [B, H, D] that follow z [B, T, D]: what the predictor tells, fed back to it."""
        done, latent = prev_action[:, 1:], z.shape[-1]
        for action in actions.unbind(1):
            done = torch.cat([done, action[:, None]], 1)
            z = torch.cat([z, self(z, done)[:, -1:, :latent]], 1)
        return z[:, -actions.shape[1] :]


class Recurrent(Predictive):
    """`gru`, the reference's memory and objective: encoder -> GRU -> decoder of o_t and predictor of o_{t+1}.

    z_t is the state of a GRU that has seen o_1 ... o_t and a_0 ... a_{t-1}, or a linear map of it (`cfg.state`).
    """

    def __init__(self, cfg: config.Model, features: int):
        super().__init__(cfg, features)
        state = cfg.state or cfg.latent
        self.encoder = encoder(cfg, features, state)
        self.cell = GRU(state + CODED, state)
        self.code = nn.Linear(state, cfg.latent) if cfg.state else nn.Identity()
        self.decoder = decoder(cfg, features, cfg.latent)
        self.predictor = decoder(cfg, features, cfg.latent + CODED)

    def encode(self, obs: Tensor, prev_action: Tensor) -> Tensor:
        """obs [B, T, F], prev_action [B, T] -> z [B, T, D]."""
        return self.code(self.cell(torch.cat([F.silu(self.encoder(obs)), coded(prev_action, obs)], -1)))
