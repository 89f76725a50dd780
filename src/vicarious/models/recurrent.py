"""The reference world model: encoder -> GRU cell -> decoder of o_t and predictor of o_{t+1} given a_t."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import config
from ..world import ACTIONS


def mlp(*widths: int) -> nn.Sequential:
    """Linear layers of the given widths with SiLU between them."""
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
    return nn.Sequential(*[m for layer in layers[:-1] for m in (layer, nn.SiLU())], layers[-1])


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
        """x [B, T, inputs] -> states [B, T, D], from zeros; gates in float32 whatever the products are in."""
        gates = self.input(x).float()
        h, states = gates.new_zeros(len(x), gates.shape[-1] // 3), []
        for now in gates.unbind(1):  # indexing gates[:, t] instead costs a quarter of the update
            before = self.state(h)
            r_in, u_in, n_in = now.chunk(3, -1)
            r_h, u_h, n_h = before.chunk(3, -1)
            reset, update = torch.sigmoid(r_in + r_h), torch.sigmoid(u_in + u_h)
            h = torch.lerp(torch.tanh(torch.addcmul(n_in, reset, n_h)), h, update)
            states.append(h)
        return torch.stack(states, 1)


class Recurrent(nn.Module):
    """z_t is the state of a GRU that has seen o_1 ... o_t and a_0 ... a_{t-1}, or a linear map of it (`cfg.state`).

    Trained by squared error, summed over the F numbers of an observation: reconstruction of o_t from z_t, and
    prediction of o_{t+1} from z_t and the self's own action a_t (the other's is not known and has to be expected).
    """

    trained = True

    def __init__(self, cfg: config.Model, features: int):
        super().__init__()
        actions = len(ACTIONS) + 1
        self.actions = actions
        state = cfg.state or cfg.latent
        self.encoder = mlp(features, cfg.width, state)
        self.cell = GRU(state + actions, state)
        self.code = nn.Linear(state, cfg.latent) if cfg.state else nn.Identity()
        self.decoder = mlp(cfg.latent, cfg.width, features)
        self.predictor = mlp(cfg.latent + actions, cfg.width, features)

    def encode(self, obs: Tensor, prev_action: Tensor) -> Tensor:
        """obs [B, T, F], prev_action [B, T] -> z [B, T, D]."""
        action = F.one_hot(prev_action, self.actions).to(obs.dtype)
        return self.code(self.cell(torch.cat([F.silu(self.encoder(obs)), action], -1)))

    def losses(self, obs: Tensor, prev_action: Tensor, z: Tensor | None = None) -> dict[str, Tensor]:
        """Squared errors {reconstruction, prediction}: [B, T], zero in the last frame of prediction."""
        z = self.encode(obs, prev_action) if z is None else z
        action = F.one_hot(prev_action[:, 1:], self.actions).to(obs.dtype)
        guess = self.predictor(torch.cat([z[:, :-1], action], -1))
        losses = {
            "reconstruction": (self.decoder(z) - obs).square().sum(-1),
            "prediction": F.pad((guess - obs[:, 1:]).square().sum(-1), (0, 1)),
        }
        assert all(loss.shape == obs.shape[:2] for loss in losses.values())
        return losses
