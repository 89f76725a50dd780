"""The two heads over a frozen world model: a reward model r(z_t) and a value function V(z_t), from own reward alone.

r_t arrives with o_t, and V(z_t) = E[sum over k >= 1 of gamma^(k-1) r_{t+k}] excludes it.  Heads learn from whole
episodes: at company 0 from all quiet and vacant ones, at p from a share p of the eventful ones as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from . import config, world
from .episodes import Batch, split
from .models.base import mlp
from .train import fit, precision, stacks

READOUTS = ("reward", "value")
LATE = 0.8  # share of the updates after which held-out losses are kept, to tell whether training had converged


class HeadPair(nn.Module):
    """Reward and value MLPs over standardised latents: z [..., D] -> [..., 2] in the order of `READOUTS`."""

    def __init__(self, latent: int, width: int, depth: int):
        super().__init__()
        self.width, self.depth = width, depth
        self.register_buffer("mean", torch.zeros(latent))
        self.register_buffer("scale", torch.ones(latent))
        self.nets = nn.ModuleDict({name: mlp(latent, *[width] * depth, 1) for name in READOUTS})

    def forward(self, z: Tensor) -> Tensor:
        x = (z - self.mean) / self.scale
        return torch.cat([self.nets[name](x) for name in READOUTS], -1)


@dataclass(frozen=True)
class Latents:
    """One world model's latents as heads learn from them, and all that is kept of them.

    mean, scale [D] over training episodes of every kind, the same at every p; inputs [B, T, D] the training episodes'
    standardised latents, in the precision of the training loop's products; held_out [B', T, D] the other episodes'
    latents as they are.
    """

    mean: Tensor
    scale: Tensor
    inputs: Tensor
    held_out: Tensor

    @classmethod
    def of(cls, z: Tensor, chunk: int = 1024) -> Latents:
        """From latents z [B, T, D] of all episodes; inputs that are constant are only centred."""
        cut = split(len(z))
        flat = z[:cut].flatten(0, -2)
        mean, scale = flat.mean(0), spread(flat)
        dtype = torch.bfloat16 if precision(z.device) == "bf16" else z.dtype
        inputs = torch.empty_like(z[:cut], dtype=dtype)
        for part, source in zip(inputs.split(chunk), z[:cut].split(chunk), strict=True):
            part.copy_((source - mean) / scale)
        return cls(mean, scale, inputs, z[cut:].clone())


def spread(z: Tensor) -> Tensor:
    """Standard deviation [D] of codes z [rows, D]; 1 where they are constant."""
    std = z.std(0)
    return torch.where(std > 1e-6, std, 1.0)


def lambda_returns(reward: Tensor, value: Tensor, gamma: float, lam: float) -> Tensor:
    """TD(lambda) targets [B, T - 1] of V(z_t) in all frames but the last (Sutton & Barto 2018, eq. 12.20, shifted).

    G_t = r_{t+1} + gamma ((1 - lambda) V_{t+1} + lambda G_{t+1}); an episode is truncated, so that the last return
    bootstraps from V.  reward, value: [B, T].
    """
    ahead, targets = value[:, -1], []
    for r, v in zip(reward.unbind(1)[:0:-1], value.unbind(1)[:0:-1], strict=True):
        ahead = r + gamma * torch.lerp(v, ahead, lam)
        targets.append(ahead)
    return torch.stack(targets[::-1], 1)


def loss(readout: str, out: Tensor, reward: Tensor, cfg: config.Heads) -> Tensor:
    """Mean squared error [] of one head's predictions out [B, T]: of rewards [B, T], or of its TD(lambda) targets."""
    if readout == "reward":
        return (out - reward).square().mean()
    target = lambda_returns(reward, out.detach(), cfg.gamma, cfg.lam)
    return (out[:, :-1] - target).square().mean()


def pool(cfg: config.Heads, data: Batch) -> Tensor:
    """The training episodes [n] that heads learn from: company p, and the others among whom they are raised."""
    chosen = ~data.eventful | (data.joins_at < cfg.company)
    if cfg.others != "all":
        chosen &= ~data.occupied | (data.drifter == (cfg.others == "drifters"))
    return chosen[: split(len(data))].nonzero().squeeze(1)


def batches(cfg: config.Heads, data: Batch, updates: int) -> Tensor:
    """Episodes [updates, batch] that heads see, from the seed's own stream."""
    own, g = pool(cfg, data), world.generator(cfg.model.data.seed, "heads/batches")
    return own[torch.randint(2**40, (updates, cfg.batch), generator=g).to(own.device) % len(own)]


def reward_targets(cfg: config.Heads, data: Batch) -> Tensor:
    """The reward [B, T] that heads are given: the self's own, or, `shuffled`, that of an episode drawn at random."""
    reward = world.reward(data.contact, cfg.model.data.world, cfg.kappa_gain, cfg.kappa_loss)
    if cfg.rewards == "own":
        return reward
    g = world.generator(cfg.model.data.seed, "heads/shuffled")
    return reward[torch.randperm(len(reward), generator=g).to(reward.device)]


def batch_key(cfg: config.Heads) -> str:
    """A key that heads share exactly if they can train as one population."""
    free = dict.fromkeys(("company", "kappa_gain", "kappa_loss", "rewards", "others", "width"), True)
    return config.digest(cfg.model_dump(mode="json", exclude=free | {"model": {"data": {"seed"}}}))


def train(
    cfgs: Sequence[config.Heads],
    z: Sequence[Latents],
    data: Sequence[Batch],
    quiet: bool = True,
    stacked: bool | None = None,
    readouts: Sequence[str] = READOUTS,
    at: Mapping[int, Callable[[Sequence[HeadPair]], None]] | None = None,
) -> list[tuple[HeadPair, dict[str, float]]]:
    """Train heads that differ in seed, company, coupling or width as one population.

    z, data: latents and episodes of each, the same objects where a world model is shared.  readouts: which of the two
    are trained.  at: what is called after so many updates of each, with the heads as they are then.  Returns each
    frozen, with its held-out losses and R2, and as `late_...` those after the share `LATE` of its updates.
    """
    cfg = cfgs[0]
    assert all(batch_key(c) == batch_key(cfg) for c in cfgs), "members of one shape"
    members = [fresh(c, latents) for c, latents in zip(cfgs, z, strict=True)]
    rewards = [reward_targets(c, d) for c, d in zip(cfgs, data, strict=True)]
    held = [held_out(latents, d, r) for latents, d, r in zip(z, data, rewards, strict=True)]
    stacked = stacks(z[0].inputs.device) if stacked is None else stacked
    trained = [_resized(m, max(c.width for c in cfgs)) for m in members] if stacked else members
    late: list[dict[str, float]] = [{} for _ in cfgs]

    def draw(rows: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        inputs = [latents.inputs[own] for latents, own in zip(z, rows, strict=True)]
        return inputs, [r[own] for r, own in zip(rewards, rows, strict=True)]

    def evaluate_at(readout: str, update: int, last: int) -> None:
        if update == last:
            for kept, m, own in zip(late, trained, held, strict=True):
                found = evaluate(m, *own, cfg)
                kept |= {f"late_{key}": x for key, x in found.items() if key.startswith(readout)}
        if at and update in at:
            at[update](trained)

    schedules = {"reward": (cfg.reward_updates, cfg.reward_rate), "value": (cfg.updates, cfg.rate)}
    for readout in readouts:
        updates, rate = schedules[readout]
        last = max(1, int(LATE * updates))

        def objective(net: nn.Module, x: Tensor, reward: Tensor, readout: str = readout) -> Tensor:
            return loss(readout, net(x)[..., 0].float(), reward, cfg)

        fit(
            [m.nets[readout] for m in trained],
            objective,
            draw,
            torch.stack([batches(c, d, updates) for c, d in zip(cfgs, data, strict=True)], 1),
            rate,
            cfg.weight_decay,
            stacked=stacked,
            at={update: partial(evaluate_at, readout, update, last) for update in {last, *(at or ())}},
            label=f"{len(cfgs)} x {readout} on {cfg.model.family}, seed {cfg.model.data.seed}",
            quiet=quiet,
        )
    members = [_resized(m, c.width) for m, c in zip(trained, cfgs, strict=True)]
    return [
        (m.requires_grad_(False).eval(), evaluate(m, *own, cfg) | before)
        for m, own, before in zip(members, held, late, strict=True)
    ]


def held_out(z: Latents, data: Batch, reward: Tensor) -> tuple[Tensor, Tensor]:
    """Latents [B, T, D] and rewards [B, T] of held-out quiet episodes, on which every head is judged alike."""
    cut = split(len(data))
    quiet = data.quiet[cut:]
    return z.held_out[quiet], reward[cut:][quiet]


def initial(cfg: config.Heads, latent: int) -> HeadPair:
    """Heads over codes of width `latent` with the seed's own initial weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(world.generator(cfg.model.data.seed, "heads/weights").initial_seed())
        return HeadPair(latent, cfg.width, cfg.depth)


def fresh(cfg: config.Heads, z: Latents) -> HeadPair:
    """Heads with the seed's own initial weights, which standardise as `z` was."""
    heads = initial(cfg, len(z.mean)).to(z.mean.device)
    heads.mean.copy_(z.mean)
    heads.scale.copy_(z.scale)
    return heads


@torch.no_grad()
def _resized(heads: HeadPair, width: int) -> HeadPair:
    """The same function with `width` units per layer: units added are zero, and stay zero while training.

    A unit whose weights in and out are zero has no gradient and no decay, so heads of any width can be stacked.
    """
    if width == heads.width:
        return heads
    other = HeadPair(len(heads.mean), width, heads.depth).to(heads.mean.device)
    for new, old in zip(other.state_dict().values(), heads.state_dict().values(), strict=True):
        shared = tuple(slice(min(a, b)) for a, b in zip(new.shape, old.shape, strict=True))
        new.zero_()[shared] = old[shared]
    return other


@torch.no_grad()
def evaluate(heads: nn.Module, z: Tensor, reward: Tensor, cfg: config.Heads) -> dict[str, float]:
    """Mean squared errors of both heads on latents z [B, T, D] with rewards [B, T], and R2 of the reward model."""
    out = heads(z)
    errors = {f"{name}_loss": float(loss(name, out[..., i], reward, cfg)) for i, name in enumerate(READOUTS)}
    residual = out[..., 0] - reward
    return {**errors, "reward_r2": float(1 - residual.square().mean() / reward.var())}
