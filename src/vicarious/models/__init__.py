"""World models behind one small interface, and the loop that trains any of them without reward.

A family is an `nn.Module` built as `Family(cfg, features)` with

    encode(obs [B, T, F], prev_action [B, T]) -> z [B, T, D]
    losses(obs, prev_action, z=None) -> {name: [B, T]}      empty where nothing is trained; z: the codes, if at hand

Adding one takes a file beside this one and a line in `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from .. import config, population, world
from ..episodes import Batch
from .controls import Disjoint, Oracle, Pixels, Untrained
from .recurrent import Recurrent

FAMILIES: dict[str, type[nn.Module]] = {
    "recurrent": Recurrent,
    "pixels": Pixels,
    "untrained": Untrained,
    "oracle": Oracle,
    "disjoint": Disjoint,
}
HELD_OUT = 1 / 16  # share of the episodes kept for held-out losses


def build(cfg: config.Model) -> nn.Module:
    """A freshly initialised world model, weights drawn from the seed's own stream."""
    if cfg.family not in FAMILIES:
        raise ValueError(f"unknown family {cfg.family!r}; there are: {', '.join(FAMILIES)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(world.generator(cfg.data.seed, f"weights/{cfg.family}").initial_seed())
        return FAMILIES[cfg.family](cfg, world.features(cfg.data.world))


@lru_cache
def parameters(cfg: config.Model) -> int:
    """How many numbers a world model learns; 0 for a control."""
    model = build(cfg)
    return sum(p.numel() for p in model.parameters()) if model.trained else 0


def split(count: int) -> int:
    """Episodes before this index train; those from it on are held out."""
    return count - max(1, int(count * HELD_OUT))


def train(
    cfgs: Sequence[config.Model], data: Sequence[Batch], quiet: bool = True, stacked: bool | None = None
) -> list[tuple[nn.Module, dict[str, float]]]:
    """Train world models that differ only in their seed as one population, each on its own episodes, reward unseen.

    Returns each frozen, with its held-out losses.  The loss is the mean over the family's named losses' sum.
    """
    cfg, cut = cfgs[0], split(len(data[0]))
    members = [build(c).to(batch.obs.device) for c, batch in zip(cfgs, data, strict=True)]
    if members[0].trained:
        assert all(c.family == cfg.family and c.own() == cfg.own() for c in cfgs), "members of one shape"
        population.train(
            members,
            lambda model, obs, prev_action: sum(model.losses(obs, prev_action).values()).mean(),
            lambda rows: [[getattr(d, k)[r] for d, r in zip(data, rows, strict=True)] for k in ("obs", "prev_action")],
            torch.stack([batches(c.data.seed, f"batches/{c.family}", c, cut) for c in cfgs], 1)[: cfg.stop],
            cfg.rate,
            cfg.weight_decay,
            scheduled=cfg.updates,
            stacked=stacked,
            label=f"world model {cfg.family} seed {', '.join(str(c.data.seed) for c in cfgs)}",
            quiet=quiet,
        )
    return [(m.requires_grad_(False).eval(), evaluate(m, d[cut:])) for m, d in zip(members, data, strict=True)]


def batches(seed: int, purpose: str, cfg: config.Model | config.Heads, cut: int) -> Tensor:
    """Episodes [updates, batch] that a member sees, from its seed's own stream."""
    return torch.randint(cut, (cfg.updates, cfg.batch), generator=world.generator(seed, purpose))


@torch.no_grad()
def evaluate(model: nn.Module, data: Batch) -> dict[str, float]:
    """Mean of each named loss over held-out episodes."""
    return {name: float(loss.mean()) for name, loss in model.losses(data.obs, data.prev_action).items()}


@torch.no_grad()
def encode(model: nn.Module, obs: Tensor, prev_action: Tensor, chunk: int = 1024) -> Tensor:
    """Latents [B, T, D] of whole sequences, in chunks so that memory stays small."""
    parts = zip(obs.split(chunk), prev_action.split(chunk), strict=True)
    out, start = None, 0
    for o, a in parts:
        z = model.encode(o, a)
        out = z.new_empty(len(obs), *z.shape[1:]) if out is None else out
        out[start : start + len(z)] = z
        start += len(z)
    return out
