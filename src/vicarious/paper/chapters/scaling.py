"""Chapter 06: whether empathy grows with capacity, read where agents are equally competent, and at the end (P5).

An agent here is a world model of some size with a reward model of some size, of one seed and exposure.  It is competent
once its own-reward R2 has reached `COMPETENT`; what it predicts there is interpolated between the checkpoints around.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import numpy as np
import pandas as pd
from pydantic import Field, create_model

from ... import metrics, stats
from ...config import Stage
from .. import studies
from ..plots import Line, draw, plt
from ..results import Agents, Results, rho
from ..studies import AXES, Parameters, seeds_of, similarity_of
from ..verdicts import rule

COMPETENT = 0.9  # own-reward R2 at which capacities are compared
SCALING_NULL = 0.02  # per decade
SIZES = [axis.column for axis in AXES.values()]
RULED = [name for name, axis in AXES.items() if axis.most]  # axes with a preregistered rule
AGENT_SIZES = ["seed", "family", "exposure", *SIZES]
OUTCOMES = ("reached", "matched", "own", "final", "r2")
LEAST = 3  # that a slope takes
SWEPT, KIN = "recurrent", "reference"  # families of the sweep, and the reference agents beside it
PANELS = {"columns": 2, "size": (3.7, 2.9), "inside": True, "palette": "viridis_r"}


class _Scaling(Parameters):
    amount: ClassVar[str] = "scaled"
    seeds: int = seeds_of("scaled")
    similarity: float = similarity_of("at which the verdicts are read, cos(angle)")

    def agents(self) -> list[Stage]:
        asked = {name: getattr(self, AXES[name].column) for name in RULED}
        return studies.scaling(self.profile, self.seeds, {name: (n,) for name, n in asked.items() if n})


def _further(name: str) -> tuple:
    """The parameter for a further level of an axis."""
    axis = AXES[name]
    return int, Field(0, ge=0, le=axis.most, description=f"a further level of {axis.label}, 0 for none")


Scaling = create_model("Scaling", __base__=_Scaling, **{AXES[name].column: _further(name) for name in RULED})
Scaling.chapter = "06-scaling"


@dataclass(frozen=True)
class Along:
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


def while_learning(e: Results, s: float | None = None) -> tuple[pd.MultiIndex, np.ndarray, dict[str, np.ndarray]]:
    """Agents, checkpoints [U], and what each agent [n, U] was there: rho, own (coefficient of the self) and r2."""
    table = named(e.table("curves"))
    own = table[table.mover == "self"]
    other = table[table.mover == "other"][[*AGENT_SIZES, "update", "similarity", "rho"]]
    at = metrics.at_similarity(other, e.s if s is None else s)
    parts = {"rho": (at, "rho"), "own": (own, "rho"), "r2": (own, "r2")}
    wide = {name: t.pivot(index=AGENT_SIZES, columns="update", values=value) for name, (t, value) in parts.items()}
    agents, updates = wide["r2"].index, wide["r2"].columns.to_numpy(float)
    return agents, updates, {name: t.reindex(agents).to_numpy(float) for name, t in wide.items()}


def outcomes(e: Results, s: float | None = None, bar: float = COMPETENT) -> pd.DataFrame:
    """One row per agent, of the columns `AGENT_SIZES`: reached, matched, own, final and r2 as in `Along`."""
    agents, updates, found = while_learning(e, s)
    place = stats.crossing(found["r2"], bar)
    at = {"reached": np.broadcast_to(updates, found["r2"].shape), "matched": found["rho"], "own": found["own"]}
    read = {name: interpolated(y, place) for name, y in at.items()}
    read |= {"final": found["rho"][:, -1], "r2": found["r2"][:, -1]}
    return pd.DataFrame(read, index=agents)[list(OUTCOMES)].reset_index()


def named(curves: pd.DataFrame) -> pd.DataFrame:
    """Curves with names of families: those of the sweep have a state of their own, the reference agents have not."""
    kin = (curves.family == SWEPT) & (curves.state == 0)
    return curves.assign(family=curves.family.astype(str).mask(kin, KIN))


def base(table: pd.DataFrame) -> dict[str, int]:
    """The sizes at which the axes cross: of each, the one that most agents of the sweep have."""
    swept = table[table.family == SWEPT]
    return {size: int(swept[size].mode().iloc[0]) for size in SIZES}


def selected(table: pd.DataFrame, axis: str, exposure: float, family: str = SWEPT) -> pd.DataFrame:
    """Agents along one axis, all other sizes as where the axes cross (those that the family has)."""
    t = table[(table.family == family) & np.isclose(table.exposure, exposure)]
    ours = ("head_width", "head_depth", "episodes") if family != SWEPT else SIZES
    fixed = {size: n for size, n in base(table).items() if size in ours and size != AXES[axis].column}
    return t[np.all([t[size] == n for size, n in fixed.items()], axis=0)].assign(level=lambda x: x[AXES[axis].column])


def along(e: Results, table: pd.DataFrame, axis: str, exposure: float, family=SWEPT, seeds=None) -> Along:
    """One axis at one exposure from `outcomes`, over the given seeds (all that have every level by default)."""
    rows = selected(table, axis, exposure, family)
    seeds = everyone(rows) if seeds is None else seeds
    wide = {name: rows.pivot(index="seed", columns="level", values=name).reindex(seeds) for name in OUTCOMES}
    levels, found = wide["matched"].columns.to_numpy(), {name: t.to_numpy() for name, t in wide.items()}
    auc = [_auc(e, rows[rows["level"] == level]) if family == SWEPT else np.nan for level in levels]
    return Along(levels, **found, share=np.isfinite(found["reached"]).mean(0), auc=np.array(auc))


def everyone(rows: pd.DataFrame) -> list[int]:
    """Seeds that have every level."""
    count = rows.groupby("seed")["level"].nunique()
    return sorted(count.index[count == rows["level"].nunique()])


def _auc(e: Results, agents: pd.DataFrame) -> float:
    """Mean AUC of who moved over world models of one size."""
    measures = e.measures
    sizes = [c for c in SIZES if c in measures and not c.startswith("head")]
    own = measures[(measures.measure == "auc") & (measures.mover == "other")]
    own = own[own.state > 0] if sizes else own[:0]
    own = own[(own[sizes] == agents.iloc[0][sizes].to_numpy(float)).all(axis=1)]
    found = rho(own, sorted(own.seed.unique()), e.s, value="value")
    return float(np.nanmean(found)) if np.isfinite(found).any() else np.nan


def per_decade(levels: np.ndarray, y: np.ndarray, degree: int = 1) -> np.ndarray:
    """Polynomials [n, degree + 1], highest power first, of y [n, L] on log10 of the levels, each agent by itself.

    NaN where an agent has fewer than `LEAST` levels, or too few for the degree.  With all levels at hand the mean
    slope over agents is that of a mixed model with random intercepts and slopes (Laird & Ware 1982).
    """
    x, least = np.log10(levels), max(LEAST, degree + 1)
    fits = np.full((len(y), degree + 1), np.nan)
    for i, own in enumerate(y):
        there = np.isfinite(own)
        if there.sum() >= least:
            fits[i] = np.polyfit(x[there], own[there], degree)
    return fits


def capacity_slopes(axis: str, exposure: str | float, e: Results, seeds: list[int]) -> np.ndarray:
    """Slope [n] of rho per decade of capacity at matched competence, from the levels that count."""
    return along(e, outcomes(e), axis, float(exposure), seeds=seeds).slope()


def measurable(axis: str, exposure: str | float, e: Results, head: str = "") -> Agents:
    """Seeds whose slope can be read, and those with too few competent levels."""
    table, exposure = outcomes(e), float(exposure)
    seeds = everyone(selected(table, axis, exposure))
    has = np.isfinite(along(e, table, axis, exposure, seeds=seeds).slope())
    return [s for s, ok in zip(seeds, has, strict=True) if ok], [s for s, ok in zip(seeds, has, strict=True) if not ok]


def by_training(table: pd.DataFrame, losses: pd.DataFrame, axis: str, exposure: float, seeds: list[int]) -> np.ndarray:
    """Matched rho [n, L] that agents along an axis would have if only how well they know the world were different.

    It is read off agents of the size at which the axes cross who learnt the world for longer or shorter, linear in the
    logarithm of the world model's loss (`results.model_losses`); NaN beyond the longest and the shortest.
    """
    sizes = [c for c in losses if c in SIZES and not c.startswith("head")]
    known = named(losses)[["seed", "family", *sizes, "loss"]]
    ours, trained = (selected(table, name, exposure).merge(known, how="left") for name in (axis, "training"))
    loss = ours.pivot(index="seed", columns="level", values="loss").reindex(seeds).to_numpy()
    expected = np.full(loss.shape, np.nan)
    for i, seed in enumerate(seeds):
        line = trained[trained.seed == seed].dropna(subset="matched").sort_values("loss", kind="stable")
        if len(line) > 1:
            expected[i] = np.interp(np.log(loss[i]), np.log(line.loss), line.matched, left=np.nan, right=np.nan)
    return expected


def extrapolated(levels: np.ndarray, y: np.ndarray, at: np.ndarray, degree: int = 1) -> list[stats.Interval]:
    """What agents' own polynomials, y [n, L] over log10 of the levels, say at other capacities `at`."""
    fits = per_decade(levels, y, degree)
    fits = fits[np.isfinite(fits).all(1)]
    return [stats.interval(np.array([np.polyval(fit, np.log10(x)) for fit in fits])) for x in at]


ROWS = rule("P5", capacity_slopes, agents=measurable)


def _by_level(table: pd.DataFrame, axes: Sequence[str], exposure: float) -> Iterator[tuple[str, str, pd.Series]]:
    """(panel, level, rows of the agents' arrays) of every level of some axes; table: agents in their order."""
    table = table.assign(row=np.arange(len(table)))
    for axis in axes:
        for level, own in selected(table, axis, exposure).groupby("level"):
            yield AXES[axis].label, f"{level:,}", own.row


def learning_curves(results: Results, axes: Sequence[str], exposure: float = 0.0) -> pd.DataFrame:
    """Own-reward R2 while reward models learn, one panel an axis of capacity, a line a level; means over agents."""
    agents, updates, found = while_learning(results)
    at = _by_level(agents.to_frame(index=False), axes, exposure)
    lines = [Line(level, updates[1:], found["r2"][rows].mean(0)[1:], panel) for panel, level, rows in at]
    axis = lambda ax: (ax.axhline(COMPETENT, color="0.5", ls="--"), ax.set(xscale="log", xlabel="updates"))  # noqa: E731
    return draw(lines, "update", "r2", axis, label="own-reward R2, test episodes", **PANELS)


def capacity(results: Results, table: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """rho against capacity, a row an axis: where own R2 = .9, and at the end; hollow where a level does not count.

    table: from `outcomes`.  Lines are means over agents with 95% intervals, both exposures; pixels grey.
    """
    lines = []
    reads = {"matched": "where own R2 = .9", "final": "at the end of training"}
    for axis in axes:
        families = [(SWEPT, p, f"world model, p = {p:g}") for p in (0.0, 0.1)]
        if AXES[axis].part != "model" and len(selected(table, axis, 0.0, "pixels")):
            families.append(("pixels", 0.0, "pixels, p = 0"))
        for (read, when), (family, p, name) in product(reads.items(), families):
            found, panel = along(results, table, axis, p, family), f"{AXES[axis].label}, {when}"
            lines.append(Line(name, found.levels, getattr(found, read), panel, counts=found.counts))
    return draw(lines, "level", columns=2, size=(3.7, 2.9), sharey=False, levels=True)


def paths(results: Results, axes: Sequence[str], exposure: float = 0.0) -> pd.DataFrame:
    """rho against own R2 on the way through training, one panel an axis, a line a level; medians over agents."""
    agents, _, found = while_learning(results)
    bars, lines = np.linspace(0.02, 0.995, 60), []
    for panel, level, rows in _by_level(agents.to_frame(index=False), axes, exposure):
        at = [interpolated(found["rho"][rows], stats.crossing(found["r2"][rows], bar)) for bar in bars]
        middle = [np.nanmedian(x) if np.isfinite(x).mean() > 0.5 else np.nan for x in at]
        lines.append(Line(level, bars, np.array(middle), panel))
    axis = lambda ax: (ax.axvline(COMPETENT, color="0.5", ls="--"), ax.set_xlabel("own-reward R2"))  # noqa: E731
    return draw(lines, "r2", "rho", axis, label="rho", **PANELS)


def extrapolation(
    results: Results, table: pd.DataFrame, axes: Sequence[str], times: dict[str, float], exposure: float = 0.0
) -> pd.DataFrame:
    """Matched rho at the levels that count, and what lines and parabolas say up to so many `times` the largest."""
    lines = []
    for axis in axes:
        levels, y = along(results, table, axis, exposure).counted()
        if len(levels) < LEAST:
            continue
        x, panel = np.geomspace(levels[0], levels[-1] * times[axis], 25), AXES[axis].label
        for degree, name in ((2, "parabola"), (1, "line")):
            said = extrapolated(levels, y, x, degree)
            bounds = [[getattr(i, k) for i in said] for k in ("estimate", "low", "high")]
            lines.append(Line(name, x, np.array(bounds), panel, bounds=True))
        lines.append(Line("agents' mean", levels, y, panel))
    axis_of = lambda ax: ax.set(xscale="log", ylim=(-1.05, 1.3))  # noqa: E731
    return draw(lines, "level", "rho", axis_of, columns=2, size=(3.7, 2.9), label="rho where own R2 = .9")


def quality(table: pd.DataFrame, losses: pd.DataFrame, exposure: float = 0.0) -> pd.DataFrame:
    """Matched rho against what the world model still gets wrong, along three ways of getting less of it wrong.

    table: from `outcomes`; losses: from `results.model_losses`.  Means and intervals over agents, a dot a level.
    """
    known, lines = named(losses), []
    keys = [c for c in losses if c in ("seed", "family", *SIZES) and not c.startswith("head")]
    for axis in ("training", "model-width", "latent"):
        rows = selected(table, axis, exposure).merge(known[[*keys, "loss"]], how="left")
        some = rows.groupby("level").filter(lambda t: t.matched.notna().mean() >= metrics.PASSING)
        wide = some.pivot_table(index="seed", columns="level", values="matched")
        loss = some.groupby("level").loss.mean().reindex(wide.columns).to_numpy()
        lines.append(Line(AXES[axis].label, loss, wide.to_numpy()))
    how = {"size": (6.4, 4.0), "label": "rho where own R2 = .9", "inside": True, "bars": True}
    numbers = draw(
        lines, "loss", axis=lambda ax: ax.set(xscale="log", xlabel="held-out loss of the world model"), **how
    )
    ticks = [1, 1.5, 2, 3, 4, 6]
    plt.gca().set_xticks(ticks, [f"{x:g}" for x in ticks])
    plt.minorticks_off()
    plt.gca().invert_xaxis()
    return numbers
