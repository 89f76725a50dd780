"""What goes with a figure: where its numbers come from, and these numbers as CSV."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from html import escape

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection, PolyCollection, QuadMesh
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator

from . import figures

COLUMNS = ["panel", "kind", "series", "x", "y", "x2", "y2", "value", "x at", "y at"]
Row = tuple[str, float, float, float, float, float]  # kind, x, y, x2, y2, value


def show(provenance: str, name: str) -> None:
    """Show the current figure, and glue to it, for the page to put under it, its provenance and numbers, `name`.csv."""
    from IPython.display import HTML
    from myst_nb import glue

    glue(f"exhibit-{name}", HTML(note(provenance, name, numbers(plt.gcf()))), display=False)
    plt.show()


def note(provenance: str, name: str, table: pd.DataFrame) -> str:
    """HTML of one figure's provenance and of its numbers, which the page itself carries."""
    text = base64.b64encode(table.to_csv(index=False).encode()).decode()
    link = f'<a download="{escape(name)}.csv" href="data:text/csv;base64,{text}">numbers (CSV, {len(table):,} rows)</a>'
    return f'<details class="exhibit"><summary>{link} · provenance</summary>{escape(provenance)}</details>'


def numbers(fig: Figure) -> pd.DataFrame:
    """Everything that is drawn in the coordinates of its data, as one tidy table, to four digits.

    kind: line, point, bar (x, y); band, segment (from x, y to x2, y2); cell (x, y, value).  series: what the legend
    calls it, or what its colour stands for; `x at`, `y at`: the category where an axis has some.
    """
    rows = []
    for i, ax in enumerate(a for a in fig.axes if a.get_label() != "<colorbar>"):
        panel = ax.get_title() or f"panel {i + 1}"
        for artist in ax.get_children():
            series = _series(artist)
            for kind, *at in _drawn(artist, ax):
                rows.append((panel, kind, series, *at, _category(ax.xaxis, at[0]), _category(ax.yaxis, at[1])))
    table = pd.DataFrame(rows, columns=COLUMNS)
    measured = COLUMNS[3:8]
    table[measured] = table[measured].map(lambda v: float(f"{v:.4g}"))
    return table.dropna(axis=1, how="all")


def _drawn(artist: Artist, ax: Axes) -> Iterator[Row]:
    """What an artist shows, one row a number; nothing of guides, which span an axis whatever the data."""
    nan = np.nan
    if isinstance(artist, Line2D) and artist.get_transform().contains_branch_seperately(ax.transData) == (True, True):
        xy = np.column_stack([np.asarray(v, float) for v in artist.get_data()])
        yield from (("line", x, y, nan, nan, nan) for x, y in xy[np.isfinite(xy).all(1)])
    elif isinstance(artist, QuadMesh):
        corners = artist.get_coordinates()
        centres = (corners[:-1, :-1] + corners[1:, 1:]) / 2
        values = np.ma.filled(artist.get_array().astype(float), nan).reshape(centres.shape[:2])
        yield from (("cell", *at, nan, nan, v) for at, v in zip(centres.reshape(-1, 2), values.ravel(), strict=True))
    elif isinstance(artist, PathCollection):
        xy = np.ma.filled(np.ma.asarray(artist.get_offsets(), float), nan)
        yield from (("point", x, y, nan, nan, nan) for x, y in xy[np.isfinite(xy).all(1)])
    elif isinstance(artist, LineCollection):
        yield from (("segment", *s[0], *s[-1], nan) for s in artist.get_segments() if len(s))
    elif isinstance(artist, PolyCollection):
        for path in artist.get_paths():
            ends = pd.DataFrame(path.vertices, columns=["x", "y"]).groupby("x").y.agg(["min", "max"])
            yield from (("band", x, low, x, high, nan) for x, low, high in ends.itertuples())
    elif (
        isinstance(artist, Rectangle)
        and artist is not ax.patch
        and artist.get_transform().contains_branch(ax.transData)
    ):
        yield "bar", artist.get_x() + artist.get_width() / 2, artist.get_height(), nan, nan, nan


def _series(artist: Artist) -> str:
    label = str(artist.get_label())
    if not label.startswith("_"):
        return label
    colour = artist.get_color() if isinstance(artist, Line2D) else getattr(artist, "get_facecolor", lambda: [])()
    try:
        known = {to_hex(c): name for name, c in reversed(figures.COLOURS.items())}
        return known.get(to_hex(np.asarray(colour)[0] if np.ndim(colour) == 2 else colour), "")
    except (ValueError, IndexError):
        return ""


def _category(axis, at: float) -> str | float:
    """The label of the tick that a number lies at, on an axis whose ticks have been named."""
    if not isinstance(axis.get_major_locator(), FixedLocator) or not np.isfinite(at):
        return np.nan
    ticks = np.asarray(axis.get_majorticklocs(), float)
    near = ticks[np.abs(ticks - at).argmin()] if len(ticks) else np.nan
    label = axis.get_major_formatter()(near) if abs(near - at) < 0.5 else ""
    return label if any(c.isalpha() for c in label) else np.nan


def forest(verdicts: pd.DataFrame) -> str:
    """HTML of every prediction in a line: estimate on a common axis, its interval, the rule's bar, verdict and n.

    verdicts: from `predictions.verdicts`.  Text and colours are the page's own, so that it can be read in the dark, on
    a phone and by a screen reader.
    """
    live = verdicts[(verdicts.verdict != "pending") & (verdicts.n > 0)]
    low, high = live.ci_low.min(), live.ci_high.max()
    place = lambda v: 100 * (0.02 + 0.96 * (np.clip(v, low, high) - low) / max(high - low, 1e-9))  # noqa: E731
    rows = [_forest_row(row, place) for row in verdicts.to_dict("records")]
    head = "".join(f"<th>{name}</th>" for name in ("prediction", "estimate, 95% interval", "", "verdict", "n"))
    return f'<table class="forest"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _forest_row(row: dict, place: Callable[[float], float]) -> str:
    live, name = row["verdict"] != "pending" and row["n"] > 0, escape(row["id"])
    link = f'<a href="{row["chapter"]}.html">{name}</a>'
    claim = f"{link if live else name} {escape(row['claim'])}"
    cells = {"claim": claim, "plot": "", "text": "", "verdict": row["verdict"], "n": ""}
    if live:
        at, low, high = (place(row[k]) for k in ("estimate", "ci_low", "ci_high"))
        marks = [("zero", f"left:{place(0.0):.1f}%"), ("interval", f"left:{low:.1f}%;width:{high - low:.1f}%")]
        if row["conditions"] and row["conditions"][0]["bar"] is not None:
            marks.append(("bar", f"left:{place(row['conditions'][0]['bar']):.1f}%"))
        marks.append(("dot", f"left:{at:.1f}%"))
        cells["plot"] = "".join(f'<i class="{kind}" style="{style}"></i>' for kind, style in marks)
        cells["text"] = f"{row['estimate']:z.2f} [{row['ci_low']:z.2f}, {row['ci_high']:z.2f}]"
        cells["n"] = str(row["n"])
        cells["verdict"] += " (provisional)" if row["provisional"] else ""
    cells["plot"] = f'<div class="track">{cells["plot"]}</div>'
    inside = "".join(f'<td class="{kind}">{content}</td>' for kind, content in cells.items())
    return f'<tr class="{row["verdict"]}">{inside}</tr>'
