"""Claims about summaries over families of world models."""

import numpy as np
import pandas as pd
import pytest
from test_verdicts import OTHERS, evidence

from vicarious import battery, config, metrics
from vicarious.paper import results
from vicarious.paper.chapters import generality
from vicarious.paper.results import Results


@pytest.fixture(scope="module")
def found() -> Results:
    families = {name: {"other": 0.1 * i, "auc": 0.9 if name == "slots" else 1.0} for i, name in enumerate(OTHERS)}
    return evidence(n=12, families=families, imagined={"rssm": (1.0, 0.3), "vae": (0.5, 0.3)})


def test_the_table_has_every_family_and_control_with_its_means(found):
    table = generality.family_table(found, "reward")
    assert list(table.index) == [*generality.GENERAL, "pixels", "untrained"]
    assert table.rho["conv"] == pytest.approx(0.1 * OTHERS.index("conv"), abs=0.03)
    assert table["imagined rho"]["rssm"] == pytest.approx(0.3, abs=0.03) and np.isnan(table["imagined rho"]["vae"])


def test_only_those_who_can_imagine_speak_about_imagination(found):
    assert generality.split_by_gate("imagined", "rssm", found, "reward") == (list(range(12)), [])
    assert generality.split_by_gate("imagined", "vae", found, "reward") == ([], list(range(12)))
    assert generality.split_by_gate("imagined", "conv", found, "reward") == ([], [])


def test_views_are_compared_within_agents_who_have_all_of_them():
    seen = {"allocentric": {"other": 0.3}, "left": {"other": 0.1, "auc": 0.8}, "centred": {"other": 0.0}}
    parts = {view: evidence(n=12, families={"vae": own}) for view, own in seen.items()}
    at = lambda name: [e.tables[name].assign(view=view) for view, e in parts.items()]  # noqa: E731
    coefficients, gates, measures = (pd.concat(at(name)) for name in ("coefficients", "gates", "measures"))
    gates = gates[(gates["view"] != "left") | (gates.seed < 5)]
    rows = generality.views(results.Results(coefficients, gates, measures), "reward")
    rows = rows[rows.family == "vae"].set_index("view")
    assert list(rows.index) == ["allocentric", "left", "centred"] and set(rows.family) == {"vae"}
    assert set(rows.agents) == {5}
    assert rows.estimate.tolist() == pytest.approx([0.3, 0.1, 0.0], abs=0.03)
    assert rows["AUC who moved"]["left"] == pytest.approx(0.8)


def test_confusion_does_not_count(found):
    assert not generality.counts(found, "reward", "slots", "observed")
    assert generality.counts(found, "reward", "conv", "observed")
    rows = generality.intervals(found, "reward")
    assert not rows[rows.family == "slots"].counts.any() and rows[rows.family == "pixels"].counts.all()


def test_families_that_differ_make_a_wide_prediction_interval(found):
    apart = generality.pooled(False, "reward", found)
    same = generality.pooled(False, "reward", evidence(n=12, families={name: {} for name in OTHERS}))
    assert same.n == len(generality.GENERAL) and apart.n == same.n - 1, "slots are confused"
    assert apart.high - apart.low > 5 * (same.high - same.low)
    assert same.low < 0.4 < same.high


def test_a_property_that_goes_with_empathy_is_found_and_one_that_does_not_is_not(found):
    table = generality.properties(found, "reward").assign(transfer=lambda t: t.rho)
    ranks = generality.rank_correlations(table)["rank correlation"]
    assert ranks["transfer from self to other"] == pytest.approx(1.0)
    assert abs(ranks["AUC of who moved"]) < 0.9 or np.isnan(ranks["AUC of who moved"])


def test_expected_gains_are_those_of_conduct():
    """Of an item beside it, a body that seeks the good and avoids the bad gets more of the former than a drifter."""

    cfg_ = config.Battery(scenes=64, rollouts=64, levels=2)
    scenes = battery.make(cfg_)
    tables = {}
    for gamma in (cfg_.gamma, 1e-4):
        cfg = cfg_.model_copy(update={"gamma": gamma})
        gains = {mover: battery.true_returns(cfg, scenes, mover) for mover in battery.MOVERS}
        tables[gamma] = battery.returns(cfg, gains)[0]
    truth = battery.truth(cfg_, battery.true_returns(cfg_, scenes)[..., 0])
    expected = metrics.expected(truth, tables[cfg_.gamma], tables[1e-4], cfg_.gamma)
    assert expected["self", "reward"] == 1.0
    assert 0.25 < expected["other", "reward"] < 0.5 and 0.1 < expected["drifter", "reward"] < 0.3
    assert expected["other", "value"] > expected["drifter", "value"]
    imagined = pd.DataFrame({"mover": ["other"], "readout": ["reward"], "slope": [0.1]})
    assert metrics.over_expected(imagined, expected).rho[0] == pytest.approx(0.1 / expected["other", "reward"])


def test_agents_without_a_world_model_are_told_by_their_own_answers():
    agents = (("dqn", 0, 0.8), ("ppo", 1, 0.4))
    rows = [
        (seed, family, eventful, "value", kind, mover, s, 0.0, own * (s if mover == "other" else 0.5) * times)
        for family, eventful, own in agents
        for seed in range(6)
        for kind, times in (("empathy", 1), ("relief", 9))
        for mover in ("other", "drifter")
        for s in (0.0, 0.5, 1.0)
    ]
    columns = ["seed", "family", "eventful", "readout", "kind", "mover", "similarity", "slope", "rho"]
    told = {"own_slope": 0.3, "value_r": 0.95, "gain": 0.1, "gain_scripted": 0.06, "gain_aimless": 0.0}
    measures = [
        (seed, family, eventful, name, value + 0.001 * seed)
        for family, eventful, _ in agents
        for seed in range(6)
        for name, value in told.items()
    ]
    measures += [(seed, "ppo", 1, "passed", 1.0) for seed in range(6)]
    measures += [(seed, "dqn", 0, "passed", float(seed == 3)) for seed in range(6)]
    measures = pd.DataFrame(measures, columns=["seed", "family", "eventful", "measure", "value"])
    found = generality.outside(pd.DataFrame(rows, columns=columns), measures, 0.5)
    assert list(found.index) == [("ppo", 1), ("dqn", 0)] and found.competent.tolist() == [6, 1]
    assert found.rho["ppo", 1].estimate == pytest.approx(0.2) and found.rho["dqn", 0].estimate == pytest.approx(0.4)
    assert found.drifter["ppo", 1].estimate == pytest.approx(0.2) and found.orthogonal["ppo", 1].estimate == 0.0
    assert found["own reward"].tolist() == pytest.approx([0.1025, 0.1025]) and (found.agents == 6).all()
