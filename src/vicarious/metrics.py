"""From the response table to empathy coefficients, gates and contrasts, and the intervals around them (DESIGN 4).

Every function takes and returns tidy tables; agents are the sample, scenes are averaged before they get here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

AGENT = ["seed", "family", "view", "exposure", "kappa"]
KEYS = {  # of curves in similarity; whoever varies the sizes of agents adds theirs
    *(*AGENT, "mover", "readout", "kind", "measure", "path", "alpha", "taste", "purpose"),
    *("set", "half", "update", "side", "withheld", "until", "weight_decay", "past", "head_width", "stop", "state"),
}
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


def slope_weights(valences: np.ndarray, kind: Kind) -> np.ndarray:
    """Weights [K] that give the least-squares slope over the valences which the kind is about."""
    used = {"all": valences == valences, "gain": valences >= 0, "loss": valences <= 0}[kind.valences]
    centred = np.where(used, valences - valences[used].mean(), 0.0)
    return centred / np.square(centred).sum()


def slopes(responses: pd.DataFrame) -> pd.DataFrame:
    """Least-squares slope of every kind's response on valence, per agent, mover and similarity."""
    index = [*[c for c in AGENT if c in responses], "mover", "similarity"]
    parts = []
    for readout, kinds in KINDS.items():
        own = responses[responses.readout == readout]
        if own.empty:
            continue
        wide = own.pivot_table(index=index, columns=["contact", "phase", "valence"], values="mean", sort=True)
        valences = np.array(sorted(own.valence.unique()))
        for name, kind in kinds.items():
            weights = slope_weights(valences, kind)
            slope = sum(
                sign * wide[contact, phase][list(valences)].to_numpy() @ weights
                for (contact, phase), sign in kind.contrast.items()
            )
            parts.append(
                pd.DataFrame({"slope": slope}, index=wide.index).reset_index().assign(readout=readout, kind=name)
            )
    nothing = pd.DataFrame(columns=[*index, "slope", "readout", "kind"])
    return pd.concat(parts, ignore_index=True) if parts else nothing


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
    return relative(slopes(responses), truth)


def relative(slopes_: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Slopes as coefficients rho = slope for the mover / true slope for the self, by readout and kind.

    `truth` is the response table of the agent that knows r and V_pi; a kind whose |true slope| < .1 has rho = NaN.
    """
    true = slopes(truth.drop(columns=AGENT, errors="ignore")).set_index(["readout", "kind"]).slope
    groups = slopes_.groupby(["readout", "kind"], observed=True, sort=False)
    of_group = np.array([true.get(key, np.nan) for key in groups.size().index], float)
    table = slopes_.assign(true_slope=of_group[groups.ngroup()] if len(slopes_) else np.empty(0))
    defined = table.true_slope.abs() >= UNDEFINED
    return table.assign(rho=np.where(defined, table.slope / table.true_slope, np.nan))


def over_truth(slopes: pd.DataFrame, coefficients: pd.DataFrame, kind: str = "empathy") -> pd.DataFrame:
    """Slopes of one kind as coefficients `rho`: over the true slopes that a table of `coefficients` was made with."""
    own = coefficients[coefficients.kind == kind].drop_duplicates("readout").set_index("readout").true_slope
    return slopes.assign(rho=slopes.slope / slopes.readout.astype(str).map(own))


def worth(
    responses: pd.DataFrame, readout: str, contrast: dict[tuple[str, str], float], mover: str, of: str = "mean"
) -> float:
    """Slope on valence of one contrast over (contact, phase), from the response table of a single agent or truth."""
    own = responses[(responses.readout == readout) & (responses.mover == mover)]
    wide = own.pivot_table(index="valence", columns=["contact", "phase"], values=of, observed=True).sort_index()
    y = sum(sign * wide[cell].to_numpy() for cell, sign in contrast.items())
    return float(slope_weights(wide.index.to_numpy(float), Kind(contrast)) @ y)


def nearness(responses: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """How much more value there is when an item is near, per agent, mover, similarity and valence, as `rho`.

    Event less twin at approach, over the true slope of the same on valence for the self.
    """
    kind = KINDS["value"]["empathy"]
    own = responses[(responses.readout == "value") & (responses.phase == "approach")]
    index = [*[c for c in AGENT if c in own], "mover", "similarity", "valence"]
    wide = own.pivot_table(index=index, columns="contact", values="mean", observed=True)
    slope = worth(truth, "value", kind.contrast, "self")
    return ((wide["event"] - wide["twin"]) / slope).rename("rho").reset_index()


def expected(truth: pd.DataFrame, returns: pd.DataFrame, ahead: pd.DataFrame, gamma: float) -> pd.Series:
    """What an imagined frame of contact is worth to its mover, as a slope on valence, by (mover, readout).

    The self's action is given, so that it is sure to meet the item: r is the valence, r + gamma V the valence and what
    the truth says of the frame.  What the other will do has to be expected: its next gain (`ahead`, the returns of one
    frame) and its V_pi (`returns`) by its own conduct, seen from the frame of approach.
    """
    met, near = ({("event", phase): 1.0, ("twin", phase): -1.0} for phase in ("contact", "approach"))
    found = {("self", "reward"): 1.0, ("self", "value"): 1.0 + gamma * worth(truth, "value", met, "self")}
    for mover in ("other", "drifter"):
        found[mover, "reward"] = worth(ahead, "other", near, mover)
        found[mover, "value"] = worth(returns, "other", near, mover)
    return pd.Series(found).rename_axis(["mover", "readout"])


def over_expected(slopes_: pd.DataFrame, expected: pd.Series) -> pd.DataFrame:
    """Slopes of imagined frames as coefficients `rho`: 1 = the mover's expected gain is valued as one's own."""
    keys = pd.MultiIndex.from_frame(slopes_[["mover", "readout"]].astype(str))
    true = keys.map(expected).to_numpy(float)
    return slopes_.assign(true_slope=true, rho=np.where(np.abs(true) >= UNDEFINED, slopes_.slope / true, np.nan))


def at_similarity(table: pd.DataFrame, s: float, value: str = "rho") -> pd.DataFrame:
    """Interpolate `value` linearly in angle to similarity s, per every other column (levels are uniform in angle)."""
    if not 0 <= s <= 1:
        raise ValueError(f"similarity must be within 0 and 1, not {s}")
    keys = [c for c in table if c in KEYS]
    wide = table.pivot_table(index=keys, columns="similarity", values=value, observed=True)
    angle = np.arccos(np.clip(wide.columns.to_numpy(float), 0, 1))
    order, wanted = np.argsort(angle, kind="stable"), np.arccos(s)
    angle, rows = angle[order], wide.to_numpy()[:, order]
    at = np.clip(np.searchsorted(angle, wanted, "right") - 1, 0, len(angle) - 1)
    found = rows[:, at]
    if at + 1 < len(angle) and wanted > angle[at]:
        found = (rows[:, at + 1] - found) / (angle[at + 1] - angle[at]) * (wanted - angle[at]) + found
    return pd.Series(found, index=wide.index, name=value, dtype=float).reset_index()


def competence(table: pd.DataFrame, measures: pd.DataFrame) -> pd.DataFrame:
    """Whether each agent passes the gate of each readout: own slope within 20% of truth, and V's r >= .9 with V_pi.

    table: from `coefficients`.  Columns own (own slope over truth), agreement (NaN for reward) and passed.
    """
    agent = [c for c in AGENT if c in table]
    own = table[(table.mover == "self") & (table.kind == "empathy")].set_index([*agent, "readout"]).rho.rename("own")
    gate = own.reset_index()
    r = measures[measures.measure == "value_r"].reindex(columns=[*agent, "value"]).set_index(agent)["value"]
    gate["agreement"] = np.where(gate.readout == "value", pd.MultiIndex.from_frame(gate[agent]).map(r), np.nan)
    close = (gate.own - 1).abs() <= TOLERANCE
    return gate.assign(passed=close & ((gate.readout == "reward") | (gate.agreement >= AGREEMENT)))
