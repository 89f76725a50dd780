"""Chapters 03 and 04: whether codes of self and other are similar (P1), and what heads on them predict (P2, F1)."""

from functools import partial
from typing import ClassVar

import numpy as np
import pandas as pd
from pydantic import Field

from ...metrics import CONTROLS
from .. import studies
from ..plots import by_family, draw_similarity, with_anchors
from ..results import Results
from ..studies import Parameters, similarity_of
from ..verdicts import rule


class Similarity(Parameters):
    chapter: ClassVar[str] = "03-similarity"
    families: ClassVar[tuple[str, ...]] = studies.REFERENCE
    similarity: float = similarity_of()


class Misgeneralisation(Parameters):
    chapter: ClassVar[str] = "04-misgeneralisation"
    families: ClassVar[tuple[str, ...]] = studies.REFERENCE
    swept: ClassVar[bool] = True

    similarity: float = similarity_of()
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


def rho_of(head: str, e: Results, seeds: list[int], **where) -> np.ndarray:
    """The coefficient of a head."""
    return e.rho(head, seeds, **where)


def looks_contrast(head: str, e: Results, seeds: list[int]) -> np.ndarray:
    """The coefficient less that of an other of orthogonal appearance."""
    return e.rho(head, seeds) - e.rho(head, seeds, s=0.0)


def animacy(head: str, e: Results, seeds: list[int]) -> np.ndarray:
    """The coefficient less that of a drifter."""
    return e.rho(head, seeds) - e.rho(head, seeds, mover="drifter")


def excess(head: str, e: Results, seeds: list[int]) -> np.ndarray:
    """The coefficient beyond heads on pixels and on the untrained encoder."""
    return e.excess(head, seeds)


ROWS = [
    *rule("P1a", _transfer, raised=_permuted),
    *rule("P1b", _transfer_gain),
    *(row for pair in zip(rule("P2a", rho_of, looks_contrast), rule("P2b", excess), strict=True) for row in pair),
    *rule("F1", partial(rho_of, "value"), partial(animacy, "value")),
    *rule("F2"),
]


def code_similarity(results: Results, measures: dict[str, str], mark: float) -> pd.DataFrame:
    """Measures of the codes against similarity, one panel each, world model and controls; measures: name -> title."""
    own, lines = results.measures[results.measures.mover == "other"], []
    for name, title in measures.items():
        lines += by_family(own[own.measure == name], "value", title)
    return draw_similarity(lines, mark, y="value", size=(3.7, 3.5), label="", sharey=False, sharex=True)


def dose_response(results: Results, exposures: tuple[float, ...], mark: float) -> pd.DataFrame:
    """rho against similarity: rows are heads, columns exposures; controls in grey, drifters in green."""
    lines = []
    for readout in ("reward", "value"):
        for p in exposures:
            t = results.pick("coefficients", readout=readout, kind="empathy", exposure=p)
            lines += with_anchors(t, f"{readout} head, p = {p:g}")
    return draw_similarity(lines, mark, columns=len(exposures), size=(3.4, 2.9), sharex=True)
