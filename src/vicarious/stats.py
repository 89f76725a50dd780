"""The statistics that every chapter shares: intervals, tests and reliabilities over agents.

Agents are independent and exchangeable; everything about one seed is resampled together.  What scipy and statsmodels
have is theirs; the rest gives its formula's source and is tested against an independent implementation.  How often
these err on simulated studies of the sizes used here is measured in `simulations`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.stats
from statsmodels.stats.meta_analysis import combine_effects
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate over n agents with its 95% interval."""

    estimate: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self:.2f}"

    def __format__(self, spec: str) -> str:
        """Each number by the format of one, `.2f` by default; what lies at infinity never happens."""
        if not self.n:
            return "not estimable"
        text = lambda x: format(x, f"z{spec or '.2f'}") if np.isfinite(x) else "never"  # noqa: E731
        return f"{text(self.estimate)} [{text(self.low)}, {text(self.high)}]" if np.isfinite(self.estimate) else "never"


NOTHING = Interval(np.nan, np.nan, np.nan, 0)
DIGITS = 11  # significant ones, that every processor agrees on
FEW = 5  # agents below which nothing is resampled


def expanded(n: int, level: float = LEVEL) -> float:
    """Level at which a bootstrap interval over n agents is as wide as t makes it (Hesterberg 2015).

    Resampling n agents gives a spread that is too small by (n - 1) / n, with the tails of a normal distribution.
    """
    t = scipy.stats.t.ppf((1 + level) / 2, n - 1)
    return float(1 - 2 * scipy.stats.norm.sf(np.sqrt(n / (n - 1)) * t))


def interval(x: np.ndarray, resamples: int = 9999, expand: bool = True) -> Interval:
    """Mean over agents of x [n], or the lowest of the column means of x [n, columns], with a bootstrap interval.

    Bias-corrected and accelerated (Efron 1987) at the `expanded` level, agents resampled whole, fixed generator; with
    fewer than `FEW` agents Student's t.  A point without variance is its own interval, and where an agent has no value
    there is none.
    """
    x = np.asarray(x, float)
    x = x[:, None] if x.ndim == 1 else x
    if not len(x) or not np.isfinite(x).all():
        return NOTHING
    estimate = float(x.mean(0).min())
    if len(x) < 2 or np.ptp(x, axis=0).max() < 1e-12:
        return Interval(estimate, estimate, estimate, len(x))

    if len(x) < FEW:
        lowest_column = x[:, x.mean(0).argmin()]
        half = scipy.stats.sem(lowest_column) * scipy.stats.t.ppf((1 + LEVEL) / 2, len(x) - 1)
        return Interval(estimate, estimate - float(half), estimate + float(half), len(x))

    def lowest(*columns: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.stack([np.mean(c, axis=axis) for c in columns]).min(axis=0)

    return Interval(estimate, *_bca(tuple(x.T), lowest, resamples, expand), len(x))


def interval_of(statistic: Callable[[np.ndarray], np.ndarray], x: np.ndarray, resamples: int = 1999) -> Interval:
    """Any statistic of x [n, ...] with a bootstrap interval as `interval` has it: the first axis is resampled.

    statistic: of many samples at once, [..., n, ...] -> [...].  With fewer than `FEW` agents Student's t over the
    jackknife's pseudo-values (Tukey 1958).
    """
    x = np.asarray(x, float)
    if not len(x) or not np.isfinite(x).all():
        return NOTHING
    estimate = float(statistic(x))
    if len(x) < 2 or np.ptp(x, axis=0).max() < 1e-12:
        return Interval(estimate, estimate, estimate, len(x))
    left_out = statistic(x[[[j for j in range(len(x)) if j != i] for i in range(len(x))]])
    if np.ptp(left_out) < 1e-12:
        return Interval(estimate, estimate, estimate, len(x))
    if len(x) < FEW:
        pseudo = len(x) * estimate - (len(x) - 1) * left_out
        half = scipy.stats.sem(pseudo) * scipy.stats.t.ppf((1 + LEVEL) / 2, len(x) - 1)
        return Interval(estimate, estimate - float(half), estimate + float(half), len(x))
    low, high = _bca((np.arange(len(x)),), lambda index, axis=-1: statistic(x[index]), resamples, True)
    return Interval(estimate, low, high, len(x))


def _bca(data: tuple, statistic: Callable, resamples: int, expand: bool) -> tuple[float, float]:
    """Bounds from a statistic that is rounded to `DIGITS`: whether a resample equals the sample, of which BCa counts
    the ties, must not hang on the order in which a processor adds."""
    size = float(np.abs(statistic(*data)))
    digits = DIGITS - int(np.floor(np.log10(size))) if size > 0 else DIGITS

    def rounded(*sample: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.round(statistic(*sample, axis=axis), digits)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)
        ci = scipy.stats.bootstrap(
            data,
            rounded,
            paired=True,
            n_resamples=resamples,
            confidence_level=expanded(len(data[0])) if expand else LEVEL,
            method="BCa",
            rng=np.random.default_rng(0),
            vectorized=True,
        ).confidence_interval
    return float(ci.low), float(ci.high)


def p_beyond(x: np.ndarray, bar: float, side: str) -> float:
    """Two-sided level at which x's mean lies `above` or `below` the bar: twice the one-sided t test's p, at most 1.

    For x [n, columns]: above means all columns (the largest p), below means any (Bonferroni over the smallest).
    """
    x = np.asarray(x, float)
    x = x[:, None] if x.ndim == 1 else x
    if len(x) < 2:
        return 1.0
    if np.ptp(x, axis=0).max() < 1e-12:
        beyond = x[0] > bar if side == "above" else x[0] < bar
        return 0.0 if (beyond.all() if side == "above" else beyond.any()) else 1.0
    test = scipy.stats.ttest_1samp(x, bar, alternative="greater" if side == "above" else "less")
    p = np.max(test.pvalue) if side == "above" else np.min(test.pvalue) * x.shape[1]
    return float(min(1.0, 2 * p))


def equivalence(x: np.ndarray, margin: float) -> float:
    """p of two one-sided t tests that x's mean lies within +-margin of 0 (Schuirmann 1987); 1 below two agents."""
    x = np.asarray(x, float)
    if len(x) < 2 or not np.isfinite(x).all():
        return 1.0
    if np.ptp(x) < 1e-12:
        return 0.0 if abs(x[0]) < margin else 1.0
    return float(DescrStatsW(x).ttost_mean(-margin, margin)[0])


def page(x: np.ndarray) -> float:
    """p of Page's (1963) test that x [n, levels] tends upwards along its levels, agents ranked each on their own.

    1 below two agents or three levels, where there is no such test.
    """
    if x.shape[0] < 2 or x.shape[1] < 3:
        return 1.0
    return float(scipy.stats.page_trend_test(x).pvalue)


def holm(p: list[float]) -> np.ndarray:
    """p-values adjusted by Holm's (1979) step-down procedure."""
    return multipletests(p, method="holm")[1]


def split_half(halves: np.ndarray) -> np.ndarray:
    """Reliability [...] of a whole from halves [..., agents, 2]: their correlation, stepped up by Spearman and Brown
    (1910)."""
    r = correlations(halves)[..., 0, 1]
    return 2 * r / (1 + r)


def correlations(x: np.ndarray) -> np.ndarray:
    """Pearson's r [..., variables, variables] of x [..., observations, variables]."""
    x = x - x.mean(-2, keepdims=True)
    covariance = x.swapaxes(-1, -2) @ x
    spread = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return covariance / (spread[..., None] * spread[..., None, :])


@dataclass(frozen=True)
class Components:
    """Variances of rows, of columns, and of what is left, in a two-way table without replication."""

    rows: float
    columns: float
    rest: float


def components(x: np.ndarray) -> Components:
    """Variance components of x [rows, columns] by the analysis of variance, negative ones set to 0."""
    n, k = x.shape
    if n < 2 or not np.isfinite(x).all():
        return Components(np.nan, np.nan, np.nan)
    rows, columns, error = map(float, _mean_squares(x))
    return Components(max(0.0, (rows - error) / k), max(0.0, (columns - error) / n), error)


def _mean_squares(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of rows, columns and what is left, [...] each, of x [..., rows, columns]."""
    n, k = x.shape[-2:]
    row, column, grand = x.mean(-1, keepdims=True), x.mean(-2, keepdims=True), x.mean((-2, -1), keepdims=True)
    rows = k * np.square(row - grand).sum((-2, -1)) / (n - 1)
    columns = n * np.square(column - grand).sum((-2, -1)) / (k - 1)
    return rows, columns, np.square(x - row - column + grand).sum((-2, -1)) / ((n - 1) * (k - 1))


def icc(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ICC(2,1) and ICC(2,k) of x [..., agents, k]: absolute agreement of one, and of the mean of k, random sets of
    scenes.

    Two-way random effects without replication (Shrout & Fleiss 1979, p. 423).
    """
    n, k = x.shape[-2:]
    rows, columns, error = _mean_squares(x)
    single = (rows - error) / (rows + (k - 1) * error + k * (columns - error) / n)
    return single, (rows - error) / (rows + (columns - error) / n)


def line(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slope, intercept and R2 [...] of the least-squares line of y on x, both [..., observations]."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    dx, dy = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    xx, xy, yy = (dx * dx).sum(-1), (dx * dy).sum(-1), (dy * dy).sum(-1)
    slope = xy / xx
    return slope, y.mean(-1) - slope * x.mean(-1), xy**2 / (xx * yy)


def crossing(y: np.ndarray, bar: float | np.ndarray) -> np.ndarray:
    """Index [...], with fractions, where y [..., U] reaches the bar [...] first, linear between two; NaN where it never
    does."""
    bar = np.asarray(bar, float)
    above = y >= bar[..., None]
    i = above.argmax(-1)
    last, now = (np.take_along_axis(y, at[..., None], -1)[..., 0] for at in ((i - 1).clip(0), i))
    with np.errstate(invalid="ignore", divide="ignore"):
        place = np.where(i > 0, i - (now - bar) / (now - last), 0.0)
    return np.where(above.any(-1), place, np.nan)


def prediction_interval(effects: np.ndarray, variances: np.ndarray) -> Interval:
    """Where the effect of one more family lies, from those of n families and their sampling variances.

    Random effects with Paule and Mandel's variance between families; t with n - 2 degrees of freedom (Higgins,
    Thompson & Spiegelhalter 2009, eq. 12).
    """
    if len(effects) < 3:
        return NOTHING
    pooled = combine_effects(np.asarray(effects, float), np.asarray(variances, float), method_re="pm")
    centre, tau2 = float(pooled.mean_effect_re), max(0.0, float(pooled.tau2))
    half = scipy.stats.t.ppf((1 + LEVEL) / 2, len(effects) - 2) * np.sqrt(tau2 + pooled.var_eff_w_re)
    return Interval(centre, float(centre - half), float(centre + half), len(effects))


def detectable(
    between: float, within: float, shared: float, scenes: np.ndarray, agents: np.ndarray, power: float = 0.8
) -> pd.DataFrame:
    """Smallest mean over agents that a two-sided t test at 5% finds with this power, for scenes x agents.

    Variances: `between` agents; `within`, of one scene's value about its agent's and its own mean; `shared`, of a
    scene's mean over agents, which all agents have in common.  Columns scenes, agents, smallest (noncentral t).
    """
    from statsmodels.stats.power import TTestPower

    rows = []
    for n in agents:
        effect = TTestPower().solve_power(None, nobs=n, alpha=1 - LEVEL, power=power, alternative="two-sided")
        for m in scenes:
            error = np.sqrt((between + within / m) / n + shared / m)
            rows.append((m, n, float(effect) * np.sqrt(n) * error))
    return pd.DataFrame(rows, columns=["scenes", "agents", "smallest"])
