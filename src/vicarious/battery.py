"""The stimulus battery: matched scenes that differ only in who moves, what the item is worth, and whether it is met;
and what agents predict in them.

A scene is six frames of ordinary conduct, then a scripted event: `approach` (the item appears), `contact` (the mover
steps), `after`.  Templates are made in *role space* (role 0 = mover) and in ranks of the ladder, so that the same
template serves every seed and, with roles swapped, self and other alike.  A `twin` is the matched control of an event:
the same move onto an empty cell, the item as far as possible; in an `averted` scene (an omission) the item vanishes.
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

from . import config, metrics, models, world
from .heads import READOUTS
from .world import State

CONTACTS = ("event", "twin", "averted")
PHASES = ("approach", "contact", "after")
MOVERS = ("self", "other", "drifter")
CANDIDATES = 12  # contexts drawn per scene kept: about one in five leaves the room that a matched set needs
PURPOSES = (0.0, 0.9)  # of the movers of `conducts`, from a drifter to the most purposeful other


@dataclass(frozen=True)
class Mover:
    """Who moves in a scene, with what purpose, and by what taste."""

    body: str
    purpose: float
    taste: str


def usual(cfg: config.World) -> tuple[Mover, ...]:
    """The battery's own movers, in the order of `MOVERS`."""
    purpose = {"self": cfg.purpose, "other": cfg.purpose, "drifter": 0.0}
    return tuple(Mover(body, purpose[body], cfg.taste) for body in MOVERS)


def conducts(levels: int, tastes: tuple[str, ...]) -> tuple[Mover, ...]:
    """Others of every taste at `levels` of purpose, taste by taste.

    Each is to have scenes of its own: contexts that have room whatever the conduct are those that hardly show it.
    """
    return tuple(Mover("other", float(p), taste) for taste in tastes for p in np.linspace(*PURPOSES, levels).round(4))


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
def make(cfg: config.Battery, movers: tuple[Mover, ...] = ()) -> Scenes:
    """Draw templates: the same first state and random numbers for every mover, kept only if every variant has room.

    movers: the `usual` ones by default.  Raises ValueError if too few contexts fit.
    """
    count = cfg.scenes * CANDIDATES
    first = _first(cfg, count)
    runs = [_context(cfg, first, mover) for mover in movers or usual(cfg.world)]
    good = torch.stack([run["good"] for run in runs]).all(0).nonzero().squeeze(1)
    if len(good) < cfg.scenes:
        raise ValueError(f"only {len(good)} of {count} contexts fit this world, {cfg.scenes} wanted: lower max_items")
    keep = good[: cfg.scenes]
    script = [_script(cfg, {k: v[keep].long() for k, v in run.items()}) for run in runs]
    pos, actions, items = (torch.stack(parts) for parts in zip(*script, strict=False))
    return Scenes(pos, actions, items, first.side[keep].to(torch.int8), first.angle[keep])


def _first(cfg: config.Battery, count: int) -> State:
    everywhere = cfg.world.model_copy(update={"eventful": 1.0, "drifters": 0.0})
    return world.reset(everywhere, count, world.generator(cfg.seed, "battery/first"))


def _context(cfg: config.Battery, state: State, mover: Mover) -> dict[str, Tensor]:
    """Ordinary frames up to the approach, in role space: pos, actions [B, T, M], items [B, T, M, N], good [B]."""
    g = world.generator(cfg.seed, "battery/context")
    worth = world.values(cfg.world.model_copy(update={"taste": mover.taste}))
    worth = worth if mover.body == "self" else worth.flip(0)
    purpose = torch.tensor([mover.purpose, cfg.world.purpose])
    state = replace(state, purpose=purpose.expand(len(state), 2))
    frames = [_small(state.pos, torch.full_like(state.pos, -1), state.items)]
    for t in range(cfg.context):
        actions = world.conduct(state, cfg.world, g, worth)
        still = cfg.world if t < cfg.context - 1 else cfg.world.model_copy(update={"respawn": 0.0})
        state = world.step(state, actions, still, g)
        frames.append(_small(state.pos, actions, state.items))
    pos, actions, items = (torch.stack(parts, 1) for parts in zip(*frames, strict=False))
    room = (state.items[:, 0] > 0).sum(1) < cfg.world.max_items
    open_moves = _open_moves(cfg, state.pos, state.items).any(2).all(1)
    far = _far_cell(cfg, state.pos[:, 0], state.items[:, 0])[1] >= 2
    return {
        "pos": pos,
        "actions": actions,
        "items": items,
        "good": room & open_moves & far & (state.contact == 0).all(1),
    }


def _small(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Cells, actions and ranks in one byte each: eight thousand scenes are large in any other type."""
    return tuple(tensor.to(torch.int8) for tensor in tensors)


def _open_moves(cfg: config.Battery, pos: Tensor, items: Tensor) -> Tensor:
    """Which actions [B, M, A] lead to another cell that holds nothing."""
    after, _ = world.geometry(cfg.world.size, pos.device)
    reached = after[pos]
    return (reached != pos.unsqueeze(2)) & (items.gather(2, reached) == 0)


def _far_cell(cfg: config.Battery, pos: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """The empty cell [B] farthest from pos [B], and its distance [B] in cells."""
    _, apart = world.geometry(cfg.world.size, pos.device)
    distance = torch.where(items > 0, -1, apart[pos])
    return distance.argmax(1), distance.max(1).values


def _choose(allowed: Tensor, g: torch.Generator) -> Tensor:
    """A random allowed action [B, M] from allowed [B, M, A]."""
    return (torch.rand(allowed.shape, generator=g) * allowed + allowed).argmax(2)


def _script(cfg: config.Battery, run: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Append contact and after, and lay the item: pos, actions [n, T, M]; items [X, K, n, T, M, N]."""
    after, _ = world.geometry(cfg.world.size, run["pos"].device)
    g = world.generator(cfg.seed, "battery/script")
    here, lying = run["pos"][:, -1], run["items"][:, -1]
    step = _choose(_open_moves(cfg, here, lying), g)
    there = after[here].gather(2, step.unsqueeze(2)).squeeze(2)
    target, n = there[:, 0], torch.arange(len(here))
    taken = lying.clone()
    taken[n, 0, target] = 1
    far, _ = _far_cell(cfg, here[:, 0], taken[:, 0])
    taken[n, 0, far] = 1
    leave = _choose(_open_moves(cfg, there, taken), g)
    gone = after[there].gather(2, leave.unsqueeze(2)).squeeze(2)
    pos = torch.cat([run["pos"], there[:, None], gone[:, None]], 1)
    actions = torch.cat([run["actions"], step[:, None], leave[:, None]], 1)
    kinds = len(cfg.world.ladder)
    items = torch.cat([run["items"], lying[:, None], lying[:, None]], 1).expand(3, kinds, -1, -1, -1, -1).clone()
    rank = torch.arange(1, kinds + 1)[:, None]
    a, c, e = cfg.context, cfg.context + 1, cfg.context + 2  # approach, contact, after
    items[0, :, n, a, 0, target] = rank
    items[0, :, n, c, 0, target] = rank
    items[1, :, n, a, 0, far] = rank
    items[1, :, n, c, 0, far] = rank
    items[1, :, n, e, 0, far] = rank
    items[2, :, n, a, 0, target] = rank
    return _small(pos, actions, items)


def instantiate(
    scenes: Scenes, mover: str | int, angle: Tensor | None = None, contacts: int = len(CONTACTS)
) -> tuple[State, Tensor]:
    """Body-space states and the self's previous actions of one mover's scenes, batched [X * K * n * T].

    mover: one of `MOVERS`, or the place of an other among the movers given to `make`.  angle [] in radians is the
    other's appearance; None keeps each scene's own.  Only the first `contacts` of CONTACTS are laid out.  Previous
    actions are [X * K * n, T] in the convention of `Batch.prev_action`.
    """
    kind = mover if isinstance(mover, int) else MOVERS.index(mover)
    items = scenes.items[kind][:contacts].long()
    x, k, n, t, m, cells = items.shape
    pos = scenes.pos[kind].long().expand(x, k, n, t, m)
    actions = scenes.actions[kind].long().expand(x, k, n, t, m)
    side = scenes.side.long()[:, None].expand(x, k, n, t)
    turned = (scenes.angle if angle is None else angle.expand(n))[:, None].expand(x, k, n, t)
    if mover != "self":  # the mover is body 1: swap roles, and the self's chamber is the other one
        items, pos, actions, side = items.flip(-2), pos.flip(-1), actions.flip(-1), 1 - side
    items, pos, actions = items.reshape(-1, m, cells), pos.reshape(-1, m), actions.reshape(-1, t, m)
    contact = items.gather(2, pos.unsqueeze(2)).squeeze(2)
    state = State(
        side=side.reshape(-1),
        pos=pos,
        items=items,
        contact=contact,
        angle=turned.reshape(-1),
        purpose=torch.zeros_like(pos, dtype=torch.float),
        eventful=torch.ones(len(pos), dtype=torch.bool, device=pos.device),
    )
    return state, actions[..., 0] + 1


def present(
    scenes: Scenes,
    mover: str | int,
    angle: Tensor | None,
    cfg: config.World,
    appearance: world.Appearance,
    noise: torch.Generator | None = None,
    contacts: int = len(CONTACTS),
) -> tuple[Tensor, Tensor]:
    """The stimuli as a seed's agent sees them: obs [X * K * n, T, F] and prev_action [X * K * n, T], on their device.

    Both bodies are drawn, whether or not the agent ever met an other.

    noise: generator of pixel noise, by default one that gives the same scenes the same noise.
    """
    state, prev_action = instantiate(scenes, mover, angle, contacts)
    noise = noise or world.generator(0, f"battery/noise/{mover}", scenes.pos.device)
    obs = world.observe(state, cfg.model_copy(update={"solitary": False}), appearance, noise).flatten(1)
    return obs.view(*prev_action.shape, -1), prev_action


def true_returns(cfg: config.Battery, scenes: Scenes, mover: str = "self") -> Tensor:
    """What each body gains [X, K, n, phases, M] by its own taste, by Monte-Carlo rollouts, in discounted reward.

    E[sum over k >= 1 of gamma^(k-1) r_{t+k}] under scripted conduct (a drifter's moves are random).  All variants of a
    scene are rolled out under the same random numbers; the horizon leaves less than 1e-4 of the weight.  V_pi of an
    agent with coupling kappa is the self's return plus kappa times the other's.
    """
    state, _ = instantiate(scenes, mover)
    x, k, n, t = (*scenes.items.shape[1:4], scenes.items.shape[4])
    purpose = torch.full_like(state.purpose, cfg.world.purpose)
    purpose[:, 1] *= mover != "drifter"
    state = replace(state, purpose=purpose)
    grid = torch.arange(len(state)).view(x * k, n, t)[:, :, -len(PHASES) :]
    out = torch.stack([_rollout(cfg, state.map(lambda f, at=at: f[at])) for at in grid.flatten(1)])
    return out.view(x, k, n, len(PHASES), -1)


def _rollout(cfg: config.Battery, start: State) -> Tensor:
    """Mean discounted return [B, M] of each body over cfg.rollouts simulated futures of each state."""
    g = world.generator(cfg.seed, "battery/truth")
    horizon = int(np.ceil(np.log(1e-4) / np.log(cfg.gamma)))
    state, total = start.map(lambda f: f.repeat_interleave(cfg.rollouts, 0)), 0.0
    own, other = world.values(cfg.world)
    for k in range(horizon):
        state = world.step(state, world.conduct(state, cfg.world, g), cfg.world, g)
        total = total + cfg.gamma**k * torch.stack([own[state.contact[:, 0]], other[state.contact[:, 1]]])
    return total.view(2, len(start), cfg.rollouts).mean(2).T


# What agents predict: from scenes to codes, and from codes to tidy tables.

CHUNK = 1024  # sequences imagined at a time

CodesOf = dict[tuple[str, float], Tensor]  # (mover, similarity) -> z [X, K, n, phases, D]
Conducts = dict[tuple[Mover, float], Tensor]  # the same, of event and twin, at approach and contact


def conditions(levels: int) -> Iterator[tuple[str, float, Tensor | None]]:
    """(mover, similarity, angle) of every condition: the self, then other and drifter at each level of similarity."""
    yield "self", 1.0, None
    for mover in ("other", "drifter"):
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
    """The tidy table: readout, mover, similarity, valence, contact, phase -> mean and sd over n_scenes."""
    return pd.concat([_rows(heads(z), mover, s, ladder) for (mover, s), z in codes.items()], ignore_index=True)


def _rows(
    out: Tensor, mover: str, s: float, ladder: tuple[float, ...], readouts: tuple[str, ...] = READOUTS
) -> pd.DataFrame:
    """out [X, K, n, phases, readouts] -> one row per contact, valence, phase and readout."""
    mean, sd = out.mean(2).double().cpu().numpy(), out.std(2).double().cpu().numpy()
    index = pd.MultiIndex.from_product(
        [CONTACTS, ladder, PHASES, readouts], names=["contact", "valence", "phase", "readout"]
    )
    frame = pd.DataFrame({"mean": mean.ravel(), "sd": sd.ravel(), "n_scenes": out.shape[2]}, index=index).reset_index()
    return frame.assign(mover=mover, similarity=s)


def truth(cfg: config.Battery, value: Tensor) -> pd.DataFrame:
    """The response table of an agent that knows the truth (kappa = 0), self scenes: r exactly, V = V_pi.

    value [X, K, n, phases]: the self's own part of `true_returns`.
    """
    reward = torch.zeros_like(value)
    reward[CONTACTS.index("event"), :, :, PHASES.index("contact")] = torch.tensor(cfg.world.ladder)[:, None]
    return _rows(torch.stack([reward, value], -1), "self", 1.0, cfg.world.ladder)


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


def predictions(heads: nn.Module, codes: CodesOf) -> Iterator[tuple[str, float, Tensor]]:
    """(mover, similarity, predictions [X, K, n, phases, readouts]) of every condition, scene by scene."""
    with torch.no_grad():
        for (mover, s), z in codes.items():
            yield mover, s, heads(z).cpu()


def encode_conducts(
    model: nn.Module, cfg: config.Battery, movers: tuple[Mover, ...], data: config.Episodes, device: str = "cpu"
) -> Conducts:
    """Codes of every mover at every appearance, each mover in scenes of its own; nothing is kept after contact."""
    appearance, codes = world.appearance(data.world, data.seed, device), {}
    shape = (len(CONTACTS) - 1, len(data.world.ladder), cfg.scenes, len(PHASES) - 1)
    for mover in movers:
        scenes = make(cfg, (mover,)).to(device)
        for angle, s in zip(turns := angles(cfg.levels), similarity(turns), strict=True):
            shown = present(scenes, 0, angle.to(device), data.world, appearance, contacts=shape[0])
            codes[mover, s] = models.encode(model, *shown)[:, -len(PHASES) : -1].clone().view(*shape, -1)
    return codes


@torch.no_grad()
def surface(heads: nn.Module, codes: Conducts, ladder: tuple[float, ...]) -> pd.DataFrame:
    """Slopes of the empathy contrast for others of every appearance, purpose and taste.

    Columns taste, purpose, similarity, readout, slope (mean over scenes), sd, n_scenes.
    """
    rows = []
    for (mover, s), z in codes.items():
        out = heads(z).cpu()
        for r, readout in enumerate(READOUTS):
            slope = metrics.scene_slope(out[..., r], metrics.KINDS[readout]["empathy"], ladder, CONTACTS, PHASES)
            rows.append((mover.taste, mover.purpose, s, readout, slope.mean(), slope.std(ddof=1), len(slope)))
    return pd.DataFrame(rows, columns=["taste", "purpose", "similarity", "readout", "slope", "sd", "n_scenes"])


@torch.no_grad()
def imagined(
    model: nn.Module, heads: nn.Module, cfg: config.Battery, scenes: Scenes, data: config.Episodes, gamma: float
) -> pd.DataFrame:
    """Slopes on valence of what is expected of a contact that is imagined: event less twin, approach last seen.

    Columns mover, similarity, readout (reward: r of the imagined frame; value: r + gamma V of it), slope (mean over
    scenes), sd, n_scenes.  The self's action is given to the model, the other's is not.
    """
    appearance, met, rows = world.appearance(data.world, data.seed, scenes.pos.device), CONTACTS[:2], []
    shape, kind = (len(met), len(data.world.ladder), cfg.scenes, 1), metrics.KINDS["reward"]["empathy"]
    seen = PHASES.index("contact") - len(PHASES)
    for mover, s, obs, action in stimuli(cfg, scenes, data.world, appearance, len(met)):
        parts = zip(obs.split(CHUNK), action.split(CHUNK), strict=True)
        z = torch.cat([model.imagine(o[:, :seen], a[:, :seen], a[:, seen : seen + 1]) for o, a in parts])
        reward, value = heads(z).view(*shape, len(READOUTS)).cpu().unbind(-1)
        for readout, out in (("reward", reward), ("value", reward + gamma * value)):
            slope = metrics.scene_slope(out, kind, data.world.ladder, met, ("contact",))
            rows.append((mover, s, readout, slope.mean(), slope.std(ddof=1), len(slope)))
    return pd.DataFrame(rows, columns=["mover", "similarity", "readout", "slope", "sd", "n_scenes"])


@torch.no_grad()
def value_agreement(heads: nn.Module, codes: CodesOf, value: Tensor) -> float:
    """Correlation over self scenes (all contacts, valences, phases) of predicted V with V_pi [X, K, n, phases]."""
    predicted = heads(codes["self", 1.0])[..., READOUTS.index("value")]
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
