"""How empathy comes and goes: its kinds while agents learn, how well they are measured, how long it outlives labels.

Arrays are over agents first: [n, ...].
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from . import metrics, stats
from .evidence import Evidence
from .monitor import EARLY

KINDS = {  # of empathy, by the head and the response in which it shows
    "joy": ("reward", "joy"),
    "pain": ("reward", "pain"),
    "anticipation": ("value", "empathy"),
    "relief": ("value", "relief"),
    "disappointment": ("value", "disappointment"),
}
CELL = ["exposure", "kappa"]
HALF = 0.5  # of what was there


def over_training(
    e: Evidence,
    readout: str,
    kind: str,
    exposure: float,
    seeds: list[int],
    mover: str = "other",
    s: float | None = None,
    family: str = "recurrent",
    half: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Updates [U] and coefficients [n, U] while everything was learnt together; of one half of the scenes or both."""
    t = e.of_kind("development", readout=readout, kind=kind, mover=mover, family=family)
    t = t[np.isclose(t.exposure, exposure)] if half is None else t[np.isclose(t.exposure, exposure) & (t.half == half)]
    own = t[["seed", "update", "similarity", "rho"]]
    at = metrics.at_similarity(own, 1.0 if mover == "self" else e.s if s is None else s)
    wide = at.pivot(index="seed", columns="update", values="rho").reindex(seeds)
    return wide.columns.to_numpy(), wide.to_numpy()


def watched(e: Evidence, family: str = "recurrent") -> list[int]:
    """Seeds whose joint training was watched."""
    return sorted(e.development[e.development.family == family].seed.unique())


def first_reached(updates: np.ndarray, rho: np.ndarray, share: float = HALF) -> np.ndarray:
    """Update [n] at which each agent's coefficient rho [n, U] first has this share of its highest.

    Linear in log(1 + update); NaN where it never is above 0.
    """
    highest = rho.max(1)
    places = _place(rho, share * highest)
    return np.array([_at(updates, place) if top > 0 else np.nan for place, top in zip(places, highest, strict=True)])


def _place(y: np.ndarray, bar: np.ndarray) -> np.ndarray:
    """Index [...], with fractions, at which y [..., U] first rises to the bar [...]; its length where it never does."""
    place = stats.crossing(y, bar)
    return np.where(np.isfinite(place), place, float(y.shape[-1]))


def _at(x: np.ndarray, place: float) -> float:
    """x at an index with fractions, linear in log(1 + x); infinite beyond its last."""
    if place > len(x) - 1:
        return np.inf
    return float(np.expm1(np.interp(place, np.arange(len(x)), np.log1p(x))))


def scores(e: Evidence, seeds: list[int], kinds: tuple[tuple[str, str], ...], s: float) -> np.ndarray:
    """Coefficients [n, cells, kinds, sets, halves] of the calibration's agents, over couplings and exposures.

    Kinds without a true slope of their own are left out.
    """
    if e.precision is None or not seeds:
        return np.full((len(seeds), 1, len(kinds), 1, 2), np.nan)
    t, parts = e.precision[e.precision.mover == "other"], []
    for readout, kind in kinds:
        own = metrics.at_similarity(t[(t.readout == readout) & (t.kind == kind) & (t.family == "recurrent")], s)
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


def lead(x: np.ndarray) -> np.ndarray:
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


def split_half(x: np.ndarray) -> np.ndarray:
    """Split-half reliability [...] over all agents and cells of x [..., n, cells, halves]."""
    return stats.split_half(_together(x))


def icc(x: np.ndarray) -> np.ndarray:
    """ICC(2,k) [...] over all agents and cells of x [..., n, cells, sets]."""
    return stats.icc(_together(x))[1]


def _together(x: np.ndarray) -> np.ndarray:
    """x [..., n, cells, k] -> [..., n * cells, k]."""
    return x.reshape(*x.shape[:-3], -1, x.shape[-1])


def reliability(e: Evidence, seeds: list[int], readout: str, kind: str, exposures: list[float]) -> pd.DataFrame:
    """Precision at every checkpoint of joint training.

    Columns update; estimate, low, high: split-half reliability over agents of all exposures together; error: standard
    error of measurement, from how far halves of the scenes differ; spread: of agents within an exposure.
    """
    halves = np.stack(
        [[over_training(e, readout, kind, p, seeds, half=h)[1] for h in (0, 1)] for p in exposures]
    )  # [P, halves, n, U]
    updates, rows = over_training(e, readout, kind, exposures[0], seeds)[0], []
    for i, update in enumerate(updates):
        x = halves[..., i].transpose(2, 0, 1)  # [n, P, halves]
        found = stats.interval_of(split_half, x, resamples=999) if np.isfinite(x).all() else stats.NOTHING
        error = np.sqrt(np.square(x[..., 0] - x[..., 1]).mean() / 4)
        spread = x.mean(-1).std(0, ddof=1).mean() if len(x) > 1 else np.nan
        rows.append((update, found.estimate, found.low, found.high, error, spread))
    return pd.DataFrame(rows, columns=["update", "estimate", "low", "high", "error", "spread"])


def early_and_final(
    e: Evidence, readout: str, kind: str, exposure: float, seeds: list[int], share: float = EARLY
) -> np.ndarray:
    """Coefficients [n, 2] at this share of joint training and at its end."""
    if e.development is None:
        return np.full((len(seeds), 2), np.nan)
    updates, rho = over_training(e, readout, kind, exposure, seeds)
    return rho[:, [int(np.argmin(np.abs(updates - share * updates[-1]))), -1]]


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
    order = np.random.default_rng(0).random((splits, len(agents))).argsort(1)
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


def after(
    e: Evidence,
    seeds: list[int],
    exposure: float,
    s: float | None = None,
    readout: str = "reward",
    kind: str = "empathy",
    withheld: str = "nothing",
    until: float = 1.0,
    side: int | None = None,
    mover: str = "other",
) -> tuple[np.ndarray, np.ndarray]:
    """Updates [U] since a converged head was switched to an exposure, and coefficients [n, U]; of scenes with the mover
    on one side of the glass or on both."""
    if e.extinction is None:
        return np.zeros(1), np.full((len(seeds), 1), np.nan)
    t = e.of_kind("extinction", readout=readout, kind=kind, mover=mover, withheld=withheld, until=until)
    t = t[np.isclose(t.exposure, exposure)]
    if side is not None:
        t = t[t.side == side]
    if t.empty:
        return np.zeros(1), np.full((len(seeds), 1), np.nan)
    t = t.assign(total=t.rho * t.n_scenes).groupby(["seed", "update", "similarity"])[["total", "n_scenes"]].sum()
    t = (t.total / t.n_scenes).rename("rho").reset_index()
    at = metrics.at_similarity(t, 1.0 if mover == "self" else e.s if s is None else s)
    wide = at.pivot(index="seed", columns="update", values="rho").reindex(seeds)
    return wide.columns.to_numpy(), wide.to_numpy()


def switched(e: Evidence, readout: str = "reward") -> list[int]:
    """Seeds whose heads were switched to every label."""
    t = e.extinction
    own = t[(t.readout == readout) & (t.exposure == 1) & (t.withheld == "nothing") & (t.until == 1)]
    return sorted(own.seed.unique())


def measured(e: Evidence, head: str = "") -> tuple[list[int], list[int]]:
    """Seeds whose agents pass both heads' gates wherever a coupling or an exposure was given, and that of the reward
    model where they were watched; and the others."""
    g = e.gates[e.gates.family == "recurrent"]
    passed = g.groupby("seed").passed.all()
    if e.precision is not None:
        passed = passed[passed.index.isin(e.precision.seed.unique())]
    if e.development is not None:
        own = over_training(e, "reward", "empathy", e.exposure, list(passed.index), "self")[1][:, -1]
        passed &= np.abs(own - 1) <= metrics.TOLERANCE
    return sorted(passed.index[passed]), sorted(passed.index[~passed])


def competent(e: Evidence, head: str) -> tuple[list[int], list[int]]:
    """Seeds that pass the head's gate at p = 0 and whose own slope is within it when all is over, and the others."""
    passed, failed = e.agents(head, exposure=0.0)
    if e.extinction is None:
        return passed, failed
    seeds = switched(e, head)
    own = after(e, seeds, 1.0, readout=head, mover="self")[1][:, -1]
    good = [s for s, x in zip(seeds, own, strict=True) if s in passed and abs(x - 1) <= metrics.TOLERANCE]
    return good, [s for s in seeds if s not in good]


def labelled(e: Evidence, exposure: float, seeds: list[int], readout: str = "reward") -> tuple[np.ndarray, np.ndarray]:
    """Labelled eventful episodes seen by update, repeats counted, and different ones: means over agents, [U] each."""
    t = e.progress
    t = t[(t.readout == readout) & (t.withheld == "nothing") & (t.until == 1) & np.isclose(t.exposure, exposure)]
    mean = t[t.seed.isin(seeds)].groupby("update")[["labelled", "different"]].mean()
    return mean.labelled.to_numpy(), mean.different.to_numpy()


def half_life(x: np.ndarray, rho: np.ndarray, by: np.ndarray | None = None, share: float = HALF) -> stats.Interval:
    """Where along x [U] the mean of rho [n, U] first falls to this share of its start, linear in log(1 + x).

    by [n, U]: what the mean is divided by first, such as heads without labels or the self of the same agents.  Where it
    never falls so far, at any bound, that is infinite.
    """
    pairs = np.stack([rho, np.ones_like(rho) if by is None else by], -1)

    def place(own: np.ndarray) -> np.ndarray:  # [..., n, U, 2]
        mean = own[..., 0].mean(-2) / own[..., 1].mean(-2)
        return _place(-mean, -share * mean[..., 0])

    found = stats.interval_of(place, pairs, resamples=999)
    return stats.Interval(*(_at(x, at) for at in (found.estimate, found.low, found.high)), found.n)


def extreme(rho: np.ndarray, highest: bool = False) -> tuple[int, np.ndarray]:
    """Checkpoint at which the mean over agents of rho [n, U] is lowest (or highest), and the coefficients [n] there.

    Each agent's is read at the checkpoint that the other agents' mean says, so that its own noise has not chosen it.
    """
    sign = -1.0 if highest else 1.0
    others = rho.sum(0) - rho if len(rho) > 1 else rho
    return int((sign * rho.mean(0)).argmin()), rho[np.arange(len(rho)), (sign * others).argmin(1)]


def generalised(never: np.ndarray, held: np.ndarray, told: np.ndarray) -> stats.Interval:
    """Share of the extinction of those with labels that those without got: (never - held) / (never - told), means over
    agents of coefficients [n] without any labels, with labels of others only, and with all."""
    ratio = lambda x: (x[..., 0] - x[..., 1]).mean(-1) / (x[..., 0] - x[..., 2]).mean(-1)  # noqa: E731
    return stats.interval_of(ratio, np.stack([never, held, told], 1))
