"""The grammar of preregistered rules, and the one function that turns results into verdicts (DESIGN 5).

A rule is criteria with bars, which both write its text and decide it.  A prediction is `supported` when its criteria
clear their bars, `contradicted` when a criterion that can contradict it does, else `inconclusive`; and Holm's procedure
over all live verdicts must let it stand.  Bars speak about 95% intervals over agents, so that text and decision cannot
disagree.  Thresholds were fixed before any confirmatory run and do not move.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
import scipy.stats

from .. import metrics, stats
from ..stats import Interval
from .results import MissingTable, P, Results, S

ALPHA = 0.05
MINIMUM = 10  # below this many agents every verdict is inconclusive
MARGIN, NULL = 0.10, 0.05  # bars that several rules share
CONFIRMATORY, SWEEP, FAMILIES = 40, 20, 10  # planned agents per cell; below it a verdict is provisional

Kind = Literal["above", "below", "at most", "null", "within", "rising", "falling", "more than 2 SE above"]
Values = Callable[[Results, list[int]], np.ndarray]


@dataclass(frozen=True)
class Bar:
    """What a criterion has to clear.

    above, below, at most: the interval lies on that side of `value`; null: equivalent to 0 within it (two one-sided
    tests at 5%); within: the interval lies between `value` and `upper`; rising, falling: Page's trend test at that
    level; more than 2 SE above: the mean over agents exceeds `value` by more than two standard errors.
    """

    kind: Kind
    value: float
    upper: float = np.nan

    def met(self, found: Interval, values: np.ndarray) -> bool:
        """Whether an estimate, with the agents' values [n, ...] behind it, clears the bar."""
        if not found.n:
            return False
        match self.kind:
            case "above":
                return found.low > self.value
            case "below":
                return found.high < self.value
            case "at most":
                return found.high <= self.value
            case "null":
                return stats.equivalence(values, self.value) < 0.05
            case "within":
                return self.value <= found.low and found.high <= self.upper
            case "rising" | "falling":
                return self.p(found, values) < self.value
            case "more than 2 SE above":
                return len(values) > 1 and bool(values.mean() - 2 * scipy.stats.sem(values) > self.value)

    def p(self, found: Interval, values: np.ndarray, plain: bool = True) -> float:
        """Level at which the bar is met; plain: the estimate is a mean over agents (else by the interval's width)."""
        if not found.n:
            return 1.0
        match self.kind:
            case "null":
                return stats.equivalence(values, self.value)
            case "rising" | "falling":
                return stats.page(values if self.kind == "rising" else values[:, ::-1])
            case "within":
                return max(
                    Bar("above", self.value).p(found, values, plain), Bar("below", self.upper).p(found, values, plain)
                )
            case "more than 2 SE above":
                if len(values) < 2:
                    return 1.0
                return float(min(1.0, 2 * scipy.stats.norm.sf((values.mean() - self.value) / scipy.stats.sem(values))))
        side = "below" if self.kind in ("below", "at most") else "above"
        if plain:
            return stats.p_beyond(values, self.value, side)
        error = (found.high - found.low) / (2 * scipy.stats.norm.ppf((1 + stats.LEVEL) / 2))
        distance = (found.estimate - self.value) * (1 if side == "above" else -1)
        return float(min(1.0, 2 * scipy.stats.norm.sf(distance / error))) if error else float(distance <= 0)

    def text(self, name: str, raised_by: str = "") -> str:
        """The bar in words."""
        value = _number(self.value)
        match self.kind:
            case "above":
                return f"lower bound of {name} > " + (f"max({value}, {raised_by})" if raised_by else value)
            case "below":
                return f"upper bound of {name} < {value}"
            case "at most":
                return f"upper bound of {name} <= {value}"
            case "null":
                return f"{name} null within {value}"
            case "within":
                return f"interval of {name} within {value} to {_number(self.upper)}"
            case "rising" | "falling":
                return f"Page's trend of {name} {self.kind} at {value}"
            case "more than 2 SE above":
                return f"{name} more than 2 SE above {value}"


def _number(x: float) -> str:
    return f"{x:g}".replace("0.", ".", 1) if 0 < abs(x) < 1 else f"{x:g}"


@dataclass(frozen=True)
class Criterion:
    """One number over agents with the bars that count for and against.

    values(results, seeds) -> [n] or [n, columns] (the lowest column mean counts), None while pending.  statistic: of
    values [n, ...], the mean by default.  raised(results, seeds): a bar found in the data that counts where higher.
    """

    name: str
    supports: Bar | None = None
    contradicts: tuple[Bar, ...] = ()
    values: Values | None = field(default=None, repr=False)
    statistic: Callable[[np.ndarray], float] | None = field(default=None, repr=False)
    raised: Callable[[Results, list[int]], float] | None = field(default=None, repr=False)
    raised_by: str = ""

    def interval(self, values: np.ndarray) -> Interval:
        return stats.interval(values) if self.statistic is None else stats.interval_of(self.statistic, values)


@dataclass(frozen=True)
class Measured:
    """A criterion with what was found: agents' values, their interval, and the bar of support as it counts."""

    criterion: Criterion
    values: np.ndarray
    found: Interval
    supports: Bar | None

    @property
    def supported(self) -> bool:
        return self.supports is None or self.supports.met(self.found, self.values)

    def p_for(self) -> float:
        plain = self.criterion.statistic is None
        return 0.0 if self.supports is None else self.supports.p(self.found, self.values, plain)

    def p_against(self) -> float:
        """Of the nearest bar that would contradict, corrected for their number."""
        bars, plain = self.criterion.contradicts, self.criterion.statistic is None
        return min(1.0, len(bars) * min(bar.p(self.found, self.values, plain) for bar in bars))

    @property
    def contradicted(self) -> bool:
        return any(bar.met(self.found, self.values) for bar in self.criterion.contradicts)


@dataclass(frozen=True)
class Prediction:
    """One row of the preregistration.  The first criterion is the estimate.

    support_by: whether all criteria or any one must clear its bar; contradict_by: whether any or all that can
    contradict must.  agents: who may speak, given the head (by default those that pass its gate at p); every: where a
    rule is read in several cases at once, of which `at_least` families have to count, and `pooled` over those that pass
    their gate or over all; identity: whether it is void where nobody can tell who moved.
    """

    id: str
    claim: str
    statistic: str
    chapter: str
    criteria: tuple[Criterion, ...]
    head: str | None = None
    family: str | None = "recurrent"
    planned: int = CONFIRMATORY
    support_by: Literal["all", "any"] = "all"
    contradict_by: Literal["any", "all"] = "any"
    agents: Callable[[Results, str], tuple[list[int], list[int]]] | None = field(default=None, repr=False)
    every: str = ""
    cases: Callable[[Results], list[Prediction]] | None = field(default=None, repr=False)
    pooled: Callable[[Results, bool], Interval] | None = field(default=None, repr=False)
    at_least: int = 1
    also: str = ""
    identity: bool = True

    @property
    def live(self) -> bool:
        return all(c.values is not None for c in self.criteria)

    @property
    def prediction(self) -> str:
        """P1 ... P7, F1, F2, A or B."""
        name = self.id.split("/")[0]
        return name.rstrip("ab") if name.startswith("P") else name

    @property
    def part(self) -> str:
        """What of the prediction this row is about, its head apart: a, b, conduct, latent/p0, ..."""
        parts = [p for p in self.id.removeprefix(self.prediction).split("/") if p and p != self.head]
        return "/".join(parts)

    @property
    def supported(self) -> str:
        """When it counts as supported, in words."""
        parts = [c.supports.text(c.name, c.raised_by) for c in self.criteria if c.supports]
        text = (" and " if self.support_by == "all" else ", or ").join(parts)
        return text + (f", {self.also}" if self.also else "") + (f", in every {self.every}" if self.every else "")

    @property
    def contradicted(self) -> str:
        """When it counts as contradicted, in words."""
        parts = [bar.text(c.name) for c in self.criteria for bar in c.contradicts]
        text = (", or " if self.contradict_by == "any" else " and ").join(parts)
        return text + (f", in any {self.every}" if self.every else "")

    def measure(self, results: Results, seeds: list[int]) -> tuple[list[Measured], list[int]]:
        """The criteria over agents that have every value they need, and the agents that have not."""
        if not seeds:
            return [], []
        found = {f: np.asarray(f(results, seeds), float) for f in dict.fromkeys(c.values for c in self.criteria)}
        values = [found[c.values] for c in self.criteria]
        whole = np.all([np.isfinite(v.reshape(len(seeds), -1)).all(1) for v in values], axis=0)
        lost = [seed for seed, kept in zip(seeds, whole, strict=True) if not kept]
        bars = [c.supports for c in self.criteria]
        for i, c in enumerate(self.criteria):
            if c.raised is not None:
                bars[i] = Bar(bars[i].kind, max(bars[i].value, c.raised(results, seeds)))
        kept = [v[whole] for v in values]
        rows = zip(self.criteria, kept, bars, strict=True)
        return [Measured(c, v, c.interval(v), bar) for c, v, bar in rows] if whole.any() else [], lost

    def verdict(self, measured: list[Measured]) -> tuple[str, float]:
        """The verdict and its p-value: intersection-union for what must all hold, Bonferroni for what one may do."""
        counted = [m for m in measured if m.supports is not None]
        against = [m for m in measured if m.criterion.contradicts]
        p_for, p_against = [m.p_for() for m in counted], [m.p_against() for m in against]
        above = max(p_for) if self.support_by == "all" else min(1.0, min(p_for) * len(p_for))
        if self.contradict_by == "all":
            below = max(p_against, default=1.0)
        else:
            below = min(1.0, min(p_against, default=1.0) * len(p_against))
        yes = (all if self.support_by == "all" else any)(m.supported for m in counted)
        no = bool(against) and (any if self.contradict_by == "any" else all)(m.contradicted for m in against)
        if yes == no:  # neither, or a slope that is above zero and null at once
            return "inconclusive", min(above, below)
        return ("supported", above) if yes else ("contradicted", below)


def verdicts(rows: Iterable[Prediction], results: Results | None) -> pd.DataFrame:
    """One row per prediction: what was estimated, its interval, its gate and its verdict.

    Without a calibrated instrument every verdict carries the note `instrument not calibrated` (DESIGN 5).
    """
    found = [decide(p, results) for p in rows]
    live = [r for r in found if r["verdict"] != "pending" and r["p"] is not None]
    if live:
        for row, p in zip(live, stats.holm([r["p"] for r in live]), strict=True):
            row["p_holm"] = float(p)
            if row["verdict"] != "inconclusive" and p >= ALPHA:
                row["verdict"], row["note"] = "inconclusive", _join(row["note"], "does not survive Holm")
    for row in found:
        if row["verdict"] != "pending" and not results.calibrated:
            row["note"] = _join(row["note"], "instrument not calibrated")
    return pd.DataFrame(found)


def decide(prediction: Prediction, results: Results | None) -> dict:
    """One prediction's row, before Holm."""
    row = _undecided(prediction, results)
    if results is None or not prediction.live:
        return row
    if prediction.cases:
        return _decide_by_cases(prediction, results, row)
    passed, failed, measured, lost = _measured(prediction, results)
    row["excluded"] = sorted([*failed, *lost])
    if not measured:
        why = f"no value for {len(lost)} agents" if lost else "no competent agents"
        return row | {"verdict": "inconclusive", "gate_passed": False, "note": why}
    everyone = prediction.measure(results, sorted(passed + failed))[0] if failed else measured
    planned, used = len(passed) + len(failed), len(passed) - len(lost)
    confused = prediction.identity and not results.decodable(passed, prediction.family)
    gate = used >= metrics.PASSING * planned and not confused
    verdict, p = prediction.verdict(measured)
    return row | {
        **_interval(measured[0].found),
        "n": used,
        "gate_passed": gate,
        "provisional": planned < prediction.planned,
        "ungated": everyone[0].found.estimate if everyone else None,
        "conditions": [_condition(m) for m in measured],
        "p": p,
        "note": _join(
            "confusion: identity is not decodable" if confused else "",
            f"gate: {used} of {planned} agents competent and complete" if used < metrics.PASSING * planned else "",
            f"no value for agents {lost}" if lost else "",
            f"fewer than {MINIMUM} agents" if used < MINIMUM else "",
            "" if results.preregistered else "not as preregistered",
        ),
        "verdict": verdict if gate and used >= MINIMUM else "inconclusive",
    }


def _measured(prediction: Prediction, results: Results) -> tuple[list[int], list[int], list[Measured], list[int]]:
    """Agents that pass the gate and that do not, what was measured of the former, and those that lack a value."""
    head, passed, failed = prediction.head or "reward", [], []
    try:
        passed, failed = prediction.agents(results, head) if prediction.agents else results.split_by_gate(head)
        return passed, failed, *prediction.measure(results, passed)
    except MissingTable:
        return passed, failed, [], passed


def _decide_by_cases(prediction: Prediction, results: Results, row: dict) -> dict:
    """A rule that is read in several cases: all that count must support it, or any contradicts it.

    A case counts if its gate is passed, and the rule's own gate is that cases of enough families count.  The p-value
    is the largest of all for, Bonferroni's of the smallest against.
    """
    cases = prediction.cases(results)
    rows = [decide(case, results) for case in cases]
    counted = [(case, r) for case, r in zip(cases, rows, strict=True) if r["gate_passed"]]
    competent = {case.family for case, r in counted if case.id.endswith("observed")}
    counted = [(case, r) for case, r in counted if case.family in competent]
    left_out = [case.claim for case in cases if case.id not in {c.id for c, _ in counted}]
    if not counted:
        return row | {"verdict": "inconclusive", "gate_passed": False, "note": "no competent family"}
    enough = len(competent) >= prediction.at_least
    against = [r["p"] for _, r in counted if r["verdict"] == "contradicted"]
    if against:
        verdict, p = "contradicted", min(1.0, min(against) * len(counted))
    else:
        yes = all(r["verdict"] == "supported" for _, r in counted)
        verdict, p = "supported" if yes else "inconclusive", max(r["p"] for _, r in counted)
    return row | {
        **_interval(prediction.pooled(results, True)),
        "n": len(competent),
        "excluded": left_out,
        "gate_passed": enough,
        "provisional": any(r["provisional"] for _, r in counted),
        "ungated": prediction.pooled(results, False).estimate,
        "conditions": [{"name": case.claim, **_found(r)} for case, r in zip(cases, rows, strict=True)],
        "p": p,
        "note": _join(
            "" if enough else f"{len(competent)} competent families, at least {prediction.at_least} wanted",
            "" if results.preregistered else "not as preregistered",
        ),
        "verdict": verdict if enough else "inconclusive",
    }


def _found(row: dict) -> dict:
    """What was found about one case, in the form of a condition."""
    bar = row["conditions"][0]["bar"] if row["conditions"] else None
    return {"bar": bar, **{name: row[name] for name in ("estimate", "ci_low", "ci_high", "n", "verdict", "note")}}


def _undecided(prediction: Prediction, results: Results | None) -> dict:
    """The row of a prediction about which nothing is known yet."""
    at = {"s": results.s if results else S, "p": results.exposure if results else P}
    said = ("id", "prediction", "part", "head", "family", "claim", "statistic", "chapter", "supported", "contradicted")
    row = {name: getattr(prediction, name) for name in said}
    row["statistic"] = prediction.statistic.format(**at)
    row |= {"estimate": None, "ci_low": None, "ci_high": None, "n": 0, "excluded": [], "gate_passed": None}
    row |= {"provisional": True, "ungated": None, "conditions": [], "p": None, "p_holm": None}
    return row | {"note": "", "verdict": "pending"}


def _interval(found: Interval) -> dict:
    return {"estimate": found.estimate, "ci_low": found.low, "ci_high": found.high}


def _condition(m: Measured) -> dict:
    """What was found about one criterion, and the bar of support as it counted."""
    return {"name": m.criterion.name, "bar": m.supports.value if m.supports else None, **_interval(m.found)}


def _join(*notes: str) -> str:
    return "; ".join(n for n in notes if n)


def as_json(table: pd.DataFrame) -> list[dict]:
    """Plain objects, numbers rounded to six digits, missing ones null."""

    def plain(value):
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        if isinstance(value, list):
            return [plain(v) for v in value]
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, float):
            return None if math.isnan(value) else round(value, 6)
        return value

    return [{k: plain(v) for k, v in row.items()} for row in table.to_dict("records")]


def rules(rows: Iterable[Prediction]) -> pd.DataFrame:
    """The preregistered rules of some predictions, as every verdict applies them."""
    said = [(p.id, p.claim, p.statistic.format(s=S, p=P), p.supported, p.contradicted) for p in rows]
    return pd.DataFrame(said, columns=["id", "claim", "statistic", "supported if", "contradicted if"]).set_index("id")


def summary(row: dict) -> str:
    """One verdict in one line."""
    if row["verdict"] == "pending":
        return f"{row['id']}: pending"
    text = f"{row['id']}: {row['verdict']}" + (" (provisional)" if row["provisional"] else "")
    if row["n"]:
        text += f", {row['estimate']:z.3f} [{row['ci_low']:z.3f}, {row['ci_high']:z.3f}], n = {row['n']}"
        text += f", excluded {row['excluded']}" if row["excluded"] else ""
        text += f", ungated {row['ungated']:z.3f}"
    return text + (f"; {row['note']}" if row["note"] else "")


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The verdict table as readers see it: rounded, and pending rows empty."""

    def row(r: dict) -> dict:
        live = r["verdict"] != "pending" and r["n"] > 0
        return {
            "id": r["id"],
            "claim": r["claim"],
            "estimate": f"{r['estimate']:z.2f}" if live else "",
            "95% interval": f"{r['ci_low']:z.2f} to {r['ci_high']:z.2f}" if live else "",
            "n": str(r["n"]) if live else "",
            "verdict": r["verdict"] + (" (provisional)" if live and r["provisional"] else ""),
            "note": r["note"],
        }

    return pd.DataFrame([row(r) for r in table.to_dict("records")]).set_index("id")


def by_chapter(table: pd.DataFrame) -> pd.DataFrame:
    """The verdicts of every chapter in a line."""
    provisional = table.provisional.eq(True) & (table.verdict != "pending")
    said = table.id + ": " + table.verdict + np.where(provisional, " (provisional)", "")
    return said.groupby(table.chapter).agg("; ".join).rename("verdicts").to_frame()


def blank(table: pd.DataFrame) -> pd.DataFrame:
    """The table with nothing where a number does not apply."""
    return table.astype(object).where(table.notna(), "")
