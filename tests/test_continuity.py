"""A planted slope is found smooth, a planted step a step, whatever their mean over agents looks like."""

import itertools

import numpy as np
import pytest
import scipy.optimize
from sklearn.tree import DecisionTreeRegressor
from test_verdicts import AT_S, evidence

from vicarious import stats
from vicarious.paper import studies
from vicarious.paper.chapters import calibration, continuity

X = np.linspace(0, 1, 10)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def noisy(rng, curve, agents=40, noise=0.03):
    return np.asarray(curve) + noise * rng.normal(size=(agents, len(X)))


@pytest.mark.parametrize("curve", [X, 1 - X, X**2, 1 / (1 + np.exp(-8 * (X - 0.5)))])
def test_a_planted_slope_is_smooth(rng, curve):
    y = noisy(rng, curve)
    assert stats.interval(continuity.lead(X, y)).low > 0
    assert stats.interval(continuity.jump(y)).high < 0.5


@pytest.mark.parametrize("curve", [X > 0.5, X > 0.15, (X > 0.3) + 1.0 * (X > 0.7), X < 0.62])
def test_a_planted_step_is_a_step(rng, curve):
    y = noisy(rng, curve)
    assert stats.interval(continuity.lead(X, y)).high < 0
    assert stats.interval(continuity.jump(y)).low > 0.4


def test_a_smooth_population_of_agents_that_each_jump_is_seen_through(rng):
    y = (X > rng.uniform(0, 1, (200, 1))) + 0.02 * rng.normal(size=(200, len(X)))
    y = y[np.ptp(y, axis=1) > 0.5]  # agents whose step lies within the levels
    assert continuity.jump(y.mean(0, keepdims=True)) < 0.25 and continuity.lead(X, y.mean(0, keepdims=True)) > 0
    assert stats.interval(continuity.lead(X, y)).high < 0 and stats.interval(continuity.jump(y)).low > 0.9


def test_the_best_step_is_the_one_a_tree_of_two_leaves_finds(rng):
    for y, at in itertools.product(rng.normal(size=(20, 10)), (0.0, 0.31, 0.52, 0.97)):
        tree = DecisionTreeRegressor(max_leaf_nodes=2).fit(X[:, None], y)
        assert continuity.steps(X, y[None], at, 1)[0] == pytest.approx(tree.predict([[at]])[0], rel=1e-5)


def test_a_planted_step_is_a_step_on_the_rounded_doses_of_a_published_battery(found):
    dose, _ = found.curve("reward", [0])
    assert dose.tolist() != np.linspace(0, 75, 6).tolist(), "rounded"
    for gap in range(1, 5):
        assert (continuity.lead(dose, 1.0 * (np.arange(6) > gap)[None]) <= 0.12).all(), gap


def test_half_way_between_two_levels_a_step_is_undecided():
    assert continuity.steps(np.arange(4.0), np.array([[0.0, 0.0, 1.0, 1.0]]), 1.5, 1) == 0.5


def test_a_curve_is_judged_alike_in_any_unit_and_direction(rng):
    y = noisy(rng, X, agents=5)
    for other in (10 * y + 3, -y):
        np.testing.assert_allclose(continuity.lead(X, other), continuity.lead(X, y))
        np.testing.assert_allclose(continuity.jump(other), continuity.jump(y))


def test_the_logistic_curve_is_the_one_that_least_squares_finds(rng):
    for centre, scale in ((0.3, 0.15), (0.6, 0.3), (0.5, 0.5)):
        y = 0.2 + 0.7 / (1 + np.exp(-(X - centre) / scale)) + 0.01 * rng.normal(size=X.shape)
        curve = lambda x, low, range_, middle, width: low + range_ / (1 + np.exp(-(x - middle) / width))  # noqa: E731
        found, _ = scipy.optimize.curve_fit(curve, X, y, p0=(0.2, 0.7, centre, scale), maxfev=20000)
        assert continuity.logistic(X, y[None], 0.37)[0] == pytest.approx(curve(0.37, *found), abs=0.01)


def test_a_curve_without_variance_or_with_few_levels_has_no_shape():
    flat = np.ones((2, len(X)))
    assert np.isnan(continuity.lead(X, flat)).all() and np.isnan(continuity.jump(flat)).all()
    assert np.isnan(continuity.lead(X[:3], np.eye(3))).all()


def test_planted_shapes_are_recognised_in_simulated_studies():
    cfg = studies.Shapes(curves=40, studies=100, noise=(0.01, 0.03))
    rate = calibration.shapes(cfg).set_index(["curve", "noise", "statistic"]).rate
    for noise in cfg.noise:
        for curve in ("ramp", "bend", "sigmoid"):
            assert rate[curve, noise, "smooth"] == 1 and rate[curve, noise, "step"] == 0
        for curve in ("one step", "two steps"):
            assert rate[curve, noise, "step"] > 0.95 and rate[curve, noise, "small jumps"] == 0
        assert rate["ramp and step", noise, "small jumps"] == 0, "what the lead does not see the jump does"
        assert rate["ramp", noise, "small jumps"] == 1


@pytest.fixture(scope="module")
def found():
    return evidence(n=4, other=0.4, patched=0.3, noise=0.0, shape=lambda dose: dose / AT_S)


def test_confusion_begins_where_nobody_can_tell_who_moved(found):
    assert continuity.confused_from(found) is None
    m = found.measures
    for blurred, expected in ((0.9, 0.9659), (0.99, 1.0), (-1, 0.0)):
        auc = (m.measure == "auc") & (m.similarity > blurred)
        assert continuity.confused_from(found.replace(measures=m.assign(value=m["value"].mask(auc, 0.7)))) == expected


def test_what_goes_through_the_axis_is_what_was_planted(found):
    parts = continuity.mediation(found, "reward", [0, 1, 2, 3])
    expected = {
        "patched": 0.3 / 0.6,
        "shifted": 0.3 / 0.6,
        "random": 0.0,
        "better": 0.06 / 0.6,
        "intact": 0.4 * (90 - np.degrees(np.arccos(0.9))) / AT_S,
    }
    expected |= {
        "erased": expected["intact"] / 2,
        "centred": expected["intact"] / 2,
        "erased at random": expected["intact"],
    }
    assert {k: v.mean() for k, v in parts.items()} == pytest.approx(expected, abs=1e-6)


def test_scores_speak_for_every_agent_and_curve(found):
    table = continuity.shape_scores(found, "reward", ("recurrent",)).groupby("curve")
    assert table.seed.nunique().to_dict() == {"axis": 4, "looks": 4, "whole": 4}
    assert (table.lead.min() > 0).all() and (table.roughness.max() < 0.02).all()
    assert table["jump"].mean()["axis"] == pytest.approx(0.1) and table["jump"].mean()["looks"] == pytest.approx(
        0.2, rel=1e-3
    )


def test_roughness_is_no_less_than_the_noise(rng):
    rough = continuity.roughness(X, noisy(rng, X, agents=200, noise=0.03))
    assert 0.03 < rough.mean() < 0.05
