"""The grammar of preregistered rules, and the one function that turns results into verdicts (DESIGN 5).

A rule is criteria with bars, which both write its text and decide it.  A prediction is `supported` when its criteria
clear their bars, `contradicted` when a criterion that can contradict it does, else `inconclusive`; and Holm's procedure
over all live verdicts must let it stand.  Bars speak about 95% intervals over agents, so that text and decision cannot
disagree.  Thresholds were fixed before any confirmatory run and do not move.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import scipy.stats
import yaml

from .. import metrics, stats
from ..stats import Interval
from .results import MissingTable, P, Results, S

ALPHA = 0.05
MINIMUM = 10  # below this many agents every verdict is inconclusive
MARGIN, NULL = 0.10, 0.05  # bars that several rules share
NULL_LEVEL = 0.05  # of two one-sided tests
CONFIRMATORY, SWEEP, FAMILIES = 40, 20, 10  # planned agents per cell; below it a verdict is provisional

Values = Callable[[Results, list[int]], np.ndarray]
BAR_TEXT = {  # of bars, by kind
    ">": "lower bound of {name} > {value}",
    "<": "upper bound of {name} < {value}",
    "<=": "upper bound of {name} <= {value}",
    "null": "{name} null within {value}",
    "within": "interval of {name} within {value} to {upper}",
    "rising": "Page's trend of {name} rising at {value}",
    "falling": "Page's trend of {name} falling at {value}",
    "2se>": "{name} more than 2 SE above {value}",
}


@dataclass(frozen=True)
class Bar:
    """What a criterion has to clear, as `rules.yml` has it: a kind of `BAR_TEXT`, its value, and for `within` the
    upper one."""

    kind: str
    value: float
    upper: float = np.nan

    @classmethod
    def read(cls, text: str) -> Bar:
        """From `> 0.1` and the like."""
        kind, *values = text.split()
        return cls(kind, *map(float, values))

    def met(self, found: Interval, values: np.ndarray) -> bool:
        """Whether an estimate, with the agents' values [n, ...] behind it, clears the bar."""
        if not found.n:
            return False
        match self.kind:
            case ">":
                return found.low > self.value
            case "<" | "<=":
                return found.high < self.value or (self.kind == "<=" and found.high == self.value)
            case "within":
                return self.value <= found.low and found.high <= self.upper
            case "2se>":
                return len(values) > 1 and bool(values.mean() - 2 * scipy.stats.sem(values) > self.value)
        return self.p(found, values) < (NULL_LEVEL if self.kind == "null" else self.value)

    def p(self, found: Interval, values: np.ndarray, plain: bool = True) -> float:
        """Level at which the bar is met; plain: the estimate is a mean over agents (else by the interval's width)."""
        if not found.n or (self.kind == "2se>" and len(values) < 2):
            return 1.0
        match self.kind:
            case "null":
                return stats.equivalence(values, self.value)
            case "rising" | "falling":
                return stats.page(values if self.kind == "rising" else values[:, ::-1])
            case "within":
                return max(Bar(k, x).p(found, values, plain) for k, x in ((">", self.value), ("<", self.upper)))
            case "2se>":
                return float(min(1.0, 2 * scipy.stats.norm.sf((values.mean() - self.value) / scipy.stats.sem(values))))
        if plain:
            return stats.p_beyond(values, self.value, "above" if self.kind == ">" else "below")
        error = (found.high - found.low) / (2 * scipy.stats.norm.ppf((1 + stats.LEVEL) / 2))
        distance = (found.estimate - self.value) * (1 if self.kind == ">" else -1)
        return float(min(1.0, 2 * scipy.stats.norm.sf(distance / error))) if error else float(distance <= 0)

    def text(self, name: str, raised_by: str = "") -> str:
        """The bar in words."""
        value = f"max({_number(self.value)}, {raised_by})" if raised_by else _number(self.value)
        return BAR_TEXT[self.kind].format(name=name, value=value, upper=_number(self.upper))


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

    def met(self, bar: Bar) -> bool:
        return bar.met(self.found, self.values)

    def p(self, bar: Bar) -> float:
        return bar.p(self.found, self.values, self.criterion.statistic is None)


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
        p_for = [m.p(m.supports) for m in counted]
        bars = [(m, m.criterion.contradicts) for m in against]
        p_against = [min(1.0, len(own) * min(map(m.p, own))) for m, own in bars]
        above = max(p_for) if self.support_by == "all" else min(1.0, min(p_for) * len(p_for))
        once = min(1.0, min(p_against, default=1.0) * len(p_against))
        below = max(p_against, default=1.0) if self.contradict_by == "all" else once
        yes = (all if self.support_by == "all" else any)(m.met(m.supports) for m in counted)
        no = bool(against) and (any if self.contradict_by == "any" else all)(any(map(m.met, own)) for m, own in bars)
        if yes == no:  # neither, or a slope that is above zero and null at once
            return "inconclusive", min(above, below)
        return ("supported", above) if yes else ("contradicted", below)


@cache
def _written() -> dict[str, dict]:
    return yaml.safe_load((Path(__file__).parent / "rules.yml").read_text())


def rule(name: str, *values: Values | tuple, raised: Callable | None = None, **own) -> list[Prediction]:
    """The predictions that `rules.yml` has under a name, one for each head (and axis), with what is measured.

    values: of every criterion in its order, (values, statistic) where it is no mean; each takes the head's name first,
    or axis and exposure, where there are several.  Without any the prediction is pending.  own: `agents`, `cases` and
    `pooled`, likewise.
    """
    text, found = _written()[name], []
    names, levels = tuple(text.get("over", {})), product(*text.get("over", {}).values())
    said = {k: v for k, v in text.items() if k not in ("for", "over", "claim", "criteria", "raised_by", "head")}
    for (head, spoken), level in product(text.get("for", {text.get("head"): ""}).items(), levels):
        first = (head,) if "for" in text else level
        bound = [(partial(f, *first), *statistic) for f, *statistic in map(np.atleast_1d, values)]
        rows = zip(text["criteria"], bound or [()] * len(text["criteria"]), strict=True)
        criteria = tuple(_criterion(row, own_values, raised, text.get("raised_by", "")) for row, own_values in rows)
        bind = {k: partial(v, *(level if k == "agents" else first)) for k, v in own.items()}
        levelled = [f"p{x}" if k == "p" else x for k, x in zip(names, level, strict=True)]
        parts = [name, *([head] if "for" in text else []), *levelled]
        words = {k: x.replace("-", " ") for k, x in zip(names, level, strict=True)}
        claim = text["claim"].format(head=spoken, **words)
        found.append(Prediction("/".join(parts), claim, criteria=criteria, head=head, **(said | bind)))
    return found


def _criterion(row: list, values: tuple, raised: Callable | None, raised_by: str) -> Criterion:
    name, supports, *contradicts = row
    bar = Bar.read(supports) if supports else None
    return Criterion(name, bar, tuple(map(Bar.read, contradicts)), *values, raised=raised, raised_by=raised_by)


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
    row |= {**_interval(measured[0].found), "n": used, "gate_passed": gate, "p": p}
    row |= {"provisional": planned < prediction.planned, "conditions": [_condition(m) for m in measured]}
    row["ungated"] = everyone[0].found.estimate if everyone else None
    row["verdict"] = verdict if gate and used >= MINIMUM else "inconclusive"
    row["note"] = _join(
        "confusion: identity is not decodable" if confused else "",
        f"gate: {used} of {planned} agents competent and complete" if used < metrics.PASSING * planned else "",
        f"no value for agents {lost}" if lost else "",
        f"fewer than {MINIMUM} agents" if used < MINIMUM else "",
        "" if results.preregistered else "not as preregistered",
    )
    return row


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
    said = ("estimate", "ci_low", "ci_high", "n", "verdict", "note")
    found = [{"name": c.claim, "bar": _bar(r), **{k: r[k] for k in said}} for c, r in zip(cases, rows, strict=True)]
    row |= {**_interval(prediction.pooled(results, True)), "n": len(competent), "excluded": left_out, "p": p}
    row |= {"gate_passed": enough, "provisional": any(r["provisional"] for _, r in counted), "conditions": found}
    row |= {"ungated": prediction.pooled(results, False).estimate, "verdict": verdict if enough else "inconclusive"}
    few = "" if enough else f"{len(competent)} competent families, at least {prediction.at_least} wanted"
    return row | {"note": _join(few, "" if results.preregistered else "not as preregistered")}


def _bar(row: dict) -> float | None:
    return row["conditions"][0]["bar"] if row["conditions"] else None


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
    return json.loads(table.to_json(orient="records", double_precision=6))


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
    live = (table.verdict != "pending") & (table.n > 0)
    number = lambda name: table[name].astype(float).map("{:z.2f}".format)  # noqa: E731
    said = {"id": table.id, "claim": table.claim, "estimate": number("estimate").where(live, "")}
    said["95% interval"] = (number("ci_low") + " to " + number("ci_high")).where(live, "")
    said["n"] = table.n.astype(str).where(live, "")
    said["verdict"] = table.verdict + np.where(live & table.provisional.eq(True), " (provisional)", "")
    return pd.DataFrame({**said, "note": table.note}).set_index("id")


def by_chapter(table: pd.DataFrame) -> pd.DataFrame:
    """The verdicts of every chapter in a line."""
    provisional = table.provisional.eq(True) & (table.verdict != "pending")
    said = table.id + ": " + table.verdict + np.where(provisional, " (provisional)", "")
    return said.groupby(table.chapter).agg("; ".join).rename("verdicts").to_frame()


def blank(table: pd.DataFrame) -> pd.DataFrame:
    """The table with nothing where a number does not apply."""
    return table.astype(object).where(table.notna(), "")
