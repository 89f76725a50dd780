"""Claims about the shared statistics: against independent implementations, and about how often they err."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from vicarious import stats
from vicarious.paper import studies
from vicarious.paper.chapters import calibration

SHROUT_FLEISS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def test_icc_is_that_of_shrout_and_fleiss():
    """Their worked example (1979, table 2): ICC(2,1) = .29 and ICC(2,4) = .62."""
    assert stats.icc(SHROUT_FLEISS) == pytest.approx((0.29, 0.62), abs=0.005)


def test_icc_agrees_with_variance_components_of_an_analysis_of_variance(rng):
    from statsmodels.api import stats as sm
    from statsmodels.formula.api import ols

    x = rng.normal(size=(30, 1)) + 0.3 * rng.normal(size=(1, 5)) + 0.7 * rng.normal(size=(30, 5))
    long = pd.DataFrame(x).stack().rename_axis(["agent", "set"]).rename("y").reset_index()
    ms = sm.anova_lm(ols("y ~ C(agent) + C(set)", long).fit()).eval("sum_sq / df")
    agent, number, error = ms["C(agent)"], ms["C(set)"], ms["Residual"]
    between, between_sets = (agent - error) / 5, (number - error) / 30
    expected = between / (between + between_sets + error), between / (between + (between_sets + error) / 5)
    assert stats.icc(x) == pytest.approx(expected)


def test_split_half_recovers_the_reliability_of_the_whole(rng):
    """Two halves with error variance 2 have r = 1/3; the whole has error variance 1, so its reliability is 1/2."""
    halves = rng.normal(size=(200_000, 1)) + np.sqrt(2) * rng.normal(size=(200_000, 2))
    assert stats.split_half(halves) == pytest.approx(0.5, abs=0.01)


def test_line_is_linear_regression(rng):
    x, y = rng.normal(size=50), rng.normal(size=50)
    expected = scipy.stats.linregress(x, y)
    assert stats.line(x, y) == pytest.approx((expected.slope, expected.intercept, expected.rvalue**2))


def test_equivalence_is_two_one_sided_t_tests(rng):
    x = rng.normal(0.01, 0.1, 30)
    sides = [
        scipy.stats.ttest_1samp(x, bound, alternative=side).pvalue
        for bound, side in ((-0.05, "greater"), (0.05, "less"))
    ]
    assert stats.equivalence(x, 0.05) == pytest.approx(max(sides))
    assert stats.equivalence(x, 0.2) < 0.001 and stats.equivalence(x + 0.3, 0.2) > 0.99
    assert stats.equivalence(np.array([0.0]), 1.0) == 1.0, "one agent shows nothing"


def test_page_sees_a_trend_and_its_absence(rng):
    noise = rng.normal(size=(20, 11))
    assert stats.page(noise + 0.3 * np.arange(11)) < 1e-6 < 0.05 < stats.page(noise)
    assert stats.page((noise + 0.3 * np.arange(11))[:, ::-1]) > 0.99
    ranks = noise.argsort(1).argsort(1) + 1  # the statistic by hand, with its large-sample distribution
    n, k = noise.shape
    z = ((ranks * np.arange(1, k + 1)).sum() - n * k * (k + 1) ** 2 / 4) / np.sqrt(
        n * k**2 * (k + 1) ** 2 * (k - 1) / 144
    )
    assert stats.page(noise) == pytest.approx(scipy.stats.norm.sf(z), abs=1e-6)


def test_holm_steps_down():
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_an_interval_does_not_hang_on_the_last_bit(monkeypatch):
    """Of six agents one resample in 65 is the sample in another order, and its mean may differ by how it is added."""
    x = np.array([0.1, 0.2, 0.3, 0.4, 0.7, 0.15])

    def bounds(seed):
        rng = np.random.default_rng(seed)
        added = lambda sample: np.mean(sample, -1) * (1 + 2e-16 * rng.integers(-1, 2, np.shape(sample)[:-1]))  # noqa: E731
        found = stats.interval_of(added, x)
        return found.low, found.high

    assert np.ptp([bounds(seed) for seed in range(4)], axis=0).max() < 1e-9
    monkeypatch.setattr(stats, "DIGITS", 17)
    assert np.ptp([bounds(seed) for seed in range(4)], axis=0).max() > 1e-3, "it could hang on it"


def test_a_prediction_interval_holds_one_more_family(rng):
    """Known variance within, spread between families: the next one is covered nineteen times of 20."""
    hits = []
    for _ in range(1000):
        effects = rng.normal(0.3, 0.2, 9) + rng.normal(0, 0.05, 9)
        found = stats.prediction_interval(effects[:8], np.full(8, 0.05**2))
        hits.append(found.low <= effects[8] <= found.high)
    assert np.mean(hits) == pytest.approx(0.95, abs=0.02)
    same = stats.prediction_interval(np.full(4, 0.3), np.full(4, 0.01))  # no spread: the pooled mean's t interval
    assert same.estimate == pytest.approx(0.3) and same.high - 0.3 == pytest.approx(
        scipy.stats.t.ppf(0.975, 2) * np.sqrt(0.01 / 4), rel=1e-3
    )


def test_the_smallest_detectable_effect_is_found_four_times_of_five(rng):
    table = stats.detectable(0.01, 0.64, 0.0, np.array([64]), np.array([20]))
    effect = table.smallest.iloc[0]
    x = effect + np.sqrt(0.01 + 0.64 / 64) * rng.normal(size=(4000, 20))
    assert np.mean(scipy.stats.ttest_1samp(x, 0, axis=1).pvalue < 0.05) == pytest.approx(0.8, abs=0.02)
    assert effect == pytest.approx(stats.detectable(0.02, 0.0, 0.0, np.array([1]), np.array([20])).smallest.iloc[0])
    many = stats.detectable(0.01, 0.64, 0.64, np.array([64]), np.array([10, 1000])).smallest
    assert many.iloc[1] > 2 * 0.1, "what all agents share in a scene stays, however many there are"


def test_intervals_and_tests_err_as_often_as_they_say(capsys):
    """A 95% interval holds the truth in 95% +- 2% of 1,000 simulated studies of 40 agents; fewer are printed."""
    table = calibration.simulate(studies.Simulations(studies=1000, agents=(40,), resamples=599))
    few = calibration.simulate(studies.Simulations(studies=200, agents=(10, 20), resamples=599))
    with capsys.disabled():
        print("\n" + few.pivot(index=["statistic", "data"], columns="n", values="rate").to_string())
    own = table.set_index(["statistic", "data"]).rate
    for data in (*calibration.DRAWS, "a line's slope"):
        assert own["coverage of the expanded bootstrap interval", data] == pytest.approx(0.95, abs=0.02)
    assert own["false positives of equivalence"].iloc[0] == pytest.approx(0.05, abs=0.02)
    assert own["false positives of Page's test"].iloc[0] == pytest.approx(0.05, abs=0.02)
    wide, plain = (few[few.statistic == f"coverage of the {name}bootstrap interval"] for name in ("expanded ", ""))
    assert wide.rate.mean() > plain.rate.mean(), "with few agents the plain bootstrap is too narrow"


def test_expansion_is_students_and_fades():
    assert stats.expanded(10) == pytest.approx(0.9829, abs=1e-3) and stats.expanded(10_000) == pytest.approx(
        0.95, abs=1e-3
    )
    x = np.random.default_rng(0).normal(size=10)
    found, t = stats.interval(x), scipy.stats.t.interval(0.95, 9, x.mean(), x.std(ddof=1) / np.sqrt(10))
    assert found.high - found.low == pytest.approx(t[1] - t[0], rel=0.15)


def test_any_statistic_can_have_an_interval(rng):
    x = rng.normal(size=(40, 3))
    found = stats.interval_of(lambda x: x.mean((-2, -1)), x)
    expected = stats.interval(x.mean(1))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.02)
    few = rng.normal(size=(3, 5))
    jackknifed, t = stats.interval_of(lambda x: x.mean((-2, -1)), few), stats.interval(few.mean(1))
    assert (jackknifed.low, jackknifed.high) == pytest.approx((t.low, t.high)), "of a mean it is Student's"
    assert (
        stats.interval_of(lambda x: x.mean(-1), np.array([1.0])).n == 1
        and stats.interval_of(np.mean, np.array([])).n == 0
    )
