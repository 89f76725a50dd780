"""The grammar of a preregistered rule: criteria with bars, which both write the rule's text and decide it.

A prediction is `supported` when its criteria clear their bars, `contradicted` when a criterion that can contradict it
does, else `inconclusive`.  Bars speak about 95% intervals over agents, so that text and decision cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import scipy.stats

from . import stats
from .evidence import Evidence
from .stats import Interval

CONFIRMATORY, SWEEP, FAMILIES = 40, 20, 10  # planned agents per cell; below it a verdict is provisional

Kind = Literal["above", "below", "at most", "null", "within", "rising", "falling", "more than 2 SE above"]
Values = Callable[[Evidence, list[int]], np.ndarray]


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

    values(evidence, seeds) -> [n] or [n, columns] (the lowest column mean counts), None while pending.  statistic: of
    values [n, ...], the mean by default.  raised(evidence, seeds): a bar found in the data that counts where higher.
    """

    name: str
    supports: Bar | None = None
    contradicts: tuple[Bar, ...] = ()
    values: Values | None = field(default=None, repr=False)
    statistic: Callable[[np.ndarray], float] | None = field(default=None, repr=False)
    raised: Callable[[Evidence, list[int]], float] | None = field(default=None, repr=False)
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
    rule is asked of several cells at once; identity: whether it is void where nobody can tell who moved.
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
    agents: Callable[[Evidence, str], tuple[list[int], list[int]]] | None = field(default=None, repr=False)
    every: str = ""
    cases: Callable[[Evidence], list[Prediction]] | None = field(default=None, repr=False)
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

    def measure(self, evidence: Evidence, seeds: list[int]) -> tuple[list[Measured], list[int]]:
        """The criteria over agents that have every value they need, and the agents that have not."""
        if not seeds:
            return [], []
        found = {f: np.asarray(f(evidence, seeds), float) for f in dict.fromkeys(c.values for c in self.criteria)}
        values = [found[c.values] for c in self.criteria]
        whole = np.all([np.isfinite(v.reshape(len(seeds), -1)).all(1) for v in values], axis=0)
        lost = [seed for seed, kept in zip(seeds, whole, strict=True) if not kept]
        bars = [c.supports for c in self.criteria]
        for i, c in enumerate(self.criteria):
            if c.raised is not None:
                bars[i] = Bar(bars[i].kind, max(bars[i].value, c.raised(evidence, seeds)))
        kept = [v[whole] for v in values]
        rows = zip(self.criteria, kept, bars, strict=True)
        return [Measured(c, v, c.interval(v), bar) for c, v, bar in rows] if whole.any() else [], lost

    def decide(self, measured: list[Measured]) -> tuple[str, float]:
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
