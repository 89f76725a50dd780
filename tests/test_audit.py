"""Claims about checking what is published: what is as published passes, what is not is found."""

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from conftest import reseal, tiny_study

from vicarious import cli, config, execute
from vicarious.paper import audit, studies
from vicarious.store import CorruptResult, Store


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A tiny study, published with the weights of its world models."""
    store, cells = Store(tmp_path / "runs", tmp_path / "data"), tiny_study(families=("cells/gru", "pixels"))
    execute.fill(cells, store, workers=0, device="cpu")
    models = {c.find(config.Model): None for c in cells if c.find(config.Model)}
    kept = [c for c in cells if isinstance(c, config.Battery)] + [m for m in models if m.family == "cells/gru"]
    stages, _ = studies.publication(cells)
    store.publish(stages, kept)
    return Store(tmp_path / "other", tmp_path / "data"), cells


def forge(store, change):
    """Change a published table and its hash with it, as somebody would who wants a number to look better."""
    path = store.data / "responses.parquet"
    table = pd.read_parquet(path)
    change(table)
    table.to_parquet(path, index=False)
    reseal(store)


@pytest.mark.parametrize("whole", [False, True])
def test_what_this_code_made_is_made_again_bit_for_bit(published, whole):
    store, cells = published
    said = []
    assert audit.check_sample(cells, store, 10, whole, say=said.append)
    assert len(said) == 6 and all("bit for bit" in line for line in said[1:5]) and "as published" in said[-1]
    assert not store.runs.exists(), "an audit leaves nothing behind"


def test_a_number_that_was_made_up_is_found_although_its_hash_is_right(published):
    store, cells = published

    def better(table):
        table.loc[table.index[-1], "mean"] += 1e-6

    forge(store, better)
    said = []
    assert not audit.check_sample(cells, Store(store.runs, store.data), 10, say=said.append)
    assert sum("differs" in line for line in said) == 1 and "NOT as published" in said[-1]


def elsewhere(rows):
    for row in rows:
        row["processor"] = "another"


def test_from_another_platform_the_mean_has_to_be_equivalent(published):
    store, cells = published
    reseal(store, elsewhere)
    forge(store, lambda table: table.__setitem__("mean", table["mean"] + 1e-4))
    assert audit.check_sample(cells, Store(store.runs, store.data), 10, say=lambda _: None)
    forge(store, lambda table: table.__setitem__("mean", table["mean"] + 0.2))
    assert not audit.check_sample(cells, Store(store.runs, store.data), 10, say=lambda _: None)


def test_from_another_platform_no_single_number_may_be_far_off(published):
    store, cells = published
    reseal(store, elsewhere)
    forge(store, lambda table: table.__setitem__("mean", table["mean"] + 0.3 * (table.index == len(table) - 1)))
    said = []
    assert not audit.check_sample(cells, Store(store.runs, store.data), 10, say=said.append)
    assert sum("differs by 0.3" in line for line in said) == 1


def test_what_is_published_in_this_repository_is_made_again():
    """The command as it stands, on a result that is trained anew on its published world model."""
    found = CliRunner().invoke(cli.app, ["audit", "--sample", "1"])
    assert found.exit_code == 0, found.output
    assert "1 made again: as published" in found.output and "match their SHA-256" in found.output


def test_a_damaged_file_stops_the_audit(published):
    store, cells = published
    with open(store.data / "responses.parquet", "r+b") as f:
        f.seek(40)
        f.write(b"x")
    with pytest.raises(CorruptResult, match=r"responses\.parquet"):
        audit.check_sample(cells, Store(store.runs, store.data), 0, say=lambda _: None)


def test_equivalence_is_two_one_sided_tests():
    make = lambda d: audit.Finding(None, False, 1.0, d, False)  # noqa: E731
    rng = np.random.default_rng(0)
    assert audit.equivalent([make(d) for d in rng.normal(0, 0.01, 8)])
    assert not audit.equivalent([make(d) for d in rng.normal(0.06, 0.01, 8)]), "beyond the margin"
    assert not audit.equivalent([make(d) for d in rng.normal(0, 0.2, 4)]), "too uncertain"
    assert audit.equivalent([make(0.01)]) and not audit.equivalent([make(0.06)])
    assert not audit.equivalent([make(np.inf)]) and audit.equivalent([])
