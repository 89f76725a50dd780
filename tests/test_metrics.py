"""Claims about coefficients and intervals."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from vicarious import metrics, stats
from vicarious.battery import CONTACTS, PHASES


def table(gain, seed=0, family="cells/gru", company=0.0, levels=(1.0, 0.5, 0.0)):
    """Responses of an agent that predicts `gain(readout, mover, s)` times the truth, on top of arbitrary offsets."""
    rows = []
    movers = [(mover, (1.0,)) for mover in ("self", "quiet", "nobody")] + [("other", levels), ("drifter", levels)]
    for mover, readout, contact, phase, v in product(movers, ("reward", "value"), CONTACTS, PHASES, (-1.0, 0.0, 1.0)):
        offset = 3.0 + 0.7 * v if phase == "after" else 2.0 + 0.5 * v
        truth = {"reward": 1.0, "value": 0.4}[readout] * v
        read = {"reward": "contact", "value": "approach"}[readout]
        active = contact in ("event", "averted") if readout == "value" else contact == "event"
        for s in mover[1]:
            signal = gain(readout, mover[0], s) * truth if phase == read and active else 0.0
            rows.append((seed, family, company, readout, mover[0], s, v, contact, phase, offset + signal))
    names = "seed family company readout mover similarity valence contact phase mean".split()
    return pd.DataFrame(rows, columns=names)


TRUTH = table(lambda readout, mover, s: 1.0, seed=-1, family="truth").query("mover == 'self'")


def rho(responses, **where):
    found = metrics.coefficients(responses, TRUTH)
    for key, value in where.items():
        found = found[found[key] == value]
    return found


def test_rho_is_what_was_planted_whatever_the_offsets():
    planted = lambda readout, mover, s: {"self": 0.9, "other": 0.6 * s, "drifter": 0.2}.get(mover, 0.0)  # noqa: E731
    for readout, kind in metrics.MAIN.items():
        found = rho(table(planted), readout=readout, kind=kind).set_index(["mover", "similarity"]).rho
        assert found["self", 1.0] == pytest.approx(0.9) and found["other", 0.5] == pytest.approx(0.3)
        assert found["other", 0.0] == pytest.approx(0) and found["drifter", 1.0] == pytest.approx(0.2)
        assert found["nobody", 1.0] == pytest.approx(0)


def test_a_response_that_is_missing_has_no_slope_and_one_that_is_there_twice_is_an_error():
    t = table(lambda *_: 1.0)
    one = t.query(
        "readout == 'value' and mover == 'other' and similarity == 0.5 and contact == 'twin' and valence == 1"
    )
    one = one[one.phase == "approach"]
    found = metrics.slopes(t.drop(one.index)).set_index(["readout", "kind", "mover", "similarity"]).slope
    assert found[found.isna()].index.tolist() == [("value", kind, "other", 0.5) for kind in metrics.KINDS["value"]]
    with pytest.raises(ValueError, match="more than one value of a twin at approach"):
        metrics.slopes(pd.concat([t, one]))


def test_joy_and_pain_are_slopes_on_their_own_sides():
    t = table(lambda *_: 0.0)
    where = {"readout": "reward", "mover": "other", "contact": "event", "phase": "contact", "valence": 1.0}
    hit = np.logical_and.reduce([t[column] == value for column, value in where.items()])
    t.loc[hit, "mean"] += 0.8
    found = rho(t, readout="reward", mover="other", similarity=0.5).set_index("kind").rho
    assert [found[kind] for kind in ("joy", "pain", "empathy")] == pytest.approx([0.8, 0, 0.4])


def test_relief_and_disappointment_are_changes_as_the_item_vanishes():
    found = rho(table(lambda *_: 1.0), readout="value", mover="self").set_index("kind")
    assert found.slope["disappointment"] == pytest.approx(-0.4) and found.rho["relief"] == pytest.approx(1)


def test_a_kind_without_a_true_slope_is_undefined():
    flat = TRUTH.assign(mean=np.where(TRUTH.readout == "value", 1.0, TRUTH["mean"]))
    found = metrics.coefficients(table(lambda *_: 1.0), flat)
    assert found[found.readout == "value"].rho.isna().all() and found[found.readout == "reward"].rho.notna().all()


def test_pain_of_values_is_printed_unnormalised_and_that_of_rewards_is_not():
    found = rho(table(lambda *_: 1.0), mover="self", kind="pain").set_index("readout")
    assert np.isnan(found.rho["value"]) and found.slope["value"] == pytest.approx(0.4)
    assert found.rho["reward"] == pytest.approx(1)


def test_similarity_is_interpolated_in_angle():
    levels = np.cos(np.radians([0, 30, 60, 90])).round(4)
    t = pd.DataFrame({"seed": 0, "similarity": levels, "rho": [0.0, 30.0, 60.0, 90.0]})
    for degrees in (0, 15, 45, 90):
        assert metrics.at_similarity(t, np.cos(np.radians(degrees))).rho[0] == pytest.approx(degrees, abs=0.02)
    with pytest.raises(ValueError, match="within 0 and 1"):
        metrics.at_similarity(t, 1.2)
    with pytest.raises(ValueError, match="duplicate"):  # two values of one agent are not averaged
        metrics.at_similarity(pd.concat([t, t]), 0.5)


def test_the_gate_wants_the_own_slope_and_the_true_value_where_the_other_has_nothing():
    quiet = lambda own: lambda readout, mover, s: own if mover == "quiet" else 9.0  # noqa: E731
    parts = [table(quiet(own), seed=i) for i, own in enumerate((1.0, 0.85, 0.75, 1.25))]
    t = metrics.coefficients(pd.concat(parts), TRUTH)
    measures = {"seed": range(4), "family": "cells/gru", "company": 0.0, "measure": "value_r"}
    measures = pd.DataFrame(measures | {"value": [0.95, 0.85, 0.95, 0.95]})
    gate = metrics.competence(t, measures).set_index(["readout", "seed"]).passed
    assert gate["reward"].tolist() == [True, True, False, False]
    assert gate["value"].tolist() == [True, False, False, False]


def test_whose_worth_tells_apart_what_is_good_for_whom():
    theirs, rows = {-1.0: -1.0, 0.0: 1.0, 1.0: 0.0}, table(lambda *_: 0.0)
    event = (rows.readout == "reward") & (rows.contact == "event") & (rows.phase == "contact") & (rows.mover == "other")
    rows.loc[event, "mean"] += 0.3 * rows.valence[event] + 0.6 * rows.valence[event].map(theirs)
    found = metrics.whose_worth(rows, "reward", theirs).set_index(["mover", "similarity"])
    assert found.own["other", 0.5] == pytest.approx(0.3) and found.other["other", 0.5] == pytest.approx(0.6)
    assert found.loc[("self", 1.0), ["own", "other"]].tolist() == pytest.approx([0, 0])


def test_the_radius_is_where_half_of_it_is_left():
    s = np.cos(np.radians([0, 30, 60, 90]))
    straight = 1 - np.array([0, 30, 60, 90]) / 90
    start = np.degrees(np.arccos(metrics.NEAR))
    half = np.cos(np.radians(90 - (90 - start) / 2))
    found = metrics.radius(s, np.stack([straight, np.ones(4), -straight, np.array([1, 1, 0, 0])]))
    assert found[0] == pytest.approx(half, abs=1e-9) and found[1] == 0 and np.isnan(found[2])
    assert np.degrees(np.arccos(found[3])) == pytest.approx(45)


def bca(x, resamples, rng):
    """BCa of a mean, written out (Efron 1987)."""
    boot = np.array([rng.choice(x, len(x)).mean() for _ in range(resamples)])
    z0 = scipy.stats.norm.ppf((boot < x.mean()).mean())
    jack = np.array([np.delete(x, i).mean() for i in range(len(x))])
    d = jack.mean() - jack
    a = (d**3).sum() / (6 * (d**2).sum() ** 1.5)
    z = scipy.stats.norm.ppf([0.025, 0.975])
    levels = scipy.stats.norm.cdf(z0 + (z0 + z) / (1 - a * (z0 + z)))
    return np.quantile(boot, levels)


def test_intervals_agree_with_bca_written_out():
    x = np.random.default_rng(0).lognormal(size=40)
    found = stats.interval(x)
    assert found.estimate == pytest.approx(x.mean()) and found.n == 40
    slow = bca(x, 20000, np.random.default_rng(1))
    assert [found.low, found.high] == pytest.approx(slow, rel=0.02)


def test_the_interval_of_several_columns_is_about_the_lowest_mean():
    rng = np.random.default_rng(2)
    x = rng.normal([0.5, 0.2], 0.1, size=(40, 2))
    found = stats.interval(x)
    alone = stats.interval(x[:, 1])
    assert found.estimate == pytest.approx(x[:, 1].mean()) and found.low == pytest.approx(alone.low, abs=0.01)


def test_p_values_are_two_sided_t_tests_against_the_bar():
    x = np.random.default_rng(3).normal(0.3, 0.2, size=20)
    two_sided = scipy.stats.ttest_1samp(x, 0.1).pvalue
    assert stats.p_beyond(x, 0.1, "above") == pytest.approx(two_sided)
    assert stats.p_beyond(x, 0.1, "below") == 1.0
    both = np.stack([x, x + 1], 1)
    assert stats.p_beyond(both, 0.1, "above") == pytest.approx(two_sided), "every column has to clear the bar"
    assert stats.p_beyond(both, 1.0, "below") == pytest.approx(2 * stats.p_beyond(x, 1.0, "below")), (
        "one is enough: Bonferroni"
    )


def test_agents_without_variance_and_single_agents_do_not_break_it():
    assert stats.interval(np.full(20, 0.3)).low == pytest.approx(0.3) and np.isnan(
        stats.interval(np.array([])).estimate
    )
    assert str(stats.interval(np.array([0.2, np.nan, 0.3]))) == "not estimable", "nobody is dropped in silence"
    assert stats.interval(np.array([0.2])).n == 1 and stats.p_beyond(np.array([0.2]), 0.1, "above") == 1.0
