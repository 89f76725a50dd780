"""The preregistered predictions (DESIGN 5) as data, and the one function that turns tables into verdicts.

Thresholds were fixed before any confirmatory run and do not move.  What a verdict takes is said by each prediction's
criteria (`rules`); and Holm's procedure over all live verdicts must let it stand.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import scipy.stats

from . import continuity, development, generality, leakage, metrics, scaling, stats
from .evidence import S_HIGH, P, S
from .evidence import Evidence as Evidence
from .metrics import CONTROLS
from .rules import FAMILIES, SWEEP, Bar, Criterion, Measured, Prediction

ALPHA = 0.05
MINIMUM = 10  # below this many agents every verdict is inconclusive
MARGIN, NULL = 0.10, 0.05
TREND = 0.01  # level of Page's test
SCALING_NULL = 0.02  # per decade
SPLIT_HALF, ICC, RECOVERY, R2, FORECAST = 0.8, 0.75, 0.1, 0.95, 0.3  # bars of P7 and of the calibration
JUMP = 0.25  # share of the range
LOOKS = (0.0, 0.5)  # similarities at which planted couplings are read: the ends of s <= .5
EVENT = (("reward", "empathy"),)  # the response whose reliability is asked for
WHENEVER = 6  # competent families that "whenever" takes at least
INTERPOLATIONS = ("axis", "whole")  # ways from the other's code to the self's


def _measure(name: str, **where) -> Callable[[Evidence, list[int]], np.ndarray]:
    return lambda e, seeds: e.measure(name, seeds, **where)


def _permuted(e: Evidence, seeds: list[int]) -> float:
    """95th percentile of the transfer of decoders fitted to permuted labels."""
    names = sorted(n for n in e.measures.measure.unique() if n.startswith("null"))
    return float(np.nanpercentile(np.concatenate([e.measure(n, seeds) for n in names]), 95)) if names else -np.inf


def _transfer_gain(e: Evidence, seeds: list[int]) -> np.ndarray:
    own = e.measure("transfer", seeds)
    return np.stack([own - e.measure("transfer", seeds, family) for family in CONTROLS], 1)


def _rho(head: str, **where) -> Callable[[Evidence, list[int]], np.ndarray]:
    return lambda e, seeds: e.rho(head, seeds, **where)


def _contrast(head: str, **against) -> Callable[[Evidence, list[int]], np.ndarray]:
    return lambda e, seeds: e.rho(head, seeds) - e.rho(head, seeds, **against)


def _excess(head: str) -> Callable[[Evidence, list[int]], np.ndarray]:
    return lambda e, seeds: e.excess(head, seeds)


def _empathy(head: str) -> tuple[Criterion, ...]:
    """P2a: the coefficient itself, and more of it for looks like one's own."""
    return (
        Criterion("rho", Bar("above", MARGIN), (Bar("below", MARGIN),), _rho(head)),
        Criterion("the looks contrast", Bar("above", 0), values=_contrast(head, s=0.0)),
    )


def _beyond_inputs(head: str) -> tuple[Criterion, ...]:
    """P2b: more than heads on pixels and on the untrained encoder have."""
    return (Criterion("the excess over inputs", Bar("above", 0), (Bar("below", 0),), _excess(head)),)


def _case(part: str, head: str, family: str, mode: str) -> Prediction:
    """P2 asked of one family, of contacts that it sees or imagines."""
    at = lambda e, seeds, **where: generality.rho(mode)(e, head, seeds, family=family, **where)  # noqa: E731
    own = {
        "rho": at,
        "the looks contrast": lambda e, seeds: at(e, seeds) - at(e, seeds, s=0.0),
        "the excess over inputs": lambda e, seeds: e.excess(head, seeds, at(e, seeds)),
    }
    rule = {"a": _empathy, "b": _beyond_inputs}[part](head)
    return Prediction(
        f"P6{part}/{head}/{family}/{mode}",
        f"{family} {mode}",
        "",
        "07-generality",
        tuple(replace(c, values=own[c.name]) for c in rule),
        head,
        family,
        FAMILIES,
        agents=partial(generality.agents, mode, family),
    )


def _cases(part: str, head: str, e: Evidence) -> list[Prediction]:
    return [_case(part, head, family, mode) for family, mode in generality.present(e)]


def _curve(head: str) -> Callable[[Evidence, list[int]], np.ndarray]:
    return lambda e, seeds: e.curve(head, seeds)[1]


def _patch_contrast(head: str) -> Callable[[Evidence, list[int]], np.ndarray]:
    """rho with the code patched all the way along the self-other axis, beyond as far along random axes."""
    return lambda e, seeds: e.moved(head, seeds, "axis")[1][:, -1] - e.moved(head, seeds, "random")[1][:, -1]


def _smooth(head: str, sign: int = 1) -> Callable[[Evidence, list[int]], np.ndarray]:
    return lambda e, seeds: sign * continuity.lead(*e.curve(head, seeds))


def _along(head: str, shape: Callable, worse: Callable) -> Callable[[Evidence, list[int]], np.ndarray]:
    """The worse of two ways from the other's code to the self's: along the axis between all others and the self, and
    straight from each code to its partner."""
    return lambda e, seeds: worse(*(shape(*e.moved(head, seeds, path)) for path in INTERPOLATIONS))


def line(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slope, intercept and R2 [...] of recovered on planted couplings [..., n, couplings, 2], all agents together."""
    return stats.line(*(x[..., i].reshape(*x.shape[:-3], -1) for i in (0, 1)))


def slope(x: np.ndarray) -> np.ndarray:
    """Slope of that line."""
    return line(x)[0]


def determination(x: np.ndarray) -> np.ndarray:
    """R2 of that line."""
    return line(x)[2]


def _worst_slope(x: np.ndarray) -> np.ndarray:
    """Of x [..., n, looks, couplings, 2]: the slope, over all agents, of those looks where it is farthest from 1."""
    found = slope(np.moveaxis(x, -3, 0))  # [looks, ...]
    return np.take_along_axis(found, np.abs(found - 1).argmax(0)[None], 0)[0]


def _worst_determination(x: np.ndarray) -> np.ndarray:
    return determination(np.moveaxis(x, -3, 0)).min(0)


def _planted(e: Evidence, seeds: list[int]) -> np.ndarray:
    return np.stack([e.recovered("reward", seeds, s) for s in LOOKS], 1)


def _halves(e: Evidence, seeds: list[int]) -> np.ndarray:
    """Coefficients [n, cells, halves] of the first set of scenes, over the pooled design."""
    return development.scores(e, seeds, EVENT, e.s)[:, :, 0, 0]


def _sets(e: Evidence, seeds: list[int]) -> np.ndarray:
    """Coefficients [n, cells, sets]."""
    return development.scores(e, seeds, EVENT, e.s)[:, :, 0].mean(-1)


def _kinds(e: Evidence, seeds: list[int]) -> np.ndarray:
    """Coefficients [n, cells, kinds, halves] of the first set of scenes."""
    return development.scores(e, seeds, tuple(development.KINDS.values()), e.s)[:, :, :, 0]


def _early_and_final(e: Evidence, seeds: list[int]) -> np.ndarray:
    """Coefficients [n, 1, 2] at the exposure that verdicts are read at."""
    return development.early_and_final(e, *EVENT[0], e.exposure, seeds)[:, None]


def _left(head: str) -> Callable[[Evidence, list[int]], np.ndarray]:
    """rho when heads that had converged at p = 0 have long been given every label."""
    return lambda e, seeds: development.after(e, seeds, 1.0, readout=head)[1][:, -1]


def _grows(axis: str, exposure: float) -> tuple[Criterion, ...]:
    """P5: the slope of rho per decade of one axis of capacity, at matched competence."""
    values = lambda e, seeds: scaling.slopes(e, axis, exposure, seeds)  # noqa: E731
    return (Criterion("the slope", Bar("above", 0), (Bar("below", 0), Bar("null", SCALING_NULL)), values),)


def _rank_correlation(x: np.ndarray) -> np.ndarray:
    """Mean over agents [...] of the rank correlation of x [..., n, levels] with the order of the levels."""
    levels = x.shape[-1]
    ranks = scipy.stats.rankdata(x, axis=-1) - (levels + 1) / 2
    order = np.arange(levels) - (levels - 1) / 2
    each = ranks @ order / (np.linalg.norm(ranks, axis=-1).clip(1e-12) * np.linalg.norm(order))
    return each.mean(-1)


def _short(p: float) -> str:
    return f"{p:g}".replace("0.", ".", 1)


def _rows() -> list[Prediction]:
    rows = [
        Prediction(
            "P1a",
            "Codes for self and a similar other in the same event are similar",
            "transfer of a contact x valence decoder from self to other (R2 on other / R2 within self), s = {s:g}",
            "03-similarity",
            (
                Criterion(
                    "transfer",
                    Bar("above", MARGIN),
                    (Bar("below", MARGIN),),
                    _measure("transfer"),
                    raised=_permuted,
                    raised_by="permutation 95th",
                ),
            ),
        ),
        Prediction(
            "P1b",
            "It is the world model that makes them similar",
            "gain in transfer over pixels and untrained encoder (the one of larger mean), paired by seed, s = {s:g}",
            "03-similarity",
            (Criterion("the gain", Bar("above", NULL), (Bar("below", NULL),), _transfer_gain),),
        ),
    ]
    for head, name in (("reward", "reward model"), ("value", "value function")):
        rows += [
            Prediction(
                f"P2a/{head}",
                f"A {name} trained on own reward mis-generalises to the other",
                "rho and looks contrast, s = {s:g}, p = {p:g}",
                "04-misgeneralisation",
                _empathy(head),
                head,
            ),
            Prediction(
                f"P2b/{head}",
                f"It is the world model that makes the {name} do so",
                "excess of rho over heads on pixels and untrained encoder (the one of larger mean), paired by seed, "
                "s = {s:g}, p = {p:g}",
                "04-misgeneralisation",
                _beyond_inputs(head),
                head,
            ),
        ]
    rows += [
        Prediction(
            "P3",
            "The more similar the target, the more of it",
            "Page's trend of rho over angle; rho(.9) - rho(0); patch along the self-other axis minus norm-matched "
            "random axes",
            "05-continuity",
            (
                Criterion(
                    "rho(.9) - rho(0)",
                    Bar("above", MARGIN),
                    (Bar("below", MARGIN),),
                    lambda e, seeds: e.rho("reward", seeds, s=S_HIGH) - e.rho("reward", seeds, s=0.0),
                ),
                Criterion(
                    "rho over levels of similarity",
                    Bar("rising", TREND),
                    (Bar("falling", TREND),),
                    _curve("reward"),
                    _rank_correlation,
                ),
                Criterion("the patch contrast", Bar("above", 0), values=_patch_contrast("reward")),
            ),
            "reward",
        ),
        Prediction(
            "P3/conduct",
            "The more alike in conduct, the more of it",
            "animacy contrast of rho",
            "05-continuity",
            (
                Criterion(
                    "the animacy contrast", Bar("above", 0), (Bar("below", 0),), _contrast("reward", mover="drifter")
                ),
            ),
            "reward",
        ),
        Prediction(
            "P4",
            "Empathy is a continuous spectrum",
            "smooth curve in angle against the best step, leave-one-out, per agent; largest adjacent jump; likewise "
            "along latent interpolation (the worse of axis and whole code, s = {s:g}); pixels' own score beside it",
            "05-continuity",
            (
                Criterion("the smooth curve's lead", Bar("more than 2 SE above", 0), values=_smooth("reward")),
                Criterion(
                    "the largest jump's share of the range",
                    Bar("below", JUMP),
                    values=lambda e, seeds: continuity.jump(e.curve("reward", seeds)[1]),
                ),
                Criterion(
                    "the lead along latent interpolation",
                    Bar("more than 2 SE above", 0),
                    values=_along("reward", continuity.lead, np.minimum),
                ),
                Criterion(
                    "the largest jump's share there",
                    Bar("below", JUMP),
                    values=_along("reward", lambda x, y: continuity.jump(y), np.maximum),
                ),
                Criterion("the step's lead", None, (Bar("more than 2 SE above", 0),), _smooth("reward", -1)),
            ),
            "reward",
        ),
    ]
    for axis in ("model-width", "latent", "head-width", "data"):
        rows += [
            Prediction(
                f"P5/{axis}/p{_short(p)}",
                f"It scales with capacity ({axis.replace('-', ' ')}, p = {_short(p)})",
                "mixed-model slope of rho per decade at matched competence",
                "06-scaling",
                _grows(axis, p),
                "reward",
                planned=SWEEP,
                agents=lambda e, head, axis=axis, p=p: scaling.agents(e, axis, p),
                identity=False,  # asked of every level by itself
            )
            for p in (0.0, 0.1)
        ]
    rows += [
        Prediction(
            f"P6{part}/{head}",
            f"It appears whenever a learnt {head} head reads a general unsupervised latent",
            f"P2{part} in every competent family, observed and imagined; where one more would lie (random effects)",
            "07-generality",
            rule(head),
            head,
            "all",
            FAMILIES,
            every="competent family (at least six), observed and imagined",
            cases=partial(_cases, part, head),
        )
        for part, rule in (("a", _empathy), ("b", _beyond_inputs))
        for head in ("reward", "value")
    ]
    rows += [
        Prediction(
            "P7",
            "Test stimuli shown during training measure its extent and kinds precisely",
            "split-half; ICC; slope and R2 of planted kappa (s <= .5); kinds; prediction of the final score at 20% of "
            "training, out of seed",
            "08-stimuli",
            (
                Criterion(
                    "split-half reliability",
                    Bar("above", SPLIT_HALF),
                    (Bar("below", SPLIT_HALF),),
                    _halves,
                    development.split_half,
                ),
                Criterion("ICC(2,k)", Bar("above", ICC), (Bar("below", ICC),), _sets, development.icc),
                Criterion(
                    "the slope on planted kappa",
                    Bar("within", 1 - RECOVERY, 1 + RECOVERY),
                    (Bar("below", 1 - RECOVERY),),
                    _planted,
                    _worst_slope,
                ),
                Criterion("its R2", Bar("above", R2), (Bar("below", R2),), _planted, _worst_determination),
                Criterion(
                    "same-kind r's lead over different-kind r's",
                    Bar("above", 0),
                    values=_kinds,
                    statistic=development.lead,
                ),
                Criterion(
                    "r with the final score",
                    Bar("above", FORECAST),
                    values=_early_and_final,
                    statistic=development.forecast,
                ),
            ),
            agents=development.measured,
            planned=SWEEP,
        ),
        Prediction(
            "F1",
            "It is the TD value function, not the immediate-reward model",
            "rho_V and animacy contrast, s = {s:g}, p = {p:g}",
            "04-misgeneralisation",
            (
                Criterion("rho_V", Bar("above", MARGIN), (Bar("below", MARGIN),), _rho("value")),
                Criterion("the animacy contrast", Bar("above", 0), values=_contrast("value", mover="drifter")),
            ),
            "value",
        ),
        Prediction(
            "F2",
            "It sways decisions: a planner on V forgoes own reward for the other's",
            "price paid in own reward",
            "sway",
            (Criterion("the price", Bar("above", 0), (Bar("at most", 0),)),),
            "value",
        ),
        Prediction(
            "A",
            "Others' deduced values are reused and leak into one's own",
            "residue after decoupling, or value on the alien taste",
            "10-leakage",
            (
                Criterion("the residue", Bar("above", NULL), (Bar("below", NULL),), leakage.residue),
                Criterion("the value on the alien taste", Bar("above", NULL), (Bar("below", NULL),), leakage.taste),
            ),
            "value",
            agents=leakage.agents,
            planned=SWEEP,
            support_by="any",
            contradict_by="all",
        ),
        Prediction(
            "B",
            "(objection) Labelled experience extinguishes it",
            "rho of heads converged at p = 0, switched to p = 1, ten times past convergence; half-life against p and s "
            "reported",
            "09-extinction",
            (Criterion("rho", Bar("null", NULL), (Bar("above", NULL),), _left("reward")),),
            "reward",
            agents=development.competent,
            also="cell not confusion",
        ),
    ]
    return rows


PREDICTIONS = _rows()


def verdicts(evidence: Evidence | None) -> pd.DataFrame:
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
        if row["verdict"] != "pending" and not evidence.calibrated:
            row["note"] = _join(row["note"], "instrument not calibrated")
    return pd.DataFrame(rows)


def judge(prediction: Prediction, evidence: Evidence | None) -> dict:
    """One prediction's row, before Holm."""
    row = _unjudged(prediction, evidence)
    if evidence is None or not prediction.live:
        return row
    if prediction.cases:
        return _judged_by_cases(prediction, evidence, row)
    head = prediction.head or "reward"
    passed, failed = prediction.agents(evidence, head) if prediction.agents else evidence.agents(head)
    measured, lost = prediction.measure(evidence, passed)
    row["excluded"] = sorted([*failed, *lost])
    if not measured:
        why = f"no value for {len(lost)} agents" if lost else "no competent agents"
        return row | {"verdict": "inconclusive", "gate_passed": False, "note": why}
    everyone = prediction.measure(evidence, sorted(passed + failed))[0] if failed else measured
    planned, used = len(passed) + len(failed), len(passed) - len(lost)
    confused = prediction.identity and not evidence.decodable(passed, prediction.family)
    gate = used >= metrics.PASSING * planned and not confused
    verdict, p = prediction.decide(measured)
    first = measured[0].found
    return row | {
        "estimate": first.estimate,
        "ci_low": first.low,
        "ci_high": first.high,
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
            "" if evidence.preregistered else "not as preregistered",
        ),
        "verdict": verdict if gate and used >= MINIMUM else "inconclusive",
    }


def _judged_by_cases(prediction: Prediction, evidence: Evidence, row: dict) -> dict:
    """A rule that is asked of several cells: all that count must support it, or any contradicts it.

    A case counts if its gate is passed, and the rule's own gate is that cases of enough families count.  The p-value
    is the largest of all for, Bonferroni's of the smallest against.
    """
    cases = prediction.cases(evidence)
    rows = [judge(case, evidence) for case in cases]
    counted = [(case, r) for case, r in zip(cases, rows, strict=True) if r["gate_passed"]]
    competent = {case.family for case, r in counted if case.id.endswith("observed")}
    counted = [(case, r) for case, r in counted if case.family in competent]
    left_out = [case.claim for case in cases if case.id not in {c.id for c, _ in counted}]
    if not counted:
        return row | {"verdict": "inconclusive", "gate_passed": False, "note": "no competent family"}
    enough = len(competent) >= WHENEVER
    against = [r["p"] for _, r in counted if r["verdict"] == "contradicted"]
    if against:
        verdict, p = "contradicted", min(1.0, min(against) * len(counted))
    else:
        yes = all(r["verdict"] == "supported" for _, r in counted)
        verdict, p = "supported" if yes else "inconclusive", max(r["p"] for _, r in counted)
    beyond = prediction.part.startswith("b")
    over, ungated = (generality.pooled(evidence, prediction.head, beyond, gated) for gated in (True, False))
    return row | {
        "estimate": over.estimate,
        "ci_low": over.low,
        "ci_high": over.high,
        "n": len(competent),
        "excluded": left_out,
        "gate_passed": enough,
        "provisional": any(r["provisional"] for _, r in counted),
        "ungated": ungated.estimate,
        "conditions": [{"name": case.claim, **_found(r)} for case, r in zip(cases, rows, strict=True)],
        "p": p,
        "note": _join(
            "" if enough else f"{len(competent)} competent families, at least {WHENEVER} wanted",
            "" if evidence.preregistered else "not as preregistered",
        ),
        "verdict": verdict if enough else "inconclusive",
    }


def _found(row: dict) -> dict:
    """What was found about one case, in the form of a condition."""
    bar = row["conditions"][0]["bar"] if row["conditions"] else None
    return {"bar": bar, **{name: row[name] for name in ("estimate", "ci_low", "ci_high", "n", "verdict", "note")}}


def _unjudged(prediction: Prediction, evidence: Evidence | None) -> dict:
    """The row of a prediction about which nothing is known yet."""
    at = {"s": evidence.s if evidence else S, "p": evidence.exposure if evidence else P}
    return {
        "id": prediction.id,
        "prediction": prediction.prediction,
        "part": prediction.part,
        "head": prediction.head,
        "family": prediction.family,
        "claim": prediction.claim,
        "statistic": prediction.statistic.format(**at),
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


def _condition(m: Measured) -> dict:
    """What was found about one criterion, and the bar of support as it counted."""
    return {
        "name": m.criterion.name,
        "bar": m.supports.value if m.supports else None,
        "estimate": m.found.estimate,
        "ci_low": m.found.low,
        "ci_high": m.found.high,
    }


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


def rules(*ids: str, rows: list[Prediction] = PREDICTIONS) -> pd.DataFrame:
    """The preregistered rules of some predictions (all by default), as every verdict applies them."""
    chosen = [p for p in rows if not ids or p.id in ids]
    shown = [(p.id, p.claim, p.statistic.format(s=S, p=P), p.supported, p.contradicted) for p in chosen]
    return pd.DataFrame(shown, columns=["id", "claim", "statistic", "supported if", "contradicted if"]).set_index("id")


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


def by_chapter(table: pd.DataFrame) -> pd.DataFrame:
    """The verdicts of every chapter in a line."""
    provisional = table.provisional.eq(True) & (table.verdict != "pending")
    said = table.id + ": " + table.verdict + np.where(provisional, " (provisional)", "")
    return said.groupby(table.chapter).agg("; ".join).rename("verdicts").to_frame()


def blank(table: pd.DataFrame) -> pd.DataFrame:
    """The table with nothing where a number does not apply."""
    return table.astype(object).where(table.notna(), "")
