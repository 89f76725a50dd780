"""Chapter 07: whether every family of world models does it, one case for each, and what goes with it (P6)."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
import scipy.stats
from pydantic import Field

from ... import metrics, stats
from ...config import Stage
from ...metrics import CONTROLS
from ...stats import Interval
from .. import studies
from ..plots import COLOURS, Line, draw, draw_similarity, over_similarity, subplots
from ..results import Agents, Results, rho
from ..studies import Sweep, similarity_of
from ..verdicts import FAMILIES as PLANNED
from ..verdicts import Prediction, rule
from .misgeneralisation import excess, looks_contrast
from .misgeneralisation import rho_of as rho_at

VIEWS_SEEN = ("allocentric", "left", "centred")
GENERAL = ("recurrent", "rssm", "jepa", "transformer", "vae", "conv", "slots")  # that learn a general latent
EVERY = (*GENERAL, *CONTROLS, "end_to_end")
MODES = ("observed", "imagined")
PROPERTIES = {  # of a code, that might go with empathy
    "transfer": "transfer from self to other",
    "cosine": "cosine of self's and other's coding axes",
    "cka": "CKA of self's and other's codes",
    "auc": "AUC of who moved",
}


class Generality(Sweep):
    chapter: ClassVar[str] = "07-generality"

    similarity: float = similarity_of("at which the verdicts are read, cos(angle)")
    readout: Literal["reward", "value"] = Field("reward", description="head that the figures show")

    def agents(self) -> list[Stage]:
        return studies.generality(self.profile, self.seeds)


def coefficient_of(mode: str) -> Callable[..., np.ndarray]:
    """The coefficient of contacts seen or imagined: a method of `Results`."""
    return Results.rho if mode == "observed" else Results.foreseen


def split_by_gate(mode: str, family: str, e: Results, readout: str) -> Agents:
    """Seeds that are competent, and those that are not; in imagination: whose own contact is foreseen within 20%."""
    passed, failed = e.split_by_gate(readout, family)
    if mode == "observed":
        return passed, failed
    own = e.foreseen(readout, passed, family, mover="self", s=1.0)
    asked = [seed for seed, x in zip(passed, own, strict=True) if np.isfinite(x)]
    close = {seed for seed, x in zip(passed, own, strict=True) if abs(x - 1) <= metrics.TOLERANCE}
    return sorted(close), sorted([*set(asked) - close, *failed]) if asked else []


def cases_at_hand(e: Results) -> list[tuple[str, str]]:
    """(family, mode) of every case for which there are agents at hand."""
    there = e.families
    imagined = set(e.table("imagined").family) if e.has("imagined") else set()
    return [(f, m) for f in GENERAL for m in MODES if f in (there if m == "observed" else imagined)]


def family_table(e: Results, readout: str) -> pd.DataFrame:
    """One row per family at hand: agents, competence, who moved, and what its heads predict; means over agents."""
    rows = []
    for family in [f for f in EVERY if f in e.families]:
        passed, failed = e.split_by_gate(readout, family)
        seeds = sorted(passed + failed)
        own, at = e.rho(readout, seeds, family, mover="self", s=1.0), e.rho(readout, seeds, family)
        r2 = e.pick("measures", measure="reward_r2", family=family, exposure=e.exposure)
        able = split_by_gate("imagined", family, e, readout)[0]
        row = {"family": family, "agents": len(seeds), "competent": len(passed), "own slope": own.mean()}
        row |= {"own R2": r2.value.mean(), "AUC who moved": _mean(e.measure("auc", seeds, family)), "rho": at.mean()}
        row |= {"animacy contrast": (at - e.rho(readout, seeds, family, mover="drifter")).mean()}
        row |= {"excess over inputs": e.excess(readout, seeds, at).mean(0).min()}
        row |= {"imagined own slope": _mean(e.foreseen(readout, passed, family, mover="self", s=1.0))}
        rows.append(row | {"imagined rho": _mean(e.foreseen(readout, able, family))})
    return pd.DataFrame(rows).set_index("family")


def views(e: Results, readout: str) -> pd.DataFrame:
    """rho in every view of the world, of those agents who were shown all of them, competent or not.

    Columns family, view, agents, competent, own slope, AUC who moved, estimate, low, high.
    """
    rows, seen = [], sorted(set(e.gates["view"]), key=VIEWS_SEEN.index) if "view" in e.gates else []
    for family in GENERAL:
        own = {view: e.split_by_gate(readout, family, view=view) for view in seen}
        own = {view: groups for view, groups in own.items() if any(groups)}
        if len(own) < 2:
            continue
        seeds = sorted(set.intersection(*({*passed, *failed} for passed, failed in own.values())))
        for view, (passed, _) in own.items():
            found = stats.interval(e.rho(readout, seeds, family, view=view))
            row = {"family": family, "view": view, "agents": len(seeds), "competent": len(set(seeds) & set(passed))}
            row |= {"own slope": e.rho(readout, seeds, family, mover="self", s=1.0, view=view).mean()}
            row |= {"AUC who moved": _mean(e.measure("auc", seeds, family, view=view))}
            rows.append(row | {"estimate": found.estimate, "low": found.low, "high": found.high})
    return pd.DataFrame(rows)


def outside(table: pd.DataFrame, measures: pd.DataFrame, s: float) -> pd.DataFrame:
    """What values of agents without a world model predict, in the units of their own response to themselves.

    table, measures: from `interop.sb3.external_tables`, of all agents.  One row a family and kind of world: agents,
    competent, own slope and correlation with V_pi, own reward per step and the scripted conduct's; and over all agents,
    competent or not, rho of the other and of the drifter at s and of the other at orthogonal appearance, with
    intervals.
    """
    t, rows = table[table.kind == "empathy"], []
    found = measures.pivot_table(index=["eventful", "family", "seed"], columns="measure", values="value")
    for (eventful, family), own in found.groupby(level=["eventful", "family"], sort=False):
        seeds = list(own.index.get_level_values("seed"))
        agents = t[(t.family == family) & (t.eventful == eventful)]
        means = own[["own_slope", "value_r", "gain", "gain_scripted"]].mean()
        means.index = ["own slope", "r with V_pi", "own reward", "scripted"]
        row = {"family": family, "eventful": eventful, "agents": len(seeds), "competent": int(own.passed.sum())}
        read = {"rho": ("other", s), "drifter": ("drifter", s), "orthogonal": ("other", 0.0)}
        found = {k: stats.interval(rho(agents[agents.mover == who], seeds, x)) for k, (who, x) in read.items()}
        rows.append({**row, **means, **found})
    table = pd.DataFrame(rows).sort_values(["eventful", "family"], ascending=[False, True], kind="stable")
    return table.set_index(["family", "eventful"])


def _mean(x: np.ndarray) -> float:
    return float(np.nanmean(x)) if np.isfinite(x).any() else np.nan


def pooled(beyond: bool, readout: str, e: Results, gated: bool = True) -> Interval:
    """Where rho (or the excess over inputs) of one more family would lie: random effects over families, observed.

    gated: from competent agents of families that count, else from all agents of all families.
    """
    effects, variances = [], []
    for family in [f for f, mode in cases_at_hand(e) if mode == "observed"]:
        passed, failed = e.split_by_gate(readout, family)
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


def properties(e: Results, readout: str) -> pd.DataFrame:
    """Per family, means over competent agents: rho and the `PROPERTIES` of its codes.  Exploratory."""
    rows = []
    for family in [f for f, mode in cases_at_hand(e) if mode == "observed"]:
        seeds = e.split_by_gate(readout, family)[0]
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


def counts(e: Results, readout: str, family: str, mode: str) -> bool:
    """Whether a case passes its gates: nine in ten agents competent, and who moved decodable."""
    passed, failed = split_by_gate(mode, family, e, readout)
    return e.decodable(passed, family) and len(passed) >= metrics.PASSING * (len(passed) + len(failed))


def intervals(e: Results, readout: str) -> pd.DataFrame:
    """rho and excess over inputs of every family's competent agents, and rho of controls: intervals as of verdicts.

    Columns panel, family, mode, estimate, low, high, n, counts.
    """
    rows = []
    for family, mode in cases_at_hand(e):
        seeds = split_by_gate(mode, family, e, readout)[0]
        if len(seeds) < 2:
            continue
        own = coefficient_of(mode)(e, readout, seeds, family=family)
        found = {"rho": own, "excess over inputs": e.excess(readout, seeds, own)}
        rows += [_interval(panel, family, mode, x, counts(e, readout, family, mode)) for panel, x in found.items()]
    for family in [f for f in EVERY if f not in GENERAL and f in e.families]:
        passed, failed = e.split_by_gate(readout, family)
        own = e.rho(readout, sorted(passed + failed), family)
        rows.append(_interval("rho", family, "observed", own, True))
    return pd.DataFrame(rows)


def _interval(panel: str, family: str, mode: str, x: np.ndarray, counted: bool) -> dict:
    where = {"panel": panel, "family": family, "mode": mode, "counts": counted}
    return where | vars(stats.interval(x))


def _case(part: str, head: str, family: str, mode: str) -> Prediction:
    """P2 read in one family, of contacts that it observes or imagines."""
    at = lambda head, e, seeds, **where: coefficient_of(mode)(e, head, seeds, family=family, **where)  # noqa: E731
    looks = lambda head, e, seeds: at(head, e, seeds) - at(head, e, seeds, s=0.0)  # noqa: E731
    beyond = lambda head, e, seeds: e.excess(head, seeds, at(head, e, seeds))  # noqa: E731
    like = rule("P2a", at, looks) if part == "a" else rule("P2b", beyond)
    own = {"id": f"P6{part}/{head}/{family}/{mode}", "claim": f"{family} {mode}", "family": family, "planned": PLANNED}
    return replace(next(r for r in like if r.head == head), **own, agents=partial(split_by_gate, mode, family))


def _cases(part: str, head: str, e: Results) -> list[Prediction]:
    return [_case(part, head, family, mode) for family, mode in cases_at_hand(e)]


ROWS = [
    *rule("P6a", rho_at, looks_contrast, cases=partial(_cases, "a"), pooled=partial(pooled, False)),
    *rule("P6b", excess, cases=partial(_cases, "b"), pooled=partial(pooled, True)),
]


def families(rows: pd.DataFrame, bars: dict[str, float]) -> pd.DataFrame:
    """Coefficient and excess family by family: rows with panel, family, mode, estimate, low, high and counts.

    Filled where contacts are observed, hollow where they are imagined, pale where the family does not count.
    bars: panel -> the bar of the rule.
    """
    names = list(dict.fromkeys(rows.family))
    fig, axes = subplots(len(bars), len(bars), (4.6, 0.5 * len(names) + 0.9), sharey=True)
    for ax, (panel, bar) in zip(axes, bars.items(), strict=True):
        for row in rows[rows.panel == panel].itertuples():
            observed, alpha = row.mode == "observed", 1.0 if row.counts else 0.35
            y = -names.index(row.family) + (0.13 if observed else -0.13)
            colour = COLOURS[("other" if observed else "labelled") if row.family in GENERAL else "pixels"]
            ax.hlines(y, row.low, row.high, color=colour, lw=2, alpha=alpha)
            ax.plot(row.estimate, y, "o", ms=6, color=colour, mfc=colour if observed else "white", alpha=alpha)
        ax.axvline(0, color="0.7", lw=0.8)
        ax.axvline(bar, color="0.7", lw=0.8, ls="--")
        ax.set(xlabel=panel)
        ax.set_yticks(-np.arange(len(names)), names)
    axes[0].plot([], [], "o", color=COLOURS["other"], label="contact observed")
    axes[0].plot([], [], "o", mfc="white", color=COLOURS["labelled"], label="contact imagined")
    fig.legend(loc="outside lower center", ncols=2, fontsize=9)
    return rows


def by_view(rows: pd.DataFrame) -> pd.DataFrame:
    """Coefficients by view of the world, a line a family: rows of `views`."""
    seen, groups = list(dict.fromkeys(rows["view"])), list(rows.groupby("family", sort=False))
    at = [np.arange(len(own)) + 0.06 * (i - 1) for i, (_, own) in enumerate(groups)]
    known = [(own.estimate, own.low, own.high) for _, own in groups]
    lines = [Line(family, x, y, bounds=True) for (family, _), x, y in zip(groups, at, known, strict=True)]
    axis = lambda ax: (ax.set_xticks(np.arange(len(seen)), seen), ax.set_xlabel("view of the world"))  # noqa: E731
    draw(lines, "view", "rho", axis, size=(6.4, 3.6), label="rho", inside=True, bars=True)
    return rows[["family", "view", "estimate", "low", "high"]]


def spectra(results: Results, readout: str, names: list[str], mark: float) -> pd.DataFrame:
    """rho against similarity, a panel a family with the pixel control dashed: other in colour, drifter green."""
    t = results.pick("coefficients", readout=readout, kind="empathy", exposure=results.exposure, kappa=0.0)
    pixels = t[(t.family == "pixels") & (t.mover == "other")]
    lines = [over_similarity(pixels, "rho", "other, heads on pixels", family) for family in names]
    lines += [line for family in names for line in _other_and_drifter(t[t.family == family], family)]
    return draw_similarity(lines, mark, small=True, label=f"rho, {readout} head", sharex=True)


def _other_and_drifter(own: pd.DataFrame, panel: str) -> list[Line]:
    there = {mover: own[own.mover == mover] for mover in ("drifter", "other")}
    return [over_similarity(t, "rho", mover, panel) for mover, t in there.items() if t.rho.notna().any()]


def external(
    table: pd.DataFrame, results: Results, panels: dict[str, tuple[str, int, float]], mark: float
) -> pd.DataFrame:
    """rho against similarity of agents without a world model: other in colour, drifter green, ours beside them.

    table: from `interop.sb3.external_tables`; panels: title -> family, whether its worlds were eventful, the exposure
    of our own value functions there.
    """
    t, lines = table[table.kind == "empathy"], []
    at = {"family": "recurrent", "readout": "value", "kind": "empathy", "mover": "other", "kappa": 0.0}
    for title, (family, eventful, exposure) in panels.items():
        ours = results.pick("coefficients", exposure=exposure, **at)
        lines.append(over_similarity(ours, "rho", "other, value function on a world model", title))
        lines += _other_and_drifter(t[(t.family == family) & (t.eventful == eventful)], title)
    return draw_similarity(lines, mark, columns=2, size=(3.7, 2.9), label="rho, value", sharex=True)


def by_property(table: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """rho of every family against what its codes are like, one panel a property; table: families by columns."""
    fig, axes = subplots(len(names), 2, (3.7, 2.9), sharey=True)
    for ax, (name, label) in zip(axes, names.items(), strict=True):
        ax.plot(table[name], table.rho, "o", color=COLOURS["other"])
        for family, x, y in zip(table.index, table[name], table.rho, strict=True):
            if np.isfinite(x):
                ax.annotate(family, (x, y), textcoords="offset points", xytext=(4, 4), fontsize=8)
        ax.margins(x=0.25, y=0.15)
        ax.set(xlabel=label)
    fig.supylabel("rho", fontsize=11)
    return table.reset_index()
