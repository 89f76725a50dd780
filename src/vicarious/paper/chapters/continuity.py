"""Chapter 05: whether a dose-response curve is smooth or jumps, agent by agent, and what of it goes through the latent
(P3, P4; DESIGN 5).

Shapes: n agents, L levels of the dose, in ascending order and the same for all agents.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations, product
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
import scipy.stats
import seaborn as sns
from matplotlib.patches import Rectangle
from pydantic import Field
from scipy.special import expit

from ... import metrics
from ...config import Stage
from .. import studies
from ..plots import COLOURS, NAMES, Line, draw, draw_similarity, over_similarity, plt, subplots, turned, with_anchors
from ..results import S_HIGH, Results
from ..studies import Parameters
from ..verdicts import rule
from .misgeneralisation import animacy

JUMP = 0.25  # bar of the largest jump, as a share of the range
INTERPOLATIONS = ("axis", "whole")  # ways from the other's code to the self's
PATHS = {"whole": "the whole code", "axis": "the self-other axis", "random": "random axes, as far"}
ERASED = {"axis": "intact", "erased": "axis erased", "centred": "axis at its mean", "erased at random": "random ones"}
STEPS = (1, 2)  # steps of the rivals
FEWEST = 4  # levels: with one left out, two steps need three
MIDPOINTS, SCALES = 41, 13  # of the logistic curves that are tried


class Continuity(Parameters):
    chapter: ClassVar[str] = "05-continuity"
    swept: ClassVar[bool] = True

    levels: int = Field(11, ge=8, le=21, description="levels of similarity and of conduct, and of the interpolation")
    exposure: float = Field(0.0, ge=0, le=1, description="share p of the other's contacts labelled with own reward")
    readout: Literal["reward", "value"] = Field("reward", description="head that the figures show")

    def agents(self) -> list[Stage]:
        return studies.continuity(self.profile, self.seeds, self.exposure, self.levels)


def logistic(x: np.ndarray, y: np.ndarray, at: float) -> np.ndarray:
    """Predictions [n] at one dose of the logistic curves, up or down, that fit y [n, L] on x [L] best.

    No steeper than a scale of one level: a steeper one would be a step.  The best of a grid of midpoints and scales,
    asymptotes by least squares.
    """
    gap, span = np.diff(x).min(), np.ptp(x)
    middle = np.linspace(x.min() - span / 2, x.max() + span / 2, MIDPOINTS)
    middle, scale = np.meshgrid(middle, np.geomspace(gap, span, SCALES))
    basis = lambda dose: expit((np.atleast_1d(dose)[:, None] - middle.ravel()) / scale.ravel())  # noqa: E731  [L, grid]
    shape, new = basis(x), basis(at)[0]
    centred, mean = shape - shape.mean(0), y.mean(1, keepdims=True)
    slope = (y - mean) @ centred / np.square(centred).sum(0)  # [n, grid]
    best = (np.square(slope) * np.square(centred).sum(0)).argmax(1)  # what it explains
    slope = np.take_along_axis(slope, best[:, None], 1)[:, 0]
    return mean[:, 0] + slope * (new - shape.mean(0))[best]


def steps(x: np.ndarray, y: np.ndarray, at: float, count: int) -> np.ndarray:
    """Predictions [n] at one dose of the step functions with `count` steps that fit y [n, L] on x [L] best.

    A step is half-way between two levels; where the dose is half-way too, the mean of both sides.
    """
    errors, fitted, near = [], [], 0.01 * np.diff(x).min()  # doses are rounded
    for cuts in combinations(range(1, len(x)), count):
        parts = np.split(y, cuts, axis=1)
        errors.append(sum(np.square(part - part.mean(1, keepdims=True)).sum(1) for part in parts))
        edges = (x[list(cuts)] + x[np.subtract(cuts, 1)]) / 2
        sides = np.searchsorted(edges, [at - near, at + near])
        fitted.append(np.mean([parts[side].mean(1) for side in sides], axis=0))
    best = np.argmin(errors, axis=0)
    return np.take_along_axis(np.array(fitted), best[None], 0)[0]


def left_out(x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Mean squared error [n] of predicting each level by curves fitted to the others, over the variance of the levels.

    x [L], y [n, L].  Keys: `smooth`, the logistic curve, and `step`, the better of one step and of two.  NaN where a
    curve has no variance, and for all where there are fewer than `FEWEST` levels.
    """
    if len(x) < FEWEST:
        return dict.fromkeys(("smooth", "step"), np.full(len(y), np.nan))
    rivals = {"smooth": logistic} | {k: partial(steps, count=k) for k in STEPS}
    others = [np.arange(len(x)) != i for i in range(len(x))]
    miss = lambda f, o: (f(x[o], y[:, o], at=x[~o][0]) - y[:, ~o][:, 0]) ** 2  # noqa: E731
    error = {name: np.mean([miss(f, o) for o in others], axis=0) for name, f in rivals.items()}
    scale = np.where(np.ptp(y, axis=1) > 0, y.var(1), np.nan)
    return {"smooth": error["smooth"] / scale, "step": np.minimum(*(error[k] for k in STEPS)) / scale}


def lead(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """By how much [n] the smooth curve predicts better than the best step: above 0 a slope, below 0 a jump."""
    error = left_out(x, y)
    return error["step"] - error["smooth"]


def jump(y: np.ndarray) -> np.ndarray:
    """Largest difference between adjacent levels, as a share of the range of the curve, [n] of y [n, L]."""
    span = np.ptp(y, axis=1)
    return np.abs(np.diff(y)).max(1, initial=0.0) / np.where(span > 0, span, np.nan)


def roughness(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Root mean square [n] of what the smooth curve misses at levels left out, as a share of the curve's range.

    Noise and what the curve's form cannot follow, together: an upper bound on either.
    """
    span = np.ptp(y, axis=1)
    return np.sqrt(left_out(x, y)["smooth"] * y.var(1)) / np.where(span > 0, span, np.nan)


def confused_from(e: Results) -> float | None:
    """The lowest look from which on self and other are confused, mean who-moved AUC below the gate's; None if none."""
    t = e.pick("measures", measure="auc", mover="other", family="recurrent")
    auc = t.groupby("similarity")["value"].mean()
    decodable = auc.index[auc >= metrics.IDENTITY]
    above = auc.index[auc.index > decodable.max()] if len(decodable) else auc.index
    return float(above.min()) if len(above) else None


def shape_scores(e: Results, readout: str, families: Sequence[str]) -> pd.DataFrame:
    """Shape of every agent's curves: columns seed, of (family), curve, lead, jump, roughness.

    Controls bypass the gate; who has no curve is left out.  curve: `looks`, or a way through the latent from the
    other's code to the self's.
    """
    parts = []
    for family in families:
        passed, failed = e.split_by_gate(readout, family)
        seeds = passed if family == "recurrent" else sorted([*passed, *failed])
        for curve in ("looks", "whole", "axis"):
            x, y = (
                e.curve(readout, seeds, family) if curve == "looks" else e.moved(readout, seeds, curve, family=family)
            )
            found = {"lead": lead(x, y), "jump": jump(y), "roughness": roughness(x, y)}
            parts.append(pd.DataFrame({"seed": seeds, "of": family, "curve": curve, **found}))
    return pd.concat(parts, ignore_index=True).dropna(subset="lead")


def mediation(e: Results, readout: str, seeds: list[int]) -> dict[str, np.ndarray]:
    """What the self-other axis does to empathy, per agent [n].

    patched, random, better, shifted: the share of the way from rho to the self's own, at e.s, that a patch all along
    the axis goes, one as far along random axes, one along each random axis in its better direction, and one that brings
    nothing about the item along.  intact, erased, centred, erased at random: rho(.9) - rho(0) with the code as it is,
    without what tells self from other linearly, with the axis at its mean, and random ones.
    """
    own, start = e.rho(readout, seeds, mover="self", s=1.0), e.rho(readout, seeds)
    end = lambda path, s=None: e.moved(readout, seeds, path, s=s)[1][:, -1]  # noqa: E731
    ways = {"patched": "axis", "random": "random", "better": "random, better way", "shifted": "shift"}
    shares = {name: (end(path) - start) / (own - start) for name, path in ways.items()}
    rises = {path: end(path, S_HIGH) - end(path, 0.0) for path in ("erased", "centred", "erased at random")}
    return shares | {"intact": e.rho(readout, seeds, s=S_HIGH) - e.rho(readout, seeds, s=0.0)} | rises


def places(e: Results, readout: str, seeds: list[int]) -> pd.DataFrame:
    """Mean places of other and self on the self-other axis and mean rho, by look: similarity, place, self, rho."""
    m = e.pick("measures", measure=f"position_{readout}", family="recurrent")
    at = {"readout": readout, "family": "recurrent", "exposure": e.exposure, "kappa": 0.0}
    t = e.pick("coefficients", kind="empathy", mover="other", **at)
    mean = lambda some, value: some[some.seed.isin(seeds)].groupby("similarity")[value].mean()  # noqa: E731
    found = {"place": m[m.mover == "other"], "self": m[m.mover == "self"]}
    return pd.DataFrame({k: mean(v, "value") for k, v in found.items()} | {"rho": mean(t, "rho")}).reset_index()


def reached(e: Results, places: pd.DataFrame, alpha: np.ndarray) -> np.ndarray:
    """Place on the self-other axis that a patch by each alpha [A] reaches at e.s; places: of this name."""
    if places.empty:
        return np.full(len(alpha), np.nan)
    start, end = (metrics.at_similarity(places.assign(path=k), e.s, k)[k].iloc[0] for k in ("place", "self"))
    return start + alpha * (end - start)


def _rank_correlation(x: np.ndarray) -> np.ndarray:
    """Mean over agents [...] of the rank correlation of x [..., n, levels] with the order of the levels."""
    levels = x.shape[-1]
    ranks = scipy.stats.rankdata(x, axis=-1) - (levels + 1) / 2
    order = np.arange(levels) - (levels - 1) / 2
    each = ranks @ order / (np.linalg.norm(ranks, axis=-1).clip(1e-12) * np.linalg.norm(order))
    return each.mean(-1)


def _curve(e: Results, seeds: list[int]) -> np.ndarray:
    return e.curve("reward", seeds)[1]


def _smooth(e: Results, seeds: list[int]) -> np.ndarray:
    return lead(*e.curve("reward", seeds))


def _stepped(e: Results, seeds: list[int]) -> np.ndarray:
    return -_smooth(e, seeds)


def _steepest(e: Results, seeds: list[int]) -> np.ndarray:
    return jump(_curve(e, seeds))


def _steep(e: Results, seeds: list[int]) -> np.ndarray:
    return e.rho("reward", seeds, s=S_HIGH) - e.rho("reward", seeds, s=0.0)


def _patch_contrast(e: Results, seeds: list[int]) -> np.ndarray:
    """rho with the code patched all the way along the self-other axis, beyond as far along random axes."""
    return e.moved("reward", seeds, "axis")[1][:, -1] - e.moved("reward", seeds, "random")[1][:, -1]


def _along(shape: Callable, worse: Callable) -> Callable[[Results, list[int]], np.ndarray]:
    """The worse of two ways from the other's code to the self's: along the axis between all others and the self, and
    straight from each code to its partner."""
    return lambda e, seeds: worse(*(shape(*e.moved("reward", seeds, path)) for path in INTERPOLATIONS))


ROWS = [
    *rule("P3", _steep, (_curve, _rank_correlation), _patch_contrast),
    *rule("P3/conduct", partial(animacy, "reward")),
    *rule("P4", _smooth, _steepest, _along(lead, np.minimum), _along(lambda x, y: jump(y), np.maximum), _stepped),
]


def spectrum(results: Results, readout: str, confused: float | None, mark: float) -> pd.DataFrame:
    """rho against similarity: every agent a thin line, self and drifter as anchors, controls grey."""
    t = results.pick("coefficients", readout=readout, kind="empathy", exposure=results.exposure, kappa=0.0)
    lines = [replace(line, agents=line.series == "world model") for line in with_anchors(t)]
    return draw_similarity(lines, mark, confused=confused, size=(7.2, 4.8), inside=True)


def surfaces(table: pd.DataFrame, readout: str, panels: list[tuple], confused: float | None) -> pd.DataFrame:
    """Mean rho by similarity and purpose, one panel per family and exposure; hatched where self and other are confused.

    table: columns family, exposure, readout, similarity, purpose and rho, over agents.
    """
    fig, axes = subplots(len(panels), 3, (2.9, 2.9), sharex=True, sharey=True)
    own, parts = table[table.readout == readout], []
    how = {"cmap": "RdBu_r", "vmin": -1, "vmax": 1, "shading": "nearest", "rasterized": True}
    for ax, (family, p) in zip(axes, panels, strict=True):
        some = own[(own.family == family) & np.isclose(own.exposure, p)]
        wide = some.pivot_table(index="purpose", columns="similarity", values="rho", observed=True)
        x = turned(wide.columns)
        mesh = ax.pcolormesh(x, wide.index, wide, **how)
        if family == "recurrent" and confused is not None:
            edge = turned(confused) - np.diff(x).min() / 2
            ax.add_patch(Rectangle((edge, -1), 200, 3, fill=False, hatch="////", ec="0.35", lw=0))
        ax.set(xlim=(x.min() - 4.5, 4.5), ylim=(wide.index.min(), wide.index.max()))
        ax.set_xticks(turned([0, 0.59, 0.95]), ["0", "0.59", "0.95"])
        ax.set_title(f"{NAMES[family].removesuffix(' (control)')}, p = {p:g}", fontsize=10)
        parts.append(wide.reset_index().melt("purpose", value_name="rho").assign(panel=ax.get_title()))
    fig.supylabel("purpose in the scene", fontsize=11)
    fig.supxlabel("similarity, s = cos(angle)", fontsize=11)
    fig.colorbar(mesh, ax=axes, label="rho", shrink=0.7)
    return pd.concat(parts, ignore_index=True)


def conduct_curves(table: pd.DataFrame, readout: str, levels: list[float]) -> pd.DataFrame:
    """rho against purpose for every taste, one panel per similarity; table: of agents, as in `surfaces`."""
    t, lines = table[table.readout == readout], []
    for s in levels:
        for taste, at in t[np.isclose(t.similarity, s, atol=1e-3)].groupby("taste", observed=True, sort=False):
            wide = at.pivot_table(index="seed", columns="purpose", values="rho", observed=True)
            panel = f"{readout} head, s = {s:.2g}"
            lines.append(Line(f"{taste} taste", wide.columns.to_numpy(float), wide.to_numpy(), panel))
    return draw(lines, "purpose", "rho", lambda ax: ax.set_xlabel("purpose in the scene"), sharey=False)


def shape(table: pd.DataFrame, bar: float) -> pd.DataFrame:
    """Every agent's lead of the smooth curve and its largest jump; table: columns of, curve, lead and jump."""
    _, axes = subplots(2, 2, (4.4, 3.3), sharey=True)
    how = {"y": "curve", "hue": "of", "palette": COLOURS, "dodge": True, "jitter": False, "alpha": 0.6}
    says = {"lead": "lead of the smooth curve (above 0: smooth)", "jump": "largest jump, as a share of the range"}
    for ax, (value, label), at in zip(axes, says.items(), (0.0, bar), strict=True):
        sns.stripplot(table, x=value, ax=ax, legend=value == "jump", **how)
        ax.axvline(at, color="0.6", lw=0.9, ls="--", zorder=0)
        ax.set(xlabel=label, ylabel="")
    return table[["of", "curve", "seed", "lead", "jump"]]


def moved_along(
    results: Results, readout: str, seeds: list[int], where: pd.DataFrame, reach: np.ndarray
) -> pd.DataFrame:
    """Left: rho while the other's code goes to the self's; right: rho against its place on the self-other axis.

    where: from `places`, as similarity alone brings it about; reach [A]: the place that a patch by each alpha reaches.
    """
    left, right = "share alpha of the way to the self", "place on the axis (0: orthogonal other, 1: self)"
    lines = [Line(name, *results.moved(readout, seeds, path), left) for path, name in PATHS.items()]
    lines.append(Line(f"patched, s = {results.s:g}", reach, results.moved(readout, seeds, "axis")[1], right))
    lines.append(Line("by similarity alone", where.place.to_numpy(), where.rho.to_numpy(), right, style=("0.35", "--")))
    numbers = draw(lines, "x", columns=2, size=(4.6, 3.6), label=f"rho, {readout} head", inside=True)
    for row in where.iloc[::2].itertuples():
        note = {"textcoords": "offset points", "xytext": (5, -9), "fontsize": 8, "color": "0.35"}
        plt.gcf().axes[1].annotate(f"s = {row.similarity:.2g}", (row.place, row.rho), **note)
    return numbers


def erasure(table: pd.DataFrame, readout: str) -> pd.DataFrame:
    """rho against similarity with codes intact and with the axis, or random ones, erased, for the other and the self.

    table: interventions of agents, with rho; intact codes are those of path `axis` at alpha 0.
    """
    own = table[(table.readout == readout) & (table.alpha == np.where(table.path == "axis", 0, 1))]
    at = product(("other", "self"), ERASED.items())
    parts = [(own[(own.mover == mover) & (own.path == path)], name, f"{mover} moves") for mover, (path, name) in at]
    lines = [over_similarity(part, "rho", *named) for part, *named in parts]
    return draw_similarity(lines, columns=2, size=(4.4, 3.4), label=f"rho, {readout} head")
