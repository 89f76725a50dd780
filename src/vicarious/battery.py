"""The stimulus battery: matched scenes that differ only in who moves, what the item is worth, and whether it is met;
and what agents predict in them.

A scene is a real rollout of six frames, then a scripted event: `approach` (the item appears in place of another one),
`contact` (the mover steps), `after`.  Templates are made in *role space* (role 0 = mover) and in ranks of the ladder,
so that the same template serves every seed and, with roles swapped, self and other alike.  A `twin` is the matched
control of an event: the same move onto an empty cell, the item as far as possible; in an `averted` scene (an omission)
the item vanishes.  In scenes of the `stranger` the other is drawn as no body in any episode is, at a right angle to
every appearance and in another direction from scene to scene; in those of `nobody` its body is left out; in `quiet`
ones the self moves and the other has nothing.  Those of `right` are the self's, its chamber always on the right, those
of `left` an other's that is half alike, always on the left; an `opposite` looks as far from what others look like as
the plane of appearances allows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from . import config, models, world
from .heads import READOUTS
from .world import State

CONTACTS = ("event", "twin", "averted")
PHASES = ("approach", "contact", "after")
MOVERS = ("self", "quiet", "other", "drifter", "right", "left", "opposite", "stranger", "nobody")
TEMPLATES = MOVERS[:4]  # the stranger's scenes are the other's, and nobody's too
OTHERS = MOVERS[2:4]  # whose appearance is varied
SELVES = ("self", "quiet", "right")  # who moves there is the self
SIDES = {"left": 0, "right": 1}  # where the mover's chamber is, whatever the scene says


@dataclass(frozen=True)
class Scenes:
    """Templates of n scenes, X = len(CONTACTS), T = context + len(PHASES), roles M (0 = mover).

    pos, actions [movers, n, T, M]; items [movers, X, K, n, T, M, N] ranks + 1; side [n] where the mover's chamber is
    drawn; angle [n] appearance of the other in scenes whose mover is the self.
    """

    pos: Tensor
    actions: Tensor
    items: Tensor
    side: Tensor
    angle: Tensor

    def tensors(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def __len__(self) -> int:
        return len(self.side)

    def to(self, device: torch.device | str) -> Scenes:
        return Scenes(**{name: tensor.to(device) for name, tensor in self.tensors().items()})

    def split(self, size: int) -> Iterator[Scenes]:
        """Parts of `size` scenes, in order."""
        for i in range(0, len(self), size):
            k = slice(i, i + size)
            yield Scenes(self.pos[:, k], self.actions[:, k], self.items[:, :, :, k], self.side[k], self.angle[k])

    @property
    def digest(self) -> str:
        """SHA-256 of the templates, published with every result."""
        joined = hashlib.sha256()
        for name, tensor in sorted(self.tensors().items()):
            joined.update(name.encode() + np.ascontiguousarray(tensor.numpy()).tobytes())
        return joined.hexdigest()


def angles(levels: int) -> Tensor:
    """Appearance of the movers, uniform in angle from identical (0) to orthogonal (pi / 2), in radians, [levels]."""
    return torch.linspace(0, torch.pi / 2, levels, dtype=torch.float64).float()


def similarity(angle: Tensor) -> list[float]:
    """s = cos(angle), rounded so that tables can be joined on it."""
    return [round(float(a), 4) for a in angle.double().cos().clamp(min=0)]


@lru_cache(maxsize=64)
def make(cfg: config.Battery) -> Scenes:
    """Draw templates: the same first states and random numbers for every mover."""
    everywhere = cfg.world.model_copy(update={"eventful": 1.0, "drifters": 0.0})
    first = world.reset(everywhere, cfg.scenes, world.generator(cfg.seed, "battery/first"))
    script = [_script(cfg, *_context(cfg, first, mover)) for mover in TEMPLATES]
    pos, actions, items = (torch.stack(parts) for parts in zip(*script, strict=True))
    return Scenes(pos, actions, items, first.side.to(torch.int8), first.angle)


def purposes(cfg: config.World, mover: str) -> tuple[float, float]:
    """Of the mover and of the body that does not move."""
    own = {"self": cfg.purpose, "quiet": cfg.purpose, "other": cfg.other_purpose, "drifter": 0.0}[mover]
    return own, cfg.purpose if mover in OTHERS else cfg.other_purpose


def _context(cfg: config.Battery, state: State, mover: str) -> tuple[Tensor, Tensor, Tensor]:
    """Ordinary frames up to the approach, in role space: pos, actions [B, T, M], items [B, T, M, N]."""
    g = world.generator(cfg.seed, "battery/context")
    worth = world.values(cfg.world)
    worth = worth.flip(0) if mover in OTHERS else worth
    state = replace(state, purpose=torch.tensor(purposes(cfg.world, mover)).expand(len(state), 2))
    if mover == "quiet":
        items = state.items * torch.tensor([1, 0])[:, None]
        state = replace(state, items=items, stocked=torch.zeros_like(state.stocked))
    frames = [(state.pos, torch.full_like(state.pos, -1), state.items)]
    for _ in range(cfg.context):
        actions = world.conduct(state, cfg.world, g, worth)
        state = world.step(state, actions, cfg.world, g)
        frames.append((state.pos, actions, state.items))
    return tuple(torch.stack(parts, 1) for parts in zip(*frames, strict=True))


def _choose(allowed: Tensor, g: torch.Generator) -> Tensor:
    """The index [...] of a random allowed one of allowed [..., A]; 0 where none is."""
    return (torch.rand(allowed.shape, generator=g) * allowed).argmax(-1)


def _script(cfg: config.Battery, pos: Tensor, actions: Tensor, items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Append contact and after, and lay the item: pos, actions [n, T, M]; items [X, K, n, T, M, N], a byte each."""
    after, apart = world.geometry(cfg.world.size, pos.device)
    g, n, cells = world.generator(cfg.seed, "battery/script"), torch.arange(len(pos)), torch.arange(items.shape[-1])
    here, lying = pos[:, -1], items[:, -1].clone()
    under = torch.nn.functional.one_hot(here, len(cells)).bool()  # met in the frame of approach
    step = _choose(after[here[:, 0]] != here[:, :1], g)
    target = after[here[:, 0], step]
    distractors = (lying[:, 0] > 0) & ~under[:, 0]
    random = _choose(distractors, g)
    lying[n, 0, torch.where(distractors[n, target], target, random)] *= under[n, 0, random]
    rest = lying.masked_fill(under, 0)
    taken = (rest[:, 0] > 0) | under[:, 0] | (cells == target[:, None])
    far = torch.where(taken, -1, apart[here[:, 0]]).argmax(1)
    rest_far = rest.clone()
    rest_far[n, 0, far] = 1
    moves = _open(after, here[:, 1], rest[:, 1], g)
    there = torch.stack([target, after[here[:, 1], moves]], 1)
    leave = torch.stack([_open(after, there[:, m], rest_far[:, m], g) for m in (0, 1)], 1)
    pos = torch.cat([pos, there[:, None], after[there, leave][:, None]], 1)
    actions = torch.cat([actions, torch.stack([step, moves], 1)[:, None], leave[:, None]], 1)
    kinds = len(cfg.world.ladder)
    items = torch.cat([items[:, :-1], torch.stack([lying, rest, rest], 1)], 1).expand(3, kinds, -1, -1, -1, -1).clone()
    rank = torch.arange(1, kinds + 1)[:, None]
    for contact, phase, cell in (
        *(("event", phase, target) for phase in PHASES[:2]),
        *(("twin", phase, far) for phase in PHASES),
        ("averted", "approach", target),
    ):
        items[CONTACTS.index(contact), :, n, cfg.context + PHASES.index(phase), 0, cell] = rank
    return tuple(tensor.to(torch.int8) for tensor in (pos, actions, items))


def _open(after: Tensor, pos: Tensor, items: Tensor, g: torch.Generator) -> Tensor:
    """A random action [B] from pos [B] to another cell that holds nothing of items [B, N]; to stay where all do."""
    reached = after[pos]
    return _choose((reached != pos[:, None]) & (items.gather(1, reached) == 0), g)


def instantiate(
    scenes: Scenes,
    mover: str,
    cfg: config.World,
    angle: Tensor | None = None,
    contacts: int = len(CONTACTS),
    template: str | None = None,
) -> tuple[State, Tensor]:
    """Body-space states and the self's previous actions of one mover's scenes, batched [X * K * n * T].

    mover: one of `MOVERS`; cfg: the world by whose tastes moods are.  angle [] in radians is the other's appearance;
    None keeps each scene's own.  Only the first `contacts` of CONTACTS are laid out.  template: whose scenes they are,
    the mover's own by default.  Previous actions are [X * K * n, T] in the convention of `Batch.prev_action`.
    """
    kind = TEMPLATES.index(template or (mover if mover in TEMPLATES else "self" if mover in SELVES else "other"))
    items = scenes.items[kind][:contacts].long()
    x, k, n, t, m, cells = items.shape
    pos = scenes.pos[kind].long().expand(x, k, n, t, m)
    actions = scenes.actions[kind].long().expand(x, k, n, t, m)
    side = scenes.side.long()[:, None].expand(x, k, n, t)
    turned = (scenes.angle if angle is None else angle.expand(n))[:, None].expand(x, k, n, t)
    side = torch.full_like(side, SIDES[mover]) if mover in SIDES else side
    if mover not in SELVES:  # the mover is body 1: swap roles, and the self's chamber is the other one
        items, pos, actions, side = items.flip(-2), pos.flip(-1), actions.flip(-1), 1 - side
    contact = items.gather(-1, pos.unsqueeze(-1)).squeeze(-1)
    if mover == "nobody":
        contact = contact * torch.tensor([1, 0], device=contact.device)
    always = torch.ones(x * k * n * t, dtype=torch.bool, device=pos.device)
    state = State(
        side=side.reshape(-1),
        pos=pos.reshape(-1, m),
        items=items.reshape(-1, m, cells),
        contact=contact.reshape(-1, m),
        mood=_moods(world.worth_of(contact, cfg)).reshape(-1, m),
        angle=turned.reshape(-1),
        purpose=torch.zeros(len(always), m, device=pos.device),
        occupied=always & (mover != "nobody"),
        stocked=always & (mover != "quiet"),
    )
    return state, actions.reshape(-1, t, m)[..., 0] + 1


def _moods(worth: Tensor) -> Tensor:
    """Moods [..., T, M] that contacts of some worth [..., T, M] leave, each from the frame after."""
    mood, moods = torch.zeros_like(worth[..., 0, :]), []
    for met in worth.unbind(-2):
        moods.append(mood)
        mood = mood / 2 + met
    return torch.stack(moods, -2)


def present(
    scenes: Scenes,
    mover: str,
    angle: Tensor | None,
    cfg: config.World,
    appearance: world.Appearance,
    noise: torch.Generator | None = None,
    contacts: int = len(CONTACTS),
    template: str | None = None,
) -> tuple[Tensor, Tensor]:
    """The stimuli as a seed's agent sees them: obs [X * K * n, T, F] and prev_action [X * K * n, T], on their device.

    noise: generator of pixel noise, by default one that gives the same scenes the same noise.
    """
    strange = mover == "stranger"
    if mover in SIDES and cfg.view == "left":
        cfg = cfg.model_copy(update={"view": "allocentric"})
    fixed = {"left": torch.pi / 3, "opposite": torch.pi + np.radians(cfg.widest) / 2, "stranger": torch.pi / 2}
    angle = torch.tensor(fixed[mover], device=scenes.pos.device).float() if mover in fixed else angle
    state, prev_action = instantiate(scenes, mover, cfg, angle, contacts, template)
    noise = noise or world.generator(0, f"battery/noise/{mover}", scenes.pos.device)
    own, unseen = appearance.axes[0], appearance.axes[2:]
    looks = [torch.stack([own, axis]) for axis in (*unseen, *-unseen)] if strange else [appearance.axes]
    drawn = [world.observe(state, cfg, replace(appearance, axes=axes), noise).flatten(1) for axes in looks]
    obs = torch.stack([x.view(*prev_action.shape, -1) for x in drawn])  # [looks, X * K * n, T, F]
    scene = torch.arange(len(prev_action), device=obs.device)
    return obs[scene % len(scenes) % len(looks), scene], prev_action


def true_returns(cfg: config.Battery, scenes: Scenes, mover: str = "self") -> Tensor:
    """What each body gains [X, K, n, phases, M] by its own taste, by Monte-Carlo rollouts, in discounted reward.

    E[sum over k >= 1 of gamma^(k-1) r_{t+k}] under scripted conduct (a drifter's moves are random).  All variants of a
    scene are rolled out under the same random numbers; the horizon leaves less than 1e-4 of the weight.  V_pi of an
    agent with coupling kappa is the self's return plus kappa times the other's.
    """
    state, _ = instantiate(scenes, mover, cfg.world)
    x, k, n, t = scenes.items.shape[1:5]
    purpose = torch.tensor([cfg.world.purpose, 0.0 if mover == "drifter" else cfg.world.other_purpose])
    state = replace(state, purpose=purpose.expand_as(state.purpose))
    grid = torch.arange(len(state)).view(x * k, n, t)[:, :, -len(PHASES) :]
    out = torch.stack([_rollout(cfg, state.map(lambda f, at=at: f[at])) for at in grid.flatten(1)])
    return out.view(x, k, n, len(PHASES), -1)


def _rollout(cfg: config.Battery, start: State) -> Tensor:
    """Mean discounted return [B, M] of each body over cfg.rollouts simulated futures of each state."""
    g = world.generator(cfg.seed, "battery/truth")
    horizon = int(np.ceil(np.log(1e-4) / np.log(cfg.gamma)))
    state, total = start.map(lambda f: f.repeat_interleave(cfg.rollouts, 0)), 0.0
    for k in range(horizon):
        state = world.step(state, world.conduct(state, cfg.world, g), cfg.world, g)
        total = total + cfg.gamma**k * world.worth_of(state.contact, cfg.world)
    return total.view(len(start), cfg.rollouts, 2).mean(1)


# What agents predict: from scenes to codes, and from codes to tidy tables.

CodesOf = dict[tuple[str, float], Tensor]  # (mover, similarity) -> z [X, K, n, phases, D]


def conditions(levels: int) -> Iterator[tuple[str, float, Tensor | None]]:
    """(mover, similarity, angle) of every condition: those of one appearance, then others at each level of it."""
    for mover in (*SELVES, "nobody"):
        yield mover, 1.0, None
    for mover, s in (("left", 0.5), ("opposite", 0.0), ("stranger", 0.0)):
        yield mover, s, None
    for mover in OTHERS:
        for angle, s in zip(angles(levels), similarity(angles(levels)), strict=False):
            yield mover, s, angle


def stimuli(
    cfg: config.Battery, scenes: Scenes, seen: config.World, appearance: world.Appearance, contacts: int = len(CONTACTS)
) -> Iterator[tuple[str, float, Tensor, Tensor]]:
    """(mover, similarity, obs [X * K * n, T, F], prev_action [X * K * n, T]) of every condition, as a seed draws it."""
    for mover, s, angle in conditions(cfg.levels):
        angle = angle if angle is None else angle.to(scenes.pos.device)
        yield mover, s, *present(scenes, mover, angle, seen, appearance, contacts=contacts)


def encode(model: nn.Module, cfg: config.Battery, scenes: Scenes, data: config.Episodes) -> CodesOf:
    """Codes of every condition at approach, contact and after, as a seed's world model gives them."""
    appearance = world.appearance(data.world, data.seed, scenes.pos.device)
    shape, codes = (len(CONTACTS), len(data.world.ladder), cfg.scenes, len(PHASES)), {}
    for mover, s, obs, prev_action in stimuli(cfg, scenes, data.world, appearance):
        z = models.encode(model, obs, prev_action)
        codes[mover, s] = z[:, -len(PHASES) :].clone().view(*shape, -1)  # not a view of all frames
    return codes


@torch.no_grad()
def respond(heads: nn.Module, codes: CodesOf, ladder: tuple[float, ...]) -> pd.DataFrame:
    """The tidy table: readout, mover, similarity, valence, contact, phase -> mean over n_scenes."""
    return pd.concat([_rows(heads(z), mover, s, ladder) for (mover, s), z in codes.items()], ignore_index=True)


def _rows(
    out: Tensor, mover: str, s: float, ladder: tuple[float, ...], readouts: tuple[str, ...] = READOUTS
) -> pd.DataFrame:
    """out [X, K, n, phases, readouts] -> one row per contact, valence, phase and readout."""
    mean = out.mean(2).double().cpu().numpy()
    index = pd.MultiIndex.from_product(
        [CONTACTS, ladder, PHASES, readouts], names=["contact", "valence", "phase", "readout"]
    )
    frame = pd.DataFrame({"mean": mean.ravel(), "n_scenes": out.shape[2]}, index=index).reset_index()
    return frame.assign(mover=mover, similarity=s)


def truth(cfg: config.Battery, scenes: Scenes, gains: dict[str, Tensor], kappa: float = 0.0) -> pd.DataFrame:
    """The response table of an agent that knows the truth: r by the simulator's own reward, V = V_pi + kappa V_other.

    gains: mover -> [X, K, n, phases, M] from `true_returns`; those of nobody are made from the other's.
    """
    tables = []
    for mover, gain in gains.items():
        state, _ = instantiate(scenes, mover, cfg.world)
        reward = world.reward(state.contact, cfg.world, kappa, kappa).view(*gain.shape[:3], -1)[..., -len(PHASES) :]
        value = gain[..., 0] + kappa * gain[..., 1]
        tables.append(_rows(torch.stack([reward, value], -1), mover, 1.0, cfg.world.ladder))
    return pd.concat(tables, ignore_index=True)


def returns(cfg: config.Battery, gains: dict[str, Tensor]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables of what bodies really gain: responses with readouts `self` and `other`, and two measures per mover.

    gains: mover -> [X, K, n, phases, M] from `true_returns`.  self_effect and other_effect: the largest
    difference, over scenes and phases, that contact and valence make to the return of that body.
    """
    table, rows = [], []
    for mover, out in gains.items():
        table.append(_rows(out, mover, 1.0, cfg.world.ladder, ("self", "other")))
        spread = (out.amax((0, 1)) - out.amin((0, 1))).amax((0, 1))  # [M]
        rows += [(f"{body}_effect", mover, 1.0, float(x)) for body, x in zip(("self", "other"), spread, strict=True)]
    columns = ["measure", "mover", "similarity", "value"]
    return pd.concat(table, ignore_index=True), pd.DataFrame(rows, columns=columns)


@torch.no_grad()
def value_agreement(heads: nn.Module, codes: CodesOf, value: Tensor) -> float:
    """Correlation over quiet scenes (all contacts, valences, phases) of predicted V with V_pi [X, K, n, phases]."""
    predicted = heads(codes["quiet", 1.0])[..., READOUTS.index("value")]
    return float(np.corrcoef(predicted.flatten().double().cpu(), value.flatten().double())[0, 1])


@torch.no_grad()
def trace(
    model: nn.Module, heads: nn.Module, scenes: Scenes, mover: str, angle: Tensor | None, data: config.Episodes
) -> pd.DataFrame:
    """What the heads predict in every frame of events with the best item: mover, scene, frame, readout, prediction."""
    appearance = world.appearance(data.world, data.seed, scenes.pos.device)
    obs, prev_action = present(scenes, mover, angle, data.world, appearance, contacts=1)
    out = heads(models.encode(model, obs[-len(scenes) :], prev_action[-len(scenes) :]))  # [n, T, readouts]
    index = pd.MultiIndex.from_product([*map(range, out.shape[:2]), READOUTS], names=["scene", "frame", "readout"])
    return pd.DataFrame({"prediction": out.double().flatten().cpu()}, index=index).reset_index().assign(mover=mover)
