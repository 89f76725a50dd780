"""Chapters 03 and 04: whether codes of self and other are similar (P1), and what heads on them predict (P2, F1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pandas as pd
from pydantic import Field

from ...metrics import CONTROLS
from .. import studies
from ..plots import COLOURS, Line, by_family, draw, over_similarity, similarity_axis, turned
from ..results import Results
from ..studies import Parameters, similarity
from ..verdicts import MARGIN, NULL, Bar, Criterion, Prediction

Values = Callable[[Results, list[int]], np.ndarray]


class Similarity(Parameters):
    chapter: ClassVar[str] = "03-similarity"
    families: ClassVar[tuple[str, ...]] = studies.FAMILIES
    similarity: float = similarity()


class Misgeneralisation(Parameters):
    chapter: ClassVar[str] = "04-misgeneralisation"
    families: ClassVar[tuple[str, ...]] = studies.FAMILIES
    swept: ClassVar[bool] = True

    similarity: float = similarity()
    exposure: float = Field(0.0, ge=0, le=1, description="share p of the other's contacts labelled with own reward")
    head_width: int = Field(128, ge=1, le=4096, description="hidden units per layer of the heads")
    head_depth: int = Field(2, ge=1, le=6, description="hidden layers of the heads")

    def heads(self) -> dict:
        return {"width": self.head_width, "depth": self.head_depth}


def _transfer(e: Results, seeds: list[int]) -> np.ndarray:
    return e.measure("transfer", seeds)


def _permuted(e: Results, seeds: list[int]) -> float:
    """95th percentile of the transfer of decoders fitted to permuted labels."""
    names = sorted(n for n in e.measures.measure.unique() if n.startswith("null"))
    return float(np.nanpercentile(np.concatenate([e.measure(n, seeds) for n in names]), 95)) if names else -np.inf


def _transfer_gain(e: Results, seeds: list[int]) -> np.ndarray:
    return np.stack([_transfer(e, seeds) - e.measure("transfer", seeds, family) for family in CONTROLS], 1)


def rho_of(head: str, **where) -> Values:
    """The coefficient of a head."""
    return lambda e, seeds: e.rho(head, seeds, **where)


def contrast(head: str, **against) -> Values:
    """The coefficient less the same elsewhere."""
    return lambda e, seeds: e.rho(head, seeds) - e.rho(head, seeds, **against)


def empathy(head: str) -> tuple[Criterion, ...]:
    """P2a: the coefficient itself, and more of it for an appearance like one's own."""
    return (
        Criterion("rho", Bar("above", MARGIN), (Bar("below", MARGIN),), rho_of(head)),
        Criterion("the looks contrast", Bar("above", 0), values=contrast(head, s=0.0)),
    )


def beyond_inputs(head: str) -> tuple[Criterion, ...]:
    """P2b: more than heads on pixels and on the untrained encoder have."""
    values = lambda e, seeds: e.excess(head, seeds)  # noqa: E731
    return (Criterion("the excess over inputs", Bar("above", 0), (Bar("below", 0),), values),)


P1 = (
    Prediction(
        "P1a",
        "Codes for self and a similar other in the same event are similar",
        "transfer of a contact x valence decoder from self to other (R2 on other / R2 within self), s = {s:g}",
        "03-similarity",
        (
            Criterion(
                *("transfer", Bar("above", MARGIN), (Bar("below", MARGIN),), _transfer),
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
)


def _p2(head: str, name: str) -> tuple[Prediction, Prediction]:
    excess = "excess of rho over heads on pixels and untrained encoder (the one of larger mean), paired by seed, "
    about, at = f"A {name} trained on own reward mis-generalises to the other", "s = {s:g}, p = {p:g}"
    why, page = f"It is the world model that makes the {name} do so", "04-misgeneralisation"
    return (
        Prediction(f"P2a/{head}", about, f"rho and looks contrast, {at}", page, empathy(head), head),
        Prediction(f"P2b/{head}", why, excess + at, page, beyond_inputs(head), head),
    )


F1 = Prediction(
    "F1",
    "It is the TD value function, not the immediate-reward model",
    "rho_V and animacy contrast, s = {s:g}, p = {p:g}",
    "04-misgeneralisation",
    (
        Criterion("rho_V", Bar("above", MARGIN), (Bar("below", MARGIN),), rho_of("value")),
        Criterion("the animacy contrast", Bar("above", 0), values=contrast("value", mover="drifter")),
    ),
    "value",
)
ROWS = (*P1, *_p2("reward", "reward model"), *_p2("value", "value function"), F1)


def code_similarity(results: Results, measures: dict[str, str], mark: float) -> pd.DataFrame:
    """Measures of the codes against similarity, one panel each, world model and controls; measures: name -> title."""
    lines = []
    for name, title in measures.items():
        own = results.measures[(results.measures.measure == name) & (results.measures.mover == "other")]
        lines += by_family(own, "value", title)
    axis = similarity_axis(mark)
    return draw(lines, "similarity", "value", axis, turned, size=(3.7, 3.5), label="", sharey=False, sharex=True)


def dose_response(results: Results, exposures: tuple[float, ...], mark: float) -> pd.DataFrame:
    """rho against similarity: rows are heads, columns exposures; controls in grey, drifters in green."""
    lines = []
    for readout in ("reward", "value"):
        for p in exposures:
            t, panel = results.coefficients, f"{readout} head, p = {p:g}"
            t = t[(t.readout == readout) & (t.kind == "empathy") & np.isclose(t.exposure, p)]
            ours = t[t.family == "recurrent"]
            own = ours[ours.mover == "self"].rho.to_numpy()[:, None]
            lines += by_family(t[t.mover == "other"], "rho", panel)
            drifter = ours[ours.mover == "drifter"]
            lines.append(over_similarity(drifter, "rho", "world model, drifter", COLOURS["drifter"], panel=panel))
            lines.append(Line("world model, self", np.ones(1), own, COLOURS["self"], panel))
    axis = similarity_axis(mark)
    return draw(lines, "similarity", "rho", axis, turned, columns=len(exposures), size=(3.4, 2.9), sharex=True)
