"""What agents answer to the battery: one tidy table of responses, and a few scene-level measures beside it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from . import config, metrics, models, stimuli, world
from .heads import READOUTS
from .stimuli import CONTACTS, PHASES

CHUNK = 1024  # sequences imagined at a time
Codes = dict[tuple[str, float], Tensor]  # (mover, similarity) -> z [X, K, n, phases, D]
Conducts = dict[tuple[stimuli.Mover, float], Tensor]  # the same, of event and twin, at approach and contact


def conditions(levels: int) -> Iterator[tuple[str, float, Tensor | None]]:
    """(mover, similarity, angle) of every condition: the self, then other and drifter at each level of looks."""
    yield "self", 1.0, None
    for mover in ("other", "drifter"):
        for angle, s in zip(stimuli.angles(levels), stimuli.similarity(stimuli.angles(levels)), strict=False):
            yield mover, s, angle


def presented(
    cfg: config.Battery, scenes: stimuli.Scenes, seen: config.World, look: world.Look, contacts: int = len(CONTACTS)
) -> Iterator[tuple[str, float, Tensor, Tensor]]:
    """(mover, similarity, obs [X * K * n, T, F], prev_action [X * K * n, T]) of every condition, as a seed draws it."""
    for mover, s, angle in conditions(cfg.levels):
        angle = angle if angle is None else angle.to(scenes.pos.device)
        yield mover, s, *stimuli.present(scenes, mover, angle, seen, look, contacts=contacts)


def encode(model: nn.Module, cfg: config.Battery, scenes: stimuli.Scenes, data: config.Episodes) -> Codes:
    """Codes of every condition at approach, contact and after, as a seed's world model gives them."""
    look = world.look(data.world, data.seed, scenes.pos.device)
    shape, codes = (len(CONTACTS), len(data.world.ladder), cfg.scenes, len(PHASES)), {}
    for mover, s, obs, prev_action in presented(cfg, scenes, data.world, look):
        z = models.encode(model, obs, prev_action)
        codes[mover, s] = z[:, -len(PHASES) :].clone().view(*shape, -1)  # not a view of all frames
    return codes


@torch.no_grad()
def respond(heads: nn.Module, codes: Codes, ladder: tuple[float, ...]) -> pd.DataFrame:
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

    value [X, K, n, phases]: the self's own part of `stimuli.true_returns`.
    """
    reward = torch.zeros_like(value)
    reward[CONTACTS.index("event"), :, :, PHASES.index("contact")] = torch.tensor(cfg.world.ladder)[:, None]
    return _rows(torch.stack([reward, value], -1), "self", 1.0, cfg.world.ladder)


def returns(cfg: config.Battery, gains: dict[str, Tensor]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables of what bodies really gain: responses with readouts `self` and `other`, and two measures per mover.

    gains: mover -> [X, K, n, phases, M] from `stimuli.true_returns`.  self_effect and other_effect: the largest
    difference, over scenes and phases, that contact and valence make to the return of that body.
    """
    table, rows = [], []
    for mover, out in gains.items():
        table.append(_rows(out, mover, 1.0, cfg.world.ladder, ("self", "other")))
        spread = (out.amax((0, 1)) - out.amin((0, 1))).amax((0, 1))  # [M]
        rows += [(f"{body}_effect", mover, 1.0, float(x)) for body, x in zip(("self", "other"), spread, strict=True)]
    columns = ["measure", "mover", "similarity", "value"]
    return pd.concat(table, ignore_index=True), pd.DataFrame(rows, columns=columns)


def scenes(heads: nn.Module, codes: Codes) -> Iterator[tuple[str, float, Tensor]]:
    """(mover, similarity, answers [X, K, n, phases, readouts]) of every condition, scene by scene."""
    with torch.no_grad():
        for (mover, s), z in codes.items():
            yield mover, s, heads(z).cpu()


def encode_conducts(
    model: nn.Module,
    cfg: config.Battery,
    movers: tuple[stimuli.Mover, ...],
    data: config.Episodes,
    device: str = "cpu",
) -> Conducts:
    """Codes of every mover at every look, each mover in scenes of its own; nothing is kept after contact."""
    look, codes = world.look(data.world, data.seed, device), {}
    shape = (len(CONTACTS) - 1, len(data.world.ladder), cfg.scenes, len(PHASES) - 1)
    for mover in movers:
        scenes = stimuli.make(cfg, (mover,)).to(device)
        for angle, s in zip(angles := stimuli.angles(cfg.levels), stimuli.similarity(angles), strict=True):
            shown = stimuli.present(scenes, 0, angle.to(device), data.world, look, contacts=shape[0])
            codes[mover, s] = models.encode(model, *shown)[:, -len(PHASES) : -1].clone().view(*shape, -1)
    return codes


@torch.no_grad()
def surface(heads: nn.Module, codes: Conducts, ladder: tuple[float, ...]) -> pd.DataFrame:
    """Slopes of the empathy contrast for others of every look, purpose and taste.

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
    model: nn.Module, heads: nn.Module, cfg: config.Battery, scenes: stimuli.Scenes, data: config.Episodes, gamma: float
) -> pd.DataFrame:
    """Slopes on valence of what is expected of a contact that is imagined: event less twin, approach last seen.

    Columns mover, similarity, readout (reward: r of the imagined frame; value: r + gamma V of it), slope (mean over
    scenes), sd, n_scenes.  The self's action is given to the model, the other's is not.
    """
    look, met, rows = world.look(data.world, data.seed, scenes.pos.device), CONTACTS[:2], []
    shape, kind = (len(met), len(data.world.ladder), cfg.scenes, 1), metrics.KINDS["reward"]["empathy"]
    seen = PHASES.index("contact") - len(PHASES)
    for mover, s, obs, action in presented(cfg, scenes, data.world, look, len(met)):
        parts = zip(obs.split(CHUNK), action.split(CHUNK), strict=True)
        z = torch.cat([model.imagine(o[:, :seen], a[:, :seen], a[:, seen : seen + 1]) for o, a in parts])
        reward, value = heads(z).view(*shape, len(READOUTS)).cpu().unbind(-1)
        for readout, out in (("reward", reward), ("value", reward + gamma * value)):
            slope = metrics.scene_slope(out, kind, data.world.ladder, met, ("contact",))
            rows.append((mover, s, readout, slope.mean(), slope.std(ddof=1), len(slope)))
    return pd.DataFrame(rows, columns=["mover", "similarity", "readout", "slope", "sd", "n_scenes"])


@torch.no_grad()
def value_agreement(heads: nn.Module, codes: Codes, value: Tensor) -> float:
    """Correlation over self scenes (all contacts, valences, phases) of predicted V with V_pi [X, K, n, phases]."""
    predicted = heads(codes["self", 1.0])[..., READOUTS.index("value")]
    return float(np.corrcoef(predicted.flatten().double().cpu(), value.flatten().double())[0, 1])


@torch.no_grad()
def trace(
    model: nn.Module,
    heads: nn.Module,
    cfg: config.Battery,
    scenes: stimuli.Scenes,
    mover: str,
    angle: Tensor | None,
    data: config.Episodes,
    contact: str = "event",
    rank: int = -1,
) -> pd.DataFrame:
    """What the heads say in every frame of one kind of scene: frame, readout, scene, prediction."""
    angle = angle if angle is None else angle.to(scenes.pos.device)
    look = world.look(data.world, data.seed, scenes.pos.device)
    obs, prev_action = stimuli.present(scenes, mover, angle, data.world, look)
    rows = torch.arange(len(obs)).view(len(CONTACTS), len(data.world.ladder), cfg.scenes)[CONTACTS.index(contact), rank]
    out = heads(models.encode(model, obs[rows], prev_action[rows]))  # [n, T, readouts]
    index = pd.MultiIndex.from_product(
        [range(out.shape[0]), range(out.shape[1]), READOUTS], names=["scene", "frame", "readout"]
    )
    return (
        pd.DataFrame({"prediction": out.double().flatten().cpu().numpy()}, index=index)
        .reset_index()
        .assign(mover=mover)
    )
