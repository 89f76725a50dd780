"""Chapter 08: kinds of empathy while everything is learnt, and how precisely test stimuli measure them (P7).

Arrays are over agents first: [n, ...].
"""

from itertools import product
from typing import ClassVar

import numpy as np
import pandas as pd
from matplotlib.patches import Rectangle
from pydantic import Field

from ... import metrics, stats
from ...battery import MOVERS
from ...config import Stage
from ...watch import EARLY
from .. import studies
from ..plots import Line, draw, heat, plt, training_axis
from ..results import Agents, Course, Results
from ..studies import Sweep, similarity_of
from ..verdicts import rule
from .calibration import CELL, LOOKS, determination, pooled_halves, pooled_icc, slope

EMPATHIES = {  # of empathy, by the head and the response in which it shows
    "joy": ("reward", "joy"),
    "pain": ("reward", "pain"),
    "anticipation": ("value", "empathy"),
    "relief": ("value", "relief"),
    "disappointment": ("value", "disappointment"),
}
EVENT = (("reward", "empathy"),)  # the response whose reliability is measured
HALF = 0.5  # of what was there


class Stimuli(Sweep):
    chapter: ClassVar[str] = "08-stimuli"

    similarity: float = similarity_of("at which kinds and precision are read, cos(angle)")
    taught: float = Field(1.0, gt=0, le=1, description="share p of the other's contacts labelled for the second heads")

    def agents(self) -> list[Stage]:
        watched = studies.development(self.profile, self.seeds, (0.0, self.taught))
        return list(dict.fromkeys([*studies.calibration(self.profile, self.seeds), *watched]))


def over_training(e: Results, readout: str, kind: str, exposure: float, seeds: list[int], s=None, **where) -> Course:
    """Updates [U] and coefficients [n, U] in joint training, at similarity s or the results' own.

    where: family, mover, and the half of the scenes, unless as usual.
    """
    at = {"readout": readout, "kind": kind, "exposure": exposure, "mover": "other", "family": "recurrent"}
    return e.ask("development", seeds, s, "update", **(at | where))


def watched(e: Results, family: str = "recurrent") -> list[int]:
    """Seeds whose joint training was watched."""
    return sorted(e.pick("development", family=family).seed.unique())


def first_reached(updates: np.ndarray, rho: np.ndarray, share: float = HALF) -> np.ndarray:
    """Update [n] at which each agent's coefficient rho [n, U] first has this share of its highest.

    Linear in log(1 + update); NaN where it never is above 0.
    """
    highest = rho.max(1)
    at = place(rho, share * highest)
    return np.array([at_place(updates, i) if top > 0 else np.nan for i, top in zip(at, highest, strict=True)])


def place(y: np.ndarray, bar: np.ndarray) -> np.ndarray:
    """Index [...], with fractions, at which y [..., U] first rises to the bar [...]; its length where it never does."""
    place = stats.crossing(y, bar)
    return np.where(np.isfinite(place), place, float(y.shape[-1]))


def at_place(x: np.ndarray, place: float) -> float:
    """x at an index with fractions, linear in log(1 + x); infinite beyond its last."""
    if place > len(x) - 1:
        return np.inf
    return float(np.expm1(np.interp(place, np.arange(len(x)), np.log1p(x))))


def designed(e: Results, seeds: list[int], kinds: tuple[tuple[str, str], ...], s: float) -> np.ndarray:
    """Coefficients [n, cells, kinds, sets, halves] of the calibration's agents, over couplings and exposures.

    Kinds without a true slope of their own are left out.
    """
    if not seeds:
        return np.full((0, 1, len(kinds), 1, 2), np.nan)
    parts = []
    for readout, kind in kinds:
        own = e.pick("precision", readout=readout, kind=kind, mover="other", family="recurrent")
        own = metrics.at_similarity(own, s)
        wide = own.pivot_table(index="seed", columns=[*CELL, "set", "half"], values="rho").sort_index(axis=1)
        sets, halves = (len(wide.columns.unique(level)) for level in ("set", "half"))
        parts.append(wide.reindex(seeds).to_numpy().reshape(len(seeds), -1, sets, halves))
    return np.stack([x for x in parts if np.isfinite(x).any()] or [np.full((len(seeds), 1, 1, 2), np.nan)], 2)


def multitrait(x: np.ndarray) -> np.ndarray:
    """Multitrait-multimethod matrix (Campbell & Fiske 1959) [..., 2 kinds, 2 kinds] of [..., n, cells, kinds, halves].

    Correlations over agents; rows are the kinds in half 0 of the scenes, then those in half 1.
    """
    n, cells, kinds, halves = x.shape[-4:]
    return stats.correlations(x.swapaxes(-1, -2).reshape(*x.shape[:-4], n * cells, halves * kinds))


def kinds_lead(x: np.ndarray) -> np.ndarray:
    """Least correlation [...] of a kind with itself in the other half, less the largest of two kinds; x as above."""
    r, kinds = multitrait(x), x.shape[-2]
    same = np.diagonal(r[..., :kinds, kinds:], axis1=-2, axis2=-1)
    different = ~np.tile(np.eye(kinds, dtype=bool), (2, 2))
    return same.min(-1) - r[..., different].max(-1)


def factors(x: np.ndarray) -> np.ndarray:
    """Share of variance of every principal component of the kinds' correlations, of x [n, cells, kinds, halves]."""
    n, cells, kinds, _ = x.shape
    values = np.linalg.eigvalsh(np.corrcoef(x.mean(-1).reshape(n * cells, kinds), rowvar=False))[::-1]
    return values / values.sum()


def reliability_over_training(e: Results, seeds: list[int], readout: str, kind: str, exposures: list) -> pd.DataFrame:
    """Precision at every checkpoint of joint training.

    Columns update; estimate, low, high: split-half reliability over agents of all exposures together; error: standard
    error of measurement, from how far halves of the scenes differ; spread: of agents within an exposure.
    """
    at = lambda p, half: over_training(e, readout, kind, p, seeds, half=half)[1]  # noqa: E731
    halves = np.stack([[at(p, half) for half in (0, 1)] for p in exposures])  # [P, halves, n, U]
    updates, rows = over_training(e, readout, kind, exposures[0], seeds)[0], []
    for i, update in enumerate(updates):
        x = halves[..., i].transpose(2, 0, 1)  # [n, P, halves]
        found = stats.interval_of(pooled_halves, x, resamples=999) if np.isfinite(x).all() else stats.NOTHING
        error = np.sqrt(np.square(x[..., 0] - x[..., 1]).mean() / 4)
        spread = x.mean(-1).std(0, ddof=1).mean() if len(x) > 1 else np.nan
        rows.append((update, found.estimate, found.low, found.high, error, spread))
    return pd.DataFrame(rows, columns=["update", "estimate", "low", "high", "error", "spread"])


def early_and_final(e: Results, readout: str, kind: str, exposure: float, seeds: list[int]) -> np.ndarray:
    """Coefficients [n, 2] at `EARLY` of joint training and at its end."""
    updates, rho = over_training(e, readout, kind, exposure, seeds)
    return rho[:, [int(np.argmin(np.abs(updates - EARLY * updates[-1]))), -1]]


def forecast(x: np.ndarray, splits: int = 50) -> np.ndarray:
    """Correlation [...] of final scores with those that early ones foretell out of seed, of x [..., n, cells, 2].

    A line is fitted to half of the agents and judged on the others, all cells of one agent together; mean over random
    splits.  (Leaving out one agent at a time would give -1 where nothing can be foretold: whoever is left out pulls the
    others' mean to the other side.)  Agents that a bootstrap drew twice stay on one side.
    """
    if x.ndim > 3:
        return np.array([forecast(sample, splits) for sample in x])
    agents, count = np.unique(x.reshape(len(x), -1), axis=0, return_counts=True)
    early, final = np.moveaxis(agents.reshape(len(agents), -1, 2), -1, 0)  # [agents, cells]
    sums = np.stack([np.ones_like(early), early, final, early**2, final**2, early * final], -1).sum(1) * count[:, None]
    order = np.random.default_rng(0).random((splits, len(agents))).argsort(1, kind="stable")
    fitted = (order < len(agents) // 2).astype(float)  # [splits, agents]
    line, judged = _moments(fitted @ sums), _moments((1 - fitted) @ sums)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.sign(line[2]) * judged[2] / np.sqrt(judged[0] * judged[1])
    usable = (np.minimum(line[0], judged[0]) > 1e-18) & (np.minimum(line[1], judged[1]) > 1e-18)
    return found[usable].mean() if usable.any() else np.array(np.nan)


def _moments(sums: np.ndarray) -> np.ndarray:
    """Variances of x and y and their covariance [3, splits] from sums of (1, x, y, x x, y y, x y) [splits, 6]."""
    n, x, y, xx, yy, xy = sums.T
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([xx - x * x / n, yy - y * y / n, xy - x * y / n]) / n


def measured(e: Results, head: str = "") -> Agents:
    """Seeds whose agents pass both heads' gates wherever a coupling or an exposure was given, and that of the reward
    model where they were watched; and the others."""
    g = e.pick("gates", family="recurrent")
    passed = g.groupby("seed").passed.all()
    if e.has("precision"):
        passed = passed[passed.index.isin(e.table("precision").seed.unique())]
    if e.has("development"):
        own = over_training(e, "reward", "empathy", e.exposure, list(passed.index), mover="self")[1][:, -1]
        passed &= np.abs(own - 1) <= metrics.TOLERANCE
    return sorted(passed.index[passed]), sorted(passed.index[~passed])


def extreme(rho: np.ndarray, highest: bool = False) -> tuple[int, np.ndarray]:
    """Checkpoint at which the mean over agents of rho [n, U] is lowest (or highest), and the coefficients [n] there.

    Each agent's is read at the checkpoint that the other agents' mean says, so that its own noise has not chosen it.
    """
    sign = -1.0 if highest else 1.0
    others = rho.sum(0) - rho if len(rho) > 1 else rho
    return int((sign * rho.mean(0)).argmin()), rho[np.arange(len(rho)), (sign * others).argmin(1)]


def _worst_slope(x: np.ndarray) -> np.ndarray:
    """Of x [..., n, levels, couplings, 2]: the slope, of all agents, of that similarity where it is farthest from 1."""
    found = slope(np.moveaxis(x, -3, 0))  # [levels, ...]
    return np.take_along_axis(found, np.abs(found - 1).argmax(0)[None], 0)[0]


def _worst_determination(x: np.ndarray) -> np.ndarray:
    return determination(np.moveaxis(x, -3, 0)).min(0)


def _planted(e: Results, seeds: list[int]) -> np.ndarray:
    return np.stack([e.recovered("reward", seeds, s) for s in LOOKS], 1)


def _halves(e: Results, seeds: list[int]) -> np.ndarray:  # [n, designs, halves], of the first set
    return designed(e, seeds, EVENT, e.s)[:, :, 0, 0]


def _sets(e: Results, seeds: list[int]) -> np.ndarray:  # [n, designs, sets]
    return designed(e, seeds, EVENT, e.s)[:, :, 0].mean(-1)


def _kinds(e: Results, seeds: list[int]) -> np.ndarray:  # [n, designs, kinds, halves], of the first set
    return designed(e, seeds, tuple(EMPATHIES.values()), e.s)[:, :, :, 0]


def _early_and_final(e: Results, seeds: list[int]) -> np.ndarray:
    """Coefficients [n, 1, 2] at the exposure that verdicts are read at."""
    return early_and_final(e, *EVENT[0], e.exposure, seeds)[:, None]


ROWS = rule(
    "P7",
    (_halves, pooled_halves),
    (_sets, pooled_icc),
    (_planted, _worst_slope),
    (_planted, _worst_determination),
    (_kinds, kinds_lead),
    (_early_and_final, forecast),
    agents=measured,
)


def learning(table: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """What agents have learnt by update, a panel a measure; table: seed, update, exposure or -1, measure, value."""
    lines = []
    for (measure, p), own in table[table.measure.isin(list(names))].groupby(["measure", "exposure"]):
        wide = own.pivot_table(index="seed", columns="update", values="value")
        name = f"p = {p:g}" if p >= 0 else "world model"
        lines.append(Line(name, wide.columns.to_numpy(), wide.to_numpy(), names[measure]))
    return draw(lines, "update", "value", training_axis(table["update"].max()), label="", sharey=False, zero=False)


def kinds(results: Results, seeds: list[int], exposures: tuple[float, ...]) -> pd.DataFrame:
    """Coefficients of every kind in joint training: rows are exposures, columns kinds, a line per mover."""
    lines = []
    for p, (name, kind), mover in product(exposures, EMPATHIES.items(), MOVERS):
        lines.append(Line(mover, *over_training(results, *kind, p, seeds, mover=mover), f"{name}, p = {p:g}"))
    how = {"columns": len(EMPATHIES), "size": (2.5, 2.7), "label": "coefficient", "sharex": True}
    return draw(lines, "update", axis=training_axis(lines[0].x[-1]), **how)


def multitrait_matrices(matrices: dict[str, np.ndarray], names: list[str]) -> pd.DataFrame:
    """Multitrait-multimethod matrices [2 kinds, 2 kinds] side by side: same kind in the other half framed."""
    labels = [f"{name} {half}" for half in ("A", "B") for name in names]
    hidden = np.triu(np.ones((len(labels), len(labels)), bool))
    tables = {title: pd.DataFrame(np.where(hidden, np.nan, r), labels, labels) for title, r in matrices.items()}
    numbers = heat(tables, (5.0, 4.6), square=True)
    for ax in plt.gcf().axes:
        for i in range(len(names)):
            ax.add_patch(Rectangle((i, i + len(names)), 1, 1, fill=False, ec="black", lw=1.6))
    return numbers


def precision_curves(tables: dict[str, pd.DataFrame], bar: float) -> pd.DataFrame:
    """Split-half reliability, and standard error beside the spread of agents, by kind and update."""
    at = {name: t["update"].to_numpy() for name, t in tables.items()}
    said = {"split-half reliability": ["estimate", "low", "high"]}
    said |= {"error of measurement": "error", "spread of agents": "spread"}
    lines = []
    for (panel, value), (name, t) in product(said.items(), tables.items()):
        lines.append(Line(name, at[name], t[value].to_numpy().T, panel, bounds=isinstance(value, list)))
    axis = training_axis(max(x[-1] for x in at.values()))
    numbers = draw(lines, "update", "value", axis, label="", sharey=False, zero=False)
    first, *others = plt.gcf().axes
    first.axhline(bar, color="0.6", ls="--", lw=0.9)
    first.set_ylim(-0.6, 1.05)
    for ax in others:
        ax.set(yscale="log", ylim=(1e-4, 2))
    return numbers
