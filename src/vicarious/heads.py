"""The two heads over a frozen world model: a reward model r(z_t) and a value function V(z_t), from own reward alone.

r_t arrives with o_t, and V(z_t) = E[sum over k >= 1 of gamma^(k-1) r_{t+k}] excludes it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from tqdm import tqdm

from . import config, world
from .episodes import Batch, labelled
from .models import split
from .models.recurrent import mlp

READOUTS = ("reward", "value")
LABELS = 0.8  # share of a batch's frames that an update learns from: what even p = 0 can supply


class Heads(nn.Module):
    """Reward and value MLPs over standardised latents: z [..., D] -> [..., 2] in the order of `READOUTS`."""

    def __init__(self, latent: int, width: int, depth: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(latent))
        self.register_buffer("scale", torch.ones(latent))
        self.nets = nn.ModuleDict({name: mlp(latent, *[width] * depth, 1) for name in READOUTS})

    def standardise(self, z: Tensor) -> None:
        """Take mean and standard deviation from training latents [B, T, D]; constant inputs stay as they are."""
        flat = z.flatten(0, -2)
        self.mean.copy_(flat.mean(0))
        std = flat.std(0)
        self.scale.copy_(torch.where(std > 1e-6, std, 1.0))

    def forward(self, z: Tensor) -> Tensor:
        z = (z - self.mean) / self.scale
        return torch.cat([self.nets[name](z) for name in READOUTS], -1)


def lambda_returns(reward: Tensor, value: Tensor, known: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """TD(lambda) targets [B, T] of V(z_t) and which of them exist (Sutton & Barto 2018, eq. 12.20, shifted to o_t).

    G_t = r_{t+1} + gamma ((1 - lambda) V_{t+1} + lambda G_{t+1}); where the reward after next is not `known`, or the
    episode is truncated, the return bootstraps from V_{t+1}.  No target exists where r_{t+1} itself is not known.

    reward, value, known: [B, T].
    """
    target, exists = torch.zeros_like(value), torch.zeros_like(known)
    ahead, open_ahead = torch.zeros_like(value[:, 0]), torch.zeros_like(known[:, 0])
    for t in range(value.shape[1] - 2, -1, -1):
        beyond = torch.where(open_ahead, (1 - lam) * value[:, t + 1] + lam * ahead, value[:, t + 1])
        ahead, open_ahead = reward[:, t + 1] + gamma * beyond, known[:, t + 1]
        target[:, t], exists[:, t] = ahead, open_ahead
    return target, exists


def masked_mean(error: Tensor, mask: Tensor, count: int) -> Tensor:
    """Mean of error over the first `count` marked frames, so that every exposure learns from as many labels."""
    mask = (mask & (mask.flatten().cumsum(0).view_as(mask) <= count)).to(error.dtype)
    return (error * mask).sum() / mask.sum()


def losses(heads: nn.Module, z: Tensor, reward: Tensor, known: Tensor, cfg: config.Heads) -> dict[str, Tensor]:
    """Mean squared errors {reward, value} over the labelled frames of z [B, T, D]; reward, known [B, T]."""
    out = heads(z)
    count = int(LABELS * known.numel())
    target, exists = lambda_returns(reward, out[..., 1].detach(), known, cfg.gamma, cfg.lam)
    return {
        "reward": masked_mean((out[..., 0] - reward).square(), known, count),
        "value": masked_mean((out[..., 1] - target).square(), exists, count),
    }


def train(cfg: config.Heads, z: Tensor, data: Batch, quiet: bool = True) -> tuple[Heads, dict[str, float]]:
    """Train both heads on latents z [B, T, D] of `data`.  Returns them frozen, with held-out losses and R2."""
    seed = cfg.model.data.seed
    known, rewards = labelled(data, cfg.exposure), world.reward(data.contact, cfg.model.data.world, cfg.kappa)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(world.generator(seed, "heads/weights").initial_seed())
        heads = Heads(z.shape[-1], cfg.width, cfg.depth).to(z.device)
    cut, g = split(len(data)), world.generator(seed, "heads/batches")
    heads.standardise(z[:cut])
    optimiser = torch.optim.AdamW(heads.parameters(), lr=cfg.rate, weight_decay=cfg.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, cfg.rate, total_steps=cfg.updates)
    label = f"heads p={cfg.exposure:g} {cfg.model.family} seed {seed}"
    for _ in tqdm(range(cfg.updates), desc=label, disable=quiet or None):
        index = torch.randint(cut, (cfg.batch,), generator=g)
        loss = sum(losses(heads, z[index], rewards[index], known[index], cfg).values())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(heads.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    heads.requires_grad_(False).eval()
    return heads, evaluate(heads, z[cut:], rewards[cut:], known[cut:], cfg)


@torch.no_grad()
def evaluate(heads: nn.Module, z: Tensor, reward: Tensor, known: Tensor, cfg: config.Heads) -> dict[str, float]:
    """Held-out mean squared errors, and R2 of the reward model on labelled frames."""
    errors = {f"{name}_loss": float(loss) for name, loss in losses(heads, z, reward, known, cfg).items()}
    residual = (heads(z)[..., 0] - reward)[known]
    return {**errors, "reward_r2": float(1 - residual.square().mean() / reward[known].var())}
