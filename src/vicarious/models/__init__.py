"""World models behind one small interface, the loop that trains any of them without reward, and how well they foresee.

A family is a `WorldModel` built as `Family(cfg, features)` with

    encode(obs [B, T, F], prev_action [B, T]) -> z [B, T, D]
    losses(obs, prev_action, z=None) -> {name: [B, T]}      empty where nothing is trained; z: the codes, if at hand
    imagine(obs, prev_action, actions [B, H]) -> [B, H, D]  codes of H frames that follow unseen, where it can

A family that samples says how many numbers a frame takes (`noise`), one that learns from own reward says so
(`supervised`); `losses` is then also given uniform noise [B, T, noise], or reward and whether it is known [B, T, 2], as
`given`.

Adding one takes a class and a line in `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import pandas as pd
import torch
from torch import Tensor, nn

from .. import config, world
from ..episodes import Batch, collect, labelled
from ..train import fit
from .base import Recurrent, WorldModel
from .controls import Disjoint, EndToEnd, Oracle, Pixels, Untrained
from .families import JEPA, RSSM, VAE, Conv, Slots, Transformer

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
        fit(
            members,
            _objective,
            lambda rows: [list(own) for own in zip(*map(_draw, members, inputs, rows), strict=True)],
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
    return inputs + _targets(model, data)


def _targets(model: nn.Module, data: Batch) -> list[Tensor]:
    """Own reward and whether it is known at p = 0 [B, T, 2], for a family that learns from it."""
    if not model.supervised:
        return []
    known = labelled(data, 0.0)
    return [torch.stack([world.reward(data.contact, model.world), known.float()], -1)]


def _rows(model: nn.Module, cfg: config.Model, cut: int) -> Tensor:
    """Episodes [updates, batch] that a member sees, and where it samples as many sequences of noise after them."""
    rows = batches(cfg.data.seed, f"batches/{cfg.family}", cfg, cut)
    if not model.noise:
        return rows
    return torch.cat([rows, batches(cfg.data.seed, f"noise/{cfg.family}/batches", cfg, NOISE)], 1)


def _draw(model: nn.Module, inputs: list[Tensor], rows: Tensor) -> list[Tensor]:
    """A batch of every input by a row [N] or [2 N] of `_rows`."""
    own, sampled = rows.chunk(2) if model.noise else (rows, rows)
    return [x[at] for x, at in zip(inputs, (own, own, sampled), strict=False)]


def batches(seed: int, purpose: str, cfg: config.Model | config.Heads, cut: int) -> Tensor:
    """Episodes [updates, batch] that a member sees, from its seed's own stream."""
    return torch.randint(cut, (cfg.updates, cfg.batch), generator=world.generator(seed, purpose))


@torch.no_grad()
def evaluate(model: nn.Module, data: Batch) -> dict[str, float]:
    """Mean of each named loss over held-out episodes."""
    given = dict(zip(("given",), _targets(model, data), strict=False))
    return {name: float(loss.mean()) for name, loss in model.losses(data.obs, data.prev_action, **given).items()}


@torch.no_grad()
def encode(model: nn.Module, obs: Tensor, prev_action: Tensor, chunk: int = 1024) -> Tensor:
    """Latents [B, T, D] of whole sequences, in chunks so that memory stays small, and in the model's own precision."""
    parts = zip(obs.split(chunk), prev_action.split(chunk), strict=True)
    like = next(model.parameters(), obs) if isinstance(model, nn.Module) else obs
    out, start = None, 0
    for o, a in parts:
        z = model.encode(o.to(like.dtype), a)
        out = z.new_empty(len(obs), *z.shape[1:]) if out is None else out
        out[start : start + len(z)] = z
        start += len(z)
    return out


def foresight(cfg: config.Foresight, model: nn.Module, device: str = "cpu") -> pd.DataFrame:
    """Losses in eventful episodes of every taste whose other is purposeful: taste, measure, value.

    Beside the family's own losses `place`: squared error of where the other is drawn in the next frame.
    """
    rows = []
    for taste in cfg.tastes:
        seen = cfg.model.data.world.model_copy(update={"taste": taste})
        test = cfg.model.data.model_copy(update={"world": seen, "episodes": cfg.episodes})
        data = collect(test, device, purpose="test")
        data = data[data.eventful & ~data.drifter]
        losses = evaluate(model, data) | {"place": place_error(model, cfg.model.data.world, data)}
        rows += [(taste, name, loss) for name, loss in losses.items()]
    return pd.DataFrame(rows, columns=["taste", "measure", "value"])


@torch.no_grad()
def place_error(model: nn.Module, cfg: config.World, data: Batch) -> float:
    """Mean squared error, summed over cells and channels, of the other's body in the next frame."""
    n = cfg.size
    z = encode(model, data.obs, data.prev_action)
    wrong = (model.predict(z[:, :-1], data.prev_action[:, 1:]) - data.obs[:, 1:]).square()
    wrong = wrong.view(*wrong.shape[:2], *world.grid(cfg), -1)[..., : cfg.appearance]
    right, left = wrong[..., n + 1 :, :].sum((-3, -2, -1)), wrong[..., :n, :].sum((-3, -2, -1))
    return float(torch.where(data.side[:, None] == 0, right, left).mean())
