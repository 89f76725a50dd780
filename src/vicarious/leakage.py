"""Whether others' values leak into one's own (A): what outlives a coupling, and the worth of what only others seek.

Arrays are over agents first: [n, ...].
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from . import config, metrics, world
from .evidence import TAUGHT, Evidence, per_seed

USUAL = {"weight_decay": 0.01, "head_width": 128}  # of the heads whose residue is judged


def course(
    e: Evidence, seeds: list[int], kappa: float, s: float | None = None, mover: str = "other", **dials
) -> tuple[np.ndarray, np.ndarray]:
    """Updates [U] since all coupling ceased and coefficients [n, U] of value functions that had learnt under `kappa`.

    dials: weight_decay and head_width, `USUAL` unless said otherwise, and past, times the updates of convergence, by
    default the longest training with these that most of the agents had; NaN where an agent had none.
    """
    if e.decoupling is None:
        return np.zeros(1), np.full((len(seeds), 1), np.nan)
    t = e.decoupling[(e.decoupling.mover == mover) & (e.decoupling.kind == "empathy") & (e.decoupling.kappa == kappa)]
    for name, level in {**USUAL, **dials}.items():
        t = t[np.isclose(t[name], level)]
    if "past" not in dials:
        had = t.groupby("past").seed.agg(lambda own: own.isin(seeds).sum())
        t = t[t.past == had[had == had.max()].index.max()]
    mean = t.groupby(["seed", "update", "similarity"], observed=True).rho.mean().reset_index()  # over sides
    at = metrics.at_similarity(mean, e.s if s is None else s)
    wide = at.pivot(index="seed", columns="update", values="rho").reindex(seeds)
    return wide.columns.to_numpy(), wide.to_numpy()


def residue(e: Evidence, seeds: list[int], at: int | None = None, s: float | None = None, **dials) -> np.ndarray:
    """What is left [n] of a coupling of 1, beyond an agent that never had one, at an update or at the last."""
    coupled, never = course(e, seeds, 1.0, s, **dials), course(e, seeds, 0.0, s, **dials)
    last = min(coupled[0].max(), never[0].max()) if at is None else at
    return _at(*coupled, last) - _at(*never, last)


def _at(updates: np.ndarray, y: np.ndarray, update: int) -> np.ndarray:
    """The column of one update, [n]; NaN where it is none of them."""
    there = np.flatnonzero(updates == update)
    return y[:, there[0]] if len(there) else np.full(len(y), np.nan)


def by_dial(e: Evidence, seeds: list[int], at: int, s: float | None = None) -> pd.DataFrame:
    """What is left at an update, and the self's own slope there, by weight decay and width of the heads.

    Columns weight_decay, head_width, seed, residue and own: of those of the given agents who had every setting.
    """
    settings = e.decoupling[list(USUAL)].drop_duplicates().sort_values(list(USUAL), ascending=[True, False])
    rows = []
    for dials in settings.to_dict("records"):
        left, own = residue(e, seeds, at, s, **dials), _at(*course(e, seeds, 1.0, 1.0, "self", **dials), at)
        rows.append(pd.DataFrame({**dials, "seed": seeds, "residue": left, "own": own}))
    table = pd.concat(rows).dropna()
    return table[table.groupby("seed").residue.transform("size") == len(settings)].reset_index(drop=True)


def near(e: Evidence, seeds: list[int], family: str, valence: float, mover: str = "self", s: float = 1.0) -> np.ndarray:
    """How much dearer [n] an item is when it is near, to heads of one world's agents, over the true slope of value."""
    if e.nearness is None:
        return np.full(len(seeds), np.nan)
    t = e.nearness[np.isclose(e.nearness.exposure, e.exposure) & (e.nearness.kappa == 0)]
    return per_seed(t[(t.family == family) & (t.mover == mover) & (t.valence == valence)], "rho", seeds, s)


def taste(e: Evidence, seeds: list[int], mover: str = "self", s: float = 1.0) -> np.ndarray:
    """How much dearer [n] what only others seek has become to the self, in units of the reward that it seeks itself.

    Nearness of the worthless kind of item in value, less that of the agent of the same seed in whose world nobody
    seeks it.
    """
    return near(e, seeds, "alien", 0.0, mover, s) - near(e, seeds, "recurrent", 0.0, mover, s)


def foreseeable(cfg: config.World, worlds: int = 2048, frames: int = 20, ties: int = 8) -> dict[str, float]:
    """How far off the next place of a purposeful other is, to those who know all but what it will do by chance.

    Mean over frames of the squared error, summed over cells, of the probability that it will be there, by what it is
    believed to seek: what the self does (`shared`), the `alien` taste, or nothing (`aimless`); its purpose is known.
    ties: drawings over which ties between equally good steps are averaged.
    """
    g, after = world.generator(0, "foreseeable"), world.geometry(cfg.size, torch.device("cpu"))[0]
    state, cells, steps = world.reset(cfg, worlds, g), cfg.size**2, len(world.ACTIONS)
    tastes = {name: world.values(cfg.model_copy(update={"taste": name})) for name in ("shared", "alien")}
    wrong, kept = dict.fromkeys((*tastes, "aimless"), 0.0), state.eventful & (state.purpose[:, 1] > 0)
    for _ in range(frames - 1):
        anywhere = F.one_hot(after[state.pos[:, 1]], cells).double().mean(1)
        beliefs = {"aimless": anywhere}
        for name, worth in tastes.items():
            aims, total = torch.zeros(worlds), torch.zeros(worlds, cells, dtype=torch.double)
            for _ in range(ties):
                action, seeks = world.greedy_action(state, cfg, worth, torch.rand((worlds, 2, steps), generator=g))
                aims = torch.where(seeks[:, 1], state.purpose[:, 1], 0.0).double()
                total += F.one_hot(after[state.pos[:, 1], action[:, 1]], cells)
            beliefs[name] = aims[:, None] * total / ties + (1 - aims[:, None]) * anywhere
        state = world.step(state, world.conduct(state, cfg, g), cfg, g)
        there = F.one_hot(state.pos[:, 1], cells)
        for name, belief in beliefs.items():
            wrong[name] += float((belief - there).square().sum(1)[kept].mean()) / (frames - 1)
    return wrong


def agents(e: Evidence, head: str) -> tuple[list[int], list[int]]:
    """Seeds whose agents of both tests are competent, and those where one is not."""
    groups = [e.agents(head, "alien"), e.agents(head), e.agents(head, exposure=TAUGHT)]
    asked = set.intersection(*({*passed, *failed} for passed, failed in groups))
    passed = set.intersection(*(set(passed) for passed, _ in groups))
    return sorted(asked & passed), sorted(asked - passed)
