"""Chapters 09 and 10: what remains of empathy under labelled experience (B), and of a coupling that has ceased (A).

Both fine-tune converged heads.  Arrays are over agents first: [n, ...].
"""

from itertools import product
from typing import ClassVar

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from pydantic import Field

from ... import metrics, stats
from ...config import Stage
from .. import studies
from ..plots import COLOURS, AxisOf, Line, draw, similarity_axis, training_axis, turned
from ..results import FULL, Agents, Course, Results
from ..results import rho as ask_rho
from ..studies import Parameters, Sweep, seeds_of, similarity_of
from ..verdicts import NULL, rule
from .stimuli import HALF, at_place, place

DIALS = {"weight_decay": 0.01, "head_width": 128}  # of the heads whose residue is judged


class Extinction(Sweep):
    chapter: ClassVar[str] = "09-extinction"

    similarity: float = similarity_of()
    rate: float = Field(1e-3, gt=0, le=0.1, description="learning rate of the reward model once labels are given")

    def agents(self) -> list[Stage]:
        return studies.extinction(self.profile, self.seeds, self.rate)


class Leakage(Parameters):
    chapter: ClassVar[str] = "10-leakage"
    amount: ClassVar[str] = "leaking"

    seeds: int = seeds_of("leaking")
    similarity: float = similarity_of("at which the residue is read, cos(angle)")
    weight_decay: float = Field(0.0, ge=0, le=10, description="a further one once the coupling has ceased, 0 for none")

    def agents(self) -> list[Stage]:
        return studies.leakage(self.profile, self.seeds, (self.weight_decay,) if self.weight_decay else ())


# Extinction


def after(e: Results, seeds: list[int], exposure: float, s: float | None = None, **where) -> Course:
    """Updates [U] since a converged head was given an exposure, and coefficients [n, U].

    where: readout, kind, mover, withheld and until, unless as usual, and the side of the glass on which the mover was.
    """
    usual = {"readout": "reward", "kind": "empathy", "mover": "other", "withheld": "nothing", "until": 1.0}
    return e.ask("extinction", seeds, s, "update", exposure=exposure, **(usual | where))


def fine_tuned(e: Results, readout: str = "reward") -> list[int]:
    """Seeds whose heads were given every label."""
    return sorted(e.pick("extinction", readout=readout, withheld="nothing", exposure=1.0, until=1.0).seed.unique())


def competent(e: Results, head: str) -> Agents:
    """Seeds that pass the head's gate at p = 0 and whose own slope is within it when all is over, and the others."""
    passed, failed = e.split_by_gate(head, exposure=0.0)
    if not e.has("extinction"):
        return passed, failed
    seeds = fine_tuned(e, head)
    own = after(e, seeds, 1.0, readout=head, mover="self")[1][:, -1]
    good = [s for s, x in zip(seeds, own, strict=True) if s in passed and abs(x - 1) <= metrics.TOLERANCE]
    return good, [s for s in seeds if s not in good]


def episodes_seen(e: Results, exposure: float, seeds: list[int], readout: str = "reward") -> Course:
    """Labelled eventful episodes seen by update, repeats counted, and different ones: means over agents, [U] each."""
    t = e.pick("progress", readout=readout, withheld="nothing", until=1.0, exposure=exposure)
    mean = t[t.seed.isin(seeds)].groupby("update")[["labelled", "different"]].mean()
    return mean.labelled.to_numpy(), mean.different.to_numpy()


def half_life(x: np.ndarray, rho: np.ndarray, by: np.ndarray | None = None, share: float = HALF) -> stats.Interval:
    """Where along x [U] the mean of rho [n, U] first falls to this share of its start, linear in log(1 + x).

    by [n, U]: what the mean is divided by first, such as heads without labels or the self of the same agents.  Where it
    never falls so far, at any bound, that is infinite.
    """
    pairs = np.stack([rho, np.ones_like(rho) if by is None else by], -1)

    def reached(own: np.ndarray) -> np.ndarray:  # [..., n, U, 2]
        mean = own[..., 0].mean(-2) / own[..., 1].mean(-2)
        return place(-mean, -share * mean[..., 0])

    found = stats.interval_of(reached, pairs, resamples=999)
    return stats.Interval(*(at_place(x, i) for i in (found.estimate, found.low, found.high)), found.n)


def generalised(never: np.ndarray, held: np.ndarray, told: np.ndarray) -> stats.Interval:
    """Share of the extinction of those with labels that those without got: (never - held) / (never - told), means over
    agents of coefficients [n] without any labels, with labels of others only, and with all."""
    ratio = lambda x: (x[..., 0] - x[..., 1]).mean(-1) / (x[..., 0] - x[..., 2]).mean(-1)  # noqa: E731
    return stats.interval_of(ratio, np.stack([never, held, told], 1))


# Leakage


def course(e: Results, seeds: list[int], kappa: float, s: float | None = None, mover: str = "other", **dials) -> Course:
    """Updates [U] since all coupling ceased and coefficients [n, U] of value functions that had learnt under `kappa`.

    dials: weight_decay and head_width, `DIALS` unless said otherwise, and past, times the updates of convergence, by
    default the longest training with these that most of the agents had; NaN where an agent had none.
    """
    t = e.pick("decoupling", mover=mover, kind="empathy", kappa=kappa, **(DIALS | dials))
    if "past" not in dials and len(t):
        had = t.groupby("past").seed.agg(lambda own: own.isin(seeds).sum())
        t = t[t.past == had[had == had.max()].index.max()]
    return ask_rho(t, seeds, e.s if s is None else s, "update")


def residue(e: Results, seeds: list[int], at: int | None = None, s: float | None = None, **dials) -> np.ndarray:
    """What is left [n] of a coupling of 1, beyond an agent that never had one, at an update or at the last."""
    coupled, never = course(e, seeds, 1.0, s, **dials), course(e, seeds, 0.0, s, **dials)
    last = min(coupled[0].max(), never[0].max()) if at is None else at
    return _column(*coupled, last) - _column(*never, last)


def _column(updates: np.ndarray, y: np.ndarray, update: int) -> np.ndarray:
    """The column of one update, [n]; NaN where it is none of them."""
    there = np.flatnonzero(updates == update)
    return y[:, there[0]] if len(there) else np.full(len(y), np.nan)


def by_dial(e: Results, seeds: list[int], at: int, s: float | None = None) -> pd.DataFrame:
    """What is left at an update, and the self's own slope there, by weight decay and width of the heads.

    Columns weight_decay, head_width, seed, residue and own: of those of the given agents who had every setting.
    """
    settings = (
        e.table("decoupling")[list(DIALS)]
        .drop_duplicates()
        .sort_values(list(DIALS), ascending=[True, False], kind="stable")
    )
    rows = []
    for dials in settings.to_dict("records"):
        left, own = residue(e, seeds, at, s, **dials), _column(*course(e, seeds, 1.0, 1.0, "self", **dials), at)
        rows.append(pd.DataFrame({**dials, "seed": seeds, "residue": left, "own": own}))
    table = pd.concat(rows).dropna()
    return table[table.groupby("seed").residue.transform("size") == len(settings)].reset_index(drop=True)


def near(e: Results, seeds: list[int], family: str, valence: float, mover: str = "self", s: float = 1.0) -> np.ndarray:
    """How much dearer [n] an item is when it is near, to heads of one world's agents, over the true slope of value."""
    at = {"family": family, "mover": mover, "valence": valence, "exposure": e.exposure, "kappa": 0.0}
    return ask_rho(e.pick("nearness", **at), seeds, s)


def taste(e: Results, seeds: list[int], mover: str = "self", s: float = 1.0) -> np.ndarray:
    """How much dearer [n] what only others seek has become to the self, in units of the reward that it seeks itself.

    Nearness of the worthless kind of item in value, less that of the agent of the same seed in whose world nobody
    seeks it.
    """
    return near(e, seeds, "alien", 0.0, mover, s) - near(e, seeds, "recurrent", 0.0, mover, s)


def both_competent(e: Results, head: str) -> Agents:
    """Seeds whose agents of both tests are competent, and those where one is not."""
    groups = [e.split_by_gate(head, "alien"), e.split_by_gate(head), e.split_by_gate(head, exposure=FULL)]
    asked = set.intersection(*({*passed, *failed} for passed, failed in groups))
    passed = set.intersection(*(set(passed) for passed, _ in groups))
    return sorted(asked & passed), sorted(asked - passed)


def _left(e: Results, seeds: list[int]) -> np.ndarray:
    """rho when reward models that had converged at p = 0 have long been given every label."""
    return after(e, seeds, 1.0)[1][:, -1]


ROWS = [*rule("A", residue, taste, agents=both_competent), *rule("B", _left, agents=competent)]


def fall(
    results: Results, seeds: list[int], levels: tuple, exposures: tuple, readout: str = "reward", by: str = "update"
) -> pd.DataFrame:
    """rho after labels begin, against updates or (by `episode`) labelled eventful episodes, a panel a similarity."""
    lines = []
    for s, p in product(levels, exposures):
        x, y = after(results, seeds, p, s, readout=readout)
        x = x if by == "update" else episodes_seen(results, p, seeds, readout)[0]
        lines.append(Line(f"p = {p:g}", x, y, f"s = {s:g}"))
    what = "updates" if by == "update" else "labelled eventful episodes"
    axis = _with_null(training_axis(max(line.x[-1] for line in lines), what))
    return draw(lines, by, axis=axis, label=f"rho, {readout} head", palette="flare", sharey=False)


def _with_null(axis: AxisOf) -> AxisOf:
    """The axis, and what counts as nothing."""
    return lambda ax: (axis(ax), ax.axhspan(-NULL, NULL, color="0.95", zorder=0))


def half_lives(table: pd.DataFrame) -> pd.DataFrame:
    """Half-lives against p by similarity; table: exposure, similarity, unit, estimate, low, high."""
    own = table[np.isfinite(table.estimate)].assign(high=table.high.where(np.isfinite(table.high), 3 * table.estimate))
    lines = [
        Line(f"s = {s:g}", t.exposure.to_numpy(), (t.estimate, t.low, t.high), unit, bounds=True)
        for (unit, s), t in own.groupby(["unit", "similarity"], sort=False)
    ]
    axis = lambda ax: ax.set(yscale="log", xlabel="exposure p")  # noqa: E731
    how = {"label": "half-life", "palette": "crest", "bars": True, "sharey": False, "zero": False, "levels": True}
    return draw(lines, "exposure", "half-life", axis, columns=2, size=(4.4, 3.4), **how)


def remains(results: Results, seeds: list[int], exposures: tuple[float, ...]) -> pd.DataFrame:
    """rho against similarity before any label and at the end of each exposure."""
    t = results.table("extinction")
    levels = np.array(sorted(t[t.mover == "other"].similarity.unique()))
    at = lambda p, i: np.stack([after(results, seeds, p, s)[1][:, i] for s in levels], 1)  # noqa: E731
    lines = [Line("before", levels, at(1.0, 0), style=(COLOURS["other"], "--"))]
    lines += [Line(f"p = {p:g}, at the end", levels, at(p, -1)) for p in exposures]
    axis = _with_null(similarity_axis(results.s))
    how = {"label": "rho, reward head", "palette": "flare", "inside": True}
    return draw(lines, "similarity", "rho", axis, turned, size=(7.0, 4.0), **how)


def withheld_curves(lines: list[Line], shaded: dict[str, tuple[float, float]]) -> pd.DataFrame:
    """rho against similarity after as many updates, by who had labels; shaded: panel -> similarities that had none."""

    def axis(ax: Axes) -> None:
        similarity_axis(small=True)(ax)
        if ax.get_title() in shaded:
            ax.axvspan(*turned(shaded[ax.get_title()]), color="#f3e3c3", zorder=0)

    how = {"columns": 4, "size": (3.3, 3.3), "label": "rho, reward head", "inside": True}
    return draw(lines, "similarity", "rho", axis, turned, **how)


def paused(results: Results, seeds: list[int], levels: tuple[float, ...]) -> pd.DataFrame:
    """rho while labels are given, and after they stop."""
    last = after(results, seeds, 1.0, until=0.5)[0][-1]
    lines = [Line("labels, then none", *after(results, seeds, 1.0, s, until=0.5), f"s = {s:g}") for s in levels]
    never = {s: after(results, seeds, 0.0, s) for s in levels}
    lines += [Line("never a label", x[x <= last], y[:, x <= last], f"s = {s:g}") for s, (x, y) in never.items()]
    axis = lambda ax: (ax.axvspan(last / 2, last, color="0.93", zorder=0), ax.set_xlabel("updates"))  # noqa: E731
    return draw(lines, "update", axis=axis, columns=2, size=(4.2, 3.2), label="rho, reward head", sharey=False)


def decoupled(results: Results, seeds: list[int], levels: tuple[float, ...], **dials) -> pd.DataFrame:
    """rho of the value function since all coupling ceased, and of one that never was coupled; dials: as of `course`."""
    named = {1.0: "coupled before", 0.0: "never coupled"}
    at = product(levels, named.items())
    lines = [Line(name, *course(results, seeds, kappa, s, **dials), f"s = {s:g}") for s, (kappa, name) in at]
    return draw(lines, "update", axis=training_axis(lines[0].x[-1], "updates since"), label="rho, value function")


def tastes(panels: dict[str, dict[str, np.ndarray]], valences: list[float]) -> pd.DataFrame:
    """Value of what is near by what it is worth to the self: panel -> world -> [n, K], pale lines agents."""
    lines = []
    for title, worlds in panels.items():
        for shift, (name, y) in zip((-0.04, 0.04), worlds.items(), strict=True):
            lines.append(Line(name, np.array(valences) + shift, y, title, agents=True))
    axis = lambda ax: (ax.set_xticks(valences, [f"{v:g}" for v in valences]), ax.set_xlabel("worth to the self"))  # noqa: E731
    return draw(lines, "worth", axis=axis, columns=2, size=(4.4, 3.5), label="near less far, over the slope", bars=True)
