"""A planted slope is found smooth, a planted step a step, agent by agent."""

import itertools

import numpy as np
import pytest
import scipy.optimize
from sklearn.tree import DecisionTreeRegressor

from vicarious.battery import angles, similarity
from vicarious.paper import studies
from vicarious.paper.chapters import continuity

LEVELS = similarity(angles(studies.FINE))[1:]  # below identical appearance
X = np.sort(90 - np.degrees(np.arccos(LEVELS)))  # as they are published: rounded
U = X / X.max()


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def noisy(rng, curve, agents=40, noise=0.02):
    return np.asarray(curve) + noise * rng.normal(size=(agents, len(X)))


SMOOTH = {"line": U, "falling": 1 - U, "bend": U**2, "sigmoid": 1 / (1 + np.exp(-8 * (U - 0.5)))}
STEPS = {
    "one": 1.0 * (U > 0.5),
    "early": 1.0 * (U > 0.15),
    "two": (U > 0.3) + 1.0 * (U > 0.7),
    "down": 1.0 * (U < 0.62),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_a_planted_slope_is_smooth_in_nearly_every_agent(rng, name):
    y = noisy(rng, SMOOTH[name], noise=0.005)
    assert (continuity.shape(X, y) == 1).mean() >= 0.9
    assert continuity.jump_ratio(noisy(rng, SMOOTH[name], noise=0.002)).mean() < 0.65


@pytest.mark.parametrize("name", STEPS)
def test_a_planted_step_is_never_smooth_and_its_jump_stays(rng, name):
    y = noisy(rng, STEPS[name])
    found = continuity.shape(X, y)
    assert (found == 1).mean() < 0.05 and (continuity.lead(X, y).mean(1) < 0).mean() > 0.9
    assert continuity.jump_ratio(y).mean() > 0.85


def test_clear_steps_in_the_middle_are_called_steps(rng):
    """Those near an end, where one or two levels lie beyond, are too few to be sure of: neither smooth nor steps."""
    for name in ("one", "two"):
        assert (continuity.shape(X, noisy(rng, STEPS[name], noise=0.001)) == -1).all()


def test_a_smooth_population_of_agents_that_each_jump_is_seen_through(rng):
    y = (U > rng.uniform(0, 1, (200, 1))) + 0.02 * rng.normal(size=(200, len(X)))
    y = y[np.ptp(y, axis=1) > 0.5]  # agents whose step lies within the levels
    assert continuity.shape(X, y.mean(0, keepdims=True)) == 1
    assert (continuity.shape(X, y) == 1).mean() < 0.1 and continuity.jump_ratio(y).mean() > 0.85


def test_the_best_step_is_the_one_a_tree_of_two_leaves_finds(rng):
    x = np.linspace(0, 1, 10)
    for y, at in itertools.product(rng.normal(size=(20, 10)), (0.0, 0.31, 0.52, 0.97)):
        tree = DecisionTreeRegressor(max_leaf_nodes=2).fit(x[:, None], y)
        assert continuity.steps(x, y[None], at, 1)[0] == pytest.approx(tree.predict([[at]])[0], rel=1e-5)


def test_half_way_between_two_levels_a_step_is_undecided():
    assert continuity.steps(np.arange(4.0), np.array([[0.0, 0.0, 1.0, 1.0]]), 1.5, 1) == 0.5


def test_a_curve_is_judged_alike_in_any_unit_and_direction(rng):
    y = noisy(rng, U, agents=5)
    for other in (10 * y + 3, -y):
        np.testing.assert_allclose(continuity.lead(X, other), continuity.lead(X, y))
        np.testing.assert_allclose(continuity.jump_ratio(other), continuity.jump_ratio(y))


def test_the_logistic_curve_is_the_one_that_least_squares_finds(rng):
    x = np.linspace(0, 1, 10)
    for centre, scale in ((0.3, 0.15), (0.6, 0.3), (0.5, 0.5)):
        y = 0.2 + 0.7 / (1 + np.exp(-(x - centre) / scale)) + 0.01 * rng.normal(size=x.shape)
        curve = lambda x, low, range_, middle, width: low + range_ / (1 + np.exp(-(x - middle) / width))  # noqa: E731
        found, _ = scipy.optimize.curve_fit(curve, x, y, p0=(0.2, 0.7, centre, scale), maxfev=20000)
        assert continuity.logistic(x, y[None], 0.37)[0] == pytest.approx(curve(0.37, *found), abs=0.01)


def test_a_curve_without_variance_or_with_few_levels_has_no_shape():
    flat = np.ones((3, len(X)))
    assert np.isnan(continuity.shape(X, flat)).all() and np.isnan(continuity.jump_ratio(flat)).all()
    assert np.isnan(continuity.lead(X[:3], flat[:, :3])).all()


def test_both_jumps_are_of_the_same_range(rng):
    """A curve that is steepest at its end, as near likeness, is halved as well: of twenty levels the last is out."""
    steep = np.exp(U * 3)
    assert len(X) % 2 == 0 and continuity.jump_ratio(steep[None]) < 0.6


def test_twice_the_levels_halve_the_jump_of_a_line_and_leave_that_of_a_step():
    dose = np.linspace(0, 1, 21)[None]
    assert continuity.jump_ratio(dose) == pytest.approx(0.5)
    assert continuity.jump_ratio(1.0 * (dose > 0.5)) == pytest.approx(1.0)
