"""The `vicarious` command."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager, nullcontext
from functools import wraps
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

STUDIES = ("reference", "controls", "ordinary", "calibration", "continuity", "language")
BROKEN = ("CorruptResult", "ChapterFailed", "BuildFailed")  # errors by name: importing them takes seconds
RESUMES = "what was trained is stored, the same command goes on from there"
ELSEWHERE = "run this in a checkout of the repository, or set VICARIOUS_HOME to one"
COLOUR = {"supported": "green", "contradicted": "red", "inconclusive": "yellow", "not": "dim", "pending": "dim"}

_profile = click.option(
    *("--profile", "profile"),
    **{"type": click.Choice(["paper", "quick"]), "default": "paper", "show_default": True},
    help="paper: the published sizes; quick: everything small, no competence promised.",
)
_seeds = click.option("--seeds", type=click.IntRange(1, 1000), help="Number of agents; the profile's own by default.")
_workers = click.option(
    "--workers",
    **{"type": click.IntRange(0), "default": os.cpu_count() or 1, "show_default": "one per core"},
    help="Processes of one thread each; 0 trains in this process.",
)


def one_line_errors(command: Callable) -> Callable:
    """Expected failures end in one line on standard error: exit 2 for bad input, 1 for anything found broken, 128 and
    the signal's number for a command that was stopped."""

    @wraps(command)
    def wrapped(*args, **kwargs):
        try:
            with stopped_by(signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
                return command(*args, **kwargs)
        except KeyboardInterrupt as error:
            code, text = 128 + (error.args or (signal.SIGINT,))[0], "stopped"
            text += f"; {RESUMES}" if command.__name__ in ("study", "book") else ""
        except BrokenPipeError:  # whoever read this has gone
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.exit(128 + signal.SIGPIPE)
        except ModuleNotFoundError as error:
            code, text = 2, f"{error}: this needs pip install 'vicarious[book,outsiders]'"
        except BrokenExecutor:
            code, text = 1, "a worker died, perhaps for want of memory (fewer --workers need less); " + RESUMES
        except Exception as error:
            if not isinstance(error, (ValueError, MemoryError, OSError)) and type(error).__name__ not in BROKEN:
                raise
            code, text = 2 if isinstance(error, ValueError) else 1, error
        click.echo(f"vicarious: {text}", err=True)
        sys.exit(code)

    return wrapped


@contextmanager
def stopped_by(*signals: int) -> Iterator[None]:
    """These end what is under way as Ctrl-C does: workers and kernels too."""

    def stop(number: int, _) -> None:
        raise KeyboardInterrupt(number)

    here = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, stop) for number in signals if here}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="vicarious")
def app() -> None:
    """Is empathy a natural consequence of learnt reward models?

    Train the agents, read what they predict in the battery, render the paper.
    """
    os.environ["MPLBACKEND"] = "agg"  # no command opens a window
    gc.set_threshold(200_000)  # hardly anything here is a cycle, and imports and tables make millions of objects
    for number in (0, 1, 2):  # kernels inherit them
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it takes the lowest number that is free


@app.command()
@click.argument("name", type=click.Choice(["all", *STUDIES]), default="all")
@_profile
@_seeds
@_workers
@click.option(
    "--device", default="auto", show_default=True, help="auto, cpu or cuda; auto takes CUDA where there is one."
)
@click.option("--plan", is_flag=True, help="Say what is missing and what it will cost on this machine, and stop.")
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Train on the workers of a running dask.distributed scheduler, e.g. tcp://node1:8786, which see this folder.",
)
@click.option(
    "--population",
    type=click.IntRange(1, 1024),
    help="Agents that train as one: by default up to 64 on CUDA, 1 on a CPU.",
)
@one_line_errors
def study(name: str, profile: str, seeds: int | None, workers: int, device: str, plan: bool, **how) -> None:
    """Train what is missing of one study, or of all of them.

    Reads what is published in data/ or cached in runs/, trains the rest, and stores each result the moment it is
    whole: stop it at any time, the same command resumes.  On a CPU every process trains one agent at a time; on CUDA
    up to 64 train as one population, half as many where they do not fit.  With --scheduler the device is the workers'
    and has to be named if it is not the CPU: see the chapter on cost.
    """
    from . import execute, pipeline
    from .paper import chapters, studies  # noqa: F401  chapters have stages of their own
    from .store import Store

    runs = studies.everything(profile, seeds) if name == "all" else studies.STUDIES[name](profile, seeds)
    store, start = Store(), time.perf_counter()
    todo = pipeline.missing(runs, store)
    scheduler = how["scheduler"]
    if plan:
        here = scheduler is None and execute.resolve_device(device) == "cpu"
        _show_plan(runs, todo, store, max(1, workers) if here else None)
        return
    sent = execute.cluster(scheduler, store.runs) if scheduler and todo else nullcontext((None, None))
    with sent as (executor, alive):
        count = execute.fill(todo, store, workers, device, executor, how["population"], alive)
    click.echo(f"{len(runs)} runs at hand, {count} computed now in {time.perf_counter() - start:,.0f} s")


def _show_plan(runs: list, todo: list, store, processes: int | None) -> None:
    """What is missing of every kind of result, and how long it takes on these processes (None: on those of others)."""
    from . import execute, pipeline

    if not todo:
        click.echo(f"nothing is missing: {len(runs)} runs at hand")
        return
    table = execute.Costs(store).plan(pipeline.needed(todo, store))
    told = table.set_axis(["stage", "family", "missing", "seconds each", "core-seconds"], axis=1)
    click.echo(told.to_string(index=False, float_format="{:,.1f}".format))
    total = table["all"].sum()
    lasts = (
        f"about {execute.lasting(total / processes)} on {execute.counted(processes)} here" if processes else "on a CPU"
    )
    click.echo(f"{table.missing.sum():,} results are missing, {total:,.0f} core-seconds: {lasts}")


@app.command()
@_seeds
@one_line_errors
def publish(seeds: int | None) -> None:
    """Write data/: every study's tables and manifest, and the weights of the first world models and agents."""
    from .paper import studies
    from .pipeline import missing
    from .store import Store

    store, runs = Store(), studies.everything("paper", seeds)
    if todo := missing(runs, store):
        lost = f"{len(todo)} of {len(runs)} runs are not in {store.data} or {store.runs}"
        raise ValueError(f"{lost}: run `vicarious study` first, or {ELSEWHERE}")
    for name, size in store.publish(*studies.publication(runs)).items():
        click.echo(f"{size / 1e6:8.2f} MB  {name}")


@app.command()
@click.option("--sample", "number", type=click.IntRange(0), default=2, show_default=True, help="Results to make again.")
@click.option("--whole", is_flag=True, help="From nothing, world models too; else heads on published world models.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Which results are drawn.")
@click.option("--device", default="cpu", show_default=True, help="auto, cpu or cuda.")
@one_line_errors
def audit(number: int, whole: bool, seed: int, device: str) -> None:
    """Check that what is published is what this code makes.

    Verifies the SHA-256 of every published file, then trains a sample of the reference study again and compares every
    number: bit for bit where the platform is that of the manifest, else by equivalence of the mean over the sample.
    Half a minute a result, several with --whole.  Exit 1 if anything is not as published.
    """
    from .execute import resolve_device
    from .paper import audit as auditor
    from .paper import studies
    from .store import Store

    if not (store := Store()).published["results"]:
        raise ValueError(f"nothing is published in {store.data}: {ELSEWHERE}")
    if not auditor.check_sample(studies.reference(), store, number, whole, seed, resolve_device(device), click.echo):
        sys.exit(1)


@app.command()
@click.argument("target", metavar="MODULE:NAME")
@click.option(
    "--view",
    type=click.Choice(["allocentric", "left", "centred"]),
    default="allocentric",
    show_default=True,
    help="Frame of the observations that the agent was trained on.",
)
@click.option(
    "--drawn", type=click.IntRange(0), default=0, show_default=True, help="Seed whose appearances were drawn for it."
)
@click.option("--scenes", type=click.IntRange(16, 4096), default=256, show_default=True, help="Scenes of the battery.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for report.json and fingerprint.png.")
@one_line_errors
def probe(target: str, view: str, drawn: int, scenes: int, out: Path | None) -> None:
    """Show the battery to an agent of your own, and say what it predicts for itself and for others.

    MODULE:NAME (or FILE.py:NAME) is an object with predict(obs, prev_action), a torch module, a Stable-Baselines3
    model, or a function that returns one of these.  The code that it names is executed.
    """
    from . import config, interop

    cfg = config.World(view=view)
    report = interop.probe(interop.load_agent(target), cfg, drawn, config.Battery(levels=7, scenes=scenes))
    click.echo(str(report))
    if out:
        out.mkdir(parents=True, exist_ok=True)
        (out / "report.json").write_text(report.json() + "\n")
        report.figure().savefig(out / "fingerprint.png", dpi=160, bbox_inches="tight")
        click.echo(f"report.json and fingerprint.png are in {out}")


@app.command()
@click.option("--json", "as_json", is_flag=True, help="A list of objects instead of a table.")
@_profile
@_seeds
@one_line_errors
def verdicts(as_json: bool, profile: str, seeds: int | None) -> None:
    """Every preregistered prediction with estimate, interval, gate and verdict, from results at hand."""
    from . import config
    from .paper import chapters, results, studies
    from .paper import verdicts as rules
    from .store import Store

    store = Store()
    wanted = (studies.everything, studies.reference)
    at_hand = [results.at_hand(study(profile, seeds), store) for study in wanted]
    runs = max(at_hand, key=lambda runs: len({run.find(config.Model) for run in runs}))  # most agents
    if not runs:
        none = f"no results of the profile {profile} are in {store.data} or {store.runs}"
        raise ValueError(f"{none}: {ELSEWHERE}, or train some, `vicarious study --profile {profile}`")
    found = results.gather(runs, store, altered=profile != "paper")
    table = rules.verdicts(chapters.PREDICTIONS, found, chapters.head_notes(profile, store))
    if as_json:
        click.echo(json.dumps(rules.as_json(table), indent=1))
        return
    Console(width=None if sys.stdout.isatty() else 160).print(_verdict_table(table, profile))


def _verdict_table(table, profile: str) -> Table:
    from .paper.verdicts import readable

    grid = Table(title=f"Predictions ({profile}), 95% intervals over agents", title_justify="left")
    rows = readable(table).reset_index()
    for column in rows:
        grid.add_column(column, justify="right" if column == "n" else "left")
    for row in rows.to_dict("records"):
        colour = COLOUR[row["verdict"].split()[0]]
        grid.add_row(*[f"[{colour}]{v}[/]" if k == "verdict" else v for k, v in row.items()])
    return grid


@app.command()
@click.option(
    "--only", multiple=True, metavar="CHAPTER", help="Chapter to execute anew, e.g. 04-misgeneralisation; repeatable."
)
@click.option(
    "-p", "--parameter", nargs=2, multiple=True, metavar="NAME VALUE", help="A chapter parameter; repeatable."
)
@click.option(
    "-f",
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A variant as YAML: NAME: VALUE for every chapter that has it, CHAPTER: {NAME: VALUE} for one.",
)
@click.option("--parameters", "list_parameters", is_flag=True, help="List every chapter's parameters and stop.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder to render into.  [default: _build, with -p _build/variant]"
)
@click.option("--pdf", is_flag=True, help="Print the whole paper as one PDF as well (needs Chromium).")
@click.option("--zip", "packed", is_flag=True, help="Pack site, notebooks and data into one file as well.")
@click.option("--in-place", is_flag=True, help="Execute the repository's own notebooks (for authors).")
@_workers
@one_line_errors
def book(
    only: tuple[str, ...], parameter: tuple[tuple[str, str], ...], file: Path | None, out: Path | None, **how
) -> None:
    """Execute chapters with papermill and render the paper.

    The book is staged into the output folder, so the repository stays as it is.  With -p the result is a variant: the
    chosen chapters are executed with those values, training what is missing, the others keep their stored outputs,
    and a banner says what differs.  For example

        vicarious book --only 04-misgeneralisation -p similarity 0.7 -p seeds 2 --out variant

    A chapter that fails is named with its cell and error, its page says so and shows nothing else, and the others are
    rendered.
    """
    from . import store
    from .paper import book as press
    from .paper import chapters

    if how["list_parameters"]:
        for chapter, model in chapters.CHAPTERS.items():
            click.echo(chapter)
            for name, field in model.model_fields.items():
                click.echo(f"  {name:12} {field.description} ({chapters.describe(model, name)})")
        return
    if not (store.home() / "_toc.yml").exists():
        raise ValueError(f"there is no paper in {store.home()}: {ELSEWHERE}")
    common, by_chapter = press.read_parameters(file) if file else ({}, {})
    given = common | dict(parameter)
    if how["in_place"] and (given or by_chapter):
        raise ValueError("--in-place renders the published parameters; leave out -p and --file")
    names = list(only) or ([] if given else list(by_chapter))
    target = (out or store.home() / "_build" / ("variant" if given or names else "paper")).resolve()
    if how["pdf"]:
        press.browser()
    extra = [make for make, wanted in ((press.print_pdf, how["pdf"]), (press.pack, how["packed"])) if wanted]
    index = press.render(target, names, given, by_chapter, how["in_place"], how["workers"], click.echo, extra)
    click.echo(f"the paper is at {index}")


if __name__ == "__main__":
    app()
