"""Claims about rules: for every prediction and condition, what is planted is what the engine says."""

import numpy as np
import pytest

from vicarious import stats
from vicarious.paper import chapters
from vicarious.paper.chapters import calibration, stimuli
from vicarious.paper.verdicts import Bar, Criterion, Prediction

EVERY = [*chapters.PREDICTIONS, *calibration.CONDITIONS]
N = 40


def noise_of(rng) -> np.ndarray:
    """Forty numbers with mean 0 and standard deviation 1, so that no verdict here hangs on chance."""
    z = rng.normal(size=N)
    return (z - z.mean()) / z.std(ddof=1)


def planted(criterion: Criterion, goal: str, rng, noise: float = 0.02) -> np.ndarray:
    """Values of forty agents for which the criterion lies well on the side of `goal`, or is swamped by noise."""
    if criterion.statistic is calibration.pooled_halves:
        shared = {"supported": 1.0, "contradicted": 0.1, "underpowered": 0.75}[goal]
        return shared * rng.normal(size=(N, 1)) + (1 - shared + 0.05) * rng.normal(size=(N, 2))
    if criterion.name == "ICC(2,k)":
        shared = {"supported": 1.0, "contradicted": 0.05, "underpowered": 0.62}[goal]
        return shared * rng.normal(size=(N, 1)) + (1.05 - shared) * rng.normal(size=(N, 4))
    if criterion.statistic in (calibration.slope, calibration.determination):
        slope, spread = {"supported": (1.0, 0.02), "contradicted": (0.5, 0.3), "underpowered": (0.95, 0.9)}[goal]
        if criterion.statistic is calibration.determination and goal == "underpowered":
            slope, spread = 1.0, 0.15
        kappa = np.broadcast_to(np.array([-1.0, 0.0, 0.25, 0.5, 1.0]), (N, 5))
        return np.stack([kappa, slope * kappa + spread * rng.normal(size=(N, 5))], -1)
    if criterion.statistic in (stimuli._worst_slope, stimuli._worst_determination):
        alone = calibration.slope if criterion.statistic is stimuli._worst_slope else calibration.determination
        looks = [planted(Criterion(criterion.name, statistic=alone), goal, rng) for _ in range(2)]
        return np.stack(looks, 1)
    if criterion.statistic is stimuli.kinds_lead:
        own = {"supported": 1.0, "contradicted": 0.0, "underpowered": 0.02}[goal]
        traits = own * rng.normal(size=(N, 3, 5, 1)) + (1 - own) * rng.normal(size=(N, 3, 1, 1))
        return traits + 0.05 * rng.normal(size=(N, 3, 5, 2))
    bar = criterion.supports or criterion.contradicts[0]
    if bar.kind == "rising":
        step = {"supported": 0.5, "contradicted": -0.5, "underpowered": 0.0}[goal]
        return step * np.arange(11) + rng.normal(size=(N, 11))
    if criterion.statistic is not None:  # a correlation
        r = {"supported": 0.9, "contradicted": -0.9, "underpowered": 0.35}[goal]
        x = rng.normal(size=N)
        return np.stack([x, r * x + np.sqrt(1 - r**2) * rng.normal(size=N)], 1)[:, None]
    if criterion.supports is None:  # speaks against only
        centre, width = {"supported": (-0.3, noise), "contradicted": (0.3, noise), "underpowered": (0.0, 2.0)}[goal]
        return centre + width * noise_of(rng)
    against = criterion.contradicts[0] if criterion.contradicts else None
    up = -1 if bar.kind in ("<", "<=") else 1
    centre = {"supported": bar.value + 0.2 * up, "contradicted": bar.value - 0.2 * up, "underpowered": bar.value}[goal]
    if bar.kind == "null":
        centre = {
            "supported": 0.0,
            "contradicted": (against.value if against else bar.value) + 0.2,
            "underpowered": 0.0,
        }[goal]
        noise = 0.5 if goal == "underpowered" else noise
    return centre + (0.3 if goal == "underpowered" else noise) * noise_of(rng)


@pytest.mark.parametrize("goal", ["supported", "contradicted", "underpowered"])
@pytest.mark.parametrize("prediction", EVERY, ids=lambda p: p.id)
def test_what_is_planted_is_what_the_engine_says(prediction, goal):
    rng = np.random.default_rng(7)
    values = [planted(criterion, goal, rng) for criterion in prediction.criteria]
    criteria = tuple(
        Criterion(c.name, c.supports, c.contradicts, lambda e, seeds, v=v: v, c.statistic)
        for c, v in zip(prediction.criteria, values, strict=True)
    )
    p = Prediction(**{**vars(prediction), "criteria": criteria})
    measured, lost = p.measure(None, list(range(N)))
    verdict, level = p.verdict(measured)
    assert verdict == {"underpowered": "inconclusive"}.get(goal, goal) and not lost
    assert level < 0.05 if goal != "underpowered" else level > 0.001


@pytest.mark.parametrize("prediction", EVERY, ids=lambda p: p.id)
def test_every_bar_is_in_the_text(prediction):
    for criterion in prediction.criteria:
        assert (criterion.supports is None) or criterion.name in prediction.supported
        for bar in criterion.contradicts:
            assert bar.text(criterion.name) in prediction.contradicted


def test_the_text_says_the_bar_that_decides():
    assert Bar(">", 0.1).text("rho") == "lower bound of rho > .1"
    assert Bar(">", 0.1).text("transfer", "permutation 95th") == "lower bound of transfer > max(.1, permutation 95th)"
    assert Bar("null", 0.05).text("rho") == "rho null within .05"
    rng = np.random.default_rng(0)
    x = 0.15 + 0.02 * rng.normal(size=N)
    found = stats.interval(x)
    assert Bar(">", 0.1).met(found, x) and not Bar(">", 0.2).met(found, x)
    assert Bar("<", 0.2).met(found, x) and not Bar("<", 0.1).met(found, x)
    assert Bar("<=", 0.0).met(stats.interval(np.zeros(N)), np.zeros(N)), "a planner that never pays"
    assert not Bar("<", 0.0).met(stats.interval(np.zeros(N)), np.zeros(N))


def test_any_of_two_is_enough_for_leakage_and_both_are_needed_against_it():
    (row,) = [p for p in chapters.PREDICTIONS if p.id == "A"]
    high, low = 0.3 + 0.02 * np.random.default_rng(0).normal(size=(2, N)), np.zeros(N)
    for first, second, expected in (
        (high[0], low, "supported"),
        (low, high[1], "supported"),
        (low, low, "contradicted"),
    ):
        criteria = tuple(
            Criterion(c.name, c.supports, c.contradicts, lambda e, seeds, v=v: v)
            for c, v in zip(row.criteria, (first, second), strict=True)
        )
        measured, _ = Prediction(**{**vars(row), "criteria": criteria}).measure(None, list(range(N)))
        assert row.verdict(measured)[0] == expected


def test_a_bar_found_in_the_data_counts_where_it_is_higher():
    x = 0.2 + 0.01 * np.random.default_rng(0).normal(size=N)
    for raised, expected in ((0.05, "supported"), (0.3, "inconclusive")):
        c = Criterion("transfer", Bar(">", 0.1), (Bar("<", 0.1),), lambda e, s: x, raised=lambda e, s, r=raised: r)
        p = Prediction("X", "", "", "", (c,))
        assert p.verdict(p.measure(None, list(range(N)))[0])[0] == expected


def test_one_agent_has_no_standard_error():
    bar, one = Bar("2se>", 0), np.array([0.5])
    with np.errstate(all="raise"):
        assert not bar.met(stats.interval(one), one) and bar.p(stats.interval(one), one) == 1.0
