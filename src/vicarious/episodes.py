"""Episodes: rollouts of the chambers under scripted conduct, as the world model and the heads see them; and how far
what happens in them can be foreseen."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from . import config, world


@dataclass(frozen=True)
class Batch:
    """obs [B, T, F]; prev_action [B, T] the self's, 0 = none yet, else 1 + action; contact [B, T, M]; angle [B];
    drifter [B]; eventful [B]; side [B] 0 = self's chamber on the left; exposed_at [B] in [0, 1): the other's contacts
    are labelled at exposures above it."""

    obs: Tensor
    prev_action: Tensor
    contact: Tensor
    angle: Tensor
    drifter: Tensor
    eventful: Tensor
    side: Tensor
    exposed_at: Tensor

    def __len__(self) -> int:
        return len(self.obs)

    def __getitem__(self, index) -> Batch:
        return Batch(**{name: getattr(self, name)[index] for name in self.__dataclass_fields__})


def collect(cfg: config.Episodes, device: str | torch.device = "cpu", purpose: str = "episodes") -> Batch:
    """Roll out the episodes of one seed.  Which episodes are exposed is drawn here once, nested in p.

    purpose: whose random numbers; another one gives other episodes of the same world.
    """
    g = world.generator(cfg.seed, purpose, device)
    appearance = world.appearance(cfg.world, cfg.seed, device)
    state = world.reset(cfg.world, cfg.episodes, g)
    first = state
    action = torch.full((cfg.episodes,), -1, device=device)
    frames = {"obs": [], "prev_action": [], "contact": []}
    for t in range(cfg.frames):
        if t:
            actions = world.conduct(state, cfg.world, g)
            state, action = world.step(state, actions, cfg.world, g), actions[:, 0]
        frames["obs"].append(world.observe(state, cfg.world, appearance, g).flatten(1))
        frames["prev_action"].append(action + 1)
        frames["contact"].append(state.contact)
    exposed_at = torch.rand(cfg.episodes, generator=world.generator(cfg.seed, "exposure")).to(device)
    return Batch(
        **{name: torch.stack(parts, 1) for name, parts in frames.items()},
        angle=first.angle,
        drifter=first.purpose[:, 1] == 0,
        eventful=first.eventful,
        side=first.side,
        exposed_at=exposed_at,
    )


def labelled(batch: Batch, exposure: float) -> Tensor:
    """Frames [B, T] whose reward the heads are given: all but the other's contacts in unexposed episodes."""
    return (batch.contact[..., 1] == 0) | (batch.exposed_at < exposure)[:, None]


def foreseeable(cfg: config.World, worlds: int = 2048, frames: int = 20, ties: int = 8) -> dict[str, float]:
    """How far off the next place of a purposeful other is, to those who know all but what it will do by chance.

    Mean over frames of the squared error, summed over cells, of the probability that it will be there, by what it is
    believed to seek: what the self does (`shared`), the `alien` taste, or nothing (`aimless`); its purpose is known.
    ties: drawings over which ties between equally good steps are averaged.
    """
    g, after = world.generator(0, "foreseeable"), world.geometry(cfg.size, torch.device("cpu"))[0]
    state, cells, steps = world.reset(cfg, worlds, g), cfg.size**2, len(world.ACTIONS)
    tastes = {name: world.values(cfg.model_copy(update={"taste": name})) for name in ("shared", "alien")}
    wrong, kept = dict.fromkeys((*tastes, "aimless"), 0.0), state.eventful & (state.purpose[:, 1] > 0)
    for _ in range(frames - 1):
        anywhere = F.one_hot(after[state.pos[:, 1]], cells).double().mean(1)
        beliefs = {"aimless": anywhere}
        for name, worth in tastes.items():
            aims, total = torch.zeros(worlds), torch.zeros(worlds, cells, dtype=torch.double)
            for _ in range(ties):
                action, seeks = world.greedy_action(state, cfg, worth, torch.rand((worlds, 2, steps), generator=g))
                aims = torch.where(seeks[:, 1], state.purpose[:, 1], 0.0).double()
                total += F.one_hot(after[state.pos[:, 1], action[:, 1]], cells)
            beliefs[name] = aims[:, None] * total / ties + (1 - aims[:, None]) * anywhere
        state = world.step(state, world.conduct(state, cfg, g), cfg, g)
        there = F.one_hot(state.pos[:, 1], cells)
        for name, belief in beliefs.items():
            wrong[name] += float((belief - there).square().sum(1)[kept].mean()) / (frames - 1)
    return wrong
