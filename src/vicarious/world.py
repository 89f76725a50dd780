"""Two glass chambers, one body in each: pure functions over an immutable batched state.

Items are stored as *ranks* of the ladder (1 = worst ... K = best, 0 = none), so dynamics are the same for every
seed; which channel shows which rank, and along which axes bodies are drawn, is an
`Appearance` and enters in `observe` alone.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, fields, replace
from functools import lru_cache

import torch
from torch import Tensor

from .config import World

ACTIONS = ("stay", "up", "down", "left", "right")
MOVES = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))


@dataclass(frozen=True)
class State:
    """One frame of B worlds.  Chamber m is body m's; `side` says where chamber 0 is drawn.

    side [B] 0 = self's chamber on the left; pos [B, M] cell of each body; items [B, M, N] rank + 1 or 0;
    contact [B, M] what each body stands on and consumes in this frame (rank + 1 or 0); mood [B, M] left by what it met
    before, in reward; angle [B] of the other's appearance, radians; purpose [B, M]; occupied, stocked [B] bool: whether
    there is an other, and whether items appear in its chamber.
    """

    side: Tensor
    pos: Tensor
    items: Tensor
    contact: Tensor
    mood: Tensor
    angle: Tensor
    purpose: Tensor
    occupied: Tensor
    stocked: Tensor

    def __len__(self) -> int:
        return len(self.side)

    def map(self, function) -> State:
        """Apply `function` to every field, e.g. an index or a `repeat_interleave`."""
        return State(**{f.name: function(getattr(self, f.name)) for f in fields(self)})

    @property
    def eventful(self) -> Tensor:
        """Whether there is an other with items to meet [B]; neither is a quiet episode without items, nor a vacant one
        without an other."""
        return self.occupied & self.stocked

    @property
    def there(self) -> Tensor:
        """Where each body is [B, M, N] bool; nowhere if it does not exist."""
        cells = torch.arange(self.items.shape[2], device=self.pos.device)
        exists = torch.stack([torch.ones_like(self.occupied), self.occupied], 1)
        return (self.pos.unsqueeze(2) == cells) & exists.unsqueeze(2)


@dataclass(frozen=True)
class Appearance:
    """How a seed's world is drawn: axes [appearance, appearance] of bodies, the self's, the other's, and those along
    which nobody is drawn in any episode; kinds [K] channel of each rank."""

    axes: Tensor
    kinds: Tensor


def generator(seed: int, purpose: str, device: str | torch.device = "cpu") -> torch.Generator:
    """Independent stream of random numbers for one purpose of one seed."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:7], "big"))


def appearance(config: World, seed: int, device: str | torch.device = "cpu") -> Appearance:
    """The seed's random orthonormal axes of appearance and its permutation of item kinds."""
    g = generator(seed, "look")
    q, r = torch.linalg.qr(torch.randn(config.appearance, config.appearance, generator=g, dtype=torch.float64))
    axes = (q * r.diagonal().sign()).T.float()
    return Appearance(axes.to(device), torch.randperm(len(config.ladder), generator=g).to(device))


@lru_cache
def geometry(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """next cell [N, A] after each action, and Manhattan distance [N, N], in cells."""
    cells = [(row, col) for row in range(size) for col in range(size)]
    clip = lambda x: min(max(x, 0), size - 1)  # noqa: E731
    after = [[clip(r + dr) * size + clip(c + dc) for dr, dc in MOVES] for r, c in cells]
    apart = [[abs(r - r2) + abs(c - c2) for r2, c2 in cells] for r, c in cells]
    return torch.tensor(after, device=device), torch.tensor(apart, device=device)


def values(config: World, device: str | torch.device = "cpu") -> Tensor:
    """Worth [M, K + 1] of (nothing, rank 0, ..., rank K-1) to self and other, in reward."""
    own = torch.tensor(config.ladder)
    other = {"shared": own, "opposite": -own, "alien": _alien(own)}[config.taste]
    return torch.nn.functional.pad(torch.stack([own, other]), (1, 0)).to(device)


def _alien(own: Tensor) -> Tensor:
    """The alien taste swaps the worthless kind with the best one."""
    zero, best = int((own == 0).nonzero()), len(own) - 1
    other = own.clone()
    other[zero], other[best] = own[best], own[zero]
    return other


def reward(contact: Tensor, config: World, kappa_gain: float = 0.0, kappa_loss: float = 0.0) -> Tensor:
    """The self's reward [...] from contacts [..., M]: its own item's, and a share of the other's gain or loss."""
    own, other = values(config, contact.device)
    worth = other[contact[..., 1]]
    return own[contact[..., 0]] + kappa_gain * worth.clamp(min=0) + kappa_loss * worth.clamp(max=0)


def _rand(shape, g: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=g, device=g.device)


def reset(config: World, batch: int, g: torch.Generator) -> State:
    """Draw side, kind of episode, appearance, conduct, positions and first items of `batch` episodes."""
    n, kind = config.size**2, _rand(batch, g)
    other = torch.where(_rand(batch, g) < config.drifters, 0.0, config.other_purpose)
    vacant = kind >= 1 - (1 - config.eventful) * config.vacant
    pos = (_rand((batch, 2), g) * n).long()
    state = State(
        side=(_rand(batch, g) < 0.5).long(),
        pos=pos,
        items=torch.zeros(batch, 2, n, dtype=torch.long, device=g.device),
        contact=torch.zeros_like(pos),
        mood=torch.zeros(batch, 2, device=g.device),
        angle=_rand(batch, g) * math.radians(config.widest),
        purpose=torch.stack([torch.full_like(other, config.purpose), other], 1),
        occupied=~vacant,
        stocked=(kind < config.eventful) | vacant,
    )
    for _ in range(config.max_items):
        state = restock(state, config, g)
    return state


def step(state: State, actions: Tensor, config: World, g: torch.Generator) -> State:
    """Consume, move by actions [B, M], feel what was met before, touch, and let items vanish and appear."""
    after, _ = geometry(config.size, state.pos.device)
    felt = worth_of(state.contact, config)
    items = state.items.masked_fill(state.there, 0)
    pos = after[state.pos, actions]
    moved = replace(state, pos=pos, items=items, mood=state.mood / 2 + felt)
    contact = (items * moved.there).sum(2)
    return restock(replace(moved, contact=contact), config, g)


def worth_of(contact: Tensor, config: World) -> Tensor:
    """What contacts [..., M] are worth to each body by its own taste [..., M], in reward."""
    own, other = values(config, contact.device)
    return torch.stack([own[contact[..., 0]], other[contact[..., 1]]], -1)


def restock(state: State, config: World, g: torch.Generator) -> State:
    """Let every item that is not stood on vanish with probability `vanish`, then put one into a random free cell of
    each chamber that is not full, with probability `appear`."""
    batch, n, kinds, there = len(state), state.items.shape[2], len(config.ladder), state.there
    items = state.items * ((_rand((batch, 2, n), g) >= config.vanish) | there)
    free = (items == 0) & ~there
    lying = ((items > 0) & ~there).sum(2)
    wanted = (_rand((batch, 2), g) < config.appear) & (lying < config.max_items)
    wanted[:, 1] &= state.stocked
    cell = _rand((batch, 2, n), g).mul_(free).argmax(2, keepdim=True)
    rest = 1 + (_rand((batch, 2), g) * (kinds - 1)).long()
    kind = torch.where(_rand((batch, 2), g) < config.best, kinds, rest).mul_(wanted)
    return replace(state, items=items.scatter_add(2, cell, kind.unsqueeze(2)))


def conduct(state: State, config: World, g: torch.Generator, worth: Tensor | None = None) -> Tensor:
    """Scripted actions [B, M]: with probability `purpose` what a purposeful body does, else a random one.

    worth [M, K + 1]: the bodies' tastes, `values(config)` by default.
    """
    chosen, _ = purposeful_action(state, config, worth)
    random = (_rand((len(state), 2), g) * len(ACTIONS)).long()
    return torch.where(_rand((len(state), 2), g) < state.purpose, chosen, random)


def purposeful_action(state: State, config: World, worth: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What a purposeful body does [B, M], and whether it has something to seek [B, M].

    A step to the nearest item that is good by its own taste, around bad ones (it waits where they are in every way),
    ties in the order of cells and actions; it stays where there is nothing good.
    """
    after, apart = geometry(config.size, state.pos.device)
    own, other = values(config, state.pos.device) if worth is None else worth
    waiting = state.items.masked_fill(state.there, 0)  # the item underfoot is already being consumed
    worth = torch.stack([own[waiting[:, 0]], other[waiting[:, 1]]], 1)  # [B, M, N]
    nearest, target = torch.where(worth > 0, apart[state.pos], 2 * config.size).min(2, keepdim=True)
    seeks = nearest.squeeze(2) < 2 * config.size
    reached = after[state.pos]  # [B, M, A]
    order = torch.arange(len(ACTIONS), device=state.pos.device) / 100
    cost = apart[reached, target] + order + 100.0 * (worth.gather(2, reached) < 0)
    return torch.where(seeks, cost.argmin(2), 0), seeks


def observe(state: State, config: World, appearance: Appearance, g: torch.Generator | None = None) -> Tensor:
    """Draw the state [B, H, W, C]: appearance, item kinds, glass, expression.  `g` is needed for pixel noise only."""
    batch, s, a, k = len(state), config.size, config.appearance, len(config.ladder)
    device = state.pos.device
    swap = (state.side == 1) & (config.view != "left")
    left, right = (torch.where(swap[:, None], state.items[:, 1 - m], state.items[:, m]) for m in (0, 1))
    glass = left.new_full((1,), k + 1).expand(batch, s, 1)
    drawn = torch.cat([left.view(batch, s, s), glass, right.view(batch, s, s)], 2)  # what lies in every cell
    lying = torch.zeros(k + 2, a + k + 2, device=device)  # and how it is drawn: nothing, rank 0 ..., glass
    lying[torch.arange(1, k + 1, device=device), a + appearance.kinds] = 1.0
    lying[k + 1, -2] = 1.0
    grid = torch.nn.functional.embedding(drawn.flatten(1), lying)  # [B, H * W, C]
    if config.marked:
        grid[..., -2] *= 1.0 - 2.0 * swap[:, None]
    row, col = state.pos // s, state.pos % s
    col = col + (s + 1) * (swap.unsqueeze(1) != torch.tensor([False, True], device=device))
    cell = row * (2 * s + 1) + col
    drawn_bodies = bodies(torch.stack([torch.zeros_like(state.angle), state.angle], 1), appearance)
    exists = torch.stack([torch.ones_like(state.occupied), state.occupied], 1).unsqueeze(2)
    grid[..., :a].scatter_add_(1, cell[:, :, None].expand(-1, -1, a), drawn_bodies * exists)
    grid[..., -1].scatter_add_(1, cell, config.expression * state.mood * exists.squeeze(2))
    grid = grid.view(batch, s, 2 * s + 1, -1)
    if config.view == "centred":
        grid = _centre(grid, row[:, 0], col[:, 0])
    if config.noise:
        assert g is not None, "pixel noise needs a generator"
        grid = grid + config.noise * torch.randn(grid.shape, generator=g, device=g.device)
    return grid


def bodies(angle: Tensor, appearance: Appearance) -> Tensor:
    """How bodies at angles [...] from the self's appearance look [..., appearance]."""
    return angle.cos()[..., None] * appearance.axes[0] + angle.sin()[..., None] * appearance.axes[1]


def _centre(grid: Tensor, row: Tensor, col: Tensor) -> Tensor:
    """Crop [B, 2H-1, 2W-1, C] around (row, col), large enough that nothing is ever out of view."""
    b, h, w, _ = grid.shape
    padded = torch.nn.functional.pad(grid, (0, 0, w - 1, w - 1, h - 1, h - 1))
    rows = row[:, None] + torch.arange(2 * h - 1, device=grid.device)
    cols = col[:, None] + torch.arange(2 * w - 1, device=grid.device)
    return padded[torch.arange(b, device=grid.device)[:, None, None], rows[:, :, None], cols[:, None, :]]


def grid(config: World) -> tuple[int, int]:
    """Rows and columns of an observation, in cells."""
    h, w = config.size, 2 * config.size + 1
    return (2 * h - 1, 2 * w - 1) if config.view == "centred" else (h, w)


def channels(config: World) -> int:
    """Numbers C in one cell of an observation."""
    return config.appearance + len(config.ladder) + 2


def features(config: World) -> int:
    """Numbers F in one flattened observation."""
    h, w = grid(config)
    return h * w * channels(config)
