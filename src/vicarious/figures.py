"""Figures of the paper: scenes, filmstrips, and curves over agents.  One colour per mover and control, everywhere."""

from __future__ import annotations

import base64
import io
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Polygon, Rectangle

from . import calibration, development, generality, leakage, metrics, scaling, stats
from .evidence import Evidence
from .world import State

COLOURS = {
    "self": "#1f6fb4",
    "other": "#d9622b",
    "drifter": "#5b8c5a",
    "recurrent": "#d9622b",
    "pixels": "#6f6f6f",
    "untrained": "#b0b0b0",
    "taught": "#6b2d6b",
}
NAMES = {"recurrent": "world model", "pixels": "pixels (control)", "untrained": "untrained (control)"}
STYLES = {"recurrent": "-", "pixels": "--", "untrained": ":"}
ITEMS = {1.0: "#2a9d4a", 0.5: "#8cc99a", 0.0: "#c9a227", -0.5: "#d98a8a", -1.0: "#b3262e"}


def style() -> None:
    """The paper's look; call once per chapter."""
    sns.set_theme(style="ticks", context="notebook", font="DejaVu Sans")
    plt.rcParams.update(
        {
            "figure.dpi": 110,
            "savefig.dpi": 160,
            "savefig.bbox": "tight",
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "legend.frameon": False,
            "axes.titlesize": "medium",
            "svg.hashsalt": "vicarious",
        }
    )


def speed(bench: dict, groups: tuple[str, ...] = ("environment", "world model", "heads")) -> Figure:
    """Rates of the benchmark on a logarithmic axis, one panel a group: ours in colour, peers and floors grey."""
    rows = pd.DataFrame([row for row in bench["rows"] if row["group"] in groups])
    counts = [int((rows.group == group).sum()) for group in groups]
    fig, axes = plt.subplots(len(groups), 1, figsize=(7.5, 0.34 * len(rows) + 1.8), height_ratios=counts)
    for ax, group in zip(axes, groups, strict=True):
        own = rows[rows.group == group].iloc[::-1].reset_index(drop=True)
        other = own["name"].str.contains("products") | own.get("package", pd.Series(index=own.index)).notna()
        colours = np.where(other, COLOURS["pixels"], COLOURS["recurrent"])
        ax.hlines(own.index, own.low, own.high, colors=colours, lw=2)
        ax.scatter(own["median"], own.index, c=colours, s=30, zorder=3)
        ax.set(xscale="log", yticks=own.index, yticklabels=own.name, title=group, xlabel=own.unit[0])
        ax.set_ylim(-0.6, len(own) - 0.4)
        ax.grid(axis="x", which="major", color="0.9")
    return fig


def blend(angle: float, drifter: bool = False) -> tuple:
    """Colour of a body whose looks are `angle` radians away from the self's."""
    near, far = (
        np.array(plt.matplotlib.colors.to_rgb(c)) for c in (COLOURS["self"], COLOURS["drifter" if drifter else "other"])
    )
    return tuple(near + (far - near) * min(1.0, angle / (np.pi / 2)))


def scene(ax: Axes, state: State, ladder: tuple[float, ...], index: int = 0, drifter: bool = False) -> None:
    """One frame of both chambers as a picture: bodies are discs, items triangles, glass a grey wall."""
    size = round(state.items.shape[2] ** 0.5)
    side = int(state.side[index])
    for column in range(2 * size + 1):
        for row in range(size):
            wall = column == size
            ax.add_patch(
                Rectangle(
                    (column, row),
                    1,
                    1,
                    fc="#c8d4dc" if wall else "#fafafa",
                    ec="#c8d4dc" if wall else "#d8d8d8",
                    lw=0.6,
                )
            )
    for body in range(2):
        offset = (size + 1) * (side ^ body)
        for cell, kind in enumerate(state.items[index, body].tolist()):
            if kind:
                _item(ax, cell % size + offset, cell // size, ladder[kind - 1])
        cell = int(state.pos[index, body])
        colour = blend(float(state.angle[index]), drifter) if body else COLOURS["self"]
        ax.add_patch(
            Circle((cell % size + offset + 0.5, cell // size + 0.5), 0.32, fc=colour, ec="black", lw=0.8, zorder=2)
        )
        label = ("D" if drifter else "O") if body else "S"
        ax.text(
            cell % size + offset + 0.5,
            cell // size + 0.5,
            label,
            ha="center",
            va="center",
            color="white",
            size=8,
            zorder=4,
            weight="bold",
        )
    ax.set(xlim=(-0.05, 2 * size + 1.05), ylim=(size + 0.05, -0.05), aspect="equal")
    ax.axis("off")


def _item(ax: Axes, x: float, y: float, valence: float) -> None:
    """An item on its cell's floor: a triangle up if good, down if bad, a square if worthless."""
    colour = ITEMS.get(valence, "#888888")
    if valence == 0:
        ax.add_patch(Rectangle((x + 0.62, y + 0.62), 0.3, 0.3, fc=colour, ec="black", lw=0.6, zorder=3))
        return
    top, bottom = (0.58, 0.94) if valence > 0 else (0.94, 0.58)
    points = [(x + 0.77, y + top), (x + 0.59, y + bottom), (x + 0.95, y + bottom)]
    ax.add_patch(Polygon(points, fc=colour, ec="black", lw=0.6, zorder=3))


def animate(states: list[State], ladder: tuple[float, ...], captions: list[str], alt: str) -> str:
    """An episode as an HTML image (an animated GIF inside the page, two frames a second)."""
    size = round(states[0].items.shape[2] ** 0.5)
    fig, ax = plt.subplots(figsize=((2 * size + 1) * 0.75, size * 0.75 + 0.5), layout="none")
    fig.subplots_adjust(0.01, 0.01, 0.99, 0.88)

    def draw(frame: int) -> list:
        ax.clear()
        scene(ax, states[frame], ladder)
        ax.set_title(captions[frame], fontsize=10)
        return []

    movie = FuncAnimation(fig, draw, frames=len(states))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "episode.gif"
        movie.save(path, writer=PillowWriter(fps=2), dpi=80)
        data = base64.b64encode(path.read_bytes()).decode()
    plt.close(fig)
    return f'<img alt="{alt}" style="max-width:100%" src="data:image/gif;base64,{data}">'


def filmstrip(
    states: dict[str, list[State]], traces: pd.DataFrame, ladder: tuple[float, ...], event: int, shown: int
) -> Figure:
    """The frames of one event for each mover, and under them what the heads say.

    states: mover -> frames of scene `shown`; traces: columns mover, scene, frame, readout, prediction; event: the frame
    of contact.  Dots are the scene in the pictures, lines the mean over all scenes.
    """
    frames = list(range(event - 2, len(next(iter(states.values())))))
    fig = plt.figure(figsize=(9, 6.6))
    top, bottom = fig.subfigures(2, 1, height_ratios=[1.1, 1])
    axes = top.subplots(len(states), len(frames))
    for row, (mover, sequence) in zip(axes, states.items(), strict=True):
        for ax, t in zip(row, frames, strict=True):
            scene(ax, sequence[t], ladder, drifter=mover == "drifter")
            if mover == next(iter(states)):
                ax.set_title(
                    {event - 1: "approach", event: "contact", event + 1: "after"}.get(t, "context"), fontsize=10
                )
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
    return fig


def planes(rows: dict[str, np.ndarray], names: list[str]) -> Figure:
    """Channels [H, W, C] as pictures: one row per entry, one column per channel."""
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


def _band(ax: Axes, x: np.ndarray, samples: np.ndarray, colour: str, label: str | None, line: str = "-") -> None:
    """Mean over agents with a pointwise 95% interval of it; samples [agents, levels]."""
    bounds = [stats.interval(column, resamples=999) for column in samples.T]
    ax.fill_between(x, [b.low for b in bounds], [b.high for b in bounds], color=colour, alpha=0.18, lw=0)
    ax.plot(x, samples.mean(0), line, color=colour, label=label, marker="o", ms=3)


def similarity_axis(ax: Axes, mark: float | None = None, confused: float | None = None) -> None:
    """Angle on the axis (levels are uniform in it), similarity written on the ticks, identical looks grey on the right.

    confused: the lowest similarity at which self and other are confused; hatched from there.
    """
    s = np.array([0, 0.31, 0.59, 0.81, 0.95, 1])
    ax.set_xticks(-np.degrees(np.arccos(s)), [f"{x:g}" for x in s])
    ax.set_xlabel("similarity of looks, s = cos(angle)")
    ax.axvspan(-4.5, 0.5, color="0.93", zorder=0)
    if confused is not None:
        ax.axvspan(-np.degrees(np.arccos(confused)) - 4.5, 0.5, fill=False, hatch="////", ec="0.6", lw=0, zorder=0)
    if mark is not None:
        ax.axvline(-np.degrees(np.arccos(mark)), color="0.75", lw=0.8, zorder=0)


def _levels(table: pd.DataFrame, value: str) -> tuple[np.ndarray, np.ndarray]:
    wide = table.pivot_table(index="seed", columns="similarity", values=value)
    return -np.degrees(np.arccos(np.clip(wide.columns.to_numpy(), 0, 1))), wide.to_numpy()


def dose_response(evidence: Evidence, exposures: tuple[float, ...], mark: float) -> Figure:
    """rho against similarity: rows are heads, columns exposures; controls in grey, drifters in green."""
    fig, axes = plt.subplots(
        2, len(exposures), figsize=(3.4 * len(exposures), 6.2), sharex=True, sharey=True, squeeze=False
    )
    for row, readout in zip(axes, ("reward", "value"), strict=True):
        for ax, p in zip(row, exposures, strict=True):
            t = evidence.coefficients
            t = t[(t.readout == readout) & (t.kind == "empathy") & np.isclose(t.exposure, p)]
            for family in ("untrained", "pixels", "recurrent"):
                x, y = _levels(t[(t.family == family) & (t.mover == "other")], "rho")
                _band(ax, x, y, COLOURS[family], NAMES[family], STYLES[family])
            x, y = _levels(t[(t.family == "recurrent") & (t.mover == "drifter")], "rho")
            _band(ax, x, y, COLOURS["drifter"], "world model, drifter")
            own = t[(t.family == "recurrent") & (t.mover == "self")].rho
            ax.plot([0], [own.mean()], "D", color=COLOURS["self"], ms=6, label="world model, self")
            ax.axhline(0, color="0.8", lw=0.8, zorder=0)
            ax.set_title(f"{readout} head, p = {p:g}")
            similarity_axis(ax, mark)
            ax.label_outer()
        row[0].set_ylabel("empathy coefficient rho")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    return fig


def spectrum(evidence: Evidence, readout: str, confused: float | None, mark: float) -> Figure:
    """rho against similarity of looks: every agent a thin line, self and drifter as anchors, controls grey."""
    fig, ax = plt.subplots(figsize=(7.6, 5.2))
    t = evidence.coefficients
    t = t[(t.readout == readout) & (t.kind == "empathy") & np.isclose(t.exposure, evidence.exposure) & (t.kappa == 0)]
    for family in ("untrained", "pixels"):
        x, y = _levels(t[(t.family == family) & (t.mover == "other")], "rho")
        _band(ax, x, y, COLOURS[family], NAMES[family], STYLES[family])
    own = t[t.family == "recurrent"]
    x, y = _levels(own[own.mover == "other"], "rho")
    ax.plot(x, y.T, color=COLOURS["other"], lw=0.5, alpha=0.3)
    _band(ax, x, y, COLOURS["other"], "world model, other (thin: agents)")
    x, y = _levels(own[own.mover == "drifter"], "rho")
    ax.plot(x, y.mean(0), ":", color=COLOURS["drifter"], lw=2.5, label="world model, drifter")
    ax.plot([0], [own[own.mover == "self"].rho.mean()], "D", color=COLOURS["self"], ms=8, label="world model, self")
    ax.axhline(0, color="0.8", lw=0.8, zorder=0)
    similarity_axis(ax, mark, confused)
    ax.set_ylabel("empathy coefficient rho")
    ax.legend(fontsize=9, loc="upper left")
    return fig


def surfaces(table: pd.DataFrame, readout: str, panels: list[tuple[str, float]], confused: float | None) -> Figure:
    """Mean rho by looks and purpose, one panel per family and exposure; hatched where its self and other are confused.

    table: columns family, exposure, readout, similarity, purpose and rho, over agents.
    """
    columns = min(3, len(panels))
    size = (2.8 * columns + 0.8, 2.9 * -(-len(panels) // columns) + 0.4)
    fig, axes = plt.subplots(-(-len(panels) // columns), columns, figsize=size, sharex=True, sharey=True, squeeze=False)
    own = table[table.readout == readout]
    top = max(1.0, own.rho.abs().max())
    for ax in axes.flat[len(panels) :]:
        ax.axis("off")
    for ax, (family, p) in zip(axes.flat, panels, strict=False):
        some = own[(own.family == family) & np.isclose(own.exposure, p)]
        wide = some.pivot_table(index="purpose", columns="similarity", values="rho")
        x = -np.degrees(np.arccos(np.clip(wide.columns.to_numpy(float), 0, 1)))
        mesh = ax.pcolormesh(
            x, wide.index, wide, cmap="RdBu_r", vmin=-top, vmax=top, shading="nearest", rasterized=True
        )
        if family == "recurrent" and confused is not None:
            edge = -np.degrees(np.arccos(confused)) - np.diff(x).min() / 2
            ax.add_patch(Rectangle((edge, -1), 200, 3, fill=False, hatch="////", ec="0.35", lw=0))
        ax.set(xlim=(x.min() - 4.5, 4.5), ylim=(wide.index.min(), wide.index.max()))
        ax.set_xticks(-np.degrees(np.arccos([0, 0.59, 0.95])), ["0", "0.59", "0.95"])
        ax.set_title(f"{NAMES[family].removesuffix(' (control)')}, p = {p:g}", fontsize=10)
    fig.supylabel("purpose in the scene", fontsize=11)
    fig.supxlabel("similarity of looks, s = cos(angle)", fontsize=11)
    fig.colorbar(mesh, ax=axes, label="rho", shrink=0.7)
    return fig


def conduct(table: pd.DataFrame, readout: str, looks: tuple[float, ...]) -> Figure:
    """rho against purpose for every taste, one panel per look; table: of agents, with columns as in `surfaces`."""
    fig, axes = plt.subplots(1, len(looks), figsize=(3.5 * len(looks), 3.4), sharex=True, squeeze=False)
    colours = dict(zip(("shared", "opposite", "alien"), sns.color_palette("colorblind", 3), strict=True))
    for ax, s in zip(axes[0], looks, strict=True):
        at = table[(table.readout == readout) & np.isclose(table.similarity, s, atol=1e-3)]
        for taste, colour in colours.items():
            wide = at[at.taste == taste].pivot_table(index="seed", columns="purpose", values="rho")
            _band(ax, wide.columns.to_numpy(float), wide.to_numpy(), colour, f"{taste} taste")
        ax.set(title=f"{readout} head, s = {s:.2g}", xlabel="purpose in the scene")
        ax.axhline(0, color="0.8", lw=0.8, zorder=0)
    axes[0, 0].set_ylabel("rho")
    axes[0, -1].legend(fontsize=9)
    return fig


def shape(scores: pd.DataFrame, bar: float) -> Figure:
    """Every agent's lead of the smooth curve and its largest jump; scores: columns of, curve, lead and jump."""
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    curves, names = list(dict.fromkeys(scores.curve)), list(dict.fromkeys(scores["of"]))
    for ax, value, at in zip(axes, ("lead", "jump"), (0.0, bar), strict=True):
        for (curve, name), own in scores.groupby(["curve", "of"], sort=False):
            spread = 0.2 * (np.arange(len(own)) * 0.618 % 1 - 0.5)  # golden section: even, and the same every time
            y = -curves.index(curve) - 0.3 * (names.index(name) - (len(names) - 1) / 2) + spread
            label = NAMES[name] if curve == curves[0] else None
            ax.plot(own[value], y, "o", ms=3.5, alpha=0.7, color=COLOURS[name], label=label)
        ax.axvline(at, color="0.6", lw=0.9, ls="--", zorder=0)
    axes[0].set_yticks(-np.arange(len(curves)), curves)
    axes[0].set_xlabel("lead of the smooth curve (above 0: smooth)")
    axes[1].set_xlabel("largest jump, as a share of the range")
    axes[1].legend(fontsize=9, loc="lower right")
    return fig


PATHS = {"whole": "the whole code", "axis": "the self-other axis", "random": "random axes, as far"}


def moved(evidence: Evidence, readout: str, seeds: list[int], places: pd.DataFrame, reach: np.ndarray) -> Figure:
    """Left: rho while the other's code goes to the self's; right: rho against its place on the self-other axis.

    places: columns similarity, place and rho, means over agents, as looks alone bring it about; reach [A]: the place
    that a patch by each alpha reaches.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.4, 4.2), sharey=True)
    colours = {"whole": COLOURS["self"], "axis": COLOURS["other"], "random": COLOURS["pixels"]}
    for path, name in PATHS.items():
        alpha, y = evidence.moved(readout, seeds, path)
        _band(left, alpha, y, colours[path], name)
        if path == "axis":
            _band(right, reach, y, colours[path], f"patched, s = {evidence.s:g}")
    left.set(xlabel="share alpha of the way to the self", ylabel=f"rho, {readout} head")
    left.legend(fontsize=9, loc="upper left")
    right.plot(places.place, places.rho, "o--", color="0.35", ms=5, label="by looks alone")
    for row in places.iloc[::2].itertuples():
        note = {"textcoords": "offset points", "xytext": (5, -9), "fontsize": 8, "color": "0.35"}
        right.annotate(f"s = {row.similarity:.2g}", (row.place, row.rho), **note)
    right.set(xlabel="place on the axis (0: orthogonal other, 1: self beside it)")
    right.legend(fontsize=9, loc="upper left")
    for ax in (left, right):
        ax.axhline(0, color="0.8", lw=0.8, zorder=0)
    return fig


ERASED = {"axis": "intact", "erased": "axis erased", "centred": "axis at its mean", "erased at random": "random ones"}


def erasure(table: pd.DataFrame, readout: str) -> Figure:
    """rho against looks with codes intact and with the axis, or random ones, erased, for the other and the self.

    table: interventions of agents, with rho; intact codes are those of path `axis` at alpha 0.
    """
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.9), sharey=True)
    for ax, mover in zip(axes, ("other", "self"), strict=True):
        own = table[(table.readout == readout) & (table.mover == mover)]
        for path, line, colour in zip(
            ERASED, ("-", "--", "-.", ":"), (COLOURS[mover], "black", "0.3", "0.6"), strict=True
        ):
            at = own[(own.path == path) & (own.alpha == (0 if path == "axis" else 1))]
            x, y = _levels(at, "rho")
            _band(ax, x, y, colour, ERASED[path], line)
        ax.axhline(0, color="0.8", lw=0.8, zorder=0)
        ax.set_title(f"{mover} moves")
        similarity_axis(ax)
    axes[0].set_ylabel(f"rho, {readout} head")
    axes[0].legend(fontsize=9, loc="upper left")
    return fig


def code_similarity(evidence: Evidence, measures: dict[str, str], mark: float) -> Figure:
    """Measures of the codes against similarity, one panel each, world model and controls; measures: name -> title."""
    fig, axes = plt.subplots(1, len(measures), figsize=(3.7 * len(measures), 3.9), sharex=True, squeeze=False)
    for ax, (name, title) in zip(axes[0], measures.items(), strict=True):
        t = evidence.measures[(evidence.measures.measure == name) & (evidence.measures.mover == "other")]
        for family in ("untrained", "pixels", "recurrent"):
            x, y = _levels(t[t.family == family], "value")
            _band(ax, x, y, COLOURS[family], NAMES[family], STYLES[family])
        ax.axhline(0, color="0.8", lw=0.8, zorder=0)
        ax.set_title(title)
        similarity_axis(ax, mark)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    return fig


def recovery(evidence: Evidence, seeds: dict[str, list[int]], kinds: tuple[str, ...]) -> Figure:
    """Recovered against planted coupling: rows are heads, columns kinds; one dot an agent, a line per similarity."""
    fig, axes = plt.subplots(2, len(kinds), figsize=(3.3 * len(kinds), 6.4), sharex=True, sharey=True, squeeze=False)
    for row, readout in zip(axes, ("reward", "value"), strict=True):
        for ax, kind in zip(row, kinds, strict=True):
            ax.plot([-1.1, 1.1], [-1.1, 1.1], color="0.8", lw=1, zorder=0)
            for s, shade, shift in zip(calibration.LOOKS, ("#8a3b12", "#f0a47d"), (-0.03, 0.03), strict=True):
                x = evidence.recovered(readout, seeds[readout], s, kind)
                ax.scatter(x[..., 0] + shift, x[..., 1], s=9, color=shade, alpha=0.6, label=f"agents, s = {s:g}")
                mean = x.mean(0)
                ax.plot(mean[:, 0] + shift, mean[:, 1], "-", color=shade, lw=1.2)
            ax.set_title(f"{readout} head, {kind}")
        row[0].set_ylabel("recovered rho")
    for ax in axes[-1]:
        ax.set_xlabel("planted coupling kappa")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
    return fig


def truth(predicted: np.ndarray, true: np.ndarray, phases: tuple[str, ...]) -> Figure:
    """Predicted against true value of self scenes [scenes, phases], one panel a phase."""
    fig, axes = plt.subplots(1, len(phases), figsize=(3.2 * len(phases), 3.4), sharex=True, sharey=True)
    ends = [min(predicted.min(), true.min()), max(predicted.max(), true.max())]
    for ax, phase, x, y in zip(axes, phases, true.T, predicted.T, strict=True):
        ax.plot(ends, ends, color="0.8", lw=1, zorder=0)
        ax.scatter(x, y, s=4, color=COLOURS["self"], alpha=0.25, lw=0, rasterized=True)
        ax.set(title=f"{phase}, r = {np.corrcoef(x, y)[0, 1]:.2f}", xlabel="true value")
    axes[0].set_ylabel("predicted value")
    return fig


def who_moved(identity: pd.DataFrame, parts: dict[str, pd.DataFrame]) -> Figure:
    """Left: a reliability diagram of the probe; right: rho of each head, split into confusion and remainder.

    identity: from `codes.reliability`; parts: head -> table of `calibration.confusion`.
    """
    fig, axes = plt.subplots(1, 1 + len(parts), figsize=(3.6 * (1 + len(parts)), 4.2))
    ax, own = axes[0], identity[identity.mover == "other"]
    ax.plot([0, 1], [0, 1], color="0.8", lw=1, zorder=0)
    for colour, (name, some) in zip(
        (COLOURS["self"], COLOURS["other"]),
        (("identical looks", own[own.similarity == 1]), ("all other looks", own[own.similarity < 1])),
        strict=True,
    ):
        weighted = some.assign(p=some.p_self * some.n_scenes, share=some.share_self * some.n_scenes)
        at = weighted.groupby("bin")[["p", "share", "n_scenes"]].sum()
        size = 12 + 160 * at.n_scenes / at.n_scenes.sum()
        ax.scatter(at.p / at.n_scenes, at.share / at.n_scenes, s=size, color=colour, alpha=0.8, label=name)
    ax.set(title="who moved", xlabel="predicted probability of self", ylabel="how often it was the self")
    ax.legend(fontsize=9, loc="upper left")
    for ax, (readout, table) in zip(axes[1:], parts.items(), strict=True):
        for value, colour, line in (("rho", COLOURS["other"], "-"), ("confused", COLOURS["self"], "--")):
            x, y = _levels(table, value)
            _band(ax, x, y, colour, {"rho": "rho", "confused": "what confusion explains"}[value], line)
        ax.axhline(0, color="0.8", lw=0.8, zorder=0)
        ax.set_title(f"{readout} head, p = 0")
        similarity_axis(ax)
    axes[1].legend(fontsize=9, loc="upper left")
    return fig


def detectable(tables: dict[str, pd.DataFrame]) -> Figure:
    """Smallest detectable rho against the number of agents, one line per number of scenes, one panel a head."""
    fig, axes = plt.subplots(1, len(tables), figsize=(4.2 * len(tables), 3.8), sharey=True)
    for ax, (readout, table) in zip(axes, tables.items(), strict=True):
        counts = sorted(table.scenes.unique())
        for m, colour in zip(counts, sns.color_palette("flare", len(counts)), strict=True):
            own = table[table.scenes == m]
            ax.plot(own.agents, own.smallest, "-o", ms=3, color=colour, label=f"{m} scenes")
        known = table.smallest.notna().any()  # one agent has no variance
        ax.set(xscale="log", yscale="log" if known else "linear", title=f"{readout} head", xlabel="agents")
        ax.set_xticks(sorted(table.agents.unique()), [str(n) for n in sorted(table.agents.unique())])
        ax.minorticks_off()
        ax.grid(color="0.92")
    axes[0].set_ylabel("smallest detectable rho")
    axes[-1].legend(fontsize=9)
    return fig


def forest(rows: pd.DataFrame, bar: float | None = None, band: float | None = None) -> Figure:
    """Estimates with intervals; rows: columns label, estimate, low, high and colour; a dashed bar, a band about 0."""
    fig, ax = plt.subplots(figsize=(8.4, 0.29 * len(rows) + 0.9))
    y = np.arange(len(rows))[::-1]
    ax.hlines(y, rows.low, rows.high, color=rows.colour, lw=2)
    ax.scatter(rows.estimate, y, color=rows.colour, zorder=3)
    ax.axvline(0, color="0.7", lw=0.8)
    if bar is not None:
        ax.axvline(bar, color="0.7", lw=0.8, ls="--")
    if band is not None:
        ax.axvspan(-band, band, color="0.93", zorder=0)
    ax.set_yticks(y, rows.label)
    ax.set_xlabel("estimate over agents, 95% interval")
    return fig


def _training_axis(ax: Axes, last: float, label: str = "updates") -> None:
    """A logarithmic axis that begins with the untrained agent at 0."""
    ax.set_xscale("symlog", linthresh=10, linscale=0.3)
    ax.set(xlim=(0, last * 1.05), xlabel=label)
    ticks = [0, *(10**k for k in range(2 if last > 5000 else 1, int(np.log10(last)) + 1))]
    ax.set_xticks(ticks, ["0", *(f"{t:,}" if t < 10_000 else f"$10^{{{round(np.log10(t))}}}$" for t in ticks[1:])])
    ax.xaxis.set_minor_locator(plt.matplotlib.ticker.NullLocator())


def learning(table: pd.DataFrame, names: dict[str, str]) -> Figure:
    """What agents have learnt by update, a panel a measure; table: seed, update, exposure or -1, measure, value."""
    fig, axes = plt.subplots(1, len(names), figsize=(3.1 * len(names), 3.2))
    for ax, (measure, title) in zip(np.atleast_1d(axes), names.items(), strict=True):
        own = table[table.measure == measure]
        for (p, some), colour in zip(own.groupby("exposure"), (COLOURS["other"], COLOURS["taught"]), strict=False):
            wide = some.pivot_table(index="seed", columns="update", values="value")
            _band(ax, wide.columns.to_numpy(), wide.to_numpy(), colour, f"p = {p:g}" if p >= 0 else None)
        ax.set_title(title)
        _training_axis(ax, own["update"].max())
        if len(own.exposure.unique()) > 1:
            ax.legend(fontsize=9)
    return fig


def kinds(evidence: Evidence, seeds: list[int], exposures: tuple[float, ...]) -> Figure:
    """Coefficients of every kind while everything is learnt: rows are exposures, columns kinds, a line per mover."""
    names = development.KINDS
    fig, axes = plt.subplots(
        len(exposures), len(names), figsize=(2.5 * len(names), 2.9 * len(exposures) + 0.5), sharex=True, sharey=True
    )
    for row, p in zip(np.atleast_2d(axes), exposures, strict=True):
        for ax, (name, (readout, kind)) in zip(row, names.items(), strict=True):
            for mover, line in (("self", "-"), ("other", "-"), ("drifter", ":")):
                x, y = development.over_training(evidence, readout, kind, p, seeds, mover)
                _band(ax, x, y, COLOURS[mover], mover, line)
            ax.axhline(0, color="0.8", lw=0.8, zorder=0)
            _training_axis(ax, x[-1])
            ax.set_title(f"{name}, p = {p:g}", fontsize=10)
            ax.label_outer()
        row[0].set_ylabel("coefficient")
    np.atleast_2d(axes)[0, 0].legend(fontsize=9)
    return fig


def stepper(frames: list[tuple[str, Figure]], alt: str, name: str) -> str:
    """Figures behind one slider, as HTML that stands alone in the page; frames: (label, figure), which are closed."""
    images = []
    for i, (label, fig) in enumerate(frames):
        buffer = io.BytesIO()
        fig.savefig(buffer, format="png", dpi=100, bbox_inches=None)
        plt.close(fig)
        shown = "block" if i == len(frames) - 1 else "none"
        data = base64.b64encode(buffer.getvalue()).decode()
        images.append(
            f'<img alt="{alt} {label}" data-label="{label}" style="display:{shown};max-width:100%;margin:0" '
            f'src="data:image/png;base64,{data}">'
        )
    last, label = len(frames) - 1, frames[-1][0]
    script = (
        "var f=this.closest('figure'),m=f.querySelectorAll('img'),i=+this.value;"
        "m.forEach(function(x,k){x.style.display=k===i?'block':'none'});"
        "f.querySelector('output').textContent=m[i].dataset.label;"
    )
    return (
        f'<figure id="{name}" style="margin:0"><div>{"".join(images)}</div>'
        f'<label style="display:flex;gap:.8em;align-items:center">step '
        f'<input type="range" min="0" max="{last}" value="{last}" style="flex:1" aria-label="step through training" '
        f'oninput="{script}"><output style="min-width:12em">{label}</output></label></figure>'
    )


def step(curves: dict[str, tuple[np.ndarray, np.ndarray, str]], own: float, title: str) -> Figure:
    """One step of training: curves, name -> (levels s, coefficients [n, levels], colour), and the self's own."""
    fig, ax = plt.subplots(figsize=(6.4, 3.6))
    for label, (s, y, colour) in curves.items():
        x = -np.degrees(np.arccos(np.clip(s, 0, 1)))
        ax.plot(x, y.T, color=colour, lw=0.4, alpha=0.3)
        ax.plot(x, y.mean(0), "-o", ms=3, color=colour, label=label)
    ax.plot([0], [own], "D", color=COLOURS["self"], ms=7, label="self")
    ax.axhline(0, color="0.8", lw=0.8, zorder=0)
    similarity_axis(ax)
    ax.set(ylim=(-0.35, 1.25), ylabel="coefficient", title=title)
    ax.legend(fontsize=9, loc="upper left")
    return fig


def multitrait(r: np.ndarray, names: list[str], titles: tuple[str, ...]) -> Figure:
    """Multitrait-multimethod matrices [2 kinds, 2 kinds] side by side: same kind in the other half framed."""
    fig, axes = plt.subplots(1, len(r), figsize=(5.2 * len(r), 5.0), squeeze=False)
    labels = [f"{name} {half}" for half in ("A", "B") for name in names]
    for ax, matrix, title in zip(axes[0], r, titles, strict=True):
        hidden = np.triu(np.ones_like(matrix, dtype=bool))
        sns.heatmap(
            matrix, mask=hidden, vmin=-1, vmax=1, cmap="RdBu_r", annot=True, fmt=".2f", annot_kws={"size": 7},
            cbar=False, square=True, xticklabels=labels, yticklabels=labels, ax=ax,
        )  # fmt: skip
        for i in range(len(names)):
            ax.add_patch(Rectangle((i, i + len(names)), 1, 1, fill=False, ec="black", lw=1.6))
        ax.tick_params(labelsize=8)
        ax.set_title(title, fontsize=10)
    return fig


def fingerprint(agents: dict[str, pd.DataFrame]) -> Figure:
    """Agents side by side: rows are kinds, columns movers from the self to the unlike; title -> table of rho."""
    fig, axes = plt.subplots(1, len(agents), figsize=(4.6 * len(agents), 2.9), sharey=True, squeeze=False)
    for ax, (title, table) in zip(axes[0], agents.items(), strict=True):
        sns.heatmap(
            table, vmin=-1.2, vmax=1.2, cmap="RdBu_r", annot=True, fmt=".2f", annot_kws={"size": 8}, cbar=False, ax=ax
        )
        ax.axvline(1, color="white", lw=4)
        ax.set(title=title, xlabel="", ylabel="")
        ax.tick_params(labelsize=8, rotation=0)
    return fig


def precision(tables: dict[str, pd.DataFrame], bar: float) -> Figure:
    """Split-half reliability (left) and standard error against the spread of agents (right), by kind and update."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.4, 3.8))
    for (name, t), colour in zip(tables.items(), sns.color_palette("colorblind", len(tables)), strict=True):
        left.fill_between(t["update"], t.low, t.high, color=colour, alpha=0.15, lw=0)
        left.plot(t["update"], t.estimate, "-o", ms=3, color=colour, label=name)
        right.plot(t["update"], t.error, "-o", ms=3, color=colour)
        right.plot(t["update"], t.spread, ":", color=colour)
    left.axhline(bar, color="0.6", ls="--", lw=0.9)
    left.set(ylabel="split-half reliability", ylim=(-0.6, 1.05))
    right.set(ylabel="coefficient", yscale="log")
    right.plot([], [], "-", color="0.3", label="error of measurement")
    right.plot([], [], ":", color="0.3", label="spread of agents")
    for ax in (left, right):
        _training_axis(ax, t["update"].max())
        ax.legend(fontsize=9)
    return fig


def foretold(panels: dict[str, np.ndarray]) -> Figure:
    """Final against early coefficients of agents, x [n, 2], one panel each, with the line through all of them."""
    fig, axes = plt.subplots(1, len(panels), figsize=(3.4 * len(panels), 3.2), squeeze=False)
    for ax, (title, x) in zip(axes[0], panels.items(), strict=True):
        sns.regplot(x=x[:, 0], y=x[:, 1], ci=None, color=COLOURS["other"], scatter_kws={"s": 16}, ax=ax)
        ax.set(title=title, xlabel="after a fifth of the training")
    axes[0, 0].set_ylabel("at the end")
    return fig


def exposure_colours(exposures: tuple[float, ...]) -> dict[float, tuple]:
    """One colour an exposure, grey for none."""
    some = [p for p in exposures if p > 0]
    return {0.0: (0.45, 0.45, 0.45)} | dict(zip(some, sns.color_palette("flare", len(some)), strict=True))


def extinction(
    evidence: Evidence,
    seeds: list[int],
    looks: tuple[float, ...],
    exposures: tuple[float, ...],
    readout: str = "reward",
) -> Figure:
    """rho after labels begin: above against updates, below against labelled eventful episodes; columns are looks."""
    fig, axes = plt.subplots(2, len(looks), figsize=(3.6 * len(looks), 6.2), sharey="col", squeeze=False)
    colours = exposure_colours(exposures)
    for column, s in zip(axes.T, looks, strict=True):
        for p in exposures:
            x, y = development.after(evidence, seeds, p, s, readout)
            _band(column[0], x, y, colours[p], f"p = {p:g}")
            if p > 0:
                told, _ = development.labelled(evidence, p, seeds, readout)
                _band(column[1], told, y, colours[p], None)
                column[1].set_xlim(right=max(told[-1], column[1].get_xlim()[1]))
        for ax, label in zip(column, ("updates", "labelled eventful episodes"), strict=True):
            ax.axhline(0, color="0.8", lw=0.8, zorder=0)
            ax.axhspan(-0.05, 0.05, color="0.95", zorder=0)
            ax.set_title(f"s = {s:g}")
            _training_axis(ax, ax.get_lines()[0].get_xdata()[-1] if label == "updates" else told[-1], label)
    for ax in axes[:, 0]:
        ax.set_ylabel(f"rho, {readout} head")
    axes[0, -1].legend(fontsize=8)
    return fig


def half_lives(table: pd.DataFrame) -> Figure:
    """Half-lives against p by looks; table: exposure, similarity, unit, estimate, low, high."""
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.9))
    for ax, unit in zip(axes, ("updates", "labelled eventful episodes"), strict=True):
        own = table[table.unit == unit]
        looks = sorted(own.similarity.unique())
        for s, colour in zip(looks, sns.color_palette("crest", len(looks)), strict=True):
            some = own[(own.similarity == s) & np.isfinite(own.estimate)]
            high = np.where(np.isfinite(some.high), some.high, some.estimate * 3)
            ax.vlines(some.exposure, some.low, high, color=colour, lw=1.5)
            ax.plot(some.exposure, some.estimate, "-o", ms=4, color=colour, label=f"s = {s:g}")
        ax.set(xscale="log", yscale="log", xlabel="exposure p", ylabel=f"half-life, {unit}")
        ax.set_xticks(sorted(own.exposure.unique()), [f"{p:g}" for p in sorted(own.exposure.unique())])
        ax.minorticks_off()
    axes[0].legend(fontsize=9)
    return fig


def remains(evidence: Evidence, seeds: list[int], exposures: tuple[float, ...]) -> Figure:
    """rho against looks before any label and at the end of each exposure."""
    fig, ax = plt.subplots(figsize=(7.2, 4.4))
    colours = exposure_colours(exposures)
    levels = sorted(evidence.extinction[evidence.extinction.mover == "other"].similarity.unique())
    x = -np.degrees(np.arccos(np.clip(levels, 0, 1)))
    start = np.stack([development.after(evidence, seeds, 1.0, s)[1][:, 0] for s in levels], 1)
    _band(ax, x, start, COLOURS["other"], "before", "--")
    for p in exposures:
        end = np.stack([development.after(evidence, seeds, p, s)[1][:, -1] for s in levels], 1)
        _band(ax, x, end, colours[p], f"p = {p:g}, at the end")
    ax.axhline(0, color="0.8", lw=0.8, zorder=0)
    ax.axhspan(-0.05, 0.05, color="0.95", zorder=0)
    similarity_axis(ax, evidence.s)
    ax.set_ylabel("rho, reward head")
    ax.legend(fontsize=9, loc="upper left")
    return fig


def withheld(
    panels: dict[str, dict[str, tuple[np.ndarray, np.ndarray, str, str]]], shaded: dict[str, tuple[float, float]]
) -> Figure:
    """rho against looks after as many updates, by who had labels: panel -> name -> (s, rho [n, levels], colour, line);
    shaded: looks that had none."""
    fig, axes = plt.subplots(1, len(panels), figsize=(3.3 * len(panels), 3.7), sharey=True, squeeze=False)
    for ax, (title, curves) in zip(axes[0], panels.items(), strict=True):
        if title in shaded:
            ax.axvspan(*(-np.degrees(np.arccos(s)) for s in shaded[title]), color="#f3e3c3", zorder=0)
        for label, (s, y, colour, line) in curves.items():
            _band(ax, -np.degrees(np.arccos(np.clip(s, 0, 1))), y, colour, label, line)
        ax.axhline(0, color="0.8", lw=0.8, zorder=0)
        similarity_axis(ax)
        ax.set_xticks(-np.degrees(np.arccos([0, 0.59, 0.95])), ["0", ".59", ".95"])
        ax.set(title=title, xlabel="similarity of looks")
        ax.legend(fontsize=8, loc="upper left")
    axes[0, 0].set_ylabel("rho, reward head")
    return fig


def paused(evidence: Evidence, seeds: list[int], looks: tuple[float, ...]) -> Figure:
    """rho while labels are given, and after they stop."""
    fig, axes = plt.subplots(1, len(looks), figsize=(4.2 * len(looks), 3.5), squeeze=False)
    for ax, s in zip(axes[0], looks, strict=True):
        x, y = development.after(evidence, seeds, 1.0, s, until=0.5)
        _band(ax, x, y, COLOURS["other"], "labels of everything, then none")
        x0, y0 = development.after(evidence, seeds, 0.0, s)
        _band(ax, x0[x0 <= x[-1]], y0[:, x0 <= x[-1]], exposure_colours((0.0,))[0.0], "never a label")
        ax.axvspan(x[-1] / 2, x[-1], color="0.93", zorder=0)
        ax.axhline(0, color="0.8", lw=0.8, zorder=0)
        ax.set(title=f"s = {s:g}", xlabel="updates", ylabel="rho, reward head")
    axes[0, 0].legend(fontsize=9)
    return fig


AXES = {
    "model-width": "world model's width",
    "latent": "width of the code",
    "head-width": "reward model's width",
    "head-depth": "reward model's layers",
    "data": "episodes",
    "training": "updates of the world model",
}
EXPOSED = {0.0: COLOURS["other"], 0.1: COLOURS["taught"]}


def _panels(count: int, columns: int = 2, **how) -> tuple[Figure, np.ndarray]:
    """So many panels, two a row, and the flat array of them."""
    rows = -(-count // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(3.7 * columns, 2.9 * rows + 0.4), squeeze=False, **how)
    return fig, axes.flat


def _capacity(ax: Axes, levels: np.ndarray, axis: str) -> None:
    """A logarithmic axis of capacity with its own levels as ticks."""
    ax.set_xscale("log")
    shown = levels if len(levels) < 7 else levels[:: 2 if len(levels) < 12 else 3]
    ax.set_xticks(shown, [f"{n:g}" if n < 10000 else f"{n / 1000:.0f}k" for n in shown])
    ax.minorticks_off()
    ax.set_xlabel(AXES[axis])


def learning_curves(evidence: Evidence, axes: tuple[str, ...], exposure: float = 0.0) -> Figure:
    """Own-reward R2 while reward models learn, one panel an axis of capacity, a shade a level; means over agents."""
    agents, updates, found = scaling.over_training(evidence)
    table = agents.to_frame(index=False).assign(row=np.arange(len(agents)))
    fig, panels = _panels(len(axes), sharey=True)
    for ax, axis in zip(panels, axes, strict=True):
        rows = scaling.selected(table, axis, exposure)
        levels = np.sort(rows["level"].unique())
        for level, colour in zip(levels, sns.color_palette("viridis_r", len(levels)), strict=True):
            r2 = found["r2"][rows[rows["level"] == level].row]
            ax.plot(updates[1:], r2.mean(0)[1:], color=colour, label=f"{level:,}")
        ax.axhline(scaling.COMPETENT, color="0.5", ls="--", lw=0.9)
        ax.set(xscale="log", ylim=(-0.05, 1.02), xlabel="updates", title=AXES[axis])
        ax.legend(fontsize=7, title_fontsize=8, handlelength=1.2, loc="lower right")
    fig.supylabel("own-reward R2, test episodes", fontsize=11)
    return fig


def capacity(evidence: Evidence, table: pd.DataFrame, axes: tuple[str, ...]) -> Figure:
    """rho against capacity, a row an axis: where own R2 = .9, and at the end; hollow where a level does not count.

    table: from `scaling.outcomes`.  Lines are means over agents with 95% intervals, both exposures; pixels grey.
    """
    fig, panels = _panels(2 * len(axes), sharey="col")
    for row, axis in zip(np.reshape(list(panels), (-1, 2)), axes, strict=True):
        shown = [(scaling.SWEPT, p, colour, "world model", "-") for p, colour in EXPOSED.items()]
        if axis not in ("model-width", "latent") and len(scaling.selected(table, axis, 0.0, "pixels")):
            shown.append(("pixels", 0.0, COLOURS["pixels"], "pixels", "--"))
        for family, p, colour, name, line in shown:
            found = scaling.along(evidence, table, axis, p, family)
            for ax, read in zip(row, ("matched", "final"), strict=True):
                _dots(ax, found.levels, getattr(found, read), found.counts, colour, f"{name}, p = {p:g}", line)
                _capacity(ax, found.levels, axis)
        for ax in row:
            ax.axhline(0, color="0.8", lw=0.8, zorder=0)
    panels[0].set_title("where own R2 = .9")
    panels[1].set_title("at the end of training")
    fig.supylabel("rho", fontsize=11)
    fig.legend(*panels[-1].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    return fig


def _dots(
    ax: Axes, levels: np.ndarray, y: np.ndarray, counts: np.ndarray, colour: str, label: str, line: str = "-"
) -> None:
    """Means over agents with intervals; levels that count are joined, the others hollow."""
    found = [stats.interval(column[np.isfinite(column)], resamples=999) for column in y.T]
    mean, low, high = (np.array([getattr(i, name) for i in found]) for name in ("estimate", "low", "high"))
    ax.fill_between(levels[counts], low[counts], high[counts], color=colour, alpha=0.18, lw=0)
    ax.plot(levels[counts], mean[counts], line, color=colour, marker="o", ms=4, label=label)
    there = ~counts & np.isfinite(mean)
    error = np.stack([mean - low, high - mean])[:, there]
    ax.errorbar(levels[there], mean[there], error, fmt="o", ms=4, mfc="white", color=colour, lw=0.8)


def paths(evidence: Evidence, axes: tuple[str, ...], exposure: float = 0.0) -> Figure:
    """rho against own R2 on the way through training, one panel an axis, a shade a level; medians over agents."""
    agents, _, found = scaling.over_training(evidence)
    table = agents.to_frame(index=False).assign(row=np.arange(len(agents)))
    grid, (fig, panels) = np.linspace(0.02, 0.995, 60), _panels(len(axes), sharey=True)
    for ax, axis in zip(panels, axes, strict=True):
        rows = scaling.selected(table, axis, exposure)
        levels = np.sort(rows["level"].unique())
        for level, colour in zip(levels, sns.color_palette("viridis_r", len(levels)), strict=True):
            own = rows[rows["level"] == level].row
            at = [scaling.interpolated(found["rho"][own], stats.crossing(found["r2"][own], bar)) for bar in grid]
            most = np.array([np.isfinite(x).mean() > 0.5 for x in at])
            middle = np.array([np.nanmedian(x) if some else np.nan for x, some in zip(at, most, strict=True)])
            ax.plot(grid, middle, color=colour, label=f"{level:,}")
        ax.axvline(scaling.COMPETENT, color="0.5", ls="--", lw=0.9)
        ax.axhline(0, color="0.8", lw=0.8, zorder=0)
        ax.set(xlim=(0, 1), xlabel="own-reward R2", title=AXES[axis])
        ax.legend(fontsize=7, handlelength=1.2, loc="upper left")
    fig.supylabel("rho", fontsize=11)
    return fig


def extrapolation(
    evidence: Evidence, table: pd.DataFrame, axes: tuple[str, ...], times: dict[str, float], exposure: float = 0.0
) -> Figure:
    """Matched rho at the levels that count, and what lines and parabolas say up to so many `times` the largest."""
    fig, panels = _panels(len(axes), sharey=True)
    for ax, axis in zip(panels, axes, strict=True):
        found = scaling.along(evidence, table, axis, exposure)
        levels, y = found.counted()
        if len(levels) < scaling.LEVELS:
            continue
        x = np.geomspace(levels[0], levels[-1] * times[axis], 25)
        for degree, name, colour in ((2, "parabola", COLOURS["pixels"]), (1, "line", COLOURS["other"])):
            said = scaling.extrapolated(levels, y, x, degree)
            ax.fill_between(x, [i.low for i in said], [i.high for i in said], color=colour, alpha=0.2, lw=0)
            ax.plot(x, [i.estimate for i in said], color=colour, lw=1.2, label=name)
        ax.plot(levels, np.nanmean(y, 0), "o", ms=4, color=COLOURS["other"], label="agents' mean")
        ax.axvline(levels[-1] * times[axis], color="0.7", lw=0.8, ls=":")
        ax.axhline(0, color="0.8", lw=0.8, zorder=0)
        ax.set(xscale="log", ylim=(-1.05, 1.3), xlabel=AXES[axis])
    fig.supylabel("rho where own R2 = .9", fontsize=11)
    panels[-1].legend(fontsize=8, loc="lower left")
    return fig


def quality(table: pd.DataFrame, losses: pd.DataFrame, exposure: float = 0.0) -> Figure:
    """Matched rho against what the world model still gets wrong, along three ways of getting less of it wrong.

    table: from `scaling.outcomes`; losses: from `study.losses`.  Means and intervals over agents, a dot a level.
    """
    known = scaling.named(losses)
    keys = [c for c in losses if c in ("seed", "family", *scaling.SIZES.values()) and not c.startswith("head")]
    fig, ax = plt.subplots(figsize=(6.6, 4.3))
    ways = {"training": ("0.25", "s--"), "model-width": (COLOURS["other"], "o-"), "latent": (COLOURS["self"], "^-")}
    for axis, (colour, mark) in ways.items():
        rows = scaling.selected(table, axis, exposure).merge(known[[*keys, "loss"]], how="left")
        wide = rows.groupby("level").filter(lambda t: t.matched.notna().mean() >= metrics.PASSING).groupby("level")
        x = wide.loss.mean()
        found = [stats.interval(own.matched.dropna().to_numpy(), resamples=999) for _, own in wide]
        y = np.array([i.estimate for i in found])
        error = np.abs(np.array([(i.low, i.high) for i in found]).T - y)
        ax.errorbar(x, y, error, fmt=mark, color=colour, ms=5, lw=1.2, elinewidth=0.8, label=AXES[axis])
        crossing = scaling.base(table)[scaling.SIZES[axis]] if axis != "training" else None
        for level, at, up in zip(x.index, x, y, strict=True):
            if level == crossing:  # all three ways cross there
                continue
            ax.annotate(f"{level:,}", (at, up), textcoords="offset points", xytext=(5, 5), fontsize=7, color=colour)
    ax.axhline(0, color="0.8", lw=0.8, zorder=0)
    ax.set(
        xscale="log",
        xlabel="held-out loss of the world model (less of it to the right)",
        ylabel="rho where own R2 = .9",
    )
    ticks = [1, 1.5, 2, 3, 4, 6]
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.minorticks_off()
    ax.invert_xaxis()
    ax.legend(fontsize=9)
    return fig


def families(rows: pd.DataFrame, bars: dict[str, float]) -> Figure:
    """Coefficient and excess family by family: rows with panel, family, mode, estimate, low, high and counts.

    Filled where contacts are observed, hollow where they are imagined, pale where the family does not count.
    bars: panel -> the bar of the rule.
    """
    names = list(dict.fromkeys(rows.family))
    fig, axes = plt.subplots(
        1, len(bars), figsize=(4.6 * len(bars), 0.5 * len(names) + 1.3), sharey=True, squeeze=False
    )
    for ax, (panel, bar) in zip(axes[0], bars.items(), strict=True):
        for row in rows[rows.panel == panel].itertuples():
            observed = row.mode == "observed"
            y = -names.index(row.family) + (0.13 if observed else -0.13)
            colour = (
                COLOURS["other" if observed else "taught"] if row.family in generality.FAMILIES else COLOURS["pixels"]
            )
            alpha = 1.0 if row.counts else 0.35
            ax.hlines(y, row.low, row.high, color=colour, lw=2, alpha=alpha)
            ax.plot(row.estimate, y, "o", ms=6, color=colour, mfc=colour if observed else "white", alpha=alpha)
        ax.axvline(0, color="0.7", lw=0.8)
        ax.axvline(bar, color="0.7", lw=0.8, ls="--")
        ax.set(xlabel=panel)
        ax.set_yticks(-np.arange(len(names)), names)
    axes[0, 0].plot([], [], "o", color=COLOURS["other"], label="contact observed")
    axes[0, 0].plot([], [], "o", mfc="white", color=COLOURS["taught"], label="contact imagined")
    fig.legend(loc="outside lower center", ncols=2, fontsize=9)
    return fig


def views(rows: pd.DataFrame) -> Figure:
    """Coefficients by view of the world, a line a family: rows of `generality.views`."""
    fig, ax = plt.subplots(figsize=(6.6, 3.9))
    names = list(dict.fromkeys(rows.family))
    colours = dict(zip(names, sns.color_palette("crest", len(names)), strict=True))
    for i, (family, own) in enumerate(rows.groupby("family", sort=False)):
        x = np.arange(len(own)) + 0.06 * (i - (len(names) - 1) / 2)
        apart = np.abs(own[["low", "high"]].to_numpy().T - own.estimate.to_numpy())
        ax.errorbar(x, own.estimate, apart, fmt="o-", ms=5, color=colours[family], label=family)
    ax.axhline(0, color="0.8", lw=0.8, zorder=0)
    ax.set_xticks(np.arange(rows.view.nunique()), list(dict.fromkeys(rows.view)))
    ax.set(xlabel="view of the world", ylabel="rho")
    ax.legend(fontsize=9)
    return fig


def spectra(evidence: Evidence, readout: str, names: list[str], mark: float) -> Figure:
    """rho against similarity, a panel a family with the pixel control dashed: other in colour, drifter green."""
    fig, panels = _panels(len(names), 3, sharex=True, sharey=True)
    t = evidence.coefficients
    t = t[(t.readout == readout) & (t.kind == "empathy") & np.isclose(t.exposure, evidence.exposure) & (t.kappa == 0)]
    for i, (ax, family) in enumerate(zip(panels, names, strict=False)):
        own = t[t.family == family]
        for table, colour, label, line in (
            (t[(t.family == "pixels") & (t.mover == "other")], COLOURS["pixels"], "other, heads on pixels", "--"),
            (own[own.mover == "drifter"], COLOURS["drifter"], "drifter", ":"),
            (own[own.mover == "other"], COLOURS["other"], "other", "-"),
        ):
            x, y = _levels(table, "rho")
            _band(ax, x, y, colour, label, line)
        ax.axhline(0, color="0.8", lw=0.8, zorder=0)
        ax.set_title(family)
        similarity_axis(ax, mark)
        ax.set(xlabel="similarity of looks" if i >= len(names) - 3 else "")
        ax.set_xticks(-np.degrees(np.arccos([0, 0.59, 0.95])), ["0", ".59", ".95"])
    for ax in list(panels)[len(names) :]:
        ax.set_axis_off()
    fig.supylabel(f"rho, {readout} head", fontsize=11)
    fig.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    return fig


def outside(table: pd.DataFrame, evidence: Evidence, panels: dict[str, tuple[str, float]], mark: float) -> Figure:
    """rho against similarity of agents without a world model: other in colour, drifter green, ours dashed in grey.

    table: as `outsiders.measure` has it; panels: title -> family, and the exposure of our own value functions there.
    """
    fig, axes = _panels(len(panels), sharex=True, sharey=True)
    t, ours = table[table.kind == "empathy"], evidence.coefficients
    ours = ours[(ours.family == "recurrent") & (ours.readout == "value") & (ours.kind == "empathy") & (ours.kappa == 0)]
    for i, (ax, (title, (family, exposure))) in enumerate(zip(axes, panels.items(), strict=True)):
        own = t[t.family == family]
        taught = ours[np.isclose(ours.exposure, exposure) & (ours.mover == "other")]
        for rows, colour, label, line in (
            (taught, COLOURS["pixels"], "other, value function on a world model", "--"),
            (own[own.mover == "drifter"], COLOURS["drifter"], "drifter", ":"),
            (own[own.mover == "other"], COLOURS["other"], "other", "-"),
        ):
            if rows.rho.notna().any():
                _band(ax, *_levels(rows, "rho"), colour, label, line)
        ax.axhline(0, color="0.8", lw=0.8, zorder=0)
        ax.set_title(title)
        similarity_axis(ax, mark)
        ax.set(xlabel="similarity of looks" if i >= len(panels) - 2 else "")
    fig.supylabel("rho, value", fontsize=11)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    return fig


def properties(table: pd.DataFrame, names: dict[str, str]) -> Figure:
    """rho of every family against what its codes are like, one panel a property; table: families by columns."""
    fig, panels = _panels(len(names), sharey=True)
    for ax, (name, label) in zip(panels, names.items(), strict=True):
        ax.plot(table[name], table.rho, "o", color=COLOURS["other"])
        for family, x, y in zip(table.index, table[name], table.rho, strict=True):
            if np.isfinite(x):
                ax.annotate(family, (x, y), textcoords="offset points", xytext=(4, 4), fontsize=8)
        ax.margins(x=0.25, y=0.15)
        ax.set(xlabel=label)
    fig.supylabel("rho", fontsize=11)
    return fig


def decoupled(evidence: Evidence, seeds: list[int], looks: tuple[float, ...], **dials) -> Figure:
    """rho of the value function since all coupling ceased, and of one that never was coupled; columns are looks.

    dials: as of `leakage.course`.
    """
    fig, axes = plt.subplots(1, len(looks), figsize=(4.2 * len(looks), 3.7), sharey=True, squeeze=False)
    for ax, s in zip(axes[0], looks, strict=True):
        for kappa, colour, label in (
            (1.0, COLOURS["taught"], "coupled before"),
            (0.0, COLOURS["pixels"], "never coupled"),
        ):
            x, y = leakage.course(evidence, seeds, kappa, s, **dials)
            _band(ax, x, y, colour, label)
        ax.axhline(0, color="0.8", lw=0.8, zorder=0)
        _training_axis(ax, x[-1], "updates since")
        ax.set_title(f"s = {s:g}")
    axes[0, 0].set_ylabel("rho, value function")
    axes[0, 0].legend(fontsize=9)
    return fig


def tastes(panels: dict[str, dict[str, np.ndarray]]) -> Figure:
    """Value of what is near by what it is worth to the self: panel -> world -> [n, K], pale lines agents."""
    fig, axes = plt.subplots(1, len(panels), figsize=(4.4 * len(panels), 3.9), sharey=True, squeeze=False)
    for ax, (title, worlds) in zip(axes[0], panels.items(), strict=True):
        for shift, (name, y) in zip((-0.08, 0.08), worlds.items(), strict=True):
            colour = COLOURS["taught"] if shift > 0 else COLOURS["pixels"]
            x = np.arange(y.shape[1]) + shift
            ax.plot(x, y.T, color=colour, lw=0.4, alpha=0.3)
            found = [stats.interval(column, resamples=999) for column in y.T]
            ax.errorbar(
                x,
                y.mean(0),
                np.abs(np.array([(i.low, i.high) for i in found]).T - y.mean(0)),
                fmt="o-",
                ms=5,
                color=colour,
                label=name,
            )
        ax.axhline(0, color="0.8", lw=0.8, zorder=0)
        ax.set(title=title, xticks=range(y.shape[1]), xlabel="worth to the self")
    axes[0, 0].set_ylabel("value near less far, over the true slope")
    axes[0, 0].legend(fontsize=9)
    return fig
