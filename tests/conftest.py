"""Tiny agents and a store of their own, shared by the tests."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from vicarious import config, execute, train
from vicarious.paper import studies
from vicarious.store import MANIFEST, SUMS, Store, sha256


@pytest.fixture(autouse=True)
def one_thread():
    with train.one_thread():
        yield


@pytest.fixture(scope="module")
def exact():
    """The precision that every machine has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VICARIOUS_PRECISION", "fp32")
        yield


def reseal(store: Store, change=lambda rows: None) -> None:
    """Change published manifests (a list of rows) and then every sum, as somebody would who hides a change."""
    path = store.data / MANIFEST
    rows = pq.read_table(path).to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows), path)
    files = sorted(p for p in store.data.rglob("*") if p.is_file() and p.name != SUMS)
    sums = [f"{sha256(p)}  {p.relative_to(store.data).as_posix()}\n" for p in files]
    (store.data / SUMS).write_text("".join(sums))


def tiny_battery() -> config.Battery:
    return config.Battery(scenes=8, rollouts=4, levels=3)


def tiny_model(seed: int = 900, family: str = "cells/gru", **own) -> config.Model:
    world = {"world": config.World(marked=True)} if family in studies.PRIVILEGED else {}
    data = config.Episodes(seed=seed, frames=8, **world)
    return config.Model(data=data, family=family, **{"latent": 8, "width": 16, "updates": 5, **own})


def tiny_heads(model: config.Model, company: float = 0.0, **own) -> config.Heads:
    sizes = {"episodes": 256, "width": 8, "updates": 5, "reward_updates": 5, "batch": 16}
    return config.Heads(model=model, company=company, **(sizes | own))


def tiny_study(seed: int = 900, families=("cells/gru",), company=(0.0, 1.0)) -> list[config.Stage]:
    """The reference study in miniature: seconds, and no competence."""
    battery, runs = tiny_battery(), [tiny_battery()]
    for family in families:
        model = tiny_model(seed, family)
        runs += [config.Responses(heads=tiny_heads(model, p), battery=battery) for p in company]
        runs.append(config.Codes(model=model, battery=battery, width=8, fit_scenes=64, updates=100))
    return runs


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "runs", tmp_path / "data")


@pytest.fixture(scope="session")
def filled(tmp_path_factory) -> tuple[Store, list[config.Stage]]:
    """A store that holds a tiny study of the reference and its inputs."""
    folder = tmp_path_factory.mktemp("filled")
    store, runs = Store(folder / "runs", folder / "data"), tiny_study(families=("cells/gru", *studies.INPUTS))
    execute.fill(runs, store, workers=0, device="cpu")
    return store, runs


@pytest.fixture
def g() -> torch.Generator:
    return torch.Generator().manual_seed(0)
