"""Two glass chambers, one body in each: pure functions over an immutable batched state.

Items are stored as *ranks* of the ladder (1 = worst ... K = best, 0 = none), so dynamics are the same for every
seed; which channel shows which rank, and along which axes bodies are drawn, is an
`Appearance` and enters in `observe` alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace
from functools import lru_cache

import torch
from torch import Tensor

from .config import World

ACTIONS = ("stay", "up", "down", "left", "right")
SEEKING_DISCOUNT = 0.8  # a body prefers the item with the largest value * discount ** distance
MOVES = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))


@dataclass(frozen=True)
class State:
    """One frame of B worlds.  Chamber m is body m's; `side` says where chamber 0 is drawn.

    side [B] 0 = self's chamber on the left; pos [B, M] cell of each body; items [B, M, N] rank + 1 or 0;
    contact [B, M] what each body stands on and consumes in this frame (rank + 1 or 0); angle [B] of the other's
    appearance, radians; purpose [B, M]; eventful [B] bool.
    """

    side: Tensor
    pos: Tensor
    items: Tensor
    contact: Tensor
    angle: Tensor
    purpose: Tensor
    eventful: Tensor

    def __len__(self) -> int:
        return len(self.side)

    def map(self, function) -> State:
        """Apply `function` to every field, e.g. an index or a `repeat_interleave`."""
        return State(**{f.name: function(getattr(self, f.name)) for f in fields(self)})


@dataclass(frozen=True)
class Appearance:
    """How a seed's world is drawn: axes [2, appearance] of bodies, kinds [K] channel of each rank."""

    axes: Tensor
    kinds: Tensor


def generator(seed: int, purpose: str, device: str | torch.device = "cpu") -> torch.Generator:
    """Independent stream of random numbers for one purpose of one seed."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:7], "big"))


def appearance(config: World, seed: int, device: str | torch.device = "cpu") -> Appearance:
    """The seed's random orthonormal pair of appearance axes and its permutation of item kinds."""
    g = generator(seed, "look")
    q, r = torch.linalg.qr(torch.randn(config.appearance, config.appearance, generator=g, dtype=torch.float64))
    axes = (q * r.diagonal().sign())[:, :2].T.float()
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


def reward(contact: Tensor, config: World, kappa: float = 0.0) -> Tensor:
    """The self's reward [...] from contacts [..., M]: its own item's, plus kappa times the other's by its taste."""
    worth = values(config, contact.device)
    return worth[0][contact[..., 0]] + kappa * worth[1][contact[..., 1]]


def _rand(shape, g: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=g, device=g.device)


def reset(config: World, batch: int, g: torch.Generator) -> State:
    """Draw side, appearance, conduct, positions and first items of `batch` episodes."""
    n, low, high = config.size**2, *config.other_purpose
    drifter = _rand(batch, g) < config.drifters
    other = torch.where(drifter, 0.0, low + (high - low) * _rand(batch, g))
    pos = (_rand((batch, 2), g) * n).long()
    state = State(
        side=(_rand(batch, g) < 0.5).long(),
        pos=pos,
        items=torch.zeros(batch, 2, n, dtype=torch.long, device=g.device),
        contact=torch.zeros_like(pos),
        angle=_rand(batch, g) * (torch.pi / 2),
        purpose=torch.stack([torch.full_like(other, config.purpose), other], 1),
        eventful=_rand(batch, g) < (0.0 if config.solitary else config.eventful),
    )
    for _ in range(config.max_items):
        state = respawn(state, config, g)
    return state


def step(state: State, actions: Tensor, config: World, g: torch.Generator) -> State:
    """Consume, move by actions [B, M], touch, and let items respawn."""
    after, _ = geometry(config.size, state.pos.device)
    items = state.items.scatter(2, state.pos.unsqueeze(2), 0)
    pos = after[state.pos, actions]
    contact = items.gather(2, pos.unsqueeze(2)).squeeze(2)
    return respawn(replace(state, pos=pos, items=items, contact=contact), config, g)


def respawn(state: State, config: World, g: torch.Generator) -> State:
    """With probability `respawn` put a random item into a random free cell of each chamber that is not full."""
    batch, n = len(state), state.items.shape[2]
    free = (state.items == 0).scatter_(2, state.pos.unsqueeze(2), False)
    standing = n - 1 - free.sum(2)  # not counting what a body stands on
    wanted = (_rand((batch, 2), g) < config.respawn) & (standing < config.max_items)
    wanted[:, 1] &= state.eventful
    cell = _rand((batch, 2, n), g).mul_(free).argmax(2, keepdim=True)
    kind = (_rand((batch, 2), g) * len(config.ladder)).long().add_(1).mul_(wanted)
    return replace(state, items=state.items.scatter_add(2, cell, kind.unsqueeze(2)))


def conduct(state: State, config: World, g: torch.Generator, worth: Tensor | None = None) -> Tensor:
    """Scripted actions [B, M]: a greedy step with probability `purpose`, else (or with nothing to seek) a random one.

    worth [M, K + 1]: the bodies' tastes, `values(config)` by default.
    """
    batch = len(state)
    worth = values(config, state.pos.device) if worth is None else worth
    greedy, seeks = greedy_action(state, config, worth, _rand((batch, 2, len(ACTIONS)), g))
    random = (_rand((batch, 2), g) * len(ACTIONS)).long()
    return torch.where(seeks & (_rand((batch, 2), g) < state.purpose), greedy, random)


def greedy_action(state: State, config: World, worth: Tensor, tie: Tensor) -> tuple[Tensor, Tensor]:
    """Step towards the item of largest discounted worth, around items of negative worth; and whether there is one.

    worth [M, K + 1]; tie [B, M, A] in [0, 1) breaks ties.  Returns action [B, M] and seeks [B, M] bool.
    """
    after, apart = geometry(config.size, state.pos.device)
    waiting = state.items.scatter(2, state.pos.unsqueeze(2), 0)  # the item underfoot is already being consumed
    worth = torch.stack([worth[0][waiting[:, 0]], worth[1][waiting[:, 1]]], 1)  # [B, M, N]
    appeal = worth * SEEKING_DISCOUNT ** apart[state.pos]
    best, target = appeal.max(2, keepdim=True)
    reached = after[state.pos]  # [B, M, A]
    cost = apart[reached, target] + 100.0 * (worth.gather(2, reached) < 0)
    return (cost + 0.5 * tie).argmin(2), best.squeeze(2) > 0


def observe(state: State, config: World, appearance: Appearance, g: torch.Generator | None = None) -> Tensor:
    """Draw the state [B, H, W, C]: appearance, item kinds, glass.  `g` is needed for pixel noise only."""
    batch, s, a, k = len(state), config.size, config.appearance, len(config.ladder)
    device = state.pos.device
    swap = (state.side == 1) & (config.view != "left")
    left, right = (torch.where(swap[:, None], state.items[:, 1 - m], state.items[:, m]) for m in (0, 1))
    glass = left.new_full((1,), k + 1).expand(batch, s, 1)
    drawn = torch.cat([left.view(batch, s, s), glass, right.view(batch, s, s)], 2)  # what lies in every cell
    lying = torch.zeros(k + 2, a + k + 1, device=device)  # and how it is drawn: nothing, rank 0 ..., glass
    lying[torch.arange(1, k + 1, device=device), a + appearance.kinds] = 1.0
    lying[k + 1, -1] = 1.0
    grid = torch.nn.functional.embedding(drawn.flatten(1), lying)  # [B, H * W, C]
    angle = torch.stack([torch.zeros_like(state.angle), state.angle], 1).unsqueeze(2)
    bodies = angle.cos() * appearance.axes[0] + angle.sin() * appearance.axes[1]  # [B, M, appearance]
    row, col = state.pos // s, state.pos % s
    col = col + (s + 1) * (swap.unsqueeze(1) != torch.tensor([False, True], device=device))
    cell = row * (2 * s + 1) + col
    drawn = 1 if config.solitary else 2
    grid.scatter_(1, cell[:, :drawn, None].expand(-1, -1, a), bodies[:, :drawn])
    grid = grid.view(batch, s, 2 * s + 1, -1)
    if config.view == "centred":
        grid = _centre(grid, row[:, 0], col[:, 0])
    if config.noise:
        assert g is not None, "pixel noise needs a generator"
        grid = grid + config.noise * torch.randn(grid.shape, generator=g, device=g.device)
    return grid


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


def features(config: World) -> int:
    """Numbers F in one flattened observation."""
    h, w = grid(config)
    return h * w * (config.appearance + len(config.ladder) + 1)
