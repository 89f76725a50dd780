"""Episodes: rollouts of the chambers under scripted conduct, as the world model and the heads see them; and how far
the next place of a purposeful other can be foreseen in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from . import config, world
from .world import State

HELD_OUT = 1 / 16  # share of the distinct episodes that nothing is learnt from


def split(count: int) -> int:
    """Distinct episodes before this index train; those from it on are held out."""
    return count - max(1, int(count * HELD_OUT))


@dataclass(frozen=True)
class Batch:
    """obs [B, T, F]; prev_action [B, T] the self's, 0 = none yet, else 1 + action; contact [B, T, M]; angle [B];
    drifter, occupied, stocked [B]; side [B] 0 = self's chamber on the left; joins_at [B] in [0, 1): an eventful episode
    is learnt from at companies above it."""

    obs: Tensor
    prev_action: Tensor
    contact: Tensor
    angle: Tensor
    drifter: Tensor
    occupied: Tensor
    stocked: Tensor
    side: Tensor
    joins_at: Tensor

    def __len__(self) -> int:
        return len(self.side)

    def __getitem__(self, index) -> Batch:
        return Batch(**{name: getattr(self, name)[index] for name in self.__dataclass_fields__})

    @property
    def eventful(self) -> Tensor:
        return self.occupied & self.stocked

    @property
    def quiet(self) -> Tensor:
        return ~self.stocked


def rollout(cfg: config.World, count: int, frames: int, g: torch.Generator) -> Iterator[tuple[State, Tensor]]:
    """(state, previous actions [B, M], -1 for none yet) of every frame of `count` episodes."""
    state = world.reset(cfg, count, g)
    actions = torch.full_like(state.pos, -1)
    yield state, actions
    for _ in range(frames - 1):
        actions = world.conduct(state, cfg, g)
        state = world.step(state, actions, cfg, g)
        yield state, actions


def draw(
    cfg: config.Episodes, count: int, g: torch.Generator, appearance: world.Appearance
) -> tuple[Tensor, Tensor, list[State]]:
    """obs [B, T, F], prev_action [B, T] and the states of `count` episodes, by a stream of random numbers."""
    states, seen, actions = [], [], []
    for state, action in rollout(cfg.world, count, cfg.frames, g):
        states.append(state)
        seen.append(world.observe(state, cfg.world, appearance, g).flatten(1))
        actions.append(action[:, 0] + 1)
    return torch.stack(seen, 1), torch.stack(actions, 1), states


def collect(
    cfg: config.Episodes, device: str | torch.device = "cpu", purpose: str = "episodes", count: int | None = None
) -> Batch:
    """A seed's distinct episodes, or `count` of its stream.  When they join company is drawn here, nested in p.

    purpose: whose random numbers; another one gives other episodes of the same world.
    """
    count, g = count or cfg.distinct, world.generator(cfg.seed, purpose, device)
    obs, prev_action, states = draw(cfg, count, g, world.appearance(cfg.world, cfg.seed, device))
    joins_at = torch.rand(count, generator=world.generator(cfg.seed, f"{purpose}/company")).to(device)
    first = states[0]
    return Batch(
        obs=obs,
        prev_action=prev_action,
        contact=torch.stack([state.contact for state in states], 1),
        angle=first.angle,
        drifter=first.purpose[:, 1] == 0,
        occupied=first.occupied,
        stocked=first.stocked,
        side=first.side,
        joins_at=joins_at,
    )


@dataclass(frozen=True)
class Outlook:
    """Where a purposeful other may be in the next frame of eventful episodes.

    seeks [R]: whether it has something to seek; informed, aimless, stays [R, N]: its chances to be in each cell, for an
    observer who knows what it seeks and how surely, one to whom it moves at random, and one to whom it stays where
    there is nothing to seek and else moves at random; there [R, N]: where it is; episode, frame [R]: the frame before.
    """

    seeks: Tensor
    informed: Tensor
    aimless: Tensor
    stays: Tensor
    there: Tensor
    episode: Tensor
    frame: Tensor

    def error(self, belief: str | Tensor, seeking: bool = True) -> float:
        """Mean squared error, summed over cells, of chances [R, N]; of all frames, or where it seeks something."""
        belief = getattr(self, belief) if isinstance(belief, str) else belief
        wrong = (belief - self.there).square().sum(1)
        return float(wrong[self.seeks].mean() if seeking else wrong.mean())


def outlook(cfg: config.World, states: list[State]) -> Outlook:
    """What can be foreseen of purposeful others in eventful episodes, from the states of all their frames."""
    after, cells = world.geometry(cfg.size, states[0].pos.device)[0], cfg.size**2
    episode = (states[0].eventful & (states[0].purpose[:, 1] > 0)).nonzero().squeeze(1)
    parts: list[tuple[Tensor, ...]] = []
    for t, (state, ahead) in enumerate(pairwise(states)):
        action, seeks = (x[episode, 1] for x in world.purposeful_action(state, cfg))
        pos, surely = state.pos[episode, 1], state.purpose[episode, 1, None]
        aimless = F.one_hot(after[pos], cells).float().mean(1)
        still = torch.where(seeks[:, None], aimless, F.one_hot(pos, cells).float())
        informed = surely * F.one_hot(after[pos, action], cells) + (1 - surely) * aimless
        there = F.one_hot(ahead.pos[episode, 1], cells).float()
        parts.append((seeks, informed, aimless, still, there, episode, torch.full_like(episode, t)))
    return Outlook(*(torch.cat(part) for part in zip(*parts, strict=True)))
