"""The two heads over a frozen world model: a reward model r(z_t) and a value function V(z_t), from own reward alone.

r_t arrives with o_t, and V(z_t) = E[sum over k >= 1 of gamma^(k-1) r_{t+k}] excludes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from . import config, world
from .episodes import Batch, labelled
from .models import batches, split
from .models.base import mlp
from .train import fit, precision, stacks

READOUTS = ("reward", "value")
LATE = 0.8  # share of the updates after which held-out losses are kept, to tell whether training had converged
LABELS = 0.8  # share of a batch's frames that an update learns from: what even p = 0 can supply


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

    mean, scale [D] over training frames; inputs [B, T, D] the training episodes' standardised latents, in the precision
    of the training loop's products; held_out [B', T, D] the other episodes' latents as they are.
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


def lambda_returns(reward: Tensor, value: Tensor, known: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """TD(lambda) targets [B, T] of V(z_t) and which of them exist (Sutton & Barto 2018, eq. 12.20, shifted to o_t).

    G_t = r_{t+1} + gamma ((1 - lambda) V_{t+1} + lambda G_{t+1}); where the reward after next is not `known`, or the
    episode is truncated, the return bootstraps from V_{t+1}.  No target exists where r_{t+1} itself is not known.

    reward, value, known: [B, T].
    """
    ahead, open_ahead = torch.zeros_like(value[:, 0]), torch.zeros_like(known[:, 0])
    target, exists = [ahead], [open_ahead]
    for r, v, k in zip(*(x.unbind(1)[:0:-1] for x in (reward, value, known)), strict=True):
        ahead = r + gamma * torch.where(open_ahead, torch.lerp(v, ahead, lam), v)
        open_ahead = k
        target.append(ahead)
        exists.append(open_ahead)
    return torch.stack(target[::-1], 1), torch.stack(exists[::-1], 1)


def masked_mean(error: Tensor, mask: Tensor, count: int) -> Tensor:
    """Mean of error over the first `count` marked frames, so that exposures with more labels learn from no more."""
    mask = (mask & (mask.flatten().cumsum(0).view_as(mask) <= count)).to(error.dtype)
    return (error * mask).sum() / mask.sum().clamp(min=1)


def losses(out: Tensor, reward: Tensor, known: Tensor, cfg: config.Heads) -> dict[str, Tensor]:
    """Mean squared errors {reward, value} of predictions out [B, T, 2] over labelled frames; reward, known [B, T]."""
    return {name: loss(name, out[..., i], reward, known, cfg) for i, name in enumerate(READOUTS)}


def loss(readout: str, out: Tensor, reward: Tensor, known: Tensor, cfg: config.Heads) -> Tensor:
    """Mean squared error of one head's predictions out [B, T]: of the reward, or of its TD(lambda) targets."""
    count = int(LABELS * known.numel())
    if readout == "reward":
        return masked_mean((out - reward).square(), known, count)
    target, exists = lambda_returns(reward, out.detach(), known, cfg.gamma, cfg.lam)
    return masked_mean((out - target).square(), exists, count)


def batch_key(cfg: config.Heads) -> str:
    """A key that heads share exactly if they can train as one population."""
    free = {"exposure": True, "kappa": True, "width": True, "label_source": True, "model": {"data": {"seed"}}}
    return config.digest(cfg.model_dump(mode="json", exclude=free))


def train(
    cfgs: Sequence[config.Heads],
    z: Sequence[Latents],
    data: Sequence[Batch],
    quiet: bool = True,
    stacked: bool | None = None,
    readouts: Sequence[str] = READOUTS,
    at: Mapping[int, Callable[[Sequence[HeadPair]], None]] | None = None,
) -> list[tuple[HeadPair, dict[str, float]]]:
    """Train heads that differ in seed, exposure, coupling or width as one population.

    z, data: latents and episodes of each, the same objects where a world model is shared.  readouts: which of the two
    are trained.  at: what is called after so many updates of each, with the heads as they are then.  Returns each
    frozen, with its held-out losses and R2, and as `late_...` those after the share `LATE` of its updates.
    """
    cfg, cut = cfgs[0], split(len(data[0]))
    assert all(batch_key(c) == batch_key(cfg) for c in cfgs), "members of one shape"
    members = [fresh(c, latents) for c, latents in zip(cfgs, z, strict=True)]
    known = [labelled(d, c.exposure) for c, d in zip(cfgs, data, strict=True)]
    rewards = [reward_targets(c, d) for c, d in zip(cfgs, data, strict=True)]
    # whose batches are the same
    shared = [(id(latents), c.label_source == "uneventful") for c, latents in zip(cfgs, z, strict=True)]

    def draw(rows: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        seen = {key: (latents.inputs, own) for key, latents, own in zip(shared, z, rows, strict=True)}
        seen = {key: inputs[own] for key, (inputs, own) in seen.items()}
        return (
            [seen[key] for key in shared],
            [r[own] for r, own in zip(rewards, rows, strict=True)],
            [k[own] for k, own in zip(known, rows, strict=True)],
        )

    stacked = stacks(z[0].inputs.device) if stacked is None else stacked
    trained = [_resized(m, max(c.width for c in cfgs)) for m in members] if stacked else members
    late: list[dict[str, float]] = [{} for _ in cfgs]

    def evaluate_at(readout: str, update: int, last: int) -> None:
        if update == last:
            for kept, m, latents, r, k in zip(late, trained, z, rewards, known, strict=True):
                found = evaluate(m, latents.held_out, r[cut:], k[cut:], cfg)
                kept |= {f"late_{key}": x for key, x in found.items() if key.startswith(readout)}
        if at and update in at:
            at[update](trained)

    schedules = {"reward": (cfg.reward_updates, cfg.reward_rate), "value": (cfg.updates, cfg.rate)}
    for readout in readouts:
        updates, rate = schedules[readout]
        last = max(1, int(LATE * updates))

        def objective(net: nn.Module, x: Tensor, *labels: Tensor, readout: str = readout) -> Tensor:
            return loss(readout, net(x)[..., 0].float(), *labels, cfg)

        fit(
            [m.nets[readout] for m in trained],
            objective,
            draw,
            torch.stack([_rows(c, d, cut, updates) for c, d in zip(cfgs, data, strict=True)], 1),
            rate,
            cfg.weight_decay,
            stacked=stacked,
            at={update: partial(evaluate_at, readout, update, last) for update in {last, *(at or ())}},
            label=f"{len(cfgs)} x {readout} on {cfg.model.family}, seed {cfg.model.data.seed}",
            quiet=quiet,
        )
    members = [_resized(m, c.width) for m, c in zip(trained, cfgs, strict=True)]
    return [
        (m.requires_grad_(False).eval(), evaluate(m, latents.held_out, r[cut:], k[cut:], cfg) | before)
        for m, latents, r, k, before in zip(members, z, rewards, known, late, strict=True)
    ]


def reward_targets(cfg: config.Heads, data: Batch) -> Tensor:
    """The reward [B, T] that heads are given: the self's own, or, `shuffled`, that of an episode drawn at random."""
    reward = world.reward(data.contact, cfg.model.data.world, cfg.kappa)
    if cfg.label_source != "shuffled":
        return reward
    g = world.generator(cfg.model.data.seed, "heads/shuffled")
    return reward[torch.randperm(len(reward), generator=g).to(reward.device)]


def _rows(cfg: config.Heads, data: Batch, cut: int, updates: int) -> Tensor:
    """Episodes [updates, batch] that heads see: any, or only those in which the other's chamber holds nothing."""
    rows = batches(cfg.model.data.seed, "heads/batches", cfg.model_copy(update={"updates": updates}), cut)
    if cfg.label_source != "uneventful":
        return rows
    pool = (~data.eventful[:cut]).nonzero().squeeze(1).cpu()
    return pool[rows * len(pool) // cut]


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
def evaluate(heads: nn.Module, z: Tensor, reward: Tensor, known: Tensor, cfg: config.Heads) -> dict[str, float]:
    """Held-out mean squared errors, and R2 of the reward model on labelled frames."""
    out = heads(z)
    errors = {f"{name}_loss": float(loss) for name, loss in losses(out, reward, known, cfg).items()}
    residual = (out[..., 0] - reward)[known]
    return {**errors, "reward_r2": float(1 - residual.square().mean() / reward[known].var())}
