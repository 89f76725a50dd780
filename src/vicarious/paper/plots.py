"""How the paper draws: a small grammar of curves over agents, estimates on a line, and heat maps.

Every function draws on a new figure and returns the tidy numbers that it drew.  One colour per mover and control.
Matplotlib is imported where something is drawn: verdicts are read without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .. import drawings, stats
from ..drawings import BODIES
from ..world import State

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = BODIES | {"pixels": "#6f6f6f", "untrained": "#b0b0b0"}
NAMES = {  # of families and variants, as figures say them
    "action_shown": "own action always shown",
    **{"reference": "world model", "pixels": "pixels", "pca": "principal components", "untrained": "untrained twin"},
    **{"end_to_end": "own reward only", "solitary": "never met an eventful episode"},
    **{"expressionless": "moods not drawn", "oracle": "told the true state", "disjoint": "nothing shared"},
}
STYLES = {  # of series, by name: colour and line; others take theirs from a palette
    **{name: (COLOURS[name], "-") for name in ("self", "other")},
    **{
        "drifter": (COLOURS["drifter"], ":"),
        "nobody": ("0.45", "--"),
        "stranger": ("#7b4fa3", "-."),
        "battery": (COLOURS["other"], "-"),
    },
    **{NAMES["reference"]: (COLOURS["other"], "-"), NAMES["pixels"]: (COLOURS["pixels"], "--")},
    **{NAMES["pca"]: (COLOURS["pixels"], "-."), NAMES["untrained"]: (COLOURS["untrained"], ":")},
    **{
        NAMES["end_to_end"]: ("#8c6d31", "--"),
        NAMES["solitary"]: ("#31688c", ":"),
        NAMES["expressionless"]: ("#b5651d", "-."),
    },
}
RHO = "empathy coefficient rho"

AxisOf = Callable[["Axes"], Any]  # lays out the horizontal axis of a panel


def style() -> None:
    """The paper's look; call once per chapter."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    sns.set_theme(style="ticks", context="notebook", font="DejaVu Sans")
    plt.rcParams.update({"figure.dpi": 110, "savefig.dpi": 160, "savefig.bbox": "tight", "svg.hashsalt": "vicarious"})
    plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": "medium"})
    plt.rcParams.update({"figure.constrained_layout.use": True, "legend.frameon": False})


@dataclass(frozen=True)
class Line:
    """A curve over agents in a panel: values y [n, L] at x [L], drawn as their mean with a pointwise 95% interval.

    Where no interval is to be drawn, y [L]; where it is known, (mean, low, high) [3, L] as `bounds`.  agents: every
    agent as a thin line too.  counts [L]: levels that are joined, the others hollow.
    """

    series: str
    x: np.ndarray
    y: np.ndarray
    panel: str = ""
    bounds: bool = False
    agents: bool = False
    counts: np.ndarray | None = None
    style: tuple[Any, str] | None = None

    def intervals(self) -> tuple[np.ndarray, ...]:
        """Mean, low and high [L]."""
        if self.bounds:
            return tuple(np.asarray(y, float) for y in self.y)
        if np.ndim(self.y) == 1:
            return (np.asarray(self.y, float),) * 3
        found = [stats.interval(column[np.isfinite(column)], resamples=999) for column in self.y.T]
        return tuple(np.array([getattr(i, name) for i in found]) for name in ("estimate", "low", "high"))


def draw(
    lines: Iterable[Line],
    x: str,
    y: str = "rho",
    axis: AxisOf = lambda ax: None,
    scale: Callable[[np.ndarray], np.ndarray] = np.asarray,
    columns: int = 3,
    size: tuple[float, float] = (3.4, 3.1),
    label: str = RHO,
    palette: str = "colorblind",
    inside: bool = False,
    bars: bool = False,
    zero: bool = True,
    levels: bool = False,
    **shared,
) -> pd.DataFrame:
    """Curves in panels.  x, y: what they are, as the columns of the numbers call it; scale: where x is drawn.

    palette: of series without a style of their own; inside: every panel has its own series, and legend; bars: intervals
    as bars, not bands; levels: a logarithmic axis whose ticks are what was drawn.  The agents of a panel are counted.
    Returns panel, series, x, y, low, high.
    """
    lines, rows = list(lines), []
    panels = list(dict.fromkeys(line.panel for line in lines))
    fig, axes = subplots(len(panels), columns, size, **{"sharey": True, **shared})
    for ax, panel in zip(axes, panels, strict=True):
        own = [line for line in lines if line.panel == panel]
        styles = _styles(own if inside else lines, palette)
        if zero:
            ax.axhline(0, color="0.8", lw=0.8, zorder=0)
        for line in own:
            bounds = line.intervals()
            _draw_line(ax, line, scale(line.x), bounds, *(line.style or styles[line.series]), bars)
            rows += [(panel, line.series, *at) for at in zip(line.x, *bounds, strict=True) if np.isfinite(at[1])]
        ax.set_title(panel)
        counts = [
            n for line in own if np.ndim(line.y) == 2 and not line.bounds for n in np.isfinite(line.y).sum(0) if n
        ]
        if counts:
            ends = dict.fromkeys((min(counts), max(counts)))
            ax.set_title("n = " + " to ".join(str(n) for n in ends), loc="right", size=8)
        axis(ax)
        if levels:
            _tick_levels(ax, np.unique(np.concatenate([line.x for line in own])))
        if inside:
            ax.legend(fontsize=8)
    fig.supylabel(label, fontsize=11)
    if not inside:
        handles = {name: handle for ax in axes for handle, name in zip(*ax.get_legend_handles_labels(), strict=True)}
        fig.legend(handles.values(), handles, loc="outside lower center", ncols=3, fontsize=9)
    return pd.DataFrame(rows, columns=["panel", "series", x, y, "low", "high"])


def _styles(lines: list[Line], palette: str) -> dict[str, tuple]:
    """Colour and line of every series."""
    import seaborn as sns

    others = list(dict.fromkeys(line.series for line in lines if line.style is None and line.series not in STYLES))
    return STYLES | {name: (c, "-") for name, c in zip(others, sns.color_palette(palette, len(others)), strict=True)}


def _tick_levels(ax: Axes, levels: np.ndarray) -> None:
    """A logarithmic axis with levels as ticks, the second or third of them where there are many."""
    levels = levels[:: 1 + (len(levels) > 6) + (len(levels) > 11)]
    ax.set_xscale("log")
    ax.set_xticks(levels, [f"{n:g}" if n < 10_000 else f"{n / 1000:.0f}k" for n in levels])
    ax.minorticks_off()


def _draw_line(ax: Axes, line: Line, x: np.ndarray, bounds: tuple, colour: Any, style: str, bars: bool) -> None:
    mean, low, high = bounds
    counts = np.ones(len(x), bool) if line.counts is None else line.counts
    if line.agents:
        ax.plot(x, line.y.T, color=colour, lw=0.5, alpha=0.3)
    if bars:
        ax.vlines(x[counts], low[counts], high[counts], color=colour, lw=1.2)
    elif len(x) > 1:
        ax.fill_between(x[counts], low[counts], high[counts], color=colour, alpha=0.18, lw=0)
    single = {"marker": "D", "ms": 7, "ls": ""} if len(x) == 1 else {"ls": style, "marker": "o", "ms": 3.5}
    ax.plot(x[counts], mean[counts], color=colour, label=line.series, **single)
    hollow = ~counts & np.isfinite(mean)
    error = np.stack([mean - low, high - mean])[:, hollow]
    if hollow.any():
        ax.errorbar(x[hollow], mean[hollow], error, fmt="o", ms=4, mfc="white", color=colour, lw=0.8)


def over_similarity(table: pd.DataFrame, value: str = "rho", series: str = "other", panel: str = "", **own) -> Line:
    """The line of a table's rows (seed, similarity, value) over similarity."""
    wide = table.pivot_table(index="seed", columns="similarity", values=value, observed=True)
    return Line(series, wide.columns.to_numpy(float), wide.to_numpy(), panel, **own)


def named(family: str, variant: str = "reference") -> str:
    """What agents of a family, or a variant of it, are called in figures."""
    return NAMES[variant if variant != "reference" else family if family in NAMES else variant]


def draw_similarity(lines: Iterable[Line], mark: float | None = None, **how) -> pd.DataFrame:
    """Curves over similarity; mark: where a verdict is read; confused, small: as `similarity_axis` has them."""
    axis = similarity_axis(mark, how.pop("confused", None), how.pop("small", False))
    return draw(lines, "similarity", how.pop("y", "rho"), axis, turned, **how)


def subplots(count: int, columns: int, size: tuple[float, float], **how) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels of a size in inches, and their axes."""
    import matplotlib.pyplot as plt

    columns = min(columns, count)
    rows = -(-count // columns)
    whole = (size[0] * columns + 0.4, size[1] * rows + 0.4)
    fig, axes = plt.subplots(rows, columns, figsize=whole, squeeze=False, **how)
    for ax in axes.flat[count:]:
        ax.axis("off")
    return fig, list(axes.flat[:count])


def turned(s: np.ndarray) -> np.ndarray:
    """Where a similarity is drawn: levels are uniform in angle, identical appearance on the right."""
    return -np.degrees(np.arccos(np.clip(np.asarray(s, float), 0, 1)))


def similarity_axis(mark: float | None = None, confused: float | None = None, small: bool = False) -> AxisOf:
    """Angle on the axis, similarity written on the ticks, identical appearance grey.

    confused: the lowest similarity at which self and other are confused; hatched from there.
    """

    def lay_out(ax: Axes) -> None:
        s = np.array([0, 0.59, 0.95] if small else [0, 0.31, 0.59, 0.81, 0.95, 1])
        ax.set_xticks(turned(s), [f"{x:g}" for x in s])
        ax.set_xlabel("similarity" if small else "similarity, s = cos(angle)")
        ax.axvspan(-4.5, 0.5, color="0.93", zorder=0)
        if confused is not None:
            ax.axvspan(turned(confused) - 4.5, 0.5, fill=False, hatch="////", ec="0.6", lw=0, zorder=0)
        if mark is not None:
            ax.axvline(turned(mark), color="0.75", lw=0.8, zorder=0)

    return lay_out


# Pictures of scenes


def filmstrip(
    states: dict[str, list[State]], traces: pd.DataFrame, ladder: tuple, event: int, shown: int
) -> pd.DataFrame:
    """The frames of one event for each mover, and under them what the heads predict.

    states: mover -> frames of scene `shown`; traces: columns mover, scene, frame, readout, prediction; event: the frame
    of contact.  Dots are the scene in the pictures, lines the mean over all scenes.
    """
    import matplotlib.pyplot as plt

    frames = list(range(event - 2, len(next(iter(states.values())))))
    titles = {event - 1: "approach", event: "contact", event + 1: "after"}
    fig = plt.figure(figsize=(9, 6.6))
    top, bottom = fig.subfigures(2, 1, height_ratios=[1.1, 1])
    axes = top.subplots(len(states), len(frames))
    for row, (mover, sequence) in zip(axes, states.items(), strict=True):
        for ax, t in zip(row, frames, strict=True):
            drawings.scene(ax, sequence[t], ladder, drifter=mover == "drifter")
            if mover == next(iter(states)):
                ax.set_title(titles.get(t, "context"), fontsize=10)
        where = {"va": "center", "ha": "center", "transform": row[0].transAxes}
        row[0].text(-0.08, 0.5, mover, color=COLOURS[mover], weight="bold", rotation=90, **where)
    for ax, readout in zip(bottom.subplots(1, 2, sharex=True), ("reward", "value"), strict=True):
        for mover, part in traces[traces.readout == readout].groupby("mover", sort=False):
            mean = part.groupby("frame").prediction.mean()
            one = part[part.scene == shown]
            ax.plot(mean.index - event, mean, color=COLOURS[mover], label=f"{mover} meets it")
            ax.plot(one.frame - event, one.prediction, "o", ms=4, color=COLOURS[mover], alpha=0.7)
        ax.axvline(0, color="0.8", zorder=0)
        ax.axhline(0, color="0.8", zorder=0, lw=0.8)
        ax.set(title=f"predicted {readout} of the self", xlabel="frames from contact", ylabel=readout)
    bottom.axes[0].legend(fontsize=9, loc="upper left")
    return traces.groupby(["mover", "readout", "frame"], sort=False).prediction.mean().reset_index()


def planes(rows: dict[str, np.ndarray], names: list[str]) -> Figure:
    """Channels [H, W, C] as pictures: one row per entry, one column per channel."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    fig, axes = plt.subplots(len(rows), len(names), figsize=(1.15 * len(names), 0.62 * len(rows) + 0.3), squeeze=False)
    for line, (title, picture) in zip(axes, rows.items(), strict=True):
        for ax, channel in zip(line, range(picture.shape[-1]), strict=True):
            ax.imshow(picture[..., channel], cmap="RdBu_r", vmin=-1.1, vmax=1.1)
            ax.set(xticks=[], yticks=[])
            sns.despine(ax=ax, left=True, bottom=True)
        line[0].set_ylabel(title, fontsize=8, rotation=0, ha="right", va="center")
    for ax, name in zip(axes[0], names, strict=True):
        ax.set_title(name, fontsize=8)
    return fig


def places(states: list[State], beliefs: dict[str, np.ndarray], there: np.ndarray, ladder: tuple) -> pd.DataFrame:
    """Where observers expect the other to be next: a row for each state, a map of its chamber for each observer.

    beliefs: name -> chances [rows, N]; there [rows]: the cell in which it was.
    """
    import matplotlib.pyplot as plt

    size = round(states[0].items.shape[2] ** 0.5)
    widths = [2.4, *[1] * len(beliefs)]
    _, axes = plt.subplots(
        len(states), len(widths), figsize=(9, 1.5 * len(states) + 0.3), width_ratios=widths, squeeze=False
    )
    rows = []
    for line, state, cell, row in zip(axes, states, np.asarray(there), range(len(states)), strict=True):
        drawings.scene(line[0], state, ladder)
        for ax, (name, chances) in zip(line[1:], beliefs.items(), strict=True):
            chances = np.asarray(chances[row], float)
            ax.imshow(chances.reshape(size, size), cmap="Oranges", vmin=0, vmax=1)
            ax.plot(cell % size, cell // size, "x", color="black", ms=8, mew=2)
            ax.set(xticks=[], yticks=[], title=name if row == 0 else "")
            rows += [(row, name, i, chance) for i, chance in enumerate(chances)]
    return pd.DataFrame(rows, columns=["row", "observer", "cell", "chance"])
