"""Claims about input that is malformed, oversized or hostile: one clear error, no traceback, nothing half written.

Ten thousand cases: configurations, parameters, variants, manifests, tables and weights.
"""

import json
import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from conftest import reseal, tiny_study
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from vicarious import cli, config, execute
from vicarious.paper import book, chapters, results, studies
from vicarious.store import CorruptResult, Store, sha256

fuzzed = settings(deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
CASES = {
    "config": 1600,
    "parameters": 2600,
    "variant": 1500,
    "cached": 1200,
    "published": 800,
    "files": 2000,
    "cli": 300,
}
words = st.text(st.characters(codec="utf-8"), max_size=12)
scalars = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | words
values = st.recursive(scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(words, v, max_size=3), max_leaves=6)
numbers = st.sampled_from(
    ["nan", "inf", "-inf", "1e999", "-0", "1_0", "0x10", "1e-320", "9" * 5000, "٣", "", " 5 ", "True"]
)
texts = words | numbers | st.integers().map(str) | st.floats().map(str)


def one_line(error: BaseException) -> str:
    text = str(error)
    assert text and len(text) < 4000, "it says what is wrong, and not everything else"
    return text


@st.composite
def mutated(draw, content):
    """JSON content with one of its parts replaced, removed or added to."""
    content = json.loads(json.dumps(content))
    at = content
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys:
            break
        key = draw(st.sampled_from(keys))
        if isinstance(at[key], (dict, list)) and draw(st.booleans()):
            at = at[key]
            continue
        what = draw(st.sampled_from(["replace", "remove", "add"]))
        if what == "replace":
            at[key] = draw(values)
        elif what == "remove":
            del at[key]
        elif isinstance(at, dict):
            at[draw(words)] = draw(values)
        else:
            at.append(draw(values))
        break
    return content


@st.composite
def damaged(draw, content: bytes):
    """Bytes cut, overwritten or lengthened somewhere, or other ones."""
    what = draw(st.sampled_from(["cut", "overwrite", "insert", "other"]))
    at, own = draw(st.integers(0, len(content))), draw(st.binary(min_size=1, max_size=40))
    if what == "cut":
        return content[:at]
    if what == "overwrite":
        return content[:at] + own + content[at + len(own) :]
    return own if what == "other" else content[:at] + own + content[at:]


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A tiny study, cached and published, to be damaged."""
    folder = tmp_path_factory.mktemp("kept")
    store, cells = Store(folder / "runs", folder / "data"), tiny_study()
    execute.fill(cells, store, workers=0, device="cpu")
    stages, _ = studies.publication(cells)
    store.publish(stages, [c for c in stages if isinstance(c, (config.Model, config.Battery))])
    return store, cells


@given(st.data())
@settings(fuzzed, max_examples=CASES["config"])
def test_any_configuration_is_taken_or_refused(data):
    stages = [*tiny_study(), tiny_study()[1].find(config.Model), tiny_study()[1].heads, studies.Simulations()]
    stage = data.draw(st.sampled_from(stages))
    content = data.draw(mutated(stage.model_dump(mode="json")) | values)
    try:
        found = type(stage).model_validate(content)
    except ValueError as error:
        one_line(error)
    else:
        assert type(stage).model_validate(found.model_dump(mode="json")).address == found.address


@given(st.data())
@settings(fuzzed, max_examples=CASES["parameters"])
def test_any_parameters_are_taken_or_refused_in_one_line(data):
    chapter = data.draw(st.sampled_from(list(chapters.CHAPTERS)) | words)
    known = list(chapters.CHAPTERS[chapter].model_fields) if chapter in chapters.CHAPTERS else []
    name = (st.sampled_from(known) | words) if known else words
    given_ = data.draw(st.dictionaries(name, texts, max_size=3))
    try:
        found = chapters.validate(chapter, given_)
    except ValueError as error:
        assert "\n" not in one_line(error)
    else:
        for name, field in type(found).model_fields.items():
            if field.annotation is float:
                value = getattr(found, name)
                assert value == value and abs(value) < 1e6, "within its range, and a number"


@given(st.data())
@settings(fuzzed, max_examples=CASES["variant"])
def test_any_variant_is_taken_or_refused_in_one_line(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "variant.yml"
    as_json = values.map(lambda v: json.dumps(v, ensure_ascii=False).encode("utf-8", "replace"))
    deep = st.integers(1, 400).map(lambda n: b"[" * n) | st.integers(1, 20_000).map(lambda n: b"{a: " * n)
    usual = b"03-similarity: {seeds: 5}\nsimilarity: 0.5\n"
    path.write_bytes(data.draw(as_json | deep | damaged(usual) | st.binary(max_size=60)))
    try:
        given_, by_chapter = book.read_parameters(path)
    except ValueError as error:
        assert "\n" not in one_line(error)
    else:
        texts_ = [*given_.items(), *(item for own in by_chapter.values() for item in own.items())]
        assert all(isinstance(k, str) and isinstance(v, str) for k, v in texts_)


def read_all(store: Store, cells) -> None:
    """Whatever a chapter would read, of results or tables."""
    try:
        for cell in cells:
            if store.has(cell.address):
                store.read(cell.address)
        agents = [cell for cell in cells if isinstance(cell, (config.Responses, config.Codes))]
        if agents := [cell for cell in agents if store.has(cell.address)]:
            results.load(agents, store, "measures")
    except CorruptResult as error:
        one_line(error)


@given(st.data())
@settings(fuzzed, max_examples=CASES["cached"])
def test_any_manifest_of_a_cached_result_is_believed_or_reported(kept, tmp_path_factory, data):
    store, cells = kept
    cell = data.draw(st.sampled_from(cells[1:]))
    folder = tmp_path_factory.getbasetemp() / "one"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(store.runs / cell.address, folder / cell.address)
    path = folder / cell.address / "manifest.json"
    text = path.read_text()
    hostile = st.integers(1, 50_000).map(lambda n: b'{"files":' * n) | st.just(b"[" * 100_000)
    path.write_bytes(
        data.draw(mutated(json.loads(text)).map(lambda c: json.dumps(c).encode()) | damaged(text.encode()) | hostile)
    )
    read_all(Store(folder, Path("/nonexistent")), [cell])
    assert sorted(p.name for p in folder.iterdir()) == [cell.address], "nothing is written in reading"


@given(st.data())
@settings(fuzzed, max_examples=CASES["published"])
def test_any_published_manifest_is_believed_or_reported(kept, tmp_path_factory, data):
    store, cells = kept
    folder = tmp_path_factory.getbasetemp() / "published"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(store.data, folder)
    if data.draw(st.booleans()):
        sums = folder / "SHA256SUMS"
        sums.write_bytes(data.draw(damaged(sums.read_bytes())))
    else:
        rows = data.draw(mutated(pq.read_table(folder / "manifest.parquet").to_pylist()))
        try:
            reseal(Store(Path("/nonexistent"), folder), lambda old: old.__setitem__(slice(None), rows))
        except (pa.ArrowException, TypeError, AttributeError, OverflowError):
            assume(False)  # that is no table
    read_all(Store(Path("/nonexistent"), folder), cells)


@given(st.data())
@settings(fuzzed, max_examples=CASES["files"])
def test_any_table_or_weights_are_believed_or_reported_even_with_the_right_hash(kept, tmp_path_factory, data):
    store, cells = kept
    stage = data.draw(st.sampled_from([cells[1], cells[2], cells[1].heads, cells[1].find(config.Model)]))
    folder = tmp_path_factory.getbasetemp() / "files"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(store.runs / stage.address, folder / stage.address)
    path = data.draw(st.sampled_from(sorted(p for p in (folder / stage.address).iterdir() if p.suffix != ".json")))
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    manifest = json.loads((path.parent / "manifest.json").read_text())
    if data.draw(st.integers(0, 3)):
        manifest["files"][path.name] = sha256(path)
        (path.parent / "manifest.json").write_text(json.dumps(manifest))
    read_all(Store(folder, Path("/nonexistent")), [stage])


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.drop(columns="mean"),
        lambda t: t.assign(mean=t["mean"].astype(str)),
        lambda t: t.assign(phase=range(len(t))),
        lambda t: t.assign(more=1.0),
        lambda t: t[["mean"]],
    ],
    ids=["a column short", "text for numbers", "numbers for text", "a column more", "one column"],
)
def test_a_table_of_other_columns_is_reported(kept, tmp_path, change):
    store, cells = kept
    folder = tmp_path / cells[1].address
    shutil.copytree(store.runs / cells[1].address, folder)
    change(pd.read_parquet(folder / "responses.parquet")).to_parquet(folder / "responses.parquet")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["responses.parquet"] = sha256(folder / "responses.parquet")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CorruptResult, match=r"responses\.parquet"):
        Store(tmp_path, Path("/nonexistent")).read(cells[1].address)


def test_a_table_that_would_not_fit_memory_is_refused_unread(kept, tmp_path):
    store, cells = kept
    folder = tmp_path / cells[1].address
    shutil.copytree(store.runs / cells[1].address, folder)
    path = folder / "responses.parquet"
    pd.DataFrame({"mean": pd.array([0.0], "float64").repeat(60_000_000)}).to_parquet(path)  # a few kB on disk
    assert path.stat().st_size < 1e6
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][path.name] = sha256(path)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CorruptResult, match="more than"):
        Store(tmp_path, Path("/nonexistent")).read(cells[1].address)


@given(st.data())
@settings(fuzzed, max_examples=CASES["cli"])
def test_any_arguments_of_the_command_end_in_one_line_and_leave_no_files(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "command"
    out = folder / "out"
    option = (
        st.sampled_from(["-p", "--only", "--file", "--out", "--workers", "--seeds", "--profile", "--drawn"]) | words
    )
    arguments = data.draw(st.lists(option | texts, max_size=5))
    command = data.draw(st.sampled_from(["book", "study", "verdicts", "probe", "audit"]))
    safe = {"book": ["-p", "no such parameter", "1"], "study": ["no such study"], "audit": ["--sample", "none"]}
    safe |= {"verdicts": ["--seeds", "0"], "probe": ["nothing", "--out", str(out)]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VICARIOUS_RUNS", str(folder / "runs"))
        found = CliRunner().invoke(cli.app, [command, *safe[command], *(a.replace("\0", "") for a in arguments)])
    if "--help" not in arguments and "-h" not in arguments:
        assert found.exit_code == 2, found.output
    assert found.exception is None or isinstance(found.exception, SystemExit)
    assert not folder.exists()


def test_there_are_ten_thousand_cases():
    assert sum(CASES.values()) >= 10_000
