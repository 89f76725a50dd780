"""Claims about results: they have addresses, arrive whole, and are never silently wrong."""

import os
import subprocess

import pandas as pd
import pytest
import torch
from conftest import reseal, tiny_study

from vicarious import config, execute, pipeline
from vicarious.paper import results, studies
from vicarious.store import CorruptResult, Store, home


def told(*values: float) -> pd.DataFrame:
    return pd.DataFrame([("own", "self", 1.0, x) for x in values], columns=pipeline.MEASURE)


def test_an_address_depends_on_what_differs_from_the_defaults_and_on_the_parent():
    one = config.Model(data=config.Episodes(seed=1))
    assert one.address == config.Model(data=config.Episodes(seed=1, frames=20), width=256).address
    others = [
        config.Model(data=config.Episodes(seed=2)),
        config.Model(data=config.Episodes(seed=1), width=128),
        config.Model(data=config.Episodes(seed=1, world=config.World(noise=0.1))),
    ]
    assert len({one.address, *(o.address for o in others)}) == 4


def test_a_new_field_with_a_default_orphans_nothing():
    class Later(config.Model):
        dropout: float = 0.0

    data = config.Episodes(seed=1)
    assert Later(data=data).address == config.Model(data=data).address != Later(data=data, dropout=0.1).address


def test_a_raised_epoch_gives_a_new_address():
    class Changed(config.Heads):
        epoch = config.Heads.epoch + 1

    model = config.Model(data=config.Episodes(seed=1))
    assert Changed(model=model).address != config.Heads(model=model).address


def test_agents_that_differ_in_company_or_coupling_share_a_world_model():
    model = config.Model(data=config.Episodes(seed=1))
    heads = [config.Heads(model=model, company=p, kappa_gain=k) for p in (0, 1) for k in (0, 0.5)]
    assert len({h.address for h in heads}) == 4 and len({h.parent.address for h in heads}) == 1


def write(store):
    cfg = config.Episodes(seed=1)
    store.write(cfg, 1.0, {"measures": told(1.0, 2.0)}, {"w": torch.arange(4.0)})
    return cfg.address


def test_what_is_written_is_read_back(store):
    result = store.read(write(store))
    assert result.tables["measures"].value.tolist() == [1, 2] and result.weights["w"].tolist() == [0, 1, 2, 3]
    assert result.source == "cached" and result.manifest["stage"] == "episodes" and result.manifest["torch"]
    with pytest.raises(KeyError):
        store.read("0" * 16)


@pytest.mark.parametrize("name", ["measures.parquet", "weights.safetensors"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_result_is_reported_with_its_path(store, name, damage):
    address = write(store)
    path = store.runs / address / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    {"flip": lambda: path.write_bytes(content), "truncate": lambda: os.truncate(path, 10), "remove": path.unlink}[
        damage
    ]()
    with pytest.raises(CorruptResult, match=name):
        store.read(address)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"files": 3}'])
def test_a_damaged_manifest_is_reported_with_its_path(store, text):
    address = write(store)
    (store.runs / address / "manifest.json").write_text(text)
    with pytest.raises(CorruptResult, match=r"manifest\.json"):
        store.read(address)


def test_a_damaged_result_is_not_trained_over(store):
    cells = tiny_study(company=(0.0,))
    execute.fill(cells, store, workers=0, device="cpu")
    path = store.runs / cells[1].address / "responses.parquet"
    os.truncate(path, 100)
    execute.fill(cells, store, workers=0, device="cpu")
    assert path.stat().st_size == 100
    with pytest.raises(CorruptResult, match=r"responses\.parquet"):
        results.load(cells, store, "responses")


def test_nothing_partial_is_left_behind_when_writing_fails(store, monkeypatch):
    monkeypatch.setattr(pd.DataFrame, "to_parquet", lambda *a, **k: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write(store)
    assert list(store.runs.iterdir()) == []


def test_the_first_of_two_writers_wins(store):
    address = write(store)
    store.write(config.Episodes(seed=1), 2.0, {"measures": told(9.0)})
    assert store.read(address).tables["measures"].value.tolist() == [1, 2]
    assert [p.name for p in store.runs.iterdir()] == [address]


@pytest.fixture
def published(filled, tmp_path):
    store, cells = filled
    target = Store(store.runs, tmp_path / "data")
    target.publish(*studies.publication(cells))
    return Store(tmp_path / "nothing", tmp_path / "data"), cells, store


def test_published_results_equal_the_cached_ones(published):
    there, cells, cache = published
    for cell in cells:
        one, two = there.read(cell.address), cache.read(cell.address)
        assert one.source == "published" and one.manifest["seconds"] == two.manifest["seconds"]
        for name, frame in two.tables.items():
            other = one.tables[name][frame.columns.tolist()]
            for column in frame:
                assert other[column].astype(frame[column].dtype).tolist() == frame[column].tolist()


def test_published_weights_train_new_heads_without_a_world_model(published, tmp_path):
    there, cells, _ = published
    model = cells[1].find(config.Model)
    assert there.has(model.address, weights=True) == (model.data.seed < studies.WEIGHTS)


def test_a_changed_published_file_stops_everything(published):
    there, cells, _ = published
    path = there.data / "responses.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptResult, match=r"responses\.parquet"):
        Store(there.runs, there.data).read(cells[1].address)


def test_a_result_under_anothers_address_is_not_believed(store):
    address = write(store)
    other = config.Episodes(seed=2).address
    (store.runs / address).rename(store.runs / other)
    with pytest.raises(CorruptResult, match=f"{address} and not {other}"):
        store.read(other)


def test_a_folder_without_a_manifest_is_reported_before_anything_is_trained(store):
    address = write(store)
    (store.runs / address / "manifest.json").unlink()
    with pytest.raises(CorruptResult, match=r"manifest\.json is missing"):
        store.has(address)


@pytest.mark.parametrize("text", ["", "{}", "0" * 64 + "  responses.parquet\n", "0" * 64 + "  ../secret.parquet\n"])
def test_published_sums_without_a_manifest_are_reported(tmp_path, text):
    (tmp_path / "SHA256SUMS").write_text(text)
    with pytest.raises(CorruptResult, match="SHA256SUMS"):
        Store(tmp_path / "runs", tmp_path).has("0" * 16)


def test_a_published_result_whose_table_is_missing_is_reported(published):
    there, cells, _ = published
    (there.data / "responses.parquet").unlink()
    reseal(there)
    with pytest.raises(CorruptResult, match="responses"):
        Store(there.runs, there.data).read(cells[1].address)


def test_a_published_configuration_that_is_not_its_address_is_reported(published):
    there, cells, _ = published
    reseal(there, lambda rows: [row.update({"heads.width": 9}) for row in rows if row["address"] == cells[1].address])
    with pytest.raises(CorruptResult, match=f"and not {cells[1].address}"):
        Store(there.runs, there.data).read(cells[1].address)


def test_the_sums_are_those_that_other_tools_check(published):
    there, _, _ = published
    done = subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=there.data, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kind, field, now", [(config.Heads, "width", 64), (config.World, "appear", 0.25)])
def test_a_changed_default_without_a_raised_epoch_says_so(store, monkeypatch, kind, field, now):
    """As if the code of today had another default than that with which the result was made."""
    heads = config.Heads(model=config.Model(data=config.Episodes(seed=1)))
    store.write(heads, 1.0)
    address = heads.address
    monkeypatch.setattr(kind.model_fields[field], "default", now)
    kind.model_rebuild(force=True)
    for stage in (config.Episodes, config.Battery):
        monkeypatch.setattr(stage.model_fields["world"], "default", config.World())
    config._address.cache_clear()
    try:
        with pytest.raises(CorruptResult, match=rf"default of {kind.__name__}\.{field} changed .*raise its `epoch`"):
            store.read(address)
    finally:
        monkeypatch.undo()
        kind.model_rebuild(force=True)
        config._address.cache_clear()


def test_publishing_can_be_interrupted_and_repeated(published):
    there, cells, cache = published
    there.data.with_name(".replaced-data").mkdir()
    (there.data.with_name(".replaced-data") / "left over").write_text("")
    again = Store(cache.runs, there.data)
    again.publish(*studies.publication(cells))
    assert Store(there.runs, there.data).read(cells[1].address).source == "published"


def test_the_published_manifest_says_where_every_result_comes_from(published):
    there, cells, _ = published
    manifest = pd.read_parquet(there.data / "manifest.parquet").set_index("address")
    assert {"commit", "device", "torch", "seconds", "parent", "stage", "epoch"} <= set(manifest)
    for cell in cells[1:3]:
        assert manifest.loc[cell.address, "heads.company"] == cell.heads.company
        assert manifest.loc[cell.address, "episodes.seed"] == cell.heads.model.data.seed


@pytest.mark.slow
def test_a_clone_on_a_platform_of_other_line_endings_has_the_same_bytes(tmp_path):
    root, clone = home(), tmp_path / "clone"
    made = subprocess.run(
        ["git", "clone", "-q", "-c", "core.autocrlf=true", root, clone], capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    assert Store(data=clone / "data").published["results"], "and every file matches its SHA-256"
    listed = subprocess.run(
        ["git", "-C", clone, "ls-files", "--eol"], capture_output=True, text=True, check=True
    ).stdout
    assert listed and not [line for line in listed.splitlines() if "w/crlf" in line or "w/mixed" in line]
