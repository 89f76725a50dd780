"""Rendering the paper: stage its files, execute chapters with papermill, build the pages with jupyter-book."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import nbformat
import yaml

from . import chapters, store

KEEP_METADATA = {"kernelspec", "language_info"}
ENVIRONMENT = {
    **{"PYTHONHASHSEED": "0", "SOURCE_DATE_EPOCH": "1795305600", "TQDM_DISABLE": "1"},
    **{"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
}
KERNELS = 4  # chapters that are executed at once, at most: each takes a gigabyte


class ChapterFailed(Exception):
    """A chapter stopped at an error: names the chapter, the cell and the error."""


class BuildFailed(Exception):
    """jupyter-book reported a warning or an error."""


def stage(out: Path, banner: str | None) -> Path:
    """Copy the book's sources into `out/source`; a banner is shown on top of every page.  Returns that folder."""
    root, source, mark = store.home(), out / "source", out / ".gitignore"
    if out.is_relative_to(root / "book") or (out.exists() and any(out.iterdir()) and not mark.exists()):
        raise ValueError(f"{out} holds other things; choose an empty or new folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    mark.write_text("# a rendered book: made by `vicarious book`, made anew by it\n*\n")
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir()
    shutil.copytree(
        root / "book",
        source / "book",
        ignore=shutil.ignore_patterns(".ipynb_checkpoints", "__pycache__"),
    )
    shutil.copy(root / "_toc.yml", source)
    settings = yaml.safe_load((root / "_config.yml").read_text())
    if banner:
        settings["sphinx"]["config"].setdefault("html_theme_options", {})["announcement"] = banner
    (source / "_config.yml").write_text(yaml.safe_dump(settings, sort_keys=False))
    return source


def execute(notebook: Path, parameters: dict) -> None:
    """Run a chapter in place with papermill and normalise it.  Raises ChapterFailed."""
    import papermill
    from traitlets.config import Config

    known = papermill.inspect_notebook(str(notebook))
    if strange := set(parameters) - set(known):
        raise chapters.BadParameter(
            f"{notebook.name} has no parameter {', '.join(sorted(strange))}; it has {', '.join(known)}"
        )
    try:
        with tempfile.TemporaryDirectory() as sockets:  # in the file system: nothing on the network
            papermill.execute_notebook(
                str(notebook),
                str(notebook),
                parameters,
                progress_bar=False,
                cwd=str(notebook.parent),
                kernel_name="python3",
                config=Config(KernelManager={"transport": "ipc", "ip": f"{sockets}/kernel"}),
            )
    except papermill.PapermillExecutionError as error:
        raise ChapterFailed(f"{notebook.stem}: cell {error.cell_index}: {error.ename}: {error.evalue}") from None
    normalise(notebook)


@contextlib.contextmanager
def surroundings():
    """The environment in which chapters are executed, whoever starts it: one thread each, where results are."""
    before = dict(os.environ)
    where = {"VICARIOUS_HOME": store.home(), "VICARIOUS_RUNS": store.Store().runs.resolve()}
    os.environ.update(ENVIRONMENT | {name: str(path) for name, path in where.items()})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def normalise(notebook: Path) -> None:
    """Make a notebook depend on its sources alone: no timings, no run metadata, cell ids by position."""
    content = nbformat.read(notebook, as_version=4)
    content.metadata = {k: v for k, v in content.metadata.items() if k in KEEP_METADATA}
    content.metadata.get("language_info", {}).pop("version", None)
    for index, cell in enumerate(content.cells):
        cell.id = f"cell-{index:02d}"
        kept = {k: v for k, v in cell.metadata.items() if k in {"tags", "mystnb"} and v}
        cell.metadata = nbformat.from_dict(kept)
        for output in cell.get("outputs", []):
            output.metadata = {k: v for k, v in output.get("metadata", {}).items() if k == "scrapbook"}
    nbformat.write(content, notebook)


def build(source: Path, out: Path) -> Path:
    """HTML from staged sources, warnings as errors; returns the index.  Raises BuildFailed with the warnings."""
    work = out / ".jupyter-book"
    shutil.rmtree(work, ignore_errors=True)
    command = [
        sys.executable,
        "-c",
        "from jupyter_book.cli.main import main; main()",
        "build",
        "-W",
        "-n",
        "--keep-going",
        "-q",
    ]
    done = subprocess.run(
        [*command, "--path-output", str(work), str(source)],
        capture_output=True,
        text=True,
        env=os.environ | ENVIRONMENT,
    )
    if done.returncode:
        log = out / "build.log"
        log.write_text(done.stdout + done.stderr)
        lines = [line for line in (done.stdout + done.stderr).splitlines() if "WARNING" in line or "ERROR" in line]
        raise BuildFailed("\n".join([*lines[:20], f"jupyter-book stopped; its whole output is in {log}"]))
    shutil.rmtree(out / "html", ignore_errors=True)
    shutil.move(work / "_build" / "html", out / "html")
    shutil.rmtree(work, ignore_errors=True)
    return out / "html" / "index.html"


def render(
    out: Path,
    only: list[str] | None = None,
    given: dict[str, str] | None = None,
    in_place: bool = False,
    workers: int = 2,
    say: Callable[[str], None] = print,
) -> Path:
    """Render the paper into `out`; returns the path of its index.

    only: chapters to execute anew (all by default; the rest keep their stored outputs).  given: parameters as text,
    each for every executed chapter that has it.  in_place: execute the repository's own notebooks.  Everything is
    validated before anything runs: BadParameter.
    """
    given, names = given or {}, only or list(chapters.CHAPTERS)
    parameters = _parameters(names, given)
    banner = _banner(parameters)
    where = store.home() if in_place else stage(out, banner)
    failed = _execute_all(where, parameters, workers, say)
    if in_place and not failed:
        where = stage(out, banner)
    say("building pages")
    index = build(where, out)
    if failed:
        raise ChapterFailed("\n".join([*failed, f"the other chapters are rendered: {index}"]))
    return index


def _execute_all(
    where: Path, parameters: dict[str, chapters.Parameters], workers: int, say: Callable[[str], None]
) -> list[str]:
    """Execute chapters, `KERNELS` at a time, each once its results are at hand; what went wrong, chapter by chapter.

    A chapter that failed keeps the outputs that it had.
    """
    failed, started = [], time.perf_counter()

    def run(name: str, values: chapters.Parameters) -> float:
        start, notebook = time.perf_counter(), where / "book" / f"{name}.ipynb"
        stored = notebook.read_bytes()
        try:
            execute(notebook, values.model_dump(exclude_defaults=True))
        except ChapterFailed:
            notebook.write_bytes(stored)
            raise
        return time.perf_counter() - start

    with surroundings(), ThreadPoolExecutor(max(1, min(workers, KERNELS))) as pool:
        running = {}
        for name, values in parameters.items():
            chapters.Source(values, workers=workers)
            running[pool.submit(run, name, values)] = name
        for number, done in enumerate(as_completed(running), 1):
            try:
                outcome = f"{done.result():.0f} s"
            except ChapterFailed as error:
                failed.append(str(error))
                outcome = f"failed: {error}"
            say(f"[{number}/{len(running)}] {running[done]} {outcome}")
    say(f"{len(parameters)} chapters in {time.perf_counter() - started:.0f} s")
    return failed


def _parameters(names: list[str], given: dict[str, str]) -> dict[str, chapters.Parameters]:
    """Validated parameters of each chapter; every given name must fit at least one of them."""
    have = {name: set(chapters.find(name).model_fields) for name in names}
    at_hand = store.Store()
    for key in given:
        if not any(key in fields for fields in have.values()):
            chapters.validate(
                names[0] if len(names) == 1 else max(have, key=lambda n: chapters.nearness(key, have[n])),
                {key: given[key]},
            )
    return {
        name: chapters.with_default_seeds(name, {k: v for k, v in given.items() if k in have[name]}, at_hand)
        for name in names
    }


def _banner(parameters: dict[str, chapters.Parameters]) -> str | None:
    """What differs from the published paper, or None where nothing does."""
    changes = {name: values.model_dump(exclude_defaults=True) for name, values in parameters.items()}
    parts = {name: ", ".join(f"{k} = {v}" for k, v in changed.items()) for name, changed in changes.items() if changed}
    if not parts:
        return None
    if len(parts) == sum(bool(c.model_fields) for c in chapters.CHAPTERS.values()) and len(set(parts.values())) == 1:
        parts = {"every chapter": parts.popitem()[1]}
    what = "; ".join(f"{name} with {change}" for name, change in parts.items())
    quick = any(getattr(p, "profile", "") == "quick" for p in parameters.values())
    aside = " The quick profile is too small to be competent: it tests the path, not the claim." if quick else ""
    return f"This is a variant of the paper: {what}. All else is as published.{aside}"
