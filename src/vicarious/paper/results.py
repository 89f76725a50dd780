"""The results at hand as tables, and the one way to ask them: a coefficient of given agents, under given conditions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from .. import config, metrics
from ..config import Stage
from ..metrics import AGENT, MAIN
from ..pipeline import missing
from ..store import Store
from .studies import READ, VARIANTS

S, P, S_HIGH = 0.5, 0.0, 0.9  # unless a rule says otherwise
FULL = 1.0  # company p at which couplings are planted
REFERENCE = "cells/gru"
USUAL = {  # agents, unless asked for others
    **{"variant": "reference", "view": "allocentric", "others": "all", "rewards": "own", "place": "either"},
    **{"kappa_gain": 0.0, "kappa_loss": 0.0},
}
OF_CODES = dict.fromkeys(("others", "rewards", "place", "kappa_gain", "kappa_loss"))  # a world model has no such thing
Seeds = Sequence[int]
Agents = tuple[list[int], list[int]]  # seeds that may speak, and those that may not
Course = tuple[np.ndarray, np.ndarray]  # levels [L] of what is varied, and coefficients [n, L]


class MissingTable(LookupError):
    """These results hold no such table."""


class Results:
    """Coefficients, gates and measures of all agents at hand, further tables by name, and where they are read.

    interventions: coefficients after them; fine: coefficients at twice as many levels of appearance; foresight: errors
    of every world model; ordinary: slopes in ordinary episodes.  altered: agents are not the reference ones.
    """

    def __init__(self, coefficients: pd.DataFrame, gates: pd.DataFrame, measures: pd.DataFrame, **more):
        where = {"s": S, "company": P, "layer": READ, "altered": False}
        self.where = where | {name: more.pop(name) for name in where if name in more}
        self.s, self.company, self.layer, self.altered = self.where.values()
        self.coefficients, self.gates, self.measures = coefficients, gates, measures
        own = {"coefficients": coefficients, "gates": gates, "measures": measures}
        self.tables = own | {name: table for name, table in more.items() if table is not None}
        self._kept: dict[tuple, Any] = {}  # of what is asked many times

    @classmethod
    def of(cls, slopes: pd.DataFrame, measures: pd.DataFrame, **more) -> Results:
        """From the slopes of a study's responses and its other tables; the rows of family `truth` are the yardstick."""
        truth = slopes[slopes.family == "truth"]
        table = metrics.relative(slopes[slopes.family != "truth"], truth)
        if more.get("fine") is not None:
            more["fine"] = metrics.relative(more["fine"][more["fine"].family != "truth"], truth)
        if more.get("interventions") is not None:
            more["interventions"] = metrics.over_truth(more["interventions"], table)
        return cls(table, metrics.competence(table, measures), measures, **more)

    def replace(self, **changes) -> Results:
        """The same results but for some tables, or where they are read."""
        return Results(**(self.tables | self.where | changes))

    @property
    def preregistered(self) -> bool:
        """Whether agents are the reference ones and verdicts read where the preregistration says: s = .5, p = 0, and of
        the language encoder its third layer."""
        return (self.s, self.company, self.layer) == (S, P, READ) and not self.altered

    def has(self, name: str) -> bool:
        return name in self.tables

    def table(self, name: str) -> pd.DataFrame:
        """Raises MissingTable."""
        if name not in self.tables:
            raise MissingTable(f"there is no table {name} among these results")
        return self.tables[name]

    def pick(self, name: str, **where) -> pd.DataFrame:
        """Rows of a table in which every column is as given (None: any), and else that of usual agents."""
        table = self.table(name)
        where = {k: v for k, v in USUAL.items() if k in table} | where
        where = {k: v for k, v in where.items() if v is not None}
        text = tuple(sorted(k for k, v in where.items() if isinstance(v, str)))
        if text:
            groups = self._once((name, *text), lambda: table.groupby(list(text), observed=True).indices)
            table = table.take(groups.get(tuple(where[k] for k in text) if len(text) > 1 else where[text[0]], []))
        for column in where.keys() - set(text):
            table = table[np.isclose(table[column], where[column])]
        return table

    def _once(self, key: tuple, make: Callable[[], Any]) -> Any:
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def agents(self, name: str, family: str, **where) -> pd.DataFrame:
        """Rows of a family in a table, unless said otherwise in the results' company."""
        usual = {"company": self.company} if "company" in self.table(name) else {}
        return self.pick(name, **(usual | where | {"family": family}))

    def split_by_gate(self, readout: str, family: str = REFERENCE, **where) -> Agents:
        """Seeds that pass the readout's gate, and those that do not."""
        g = self.agents("gates", family, readout=readout, **where)
        return sorted(g[g.passed].seed), sorted(g[~g.passed].seed)

    def rho(self, readout: str, seeds: Seeds, family: str = REFERENCE, s: float | None = None, **where) -> np.ndarray:
        """Coefficient [n] of the given seeds, in their order, with the other unless `where` says else."""
        where = {"kind": MAIN[readout], "mover": "other"} | where
        s = (self.s if where["mover"] in ("other", "drifter") else 1.0) if s is None else s
        where |= {"readout": readout}
        key = ("rho", *seeds, family, s, *sorted(where.items()))
        return self._once(key, lambda: rho(self.agents("coefficients", family, **where), seeds, s))

    def over_nobody(self, readout: str, seeds: Seeds, family: str = REFERENCE, **where) -> np.ndarray:
        """The coefficient [n] less that of the same scene without the other's body."""
        return self.rho(readout, seeds, family, **where) - self.rho(
            readout, seeds, family, **where | {"mover": "nobody"}
        )

    def animacy(self, readout: str, seeds: Seeds, family: str = REFERENCE, **where) -> np.ndarray:
        """The coefficient [n] less that of a drifter."""
        return self.rho(readout, seeds, family, **where) - self.rho(readout, seeds, family, mover="drifter", **where)

    def own(self, readout: str, seeds: Seeds, family: str = REFERENCE, **where) -> np.ndarray:
        """Own slope over the true one [n], where the other has nothing."""
        return self.rho(readout, seeds, family, mover="quiet", **where)

    def excess(
        self, readout: str, seeds: Seeds, family: str, control: str, variant: str = "reference", by_own: bool = False
    ) -> np.ndarray:
        """rho beyond that of a control [n], paired by seed; by_own: each over its agent's own slope."""
        found = []
        for name, kind in ((family, "reference"), (control, variant)):
            x = self.rho(readout, seeds, name, variant=kind)
            found.append(x / self.own(readout, seeds, name, variant=kind) if by_own else x)
        return found[0] - found[1]

    def counting(self, readout: str, controls: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Controls (family, variant) whose own slope is within the gate's tolerance for nearly all of their agents."""
        kept = []
        for family, variant in controls:
            own = self.agents("gates", family, readout=readout, variant=variant).own
            if len(own) and ((own - 1).abs() <= metrics.TOLERANCE).mean() >= metrics.PASSING:
                kept.append((family, variant))
        return kept

    def curve(
        self, readout: str, seeds: Seeds, family: str = REFERENCE, table: str = "coefficients", **where
    ) -> Course:
        """Dose [L], 90 degrees less the angle, and coefficients [n, L] of appearance below identical, ascending."""
        t = self.agents(table, family, readout=readout, kind=MAIN[readout], mover="other", **where)
        s, found = rho(t[t.similarity < 1], seeds, over="similarity")
        return 90 - np.degrees(np.arccos(s)), found

    def moved(self, readout: str, seeds: Seeds, path: str, family: str = REFERENCE, s: float | None = None, **where):
        """Share alpha [A] of the way that the mover's code has gone along a path, and coefficients [n, A] there."""
        rows = self.agents("interventions", family, readout=readout, path=path, **({"mover": "other"} | where))
        return rho(rows, seeds, self.s if s is None else s, "alpha")

    def measure(self, name: str, seeds: Seeds, family: str = REFERENCE, s: float | None = None, **where) -> np.ndarray:
        """A measure of codes [n] of the given seeds, with the other unless `where` says else."""
        where = {"mover": "other", "family": family} | OF_CODES | where
        return rho(self.pick("measures", measure=name, **where), seeds, self.s if s is None else s, value="value")

    def decodable(self, seeds: Seeds, family: str = REFERENCE) -> bool:
        """Whether a probe tells who moved in the codes of these agents; not if any was not probed."""
        return bool(seeds) and bool(np.mean(self.measure("auc", seeds, family)) >= metrics.IDENTITY)

    def foreseen(self, seeds: Seeds, family: str = REFERENCE, variant: str = "reference") -> np.ndarray:
        """How far of the way from aimless to informed a world model foresees the other's next place [n]."""
        t = self.pick("foresight", family=family, variant=variant)
        wide = metrics.widened(t, ["seed"], "measure", "value").reindex(seeds)
        if wide.empty or "place" not in wide:
            return np.full(len(seeds), np.nan)
        return ((wide.aimless - wide.place) / (wide.aimless - wide.informed)).to_numpy()

    def cells(self, **where) -> pd.DataFrame:
        """Foresight, identity and own competence of every cell of agents, as means over them; by family, cell and p.

        where: values of columns that a cell has to have.  Columns agents; foresight, share of the way from aimless to
        informed; identity, AUC at the results' similarity; and of each head own slope over the true one, for values r
        with V_pi, and the share of agents that passed.
        """
        gates = self.gates.loc[np.all([self.gates[k] == v for k, v in where.items()], axis=0)] if where else self.gates
        rows, keys = [], [c for c in AGENT[1:] if c in gates]
        for values, own in gates.groupby(keys, observed=True):
            agents = dict(zip(keys, values, strict=True))
            of = {name: agents.get(name, usual) for name, usual in (("family", REFERENCE), ("variant", "reference"))}
            seeds, by = sorted(own.seed.unique()), own.groupby("readout", observed=True)[["own", "agreement", "passed"]]
            mean = by.mean().astype(float).stack().to_dict()
            row = {
                "family": of["family"],
                "cell": cell_name(agents),
                "p": agents.get("company", P),
                "agents": len(seeds),
            }
            row |= {"foresight": _mean(self.foreseen, seeds, **of), "identity": _mean(self.measure, "auc", seeds, **of)}
            row |= {f"{head}, {what}": mean.get(key, np.nan) for (head, what), key in GATED.items()}
            rows.append(row)
        return pd.DataFrame(rows).set_index(["family", "cell", "p"]).sort_index()

    @cached_property
    def families(self) -> set[str]:
        """Of agents in the usual view whose heads are at hand."""
        return set(self.gates.family)


GATED = {  # columns of `Results.cells`: head and what of it -> as gates have them
    ("reward", "own slope"): ("reward", "own"),
    ("reward", "passed"): ("reward", "passed"),
    ("value", "own slope"): ("value", "own"),
    ("value", "r"): ("value", "agreement"),
    ("value", "passed"): ("value", "passed"),
}


def cell_name(agents: dict) -> str:
    """What is unusual about some agents, in words."""
    said = {k: v for k, v in agents.items() if v != USUAL.get(k, v)}
    if said.get("kappa_loss") == said.get("kappa_gain"):
        said.pop("kappa_loss", None)
    words = {"variant": "{}", "view": "view {}", "others": "among {}", "rewards": "rewards {}", "place": "always {}"}
    words |= {"kappa_gain": "coupling {:g}", "kappa_loss": "of losses {:g}"}
    return ", ".join(words[k].format(v) for k, v in said.items()) or "reference"


def _mean(ask: Callable, *what, **where) -> float:
    """The mean of what is asked; NaN where there is no such table."""
    try:
        found = ask(*what, **where)
    except MissingTable:
        return np.nan
    return float(np.nanmean(found)) if np.isfinite(found).any() else np.nan


def rho(table: pd.DataFrame, seeds: Seeds, s: float | None = None, over: str | None = None, value: str = "rho") -> Any:
    """`value` [n] of each seed, or the levels [L] of a column and `value` [n, L] along it; NaN where there is none.

    Interpolated to similarity s.
    """
    keys, empty = ["seed", *([over] if over else [])], np.full((len(seeds), 1), np.nan)
    if table.empty or table[value].isna().all():
        return (np.zeros(1), empty) if over else empty[:, 0]
    if s is not None:
        table = metrics.at_similarity(table[[*keys, "similarity", value]], s, value)
    if over is None:
        return table.set_index("seed")[value].reindex(seeds).to_numpy()
    wide = metrics.widened(table, ["seed"], over, value).reindex(seeds)
    return wide.columns.to_numpy(), wide.to_numpy()


# From runs to results


def agent_columns(run: Stage) -> dict:
    """What tells agents apart in a table: seed, family, variant of it, view, and of heads company, coupling, and how
    they were raised."""
    if own := getattr(run, "agent", None):
        return own
    data, model, head = (run.find(kind) for kind in (config.Episodes, config.Model, config.Heads))
    if data is None:
        return {"seed": -1, "family": "truth", **USUAL, "company": 0.0}
    own = {"seed": data.seed, "view": data.world.view}
    if model is None:
        return own | {"family": run.algorithm, "company": 1.0} | USUAL
    own |= {"family": model.family, "variant": variant(model)}
    if head is not None:
        own |= {
            name: getattr(head, name) for name in ("company", "kappa_gain", "kappa_loss", "others", "rewards", "place")
        }
    return own


def variant(model: config.Model) -> str:
    """Which of `VARIANTS` a world model is, else the reference."""
    for name, (world, own) in VARIANTS.items():
        parts = [(model.data.world, world), (model, own)]
        if all(getattr(part, key) == value for part, changed in parts for key, value in changed.items()):
            return name
    return "reference"


def load(runs: list[Stage], store: Store, table: str, slopes: bool = False) -> pd.DataFrame | None:
    """One tidy table over runs that are at hand, with the columns of `agent_columns`; None where no run has it.

    slopes: of responses, made while runs are still told apart by `address` alone.
    """
    of = {run.address: run for run in runs}
    frame = store.rows(list(of), table, metrics.RESPONSE if slopes else None)
    if frame is None:
        return None
    frame = metrics.slopes(frame) if slopes else frame
    codes, there = pd.factorize(frame.address)
    agents = pd.DataFrame([agent_columns(of[address]) for address in there])
    agents = agents.astype({name: "category" for name in agents.select_dtypes(exclude="number")})
    agents = agents.take(codes).reset_index(drop=True)
    return pd.concat([frame.drop(columns=["address", *agents], errors="ignore"), agents], axis=1)


def at_hand(runs: list[Stage], store: Store) -> list[Stage]:
    """The runs of those seeds that are complete, with the battery; nothing where there is no battery."""
    by_seed: dict[int, list[Stage]] = {}
    for run in runs:
        by_seed.setdefault(agent_columns(run)["seed"], []).append(run)
    whole = {seed: group for seed, group in by_seed.items() if not missing(group, store)}
    return [run for group in whole.values() for run in group] if -1 in whole and len(whole) > 1 else []


def gather(runs: list[Stage], store: Store, **where) -> Results:
    """Results of runs that are at hand; responses at more levels than the usual ones are a table of their own."""
    batteries = [run for run in runs if run.stage == "battery"]
    usual = min(batteries, key=lambda battery: battery.levels)
    fine = [run for run in runs if run.stage == "responses" and run.battery != usual]
    kept = [run for run in runs if run.find(config.Battery) in (None, usual)]
    tables = {
        name: load(kept, store, name) for name in ("measures", "interventions", "foresight", "ordinary", "language")
    }
    slopes, more = (load(some, store, "responses", slopes=True) for some in (kept, fine))
    if tables["measures"] is None:
        tables["measures"] = pd.DataFrame(columns=[*config.TABLES["measures"].split(), "seed", "family", *USUAL])
    return Results.of(slopes, **tables, fine=more, **where)
