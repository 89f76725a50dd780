"""World models behind one small interface, the loop that trains any of them without reward, and how well they foresee.

A family is `encoder/memory`: an encoder of `ENCODERS` with a memory and objective of `MEMORIES`, built as
`Memory(cfg, features)` with

    encode(obs [B, T, F], prev_action [B, T]) -> z [B, T, D]
    losses(obs, prev_action, shown) -> {name: [B, T]}       shown: actions as the predictor has them, 0 where hidden
    imagine(obs, prev_action, actions [B, H]) -> [B, H, D]  codes of H frames that follow unseen, where it can

A memory that samples says how many numbers a frame takes (`noise`); `losses` is then also given uniform noise
[B, T, noise] as `given`.  Adding an encoder or a memory takes a class and a line in its table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import pandas as pd
import torch
from torch import Tensor, nn

from .. import config, episodes, world
from ..train import fit, stacks
from .base import ENCODERS, Recurrent, WorldModel, decoder
from .controls import PCA, Disjoint, EndToEnd, Oracle, Pixels
from .families import JEPA, RSSM, VAE, Slots, Transformer

MEMORIES: dict[str, type[WorldModel]] = {
    "gru": Recurrent,
    "rssm": RSSM,
    "jepa": JEPA,
    "transformer": Transformer,
    "vae": VAE,
    "slots": Slots,
}
CONTROLS: dict[str, type[WorldModel]] = {"pixels": Pixels, "pca": PCA, "oracle": Oracle, "disjoint": Disjoint}
FAMILIES = [*(f"{encoder}/{memory}" for memory in MEMORIES for encoder in ENCODERS), *CONTROLS]
FAMILIES.remove("flat/slots")  # slots attend to cells
FRESH = 20  # updates between which new episodes are drawn, on CUDA more
HELD_OUT = 1024  # episodes of held-out losses, the same whatever a model has learnt from
FITTED = 1024  # episodes to which principal components are fitted
READ_OUT = 8192  # episodes to which a decoder of foreseen codes is fitted


def build(cfg: config.Model) -> WorldModel:
    """A freshly initialised world model, weights drawn from the seed's own stream."""
    if cfg.family not in FAMILIES:
        raise ValueError(f"unknown family {cfg.family!r}; there are: {', '.join(FAMILIES)}")
    family = CONTROLS.get(cfg.family) or MEMORIES[cfg.family.split("/")[1]]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(world.generator(cfg.data.seed, f"weights/{cfg.family}").initial_seed())
        features = world.features(cfg.data.world)
        model = family(cfg, features)
        return EndToEnd(cfg, features, model) if cfg.trained_on == "reward" else model


def learns(cfg: config.Model) -> bool:
    """Whether there is anything to train."""
    return cfg.trained_on != "nothing" and CONTROLS.get(cfg.family, WorldModel).learns


@lru_cache
def parameters(cfg: config.Model) -> int:
    """How many numbers a world model learns; 0 for a control."""
    return sum(p.numel() for p in build(cfg).parameters()) if learns(cfg) else 0


class Feed:
    """What one member learns from: episodes that are drawn anew every few updates, or a fixed number of them.

    inputs: obs, prev_action, and what else its losses take, each [rows, T, ...] and always in the same memory.
    """

    def __init__(self, cfg: config.Model, model: WorldModel, device: str | torch.device):
        self.cfg, self.noise, self.device = cfg, getattr(model, "noise", 0), device
        self.every = FRESH * 5 if stacks(torch.device(device)) else FRESH
        self.appearance = world.appearance(cfg.data.world, cfg.data.seed, device)
        self.g = world.generator(cfg.data.seed, f"stream/{cfg.family}", device)
        self.inputs = self._pool() if cfg.data.distinct else self._drawn()

    def __len__(self) -> int:
        return len(self.inputs[0])

    def _drawn(self) -> list[Tensor]:
        obs, prev_action, _ = episodes.draw(self.cfg.data, self.every * self.cfg.batch, self.g, self.appearance)
        return [obs, prev_action, *self._rest(prev_action)]

    def _pool(self) -> list[Tensor]:
        """The distinct episodes there are; for an encoder shaped by own reward those that heads learn from at p = 0."""
        data = episodes.collect(self.cfg.data, self.device)
        if self.cfg.trained_on == "reward":
            data = data[: episodes.split(len(data))]
            data = data[~data.eventful]
            return [data.obs, data.prev_action, world.reward(data.contact, self.cfg.data.world)]
        return [data.obs, data.prev_action, *self._rest(data.prev_action)]

    def _rest(self, prev_action: Tensor) -> list[Tensor]:
        """Previous actions as the predictor is shown them [rows, T], and uniform noise [rows, T, noise]."""
        shown = torch.rand(len(prev_action), 1, generator=self.g, device=self.device) >= self.cfg.hidden
        rest = [prev_action * shown]
        if self.noise:
            uniform = torch.rand(*prev_action.shape, self.noise, generator=self.g, device=self.device)
            rest.append(uniform.clamp(1e-6, 1 - 1e-6))
        return rest

    def renew(self) -> None:
        """Draw new episodes into the same memory."""
        for old, new in zip(self.inputs, self._drawn(), strict=True):
            old.copy_(new)

    def rows(self) -> Tensor:
        """Which rows every update learns from [updates, batch]."""
        cfg = self.cfg
        if cfg.data.distinct:
            g = world.generator(cfg.data.seed, f"batches/{cfg.family}")
            return torch.randint(len(self), (cfg.updates, cfg.batch), generator=g)
        one = torch.arange(len(self)).view(self.every, cfg.batch)
        return one.repeat(math.ceil(cfg.updates / self.every), 1)[: cfg.updates]


def train(
    cfgs: Sequence[config.Model], device: str = "cpu", quiet: bool = True, stacked: bool | None = None
) -> list[tuple[WorldModel, dict[str, float]]]:
    """Train world models that differ only in their seed as one population, each on its own episodes, reward unseen.

    Returns each frozen, with its held-out losses.  The loss is the mean over the family's named losses' sum.
    """
    cfg, members = cfgs[0], [build(c).to(device) for c in cfgs]
    if learns(cfg):
        assert all(c.family == cfg.family and c.own() == cfg.own() for c in cfgs), "members of one shape"
        feeds = [Feed(c, m, device) for c, m in zip(cfgs, members, strict=True)]

        def renew() -> None:
            for feed in feeds:
                feed.renew()

        ends = [] if cfg.data.distinct else range(feeds[0].every, cfg.stop or cfg.updates, feeds[0].every)
        fit(
            members,
            _objective,
            lambda rows: [
                [x[own] for x, own in zip(parts, rows, strict=True)]
                for parts in zip(*(feed.inputs for feed in feeds), strict=True)
            ],
            torch.stack([feed.rows() for feed in feeds], 1)[: cfg.stop],
            cfg.rate,
            cfg.weight_decay,
            scheduled=cfg.updates,
            stacked=stacked,
            at=dict.fromkeys(ends, renew),
            label=f"world model {cfg.family} seed {', '.join(str(c.data.seed) for c in cfgs)}",
            quiet=quiet,
        )
    for c, member in zip(cfgs, members, strict=True):
        if isinstance(member, PCA):
            seen = episodes.collect(c.data, device, "pca", FITTED)
            member.fit(seen.obs, seen.prev_action)
    frozen = [m.requires_grad_(False).eval() for m in members]
    return [(m, evaluate(c, m, device) if learns(c) else {}) for m, c in zip(frozen, cfgs, strict=True)]


def _objective(model: WorldModel, obs: Tensor, prev_action: Tensor, third: Tensor, *given: Tensor) -> Tensor:
    """The mean of the family's named losses' sum []."""
    return sum(model.losses(obs, prev_action, third, **dict(zip(("given",), given, strict=False))).values()).mean()


@torch.no_grad()
def evaluate(cfg: config.Model, model: WorldModel, device: str = "cpu") -> dict[str, float]:
    """Mean of each named loss over held-out episodes, own action shown; of own reward over quiet and vacant ones."""
    data = episodes.collect(cfg.data, device, "held out", HELD_OUT)
    third = data.prev_action
    if cfg.trained_on == "reward":
        data = data[~data.eventful]
        third = world.reward(data.contact, cfg.data.world)
    return {name: float(loss.mean()) for name, loss in model.losses(data.obs, data.prev_action, third).items()}


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


@torch.no_grad()
def foresight(cfg: config.Foresight, model: WorldModel, device: str = "cpu") -> pd.DataFrame:
    """Errors of where a purposeful other will be next in eventful episodes: measure, value.

    place, informed, aimless: of the model, of an observer who knows what it seeks, and of one to whom it moves at
    random, where it has something to seek; place_all, informed_all, stays_all: over all frames, the last of an observer
    to whom it stays where there is nothing to seek and else moves at random.  Squared, summed over cells, and the
    model's over the channels of a body, whose appearance has unit length.
    """
    data, kept = cfg.model.data, {"eventful": 1.0, "drifters": 0.0}
    data = data.model_copy(update={"world": data.world.model_copy(update=kept)})
    g, appearance = world.generator(data.seed, "foresight", device), world.appearance(data.world, data.seed, device)
    obs, prev_action, states = episodes.draw(data, cfg.episodes, g, appearance)
    seen = episodes.outlook(data.world, states)
    read = nn.Identity() if model.foresees_frames else readout(cfg.model, model, device)
    expected = expected_bodies(model, data.world, obs, prev_action, states[0], read)[seen.episode, seen.frame]
    bodies = world.bodies(states[0].angle, appearance)[seen.episode, None]  # [R, 1, appearance]
    wrong = (expected - seen.there[..., None] * bodies).square().sum((1, 2))
    rows = {"place": float(wrong[seen.seeks].mean()), "place_all": float(wrong.mean())}
    rows |= {name: seen.error(name) for name in ("informed", "aimless")}
    rows |= {f"{name}_all": seen.error(name, seeking=False) for name in ("informed", "stays")}
    return pd.DataFrame(rows.items(), columns=["measure", "value"])


@torch.enable_grad()
def readout(cfg: config.Model, model: WorldModel, device: str = "cpu") -> nn.Module:
    """A decoder of the next frame from the code that a model foresees, fitted to `READ_OUT` episodes of its world."""
    data = episodes.collect(cfg.data, device, "readout", READ_OUT)
    with torch.no_grad():
        ahead = model.foresee(encode(model, data.obs, data.prev_action), data.prev_action)
    g = world.generator(cfg.data.seed, "readout")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(g.initial_seed())
        net = decoder(cfg, data.obs.shape[-1], ahead.shape[-1]).to(device)
    index = torch.randint(len(ahead), (cfg.updates, 1, cfg.batch), generator=g)
    loss = lambda net, z, obs: model.error(net(z), obs).mean()  # noqa: E731
    fit([net], loss, lambda rows: [[ahead[rows[0]]], [data.obs[rows[0], 1:]]], index, cfg.rate, cfg.weight_decay)
    return net


@torch.no_grad()
def expected_bodies(
    model: WorldModel, cfg: config.World, obs: Tensor, prev_action: Tensor, first: world.State, read: nn.Module
) -> Tensor:
    """What a model expects of the channels of bodies in every cell of the other's chamber in the next frame
    [B, T - 1, N, appearance], own actions given.

    first: the state of the first frame; read: decodes what the model foresees, where it does not itself.
    """
    n, ahead = cfg.size, read(model.foresee(encode(model, obs, prev_action), prev_action))
    ahead = ahead.unflatten(-1, (*world.grid(cfg), -1))[..., : cfg.appearance]
    right = (first.side == 0)[:, None, None, None, None]
    return torch.where(right, ahead[..., n + 1 :, :], ahead[..., :n, :]).flatten(2, 3)
