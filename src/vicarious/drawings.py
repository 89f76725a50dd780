"""Pictures that the library itself makes: a frame of the chambers, a film of them, and the fingerprint of an agent.

Matplotlib is imported where something is drawn.
"""

from __future__ import annotations

import base64
import tempfile
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .world import State

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BODIES = {"self": "#1f6fb4", "other": "#d9622b", "drifter": "#5b8c5a"}  # their colours, everywhere
ITEMS = {1.0: "#2a9d4a", 0.5: "#8cc99a", 0.0: "#c9a227", -0.5: "#d98a8a", -1.0: "#b3262e"}


def blend(angle: float, drifter: bool = False) -> tuple:
    """Colour of a body whose appearance is `angle` radians away from the self's."""
    from matplotlib.colors import to_rgb

    near, far = (np.array(to_rgb(c)) for c in (BODIES["self"], BODIES["drifter" if drifter else "other"]))
    return tuple(near + (far - near) * min(1.0, angle / (np.pi / 2)))


def scene(ax: Axes, state: State, ladder: tuple[float, ...], index: int = 0, drifter: bool = False) -> None:
    """One frame of both chambers as a picture: bodies are discs, items triangles, glass a grey wall.

    A ring around a body is its mood, green or red, the wider the stronger.
    """
    from matplotlib.patches import Circle, Rectangle

    size = round(state.items.shape[2] ** 0.5)
    side = int(state.side[index])
    for column, row in product(range(2 * size + 1), range(size)):
        colours = {"fc": "#c8d4dc", "ec": "#c8d4dc"} if column == size else {"fc": "#fafafa", "ec": "#d8d8d8"}
        ax.add_patch(Rectangle((column, row), 1, 1, lw=0.6, **colours))
    for body in range(2):
        offset = (size + 1) * (side ^ body)
        for cell, kind in enumerate(state.items[index, body].tolist()):
            if kind:
                _item(ax, cell % size + offset, cell // size, ladder[kind - 1])
        if body and not state.occupied[index]:
            continue
        cell, mood = int(state.pos[index, body]), float(state.mood[index, body])
        at = (cell % size + offset + 0.5, cell // size + 0.5)
        colour = blend(float(state.angle[index]), drifter) if body else BODIES["self"]
        ring = ITEMS[1.0 if mood > 0 else -1.0]
        ax.add_patch(Circle(at, 0.32 + 0.16 * min(1.0, abs(mood)), fc=ring, alpha=0.55, lw=0, zorder=2))
        ax.add_patch(Circle(at, 0.32, fc=colour, ec="black", lw=0.8, zorder=2))
        label = ("D" if drifter else "O") if body else "S"
        ax.text(*at, label, ha="center", va="center", color="white", size=8, zorder=4, weight="bold")
    ax.set(xlim=(-0.05, 2 * size + 1.05), ylim=(size + 0.05, -0.05), aspect="equal")
    ax.axis("off")


def _item(ax: Axes, x: float, y: float, valence: float) -> None:
    """An item on its cell's floor: a triangle up if good, down if bad, a square if worthless."""
    from matplotlib.patches import Polygon, Rectangle

    colour = ITEMS.get(valence, "#888888")
    if valence == 0:
        ax.add_patch(Rectangle((x + 0.62, y + 0.62), 0.3, 0.3, fc=colour, ec="black", lw=0.6, zorder=3))
        return
    top, bottom = (0.58, 0.94) if valence > 0 else (0.94, 0.58)
    points = [(x + 0.77, y + top), (x + 0.59, y + bottom), (x + 0.95, y + bottom)]
    ax.add_patch(Polygon(points, fc=colour, ec="black", lw=0.6, zorder=3))


def fingerprint(agents: dict[str, pd.DataFrame]) -> Figure:
    """Agents side by side: rows are kinds, columns movers from the self to the unlike; title -> table of rho."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    widest = max(table.shape[1] for table in agents.values())
    size = ((0.6 * widest + 1.2) * len(agents) + 1.2, 2.9)
    fig, axes = plt.subplots(1, len(agents), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for ax, (title, table) in zip(axes[0], agents.items(), strict=True):
        sns.heatmap(
            table, vmin=-1.2, vmax=1.2, cmap="RdBu_r", annot=True, fmt=".2f", annot_kws={"size": 8}, cbar=False, ax=ax
        )
        ax.axvline(1, color="white", lw=4)
        ax.set(title=title, xlabel="", ylabel="")
        ax.tick_params(labelsize=8, rotation=0)
    return fig


def animate(states: list[State], ladder: tuple[float, ...], captions: list[str], alt: str) -> str:
    """An episode as an HTML image (an animated GIF inside the page, two frames a second)."""
    import matplotlib.pyplot as plt
    from matplotlib.animation import FuncAnimation, PillowWriter

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
