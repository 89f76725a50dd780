"""Chapter 05: whether a dose-response curve is smooth or jumps, agent by agent, and what of it goes through the latent
(P3, P4; DESIGN 5).

Shapes: n agents, L levels of the dose, in ascending order and the same for all agents.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from itertools import combinations, product
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
import scipy.stats
import torch
from pydantic import Field
from scipy.special import expit

from ... import battery as stimuli
from ... import config, metrics, models, world
from ...config import Stage
from ...heads import READOUTS
from ...metrics import MAIN
from ...pipeline import Workspace
from .. import studies
from ..plots import Line, draw, draw_similarity, over_similarity
from ..results import S_HIGH, Agents, Course, Results
from ..studies import ENCODERS, GRADED, INPUTS, RAISED, Parameters
from ..verdicts import SWEEP, rule
from .misgeneralisation import animacy

PATH = "whole"  # from the other's code to the self's
PATHS = {"whole": "the whole code", "axis": "the self-other axis", "random": "random axes, as far"}
STEPS = (1, 2)  # steps of the rivals
FEWEST = 4  # levels: with one left out, two steps need three
MIDPOINTS, SCALES = 41, 13  # of the logistic curves that are tried


class Continuity(Parameters):
    chapter: ClassVar[str] = "05-continuity"

    readout: Literal["reward", "value"] = Field("reward", description="head that the figures show")

    def agents(self) -> list[Stage]:
        usual = studies.reference(self.profile, self.seeds, company=None)
        beside = [r for r in studies.controls(self.profile, self.seeds) if _beside(r)]
        return list(dict.fromkeys([*usual, *beside, *studies.continuity(self.profile, self.seeds)]))


def _beside(run: Stage) -> bool:
    """Heads raised among some others only, and those on pixels."""
    return run.stage == "responses" and (run.heads.others != "all" or run.heads.model.family == INPUTS[0])


def logistic(x: np.ndarray, y: np.ndarray, at: float) -> np.ndarray:
    """Predictions [n] at one dose of the logistic curves, up or down, that fit y [n, L] on x [L] best.

    No steeper than a scale of one level: a steeper one would be a step.  The best of a grid of midpoints and scales,
    asymptotes by least squares.
    """
    gap, span = np.diff(x).min(), np.ptp(x)
    middle = np.linspace(x.min() - span / 2, x.max() + span / 2, MIDPOINTS)
    middle, scale = np.meshgrid(middle, np.geomspace(gap, span, SCALES))
    basis = lambda dose: expit((np.atleast_1d(dose)[:, None] - middle.ravel()) / scale.ravel())  # noqa: E731  [L, grid]
    shape, new = basis(x), basis(at)[0]
    centred, mean = shape - shape.mean(0), y.mean(1, keepdims=True)
    slope = (y - mean) @ centred / np.square(centred).sum(0)  # [n, grid]
    best = (np.square(slope) * np.square(centred).sum(0)).argmax(1)  # what it explains
    slope = np.take_along_axis(slope, best[:, None], 1)[:, 0]
    return mean[:, 0] + slope * (new - shape.mean(0))[best]


@lru_cache
def _cuts(doses: tuple[float, ...], at: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Every way to cut so many doses `count` times: what makes each part's mean [ways, parts, L], and how much of it is
    predicted at one dose [ways, parts]."""
    x, near = np.array(doses), 0.01 * np.diff(doses).min()  # doses are rounded
    cuts = np.array(list(combinations(range(1, len(x)), count)))
    part, parts = (np.arange(len(x)) >= cuts[..., None]).sum(1), np.arange(count + 1)[:, None]
    means = 1.0 * (part[:, None] == parts)
    edges = (x[cuts] + x[cuts - 1]) / 2
    sides = np.stack([(edges < at + shift).sum(1) for shift in (-near, near)], 1)
    return means / means.sum(2, keepdims=True), (sides[:, None] == parts).mean(2)


def steps(x: np.ndarray, y: np.ndarray, at: float, count: int) -> np.ndarray:
    """Predictions [n] at one dose of the step functions with `count` steps that fit y [n, L] on x [L] best.

    A step is half-way between two levels; where the dose is half-way too, the mean of both sides.
    """
    means, share = _cuts(tuple(x), float(at), count)
    mean = y.mean(1, keepdims=True)
    parts = np.einsum("wpl,nl->nwp", means, y - mean)
    best = (np.square(parts) / np.square(means).sum(2)).sum(2).argmax(1)  # what it explains
    return mean[:, 0] + (parts[np.arange(len(y)), best] * share[best]).sum(1)


def lead(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """By how much the smooth curve predicts each level [n, L] that it was not fitted to better than the best step:
    above 0 a slope, below 0 a jump.

    Squared errors of the logistic curve against those of one step or of two, whichever is the better for the agent over
    all levels, over the variance of its curve.  NaN where a curve has no variance or too few levels.
    """
    if len(x) < FEWEST:
        return np.full(y.shape, np.nan)
    rivals = {"smooth": logistic} | {k: partial(steps, count=k) for k in STEPS}
    others = [np.arange(len(x)) != i for i in range(len(x))]
    miss = lambda f, o: (f(x[o], y[:, o], at=x[~o][0]) - y[:, ~o][:, 0]) ** 2  # noqa: E731
    error = {name: np.stack([miss(f, o) for o in others], 1) for name, f in rivals.items()}
    one, two = (error[k] for k in STEPS)
    step = np.where(one.mean(1, keepdims=True) <= two.mean(1, keepdims=True), one, two)
    return (step - error["smooth"]) / np.where(np.ptp(y, axis=1) > 0, y.var(1), np.nan)[:, None]


def shape(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Each agent's shape [n]: 1 where the smooth curve beats the best step by more than 2 standard errors over levels,
    -1 where the step beats it so, else 0; NaN where there is no curve."""
    found = lead(x, y)
    error = found.std(1, ddof=1) / np.sqrt(found.shape[1])
    z = found.mean(1) / np.where(error > 0, error, np.nan)
    return np.where(np.isfinite(z), 1.0 * (z > 2) - 1.0 * (z < -2), np.nan)


def jump(y: np.ndarray) -> np.ndarray:
    """Largest difference between adjacent levels [n] of y [n, L]."""
    return np.abs(np.diff(y)).max(1, initial=0.0)


def jump_ratio(y: np.ndarray) -> np.ndarray:
    """The largest jump over that of every second level [n], both over the same range: 1/2 of a straight line, 1 of a
    step.  An even number of levels leaves the last one out."""
    y = y[:, : y.shape[1] - (y.shape[1] + 1) % 2]
    coarse = jump(y[:, ::2])
    return jump(y) / np.where(coarse > 0, coarse, np.nan)


def _rank_correlation(x: np.ndarray) -> np.ndarray:
    """Mean over agents [...] of the rank correlation of x [..., n, levels] with the order of the levels."""
    levels = x.shape[-1]
    ranks = scipy.stats.rankdata(x, axis=-1) - (levels + 1) / 2
    order = np.arange(levels) - (levels - 1) / 2
    each = ranks @ order / (np.linalg.norm(ranks, axis=-1).clip(1e-12) * np.linalg.norm(order))
    return each.mean(-1)


def curve(e: Results, seeds: list[int], head: str, family: str) -> np.ndarray:
    return e.curve(head, seeds, family)[1]


def rise(e: Results, seeds: list[int], head: str, family: str) -> np.ndarray:
    """rho(.9) - rho(0) [n]."""
    return e.rho(head, seeds, family, s=S_HIGH) - e.rho(head, seeds, family, s=0.0)


def patch_contrast(e: Results, seeds: list[int], head: str, family: str) -> np.ndarray:
    """rho with the code patched all the way along the self-other axis, beyond as far along random axes [n]."""
    patched, random = (e.moved(head, seeds, path, family)[1][:, -1] for path in ("axis", "random"))
    return patched - random


def _animacy_among(others: str) -> Callable:
    return lambda e, seeds, head, family: e.animacy(head, seeds, family, others=others)


def _course(way: str, e: Results, seeds: list[int], head: str, family: str, p: str) -> tuple[np.ndarray, np.ndarray]:
    """Dose [L] and coefficients [n, L] at twice the levels, over appearance or along the path between codes."""
    if way == "appearance":
        return e.curve(head, seeds, family, "fine", company=float(p))
    return e.moved(head, seeds, PATH, family, company=float(p))


def _share(way: str, sign: int) -> Callable:
    def values(e: Results, seeds: list[int], **what) -> np.ndarray:
        found = shape(*_course(way, e, seeds, **what))
        return np.where(np.isfinite(found), 1.0 * (found == sign), np.nan)

    return values


def _ratio(way: str) -> Callable:
    return lambda e, seeds, **what: jump_ratio(_course(way, e, seeds, **what)[1])


def _in_company(e: Results, head: str, family: str, p: str) -> Agents:
    return e.split_by_gate(head, family, company=float(p))


_shapes = [f for way in ("appearance", "code") for f in (_share(way, 1), _share(way, -1), _ratio(way))]
ROWS = [
    *rule("P3", rise, (curve, _rank_correlation), patch_contrast),
    *rule("P3/conduct", animacy, *(_animacy_among(others) for others in RAISED)),
    *(
        row if row.id.startswith("P4/p0/") else replace(row, planned=SWEEP)
        for row in rule("P4", *_shapes, agents=_in_company)
    ),
]


@torch.no_grad()
def scene_curves(lab: Workspace, head: config.Heads, battery: config.Battery, readout: str, count: int = 64) -> Course:
    """Dose [L] and the slope [n, L] of `count` single scenes of one agent at twice the battery's levels, averaged over
    nothing: what is smooth on average may jump in every scene, each at a likeness of its own."""
    data, kind = head.model.data, metrics.KINDS[readout][MAIN[readout]]
    part, look = next(lab.scenes(battery)[0].split(count)), world.appearance(data.world, data.seed)
    angles, contacts, found = stimuli.angles(studies.FINE).flip(0)[:-1], stimuli.CONTACTS[:2], []
    for angle in angles:
        obs, prev_action = stimuli.present(part, "other", angle, data.world, look, contacts=len(contacts))
        z = models.encode(lab.model(head.model), obs, prev_action)[:, -len(stimuli.PHASES) :]
        out = lab.heads(head)(z)[..., READOUTS.index(readout)]
        out = out.view(len(contacts), len(data.world.ladder), len(part), -1).double().numpy()
        found.append(metrics.scene_slope(out, kind, data.world.ladder, contacts, stimuli.PHASES))
    return 90 - np.degrees(angles.double().numpy()), np.stack(found, 1)


def spectrum(results: Results, readout: str, mark: float) -> pd.DataFrame:
    """rho against similarity at twice the levels: every agent a thin line, a panel for each encoder and company."""
    lines = []
    for family, p in product(ENCODERS, GRADED):
        t = results.agents("fine", family, readout=readout, kind=MAIN[readout], mover="other", company=p)
        lines.append(over_similarity(t, series="other", panel=f"{family}, p = {p:g}", agents=True))
    return draw_similarity(lines, mark, columns=len(GRADED), size=(3.2, 2.9), small=True, sharex=True)


def moved_along(results: Results, readout: str, seeds: dict[str, list[int]]) -> pd.DataFrame:
    """rho while the other's code goes to the self's, a panel for each encoder; seeds: of each."""
    lines = []
    for family, (path, name) in product(ENCODERS, PATHS.items()):
        lines.append(Line(name, *results.moved(readout, seeds[family], path, family), family))
    axis = lambda ax: ax.set_xlabel("share of the way to the self's code")  # noqa: E731
    return draw(lines, "share", axis=axis, columns=2, size=(4.2, 3.4), label=f"rho, {readout} head")


def by_company(results: Results, readout: str, s: float) -> pd.DataFrame:
    """rho against company p, others and drifters, a panel for each encoder."""
    lines = []
    for family, mover in product(ENCODERS, ("other", "drifter")):
        t = results.pick("coefficients", family=family, readout=readout, kind=MAIN[readout], mover=mover)
        levels = np.sort(t.company.unique())
        seeds = sorted(t[np.isclose(t.company, levels.max())].seed.unique())
        y = [results.rho(readout, seeds, family, s, mover=mover, company=p) for p in levels]
        lines.append(Line(mover, levels, np.stack(y, 1), family))
    axis = lambda ax: (ax.set_xscale("symlog", linthresh=0.01), ax.set_xlabel("company p"))  # noqa: E731
    return draw(lines, "company", axis=axis, columns=2, size=(4.2, 3.2))
