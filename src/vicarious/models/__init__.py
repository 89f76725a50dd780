"""World models behind one small interface, and the loop that trains any of them without reward.

A family is a `WorldModel` built as `Family(cfg, features)` with

    encode(obs [B, T, F], prev_action [B, T]) -> z [B, T, D]
    losses(obs, prev_action, z=None) -> {name: [B, T]}      empty where nothing is trained; z: the codes, if at hand
    imagine(obs, prev_action, actions [B, H]) -> [B, H, D]  codes of H frames that follow unseen, where it can

A family that samples says how many numbers a frame takes (`noise`), one that learns from own reward says so (`taught`);
`losses` is then also given uniform noise [B, T, noise], or reward and whether it is known [B, T, 2], as `given`.

Adding one takes a file beside this one and a line in `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from .. import config, population, world
from ..episodes import Batch, labelled
from .base import WorldModel
from .controls import Disjoint, EndToEnd, Oracle, Pixels, Untrained
from .conv import Conv
from .jepa import JEPA
from .recurrent import Recurrent
from .rssm import RSSM
from .slots import Slots
from .transformer import Transformer
from .vae import VAE

FAMILIES: dict[str, type[WorldModel]] = {
    "recurrent": Recurrent,
    "rssm": RSSM,
    "jepa": JEPA,
    "transformer": Transformer,
    "vae": VAE,
    "conv": Conv,
    "slots": Slots,
    "pixels": Pixels,
    "untrained": Untrained,
    "end_to_end": EndToEnd,
    "oracle": Oracle,
    "disjoint": Disjoint,
}
NOISE = 2048  # sequences of noise that a member's updates draw from
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
        inputs = [_inputs(m, c, batch) for m, c, batch in zip(members, cfgs, data, strict=True)]
        population.train(
            members,
            _objective,
            lambda rows: [list(own) for own in zip(*map(_drawn, members, inputs, rows), strict=True)],
            torch.stack([_rows(m, c, cut) for m, c in zip(members, cfgs, strict=True)], 1)[: cfg.stop],
            cfg.rate,
            cfg.weight_decay,
            scheduled=cfg.updates,
            stacked=stacked,
            label=f"world model {cfg.family} seed {', '.join(str(c.data.seed) for c in cfgs)}",
            quiet=quiet,
        )
    return [(m.requires_grad_(False).eval(), evaluate(m, d[cut:])) for m, d in zip(members, data, strict=True)]


def _objective(model: nn.Module, obs: Tensor, prev_action: Tensor, *given: Tensor) -> Tensor:
    """The mean of the family's named losses' sum []."""
    return sum(model.losses(obs, prev_action, **dict(zip(("given",), given, strict=False))).values()).mean()


def _inputs(model: nn.Module, cfg: config.Model, data: Batch) -> list[Tensor]:
    """What a member learns from, each [rows, T, ...]: observations, actions, and what else its family is given."""
    inputs = [data.obs, data.prev_action]
    if model.noise:
        g = world.generator(cfg.data.seed, f"noise/{cfg.family}")
        uniform = torch.rand(NOISE, cfg.data.frames, model.noise, generator=g)
        inputs.append(uniform.clamp(1e-6, 1 - 1e-6).to(data.obs.device))
    return inputs + _lessons(model, data)


def _lessons(model: nn.Module, data: Batch) -> list[Tensor]:
    """Own reward and whether it is known at p = 0 [B, T, 2], for a family that is taught."""
    if not model.taught:
        return []
    known = labelled(data, 0.0)
    return [torch.stack([world.reward(data.contact, model.world), known.float()], -1)]


def _rows(model: nn.Module, cfg: config.Model, cut: int) -> Tensor:
    """Episodes [updates, batch] that a member sees, and where it samples as many sequences of noise after them."""
    rows = batches(cfg.data.seed, f"batches/{cfg.family}", cfg, cut)
    if not model.noise:
        return rows
    return torch.cat([rows, batches(cfg.data.seed, f"noise/{cfg.family}/batches", cfg, NOISE)], 1)


def _drawn(model: nn.Module, inputs: list[Tensor], rows: Tensor) -> list[Tensor]:
    """A batch of every input by a row [N] or [2 N] of `_rows`."""
    own, sampled = rows.chunk(2) if model.noise else (rows, rows)
    return [x[at] for x, at in zip(inputs, (own, own, sampled), strict=False)]


def batches(seed: int, purpose: str, cfg: config.Model | config.Heads, cut: int) -> Tensor:
    """Episodes [updates, batch] that a member sees, from its seed's own stream."""
    return torch.randint(cut, (cfg.updates, cfg.batch), generator=world.generator(seed, purpose))


@torch.no_grad()
def evaluate(model: nn.Module, data: Batch) -> dict[str, float]:
    """Mean of each named loss over held-out episodes."""
    given = dict(zip(("given",), _lessons(model, data), strict=False))
    return {name: float(loss.mean()) for name, loss in model.losses(data.obs, data.prev_action, **given).items()}


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
