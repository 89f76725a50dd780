"""The results at hand as tables, and the one way to ask them: a coefficient of given agents, under given conditions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from .. import config, metrics, models, stats
from ..config import Stage
from ..metrics import CONTROLS
from ..pipeline import missing
from ..store import Store
from .studies import AXES, NEXT, PRIVILEGED

S, P, S_HIGH = 0.5, 0.0, 0.9  # unless a rule says otherwise
FULL = 1.0  # exposure p at which couplings are planted
DECODABLE = 0.10  # R2 within self below which a ratio to it says nothing
USUAL = {"view": "allocentric", "stop": 0, "state": 0}  # of agents, unless asked for others
Seeds = Sequence[int]
Agents = tuple[list[int], list[int]]  # seeds that may speak, and those that may not
Course = tuple[np.ndarray, np.ndarray]  # levels [L] of what is varied, and coefficients [n, L]
BY_TRUTH = ("precision", "extinction", "decoupling")  # tables of slopes that are coefficients over the true ones


class MissingTable(LookupError):
    """These results hold no such table."""


class Results:
    """Coefficients, gates and measures of all agents at hand, further tables by name, and where they are read.

    interventions: coefficients after them; precision: by half and set of scenes; development: during joint training;
    extinction: during fine-tuning on labels of the other's contacts, and progress what was learnt from then; curves:
    while reward models of every capacity learnt, with own R2; imagined: of frames that world models imagined;
    decoupling: after a coupling had ceased; nearness: of items in value, by what they are worth to the self.
    altered: agents are not the reference ones; calibrated: the instrument has passed its own tests.
    """

    def __init__(self, coefficients: pd.DataFrame, gates: pd.DataFrame, measures: pd.DataFrame, **more):
        where = {"s": S, "exposure": P, "altered": False, "calibrated": False}
        self.where = where | {name: more.pop(name) for name in where if name in more}
        self.s, self.exposure, self.altered, self.calibrated = self.where.values()
        self.coefficients, self.gates, self.measures = coefficients, gates, measures
        own = {"coefficients": coefficients, "gates": gates, "measures": measures}
        self.tables = own | {name: table for name, table in more.items() if table is not None}
        self._groups: dict[tuple, dict] = {}

    @classmethod
    def of(cls, responses: pd.DataFrame, measures: pd.DataFrame, **more) -> Results:
        """From the tidy tables of a study; the rows of family `truth` are the yardstick.

        development: slopes, and the yardstick of the scenes that were evaluated then; curves: these, and what was
        learnt; imagined: slopes, and what an imagined contact is worth (`metrics.expected`).
        """
        of_truth = responses.family == "truth"
        responses, truth = responses[~of_truth], responses[of_truth]
        table = metrics.coefficients(responses, truth)
        over = dict.fromkeys(BY_TRUTH, lambda slopes: metrics.relative(slopes, truth))
        over |= {"interventions": lambda slopes: metrics.over_truth(slopes, table)}
        over |= {"development": lambda own: metrics.relative(*own), "curves": lambda own: _with_r2(*own)}
        over |= {"imagined": lambda own: metrics.over_expected(*own)}
        more |= {name: over[name](more[name]) for name in over if more.get(name) is not None}
        if (responses.readout == "value").any():
            more["nearness"] = metrics.nearness(responses, truth)
        return cls(table, metrics.competence(table, measures), measures, **more)

    def replace(self, **changes) -> Results:
        """The same results but for some tables, or where they are read."""
        return Results(**(self.tables | self.where | changes))

    @property
    def preregistered(self) -> bool:
        """Whether agents are the reference ones and verdicts read where the preregistration says: s = .5 and p = 0."""
        return self.s == S and self.exposure == P and not self.altered

    def has(self, name: str) -> bool:
        return name in self.tables

    def table(self, name: str) -> pd.DataFrame:
        """Raises MissingTable."""
        if name not in self.tables:
            raise MissingTable(f"there is no table {name} among these results")
        return self.tables[name]

    def pick(self, name: str, **where) -> pd.DataFrame:
        """Rows of a table in which every column is as given, and that of usual agents unless said otherwise."""
        table = self.table(name)
        where = {k: v for k, v in USUAL.items() if k in table} | where
        text = tuple(sorted(k for k, v in where.items() if isinstance(v, str)))
        if text:
            if (name, text) not in self._groups:  # long tables are asked many times
                self._groups[name, text] = dict(list(table.groupby(list(text), observed=True)))
            table = self._groups[name, text].get(tuple(where[k] for k in text), table[:0])
        for column in where.keys() - set(text):
            table = table[np.isclose(table[column], where[column])]
        return table

    def ask(self, name: str, seeds: Seeds, s: float | None, over: str | None = None, **where):
        """`rho` of a table's rows at similarity s, by default the results' own (1 for the self)."""
        s = (1.0 if where.get("mover") == "self" else self.s) if s is None else s
        return rho(self.pick(name, **where), seeds, s, over)

    def agents(self, name: str, family: str, **where) -> pd.DataFrame:
        """Rows of a family in a table, unless said otherwise at the results' exposure, uncoupled, in its usual view."""
        usual = {"exposure": self.exposure, "kappa": 0.0, "view": PRIVILEGED.get(family, USUAL["view"])}
        usual = {k: v for k, v in usual.items() if k in self.table(name)}
        return self.pick(name, **(usual | {k: v for k, v in where.items() if v is not None} | {"family": family}))

    def split_by_gate(self, readout: str, family: str = "recurrent", **where) -> Agents:
        """Seeds that pass the readout's gate, and those that do not."""
        g = self.agents("gates", family, readout=readout, **where)
        return sorted(g[g.passed].seed), sorted(g[~g.passed].seed)

    def rho(self, readout: str, seeds: Seeds, family: str = "recurrent", s: float | None = None, **where) -> np.ndarray:
        """Coefficient [n] of the given seeds, in their order, of empathy with the other unless `where` says else."""
        where = {"kind": "empathy", "mover": "other"} | where
        return rho(self.agents("coefficients", family, readout=readout, **where), seeds, self.s if s is None else s)

    def foreseen(
        self, readout: str, seeds: Seeds, family: str, mover: str = "other", s: float | None = None
    ) -> np.ndarray:
        """Coefficient [n] of contacts that were imagined; NaN where an agent imagines nothing."""
        rows = self.agents("imagined", family, readout=readout, mover=mover) if self.has("imagined") else pd.DataFrame()
        return rho(rows, seeds, self.s if s is None else s)

    def recovered(self, readout: str, seeds: Seeds, s: float, kind: str = "empathy") -> np.ndarray:
        """Planted and recovered coupling [n, couplings, 2] of the given seeds' agents that had every label."""
        kappas = sorted(self.pick("coefficients", family="recurrent", exposure=FULL).kappa.unique())
        if len(kappas) < 2:
            return np.full((len(seeds), 1, 2), np.nan)
        found = [self.rho(readout, seeds, s=s, kind=kind, exposure=FULL, kappa=kappa) for kappa in kappas]
        return np.stack([np.broadcast_to(kappas, (len(seeds), len(kappas))), np.stack(found, 1)], -1)

    def curve(self, readout: str, seeds: Seeds, family: str = "recurrent") -> Course:
        """Dose [L], 90 degrees less the angle, and coefficients [n, L] of appearance below identical, ascending."""
        t = self.agents("coefficients", family, readout=readout, kind="empathy", mover="other")
        s, found = rho(t[t.similarity < 1], seeds, over="similarity")
        return 90 - np.degrees(np.arccos(s)), found

    def moved(self, readout: str, seeds: Seeds, path: str, s: float | None = None, **where) -> Course:
        """Share alpha [A] of the way that the mover's code has gone along a path, and coefficients [n, A] there."""
        where = {"family": "recurrent", "mover": "other"} | where
        rows = self.agents("interventions", readout=readout, path=path, **where)
        return rho(rows, seeds, self.s if s is None else s, "alpha")

    def measure(
        self, name: str, seeds: Seeds, family: str = "recurrent", s: float | None = None, **where
    ) -> np.ndarray:
        """A code measure [n] of the given seeds; a transfer is NaN where the self itself is not decodable."""
        view = {"view": PRIVILEGED.get(family, USUAL["view"])} if "view" in self.measures else {}
        where = view | {"mover": "other", "family": family} | where
        found = rho(self.pick("measures", measure=name, **where), seeds, self.s if s is None else s, value="value")
        if not name.startswith(("transfer", "null")):
            return found
        within = rho(self.pick("measures", **(where | {"measure": "r2", "mover": "self"})), seeds, 1.0, value="value")
        return np.where(within >= DECODABLE, found, np.nan)

    def decodable(self, seeds: Seeds, family: str = "recurrent") -> bool:
        """Whether a probe tells who moved in the codes of these agents; not if any was not probed."""
        return bool(seeds) and bool(np.mean(self.measure("auc", seeds, family)) >= metrics.IDENTITY)

    def excess(self, readout: str, seeds: Seeds, own: np.ndarray | None = None, **where) -> np.ndarray:
        """rho beyond heads on pixels and on the untrained encoder, [n, 2], paired by seed.

        own: coefficients [n] that are compared with theirs, by default the reference agents'.
        """
        own = self.rho(readout, seeds, **where) if own is None else own
        return np.stack([own - self.rho(readout, seeds, family, **where) for family in CONTROLS], 1)

    @cached_property
    def families(self) -> set[str]:
        """Of agents in the usual view whose heads are at hand."""
        return set(self.gates.family)


def rho(table: pd.DataFrame, seeds: Seeds, s: float | None = None, over: str | None = None, value: str = "rho") -> Any:
    """`value` [n] of each seed, or the levels [L] of a column and `value` [n, L] along it; NaN where there is none.

    Interpolated to similarity s; several rows of one agent (sides, halves) are averaged, each weighted by its scenes.
    """
    keys, empty = ["seed", *([over] if over else [])], np.full((len(seeds), 1), np.nan)
    if table.empty or table[value].isna().all():
        return (np.zeros(1), empty) if over else empty[:, 0]
    if s is not None:
        table = metrics.at_similarity(_averaged(table, [*keys, "similarity"], value), s, value)
    if over is None:
        return table.set_index("seed")[value].reindex(seeds).to_numpy()
    wide = table.pivot_table(index="seed", columns=over, values=value).reindex(seeds)
    return wide.columns.to_numpy(), wide.to_numpy()


def text(x: np.ndarray, digits: int = 3) -> str:
    """Mean over the agents that have a value, x [n], with its interval; nothing where none has one."""
    found = stats.interval(x[np.isfinite(x)])
    return f"{found:.{digits}f}" if found.n else ""


def _averaged(table: pd.DataFrame, keys: list[str], value: str) -> pd.DataFrame:
    if "n_scenes" not in table or not table.duplicated(keys).any():
        return table[[*keys, value]]
    total = table[keys].assign(total=table[value] * table.n_scenes, n_scenes=table.n_scenes)
    total = total.groupby(keys, observed=True)[["total", "n_scenes"]].sum()
    return (total.total / total.n_scenes).rename(value).reset_index()


def _with_r2(slopes: pd.DataFrame, truth: pd.DataFrame, learning: pd.DataFrame) -> pd.DataFrame:
    """Learning curves as coefficients `rho`, with own-reward R2 beside."""
    own = learning[learning.measure == "reward_r2"].drop(columns="measure").rename(columns={"value": "r2"})
    found = metrics.relative(slopes.assign(readout="reward", kind="empathy"), truth)
    return found.merge(own, on=[c for c in own if c != "r2"], how="left")


# From runs to results


def agent_columns(run: Stage) -> dict:
    """What tells agents apart in a table: seed, family (or what else is particular to it), view, exposure, kappa.

    stop, state: of the world model, 0 where it has none; sizes where those are varied.
    """
    data, model, head = (run.find(kind) for kind in (config.Episodes, config.Model, config.Heads))
    if data is None:
        return {"seed": -1, "family": "truth", **USUAL, "exposure": 0.0, "kappa": 0.0}
    own = {"seed": data.seed, "view": data.world.view}
    if model is None:
        return own | {"family": run.algorithm, "exposure": 1.0, "kappa": 0.0, "eventful": int(data.world.eventful > 0)}
    family = "solitary" if data.world.solitary else "alien" if data.world.taste == "alien" else model.family
    own |= {"family": family, "stop": model.stop or 0, "state": model.state or 0}
    if head is not None:
        own |= {"exposure": getattr(run, "exposure", head.exposure), "kappa": head.kappa}
        own["family"] = family if head.label_source == "own" else head.label_source
    if run.stage == "decoupling":
        own |= {"weight_decay": run.weight_decay, "head_width": head.width, "past": run.past}
    varied = run.stage == "curve"
    if varied or model.state:
        own |= {axis.column: axis.read(run) for axis in AXES.values() if varied or axis.part != "head"}
    return own


def load(runs: list[Stage], store: Store, table: str) -> pd.DataFrame | None:
    """One tidy table over runs that are at hand, with the columns of `agent_columns`; None where no run has it."""
    of = {run.address: run for run in runs}
    frame = store.rows(list(of), table)
    if frame is None:
        return None
    there = frame.address.unique()
    agents = pd.DataFrame([agent_columns(of[address]) for address in there], index=there)
    agents = agents.loc[frame.address.astype(str)].reset_index(drop=True)
    return pd.concat([frame.drop(columns=["address", *agents], errors="ignore"), agents], axis=1)


def model_losses(runs: list[Stage], store: Store) -> pd.DataFrame:
    """How well the world models of these runs know the world: `agent_columns`, and `loss`, held-out ones summed."""
    rows = []
    for run in {c.model: c for c in runs if c.stage == "curve"}.values():
        if models.FAMILIES[run.model.family].trained:
            measures = store.read(run.model.address).tables["measures"]
            loss = measures[measures.measure.str.endswith("_loss")].value.sum()
            rows.append({**agent_columns(run), "loss": loss})
    return pd.DataFrame(rows)


def at_hand(runs: list[Stage], store: Store) -> list[Stage]:
    """The runs of those seeds that are complete, with the battery; nothing where there is no battery."""
    by_seed: dict[int, list[Stage]] = {}
    for run in runs:
        by_seed.setdefault(agent_columns(run)["seed"], []).append(run)
    whole = {seed: group for seed, group in by_seed.items() if not missing(group, store)}
    return [run for group in whole.values() for run in group] if -1 in whole and len(whole) > 1 else []


def gather(runs: list[Stage], store: Store, **where) -> Results:
    """Results of runs that are at hand.  Scenes evaluated only while agents learnt are a yardstick of their own."""
    while_learning = {run.battery for run in runs if run.stage in ("joint", "curve")}
    while_learning -= {run.battery for run in runs if isinstance(run, config.Responses)}
    usual = [run for run in runs if run not in while_learning and run.stage != "outsider"]
    names = ("responses", "measures", "interventions", "progress", *BY_TRUTH)
    tables = {name: load(usual, store, name) for name in names}
    truth = load(list(while_learning) or runs, store, "responses")
    if (slopes := load(usual, store, "development")) is not None:
        tables["development"] = slopes, truth
    if (slopes := load(usual, store, "curves")) is not None:
        tables["curves"] = slopes, truth, load([run for run in usual if run.stage == "curve"], store, "learning")
    if (slopes := load(usual, store, "imagined")) is not None:
        tables["imagined"] = slopes, _expected(usual, store, tables["responses"])
    if tables["responses"] is None:
        tables["responses"] = truth
    return Results.of(**tables, **where)


def _expected(runs: list[Stage], store: Store, responses: pd.DataFrame) -> pd.Series:
    """What contacts are worth that have to be imagined, from the true returns among these runs."""
    battery = next(run.battery for run in runs if run.stage == "imagined")
    later, ahead = (
        store.read(config.Returns(battery=b).address).tables["returns"]
        for b in (battery, battery.model_copy(update={"gamma": NEXT}))
    )
    return metrics.expected(responses[responses.family == "truth"], later, ahead, battery.gamma)
