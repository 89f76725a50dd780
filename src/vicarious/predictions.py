"""The preregistered predictions (DESIGN 5) as data, and the one function that turns tables into verdicts.

Thresholds were fixed before any confirmatory run and do not move.  A prediction is `supported` when every one of its
conditions clears its bar with the lower end of a 95% interval, `contradicted` when its first condition stays below its
own bar with the upper end, else `inconclusive`; and Holm's procedure over all live verdicts must let it stand.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from . import metrics, stats
from .metrics import CONTROLS
from .stats import Interval

S, P, S_HIGH = 0.5, 0.0, 0.9  # unless a rule says otherwise
ALPHA = 0.05
MINIMUM = 10  # below this many agents every verdict is inconclusive
CONFIRMATORY, SWEEP, FAMILIES = 40, 20, 10  # planned agents per cell; below it a verdict is provisional
MARGIN, NULL = 0.10, 0.05
DECODABLE = 0.10  # R2 within self below which a ratio to it says nothing


@dataclass(frozen=True)
class Evidence:
    """What verdicts are computed from: coefficients, gates and measures of all agents at hand."""

    coefficients: pd.DataFrame
    gates: pd.DataFrame
    measures: pd.DataFrame
    s: float = S
    exposure: float = P
    altered: bool = False

    @classmethod
    def of(cls, responses: pd.DataFrame, measures: pd.DataFrame, **where) -> Evidence:
        """From the two tidy tables of a study; the rows of family `truth` are the yardstick."""
        truth = responses.family == "truth"
        table = metrics.coefficients(responses[~truth], responses[truth])
        return cls(table, metrics.competence(table, measures), measures, **where)

    @property
    def preregistered(self) -> bool:
        """Whether agents are the reference ones and verdicts read where the preregistration says: s = .5 and p = 0."""
        return self.s == S and self.exposure == P and not self.altered

    def agents(self, readout: str, family: str = "recurrent") -> tuple[list[int], list[int]]:
        """Seeds that pass the readout's gate, and those that do not."""
        g = self.gates
        g = g[(g.readout == readout) & (g.family == family) & np.isclose(g.exposure, self.exposure) & (g.kappa == 0)]
        return sorted(g[g.passed].seed), sorted(g[~g.passed].seed)

    def rho(
        self,
        readout: str,
        seeds: list[int],
        family: str = "recurrent",
        mover: str = "other",
        s: float | None = None,
        kind: str = "empathy",
        exposure: float | None = None,
    ) -> np.ndarray:
        """Coefficient [n] of the given seeds, in their order; NaN where an agent is missing."""
        exposure = self.exposure if exposure is None else exposure
        t = self.coefficients
        t = t[(t.readout == readout) & (t.family == family) & np.isclose(t.exposure, exposure) & (t.kappa == 0)]
        t = t[(t.mover == mover) & (t.kind == kind)]
        return _per_seed(t, "rho", seeds, self.s if s is None else s)

    def measure(
        self, name: str, seeds: list[int], family: str = "recurrent", mover: str = "other", s: float | None = None
    ) -> np.ndarray:
        """A code measure [n] of the given seeds; a transfer is NaN where the self itself is not decodable."""
        t_all = self.measures[self.measures.family == family]
        t = t_all[(t_all.measure == name) & (t_all.mover == mover)]
        found = _per_seed(t, "value", seeds, self.s if s is None else s)
        if not name.startswith(("transfer", "null")):
            return found
        within = _per_seed(t_all[(t_all.measure == "r2") & (t_all.mover == "self")], "value", seeds, 1.0)
        return np.where(within >= DECODABLE, found, np.nan)

    def excess(self, readout: str, seeds: list[int], **where) -> np.ndarray:
        """rho beyond heads on pixels and on the untrained encoder, [n, 2], paired by seed."""
        own = self.rho(readout, seeds, **where)
        return np.stack([own - self.rho(readout, seeds, family, **where) for family in CONTROLS], 1)


def _per_seed(table: pd.DataFrame, value: str, seeds: list[int], s: float) -> np.ndarray:
    """`value` at similarity s of each seed, NaN where there is none."""
    if table.empty:
        return np.full(len(seeds), np.nan)
    found = metrics.at_similarity(table[["seed", "similarity", value]], s, value)
    return found.set_index("seed")[value].reindex(seeds).to_numpy()


@dataclass(frozen=True)
class Condition:
    """Agents' values [n] or [n, columns] (the lowest column mean counts) and the bar they must clear."""

    name: str
    values: np.ndarray
    bar: float = 0.0


@dataclass(frozen=True)
class Prediction:
    """One row of the preregistration.  `conditions(evidence, seeds)`: the first is the estimate; None while pending."""

    id: str
    claim: str
    statistic: str
    supported: str
    contradicted: str
    chapter: str
    head: str | None = None
    family: str | None = "recurrent"
    planned: int = CONFIRMATORY
    conditions: Callable[[Evidence, list[int]], list[Condition]] | None = field(default=None, repr=False)

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


def _transfer(e: Evidence, seeds: list[int]) -> list[Condition]:
    names = sorted(n for n in e.measures.measure.unique() if n.startswith("null"))
    null = [float(np.nanpercentile(np.concatenate([e.measure(n, seeds) for n in names]), 95))] if names else []
    return [Condition("transfer", e.measure("transfer", seeds), max([MARGIN, *null]))]


def _transfer_gain(e: Evidence, seeds: list[int]) -> list[Condition]:
    own = e.measure("transfer", seeds)
    gain = np.stack([own - e.measure("transfer", seeds, family) for family in CONTROLS], 1)
    return [Condition("gain over controls", gain, NULL)]


def _empathy(head: str) -> Callable[[Evidence, list[int]], list[Condition]]:
    def conditions(e: Evidence, seeds: list[int]) -> list[Condition]:
        own = e.rho(head, seeds)
        return [Condition("rho", own, MARGIN), Condition("looks contrast", own - e.rho(head, seeds, s=0.0))]

    return conditions


def _excess(head: str) -> Callable[[Evidence, list[int]], list[Condition]]:
    return lambda e, seeds: [Condition("excess over inputs", e.excess(head, seeds))]


def _value_function(e: Evidence, seeds: list[int]) -> list[Condition]:
    own = e.rho("value", seeds)
    return [
        Condition("rho_V", own, MARGIN),
        Condition("animacy contrast", own - e.rho("value", seeds, mover="drifter")),
    ]


def _rows() -> list[Prediction]:
    rows = [
        Prediction(
            "P1a",
            "Codes for self and a similar other in the same event are similar",
            "transfer of a contact x valence decoder from self to other (R2 on other / R2 within self), s = {s:g}",
            "lower bound > max(.10, permutation 95th)",
            "upper bound < .10",
            "03-similarity",
            conditions=_transfer,
        ),
        Prediction(
            "P1b",
            "It is the world model that makes them similar",
            "gain in transfer over pixels and untrained encoder (the one of larger mean), paired by seed, s = {s:g}",
            "lower bound > .05",
            "upper bound < .05",
            "03-similarity",
            conditions=_transfer_gain,
        ),
    ]
    for head, name in (("reward", "reward model"), ("value", "value function")):
        rows += [
            Prediction(
                f"P2a/{head}",
                f"A {name} trained on own reward mis-generalises to the other",
                "rho and looks contrast, s = {s:g}, p = {p:g}",
                "rho lower bound > .10 and looks contrast > 0",
                "rho upper bound < .10",
                "04-misgeneralisation",
                head,
                conditions=_empathy(head),
            ),
            Prediction(
                f"P2b/{head}",
                f"It is the world model that makes the {name} do so",
                "excess of rho over heads on pixels and untrained encoder (the one of larger mean), paired by seed, "
                "s = {s:g}, p = {p:g}",
                "lower bound > 0",
                "upper bound < 0",
                "04-misgeneralisation",
                head,
                conditions=_excess(head),
            ),
        ]
    rows += [
        Prediction(
            "P3",
            "The more similar the target, the more of it",
            "Page's trend of rho over angle; rho(.9) - rho(0); patch along the self-other axis minus random axes",
            "Page at .01; rho(.9) - rho(0) lower bound > .10; patch contrast lower bound > 0",
            "trend reversed, or rho(.9) - rho(0) upper bound < .10",
            "05-continuity",
            "reward",
        ),
        Prediction(
            "P3/conduct",
            "The more alike in conduct, the more of it",
            "animacy contrast of rho",
            "lower bound > 0",
            "upper bound < 0",
            "05-continuity",
            "reward",
        ),
        Prediction(
            "P4",
            "Empathy is a continuous spectrum",
            "smooth curve in angle against the best step, leave-one-out, per agent; largest adjacent jump",
            "smooth wins by > 2 SE and largest jump < 25% of the range; likewise along latent interpolation",
            "the step wins by > 2 SE",
            "05-continuity",
            "reward",
        ),
    ]
    for axis in ("model-width", "latent", "head-width", "data"):
        rows += [
            Prediction(
                f"P5/{axis}/p{p}",
                f"It scales with capacity ({axis.replace('-', ' ')}, p = {p})",
                "mixed-model slope of rho per decade at matched competence",
                "lower bound > 0",
                "upper bound < 0, or null within .02",
                "06-scaling",
                "reward",
                planned=SWEEP,
            )
            for p in ("0", ".1")
        ]
    rows += [
        Prediction(
            f"P6{part}/{head}",
            f"It appears whenever a learnt {head} head reads a general unsupervised latent",
            f"P2{part} in every competent family (at least six), observed and imagined",
            f"every one as P2{part}",
            f"any one as P2{part} contradicted",
            "07-generality",
            head,
            "all",
            FAMILIES,
        )
        for part in "ab"
        for head in ("reward", "value")
    ]
    rows += [
        Prediction(
            "P7",
            "Test stimuli shown during training measure its extent and kinds precisely",
            "split-half; ICC; slope and R2 of planted kappa; kinds; prediction at 20% of training",
            "split-half >= .8, ICC >= .75, slope 1 +- .1 with R2 >= .95, same-kind r above all different-kind r's, "
            "prediction lower bound > .3",
            "any of the first three has its upper bound below its bar",
            "08-stimuli",
            planned=SWEEP,
        ),
        Prediction(
            "F1",
            "It is the TD value function, not the immediate-reward model",
            "rho_V and animacy contrast, s = {s:g}, p = {p:g}",
            "rho_V lower bound > .10 and animacy contrast > 0",
            "rho_V upper bound < .10",
            "04-misgeneralisation",
            "value",
            conditions=_value_function,
        ),
        Prediction(
            "F2",
            "It sways decisions: a planner on V forgoes own reward for the other's",
            "price paid in own reward",
            "lower bound > 0",
            "upper bound <= 0",
            "sway",
            "value",
        ),
        Prediction(
            "A",
            "Others' deduced values are reused and leak into one's own",
            "residue after decoupling, or value on the alien taste",
            "lower bound > .05",
            "both upper bounds < .05",
            "10-leakage",
            "value",
            planned=SWEEP,
        ),
        Prediction(
            "B",
            "(objection) Labelled experience extinguishes it",
            "rho of heads converged at p = 0, switched to p = 1, ten times past convergence",
            "null within .05, cell not confusion",
            "lower bound > .05",
            "09-extinction",
            "reward",
        ),
    ]
    return rows


PREDICTIONS = _rows()


def verdicts(evidence: Evidence | None, calibrated: bool = False) -> pd.DataFrame:
    """One row per prediction: what was estimated, its interval, its gate and its verdict.

    Without a calibrated instrument every verdict carries the note `instrument not calibrated` (DESIGN 5).
    """
    rows = [judge(p, evidence) for p in PREDICTIONS]
    live = [r for r in rows if r["verdict"] != "pending" and r["p"] is not None]
    if live:
        for row, p in zip(live, stats.holm([r["p"] for r in live]), strict=True):
            row["p_holm"] = float(p)
            if row["verdict"] != "inconclusive" and p >= ALPHA:
                row["verdict"], row["note"] = "inconclusive", _join(row["note"], "does not survive Holm")
    for row in rows:
        if row["verdict"] != "pending" and not calibrated:
            row["note"] = _join(row["note"], "instrument not calibrated")
    return pd.DataFrame(rows)


def judge(prediction: Prediction, evidence: Evidence | None) -> dict:
    """One prediction's row, before Holm."""
    row = {
        "id": prediction.id,
        "prediction": prediction.prediction,
        "part": prediction.part,
        "head": prediction.head,
        "family": prediction.family,
        "claim": prediction.claim,
        "statistic": prediction.statistic.format(
            s=evidence.s if evidence else S, p=evidence.exposure if evidence else P
        ),
        "chapter": prediction.chapter,
        "supported": prediction.supported,
        "contradicted": prediction.contradicted,
        "estimate": None,
        "ci_low": None,
        "ci_high": None,
        "n": 0,
        "excluded": [],
        "gate_passed": None,
        "provisional": True,
        "ungated": None,
        "conditions": [],
        "p": None,
        "p_holm": None,
        "note": "",
        "verdict": "pending",
    }
    if evidence is None or prediction.conditions is None:
        return row
    passed, failed = evidence.agents(prediction.head or "reward")
    conditions, lost = _complete(prediction, evidence, passed)
    planned, used = len(passed) + len(failed), len(passed) - len(lost)
    excluded = sorted([*failed, *lost])
    if not used:
        why = f"no value for {len(lost)} agents" if lost else "no competent agents"
        return row | {"excluded": excluded, "verdict": "inconclusive", "gate_passed": False, "note": why}
    everyone, _ = _complete(prediction, evidence, sorted(passed + failed))
    found = [stats.interval(c.values) for c in conditions]
    confused = not np.mean(evidence.measure("auc", passed)) >= metrics.IDENTITY
    notes = ["confusion: identity is not decodable"] if confused else []
    if used < metrics.PASSING * planned:
        notes.append(f"gate: {len(passed)} of {planned} agents competent")
    if lost:
        notes.append(f"no value for agents {lost}")
    if used < MINIMUM:
        notes.append(f"fewer than {MINIMUM} agents")
    gate = used >= metrics.PASSING * planned and not confused
    verdict = _verdict(prediction, conditions, found) if gate and used >= MINIMUM else "inconclusive"
    asides = [] if evidence.preregistered else ["not as preregistered"]
    return row | {
        "estimate": found[0].estimate,
        "ci_low": found[0].low,
        "ci_high": found[0].high,
        "n": used,
        "excluded": excluded,
        "gate_passed": gate,
        "provisional": planned < prediction.planned,
        "ungated": stats.interval(everyone[0].values).estimate,
        "conditions": [
            {"name": c.name, "bar": c.bar, "estimate": f.estimate, "ci_low": f.low, "ci_high": f.high}
            for c, f in zip(conditions, found, strict=True)
        ],
        "p": _p(prediction, conditions, verdict),
        "note": _join(*notes, *asides),
        "verdict": verdict,
    }


def _complete(prediction: Prediction, evidence: Evidence, seeds: list[int]) -> tuple[list[Condition], list[int]]:
    """The conditions over agents that have every value they need, and the agents that have not."""
    if not seeds:
        return [], []
    conditions = prediction.conditions(evidence, seeds)
    whole = np.all([np.isfinite(c.values.reshape(len(seeds), -1)).all(1) for c in conditions], axis=0)
    lost = [seed for seed, kept in zip(seeds, whole, strict=True) if not kept]
    return [Condition(c.name, c.values[whole], c.bar) for c in conditions], lost


CONTRADICTED_BAR = {"P1a": MARGIN}  # where it differs from the bar of support


def _verdict(prediction: Prediction, conditions: list[Condition], found: list[Interval]) -> str:
    if all(f.low > c.bar for c, f in zip(conditions, found, strict=True)):
        return "supported"
    if found[0].high < CONTRADICTED_BAR.get(prediction.id, conditions[0].bar):
        return "contradicted"
    return "inconclusive"


def _p(prediction: Prediction, conditions: list[Condition], verdict: str) -> float:
    """Intersection-union p-value of the verdict's direction; of the nearer one where there is none."""
    first = conditions[0]
    above = max(stats.p_beyond(c.values, c.bar, "above") for c in conditions)
    below = stats.p_beyond(first.values, CONTRADICTED_BAR.get(prediction.id, first.bar), "below")
    return {"supported": above, "contradicted": below}.get(verdict, min(above, below))


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


def rules(*ids: str) -> pd.DataFrame:
    """The preregistered rules of some predictions (all by default), as every verdict applies them."""
    chosen = [p for p in PREDICTIONS if not ids or p.id in ids]
    rows = [(p.id, p.claim, p.statistic.format(s=S, p=P), p.supported, p.contradicted) for p in chosen]
    return pd.DataFrame(rows, columns=["id", "claim", "statistic", "supported if", "contradicted if"]).set_index("id")


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


def shown(table: pd.DataFrame) -> pd.DataFrame:
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


def blank(table: pd.DataFrame) -> pd.DataFrame:
    """The table with nothing where a number does not apply."""
    return table.astype(object).where(table.notna(), "")
