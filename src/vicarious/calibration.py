"""Whether the instrument measures what it claims: planted couplings come back and controls stay silent (DESIGN 5).

The conditions are rules like any prediction's; while one of them is not supported, every verdict carries a note.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd

from . import development, metrics, stats
from .evidence import TAUGHT, Evidence, S
from .predictions import LOOKS, NULL, R2, RECOVERY, determination, judge, slope
from .rules import SWEEP, Bar, Criterion, Prediction
from .study import KAPPAS

SILENT = ("shuffled", "disjoint", "oracle")  # must be null at p = 1
CELL = ["exposure", "kappa"]


def _competent_throughout(e: Evidence, head: str) -> tuple[list[int], list[int]]:
    """Seeds whose agents pass the head's gate at every planted coupling, and the others."""
    g = e.gates[(e.gates.readout == head) & (e.gates.family == "recurrent") & (e.gates.exposure == TAUGHT)]
    passed = g.groupby("seed").agg(passed=("passed", "all"), couplings=("kappa", "nunique"))
    good = passed.passed & (passed.couplings == len(KAPPAS))
    return sorted(passed.index[good]), sorted(passed.index[~good])


def _competent(family: str) -> Callable[[Evidence, str], tuple[list[int], list[int]]]:
    """Seeds of a control that pass its head's gate when taught, and the others: who knows nothing is silent too."""

    def agents(e: Evidence, head: str) -> tuple[list[int], list[int]]:
        g = e.gates[(e.gates.readout == head) & (e.gates.family == family) & (e.gates.exposure == TAUGHT)]
        return sorted(g[g.passed].seed), sorted(g[~g.passed].seed)

    return agents


def _everyone(family: str) -> Callable[[Evidence, str], tuple[list[int], list[int]]]:
    """All seeds of a control, which bypasses the gate."""

    def agents(e: Evidence, head: str) -> tuple[list[int], list[int]]:
        t = e.coefficients
        return sorted(t[(t.family == family) & (t.exposure == TAUGHT)].seed.unique()), []

    return agents


def _planted(head: str, s: float) -> tuple[Criterion, Criterion]:
    def values(e: Evidence, seeds: list[int]) -> np.ndarray:
        return e.recovered(head, seeds, s)

    low, high = 1 - RECOVERY, 1 + RECOVERY
    off = (Bar("below", low), Bar("above", high))
    return (
        Criterion(f"the slope at s = {s:g}", Bar("within", low, high), off, values, slope),
        Criterion(f"R2 at s = {s:g}", Bar("above", R2), (Bar("below", R2),), values, determination),
    )


def _silent(head: str, family: str, s: float) -> Criterion:
    def values(e: Evidence, seeds: list[int]) -> np.ndarray:
        return e.rho(head, seeds, family, s=s, exposure=TAUGHT)

    return Criterion(f"rho at s = {s:g}", Bar("null", NULL), (Bar("above", NULL), Bar("below", -NULL)), values)


CONDITIONS = [
    Prediction(
        f"planted/{head}",
        f"A planted coupling comes back from the {head} head",
        "rho against planted kappa at p = 1, all agents together",
        "02-calibration",
        tuple(criterion for s in LOOKS for criterion in _planted(head, s)),
        head,
        planned=SWEEP,
        agents=_competent_throughout,
    )
    for head in metrics.KINDS
] + [
    Prediction(
        f"{family}/{head}",
        f"The {head} head is silent: {claim}",
        "rho at p = 1",
        "02-calibration",
        tuple(_silent(head, family, s) for s in LOOKS),
        head,
        family,
        planned=SWEEP,
        agents=_everyone(family) if family == "shuffled" else _competent(family),
        identity=False,
    )
    for family, claim in zip(
        SILENT,
        ("rewards of another episode", "encoders that share nothing, told who is who", "the true state, marked"),
        strict=True,
    )
    for head in metrics.KINDS
]


def conditions(evidence: Evidence | None) -> pd.DataFrame:
    """One row per condition, as `predictions.verdicts` has them."""
    evidence = evidence and replace(evidence, s=S)  # conditions are read at similarities of their own
    return pd.DataFrame([judge(c, evidence) for c in CONDITIONS])


def calibrated(evidence: Evidence | None) -> bool:
    """Whether every condition is supported."""
    if evidence is None:
        return False
    evidence = replace(evidence, s=S)
    return all(judge(c, evidence)["verdict"] == "supported" for c in CONDITIONS)  # not beyond the first that is not


def scores(precision: pd.DataFrame, s: float, kind: str = "empathy") -> pd.DataFrame:
    """Coefficients of one kind at similarity s by set and half of scenes: agent columns, readout, set, half, rho.

    precision: `Evidence.precision`, coefficients from `metrics.scene_slopes` over sets.
    """
    found = metrics.at_similarity(precision[(precision.mover == "other") & (precision.kind == kind)], s)
    return found.assign(readout=found.readout.astype(str))  # published tables hold categories


def reliability(scored: pd.DataFrame) -> pd.DataFrame:
    """Split-half and ICC(2,k) of each readout over the pooled design of couplings and exposures, seeds resampled whole.

    scored: from `scores`.  Columns readout, statistic, estimate, low, high, agents.
    """
    rows = []
    for readout, own in scored.groupby("readout"):
        halves = own[own.set == 0].pivot_table(index="seed", columns=[*CELL, "half"], values="rho")
        sets = own.groupby(["seed", *CELL, "set"]).rho.mean().unstack([*CELL, "set"])
        for name, table, statistic in (
            ("split-half", halves, development.split_half),
            ("ICC(2,k)", sets.sort_index(axis=1), development.icc),
        ):
            k = table.columns.get_level_values(-1).nunique()
            x = table.sort_index(axis=1).to_numpy().reshape(len(table), -1, k)
            found = stats.interval_of(statistic, x)
            rows.append((readout, name, found.estimate, found.low, found.high, x.shape[0] * x.shape[1]))
    return pd.DataFrame(rows, columns=["readout", "statistic", "estimate", "low", "high", "agents"])


def measurement_error(scored: pd.DataFrame) -> pd.DataFrame:
    """Within each cell: how far an agent's rho moves from one set of scenes to another, and how far agents differ.

    Columns readout, exposure, kappa, n, mean, sd_agents (of their means over sets), error (of one set).
    """
    sets = scored.groupby(["readout", *CELL, "seed", "set"]).rho.mean()
    agents = sets.groupby(level=["readout", *CELL, "seed"]).agg(["mean", "var"])
    cells = agents.groupby(level=["readout", *CELL])
    table = pd.DataFrame({"n": cells.size(), "mean": cells["mean"].mean(), "sd_agents": cells["mean"].std()})
    return table.assign(error=np.sqrt(cells["var"].mean())).reset_index()


def detectable(scored: pd.DataFrame, shown: int, readout: str, scenes: list[int], agents: list[int]) -> pd.DataFrame:
    """Smallest mean rho that agents at p = 0 would show, by number of scenes and of agents (`stats.detectable`).

    scored: from `scores`, every half of a set with `shown` scenes.  All agents see the same scenes, so that what is
    particular to a scene is shared by them and does not average out over agents.
    """
    own = scored[(scored.readout == readout) & (scored.exposure == 0) & (scored.kappa == 0)]
    parts = stats.components(own.pivot_table(index="seed", columns=["set", "half"], values="rho").to_numpy())
    return stats.detectable(parts.rows, shown * parts.rest, shown * parts.columns, np.array(scenes), np.array(agents))


def confusion(e: Evidence, head: str, seeds: list[int], exposure: float = 0.0) -> pd.DataFrame:
    """rho by similarity, split into what taking the other for the self would explain, and the remainder, per agent.

    confused = probability that the mover is the self (calibrated probe) times the coefficient for the self.  Columns
    seed, similarity, rho, confused, remainder.
    """
    t = e.coefficients
    t = t[(t.readout == head) & (t.kind == "empathy") & (t.family == "recurrent") & (t.kappa == 0)]
    t = t[np.isclose(t.exposure, exposure) & t.seed.isin(seeds)]
    own = t[t.mover == "self"].set_index("seed").rho
    m = e.measures[
        (e.measures.measure == "p_self") & (e.measures.mover == "other") & (e.measures.family == "recurrent")
    ]
    table = t[t.mover == "other"][["seed", "similarity", "rho"]].merge(
        m[["seed", "similarity", "value"]].rename(columns={"value": "p_self"}), on=["seed", "similarity"]
    )
    table["confused"] = table.p_self * table.seed.map(own)
    return table.assign(remainder=table.rho - table.confused).drop(columns="p_self")


def true_slopes(returns: pd.DataFrame) -> pd.DataFrame:
    """What an event really does to each body's return: slope by kind and mover (index) and body (columns)."""
    parts = []
    for body in ("self", "other"):
        own = returns[returns.readout == body].assign(readout="value")
        parts.append(metrics.slopes(own.drop(columns=metrics.AGENT, errors="ignore")).assign(body=body))
    table = pd.concat(parts)
    return table.pivot_table(index=["kind", "mover"], columns="body", values="slope", sort=False)
