"""Whether a dose-response curve is smooth or jumps, agent by agent, and what of it goes through the latent (DESIGN 5).

Shapes: n agents, L levels of the dose, in ascending order and the same for all agents.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.special import expit

from . import metrics
from .evidence import S_HIGH, Evidence

STEPS = (1, 2)  # steps of the rivals
FEWEST = 4  # levels: with one left out, two steps need three
MIDPOINTS, SCALES = 41, 13  # of the logistic curves that are tried


def logistic(x: np.ndarray, y: np.ndarray, at: float) -> np.ndarray:
    """Predictions [n] at one dose of the logistic curves, up or down, that fit y [n, L] on x [L] best.

    No steeper than a scale of one level: a steeper one would be a step.  The best of a grid of midpoints and scales,
    asymptotes by least squares.
    """
    gap, span = np.diff(x).min(), np.ptp(x)
    middle, scale = np.meshgrid(
        np.linspace(x.min() - span / 2, x.max() + span / 2, MIDPOINTS), np.geomspace(gap, span, SCALES)
    )
    basis = lambda dose: expit((np.atleast_1d(dose)[:, None] - middle.ravel()) / scale.ravel())  # noqa: E731  [L, grid]
    shape, new = basis(x), basis(at)[0]
    centred, mean = shape - shape.mean(0), y.mean(1, keepdims=True)
    slope = (y - mean) @ centred / np.square(centred).sum(0)  # [n, grid]
    best = (np.square(slope) * np.square(centred).sum(0)).argmax(1)  # what it explains
    slope = np.take_along_axis(slope, best[:, None], 1)[:, 0]
    return mean[:, 0] + slope * (new - shape.mean(0))[best]


def steps(x: np.ndarray, y: np.ndarray, at: float, count: int) -> np.ndarray:
    """Predictions [n] at one dose of the step functions with `count` steps that fit y [n, L] on x [L] best.

    A step is half-way between two levels; where the dose is half-way too, the mean of both sides.
    """
    errors, fitted, near = [], [], 0.01 * np.diff(x).min()  # doses are rounded
    for cuts in combinations(range(1, len(x)), count):
        parts = np.split(y, cuts, axis=1)
        errors.append(sum(np.square(part - part.mean(1, keepdims=True)).sum(1) for part in parts))
        edges = (x[list(cuts)] + x[np.subtract(cuts, 1)]) / 2
        sides = np.searchsorted(edges, [at - near, at + near])
        fitted.append(np.mean([parts[side].mean(1) for side in sides], axis=0))
    best = np.argmin(errors, axis=0)
    return np.take_along_axis(np.array(fitted), best[None], 0)[0]


def left_out(x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Mean squared error [n] of predicting each level by curves fitted to the others, over the variance of the levels.

    x [L], y [n, L].  Keys: `smooth`, the logistic curve, and `step`, the better of one step and of two.  NaN where a
    curve has no variance, and for all where there are fewer than `FEWEST` levels.
    """
    if len(x) < FEWEST:
        return dict.fromkeys(("smooth", "step"), np.full(len(y), np.nan))
    rivals = {"smooth": logistic} | {k: partial(steps, count=k) for k in STEPS}
    others = [np.arange(len(x)) != i for i in range(len(x))]
    error = {
        name: np.mean([(f(x[o], y[:, o], at=x[~o][0]) - y[:, ~o][:, 0]) ** 2 for o in others], axis=0)
        for name, f in rivals.items()
    }
    scale = np.where(np.ptp(y, axis=1) > 0, y.var(1), np.nan)
    return {"smooth": error["smooth"] / scale, "step": np.minimum(*(error[k] for k in STEPS)) / scale}


def lead(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """By how much [n] the smooth curve predicts better than the best step: above 0 a slope, below 0 a jump."""
    error = left_out(x, y)
    return error["step"] - error["smooth"]


def jump(y: np.ndarray) -> np.ndarray:
    """Largest difference between adjacent levels, as a share of the range of the curve, [n] of y [n, L]."""
    span = np.ptp(y, axis=1)
    return np.abs(np.diff(y)).max(1, initial=0.0) / np.where(span > 0, span, np.nan)


def roughness(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Root mean square [n] of what the smooth curve misses at levels left out, as a share of the curve's range.

    Noise and what the curve's form cannot follow, together: an upper bound on either.
    """
    span = np.ptp(y, axis=1)
    return np.sqrt(left_out(x, y)["smooth"] * y.var(1)) / np.where(span > 0, span, np.nan)


def confused_from(e: Evidence) -> float | None:
    """The lowest look from which on self and other are confused, mean who-moved AUC below the gate's; None if none."""
    t = e.measures[(e.measures.measure == "auc") & (e.measures.mover == "other") & (e.measures.family == "recurrent")]
    auc = t.groupby("similarity")["value"].mean()
    decodable = auc.index[auc >= metrics.IDENTITY]
    above = auc.index[auc.index > decodable.max()] if len(decodable) else auc.index
    return float(above.min()) if len(above) else None


def scores(e: Evidence, readout: str, families: Sequence[str]) -> pd.DataFrame:
    """Shape of every agent's curves: columns seed, of (family), curve, lead, jump, roughness.

    Controls bypass the gate; who has no curve is left out.  curve: `looks`, or a way through the latent from the
    other's code to the self's.
    """
    parts = []
    for family in families:
        passed, failed = e.agents(readout, family)
        seeds = passed if family == "recurrent" else sorted([*passed, *failed])
        for curve in ("looks", "whole", "axis"):
            x, y = e.curve(readout, seeds, family) if curve == "looks" else e.moved(readout, seeds, curve, family)
            found = {"lead": lead(x, y), "jump": jump(y), "roughness": roughness(x, y)}
            parts.append(pd.DataFrame({"seed": seeds, "of": family, "curve": curve, **found}))
    return pd.concat(parts, ignore_index=True).dropna(subset="lead")


def mediation(e: Evidence, readout: str, seeds: list[int]) -> dict[str, np.ndarray]:
    """What the self-other axis does to empathy, per agent [n].

    patched, random, better, shifted: the share of the way from rho to the self's own, at e.s, that a patch all along
    the axis goes, one as far along random axes, one along each random axis in its better direction, and one that brings
    nothing about the item along.  intact, erased, centred, erased at random: rho(.9) - rho(0) with the code as it is,
    without what tells self from other linearly, with the axis at its mean, and random ones.
    """
    own, start = e.rho(readout, seeds, mover="self", s=1.0), e.rho(readout, seeds)
    end = lambda path, s=None: e.moved(readout, seeds, path, s=s)[1][:, -1]  # noqa: E731
    ways = {"patched": "axis", "random": "random", "better": "random, better way", "shifted": "shift"}
    shares = {name: (end(path) - start) / (own - start) for name, path in ways.items()}
    rises = {path: end(path, S_HIGH) - end(path, 0.0) for path in ("erased", "centred", "erased at random")}
    return shares | {"intact": e.rho(readout, seeds, s=S_HIGH) - e.rho(readout, seeds, s=0.0)} | rises


def places(e: Evidence, readout: str, seeds: list[int]) -> pd.DataFrame:
    """Mean places of other and self on the self-other axis and mean rho, by look: similarity, place, self, rho."""
    m = e.measures[(e.measures.measure == f"position_{readout}") & (e.measures.family == "recurrent")]
    t = e.at(e.coefficients, readout, "recurrent")
    t = t[(t.kind == "empathy") & (t.mover == "other")]
    mean = lambda some, value: some[some.seed.isin(seeds)].groupby("similarity")[value].mean()  # noqa: E731
    found = {"place": m[m.mover == "other"], "self": m[m.mover == "self"]}
    return pd.DataFrame({k: mean(v, "value") for k, v in found.items()} | {"rho": mean(t, "rho")}).reset_index()


def reached(e: Evidence, places: pd.DataFrame, alpha: np.ndarray) -> np.ndarray:
    """Place on the self-other axis that a patch by each alpha [A] reaches at e.s; places: of this name."""
    if places.empty:
        return np.full(len(alpha), np.nan)
    start, end = (metrics.at_similarity(places.assign(path=k), e.s, k)[k].iloc[0] for k in ("place", "self"))
    return start + alpha * (end - start)
