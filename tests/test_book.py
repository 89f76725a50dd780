"""Claims about the book: its notebooks are executed and normalised, and rendering leaves the repository as it is."""

import ast
import gzip
import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote, urlparse

import nbformat
import papermill
import psutil
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import vicarious
from vicarious import metrics
from vicarious.paper import book, chapters, results, studies, verdicts
from vicarious.store import Store, home

ROOT = home()
NOTEBOOKS = sorted((ROOT / "book").glob("*.ipynb"))


def read(path):
    return nbformat.read(path, as_version=4)


def test_every_chapter_has_a_parameter_model_and_a_place_in_the_book():
    listed = {
        entry["file"].removeprefix("book/") for entry in yaml.safe_load((ROOT / "_toc.yml").read_text())["chapters"]
    }
    assert {p.stem for p in NOTEBOOKS} == set(chapters.CHAPTERS) <= listed


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_chapters_are_executed_in_order_without_error(path):
    cells = [c for c in read(path).cells if c.cell_type == "code"]
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
    kinds = {output.output_type for c in cells for output in c.outputs}
    assert "error" not in kinds
    streams = [output.name for c in cells for output in c.outputs if output.output_type == "stream"]
    assert "stderr" not in streams, "a warning is stored in the chapter"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_chapters_are_normalised(path, tmp_path):
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    book.normalise(copy)
    assert copy.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_the_parameter_cell_says_what_the_model_says(path):
    model, found = chapters.CHAPTERS[path.stem], papermill.inspect_notebook(str(path))
    assert set(found) == set(model.model_fields)
    for name, field in model.model_fields.items():
        assert ast.literal_eval(found[name]["default"]) == field.default
        assert found[name]["help"], f"{name} has no comment"
        assert found[name]["inferred_type_name"] in {"str", "int", "float"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_numbers_in_the_prose_are_glued(path):
    """No decimal that looks like a result is typed: prose may hold thresholds and settings of the design."""
    allowed = {".10", ".05", ".9", ".95", ".1", ".2", ".25", ".001", ".03", ".5", "0.8", "0.95"}
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            text = re.sub(r"\{[a-z:]+\}`[^`]*`|`[^`]*`", "", cell.source)
            assert set(re.findall(r"\d*\.\d+", text)) <= allowed, cell.source


def test_the_published_study_is_whole_and_its_reference_agents_are_competent_and_foresee_others():
    store, runs = Store(), studies.everything("paper")
    assert all(run.address in store.published["results"] for run in runs)
    found, planned = results.gather(runs, store), studies.PROFILES["paper"]
    gates = found.pick("gates", rewards="own")
    for family in studies.ENCODERS:
        own = gates[gates.family == family]
        assert own.groupby(["readout", "company"]).passed.mean().ge(metrics.PASSING).all()
        met = own[own.readout == "reward"].groupby("company").size()
        assert met.to_dict() == {0.0: planned.seeds} | dict.fromkeys(studies.COMPANY[1:], planned.sweep)
        seeds = sorted(own.seed.unique())
        assert found.decodable(seeds, family)
        assert (found.foreseen(seeds, family) >= verdicts.FORESEEN).mean() >= metrics.PASSING
    for family in studies.PRIVILEGED:
        told = found.agents("gates", family, company=1.0)
        assert told[told.readout == "reward"].passed.mean() >= metrics.PASSING
    weights = [n for n in store.published["files"] if n.startswith("weights/")]
    assert len(weights) >= (2 + 4) * min(studies.WEIGHTS, planned.seeds), "world models, and heads of both ends"


def test_what_is_published_of_the_instrument_is_exact():
    store, runs = Store(), studies.calibration("paper")
    battery = next(run for run in runs if run.stage == "battery")
    assert chapters.calibration.is_exact(chapters.calibration.published_exactness(battery, store))


def test_every_chapter_says_of_a_prediction_what_the_page_of_verdicts_says():
    """A chapter's Holm counts what it does not read as if p were 1, which could undo a verdict on its page alone."""
    said = {}
    for name in chapters.CHAPTERS:
        cells = nbformat.read(ROOT / "book" / f"{name}.ipynb", as_version=4).cells
        printed = "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))
        said[name] = dict(line.split(": ", 1) for line in printed.splitlines() if ": " in line)
    for row in (row for row in chapters.PREDICTIONS if row.live):
        assert said[row.chapter][row.id] == said["verdicts"][row.id], row.id


def pins(text):
    return dict(re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;]+)", text, re.M))


@pytest.mark.exact
def test_environment_lock_and_project_agree():
    locked = {k.lower().replace("_", "-"): v for k, v in pins((ROOT / "requirements.lock").read_text()).items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    extras.pop("language")  # an encoder whose codes are published, so that no page needs it
    assert all("==" in peer for peer in extras.pop("bench")), (
        "peers live in an environment of their own, at exact versions"
    )
    wanted = [*project["dependencies"], *(r for group in extras.values() for r in group)]
    for requirement in map(Requirement, wanted):
        name = requirement.name.lower().replace("_", "-")
        assert name in locked and locked[name] in requirement.specifier, requirement
    assert locked["torch"] == "2.13.0"
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert {"pip": ["-r requirements.lock", "-e ."]} in conda
    least = project["requires-python"].removeprefix(">=")
    python = next(d for d in conda if isinstance(d, str) and d.startswith("python="))
    assert least.startswith(python.removeprefix("python=") + "."), "of which conda takes the newest"
    for name in locked:
        needs = SpecifierSet(importlib.metadata.metadata(name).get("Requires-Python", ""))
        assert least in needs, f"{name} needs Python {needs}: say so as requires-python"
    assert f"Python {least} or newer" in (ROOT / "README.md").read_text()
    assert str(tuple(map(int, least.split(".")))) in (ROOT / "Makefile").read_text()


def test_seeds_default_to_those_with_weights_where_training_is_needed(store):
    target = Store(store.runs, ROOT / "data")
    planned, some = studies.PROFILES["paper"].seeds, min(studies.WEIGHTS, studies.PROFILES["paper"].seeds)
    assert chapters.with_default_seeds("04-misgeneralisation", {"similarity": "0.7"}, target).seeds == planned
    assert chapters.with_default_seeds("04-misgeneralisation", {"head_width": "64"}, target).seeds == some
    assert chapters.with_default_seeds("04-misgeneralisation", {"head_width": "64", "seeds": "3"}, target).seeds == 3
    assert chapters.with_default_seeds("verdicts", {"profile": "quick"}, target).seeds == 3
    assert chapters.with_default_seeds("verdicts", {}, Store(store.runs, store.data)).seeds == planned, (
        "nothing shrinks unasked"
    )


def status():
    return subprocess.run(["git", "-C", str(ROOT), "status", "--porcelain"], capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def variant(tmp_path_factory):
    """The command of the README, run as it stands."""
    from click.testing import CliRunner

    from vicarious.cli import app

    before, out = status(), tmp_path_factory.mktemp("variant")
    words = "book --only 04-misgeneralisation -p similarity 0.7 -p seeds 2 --out".split()
    shown = CliRunner().invoke(app, [*words, str(out)])
    assert shown.exit_code == 0, shown.output
    assert status() == before, "rendering a variant changed the repository"
    return out, shown.output


def test_a_variant_is_rendered_with_its_values_and_says_so(variant):
    out, output = variant
    index = out / "html" / "index.html"
    assert str(index) in output.splitlines()[-1] and index.exists()
    chapter = read(out / "source" / "book" / "04-misgeneralisation.ipynb")
    injected = next(c for c in chapter.cells if "injected-parameters" in c.metadata.get("tags", []))
    assert "similarity = 0.7" in injected.source and "seeds = 2" in injected.source
    text = "".join(str(o.get("text", "")) for c in chapter.cells for o in c.get("outputs", []))
    assert "n = 2" in text and "not as preregistered" in text
    for page in ("index", "04-misgeneralisation"):
        html = (out / "html" / "book" / f"{page}.html").read_text()
        assert "variant of the paper" in html and "similarity = 0.7" in html


def test_the_other_chapters_of_a_variant_keep_their_stored_outputs(variant):
    out, _ = variant
    for path in NOTEBOOKS:
        if path.stem != "04-misgeneralisation":
            assert (out / "source" / "book" / path.name).read_bytes() == path.read_bytes()


def test_a_failing_chapter_is_named_with_its_cell_and_error(tmp_path):
    path = tmp_path / "broken.ipynb"
    cells = [
        nbformat.v4.new_code_cell("seeds: int = 1", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("1 / 0"),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)
    with pytest.raises(book.ChapterFailed, match=r"broken: cell 1: ZeroDivisionError"):
        book.execute(path, {})
    cells[1].source = "import os; os._exit(1)"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)
    with pytest.raises(book.ChapterFailed, match=r"broken: its kernel died"):
        book.execute(path, {})
    with pytest.raises(chapters.BadParameter, match="no parameter nonsense"):
        book.execute(path, {"nonsense": 1})


def test_chapters_executed_side_by_side_leave_the_working_directory_alone(tmp_path):
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    paths, before, seen = [tmp_path / str(i) / "one.ipynb" for i in range(3)], os.getcwd(), set()
    for i, path in enumerate(paths):
        path.parent.mkdir()
        cell = nbformat.v4.new_code_cell(f"import time; time.sleep({i / 2})", metadata={"tags": ["parameters"]})
        nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=kernel), path)
    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(book.execute, path, {}) for path in paths]
        while not all(future.done() for future in running):
            seen.add(os.getcwd())
            time.sleep(0.05)
        for future in running:
            future.result()
    assert seen == {before} and os.getcwd() == before


def test_a_chapter_that_fails_does_not_stop_the_others_and_shows_nothing_that_is_not_its_own(tmp_path, monkeypatch):
    run, out = book.execute, tmp_path / "out"

    def some_fail(notebook, parameters):
        if notebook.stem == "03-similarity":
            raise book.ChapterFailed("03-similarity: cell 4: ZeroDivisionError: division by `zero`")
        run(notebook, parameters)

    monkeypatch.setattr(book, "execute", some_fail)
    said = []
    with pytest.raises(book.ChapterFailed, match=r"03-similarity: cell 4: ZeroDivisionError") as failed:
        book.render(out, ["03-similarity", "preregistration"], say=said.append)
    assert "the other chapters are rendered" in str(failed.value)
    assert any("preregistration" in line and "failed" not in line for line in said)
    html = (out / "html" / "book" / "03-similarity.html").read_text()
    assert "This chapter failed" in html and "03-similarity: cell 4: ZeroDivisionError" in html
    stored = read(ROOT / "book" / "03-similarity.ipynb").cells
    pictures = [o.data["image/png"] for c in stored for o in c.get("outputs", []) if "image/png" in o.get("data", {})]
    shown = read(out / "source" / "book" / "03-similarity.ipynb").cells
    now = {o.data.get("image/png") for c in shown for o in c.get("outputs", [])}
    assert pictures and not now & set(pictures)
    texts = [t for c in shown for o in c.get("outputs", []) for m, t in o.data.items() if "text/plain" in m]
    assert texts and set(texts) == {"'(not in this variant)'"}


def notebook(path, *sources, **figure):
    """A chapter of these cells, the last of which has this metadata of a figure."""
    cells = [nbformat.v4.new_code_cell("seeds: int = 1", metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    cells[-1].metadata["mystnb"] = figure
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)
    return path


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """Surroundings in which the wrong kernel, backend, modules and settings are at hand."""
    home = tmp_path / "home"
    files = {
        ".ipython/profile_default/startup/first.py": "SPOILT = True",
        ".ipython/profile_default/ipython_kernel_config.py": "c.InlineBackend.figure_formats = {'svg'}",
        ".jupyter/jupyter_config.py": "c.NotebookClient.timeout = 1",
        ".config/matplotlib/matplotlibrc": "font.size: 31",
        "matplotlibrc": "font.size: 32",
        "seaborn.py": "raise RuntimeError('shadowed')",
        "share/kernels/python3/kernel.json": '{"argv": ["/bin/false"], "display_name": "no", "language": "python"}',
    }
    for name, text in files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    (long := tmp_path / ("t" * 125)).mkdir()
    settings = {
        **{"HOME": home, "MPLBACKEND": "Agg", "MATPLOTLIBRC": home / "matplotlibrc", "TMPDIR": long},
        **{
            "IPYTHONDIR": home / ".ipython",
            "JUPYTER_PATH": home / "share",
            "PYTHONPATH": home,
            "PYTHONSTARTUP": "none",
        },
        **{"JUPYTER_CONFIG_DIR": home / ".jupyter", "OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "7"},
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr("tempfile.tempdir", None)  # is looked up anew
    monkeypatch.chdir(home)


def test_nothing_of_the_surroundings_gets_into_a_chapter(hostile, tmp_path):
    tell = (
        "import json, os, sys, matplotlib, seaborn, vicarious\n"
        "names = sorted(k for k in os.environ if k.startswith(('MPL', 'PYTHON', 'IPYTHON', 'OMP')))\n"
        "print(json.dumps([sys.executable, vicarious.__file__, 'SPOILT' in globals(), os.environ['PYTHONHASHSEED'],"
        " os.environ['OMP_NUM_THREADS'], matplotlib.rcParams['font.size'], names]))"
    )
    path = notebook(tmp_path / "a.ipynb", tell, "matplotlib.pyplot.plot([1, 2])", figure={"name": "one"})
    before, where = dict(os.environ), os.getcwd()
    with book.surroundings():
        book.execute(path, {})
    assert dict(os.environ) == before and os.getcwd() == where
    told, shown = read(path).cells[1].outputs, read(path).cells[2].outputs
    python, package, spoilt, hashes, threads, size, names = json.loads(told[0].text)
    assert (python, package) == (sys.executable, vicarious.__file__)
    assert (spoilt, hashes, threads, size) == (False, "0", "1", 10.0)
    assert not {"PYTHONSTARTUP", "MATPLOTLIBRC"} & set(names)
    assert "image/png" in shown[-1].data and "image/svg+xml" not in shown[-1].data


def test_a_cell_that_should_show_a_figure_and_does_not_is_a_failed_chapter(tmp_path):
    path = notebook(tmp_path / "bare.ipynb", "2", figure={"name": "one"})
    with pytest.raises(book.ChapterFailed, match="bare: cell 1 shows no figure"):
        book.execute(path, {})


def test_a_kernel_that_does_not_start_is_one_line(tmp_path, monkeypatch):
    path = notebook(tmp_path / "a.ipynb", "2")
    monkeypatch.setattr("sys.executable", "/bin/false")
    with book.surroundings(), pytest.raises(book.ChapterFailed, match="a: ") as failed:
        book.execute(path, {})
    assert len(str(failed.value).splitlines()) == 1


def test_where_no_socket_fits_it_is_said_in_one_line(monkeypatch):
    monkeypatch.setattr(book, "SOCKETS", 2)
    with pytest.raises(ValueError, match=r"TMPDIR=.* is too long for sockets: set it to a folder of at most 2 char"):
        with book.surroundings():
            pass


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_rendering_that_is_stopped_ends_within_seconds_and_takes_its_kernels_along(sent, tmp_path):
    command = [sys.executable, "-m", "vicarious.cli", "book", "--only", "05-continuity", "--out", str(tmp_path / "out")]
    heard = lambda: signal.signal(sent, signal.SIG_DFL)  # background jobs of a shell are deaf to some  # noqa: E731
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    watched = psutil.Process(process.pid)
    deadline, kernels = time.monotonic() + 60, []
    while not kernels and time.monotonic() < deadline:
        time.sleep(0.2)
        kernels = [p for p in watched.children() if book.KERNEL in p.cmdline()]
    assert kernels and process.poll() is None
    own = [Path(word).parent for word in kernels[0].environ().values() if "/vicarious-" in word]
    start = time.monotonic()
    process.send_signal(sent)
    _, told = process.communicate(timeout=60)
    assert time.monotonic() - start < 10 and process.returncode == 128 + sent, told
    assert told.strip().splitlines()[-1].startswith("vicarious: stopped; what was trained is stored")
    assert not any(kernel.is_running() and kernel.status() != psutil.STATUS_ZOMBIE for kernel in kernels)
    assert own and not [path for path in own if path.name.startswith("vicarious-") and path.exists()]


def test_a_folder_that_holds_anything_else_is_not_rendered_into(tmp_path, monkeypatch):
    (tmp_path / "project" / "source").mkdir(parents=True)
    (tmp_path / "project" / "source" / "main.c").write_text("int main;")
    (tmp_path / "project" / ".gitignore").write_text("*.o\n")
    (tmp_path / "file").write_text("text")
    for out in (tmp_path / "project", tmp_path / "file", ROOT, ROOT.parent, ROOT / "book" / "x"):
        with pytest.raises(ValueError, match="holds other things; choose an empty or new folder"):
            book.stage(out, None)
    assert (tmp_path / "project" / "source" / "main.c").exists()
    for _ in range(2):  # its own may be made anew
        book.stage(tmp_path / "new", None)


def test_two_renderings_into_one_folder_are_one_too_many(tmp_path):
    with book._alone(tmp_path), pytest.raises(ValueError, match=r"another rendering into .* is under way"):
        book.render(tmp_path, ["preregistration"], say=lambda _: None)


@pytest.mark.slow
def test_a_rendering_needs_neither_output_nor_a_backend(tmp_path):
    command = [sys.executable, "-m", "vicarious.cli", "book", "--only", "preregistration", "--out", str(tmp_path / "o")]
    closed = ["sh", "-c", '"$@" >&- <&-', "sh", *command]
    done = subprocess.run(closed, stderr=subprocess.PIPE, text=True, env=os.environ | {"MPLBACKEND": "nonsense"})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o" / "html" / "index.html").exists()


def test_a_warning_stops_the_build(tmp_path):
    source = book.stage(tmp_path, None)
    page = source / "book" / "log.md"
    page.write_text(page.read_text() + "\n[nowhere](nowhere.md)\n")
    with pytest.raises(book.BuildFailed, match="nowhere"):
        book.build_pages(source, tmp_path)


def test_everything_can_be_taken_away_in_one_file(variant):
    out, _ = variant
    target = book.pack(out / "source", out)
    with zipfile.ZipFile(target) as archive:
        names = set(archive.namelist())
        assert archive.testzip() is None
    assert {"vicarious/site/index.html", "vicarious/data/manifest.parquet"} <= names
    assert {f"vicarious/notebooks/{p.name}" for p in NOTEBOOKS} <= names
    target.unlink()


def test_the_paper_is_one_pdf(variant):
    try:
        book.browser()
    except ValueError as missing:
        pytest.skip(str(missing))
    content = book.print_pdf(variant[0] / "source", variant[0]).read_bytes()
    assert content.startswith(b"%PDF") and len(re.findall(rb"/Type\s*/Page[^s]", content)) >= 20
    figures = sum("figure" in c.metadata.get("mystnb", {}) for path in NOTEBOOKS for c in read(path).cells)
    pictures = len(re.findall(rb"/Subtype\s*/Image", content))
    assert pictures >= figures > 10, "every figure is in it"
    assert len(re.findall(rb"/FontName\s*/\w+\+?(?!Times|DejaVuSerif)", content)) > 2, "it is styled"


def test_a_pdf_without_chromium_says_what_it_needs(monkeypatch, tmp_path):
    from click.testing import CliRunner

    from vicarious.cli import app

    monkeypatch.setattr("shutil.which", lambda name: None)
    shown = CliRunner().invoke(app, ["book", "--pdf", "--out", str(tmp_path / "out")])
    assert shown.exit_code == 2 and "apt-get install chromium" in shown.output and not (tmp_path / "out").exists()


PACKED = {".png", ".gif", ".woff2", ".webp"}
PAGES = ("index", "log", *chapters.CHAPTERS)


@pytest.fixture(scope="module")
def browser():
    sync = pytest.importorskip("playwright.sync_api")
    try:
        path = book.browser()
    except ValueError as missing:
        pytest.skip(str(missing))
    quiet = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    with sync.sync_playwright() as p:
        running = p.chromium.launch(executable_path=path, args=quiet)
        yield running
        running.close()


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_whole_offline_and_fit_a_phone(variant, browser, name):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    errors, requests = [], []
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else requests.append(r.url))
    page.goto((variant[0] / "html" / "book" / f"{name}.html").as_uri())
    page.wait_for_timeout(300)
    assert (errors, requests) == ([], [])
    assert page.evaluate("[...document.images].filter(i => !i.naturalWidth).length") == 0
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    assert page.evaluate("[...document.images].filter(i => !i.alt).length") == 0
    page.close()


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_light(variant, browser, name):
    """What a first visit transfers: the page and everything that it asks for, text compressed as web servers do."""
    page, read = browser.new_page(viewport={"width": 1280, "height": 900}), set()
    page.on("request", lambda r: read.add(r.url) if r.url.startswith("file:") else None)
    page.goto((variant[0] / "html" / "book" / f"{name}.html").as_uri())
    page.wait_for_timeout(300)
    files = {Path(unquote(urlparse(url).path)) for url in read}
    sizes = [len(f.read_bytes() if f.suffix in PACKED else gzip.compress(f.read_bytes())) for f in files if f.is_file()]
    assert len(sizes) > 5 and sum(sizes) < 3e6
    page.close()


def test_the_links_within_the_book_lead_somewhere(variant, browser):
    page, broken = browser.new_page(), []
    for name in PAGES:
        page.goto((variant[0] / "html" / "book" / f"{name}.html").as_uri())
        for url in page.evaluate("[...document.links].map(a => a.href).filter(u => u.startsWith('file:'))"):
            target = urlparse(url)
            path = Path(unquote(target.path))
            ids = f'id="{target.fragment}"'
            if not path.is_file() or (target.fragment and path.suffix == ".html" and ids not in path.read_text()):
                broken.append((name, url))
    assert not broken
    page.close()


def test_what_a_variant_did_not_compute_says_so_and_nothing_else_changes(tmp_path):
    code = nbformat.v4.new_code_cell("1", outputs=[])
    scrapbook = {"scrapbook": {"mime_prefix": "application/papermill.record/", "name": "there"}}
    data = {"application/papermill.record/text/plain": "'0.5'"}
    code.outputs = [nbformat.v4.new_output("display_data", data, metadata=scrapbook)]
    prose = nbformat.v4.new_markdown_cell("{glue:text}`there:s` and {glue:text}`gone:s` and {glue:text}`b.ipynb::far`")
    for name, cells in (("a", [prose, code]), ("b", [nbformat.v4.new_code_cell("2")])):
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
    (tmp_path / "index.md").write_text("{glue:text}`a.ipynb::away`")
    book.fill_gaps(tmp_path)
    told = {}
    for name in "ab":
        for cell in nbformat.read(tmp_path / f"{name}.ipynb", as_version=4).cells:
            for output in cell.get("outputs", []):
                told[name, output.metadata.scrapbook.name] = next(iter(output.data.values()))
    nothing = "'(not in this variant)'"
    assert told == {("a", "there"): "'0.5'", **dict.fromkeys([("a", "gone"), ("a", "away"), ("b", "far")], nothing)}
