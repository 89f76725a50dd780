"""What verdicts are computed from: coefficients, gates and measures of all agents at hand."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from . import metrics
from .metrics import CONTROLS

S, P, S_HIGH = 0.5, 0.0, 0.9  # unless a rule says otherwise
TAUGHT = 1.0  # exposure p of planted couplings
KINDS = {  # columns by which long tables are asked
    "development": ["readout", "kind", "mover", "family"],
    "extinction": ["readout", "kind", "mover", "withheld", "until"],
}
DECODABLE = 0.10  # R2 within self below which a ratio to it says nothing


@dataclass(frozen=True)
class Evidence:
    """Coefficients, gates and measures of all agents at hand, and where they are read.

    interventions: coefficients after them, where there were any; precision: by half and set of scenes; development:
    while world model and heads learnt together; extinction: while labels of the other's contacts were given, and
    progress what was learnt from then; curves: while reward models of every capacity learnt, with own R2; imagined: of
    frames that world models imagined; decoupling: after a coupling had ceased; nearness: of items in value, by
    what they are worth to the self.
    altered: agents are not the reference ones; calibrated: the instrument has passed its own tests.
    """

    coefficients: pd.DataFrame
    gates: pd.DataFrame
    measures: pd.DataFrame
    interventions: pd.DataFrame | None = None
    precision: pd.DataFrame | None = None
    development: pd.DataFrame | None = None
    extinction: pd.DataFrame | None = None
    progress: pd.DataFrame | None = None
    curves: pd.DataFrame | None = None
    imagined: pd.DataFrame | None = None
    decoupling: pd.DataFrame | None = None
    nearness: pd.DataFrame | None = None
    s: float = S
    exposure: float = P
    altered: bool = False
    calibrated: bool = False

    @classmethod
    def of(
        cls,
        responses: pd.DataFrame,
        measures: pd.DataFrame,
        interventions: pd.DataFrame | None = None,
        precision: pd.DataFrame | None = None,
        extinction: pd.DataFrame | None = None,
        development: tuple[pd.DataFrame, pd.DataFrame] | None = None,
        curves: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame] | None = None,
        imagined: tuple[pd.DataFrame, pd.Series] | None = None,
        decoupling: pd.DataFrame | None = None,
        **where,
    ) -> Evidence:
        """From the tidy tables of a study; the rows of family `truth` are the yardstick.

        development: slopes, and the yardstick of the scenes that were shown then; curves: these, and what was learnt;
        imagined: slopes, and what an imagined contact is worth (`metrics.expected`).
        """
        truth = responses.family == "truth"
        table = metrics.coefficients(responses[~truth], responses[truth])
        if curves is not None:
            where["curves"] = _with_r2(*curves)
        if interventions is not None:
            interventions = metrics.over_truth(interventions, table)
        by_truth = {
            name: None if own is None else metrics.relative(own, responses[truth])
            for name, own in (("precision", precision), ("extinction", extinction), ("decoupling", decoupling))
        }
        if imagined is not None:
            where["imagined"] = metrics.over_expected(*imagined)
        if (responses[~truth].readout == "value").any():
            where["nearness"] = metrics.nearness(responses[~truth], responses[truth])
        watched = None if development is None else metrics.relative(*development)
        gates = metrics.competence(table, measures)
        return cls(table, gates, measures, interventions, development=watched, **by_truth, **where)

    @property
    def preregistered(self) -> bool:
        """Whether agents are the reference ones and verdicts read where the preregistration says: s = .5 and p = 0."""
        return self.s == S and self.exposure == P and not self.altered

    @cached_property
    def _conditions(self) -> dict[tuple, pd.DataFrame]:
        """Coefficients by readout, family, kind and mover."""
        return dict(list(self.coefficients.groupby(["readout", "family", "kind", "mover"], observed=True)))

    @cached_property
    def _measures(self) -> dict[str, pd.DataFrame]:
        """Measures by family."""
        return dict(list(self.measures.groupby("family", observed=True)))

    @cached_property
    def _kinds(self) -> dict[str, dict[tuple, pd.DataFrame]]:
        """Development and extinction by what `of_kind` is asked for."""
        return {
            name: {} if (t := getattr(self, name)) is None else dict(list(t.groupby(keys, observed=True)))
            for name, keys in KINDS.items()
        }

    def of_kind(self, table: str, **where) -> pd.DataFrame:
        """Rows of `development` or `extinction` where all of its columns in `KINDS` are as given; found once."""
        return self._kinds[table].get(tuple(where[key] for key in KINDS[table]), getattr(self, table)[:0])

    def agents(
        self, readout: str, family: str = "recurrent", exposure: float | None = None
    ) -> tuple[list[int], list[int]]:
        """Seeds that pass the readout's gate, and those that do not."""
        g, exposure = self.gates, self.exposure if exposure is None else exposure
        g = g[(g.readout == readout) & (g.family == family) & np.isclose(g.exposure, exposure) & (g.kappa == 0)]
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
        kappa: float = 0.0,
    ) -> np.ndarray:
        """Coefficient [n] of the given seeds, in their order; NaN where an agent is missing."""
        exposure = self.exposure if exposure is None else exposure
        t = self._conditions.get((readout, family, kind, mover), self.coefficients[:0])
        t = t[np.isclose(t.exposure, exposure) & (t.kappa == kappa)]
        return per_seed(t, "rho", seeds, self.s if s is None else s)

    def foreseen(
        self, readout: str, seeds: list[int], family: str = "recurrent", mover: str = "other", s: float | None = None
    ) -> np.ndarray:
        """Coefficient [n] of contacts that were imagined; NaN where an agent imagines nothing."""
        if self.imagined is None:
            return np.full(len(seeds), np.nan)
        t = self.at(self.imagined, readout, family)
        return per_seed(t[t.mover == mover], "rho", seeds, self.s if s is None else s)

    def recovered(self, readout: str, seeds: list[int], s: float, kind: str = "empathy") -> np.ndarray:
        """Planted and recovered coupling [n, couplings, 2] of the given seeds' agents that were taught everything."""
        t = self.coefficients
        kappas = sorted(t[(t.family == "recurrent") & (t.exposure == TAUGHT)].kappa.unique())
        if len(kappas) < 2:
            return np.full((len(seeds), 1, 2), np.nan)
        rho = [self.rho(readout, seeds, s=s, kind=kind, exposure=TAUGHT, kappa=kappa) for kappa in kappas]
        return np.stack([np.broadcast_to(kappas, (len(seeds), len(kappas))), np.stack(rho, 1)], -1)

    def curve(
        self, readout: str, seeds: list[int], family: str = "recurrent", mover: str = "other"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Dose [L], 90 degrees less the angle, and coefficients [n, L] of looks below identical, ascending."""
        t = self.at(self.coefficients, readout, family)
        wide = _wide(t[(t.mover == mover) & (t.kind == "empathy") & (t.similarity < 1)], "similarity", seeds)
        return 90 - np.degrees(np.arccos(wide.columns.to_numpy(float))), wide.to_numpy()

    def moved(
        self,
        readout: str,
        seeds: list[int],
        path: str,
        family: str = "recurrent",
        s: float | None = None,
        mover: str = "other",
    ) -> tuple[np.ndarray, np.ndarray]:
        """Share alpha [A] of the way that the mover's code has gone along a path, and coefficients [n, A] there."""
        if self.interventions is None:
            return np.ones(1), np.full((len(seeds), 1), np.nan)
        t = self.at(self.interventions, readout, family)
        t = t[(t.path == path) & (t.mover == mover)][["seed", "alpha", "similarity", "rho"]]
        wide = _wide(metrics.at_similarity(t, self.s if s is None else s), "alpha", seeds)
        return wide.columns.to_numpy(float), wide.to_numpy()

    def at(self, table: pd.DataFrame, readout: str, family: str) -> pd.DataFrame:
        """Rows of one family's readout at the exposure that verdicts are read at, without coupling."""
        t = table[(table.readout == readout) & (table.family == family) & (table.kappa == 0)]
        return t[np.isclose(t.exposure, self.exposure)]

    def measure(
        self, name: str, seeds: list[int], family: str = "recurrent", mover: str = "other", s: float | None = None
    ) -> np.ndarray:
        """A code measure [n] of the given seeds; a transfer is NaN where the self itself is not decodable."""
        t_all = self._measures.get(family, self.measures[:0])
        t = t_all[(t_all.measure == name) & (t_all.mover == mover)]
        found = per_seed(t, "value", seeds, self.s if s is None else s)
        if not name.startswith(("transfer", "null")):
            return found
        within = per_seed(t_all[(t_all.measure == "r2") & (t_all.mover == "self")], "value", seeds, 1.0)
        return np.where(within >= DECODABLE, found, np.nan)

    def decodable(self, seeds: list[int], family: str = "recurrent") -> bool:
        """Whether a probe tells who moved in the codes of these agents; not if any was not asked."""
        return bool(seeds) and bool(np.mean(self.measure("auc", seeds, family)) >= metrics.IDENTITY)

    def excess(self, readout: str, seeds: list[int], own: np.ndarray | None = None, **where) -> np.ndarray:
        """rho beyond heads on pixels and on the untrained encoder, [n, 2], paired by seed.

        own: coefficients [n] that are compared with theirs, by default the reference agents'.
        """
        own = self.rho(readout, seeds, **where) if own is None else own
        return np.stack([own - self.rho(readout, seeds, family, **where) for family in CONTROLS], 1)


def _with_r2(slopes: pd.DataFrame, truth: pd.DataFrame, learning: pd.DataFrame) -> pd.DataFrame:
    """Learning curves as coefficients `rho`, with own-reward R2 beside."""
    own = learning[learning.measure == "reward_r2"].drop(columns="measure").rename(columns={"value": "r2"})
    found = metrics.relative(slopes.assign(readout="reward", kind="empathy"), truth)
    return found.merge(own, on=[c for c in own if c != "r2"], how="left")


def _wide(table: pd.DataFrame, columns: str, seeds: list[int]) -> pd.DataFrame:
    """rho by seed and another column, ascending; NaN where an agent has none."""
    return table.pivot_table(index="seed", columns=columns, values="rho").reindex(seeds)


def per_seed(table: pd.DataFrame, value: str, seeds: list[int], s: float) -> np.ndarray:
    """`value` at similarity s of each seed, NaN where there is none."""
    if table[value].isna().all():
        return np.full(len(seeds), np.nan)
    found = metrics.at_similarity(table[["seed", "similarity", value]], s, value)
    return found.set_index("seed")[value].reindex(seeds).to_numpy()
