"""Whether a dose-response curve is smooth or jumps, agent by agent (DESIGN 5, P4).

Shapes: n agents, L levels of the dose, in ascending order and the same for all agents.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from scipy.special import expit

STEPS = (1, 2)  # steps of the rivals
MIDPOINTS, SCALES = 41, 13  # of the logistic curves that are tried


def logistic(x: np.ndarray, y: np.ndarray, at: float) -> float:
    """Prediction at one dose of the logistic curve, up or down, that fits y [L] on x [L] best.

    No steeper than a scale of one level: a steeper one would be a step.  The best of a grid of midpoints and scales,
    asymptotes by least squares.
    """
    gap, span = np.diff(x).min(), np.ptp(x)
    middle, scale = np.meshgrid(
        np.linspace(x.min() - span / 2, x.max() + span / 2, MIDPOINTS), np.geomspace(gap, span, SCALES)
    )
    basis = lambda dose: expit((np.atleast_1d(dose)[:, None] - middle.ravel()) / scale.ravel())  # noqa: E731  [L, grid]
    shape, new = basis(x), basis(at)[0]
    centred, dy = shape - shape.mean(0), y - y.mean()
    slope = dy @ centred / np.square(centred).sum(0)
    best = np.square(dy[:, None] - slope * centred).sum(0).argmin()
    return float(y.mean() + slope[best] * (new[best] - shape[:, best].mean()))


def steps(x: np.ndarray, y: np.ndarray, at: float, count: int) -> float:
    """Prediction at one dose of the step function with `count` steps that fits y [L] on x [L] best.

    A step is half-way between two levels; where the dose is half-way too, the mean of both sides.
    """
    best, fitted = np.inf, np.nan
    for cuts in combinations(range(1, len(x)), count):
        parts = np.split(y, cuts)
        error = sum(np.square(part - part.mean()).sum() for part in parts)
        if error < best:
            edges = (x[list(cuts)] + x[np.subtract(cuts, 1)]) / 2
            sides = np.searchsorted(edges, [at - 1e-9, at + 1e-9])
            best, fitted = error, np.mean([parts[side].mean() for side in sides])
    return float(fitted)


def left_out(x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Mean squared error [n] of predicting each level by curves fitted to the others, over the variance of the levels.

    x [L], y [n, L].  Keys: `smooth`, the logistic curve, and `step`, the better of one step and of two.
    """
    rivals = {"smooth": logistic} | {k: lambda x, y, at, k=k: steps(x, y, at, k) for k in STEPS}
    others = [np.arange(len(x)) != i for i in range(len(x))]
    error = {
        name: np.array([np.mean([(f(x[o], own[o], x[~o][0]) - own[~o][0]) ** 2 for o in others]) for own in y])
        for name, f in rivals.items()
    }
    scale = y.var(1)
    return {"smooth": error["smooth"] / scale, "step": np.minimum(*(error[k] for k in STEPS)) / scale}


def lead(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """By how much [n] the smooth curve predicts better than the best step: above 0 a slope, below 0 a jump."""
    error = left_out(x, y)
    return error["step"] - error["smooth"]


def jump(y: np.ndarray) -> np.ndarray:
    """Largest difference between adjacent levels, as a share of the range of the curve, [n] of y [n, L]."""
    return np.abs(np.diff(y)).max(1) / np.ptp(y, axis=1)
