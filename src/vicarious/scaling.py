"""Whether empathy grows with capacity: read where agents are equally competent, and at the end of training (P5).

An agent here is a world model of some size with a reward model of some size, of one seed and exposure.  It is competent
once its own-reward R2 has reached `COMPETENT`; what it answers there is interpolated between the checkpoints around.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from . import metrics, stats
from .evidence import Evidence

COMPETENT = 0.9  # own-reward R2 at which capacities are compared
SIZES = {  # column of each axis of capacity
    "model-width": "model_width",
    "latent": "latent",
    "head-width": "head_width",
    "head-depth": "head_depth",
    "data": "episodes",
    "training": "model_updates",
}
AGENT = ["seed", "family", "exposure", *SIZES.values()]
OUTCOMES = ("reached", "matched", "own", "final", "r2")
LEVELS = 3  # that a slope takes
SWEPT, KIN = "recurrent", "reference"  # families of the sweep, and the reference agents beside it


@dataclass(frozen=True)
class Axis:
    """What was found along one axis at one exposure.

    levels [L] ascending; matched, final, own: coefficients [n, L] where own R2 = .9, at the end of training, and of the
    self where own R2 = .9; r2 [n, L] at the end; reached [n, L] the update of R2 = .9, all NaN where it never came to
    that; share [L] of agents that reached it; auc [L] of who moved (NaN where it was not asked).
    """

    levels: np.ndarray
    matched: np.ndarray
    final: np.ndarray
    own: np.ndarray
    r2: np.ndarray
    reached: np.ndarray
    share: np.ndarray
    auc: np.ndarray

    @property
    def confused(self) -> np.ndarray:
        """Levels [L] whose codes do not tell who moved."""
        return self.auc < metrics.IDENTITY

    @property
    def counts(self) -> np.ndarray:
        """Levels [L] that a slope is read from: competent, and no confusion."""
        return (self.share >= metrics.PASSING) & ~self.confused

    def counted(self, read: str = "matched") -> tuple[np.ndarray, np.ndarray]:
        """The levels that count, and one of the arrays above at them."""
        return self.levels[self.counts], getattr(self, read)[:, self.counts]

    def slope(self, read: str = "matched") -> np.ndarray:
        """Slope [n] per decade of each agent over the levels that count."""
        return per_decade(*self.counted(read))[:, 0]


def interpolated(y: np.ndarray, place: np.ndarray) -> np.ndarray:
    """y [n, U] at checkpoints with fractions [n]; NaN where there is none."""
    there = np.where(np.isfinite(place), place, 0.0)
    i = np.floor(there).astype(int).clip(max=y.shape[1] - 2)
    low, high = (np.take_along_axis(y, at[:, None], 1)[:, 0] for at in (i, i + 1))
    return np.where(np.isfinite(place), low + (there - i) * (high - low), np.nan)


def over_training(e: Evidence, s: float | None = None) -> tuple[pd.MultiIndex, np.ndarray, dict[str, np.ndarray]]:
    """Agents, checkpoints [U], and what each agent [n, U] was there: rho, own (coefficient of the self) and r2."""
    table = named(e.curves)
    own = table[table.mover == "self"]
    other = table[table.mover == "other"][[*AGENT, "update", "similarity", "rho"]]
    at = metrics.at_similarity(other, e.s if s is None else s)
    parts = {"rho": (at, "rho"), "own": (own, "rho"), "r2": (own, "r2")}
    wide = {name: t.pivot(index=AGENT, columns="update", values=value) for name, (t, value) in parts.items()}
    agents, updates = wide["r2"].index, wide["r2"].columns.to_numpy(float)
    return agents, updates, {name: t.reindex(agents).to_numpy(float) for name, t in wide.items()}


def outcomes(e: Evidence, s: float | None = None, bar: float = COMPETENT) -> pd.DataFrame:
    """One row per agent, of the columns `AGENT`: reached, matched, own, final and r2 as in `Axis`."""
    agents, updates, found = over_training(e, s)
    place = stats.crossing(found["r2"], bar)
    read = {
        "reached": interpolated(np.broadcast_to(updates, found["r2"].shape), place),
        "matched": interpolated(found["rho"], place),
        "own": interpolated(found["own"], place),
        "final": found["rho"][:, -1],
        "r2": found["r2"][:, -1],
    }
    return pd.DataFrame(read, index=agents)[list(OUTCOMES)].reset_index()


def named(curves: pd.DataFrame) -> pd.DataFrame:
    """Curves with plain names of families: those of the sweep carry their sizes, the reference agents do not."""
    family = curves.family.astype(str)
    swept = family.str.startswith(f"{SWEPT}/")
    return curves.assign(family=family.mask(swept, SWEPT).mask(~swept & (family == SWEPT), KIN))


def base(table: pd.DataFrame) -> dict[str, int]:
    """The sizes at which the axes cross: of each, the one that most agents of the sweep have."""
    swept = table[table.family == SWEPT]
    return {size: int(swept[size].mode().iloc[0]) for size in SIZES.values()}


def selected(table: pd.DataFrame, axis: str, exposure: float, family: str = SWEPT) -> pd.DataFrame:
    """Agents along one axis, all other sizes as where the axes cross (those that the family has)."""
    t = table[(table.family == family) & np.isclose(table.exposure, exposure)]
    ours = ("head_width", "head_depth", "episodes") if family != SWEPT else SIZES.values()
    fixed = {size: n for size, n in base(table).items() if size in ours and size != SIZES[axis]}
    return t[np.all([t[size] == n for size, n in fixed.items()], axis=0)].assign(level=lambda x: x[SIZES[axis]])


def along(
    e: Evidence, table: pd.DataFrame, axis: str, exposure: float, family: str = SWEPT, seeds: list[int] | None = None
) -> Axis:
    """One axis at one exposure from `outcomes`, over the given seeds (all that have every level by default)."""
    rows = selected(table, axis, exposure, family)
    seeds = everyone(rows) if seeds is None else seeds
    wide = {name: rows.pivot(index="seed", columns="level", values=name).reindex(seeds) for name in OUTCOMES}
    levels = wide["matched"].columns.to_numpy()
    reached = wide["reached"].to_numpy()
    auc = [_auc(e, rows[rows["level"] == level]) if family == SWEPT else np.nan for level in levels]
    return Axis(
        levels,
        *(wide[name].to_numpy() for name in ("matched", "final", "own", "r2")),
        reached,
        np.isfinite(reached).mean(0),
        np.array(auc),
    )


def everyone(rows: pd.DataFrame) -> list[int]:
    """Seeds that have every level."""
    count = rows.groupby("seed")["level"].nunique()
    return sorted(count.index[count == rows["level"].nunique()])


def _auc(e: Evidence, agents: pd.DataFrame) -> float:
    """Mean AUC of who moved over world models of one size."""
    one, probed = agents.iloc[0], sorted(e.measures.seed.unique())
    family = f"{SWEPT}/{one.model_width}/{one.latent}/{one.episodes}/{one.model_updates}"
    found = e.measure("auc", probed, family)
    return float(np.nanmean(found)) if np.isfinite(found).any() else np.nan


def per_decade(levels: np.ndarray, y: np.ndarray, degree: int = 1) -> np.ndarray:
    """Polynomials [n, degree + 1], highest power first, of y [n, L] on log10 of the levels, each agent by itself.

    NaN where an agent has fewer than `LEVELS` levels, or too few for the degree.  With all levels at hand the mean
    slope over agents is that of a mixed model with random intercepts and slopes (Laird & Ware 1982).
    """
    x, least = np.log10(levels), max(LEVELS, degree + 1)
    fits = np.full((len(y), degree + 1), np.nan)
    for i, own in enumerate(y):
        there = np.isfinite(own)
        if there.sum() >= least:
            fits[i] = np.polyfit(x[there], own[there], degree)
    return fits


def slopes(e: Evidence, axis: str, exposure: float, seeds: list[int]) -> np.ndarray:
    """Slope [n] of rho per decade of capacity at matched competence, from the levels that count."""
    if e.curves is None:
        return np.full(len(seeds), np.nan)
    return along(e, outcomes(e), axis, exposure, seeds=seeds).slope()


def agents(e: Evidence, axis: str, exposure: float) -> tuple[list[int], list[int]]:
    """Seeds whose slope can be read, and those with too few competent levels."""
    if e.curves is None:
        return [], []
    table = outcomes(e)
    seeds = everyone(selected(table, axis, exposure))
    has = np.isfinite(along(e, table, axis, exposure, seeds=seeds).slope())
    return [s for s, ok in zip(seeds, has, strict=True) if ok], [s for s, ok in zip(seeds, has, strict=True) if not ok]


def by_training(table: pd.DataFrame, losses: pd.DataFrame, axis: str, exposure: float, seeds: list[int]) -> np.ndarray:
    """Matched rho [n, L] that agents along an axis would have if only how well they know the world were different.

    It is read off agents of the size at which the axes cross who learnt the world for longer or shorter, linear in the
    logarithm of the world model's loss (`study.losses`); NaN beyond the longest and the shortest.
    """
    sizes = [c for c in losses if c in SIZES.values() and not c.startswith("head")]
    known = named(losses)[["seed", "family", *sizes, "loss"]]
    ours, trained = (selected(table, name, exposure).merge(known, how="left") for name in (axis, "training"))
    loss = ours.pivot(index="seed", columns="level", values="loss").reindex(seeds).to_numpy()
    expected = np.full(loss.shape, np.nan)
    for i, seed in enumerate(seeds):
        line = trained[trained.seed == seed].dropna(subset="matched").sort_values("loss")
        if len(line) > 1:
            expected[i] = np.interp(np.log(loss[i]), np.log(line.loss), line.matched, left=np.nan, right=np.nan)
    return expected


def mixed(levels: np.ndarray, y: np.ndarray) -> stats.Interval:
    """The slope per decade of a mixed model fitted to all agents' levels at once, y [n, L]."""
    x, who = np.broadcast_to(np.log10(levels), y.shape), np.broadcast_to(np.arange(len(y))[:, None], y.shape)
    there = np.isfinite(y)
    return stats.mixed_slope(y[there], x[there], who[there])


def extrapolated(levels: np.ndarray, y: np.ndarray, at: np.ndarray, degree: int = 1) -> list[stats.Interval]:
    """What agents' own polynomials, y [n, L] over log10 of the levels, say at other capacities `at`."""
    fits = per_decade(levels, y, degree)
    fits = fits[np.isfinite(fits).all(1)]
    return [stats.interval(np.array([np.polyval(fit, np.log10(x)) for fit in fits])) for x in at]
