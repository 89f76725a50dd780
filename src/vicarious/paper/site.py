"""What pages show beside prose and figures: numbers of figures, verdicts in a line, the explorer, provenance, cost."""

import base64
import json
import re
from collections.abc import Callable
from html import escape
from importlib import metadata

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from .. import config, models
from ..config import Stage
from ..execute import family
from ..store import Store, home
from . import chapters, plots

CONVERGED = "converged"  # heads trained on a frozen world model; other stages are updates of joint training
MADE_WITH = ["stage", "device", "threads", "precision", "python", "torch"]
ONE_CHAPTER = "chapters"  # group of the benchmark's rows that are about single ones


def show(source: chapters.Source, name: str, numbers: pd.DataFrame | None = None) -> None:
    """Show the current figure, and glue to it, for the page to put under it, its provenance and numbers, `name`.csv."""
    from IPython.display import HTML
    from myst_nb import glue

    glue(f"caption-{name}", HTML(note(source.provenance, name, numbers)), display=False)
    plt.show()


def note(provenance: str, name: str, numbers: pd.DataFrame | None) -> str:
    """HTML of one figure's provenance and of its numbers (to four digits), which the page itself carries."""
    link = "no numbers"
    if numbers is not None:
        rounded = numbers.map(lambda v: float(f"{v:.4g}") if isinstance(v, float) else v)
        text = base64.b64encode(rounded.to_csv(index=False).encode()).decode()
        count = f"numbers (CSV, {len(numbers):,} rows)"
        link = f'<a download="{escape(name)}.csv" href="data:text/csv;base64,{text}">{count}</a>'
    return f'<details class="caption-note"><summary>{link} · provenance</summary>{escape(provenance)}</details>'


def forest_table(verdicts: pd.DataFrame) -> str:
    """HTML of every prediction that was tested in a line: estimate on a common axis, its interval, the rule's bar,
    verdict and n; and a last line that names the pending ones.

    verdicts: from `verdicts.verdicts`.  Text and colours are the page's own, so that it can be read in the dark, on
    a phone and by a screen reader.
    """
    live = verdicts[(verdicts.verdict != "pending") & (verdicts.n > 0)]
    low, high = live.ci_low.min(), live.ci_high.max()
    place = lambda v: 100 * (0.02 + 0.96 * (np.clip(v, low, high) - low) / max(high - low, 1e-9))  # noqa: E731
    pending = verdicts.verdict == "pending"
    rows = [_forest_row(row, place) for row in verdicts[~pending].to_dict("records")]
    if pending.any():
        names = escape(", ".join(dict.fromkeys(name.split("/")[0] for name in verdicts.id[pending])))
        rows.append(f'<tr class="pending"><td class="claim" colspan="5">Not yet tested: {names}.</td></tr>')
    head = "".join(f"<th>{name}</th>" for name in ("prediction", "estimate, 95% interval", "", "verdict", "n"))
    return f'<table class="forest"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _forest_row(row: dict, place: Callable[[float], float]) -> str:
    live, name = row["n"] > 0, escape(row["id"])
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
        cells |= {"n": str(row["n"]), "verdict": row["verdict"] + (" (provisional)" if row["provisional"] else "")}
    cells["plot"] = f'<div class="track">{cells["plot"]}</div>'
    inside = "".join(f'<td class="{kind}">{content}</td>' for kind, content in cells.items())
    return f'<tr class="{row["verdict"]}">{inside}</tr>'


def parameter_table() -> pd.DataFrame:
    """Every parameter of every chapter: type, range, default and what it is."""
    all_of = [
        (page, model, *field) for page, model in chapters.CHAPTERS.items() for field in model.model_fields.items()
    ]
    rows = [(page, name, chapters.describe(model, name), field.description) for page, model, name, field in all_of]
    return pd.DataFrame(rows, columns=["chapter", "parameter", "values", "what it is"]).set_index("chapter")


def made_with(store: Store) -> pd.DataFrame:
    """Published results by what made them: how many of which stages, and their core-seconds."""
    made = pd.DataFrame(_manifests(store))
    made[MADE_WITH] = made[MADE_WITH].fillna("not recorded").astype(str)
    grouped = made.groupby(MADE_WITH[1:], sort=True)
    table = grouped.agg(**{"results": ("stage", "size"), "core-seconds": ("seconds", "sum")}).reset_index()
    return table.round({"core-seconds": 0}).astype({"core-seconds": int})


def commits(store: Store) -> pd.DataFrame:
    """Published results by the commit whose code made them, and what they are."""
    made = pd.DataFrame([{"commit": m["commit"], "stage": m["stage"]} for m in _manifests(store)])
    table = made.groupby("commit").stage.agg(["size", lambda s: ", ".join(sorted(set(s)))])
    return table.set_axis(["results", "stages"], axis=1).sort_values("results", ascending=False, kind="stable")


def packages() -> pd.DataFrame:
    """Installed versions of what this package asks for."""
    needed = [r for r in metadata.requires("vicarious") if not re.search("bench|language", r)]  # no page needs these
    wanted = {re.split(r"[ <>=!\[;]", r, maxsplit=1)[0] for r in needed}
    return pd.DataFrame({"version": {name: metadata.version(name) for name in sorted(wanted)}}).rename_axis("package")


def _manifests(store: Store) -> list[dict]:
    return list(store.published["results"].values())


def with_agents(runs: list[Stage]) -> list[Stage]:
    """These runs, their world models and heads, once."""
    parts = (part for run in runs for part in (run.find(config.Model), run.find(config.Heads), run))
    return list(dict.fromkeys(part for part in parts if part is not None))


def spent(runs: list[Stage], store: Store) -> pd.DataFrame:
    """What the results of a study cost that are at hand, as their manifests keep it.

    Columns: stage, family, device, results, each (median seconds of one), all (seconds of all of them).
    """
    stages = [stage for stage in with_agents(runs) if store.has(stage.address)]
    made = [s for s in stages if s.stage != "model" or models.learns(s)]
    manifests = [store.manifest(stage.address)[0] for stage in made]
    rows = [(s.stage, family(s), m["device"], m["seconds"]) for s, m in zip(made, manifests, strict=True)]
    frame = pd.DataFrame(rows, columns=["stage", "family", "device", "seconds"])
    by = frame.groupby(["stage", "family", "device"])["seconds"]
    return by.agg(results="count", each="median", all="sum").reset_index()


def multiplied(spent: pd.DataFrame, times: int, cores: tuple[int, ...]) -> pd.DataFrame:
    """What so many times as many results would take, each as long as those at hand took on average.

    spent: from `spent`.  Rows are stages and all of them; columns results, core-hours, and days on so many cores, all
    of them busy: as long as jobs (agents) outnumber cores by far they are, since no job waits for another.
    """
    by = spent.groupby("stage", sort=False)[["results", "all"]].sum() * times
    by.loc["all"] = by.sum()
    table = pd.DataFrame({"results": by.results.astype(int), "core-hours": by["all"] / 3600})
    return table.assign(**{f"days on {n:,} cores": table["core-hours"] / 24 / n for n in cores})


def benchmark() -> dict:
    """The table that `make bench` last wrote: hardware, rows, bars."""
    return json.loads((home() / "book" / "bench.json").read_text())


def speed(bench: dict, groups: tuple[str, ...] = ("environment", "world model", "heads")) -> pd.DataFrame:
    """Rates of the benchmark on a logarithmic axis, one panel a group: ours in colour, peers and floors grey."""
    rows = pd.DataFrame([row for row in bench["rows"] if row["group"] in groups])
    counts = [int((rows.group == group).sum()) for group in groups]
    _, axes = plt.subplots(len(groups), 1, figsize=(7.5, 0.34 * len(rows) + 1.8), height_ratios=counts)
    for ax, group in zip(axes, groups, strict=True):
        own = rows[rows.group == group].iloc[::-1].reset_index(drop=True)
        other = own["name"].str.contains("products") | own.get("package", pd.Series(index=own.index)).notna()
        colours = np.where(other, plots.COLOURS["pixels"], plots.COLOURS["other"])
        ax.hlines(own.index, own.low, own.high, colors=colours, lw=2)
        ax.scatter(own["median"], own.index, c=colours, s=30, zorder=3)
        ax.set(xscale="log", yticks=own.index, yticklabels=own.name, title=group, xlabel=own.unit[0])
        ax.set_ylim(-0.6, len(own) - 0.4)
        ax.tick_params(axis="x", which="minor", labelsize=7)
        ax.grid(axis="x", which="major", color="0.9")
    return rows[["group", "name", "median", "low", "high", "unit"]]


def rates(bench: dict) -> pd.DataFrame:
    """The benchmark's rows, ready to read; the ratio is what the first row of a group is to this one."""
    rows = []
    for row in (r for r in bench["rows"] if r["group"] != ONE_CHAPTER):
        digits = 1 if row["median"] < 1000 else 0
        spread = f"{row['low']:,.{digits}f} to {row['high']:,.{digits}f}" if "low" in row else ""
        name = row["name"] + (f" ({row['version']})" if "version" in row else "")
        ratio = f"{row['ratio']:.2f}" if "ratio" in row else ""
        rows.append((row["group"], name, f"{row['median']:,.{digits}f}", row["unit"], spread, ratio))
    columns = ["", "what", "median", "unit", "lowest to highest", "ours is"]
    return pd.DataFrame(rows, columns=columns).set_index(columns[:2])


def growth(bench: dict) -> pd.DataFrame:
    """What twice and four times as much of everything takes, over what a small study takes, whose row comes first."""
    rows = pd.DataFrame(bench["growth"]).set_index(["axis", "times"])
    taken = ["seconds", "GB", "MB", "files"]
    once, more = rows.iloc[0], rows.iloc[1:]
    first = {"what": ", ".join(f"{once[name]:.0f} {name}" for name in more.index.unique("axis"))}
    said = [first | {name: f"{once[name]:.3g}" for name in taken}]
    for (axis, times), row in more.iterrows():
        said.append({"what": f"{times} times the {axis}"} | {k: f"{row[k] / once[k]:.2f} times" for k in taken})
    return pd.DataFrame(said).set_index("what")


def since(bench: dict) -> pd.DataFrame:
    """What readers wait for, in seconds, at an earlier commit and now, and how many times shorter it is."""
    rows = pd.DataFrame(bench["since"]["rows"]).set_index("name").rename_axis("what")
    return rows.set_axis(["before", "now", "ratio"], axis=1).map("{:.2f}".format)


def profile(bench: dict) -> pd.DataFrame:
    """What an update of the reference model spends its time on, in each precision."""
    return pd.DataFrame(bench["profile"]).map("{:.0%}".format)


def bars(bench: dict) -> pd.DataFrame:
    """The bars that were set beforehand, and whether this run met them."""
    table = pd.DataFrame(bench["bars"])
    said = {"this": table.this, "over that": table["that"], "ratio": table.ratio.map("{:.2f}".format)}
    said |= {"at least": table.at_least.map("{:.2f}".format), "": np.where(table.met, "met", "missed")}
    return pd.DataFrame(said).set_index("this")
