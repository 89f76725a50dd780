"""Claims about rules: for every prediction, what is planted is what the engine says."""

import numpy as np
import pytest

from vicarious import stats
from vicarious.paper import chapters
from vicarious.paper.verdicts import Bar, Criterion, Prediction

N = 40


def noise_of(rng) -> np.ndarray:
    """Forty numbers with mean 0 and standard deviation 1, so that no verdict here hangs on chance."""
    z = rng.normal(size=N)
    return (z - z.mean()) / z.std(ddof=1)


def planted(criterion: Criterion, goal: str, rng) -> np.ndarray:
    """Values of forty agents for which the criterion lies well on the side of `goal`, or is swamped by noise."""
    bar = criterion.supports or criterion.contradicts[0]
    if bar.kind == "rising":
        step = {"supported": 0.5, "contradicted": -0.5, "underpowered": 0.0}[goal]
        return step * np.arange(11) + rng.normal(size=(N, 11))
    if bar.kind == "share":
        share = {"supported": 1.0, "contradicted": 0.0, "underpowered": 0.55}[goal]
        share = share if criterion.supports else {"supported": 0.0, "contradicted": 1.0, "underpowered": 0.4}[goal]
        return (np.arange(N) < share * N).astype(float)
    if bar.kind == "within":
        middle = (bar.value + bar.upper) / 2
        centre, noise = {"supported": (middle, 0.02), "contradicted": (bar.value - 0.2, 0.02)}.get(goal, (middle, 2.0))
    elif bar.kind == "null":
        against = max([b.value for b in criterion.contradicts], default=bar.value)
        centre, noise = {"supported": (0.0, 0.02), "contradicted": (against + 0.2, 0.02)}.get(goal, (0.0, 0.5))
    elif criterion.supports is None:  # speaks against only, where it is low
        centre, noise = {"supported": (bar.value + 0.2, 0.02), "contradicted": (bar.value - 0.2, 0.02)}.get(
            goal, (bar.value, 2.0)
        )
    else:
        up = -1 if bar.kind == "<" else 1
        far = max((abs(b.value - bar.value) for b in criterion.contradicts), default=0.0) + 0.2
        centre = {"supported": bar.value + 0.2 * up, "contradicted": bar.value - far * up}.get(goal, bar.value)
        noise = 0.3 if goal == "underpowered" else 0.02
    return centre + noise * noise_of(rng)


def decided(prediction: Prediction, values: list[np.ndarray]) -> tuple[str, float]:
    criteria = tuple(
        Criterion(c.name, c.supports, c.contradicts, lambda e, seeds, v=v: v)
        for c, v in zip(prediction.criteria, values, strict=True)
    )
    measured, lost = (p := Prediction(**{**vars(prediction), "criteria": criteria})).measure(None, list(range(N)))
    assert not lost
    return p.verdict(measured)


@pytest.mark.parametrize("goal", ["supported", "contradicted", "underpowered"])
@pytest.mark.parametrize("prediction", chapters.PREDICTIONS, ids=lambda p: p.id)
def test_what_is_planted_is_what_the_engine_says(prediction, goal):
    rng = np.random.default_rng(7)
    verdict, level = decided(prediction, [planted(criterion, goal, rng) for criterion in prediction.criteria])
    assert verdict == {"underpowered": "inconclusive"}.get(goal, goal)
    assert level < 0.05 if goal != "underpowered" else level > 0.001


@pytest.mark.parametrize("prediction", chapters.PREDICTIONS, ids=lambda p: p.id)
def test_one_criterion_that_misses_its_bar_is_enough_against_support(prediction):
    rng = np.random.default_rng(7)
    good = [planted(criterion, "supported", rng) for criterion in prediction.criteria]
    for i, criterion in enumerate(prediction.criteria):
        if criterion.supports is not None:
            values = [*good[:i], planted(criterion, "underpowered", rng), *good[i + 1 :]]
            assert decided(prediction, values)[0] == "inconclusive"


@pytest.mark.parametrize("prediction", chapters.PREDICTIONS, ids=lambda p: p.id)
def test_every_bar_is_in_the_text(prediction):
    for criterion in prediction.criteria:
        assert (criterion.supports is None) or criterion.name in prediction.supported
        for bar in criterion.contradicts:
            assert bar.text(criterion.name) in prediction.contradicted


def test_the_text_says_the_bar_that_decides():
    assert Bar(">", 0.1).text("rho") == "lower bound of rho > .1"
    assert Bar("null", 0.05).text("rho") == "rho null within .05"
    assert Bar.read("within 0.9 1.1").text("slope") == "interval of slope within .9 to 1.1"
    x = 0.15 + 0.02 * np.random.default_rng(0).normal(size=N)
    found = stats.interval(x)
    assert Bar(">", 0.1).met(found, x) and not Bar(">", 0.2).met(found, x)
    assert Bar("<", 0.2).met(found, x) and not Bar("<", 0.1).met(found, x)
    most = (np.arange(N) < 36).astype(float)
    assert Bar("share", 0.9).met(stats.interval(most), most)
    assert not Bar("share", 0.91).met(stats.interval(most), most)


def test_every_claim_of_the_first_half_has_a_row_for_each_encoder():
    rows = {p.id for p in chapters.PREDICTIONS if p.live and not p.id.startswith("L")}
    parts = {"P1a", "P1b", "P1c", "P1d", "P2c", "P2d", "P3", "P3/conduct", "P4/p0", "P4/p.03", "P4/p.1", "F1"}
    parts |= {f"P2{part}/{head}" for part in "ab" for head in ("reward", "value")}
    assert rows == {f"{part}/{encoder}" for part in parts for encoder in ("cells", "flat")}
