"""From the response table to empathy coefficients, gates and contrasts (DESIGN 4).

Every function takes and returns tidy tables; agents are the sample, scenes are averaged before they get here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

AGENT = ["seed", "family", "variant", "view", "company", "kappa_gain", "kappa_loss", "others", "rewards", "place"]
KEYS = {  # of curves in similarity; whoever varies the sizes of agents adds theirs
    *(
        *AGENT,
        "address",
        "mover",
        "readout",
        "kind",
        "measure",
        "path",
        "alpha",
        "set",
        "half",
        "update",
        "stop",
        "state",
    )
}
UNDEFINED = 0.1  # a part whose true slope is smaller than this has no coefficient
TOLERANCE = 0.2  # competent: own slope within this share of the truth
AGREEMENT = 0.9  # competent: correlation of V with V_pi over quiet scenes
PASSING = 0.9  # share of agents that must be competent
IDENTITY = 0.95  # who-moved AUC below which agents are confused
NEAR = 0.98  # similarity by whose coefficient the radius is defined
RESPONSE = ("contact", "valence", "phase", "readout", "mean", "mover", "similarity")  # what slopes are made of
MAIN = {"reward": "empathy", "value": "joy"}  # the kind that a readout's coefficient is of


@dataclass(frozen=True)
class Kind:
    """One kind of response: a contrast over (contact, phase), and the valences between which its slope is taken.

    normalised: whether it has a coefficient, over the true slope.
    """

    contrast: dict[tuple[str, str], float]
    valences: str = "all"  # all, gain (0 and above) or loss (0 and below)
    normalised: bool = True


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
        "joy": _near_minus_far("approach", "gain"),
        "pain": replace(_near_minus_far("approach", "loss"), normalised=False),  # what is bad is avoided (DESIGN 4)
        "relief": _averted("loss"),
        "disappointment": _averted("gain"),
    },
}
# Anticipation is the value head's joy: value read one frame before anything is met.


def slope_weights(valences: np.ndarray, kind: Kind) -> np.ndarray:
    """Weights [K] that give the least-squares slope over the valences which the kind is about."""
    used = {"all": valences == valences, "gain": valences >= 0, "loss": valences <= 0}[kind.valences]
    centred = np.where(used, valences - valences[used].mean(), 0.0)
    return centred / np.square(centred).sum()


def slopes(responses: pd.DataFrame) -> pd.DataFrame:
    """Least-squares slope of every kind's response on valence, per agent, mover and similarity.

    NaN where a response is missing.  Raises ValueError where one is there twice.
    """
    index = [*[c for c in responses if c in KEYS - {"readout", "mover"}], "mover", "similarity"]
    groups = responses.groupby(index, observed=True, dropna=False)
    keys, group = groups.size().index.to_frame(index=False), groups.ngroup().to_numpy()
    parts = [pd.DataFrame(columns=[*index, "slope", "readout", "kind"])]
    for readout, kinds in KINDS.items():
        own = np.flatnonzero(responses.readout == readout)
        rows, of = responses.iloc[own], group[own]
        valences, rank = np.unique(rows.valence, return_inverse=True)
        mean, present = rows["mean"].to_numpy(), np.bincount(of, minlength=len(keys)) > 0
        for name, kind in kinds.items() if len(own) else ():
            slope, weights = np.zeros(len(keys)), slope_weights(valences, kind)
            for (contact, phase), sign in kind.contrast.items():
                used = np.flatnonzero((rows.contact == contact) & (rows.phase == phase))
                found = np.bincount(of[used], minlength=len(keys))
                if found.max() > len(valences):
                    raise ValueError(f"there is more than one {readout} of a {contact} at {phase} of the same agents")
                part = np.bincount(of[used], weights[rank[used]] * mean[used], len(keys))
                slope += np.where(found == len(valences), sign * part, np.nan)
            parts.append(keys[present].assign(slope=slope[present], readout=readout, kind=name))
    return pd.concat(parts[1:] or parts, ignore_index=True)


def scene_slope(
    out: np.ndarray, kind: Kind, ladder: Sequence[float], contacts: Sequence[str], phases: Sequence[str]
) -> np.ndarray:
    """Slope [n] of one kind's response on valence, scene by scene, of predictions out [X, K, n, phases]."""
    contrast = sum(
        sign * np.asarray(out[contacts.index(c), :, :, phases.index(p)], float)
        for (c, p), sign in kind.contrast.items()
    )  # [K, n]
    return slope_weights(np.asarray(ladder, float), kind) @ contrast


def scene_slopes(
    predictions: Iterable[tuple[str, float, np.ndarray]],
    ladder: Sequence[float],
    contacts: Sequence[str],
    phases: Sequence[str],
) -> pd.DataFrame:
    """Slopes as in `slopes`, scene by scene and then by halves of the scenes (even and odd), of one agent.

    predictions: (mover, similarity, [X, K, n, phases, readouts]).  Columns: half, readout, kind, mover, similarity,
    slope (mean over the half's scenes), sd over them, n_scenes.
    """
    rows = []
    for mover, s, out in predictions:
        for r, (readout, kinds) in enumerate(KINDS.items()):
            for name, kind in kinds.items():
                slope = scene_slope(out[..., r], kind, ladder, contacts, phases)
                for half in (0, 1):
                    own = slope[half::2]
                    rows.append((half, readout, name, mover, s, own.mean(), own.std(ddof=1), len(own)))
    return pd.DataFrame(rows, columns=["half", "readout", "kind", "mover", "similarity", "slope", "sd", "n_scenes"])


def coefficients(responses: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Empathy coefficients of every kind, per agent, mover and similarity, from response tables."""
    return relative(slopes(responses), slopes(truth))


def relative(slopes_: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Slopes as coefficients rho = slope for the mover / true slope for the self, by readout and kind.

    `truth` has the slopes of the agent that knows r and V_pi; a kind that is not normalised, or whose |true slope|
    < .1, has rho = NaN.
    """
    true = truth[truth.mover == "self"].set_index(["readout", "kind"]).slope
    groups = slopes_.groupby(["readout", "kind"], observed=True, sort=False)
    keys = groups.size().index
    of_group = np.array([true.get(key, np.nan) for key in keys], float)
    has = np.array([KINDS[readout][kind].normalised for readout, kind in keys], bool)
    table = slopes_.assign(true_slope=of_group[groups.ngroup()] if len(slopes_) else np.empty(0))
    defined = (table.true_slope.abs() >= UNDEFINED) & (has[groups.ngroup()] if len(slopes_) else True)
    return table.assign(rho=np.where(defined, table.slope / table.true_slope, np.nan))


def over_truth(slopes: pd.DataFrame, coefficients: pd.DataFrame) -> pd.DataFrame:
    """Slopes of every readout's main kind as coefficients `rho`: over the true slopes that a table of `coefficients`
    was made with."""
    own = coefficients[coefficients.kind == coefficients.readout.map(MAIN)].drop_duplicates("readout")
    return slopes.assign(rho=slopes.slope / slopes.readout.astype(str).map(own.set_index("readout").true_slope))


def whose_worth(responses: pd.DataFrame, readout: str, theirs: dict[float, float]) -> pd.DataFrame:
    """How much an agent credits what is good for itself, and what is good for the other, in the other's events.

    theirs: what an item that is worth v to the self is worth to the other, by v.  Least-squares slopes of event minus
    twin on both worths at once, per agent, mover and similarity, as columns own and other.
    """
    (_, phase), *_ = KINDS[readout][MAIN[readout]].contrast
    some = responses[(responses.readout == readout) & (responses.phase == phase)]
    index = [*[c for c in AGENT if c in some], "mover", "similarity"]
    wide = some.pivot_table(index=index, columns=["contact", "valence"], values="mean", observed=True)
    valences = np.array(sorted(some.valence.unique()))
    design = np.column_stack([np.ones(len(valences)), valences, [theirs[v] for v in valences]])
    contrast = (wide["event"][list(valences)] - wide["twin"][list(valences)]).to_numpy()
    found = np.linalg.lstsq(design, contrast.T, rcond=None)[0]
    return pd.DataFrame({"own": found[1], "other": found[2]}, index=wide.index).reset_index()


def widened(table: pd.DataFrame, index: list[str], column: str, value: str) -> pd.DataFrame:
    """`value` with a row for each index and a column for each level, both ascending; NaN where there is none.

    Raises ValueError where a place has two values.  (`pivot_table` averages them, and takes three times as long.)
    """
    return table.dropna(subset=[value]).set_index([*index, column])[value].unstack()


def at_similarity(table: pd.DataFrame, s: float, value: str = "rho") -> pd.DataFrame:
    """Interpolate `value` linearly in angle to similarity s, per every other column (levels are uniform in angle)."""
    if not 0 <= s <= 1:
        raise ValueError(f"similarity must be within 0 and 1, not {s}")
    keys = [c for c in table if c in KEYS]
    wide = widened(table, keys, "similarity", value)
    angle = np.arccos(np.clip(wide.columns.to_numpy(float), 0, 1))
    order, wanted = np.argsort(angle, kind="stable"), np.arccos(s)
    angle, rows = angle[order], wide.to_numpy()[:, order]
    at = np.clip(np.searchsorted(angle, wanted, "right") - 1, 0, len(angle) - 1)
    found = rows[:, at]
    if at + 1 < len(angle) and wanted > angle[at]:
        found = (rows[:, at + 1] - found) / (angle[at + 1] - angle[at]) * (wanted - angle[at]) + found
    return pd.Series(found, index=wide.index, name=value, dtype=float).reset_index()


def radius(s: np.ndarray, rho: np.ndarray) -> np.ndarray:
    """The similarity [n] at which coefficients rho [n, L] at s [L] first fall to half of theirs at s = .98.

    Going from likeness outwards, linearly in angle between levels; 0 where they never do, NaN where there is none.
    """
    angle = np.arccos(np.clip(s, 0, 1))
    order = np.argsort(angle)
    angle, rho = angle[order], rho[:, order]
    start, found = np.arccos(NEAR), []
    for row in rho:
        half = np.interp(start, angle, row) / 2
        beyond = angle > start
        x, y = np.r_[start, angle[beyond]], np.r_[2 * half, row[beyond]]
        below = np.flatnonzero(y <= half)
        if half <= 0 or not np.isfinite(half):
            found.append(np.nan)
        elif not len(below):
            found.append(0.0)
        else:
            i = below[0]
            found.append(np.cos(np.interp(half, [y[i], y[i - 1]], [x[i], x[i - 1]])))
    return np.array(found)


def competence(table: pd.DataFrame, measures: pd.DataFrame) -> pd.DataFrame:
    """Whether each agent passes the gate of each readout, read on the self's scenes in which the other has nothing:
    own slope within 20% of truth, and V's r >= .9 with V_pi.

    table: from `coefficients`.  Columns own (own slope over truth), agreement (NaN for reward) and passed.
    """
    agent = [c for c in AGENT if c in table]
    main = table[(table.mover == "quiet") & (table.kind == table.readout.map(MAIN))]
    gate = main.set_index([*agent, "readout"]).rho.rename("own").reset_index()
    r = measures[measures.measure == "value_r"].reindex(columns=[*agent, "value"]).set_index(agent)["value"]
    gate["agreement"] = np.where(gate.readout == "value", pd.MultiIndex.from_frame(gate[agent]).map(r), np.nan)
    close = (gate.own - 1).abs() <= TOLERANCE
    return gate.assign(passed=close & ((gate.readout == "reward") | (gate.agreement >= AGREEMENT)))
