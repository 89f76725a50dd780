"""Episodes: rollouts of the chambers under scripted conduct, as the world model and the heads see them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
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
    look = world.look(cfg.world, cfg.seed, device)
    state = world.reset(cfg.world, cfg.episodes, g)
    first = state
    action = torch.full((cfg.episodes,), -1, device=device)
    frames = {"obs": [], "prev_action": [], "contact": []}
    for t in range(cfg.frames):
        if t:
            actions = world.conduct(state, cfg.world, g)
            state, action = world.step(state, actions, cfg.world, g), actions[:, 0]
        frames["obs"].append(world.observe(state, cfg.world, look, g).flatten(1))
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
