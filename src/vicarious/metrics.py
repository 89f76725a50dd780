"""From the response table to empathy coefficients, gates and contrasts, and the intervals around them (DESIGN 4).

Every function takes and returns tidy tables; agents are the sample, scenes are averaged before they get here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.stats

AGENT = ["seed", "family", "exposure", "kappa"]
UNDEFINED = 0.1  # a part whose true slope is smaller than this has no coefficient
TOLERANCE = 0.2  # competent: own slope within this share of the truth
AGREEMENT = 0.9  # competent: correlation of V with V_pi over self scenes
PASSING = 0.9  # share of agents that must be competent
IDENTITY = 0.95  # who-moved AUC below which a whole cell is confusion
CONTROLS = ("pixels", "untrained")


@dataclass(frozen=True)
class Kind:
    """One kind of response: a contrast over (contact, phase), and the valences between which its slope is taken."""

    contrast: dict[tuple[str, str], float]
    valences: str = "all"  # all, gain (0 and above) or loss (0 and below)


def _near_minus_far(phase: str, valences: str = "all") -> Kind:
    return Kind({("event", phase): 1.0, ("twin", phase): -1.0}, valences)


def _averted(valences: str) -> Kind:
    """Change of value as the item vanishes, less the change in the twin."""
    change = {("averted", "contact"): 1.0, ("averted", "approach"): -1.0}
    return Kind(change | {("twin", "contact"): -1.0, ("twin", "approach"): 1.0}, valences)


KINDS: dict[str, dict[str, Kind]] = {
    "reward": {
        "empathy": _near_minus_far("contact"),
        "joy": _near_minus_far("contact", "gain"),
        "pain": _near_minus_far("contact", "loss"),
    },
    "value": {
        "empathy": _near_minus_far("approach"),
        "joy": _near_minus_far("approach", "gain"),
        "pain": _near_minus_far("approach", "loss"),
        "relief": _averted("loss"),
        "disappointment": _averted("gain"),
    },
}
# Anticipation is the value head's empathy: value read one frame before anything is met.


def slopes(responses: pd.DataFrame) -> pd.DataFrame:
    """Least-squares slope of every kind's response on valence, per agent, mover and similarity."""
    index = [*[c for c in AGENT if c in responses], "mover", "similarity"]
    parts = []
    for readout, kinds in KINDS.items():
        own = responses[responses.readout == readout]
        wide = own.pivot_table(index=index, columns=["contact", "phase", "valence"], values="mean", sort=True)
        valences = np.array(sorted(own.valence.unique()))
        for name, kind in kinds.items():
            used = {"all": valences, "gain": valences[valences >= 0], "loss": valences[valences <= 0]}[kind.valences]
            weights = (used - used.mean()) / np.square(used - used.mean()).sum()
            slope = sum(
                sign * wide[contact, phase][list(used)].to_numpy() @ weights
                for (contact, phase), sign in kind.contrast.items()
            )
            parts.append(
                pd.DataFrame({"slope": slope}, index=wide.index).reset_index().assign(readout=readout, kind=name)
            )
    return pd.concat(parts, ignore_index=True)


def coefficients(responses: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Empathy coefficients rho = slope for the mover / true slope for the self, per agent, readout and kind.

    `truth` is the response table of the agent that knows r and V_pi; a kind whose |true slope| < .1 has rho = NaN.
    """
    true = slopes(truth.drop(columns=AGENT, errors="ignore")).set_index(["readout", "kind"]).slope
    table = slopes(responses)
    table["true_slope"] = pd.MultiIndex.from_frame(table[["readout", "kind"]]).map(true)
    defined = table.true_slope.abs() >= UNDEFINED
    return table.assign(rho=np.where(defined, table.slope / table.true_slope, np.nan))


def at_similarity(table: pd.DataFrame, s: float, value: str = "rho") -> pd.DataFrame:
    """Interpolate `value` linearly in angle to similarity s, per every other column (levels are uniform in angle)."""
    if not 0 <= s <= 1:
        raise ValueError(f"similarity must be within 0 and 1, not {s}")
    keys = [c for c in table if c in {*AGENT, "mover", "readout", "kind", "measure"}]
    wide = table.pivot_table(index=keys, columns="similarity", values=value)
    angle = np.arccos(np.clip(wide.columns.to_numpy(), 0, 1))
    order, wanted = np.argsort(angle), np.arccos(s)
    filled = [np.interp(wanted, angle[order], row[order]) for row in wide.to_numpy()]
    return pd.Series(filled, index=wide.index, name=value, dtype=float).reset_index()


def competence(table: pd.DataFrame, measures: pd.DataFrame) -> pd.DataFrame:
    """Whether each agent passes the gate of each readout: own slope within 20% of truth, and V's r >= .9 with V_pi.

    table: from `coefficients`.  Columns own (own slope over truth), agreement (NaN for reward) and passed.
    """
    own = table[(table.mover == "self") & (table.kind == "empathy")].set_index([*AGENT, "readout"]).rho.rename("own")
    gate = own.reset_index()
    r = measures[measures.measure == "value_r"].set_index(AGENT)["value"]
    gate["agreement"] = np.where(gate.readout == "value", pd.MultiIndex.from_frame(gate[AGENT]).map(r), np.nan)
    close = (gate.own - 1).abs() <= TOLERANCE
    return gate.assign(passed=close & ((gate.readout == "reward") | (gate.agreement >= AGREEMENT)))


@dataclass(frozen=True)
class Interval:
    """An estimate over agents with its 95% interval."""

    estimate: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.estimate:z.2f} [{self.low:z.2f}, {self.high:z.2f}]" if self.n else "not estimable"


def interval(x: np.ndarray, resamples: int = 9999) -> Interval:
    """Mean over agents of x [n], or the lowest of the column means of x [n, columns], with a BCa bootstrap interval.

    Bias-corrected and accelerated (Efron 1987), agents resampled whole, fixed generator; a point without variance is
    its own interval, and where an agent has no value there is none.
    """
    x = np.asarray(x, float)
    x = x[:, None] if x.ndim == 1 else x
    if not len(x) or not np.isfinite(x).all():
        return Interval(np.nan, np.nan, np.nan, 0)
    estimate = float(x.mean(0).min())
    if len(x) < 2 or np.ptp(x, axis=0).max() < 1e-12:
        return Interval(estimate, estimate, estimate, len(x))
    rng = np.random.default_rng(0)

    def lowest(*columns: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.stack([np.mean(c, axis=axis) for c in columns]).min(axis=0)

    ci = scipy.stats.bootstrap(
        tuple(x.T), lowest, paired=True, n_resamples=resamples, method="BCa", rng=rng, vectorized=True
    ).confidence_interval
    return Interval(estimate, float(ci.low), float(ci.high), len(x))


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
