"""Chapters 03 and 04: whether codes of self and other are similar (P1), and what heads on them predict (P2, F1)."""

from itertools import product
from typing import ClassVar

import numpy as np
import pandas as pd
from pydantic import Field

from ... import stats
from ...config import Stage
from ...metrics import MAIN
from .. import studies
from ..plots import Line, draw_similarity, named, over_similarity
from ..results import OF_CODES, Results, rho
from ..studies import COMPANY, ENCODERS, INPUTS, Parameters, similarity_of
from ..verdicts import rule

LEARNT_LESS = ("end_to_end", "solitary")  # encoders that are no world models of others


class Similarity(Parameters):
    chapter: ClassVar[str] = "03-similarity"
    similarity: float = similarity_of()

    def agents(self) -> list[Stage]:
        usual = studies.reference(self.profile, self.seeds, company=(0.0,))
        return [*usual, *(run for run in studies.controls(self.profile, self.seeds) if run.stage == "codes")]


class Misgeneralisation(Parameters):
    chapter: ClassVar[str] = "04-misgeneralisation"

    similarity: float = similarity_of()
    company: float = Field(0.0, ge=0, le=1, description="share p of eventful episodes that heads learnt from")
    head_width: int = Field(128, ge=1, le=4096, description="hidden units per layer of the heads")
    head_depth: int = Field(2, ge=1, le=6, description="hidden layers of the heads")

    def agents(self) -> list[Stage]:
        own = {"width": self.head_width, "depth": self.head_depth}
        company = None if self.company in COMPANY else (self.company,)
        usual = studies.reference(self.profile, self.seeds, company=company, heads=own)
        rest = studies.controls(self.profile, self.seeds) + studies.ordinary(self.profile, self.seeds)
        return list(dict.fromkeys([*usual, *rest]))


def inputs(family: str) -> list[tuple[str, str]]:
    """Controls without a world model, as (family, variant): pixels, their components, and a family's untrained twin."""
    return [*((name, "reference") for name in INPUTS), (family, "untrained")]


def tau(e: Results, seeds: list[int], family: str) -> np.ndarray:
    return e.measure("tau", seeds, family)


def beyond_inputs(measure: str, e: Results, seeds: list[int], family: str) -> np.ndarray:
    """A measure of codes beyond that of every control [n, 3]."""
    own = e.measure(measure, seeds, family)
    return np.stack([own - e.measure(measure, seeds, name, variant=kind) for name, kind in inputs(family)], 1)


def tau_excess(e: Results, seeds: list[int], family: str) -> np.ndarray:
    return beyond_inputs("tau", e, seeds, family)


def direction_excess(e: Results, seeds: list[int], family: str) -> np.ndarray:
    return beyond_inputs("direction", e, seeds, family)


def tau_rho_correlation(e: Results, seeds: list[int], family: str, head: str, beyond: int = 0) -> np.ndarray:
    """Correlation [n] within each seed of tau and rho over appearances below identical.

    beyond: powers of the dose of appearance, up to this one, are taken out of both.
    """
    t = e.pick("measures", measure="tau", mover="other", family=family, **OF_CODES)
    _, codes = rho(t[t.similarity < 1], seeds, over="similarity", value="value")
    dose, found = e.curve(head, seeds, family)
    if codes.shape != found.shape or codes.shape[1] < 3:
        return np.full(len(seeds), np.nan)
    basis = np.vander(dose / 90, beyond + 1)
    rest = np.eye(len(dose)) - basis @ np.linalg.pinv(basis)
    x, y = codes @ rest, found @ rest
    return (x * y).sum(1) / np.sqrt(np.square(x).sum(1) * np.square(y).sum(1))


def rho_of(e: Results, seeds: list[int], head: str, family: str) -> np.ndarray:
    return e.rho(head, seeds, family)


def over_nobody(e: Results, seeds: list[int], head: str, family: str) -> np.ndarray:
    return e.over_nobody(head, seeds, family)


def animacy(e: Results, seeds: list[int], head: str, family: str) -> np.ndarray:
    return e.animacy(head, seeds, family)


def excesses(e: Results, seeds: list[int], head: str, family: str) -> np.ndarray:
    """rho beyond every control that is competent, over the true and over the own slope [n, controls, 2]."""
    found = [
        np.stack([e.excess(head, seeds, family, *control, by_own=by_own) for by_own in (False, True)], 1)
        for control in e.counting(head, inputs(family))
    ]
    return np.stack(found, 1) if found else np.full((len(seeds), 1, 2), np.nan)


def excess_over_true(e: Results, seeds: list[int], head: str, family: str) -> np.ndarray:
    return excesses(e, seeds, head, family)[..., 0]


def excess_over_own(e: Results, seeds: list[int], head: str, family: str) -> np.ndarray:
    return excesses(e, seeds, head, family)[..., 1]


def better_excess(e: Results, seeds: list[int], head: str, family: str) -> np.ndarray:
    """The excess over each control [n, controls] over that slope by which its interval reaches higher: where the upper
    bound of this one is below 0, both are."""
    found = excesses(e, seeds, head, family)
    whole = found[np.isfinite(found).all((1, 2))]
    reach = [[stats.interval(x).high for x in control.T] for control in whole.swapaxes(0, 1)]
    best = np.argmax(reach, 1) if len(whole) else np.zeros(found.shape[1], int)
    return np.stack([found[:, i, k] for i, k in enumerate(best)], 1)


def beyond_others(e: Results, seeds: list[int], head: str, family: str) -> np.ndarray:
    """rho beyond encoders that are no world models of others [n, 2]; NaN beyond one that is not competent itself."""
    counting = e.counting(head, [(family, variant) for variant in LEARNT_LESS])
    found = {variant: e.excess(head, seeds, family, family, variant) for variant in LEARNT_LESS}
    return np.stack([x if (family, variant) in counting else x * np.nan for variant, x in found.items()], 1)


def shown_experience(e: Results, seeds: list[int], head: str, family: str) -> np.ndarray:
    """rho minus that of agents in whose world moods are not drawn [n]."""
    return e.excess(head, seeds, family, family, "expressionless")


ROWS = [
    *rule("P1a", tau),
    *rule("P1b", tau_excess),
    *rule("P1c", direction_excess),
    *rule("P1d", tau_rho_correlation),
    *rule("P2a", rho_of, over_nobody),
    *rule("P2b", excess_over_true, excess_over_own, better_excess),
    *rule("P2c", beyond_others),
    *rule("P2d", shown_experience),
    *rule("F1", rho_of, over_nobody, animacy),
    *rule("F2"),
    *rule("F3"),
]


def code_similarity(results: Results, measures: dict[str, str], mark: float) -> pd.DataFrame:
    """Measures of codes against similarity, a panel for each and every encoder, beside controls; name -> title."""
    lines = []
    for (name, title), family in product(measures.items(), ENCODERS):
        for own, variant in [*inputs(family), (family, "reference")]:
            t = results.pick("measures", measure=name, mover="other", family=own, variant=variant, **OF_CODES)
            lines.append(over_similarity(t, "value", named(own, variant), f"{title}, {family}"))
    return draw_similarity(lines, mark, y="value", columns=2, size=(4.2, 3.1), label="", sharey="row", sharex=True)


def dose_response(results: Results, readout: str, company: tuple[float, ...], mark: float) -> pd.DataFrame:
    """rho against similarity: rows are encoders, columns companies; the other, a drifter, a stranger, and
    nobody."""
    lines = []
    for family, p in product(ENCODERS, company):
        t = results.agents("coefficients", family, readout=readout, company=p, kind=MAIN[readout]).sort_values("seed")
        panel = f"{family}, p = {p:g}"
        lines += [over_similarity(t[t.mover == mover], series=mover, panel=panel) for mover in ("other", "drifter")]
        levels = np.sort(t.similarity[t.mover == "other"].unique())
        for mover in ("stranger", "nobody"):  # of one appearance
            lines.append(Line(mover, levels, np.tile(t[t.mover == mover].rho.to_numpy()[:, None], len(levels)), panel))
    return draw_similarity(lines, mark, columns=len(company), size=(3.1, 2.8), sharex=True, small=True)


def against_controls(results: Results, readout: str, mark: float) -> pd.DataFrame:
    """rho against similarity, a panel for each encoder: the reference, and what it is compared with."""
    lines = []
    for family in ENCODERS:
        compared = [*inputs(family), *((family, variant) for variant in (*LEARNT_LESS, "expressionless", "reference"))]
        for own, variant in compared:
            t = results.agents("coefficients", own, readout=readout, kind=MAIN[readout], mover="other", variant=variant)
            lines.append(over_similarity(t, series=named(own, variant), panel=family))
    return draw_similarity(lines, mark, columns=2, size=(4.4, 3.4))


def two_routes(results: Results, readout: str, mark: float) -> pd.DataFrame:
    """The coefficient from the battery, and from a regression over ordinary episodes, a panel for each encoder."""
    lines = []
    for family in ENCODERS:
        t = results.agents("coefficients", family, readout=readout, kind=MAIN[readout], mover="other")
        lines.append(over_similarity(t, series="battery", panel=family))
        lines.append(over_similarity(second_route(results, readout, family), series="ordinary episodes", panel=family))
    return draw_similarity(lines, mark, columns=2, size=(4.2, 3.2))


def second_route(results: Results, readout: str, family: str) -> pd.DataFrame:
    """rho by regression over ordinary episodes: the slope on what the other meets, over that on what the self meets;
    seed, similarity, rho."""
    t = results.agents("ordinary", family, readout=readout)
    wide = t.pivot_table(index=["seed", "similarity"], columns="mover", values="slope", observed=True)
    own = wide.groupby("seed")["self"].transform("mean")
    return (wide["other"] / own).rename("rho").reset_index()
