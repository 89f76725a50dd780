"""Whether every family of world models does it (P6): one case for each that can be judged, and what goes with it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import scipy.stats

from . import metrics, stats
from .evidence import Evidence, per_seed
from .metrics import CONTROLS
from .stats import Interval

FAMILIES = ("recurrent", "rssm", "jepa", "transformer", "vae", "conv", "slots")  # that learn a general latent
EVERY = (*FAMILIES, *CONTROLS, "end_to_end")
MODES = ("observed", "imagined")
PROPERTIES = {  # of a code, that might go with empathy
    "transfer": "transfer from self to other",
    "cosine": "cosine of self's and other's coding axes",
    "cka": "CKA of self's and other's codes",
    "auc": "AUC of who moved",
}


def rho(mode: str) -> Callable[..., np.ndarray]:
    """The coefficient of contacts seen or imagined: a method of `Evidence`."""
    return Evidence.rho if mode == "observed" else Evidence.foreseen


def agents(mode: str, family: str, e: Evidence, readout: str) -> tuple[list[int], list[int]]:
    """Seeds that are competent, and those that are not; in imagination: whose own contact is foreseen within 20%."""
    passed, failed = e.agents(readout, family)
    if mode == "observed":
        return passed, failed
    own = e.foreseen(readout, passed, family, mover="self", s=1.0)
    asked = [seed for seed, x in zip(passed, own, strict=True) if np.isfinite(x)]
    close = {seed for seed, x in zip(passed, own, strict=True) if abs(x - 1) <= metrics.TOLERANCE}
    return sorted(close), sorted([*set(asked) - close, *failed]) if asked else []


def present(e: Evidence) -> list[tuple[str, str]]:
    """(family, mode) of every case for which there are agents at hand."""
    there = set(e.gates.family)
    imagined = set() if e.imagined is None else set(e.imagined.family)
    return [(f, m) for f in FAMILIES for m in MODES if f in (there if m == "observed" else imagined)]


def summary(e: Evidence, readout: str) -> pd.DataFrame:
    """One row per family at hand: agents, competence, who moved, and what its heads answer; means over agents."""
    rows = []
    for family in [f for f in EVERY if f in set(e.gates.family)]:
        passed, failed = e.agents(readout, family)
        seeds = sorted(passed + failed)
        own, at = e.rho(readout, seeds, family, "self", 1.0), e.rho(readout, seeds, family)
        r2 = e.measures[(e.measures.family == family) & (e.measures.measure == "reward_r2")]
        r2 = r2[np.isclose(r2.exposure, e.exposure)]
        rows.append(
            {
                "family": family,
                "agents": len(seeds),
                "competent": len(passed),
                "own slope": own.mean(),
                "own R2": r2.value.mean(),
                "AUC who moved": _mean(e.measure("auc", seeds, family)),
                "rho": at.mean(),
                "animacy contrast": (at - e.rho(readout, seeds, family, "drifter")).mean(),
                "excess over inputs": e.excess(readout, seeds, at).mean(0).min(),
                "imagined own slope": _mean(e.foreseen(readout, passed, family, "self", 1.0)),
                "imagined rho": _mean(e.foreseen(readout, agents("imagined", family, e, readout)[0], family)),
            }
        )
    return pd.DataFrame(rows).set_index("family")


def views(e: Evidence, readout: str) -> pd.DataFrame:
    """rho in every view of the world, of those agents who were shown all of them, competent or not.

    Columns family, view, agents, competent, own slope, AUC who moved, estimate, low, high.
    """
    rows, there = [], set(e.gates.family)
    for family in FAMILIES:
        others = sorted((name for name in there if name.startswith(f"{family}:")), reverse=True)
        if not others or family not in there:
            continue
        seen = {"allocentric": family} | {name.removeprefix(f"{family}:"): name for name in others}
        agents = {view: e.agents(readout, name) for view, name in seen.items()}
        seeds = sorted(set.intersection(*({*passed, *failed} for passed, failed in agents.values())))
        for view, name in seen.items():
            found = stats.interval(e.rho(readout, seeds, name))
            rows.append(
                {
                    "family": family,
                    "view": view,
                    "agents": len(seeds),
                    "competent": len(set(seeds) & set(agents[view][0])),
                    "own slope": e.rho(readout, seeds, name, "self", 1.0).mean(),
                    "AUC who moved": _mean(e.measure("auc", seeds, name)),
                    **{"estimate": found.estimate, "low": found.low, "high": found.high},
                }
            )
    return pd.DataFrame(rows)


def outside(table: pd.DataFrame, measures: pd.DataFrame, s: float) -> pd.DataFrame:
    """What values of agents without a world model answer, in the units of their own response to themselves.

    table, measures: as `outsiders.measure` has them, of all agents.  One row a family: agents, competent, own slope and
    correlation with V_pi, own reward per step and the scripted conduct's; and over all agents, competent or not, rho of
    the other and of the drifter at s and of the other at orthogonal looks, with intervals.
    """
    t, rows = table[table.kind == "empathy"], []
    told = measures.pivot_table(index=["family", "seed"], columns="measure", values="value")
    for family, own in told.groupby(level="family", sort=False):
        seeds = list(own.index.get_level_values("seed"))

        def rho(mover: str, looks: float, family: str = family, seeds: list = seeds) -> stats.Interval:
            return stats.interval(per_seed(t[(t.family == family) & (t.mover == mover)], "rho", seeds, looks))

        rows.append(
            {
                "family": family,
                "agents": len(seeds),
                "competent": int(own.passed.sum()),
                "own slope": own.own_slope.mean(),
                "r with V_pi": own.value_r.mean(),
                "own reward": own.gain.mean(),
                "scripted": own.gain_scripted.mean(),
                "rho": rho("other", s),
                "drifter": rho("drifter", s),
                "orthogonal": rho("other", 0.0),
            }
        )
    return pd.DataFrame(rows).set_index("family").sort_index(key=lambda names: names.str.count(":"), kind="stable")


def _mean(x: np.ndarray) -> float:
    return float(np.nanmean(x)) if np.isfinite(x).any() else np.nan


def pooled(e: Evidence, readout: str, beyond: bool = False, gated: bool = True) -> Interval:
    """Where rho (or the excess over inputs) of one more family would lie: random effects over families, observed.

    gated: from competent agents of families that count, else from all agents of all families.
    """
    effects, variances = [], []
    for family in [f for f, mode in present(e) if mode == "observed"]:
        passed, failed = e.agents(readout, family)
        seeds = passed if gated else sorted(passed + failed)
        if len(seeds) < 2 or (gated and not counts(e, readout, family, "observed")):
            continue
        own = e.rho(readout, seeds, family)
        if beyond:
            over = e.excess(readout, seeds, own)
            own = over[:, over.mean(0).argmin()]
        effects.append(own.mean())
        variances.append(own.var(ddof=1) / len(own))
    return stats.prediction_interval(np.array(effects), np.array(variances))


def properties(e: Evidence, readout: str) -> pd.DataFrame:
    """Per family, means over competent agents: rho and the `PROPERTIES` of its codes.  Exploratory."""
    rows = []
    for family in [f for f, mode in present(e) if mode == "observed"]:
        seeds = e.agents(readout, family)[0]
        if seeds:
            own = {name: _mean(e.measure(name, seeds, family)) for name in PROPERTIES}
            rows.append({"family": family, "rho": e.rho(readout, seeds, family).mean(), **own})
    return pd.DataFrame(rows).set_index("family")


def rank_correlations(table: pd.DataFrame) -> pd.DataFrame:
    """Spearman's rank correlation over families of rho with every property, with its two-sided p.  Exploratory."""
    rows = []
    for name, label in PROPERTIES.items():
        own = table[["rho", name]].dropna()
        r, p = scipy.stats.spearmanr(own.rho, own[name]) if len(own) > 2 else (np.nan, np.nan)
        rows.append({"property": label, "families": len(own), "rank correlation": r, "p": p})
    return pd.DataFrame(rows).set_index("property")


def counts(e: Evidence, readout: str, family: str, mode: str) -> bool:
    """Whether a case passes its gates: nine in ten agents competent, and who moved decodable."""
    passed, failed = agents(mode, family, e, readout)
    return e.decodable(passed, family) and len(passed) >= metrics.PASSING * (len(passed) + len(failed))


def intervals(e: Evidence, readout: str) -> pd.DataFrame:
    """rho and excess over inputs of every family's competent agents, and rho of controls: intervals as of verdicts.

    Columns panel, family, mode, estimate, low, high, n, counts.
    """
    rows = []
    for family, mode in present(e):
        seeds = agents(mode, family, e, readout)[0]
        if len(seeds) < 2:
            continue
        own = rho(mode)(e, readout, seeds, family=family)
        found = {"rho": own, "excess over inputs": e.excess(readout, seeds, own)}
        rows += [_interval(panel, family, mode, x, counts(e, readout, family, mode)) for panel, x in found.items()]
    for family in [f for f in EVERY if f not in FAMILIES and f in set(e.gates.family)]:
        passed, failed = e.agents(readout, family)
        own = e.rho(readout, sorted(passed + failed), family)
        rows.append(_interval("rho", family, "observed", own, True))
    return pd.DataFrame(rows)


def _interval(panel: str, family: str, mode: str, x: np.ndarray, counted: bool) -> dict:
    found = stats.interval(x)
    where = {"panel": panel, "family": family, "mode": mode, "counts": counted, "n": found.n}
    return {**where, "estimate": found.estimate, "low": found.low, "high": found.high}
