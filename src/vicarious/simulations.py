"""How often the statistics of `stats` err, on simulated studies whose truth is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import pandas as pd
from scipy.special import expit

from . import config, continuity, stats
from .predictions import JUMP, slope

KAPPAS = np.array([-1.0, 0.0, 0.25, 0.5, 1.0])
LEVELS = 11  # of similarity, as in the battery
MARGIN = 0.05
DRAWS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "skewed": lambda rng, n: rng.standard_exponential(n) - 1,
    "heavy-tailed": lambda rng, n: rng.standard_t(5, n),
    "lower of two means": lambda rng, n: rng.standard_normal((n, 1)) + rng.standard_normal((n, 2)) + [0.0, 0.5],
    "lower of two equal means": lambda rng, n: rng.standard_normal((n, 1)) + rng.standard_normal((n, 2)),
}

CURVES: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {  # over a dose from 0 to 1, one agent's
    "ramp": lambda x, rng: x,
    "bend": lambda x, rng: x ** rng.uniform(2, 4),
    "sigmoid": lambda x, rng: expit((x - rng.uniform(0.4, 0.8)) / 0.12),
    "one step": lambda x, rng: 1.0 * (x > rng.uniform(0, 1)),
    "two steps": lambda x, rng: 0.5 * (x > rng.uniform(0, 0.5)) + 0.5 * (x > rng.uniform(0.5, 1)),
    "four steps": lambda x, rng: 0.25 * (x[:, None] > rng.uniform([0, 0.25, 0.5, 0.75], [0.25, 0.5, 0.75, 1])).sum(1),
    "ramp and step": lambda x, rng: 0.5 * x + 0.5 * (x > rng.uniform(0, 1)),
}


def run(cfg: config.Simulations) -> pd.DataFrame:
    """Rates over simulated studies: statistic, data, n (agents), rate, studies.

    Coverage: how often a 95% interval holds the true mean (of agents drawn as in `DRAWS`); false positives: how often a
    test at 5% speaks although there is nothing to find (equivalence at its margin, levels without trend).
    """
    rows = []
    for n in cfg.agents:
        for statistic, data, hits in _studies(cfg, n):
            rows.append((statistic, data, n, float(np.mean(hits)), cfg.studies))
    return pd.DataFrame(rows, columns=["statistic", "data", "n", "rate", "studies"])


def _studies(cfg: config.Simulations, n: int) -> Iterator[tuple[str, str, list[bool]]]:
    for data, draw in DRAWS.items():
        rng = np.random.default_rng([cfg.seed, n])
        samples = [draw(rng, n) for _ in range(cfg.studies)]
        for name, expand in ("bootstrap interval", False), ("expanded bootstrap interval", True):
            found = [stats.interval(x, cfg.resamples, expand) for x in samples]
            yield f"coverage of the {name}", data, [f.low <= 0 <= f.high for f in found]
    rng = np.random.default_rng([cfg.seed, n, 2])
    own = 1 + 0.1 * rng.standard_normal((cfg.studies, n, 1))
    rho = own * KAPPAS + 0.2 * rng.standard_normal((cfg.studies, n, 1)) + 0.1 * rng.standard_normal((cfg.studies, n, 5))
    x = np.stack([np.broadcast_to(KAPPAS, rho.shape), rho], -1)
    found = [stats.interval_of(slope, study, cfg.resamples) for study in x]
    yield "coverage of the expanded bootstrap interval", "a line's slope", [f.low <= 1 <= f.high for f in found]
    rng = np.random.default_rng([cfg.seed, n, 1])
    at_margin = MARGIN + 0.5 * MARGIN * rng.standard_normal((cfg.studies, n))
    yield "false positives of equivalence", "at the margin", [stats.equivalence(x, MARGIN) < 0.05 for x in at_margin]
    flat = rng.standard_normal((cfg.studies, n, LEVELS)) + 3 * rng.standard_normal((cfg.studies, n, 1))
    yield "false positives of Page's test", "no trend", [stats.page(x) < 0.05 for x in flat]


def shapes(cfg: config.Shapes) -> pd.DataFrame:
    """How often the verdict on the shape of a curve is right: curve, noise, statistic, rate.

    For every planted curve and level of noise: `smooth` and `step`, the share of studies that would say so by P4's
    bars on the lead of the smooth curve; `small jumps`, by its bar on the largest jump; and `agents smooth`, the share
    of single agents whose own lead is above 0.
    """
    dose, rng, rows = np.linspace(0, 1, cfg.levels), np.random.default_rng(cfg.seed), []
    for name, noise in product(CURVES, cfg.noise):
        y = np.stack([CURVES[name](dose, rng) for _ in range(cfg.curves)])
        y = y + noise * rng.standard_normal(y.shape)
        lead, jump = continuity.lead(dose, y), continuity.jump(y)
        drawn = rng.integers(cfg.curves, size=(cfg.studies, cfg.agents))
        mean, error = lead[drawn].mean(1), lead[drawn].std(1, ddof=1) / np.sqrt(cfg.agents)
        wide = jump[drawn].mean(1) + 2 * jump[drawn].std(1, ddof=1) / np.sqrt(cfg.agents)
        found = {"smooth": mean > 2 * error, "step": mean < -2 * error, "small jumps": wide < JUMP}
        found["agents smooth"] = lead > 0
        rows += [(name, noise, statistic, float(hits.mean())) for statistic, hits in found.items()]
    return pd.DataFrame(rows, columns=["curve", "noise", "statistic", "rate"])
