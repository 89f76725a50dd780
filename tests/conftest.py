"""Tiny agents and a store of their own, shared by the tests."""

import pytest
import torch

from vicarious import config, study, training
from vicarious.store import Store


@pytest.fixture(autouse=True)
def one_thread():
    with training.one_thread():
        yield


@pytest.fixture(scope="module")
def exact():
    """The precision that every machine has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VICARIOUS_PRECISION", "fp32")
        yield


def tiny_battery() -> config.Battery:
    return config.Battery(scenes=8, rollouts=4, levels=3)


def tiny_cells(seed: int = 900, families=("recurrent",), exposures=(0.0, 1.0)) -> list[config.Stage]:
    """The reference study in miniature: seconds, and no competence."""
    battery, cells = tiny_battery(), [tiny_battery()]
    for family in families:
        data = config.Episodes(seed=seed, episodes=128, frames=8)
        model = config.Model(data=data, family=family, latent=8, width=16, updates=5)
        for p in exposures:
            heads = config.Heads(model=model, exposure=p, width=8, updates=5, reward_updates=5, batch=16)
            cells.append(config.Responses(heads=heads, battery=battery))
        cells.append(config.Codes(model=model, battery=battery, width=8, fit_scenes=64, permutations=1, updates=100))
    return cells


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "runs", tmp_path / "data")


@pytest.fixture(scope="session")
def filled(tmp_path_factory) -> tuple[Store, list[config.Stage]]:
    """A store that holds a tiny study."""
    folder = tmp_path_factory.mktemp("filled")
    store, cells = Store(folder / "runs", folder / "data"), tiny_cells(families=study.FAMILIES)
    training.fill(cells, store, workers=0, device="cpu")
    return store, cells


@pytest.fixture
def g() -> torch.Generator:
    return torch.Generator().manual_seed(0)
