"""Claims about what outlives a coupling, and about the worth of what only others seek."""

import numpy as np
import pandas as pd
import pytest
from conftest import tiny_battery, tiny_cells
from test_metrics import TRUTH, table

from vicarious import battery, config, episodes, execute, metrics
from vicarious.paper import chapters, verdicts
from vicarious.paper.chapters import extinction
from vicarious.paper.results import Results

LEVELS = tuple(battery.similarity(battery.angles(3)))
UPDATES = np.array([0, 10, 100, 1000])


def evidence(n=12, left=0.2, dearer=0.0, own=1.0, alien_own=1.0):
    """Agents of whose coupling of 1 so much is left, and to whom the worthless is so much dearer in the alien world."""
    rng, parts, measures, courses = np.random.default_rng(1), [], [], []
    for seed in range(n):
        z = rng.normal(0, 0.01)
        for family, exposure, truth in (("recurrent", 0.0, own), ("recurrent", 1.0, own), ("alien", 0.0, alien_own)):
            gain = lambda readout, mover, s, truth=truth: truth if mover == "self" else 0.0  # noqa: E731
            t = table(gain, seed=seed, family=family, exposure=exposure, levels=LEVELS)
            if family == "alien":  # the worthless item, near
                t.loc[(t.valence == 0) & (t.contact == "event") & (t.phase == "approach"), "mean"] += dearer + z
            parts.append(t)
            agent = {"seed": seed, "family": family, "exposure": exposure, "kappa": 0.0}
            measures.append(agent | {"measure": "value_r", "mover": "self", "similarity": 1.0, "value": 0.95})
            measures += [agent | {"measure": "auc", "mover": "other", "similarity": s, "value": 1.0} for s in LEVELS]
        for kappa in (1.0, 0.0):
            slope = kappa * (left + (1 - left) * np.exp(-UPDATES / 100)) + z * (kappa > 0)
            for update, y in zip(UPDATES, slope, strict=True):
                courses += [(seed, kappa, side, update, s, y) for side in (0, 1) for s in LEVELS]
    courses = pd.DataFrame(courses, columns="seed kappa side update similarity slope".split())
    courses = courses.assign(family="recurrent", exposure=1.0, weight_decay=0.01, head_width=128, past=3)
    courses = courses.assign(readout="value", kind="empathy", mover="other")
    responses = pd.concat([*parts, TRUTH], ignore_index=True)
    unit = (
        metrics.slopes(TRUTH.drop(columns=metrics.AGENT, errors="ignore"))
        .query("readout == 'value' and kind == 'empathy'")
        .slope.iloc[0]
    )
    return Results.of(responses, pd.DataFrame(measures), decoupling=courses), unit


def verdict(**planted):
    return verdicts.verdicts(chapters.PREDICTIONS, evidence(**planted)[0]).set_index("id").loc["A"]


def test_a_planted_residue_is_found():
    e, unit = evidence(left=0.2)
    agents = list(range(12))
    assert extinction.residue(e, agents).mean() * unit == pytest.approx(0.2, abs=0.01)
    assert extinction.residue(e, agents, 10).mean() * unit == pytest.approx(0.2 + 0.8 * np.exp(-0.1), abs=0.01)
    assert np.isnan(extinction.residue(e, agents, 11)).all() and np.isnan(extinction.residue(e, [99])).all()


def test_what_few_agents_had_for_longer_is_read_only_where_it_is_asked_for():
    """The verdict is read where most of the agents are, or it would rest on a handful of them."""
    e, _ = evidence()
    longer = e.table("decoupling")[e.table("decoupling").seed < 3].assign(past=10, update=lambda t: t["update"] * 5)
    both = e.replace(decoupling=pd.concat([e.table("decoupling"), longer]))
    agents = list(range(12))
    assert np.array_equal(extinction.residue(both, agents), extinction.residue(e, agents))
    updates, rho = extinction.course(both, agents, 1.0, past=10)
    assert updates[-1] == 5 * UPDATES[-1] and list(np.isfinite(rho).all(1)) == [True] * 3 + [False] * 9


def test_dials_are_compared_within_agents_who_had_all_of_them():
    e, unit = evidence(left=0.2)
    own = e.table("decoupling").assign(mover="self", rho=2.0)
    own = own[own.similarity == own.similarity.max()].assign(similarity=1.0)
    usual = pd.concat([e.table("decoupling"), own])
    decayed = usual[usual.seed < 5].assign(weight_decay=1.0, rho=lambda t: t.rho / 2)
    table = extinction.by_dial(e.replace(decoupling=pd.concat([usual, decayed])), list(range(12)), 1000)
    found = table.groupby("weight_decay")[["residue", "own"]].mean()
    assert list(found.index) == [0.01, 1.0] and set(table.seed) == set(range(5))
    assert found.residue[0.01] * unit == pytest.approx(0.2, abs=0.02)
    assert found.residue[1.0] == pytest.approx(found.residue[0.01] / 2) and found.own.tolist() == [2.0, 1.0]


def test_a_planted_taste_is_found():
    e, unit = evidence(dearer=0.3)
    agents = list(range(12))
    assert extinction.taste(e, agents).mean() * unit == pytest.approx(0.3, abs=0.02)
    assert extinction.near(e, agents, "recurrent", 1.0).mean() > extinction.near(e, agents, "recurrent", 0.0).mean()


def test_who_knows_what_others_seek_foresees_them_best():
    for taste, other in (("shared", "alien"), ("alien", "shared")):
        wrong = episodes.foreseeable(config.World(taste=taste), worlds=512)
        assert wrong[taste] < wrong["aimless"] - 0.05 < wrong[other] - 0.05
    aimless = episodes.foreseeable(config.World(other_purpose=(1e-6, 1e-6)), worlds=512)
    assert max(aimless.values()) - min(aimless.values()) < 1e-3, "where nobody seeks anything, beliefs do not matter"


@pytest.mark.parametrize(
    ("planted", "expected"),
    [
        ({"left": 0.2}, "supported"),
        ({"left": 0.0, "dearer": 0.3}, "supported"),
        ({"left": 0.0, "dearer": 0.0}, "contradicted"),
        ({"left": 0.2, "alien_own": 0.5}, "inconclusive"),
    ],
    ids=["residue", "taste", "neither", "incompetent in the alien world"],
)
def test_either_is_enough_and_both_must_be_absent(planted, expected):
    assert verdict(**planted).verdict == expected


@pytest.fixture(scope="module")
def courses(tmp_path_factory, exact):
    """Slopes after decoupling of one tiny agent, by what is changed."""
    from vicarious.store import Store

    folder = tmp_path_factory.mktemp("decoupling")
    store = Store(folder / "runs", folder / "data")
    heads = tiny_cells(seed=931)[2].heads.model_copy(update={"kappa": 1.0})
    fixed = {"heads": heads, "battery": tiny_battery(), "past": 2, "rate": 1e-2}
    cells = {
        "ceased": config.Decoupling(**fixed),
        "kept": config.Decoupling(**fixed, kappa=1.0),
        "as extinction": config.Extinction(**fixed, readout="value", exposure=1.0),
        "decayed": config.Decoupling(**fixed, weight_decay=1.0),
    }
    execute.fill([tiny_battery(), *cells.values()], store, workers=0, device="cpu")
    return {k: store.read(c.address).tables[c.stage].set_index("update").slope for k, c in cells.items()}


def test_a_coupling_that_is_kept_is_the_training_of_extinction(courses):
    assert courses["kept"].equals(courses["as extinction"])


def test_ceasing_and_decay_make_a_difference_once_training_goes_on(courses):
    last = courses["kept"].index.max()
    for changed, beside in (("ceased", "kept"), ("decayed", "ceased")):
        assert np.array_equal(courses[changed][0], courses[beside][0])
        assert not np.allclose(courses[changed][last], courses[beside][last])
