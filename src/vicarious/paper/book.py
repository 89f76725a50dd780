"""Rendering the paper: stage its files, execute chapters with papermill, build the pages with jupyter-book."""

import base64
import contextlib
import fcntl
import hashlib
import io
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

import matplotlib
import matplotlib.pyplot as plt
import nbformat
import psutil
import yaml

from .. import store
from . import chapters

KEEP_METADATA = {"kernelspec", "language_info"}
ENVIRONMENT = {
    **{"PYTHONHASHSEED": "0", "SOURCE_DATE_EPOCH": "1795305600", "TQDM_DISABLE": "1", "JUPYTER_NO_CONFIG": "1"},
    **{"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
}
KERNEL = "import gc; gc.set_threshold(200_000); from ipykernel.kernelapp import launch_new_instance as go; go()"
INHERITED = re.compile(
    r"PATH|HOME|USER|LOGNAME|LANG|LC_\w+|TZ|TMPDIR|TEMP|TMP|SYSTEMROOT|LD_LIBRARY_PATH|DYLD_\w+|(CUDA|OPENBLAS|NPY|ATEN|VICARIOUS)_\w+"
)
SOCKETS = 60  # characters of the path of a folder in which sockets fit: theirs have at most 107
MARK = "# a rendered book"  # how the `.gitignore` of a folder begins that may be rendered into again
LARGEST_FILE = 1 << 14  # bytes of a parameter file
KERNELS = 4  # chapters that are executed at once, at most: each takes a gigabyte
PATIENCE = 5  # seconds for which kernels are stopped that are only being born


Given = dict[str, str] | None


class ChapterFailed(Exception):
    """A chapter stopped at an error: names the chapter, the cell and the error."""


class BuildFailed(Exception):
    """jupyter-book reported a warning or an error."""


def stage(out: Path, banner: str | None) -> Path:
    """Copy the book's sources into `out/source`; a banner is shown on top of every page.  Returns that folder."""
    root, source, mark = store.home(), out / "source", out / ".gitignore"
    rendered = mark.is_file() and mark.read_text().startswith(MARK)
    inside = out.is_relative_to(root / "book") or root.is_relative_to(out)
    if inside or (out.exists() and not rendered and (not out.is_dir() or any(out.iterdir()))):
        raise ValueError(f"{out} holds other things; choose an empty or new folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    mark.write_text(f"{MARK}: made by `vicarious book`, made anew by it\n*\n")
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir()
    shutil.copytree(root / "book", source / "book", ignore=shutil.ignore_patterns(".ipynb_checkpoints", "__pycache__"))
    shutil.copy(root / "_toc.yml", source)
    settings = yaml.safe_load((root / "_config.yml").read_text())
    if banner:
        settings["sphinx"]["config"].setdefault("html_theme_options", {})["announcement"] = banner
    (source / "_config.yml").write_text(yaml.safe_dump(settings, sort_keys=False))
    return source


def execute(notebook: Path, parameters: dict) -> None:
    """Run a chapter in place with papermill and normalise it.  Raises ChapterFailed, and leaves it as it was then."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from traitlets.config import Config

    normalise(notebook)  # its parameters are those that are declared now
    known = papermill.inspect_notebook(str(notebook))
    if strange := set(parameters) - set(known):
        wrong = f"{notebook.name} has no parameter {', '.join(sorted(strange))}; it has {', '.join(known)}"
        raise chapters.BadParameter(wrong)
    with tempfile.TemporaryDirectory(dir=_short()) as folder:
        done = Path(folder) / notebook.name
        try:
            papermill.execute_notebook(
                str(notebook),
                str(done),
                parameters,
                progress_bar=False,  # and no cwd: papermill would change that of all threads
                kernel_name="python3",
                config=Config(KernelManager={"transport": "ipc", "ip": f"{folder}/kernel"}),  # nothing on the network
                extra_arguments=["--log-level=CRITICAL"],  # when all is done it is interrupted: no error
            )
        except papermill.PapermillExecutionError as error:
            raise ChapterFailed(f"{notebook.stem}: cell {error.cell_index}: {error.ename}: {error.evalue}") from None
        except DeadKernelError:
            raise ChapterFailed(f"{notebook.stem}: its kernel died; is there enough memory?") from None
        except Exception as error:  # whatever keeps a kernel from starting
            why = " ".join(str(error).split())[:300]
            raise ChapterFailed(f"{notebook.stem}: it could not be executed: {type(error).__name__}: {why}") from error
        normalise(done)
        for index, cell in enumerate(nbformat.read(done, as_version=4).cells):
            shown = {mime for output in cell.get("outputs", []) for mime in output.get("data", {})}
            if "figure" in cell.metadata.get("mystnb", {}) and "image/png" not in shown:
                raise ChapterFailed(f"{notebook.stem}: cell {index} shows no figure")
        shutil.copy(done, notebook)


def _short() -> Path:
    """A folder for temporary files whose path leaves room for that of a socket.  Raises ValueError."""
    for folder in (usual := Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")):
        if len(str(folder)) <= SOCKETS and os.access(folder, os.W_OK):
            return folder
    raise ValueError(f"TMPDIR={usual} is too long for sockets: set it to a folder of at most {SOCKETS} characters")


@contextlib.contextmanager
def surroundings() -> Iterator[None]:
    """Where chapters are executed, whoever starts it: this interpreter and this package in an environment of their own.

    One thread each; no configuration of IPython, Jupyter or matplotlib is read, and the working directory is empty.
    """
    before, package = dict(os.environ), Path(__file__).resolve().parents[2]
    own = {"VICARIOUS_HOME": store.home(), "VICARIOUS_RUNS": store.Store().runs}
    if package.parent == store.home():  # a checkout: its code, wherever else one is installed
        own["PYTHONPATH"] = package
    with tempfile.TemporaryDirectory(prefix="vicarious-", dir=_short()) as folder:
        path = Path(folder)
        names = ("JUPYTER_PATH", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
        own |= dict.fromkeys((*names, "MPLCONFIGDIR"), path)
        kernel = path / "kernels" / "python3" / "kernel.json"
        kernel.parent.mkdir(parents=True)
        start = [sys.executable, "-c", KERNEL, "-f", "{connection_file}"]
        kernel.write_text(json.dumps({"argv": start, "display_name": "Python 3", "language": "python"}))
        for fonts in Path(matplotlib.get_cachedir()).glob("fontlist-*.json"):
            shutil.copy(fonts, path)  # looking for fonts takes seconds
        os.environ.clear()
        os.environ.update({name: value for name, value in before.items() if INHERITED.fullmatch(name)})
        os.environ.update(ENVIRONMENT | {name: str(value) for name, value in own.items()})
        try:
            with contextlib.chdir(path):
                yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def normalise(notebook: Path) -> None:
    """Make a notebook depend on its sources alone: parameters as declared, no timings, no run metadata, cell ids by
    position."""
    content = nbformat.read(notebook, as_version=4)
    model = chapters.CHAPTERS.get(notebook.stem)
    for cell in content.cells:
        if "parameters" in cell.metadata.get("tags", []) and model is not None:
            cell.source = chapters.declaration(model)
    content.metadata = {k: v for k, v in content.metadata.items() if k in KEEP_METADATA}
    content.metadata.get("language_info", {}).pop("version", None)
    for index, cell in enumerate(content.cells):
        cell.id = f"cell-{index:02d}"
        kept = {k: v for k, v in cell.metadata.items() if k in {"tags", "mystnb"} and v}
        cell.metadata = nbformat.from_dict(kept)
        for output in cell.get("outputs", []):
            if "metadata" in output:  # text has none
                output.metadata = {k: v for k, v in output.metadata.items() if k == "scrapbook"}
    nbformat.write(content, notebook)


def report_failure(notebook: Path, error: str) -> None:
    """Make a page say that it failed, and show nothing else: no stored output is under a label that is not its own."""
    page = nbformat.read(notebook, as_version=4)
    for cell in (cell for cell in page.cells if cell.cell_type == "code"):
        cell.outputs = []
        if "figure" in cell.metadata.get("mystnb", {}):
            cell.outputs.append(nbformat.v4.new_output("display_data", {"image/png": _nothing()}))
    text = "\n".join(f"    {line}" for line in error.replace("`", "'").splitlines())
    title, end = (
        "```{admonition} This chapter failed\n:class: danger",
        "None of its numbers and figures could be made.\n```",
    )
    said = "\n\n".join([title, text, end])
    page.cells.insert(1, nbformat.v4.new_markdown_cell(said, id="failed"))
    nbformat.write(page, notebook)


def _nothing() -> str:
    """A picture in place of one that could not be made, in base 64."""
    figure, buffer = plt.figure(figsize=(6, 0.6)), io.BytesIO()
    figure.text(0.5, 0.5, "this figure could not be made", ha="center", va="center", color="0.5")
    figure.savefig(buffer, format="png", dpi=80)
    plt.close(figure)
    return base64.b64encode(buffer.getvalue()).decode()


def fill_gaps(folder: Path) -> None:
    """Give every number that prose refers to and that a variant's chapters did not compute a text that says so."""
    wanted = chapters.numbers_shown(folder)
    pages = {path: nbformat.read(path, as_version=4) for path in sorted(folder.glob("*.ipynb"))}
    for path, page in pages.items():
        code = [cell for cell in page.cells if cell.cell_type == "code"]
        outputs = [output for cell in code for output in cell.outputs]
        there = {output.get("metadata", {}).get("scrapbook", {}).get("name") for output in outputs}
        gaps = sorted(wanted.get(path.name, set()) - there)
        for key in gaps:
            scrapbook = {"mime_prefix": "application/papermill.record/", "name": key}
            data = {"application/papermill.record/text/plain": "'(not in this variant)'"}
            code[-1].outputs.append(nbformat.v4.new_output("display_data", data, metadata={"scrapbook": scrapbook}))
        if gaps:
            nbformat.write(page, path)


def build_pages(source: Path, out: Path) -> Path:
    """HTML from staged sources, warnings as errors; returns the index.  Raises BuildFailed with the warnings."""
    work = out / ".jupyter-book"
    _jupyter_book(source, out, work, "html")
    shutil.rmtree(out / "html", ignore_errors=True)
    shutil.move(work / "_build" / "html", out / "html")
    shutil.rmtree(work, ignore_errors=True)
    return out / "html" / "index.html"


def _jupyter_book(source: Path, out: Path, work: Path, builder: str) -> None:
    shutil.rmtree(work, ignore_errors=True)
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build"]
    options = ["-W", "-n", "--keep-going", "-q", "--builder", builder, "--path-output", str(work)]
    how = {"capture_output": True, "text": True}
    done = subprocess.run([*command, *options, str(source)], **how)
    if done.returncode:
        log = out / "build.log"
        log.write_text(done.stdout + done.stderr)
        lines = [line for line in (done.stdout + done.stderr).splitlines() if "WARNING" in line or "ERROR" in line]
        raise BuildFailed("\n".join([*lines[:20], f"jupyter-book stopped; its whole output is in {log}"]))


def browser() -> str:
    """Where Chromium is.  Raises ValueError saying how to get it."""
    found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome", "chrome")]
    if not any(found):
        raise ValueError("a PDF of the paper needs Chromium to print it: apt-get install chromium")
    return next(path for path in found if path)


def print_pdf(source: Path, out: Path) -> Path:
    """The whole paper as one PDF: its pages as one, printed by Chromium.  Raises BuildFailed."""
    work, target = out / ".jupyter-book", out / "vicarious.pdf"
    _jupyter_book(source, out, work, "singlehtml")
    site = work / "_build" / "singlehtml"
    page = shutil.move(site / "book" / "index.html", site / "paper.html")  # its links are as from here
    parts = re.findall(r'(?:src|href)="(_(?:static|images)/[^"?#]+)', page.read_text())
    if absent := sorted({part for part in parts if not (site / unquote(part)).exists()}):
        raise BuildFailed(f"the paper in one page lacks {len(absent)} of its files, {absent[0]} first")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer", "--virtual-time-budget=30000"]
    command = [browser(), *options, f"--print-to-pdf={target}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or not target.exists():
        raise BuildFailed(f"Chromium could not print the paper: {done.stderr.strip()[-300:]}")
    shutil.rmtree(work, ignore_errors=True)
    return target


def pack(source: Path, out: Path) -> Path:
    """One zip to take away: the site, which needs no server, the notebooks as executed, and the published data."""
    target = out / "vicarious.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        parts = {"site": out / "html", "notebooks": source / "book", "data": store.home() / "data"}
        for name, folder in parts.items():
            for path in sorted(p for p in folder.rglob("*") if p.is_file()):
                stored = path.suffix in {".parquet", ".safetensors", ".png", ".woff2"}  # compressed as they are
                kind = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
                archive.write(path, f"vicarious/{name}/{path.relative_to(folder)}", kind)
    return target


def render(
    out: Path, only: Sequence[str] = (), given: Given = None, by_chapter: dict[str, dict[str, str]] | None = None,
    in_place: bool = False, workers: int = 2, say: Callable[[str], None] = print, extra: Sequence[Callable] = (),
) -> Path:  # fmt: skip
    """Render the paper into `out`; returns the path of its index.

    only: chapters to execute anew (all by default; the rest keep their stored outputs).  given: parameters as text,
    each for every executed chapter that has it; by_chapter: those of single chapters, which come first.  in_place:
    execute the repository's own notebooks.  Everything is validated before anything runs: BadParameter.  The page of
    a chapter that fails says so and shows nothing else; the others are rendered, then ChapterFailed names it.  extra:
    `print_pdf` or `pack`, what is made of the site beside its pages.
    """
    out, names = out.resolve(), list(only) or list(chapters.CHAPTERS)
    parameters = _parameters(names, given or {}, by_chapter or {})
    banner = _banner(parameters)
    with surroundings(), _alone(out):
        where = store.home() if in_place else stage(out, banner)
        failed = _execute_all(where, parameters, workers, say)
        where = stage(out, banner) if in_place else where
        for name, error in failed.items():
            report_failure(where / "book" / f"{name}.ipynb", error)
        if banner or failed:
            fill_gaps(where / "book")
        say("building pages")
        index = build_pages(where, out)
        for make in extra:
            say(f"{make.__name__.replace('_', ' ')}: {make(where, out)}")
    if failed:
        raise ChapterFailed("\n".join([*failed.values(), f"the other chapters are rendered: {index}"]))
    return index


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """One rendering into a folder at a time.  Raises ValueError where another one is under way."""
    name = hashlib.sha256(f"{os.getuid()}/{out}".encode()).hexdigest()[:16]
    with open(_short() / f"vicarious-{name}.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another rendering into {out} is under way: wait for it, or choose another --out"
            ) from None
        yield


def _execute_all(
    where: Path, parameters: dict[str, chapters.Parameters], workers: int, say: Callable
) -> dict[str, str]:
    """Execute chapters, `KERNELS` at a time, each once its results are at hand; what went wrong, by chapter.

    A chapter that failed, or was stopped, keeps the outputs that it had.
    """
    failed, started, finished = {}, time.perf_counter(), queue.SimpleQueue()
    free, over, threads = threading.Semaphore(max(1, min(workers, KERNELS))), threading.Event(), []

    def run(name: str, values: chapters.Parameters) -> None:
        with free:
            start = time.perf_counter()
            try:
                if not over.is_set():
                    execute(where / "book" / f"{name}.ipynb", values.model_dump(exclude_defaults=True))
                finished.put((name, time.perf_counter() - start))
            except Exception as error:
                finished.put((name, error))

    try:
        for name, values in parameters.items():
            chapters.Source(name, values.model_dump(), workers=workers)
            threads.append(threading.Thread(target=run, args=(name, values), daemon=True))
            threads[-1].start()
        for number in range(len(parameters)):
            name, outcome = finished.get()
            if isinstance(outcome, ChapterFailed):
                failed[name] = str(outcome)
            elif isinstance(outcome, Exception):
                raise outcome
            told = f"failed: {outcome}" if name in failed else f"{outcome:.0f} s"
            say(f"[{number + 1}/{len(parameters)}] {name} {told}")
    except BaseException:
        over.set()
        _stop_kernels(threads)
        raise
    say(f"{len(parameters)} chapters in {time.perf_counter() - started:.0f} s")
    return failed


def _stop_kernels(threads: list[threading.Thread]) -> None:
    """Kill the kernels of chapters under way, those too that are only being born, until nobody runs any."""
    end = time.monotonic() + PATIENCE
    while any(thread.is_alive() for thread in threads) and time.monotonic() < end:
        for process in psutil.Process().children():
            with contextlib.suppress(psutil.Error):
                if KERNEL in process.cmdline():
                    process.kill()
        time.sleep(0.05)


def read_parameters(path: Path) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """A variant from YAML: NAME: VALUE for every chapter that has it, and CHAPTER: {NAME: VALUE}.

    Raises ValueError in one line where the file is not that.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ValueError(f"it has more than {LARGEST_FILE:,} bytes")
        content = yaml.safe_load(path.read_text())
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from None
    shape = f"{path} must map parameters to values, and chapters to such a mapping, as in `03-similarity: {{seeds: 5}}`"
    if not isinstance(content, dict) or not content:
        raise ValueError(shape)
    given, by_chapter = {}, {}
    for key, value in content.items():
        if isinstance(value, dict):
            chapters.find(str(key))
            by_chapter[str(key)] = value
        elif str(key) in chapters.CHAPTERS:
            raise ValueError(f"{shape}; {key} is a chapter")
        else:
            given[str(key)] = value
    values = [*given.values(), *(v for own in by_chapter.values() for v in own.values())]
    if any(not isinstance(v, (str, int, float)) for v in values):
        raise ValueError(f"{shape}; values are text or numbers")
    text = lambda own: {str(k): str(v) for k, v in own.items()}  # noqa: E731
    return text(given), {chapter: text(own) for chapter, own in by_chapter.items()}


def _parameters(
    names: list[str], given: dict[str, str], by_chapter: dict[str, dict[str, str]]
) -> dict[str, chapters.Parameters]:
    """Validated parameters of each chapter; every given name must fit at least one of them."""
    if missed := set(by_chapter) - set(names):
        raise chapters.BadParameter(f"there are parameters of {', '.join(sorted(missed))}, which --only leaves out")
    have = {name: set(chapters.find(name).model_fields) for name in names}
    at_hand = store.Store()
    for key in given:
        if not any(key in fields for fields in have.values()):
            nearest = max(names, key=lambda name: chapters.likeness(key, have[name]))
            chapters.validate(nearest, {key: given[key]})
    own = {name: {k: v for k, v in given.items() if k in have[name]} | by_chapter.get(name, {}) for name in names}
    return {name: chapters.with_default_seeds(name, values, at_hand) for name, values in own.items()}


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
