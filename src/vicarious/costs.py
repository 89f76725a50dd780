"""What a study will cost on this machine, measured in miniature before it runs, and what the published one did cost."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import pandas as pd

from . import config, episodes, models, training
from .store import Store, home

SHARES = {"updates": 100, "scenes": 16}  # a share is a hundredth of the updates and a sixteenth of the scenes
FEW = 1024  # episodes of the run that only warms up

CHAPTERS = "chapters"  # group of the benchmark's rows that are about single ones


def kind(stage: config.Stage) -> tuple[str, str]:
    """Stages of one kind cost the same: their name and shape, whatever the seed, exposure or coupling."""
    free = {"data": {"seed"}} if isinstance(stage, (config.Model, config.Outsider)) else {"model": {"data": {"seed"}}}
    if isinstance(stage, config.Responses):
        free = {"heads": {"exposure": True, "kappa": True, **free}, "exposure": True, "withheld": True, "until": True}
    elif isinstance(stage, config.Heads):
        free = {"exposure": True, "kappa": True, **free}
    elif isinstance(stage, training.AGENTLESS):
        free = {}
    return stage.stage, config.digest(stage.model_dump(mode="json", exclude=free))


def miniature(stage: config.Stage, shares: int, episodes: int | None = None) -> config.Stage:
    """The same shapes with so many shares of the updates and scenes, and at most so many episodes."""
    small = {name: miniature(part, shares, episodes) for name, part in stage if isinstance(part, config.Stage)}
    if isinstance(stage, config.Episodes):
        small["episodes"] = min(stage.episodes, episodes or stage.episodes)
    for name, whole in _extent(stage).items():
        share = whole // SHARES["updates" if isinstance(stage, (*training.TRAINED, config.Outsider)) else "scenes"]
        small[name] = min(whole, max(64 if name == "fit_scenes" else 8, shares * share))
    return stage.model_copy(update=small)


def _extent(stage: config.Stage) -> dict[str, int]:
    """What a stage's seconds are proportional to, but for a constant."""
    names = ("updates", "steps", "reward_updates", "scenes", "fit_scenes", "studies")
    return {name: getattr(stage, name) for name in names if name in type(stage).model_fields}


def _units(stage: config.Stage) -> int:
    """The first of these, or its updates as they follow from what it stands on, or the scenes that are shown."""
    if isinstance(stage, config.Extinction):
        return stage.updates
    if isinstance(stage, config.Joint):
        return stage.model.updates
    return next(iter(_extent(stage).values()), 0) or stage.battery.scenes


def measure(cells: list[config.Stage], device: str) -> dict[tuple[str, str], float]:
    """Seconds of every kind of stage that the cells of one job need, extrapolated from two miniatures really run."""
    with tempfile.TemporaryDirectory() as folder, training.one_thread():
        nothing = Store(Path(folder) / "none", Path(folder) / "none")
        needed, runs = training.stages(cells, nothing), []
        for shares, episodes in (1, FEW), (1, None), (3, None):  # the first warms up: what is done once is not counted
            store = Store(Path(tempfile.mkdtemp(dir=folder)), nothing.data)
            small = {stage: miniature(stage, shares, episodes) for stage in needed}
            for stage in training.prerequisites([miniature(cell, shares) for cell in cells], store):
                training.make(stage, store)
            if jobs := training.jobs([small[cell] for cell in cells], len(cells)):
                training.work(jobs[0], store.runs, store.data, device)
            runs.append({s: (_units(m), store.read(m.address).manifest["seconds"]) for s, m in small.items()})
    found: dict[tuple[str, str], list[float]] = {}
    for stage in needed:
        (n, least), (more, most) = runs[1][stage], runs[2][stage]
        each = max(0.0, most - least) / (more - n) if more > n else 0.0
        found.setdefault(kind(stage), []).append(least + each * (_units(stage) - n))
    return {name: sum(seconds) / len(seconds) for name, seconds in found.items()}


def pace() -> float:
    """How many times longer than `training.EXPECTED` one core of this machine takes, by a second of training."""
    data = config.Episodes(seed=0, episodes=256)
    seen, seconds = episodes.collect(data), []
    with training.one_thread():
        for updates in (5, 5, 35):  # the first warms up
            start = time.perf_counter()
            models.train([config.Model(data=data, updates=updates)], [seen])
            seconds.append(time.perf_counter() - start)
    usual = training.EXPECTED["model"] / config.Model.model_fields["updates"].default
    return (seconds[2] - seconds[1]) / 30 / usual


def plan(cells: list[config.Stage], store: Store, device: str = "auto") -> pd.DataFrame:
    """What is missing: stage, family, how many, seconds of each as measured here now, and of all together."""
    todo, device = training.missing(cells, store), training.resolve_device(device)
    stages, seconds = training.stages(todo, store), {}
    alone = ([cell] for cell in todo if isinstance(cell, training.AGENTLESS))
    for job in [*training.jobs(todo, training.group_size(device)), *alone]:
        if any(kind(stage) not in seconds for stage in training.stages(job, store)):
            seconds |= measure(job, device)
    rows = [(s.stage, family(s), seconds[kind(s)]) for s in stages]
    frame = pd.DataFrame(rows, columns=["stage", "family", "seconds"])
    grouped = frame.groupby(["stage", "family"], sort=False)["seconds"].agg(["count", "mean", "sum"]).reset_index()
    return grouped.rename(columns={"count": "missing", "mean": "each", "sum": "all"})


def family(stage: config.Stage) -> str:
    if isinstance(stage, config.Outsider):
        return stage.algorithm
    model = stage if isinstance(stage, config.Model) else training.model_of(stage)
    return model.family + (" of other sizes" if model.state else "") if model else ""


def spent(cells: list[config.Stage], store: Store) -> pd.DataFrame:
    """What the results of a study cost that are at hand, as their manifests keep it.

    Columns: stage, family, device, results, each (median seconds of one), all (seconds of all of them).
    """
    nothing = Store(Path("/nonexistent"), Path("/nonexistent"))
    made = [s for s in training.stages(cells, nothing) if store.has(s.address) and not _free(s)]
    manifests = [store.read(stage.address).manifest for stage in made]
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


def _free(stage: config.Stage) -> bool:
    """Whether it is a control's world model: never trained, so it costs nothing and is not published."""
    return isinstance(stage, config.Model) and not models.FAMILIES[stage.family].trained


def larger(
    cells: list[config.Stage], store: Store, times: tuple[int, ...] = (1, 10, 100, 1000), rate: float = 4e14
) -> pd.DataFrame:
    """What world models many times larger than the largest published one would cost, each by the rate of that one.

    That rate is the median over agents, for as many frames as any of them learnt from.  Training a parameter on a frame
    takes about 6 floating-point operations (Kaplan et al. 2020).  Columns: parameters; operations and hours on one core
    on the same data, and with frames in proportion (Hoffmann et al. 2022); hours of the latter on an accelerator that
    sustains `rate` operations a second.
    """
    trained = {c.model for c in cells if isinstance(c, config.Curve) and models.FAMILIES[c.model.family].trained}
    size = {model: models.parameters(model) for model in trained}
    most = max(size.values())
    largest = [model for model in trained if size[model] == most]
    frames = max(map(_frames, largest))
    each = [store.read(model.address).manifest["seconds"] / _frames(model) for model in largest]
    seconds = pd.Series(each).median() * frames
    rows = []
    for k in times:
        same, scaled = (6.0 * most * k * frames * amount for amount in (1, k))
        hours = [seconds * k * amount / 3600 for amount in (1, k)]
        rows.append((k, most * k, same, hours[0], scaled, hours[1], scaled / rate / 3600))
    columns = ["times", "parameters", "operations", "core_hours", "scaled_operations", "scaled_hours", "gpu_hours"]
    return pd.DataFrame(rows, columns=columns)


def _frames(model: config.Model) -> int:
    """That a world model learns from, repeats counted."""
    return model.updates * model.batch * model.data.frames


def benchmark() -> dict:
    """The table that `make bench` last wrote: hardware, rows, bars."""
    return json.loads((home() / "book" / "bench.json").read_text())


def rates(bench: dict) -> pd.DataFrame:
    """The benchmark's rows, ready to read; the ratio is what the first row of a group is to this one."""
    rows = []
    for row in (r for r in bench["rows"] if r["group"] != CHAPTERS):
        digits = 1 if row["median"] < 1000 else 0
        spread = f"{row['low']:,.{digits}f} to {row['high']:,.{digits}f}" if "low" in row else ""
        version = f" ({row['version']})" if "version" in row else ""
        ratio = f"{row['ratio']:.2f}" if "ratio" in row else ""
        rows.append(
            {
                "": row["group"],
                "what": row["name"] + version,
                "median": f"{row['median']:,.{digits}f}",
                "unit": row["unit"],
                "lowest to highest": spread,
                "ours is": ratio,
            }
        )
    return pd.DataFrame(rows).set_index(["", "what"])


def rendering(bench: dict) -> pd.DataFrame:
    """Seconds of executing and rendering the book, and of every chapter in it: median of the rounds, and range."""
    rows = [r for r in bench["rows"] if r["group"] in ("the book", CHAPTERS)]
    told = [(r["name"], f"{r['median']:.0f}", f"{r['low']:.0f} to {r['high']:.0f}") for r in rows]
    return pd.DataFrame(told, columns=["what", "seconds", "lowest to highest"]).set_index("what")


def profile(bench: dict) -> pd.DataFrame:
    """What an update of the reference model spends its time on, in each precision."""
    return pd.DataFrame(bench["profile"]).map("{:.0%}".format)


def bars(bench: dict) -> pd.DataFrame:
    """The bars that were set beforehand, and whether this run met them."""
    rows = [
        {
            "this": bar["this"],
            "over that": bar["that"],
            "ratio": f"{bar['ratio']:.2f}",
            "at least": f"{bar['at_least']:.2f}",
            "": "met" if bar["met"] else "missed",
        }
        for bar in bench["bars"]
    ]
    return pd.DataFrame(rows).set_index("this")
