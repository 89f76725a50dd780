"""The grammar of preregistered rules, and the one function that turns results into verdicts (DESIGN 5).

A rule is criteria with bars, which both write its text and decide it.  A prediction is `supported` when its criteria
clear their bars, `contradicted` when a criterion that can contradict it does, else `inconclusive`; and Holm's procedure
over all live verdicts must let it stand.  It is `not testable` where too few agents are competent, or a condition of
its row fails.  Bars speak about 95% intervals over agents, so that text and decision cannot disagree.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.stats
import yaml

from .. import metrics, stats
from ..stats import Interval
from .results import MissingTable, P, Results, S
from .studies import ENCODERS

ALPHA = 0.05
MINIMUM = 10  # below this many agents every verdict is inconclusive
NULL_LEVEL = 0.05  # of two one-sided tests
CONFIRMATORY, SWEEP = 40, 20  # planned agents at p = 0, and in company; below it a verdict is provisional
FORESEEN = 0.5  # of the way from aimless to informed: what a world model of others has to foresee
UNTESTABLE = "not testable"

Values = Callable[..., np.ndarray]  # values(results, seeds, what the rule is for) -> [n] or [n, columns]
BAR_TEXT = {  # of bars, by kind
    ">": "lower bound of {name} > {value}",
    "<": "upper bound of {name} < {value}",
    "null": "{name} null within {value}",
    "within": "interval of {name} within {value} to {upper}",
    "rising": "Page's trend of {name} rising at {value}",
    "falling": "Page's trend of {name} falling at {value}",
    "share": "{name}: at least {value} of them",
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
            case "<":
                return found.high < self.value
            case "within":
                return self.value <= found.low and found.high <= self.upper
            case "share":
                return found.estimate >= self.value
        return self.p(found, values) < (NULL_LEVEL if self.kind == "null" else self.value)

    def p(self, found: Interval, values: np.ndarray) -> float:
        """Level at which the bar is met.  A share of agents [n] in {0, 1} is tested against one half, by the binomial
        distribution: that nearly all agents agree is the bar, that they do so by chance what it is tested against."""
        if not found.n:
            return 1.0
        match self.kind:
            case "null":
                return stats.equivalence(values, self.value)
            case "rising" | "falling":
                return stats.page(values if self.kind == "rising" else values[:, ::-1])
            case "within":
                return max(Bar(k, x).p(found, values) for k, x in ((">", self.value), ("<", self.upper)))
            case "share":
                return float(scipy.stats.binomtest(int(values.sum()), len(values), alternative="greater").pvalue)
        return stats.p_beyond(values, self.value, "above" if self.kind == ">" else "below")

    def text(self, name: str) -> str:
        """The bar in words."""
        return BAR_TEXT[self.kind].format(name=name, value=_number(self.value), upper=_number(self.upper))


def _number(x: float) -> str:
    return f"{x:g}".replace("0.", ".", 1) if 0 < abs(x) < 1 else f"{x:g}"


@dataclass(frozen=True)
class Criterion:
    """One number over agents with the bars that count for and against.

    values(results, seeds) -> [n] or [n, columns] (the lowest column mean counts), None while pending.  statistic: of
    values [n, ...], the mean by default; test: of them, the level at which it lies beyond 0, Student's t by default.
    """

    name: str
    supports: Bar | None = None
    contradicts: tuple[Bar, ...] = ()
    values: Values | None = field(default=None, repr=False)
    statistic: Callable[[np.ndarray], float] | None = field(default=None, repr=False)
    test: Callable[[np.ndarray], float] | None = field(default=None, repr=False)

    def interval(self, values: np.ndarray) -> Interval:
        """Over agents; of a share of them the exact one of Clopper and Pearson."""
        if any(bar.kind == "share" for bar in (self.supports, *self.contradicts) if bar):
            found = scipy.stats.binomtest(int(values.sum()), len(values)).proportion_ci(0.95)
            return Interval(float(values.mean()), found.low, found.high, len(values))
        return stats.interval(values) if self.statistic is None else stats.interval_of(self.statistic, values)


@dataclass(frozen=True)
class Measured:
    """A criterion with what was found: agents' values, and their interval."""

    criterion: Criterion
    values: np.ndarray
    found: Interval

    def met(self, bar: Bar) -> bool:
        return bar.met(self.found, self.values)

    def p(self, bar: Bar) -> float:
        test = self.criterion.test
        return test(self.values) if test and self.found.n else bar.p(self.found, self.values)


@dataclass(frozen=True)
class Prediction:
    """One row of the preregistration.  The first criterion is the estimate.

    agents: who may speak, given results (by default those that pass the head's gate in the family); foresight: whether
    world models have to foresee others; identity: whether it is void where nobody can tell who moved; unit: what is
    resampled, agents unless said otherwise; note: what has to be said of it; first: what the first edition said.
    """

    id: str
    claim: str
    statistic: str
    chapter: str
    criteria: tuple[Criterion, ...]
    head: str | None = None
    family: str | None = None
    planned: int = CONFIRMATORY
    agents: Callable[[Results], tuple[list[int], list[int]]] | None = field(default=None, repr=False)
    foresight: bool = False
    identity: bool = True
    unit: str = "agent"
    note: str = ""
    first: str = ""

    @property
    def live(self) -> bool:
        return all(c.values is not None for c in self.criteria)

    @property
    def prediction(self) -> str:
        """P1 ... P7, F1 ... F3, A1, A2, B, or L1 ... L5."""
        name = self.id.split("/")[0]
        return name.rstrip("abcd") if name.startswith("P") else name

    @property
    def part(self) -> str:
        """What of the prediction this row is about, its head and encoder apart: a, b, conduct, p0, ..."""
        left_out = (self.head, (self.family or "").split("/")[0])
        return "/".join(p for p in self.id.removeprefix(self.prediction).split("/") if p and p not in left_out)

    @property
    def supported(self) -> str:
        """When it counts as supported, in words."""
        return " and ".join(c.supports.text(c.name) for c in self.criteria if c.supports)

    @property
    def contradicted(self) -> str:
        """When it counts as contradicted, in words."""
        return ", or ".join(bar.text(c.name) for c in self.criteria for bar in c.contradicts)

    def measure(self, results: Results, seeds: list[int]) -> tuple[list[Measured], list[int]]:
        """The criteria over agents that have every value they need, and the agents that have not."""
        if not seeds:
            return [], []
        found = {f: np.asarray(f(results, seeds), float) for f in dict.fromkeys(c.values for c in self.criteria)}
        values = [found[c.values] for c in self.criteria]
        if self.unit != "agent":
            return [Measured(c, v, c.interval(v)) for c, v in zip(self.criteria, values, strict=True)], []
        whole = np.all([np.isfinite(v.reshape(len(seeds), -1)).all(1) for v in values], axis=0)
        lost = [seed for seed, kept in zip(seeds, whole, strict=True) if not kept]
        rows = zip(self.criteria, [v[whole] for v in values], strict=True)
        return [Measured(c, v, c.interval(v)) for c, v in rows] if whole.any() else [], lost

    def verdict(self, measured: list[Measured]) -> tuple[str, float]:
        """The verdict and its p-value: intersection-union for what must all hold, Bonferroni for what one may do."""
        counted = [m for m in measured if m.criterion.supports is not None]
        bars = [(m, m.criterion.contradicts) for m in measured if m.criterion.contradicts]
        above = max(m.p(m.criterion.supports) for m in counted)
        below = min((min(1.0, len(own) * min(map(m.p, own))) for m, own in bars), default=1.0)
        yes = all(m.met(m.criterion.supports) for m in counted)
        no = any(any(map(m.met, own)) for m, own in bars)
        if yes == no:  # neither, or one criterion for and another against
            return "inconclusive", min(above, min(1.0, below * len(bars)))
        return ("supported", above) if yes else ("contradicted", min(1.0, below * len(bars)))


@cache
def _written() -> dict[str, dict]:
    return yaml.safe_load((Path(__file__).parent / "rules.yml").read_text())


def rule(name: str, *values: Values | tuple, **own) -> list[Prediction]:
    """The predictions that `rules.yml` has under a name, one for each head, level and encoder, with what is measured.

    values: of every criterion in its order, (values, statistic) where it is no mean; each is called as
    values(results, seeds, **what the rule is for): head and family, and levels by name, as far as there are any.
    Without any the prediction is pending.  own: `agents`, likewise, called as agents(results, **what the rule is for).
    """
    text, found = _written()[name], []
    said = {
        k: text[k] for k in ("statistic", "chapter", "foresight", "identity", "planned", "unit", "note") if k in text
    }
    axes = list(text.get("over", {}))
    heads = text.get("for", {text.get("head"): ""})
    for (head, spoken), *rest in product(
        heads.items(), *text.get("over", {}).values(), ENCODERS if "encoders" in text else (None,)
    ):
        levels, family = dict(zip(axes, rest[:-1], strict=True)), rest[-1]
        bound = {"head": head, "family": family, **levels}
        bound = {k: v for k, v in bound.items() if v is not None}
        pairs = [(partial(f, **bound), *statistic) for f, *statistic in map(np.atleast_1d, values)]
        rows = zip(text["criteria"], pairs or [()] * len(text["criteria"]), strict=True)
        named = [f"p{x}" if k == "p" else x for k, x in levels.items()]
        parts = [name, *([head] if "for" in text else []), *named, *([family.split("/")[0]] if family else [])]
        first = text.get("first", "")
        if isinstance(first, dict):
            first = next((first[x] for x in (head, *levels.values()) if x in first), "")
        found.append(
            Prediction(
                "/".join(parts),
                text["claim"].format(head=spoken, **{k: x.replace("-", " ") for k, x in levels.items()}),
                criteria=tuple(_criterion(row, own_values) for row, own_values in rows),
                head=head,
                family=family,
                first=first,
                **said,
                **{k: partial(v, **bound) for k, v in own.items()},
            )
        )
    return found


def _criterion(row: list, values: tuple) -> Criterion:
    name, supports, *contradicts = row
    return Criterion(name, Bar.read(supports) if supports else None, tuple(map(Bar.read, contradicts)), *values)


def verdicts(
    rows: Iterable[Prediction], results: Results | None, notes: Mapping[tuple, str] | None = None
) -> pd.DataFrame:
    """One row per prediction: what was estimated, its interval, its gate and its verdict.

    notes: by head and family, what has to be said of everything that is read from it.  Holm's procedure counts every
    row that is not pending: one that could not be measured as if it had a p-value of 1.
    """
    found = [decide(p, results) for p in rows]
    live = [r for r in found if r["verdict"] != "pending"]
    if live:
        for row, p in zip(live, stats.holm([1.0 if r["p"] is None else r["p"] for r in live]), strict=True):
            row["p_holm"] = None if row["p"] is None else float(p)
            if row["verdict"] in ("supported", "contradicted") and p >= ALPHA:
                row["verdict"], row["note"] = "inconclusive", _join(row["note"], "does not survive Holm")
    for row in found:
        if row["verdict"] != "pending":
            row["note"] = _join(row["note"], (notes or {}).get((row["head"], row["family"]), ""))
    return pd.DataFrame(found)


def decide(prediction: Prediction, results: Results | None) -> dict:
    """One prediction's row, before Holm."""
    row = _undecided(prediction, results)
    if results is None or not prediction.live:
        return row
    passed, failed, measured, lost = _measured(prediction, results)
    planned, used = len(passed) + len(failed), len(passed) - len(lost)
    row["excluded"] = sorted([*failed, *lost])
    everyone = prediction.measure(results, sorted(passed + failed))[0] if failed and measured else measured
    row["ungated"] = everyone[0].found.estimate if everyone else None
    reasons = _untestable(prediction, results, passed, planned, used)
    row["gate_passed"] = not reasons
    if not measured:
        why = f"no value for {len(lost)} agents" if lost else "no competent agents"
        return row | {"verdict": UNTESTABLE, "note": _join(why if not reasons else "", *reasons)}
    verdict, p = prediction.verdict(measured)
    row |= {**_interval(measured[0].found), "n": used, "p": p}
    row |= {"provisional": planned < prediction.planned, "conditions": [_condition(m) for m in measured]}
    row["verdict"] = UNTESTABLE if reasons else verdict if used >= MINIMUM else "inconclusive"
    counted = [m for m in measured if m.criterion.supports]
    short = [m.criterion.name for m in counted if not m.met(m.criterion.supports)] if verdict == "inconclusive" else []
    row["note"] = _join(
        *reasons,
        prediction.note,
        f"bar not cleared: {', '.join(short)}" if short else "",
        f"no value for agents {lost}" if lost else "",
        f"fewer than {MINIMUM} agents" if used < MINIMUM else "",
        "" if results.preregistered else "not as preregistered",
    )
    return row


def _untestable(prediction: Prediction, results: Results, passed: list[int], planned: int, used: int) -> list[str]:
    """Why a row is not testable."""
    found = []
    if used < metrics.PASSING * planned or not planned:
        found.append(f"gate: {used} of {planned} agents competent and complete")
    if prediction.family and passed:
        if prediction.identity and not results.decodable(passed, prediction.family):
            found.append("confused: a probe does not tell who moved")
        if prediction.foresight:
            foreseeing = results.foreseen(passed, prediction.family) >= FORESEEN
            if foreseeing.mean() < metrics.PASSING:
                found.append(f"foresight: {int(foreseeing.sum())} of {len(passed)} world models foresee others")
    return found


def _measured(prediction: Prediction, results: Results) -> tuple[list[int], list[int], list[Measured], list[int]]:
    """Agents that pass the gate and that do not, what was measured of the former, and those that lack a value."""
    head, passed, failed = prediction.head or "reward", [], []
    try:
        passed, failed = (
            prediction.agents(results) if prediction.agents else results.split_by_gate(head, prediction.family)
        )
        return passed, failed, *prediction.measure(results, passed)
    except MissingTable:
        return passed, failed, [], passed


def _undecided(prediction: Prediction, results: Results | None) -> dict:
    """The row of a prediction about which nothing is known yet."""
    at = {"s": results.s if results else S, "p": results.company if results else P}
    said = ("id", "prediction", "part", "head", "family", "claim", "statistic", "chapter", "supported", "contradicted")
    row = {name: getattr(prediction, name) for name in (*said, "first")}
    row["statistic"] = prediction.statistic.format(**at)
    row |= {"estimate": None, "ci_low": None, "ci_high": None, "n": 0, "excluded": [], "gate_passed": None}
    row |= {"provisional": True, "ungated": None, "conditions": [], "p": None, "p_holm": None}
    return row | {"note": "", "verdict": "pending"}


def _interval(found: Interval) -> dict:
    return {"estimate": found.estimate, "ci_low": found.low, "ci_high": found.high}


def _condition(m: Measured) -> dict:
    """What was found about one criterion, and its bar of support."""
    bar = m.criterion.supports
    value = bar.value if bar and bar.kind not in ("rising", "falling") else None  # theirs is a level
    return {"name": m.criterion.name, "bar": value, **_interval(m.found)}


def _join(*notes: str) -> str:
    return "; ".join(n for n in notes if n)


def as_json(table: pd.DataFrame) -> list[dict]:
    """Plain objects, numbers rounded to six digits, missing ones null."""
    return json.loads(table.to_json(orient="records", double_precision=6))


def rules(rows: Iterable[Prediction]) -> pd.DataFrame:
    """The preregistered rules of some predictions, as every verdict applies them; one line where they say the same."""
    said = [(p.id, p.claim, p.statistic.format(s=S, p=P), p.supported, p.contradicted) for p in rows]
    table = pd.DataFrame(said, columns=["id", "claim", "statistic", "supported if", "contradicted if"])
    same = table.groupby(list(table.columns[1:]), sort=False).id
    joined = same.agg(lambda ids: ", ".join([ids.iloc[0], *(name.split("/")[-1] for name in ids.iloc[1:])]))
    return joined.reset_index().set_index("id")


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
    """The verdict table as readers see it: rounded, notes after what they are about, and pending rows empty."""
    live = (table.verdict != "pending") & (table.n > 0)
    estimate, low, high = (table[k].astype(float).map("{:z.2f}".format) for k in ("estimate", "ci_low", "ci_high"))
    said = {"id": table.id, "claim": table.claim + np.where(table.note != "", ". Note: " + table.note, "")}
    said["estimate, 95% interval"] = (estimate + " [" + low + ", " + high + "]").where(live, "")
    said["n"] = table.n.astype(str).where(live, "")
    said["verdict"] = table.verdict + np.where(live & table.provisional.eq(True), " (provisional)", "")
    return pd.DataFrame({**said, "first edition": table["first"]}).set_index("id")


def by_chapter(table: pd.DataFrame) -> pd.DataFrame:
    """The verdicts of every chapter in a line."""
    provisional = table.provisional.eq(True) & (table.verdict != "pending")
    said = table.id + ": " + table.verdict + np.where(provisional, " (provisional)", "")
    return said.groupby(table.chapter).agg("; ".join).rename("verdicts").to_frame()


def blank(table: pd.DataFrame) -> pd.DataFrame:
    """The table with nothing where a number does not apply."""
    return table.astype(object).where(table.notna(), "")
