"""Claims about how empathy comes and goes, on synthetic agents whose course is known."""

import numpy as np
import pandas as pd
import pytest
from test_calibration import evidence as calibrating
from test_verdicts import evidence as reference

from vicarious.paper import chapters, studies, verdicts
from vicarious.paper.chapters import calibration, extinction, stimuli

LOOKS = (1.0, 0.5, 0.0)
UPDATES = [0, 2, 20, 100]


def rule(name):
    return next(p for p in chapters.PREDICTIONS if p.id == name)


def precision(n=20, own=1.0, noise=0.01):
    """Four sets in halves of agents of every coupling; `own` is what is particular to a kind in an agent."""
    rng, rows = np.random.default_rng(1), []
    for seed in range(n):
        for kappa in studies.KAPPAS:
            for readout, kind in {*stimuli.EMPATHIES.values(), ("reward", "empathy")}:
                trait = (kappa if own < 1 else 0) + own * rng.normal()
                for number in range(4):
                    for half in (0, 1):
                        rho = trait + noise * rng.normal()
                        rows += [(seed, kappa, number, half, readout, kind, s, rho) for s in LOOKS]
    table = pd.DataFrame(rows, columns="seed kappa set half readout kind similarity rho".split())
    return table.assign(family="recurrent", exposure=1.0, mover="other")


def course(n=20, noise=0.02, foretells=True):
    """Joint training: what an agent is at the end shows in half at a fifth of it, or does not."""
    rng, rows = np.random.default_rng(2), []
    for seed in range(n):
        final = rng.normal(0.3, 0.1)
        early = 0.5 * final if foretells else rng.normal(0.15, 0.05)
        for update, at in zip(UPDATES, (0.0, 0.01, early, final), strict=True):
            for half in (0, 1):
                for mover, s in (("self", 1.0), *(("other", s) for s in LOOKS)):
                    rows.append((seed, update, half, mover, s, (1.0 if mover == "self" else at) + noise * rng.normal()))
    table = pd.DataFrame(rows, columns="seed update half mover similarity rho".split())
    return table.assign(family="recurrent", exposure=0.0, readout="reward", kind="empathy")


def watching(**own):
    given = {"n": 20} | own
    parts = {name: given.pop(name) for name in ("traits", "error", "foretells") if name in given}
    return calibrating(n=given["n"]).replace(
        precision=precision(given["n"], parts.get("traits", 1.0), parts.get("error", 0.01)),
        development=course(given["n"], foretells=parts.get("foretells", True)),
    )


@pytest.mark.parametrize(
    ("planted", "expected"),
    [
        ({}, "supported"),
        ({"traits": 0.0}, "inconclusive"),
        ({"foretells": False}, "inconclusive"),
        ({"error": 4.0}, "contradicted"),
        ({"n": 8}, "inconclusive"),
    ],
    ids=["five kinds", "one number under five labels", "early says nothing", "too coarse", "too few"],
)
def test_a_monitor_is_precise_or_not(planted, expected):
    assert verdicts.decide(rule("P7"), watching(**planted))["verdict"] == expected


def test_without_agents_that_were_watched_p7_has_no_value():
    row = verdicts.decide(rule("P7"), calibrating(n=20))
    assert row["verdict"] == "inconclusive" and row["note"] == "no value for 20 agents"


def test_the_worst_looks_count_for_planted_couplings():
    x = np.zeros((20, 2, 5, 2))
    x[..., 0] = studies.KAPPAS
    x[:, 0, :, 1], x[:, 1, :, 1] = 0.8 * x[:, 0, :, 0], 1.1 * x[:, 1, :, 0]
    assert stimuli._worst_slope(x) == pytest.approx(0.8)
    x[:, 0, :, 1] += np.random.default_rng(0).normal(0, 1, (20, 5))
    found = stimuli._worst_determination(x)
    assert found == pytest.approx(calibration.determination(x[:, 0])) and found < 0.9


def extinguished(n=20, left=0.0, p=1.0, life=50.0, own=1.0, noise=0.005, start=0.4):
    """Heads that keep `left` and lose the rest with this half-life, in every update of a grid."""
    rng, rows = np.random.default_rng(3), []
    for seed in range(n):
        for update in GRID:
            now = left + (start - left) * 0.5 ** (update / life)
            for side, scenes in ((0, 30), (1, 10)):
                rows.append((seed, update, side, scenes, "self", 1.0, own if update == GRID[-1] else 1.0))
                rows += [
                    (seed, update, side, scenes, "other", s, now + (0.1 if side else 0.0) + noise * rng.normal())
                    for s in LOOKS
                ]
    table = pd.DataFrame(rows, columns="seed update side n_scenes mover similarity rho".split())
    fixed = {"exposure": p, "readout": "reward", "kind": "empathy", "withheld": "nothing", "until": 1.0}
    table.loc[table.mover == "other", "rho"] -= 0.025  # sides are weighted by their scenes
    return table.assign(**fixed)


GRID = [0, *(round(10 ** (i / 6)) for i in range(25))]


@pytest.mark.parametrize(
    ("planted", "expected"),
    [
        ({}, "supported"),
        ({"left": 0.2}, "contradicted"),
        ({"left": 0.045, "noise": 0.2}, "inconclusive"),
        ({"life": 50_000.0}, "contradicted"),
        ({"own": 0.7}, "inconclusive"),
        ({"n": 9}, "inconclusive"),
    ],
    ids=["all goes", "some stays", "cannot tell", "it has hardly begun", "the self is lost as well", "too few"],
)
def test_what_is_trained_away_is_told_from_what_stays(planted, expected):
    row = verdicts.decide(rule("B"), reference().replace(extinction=extinguished(**planted)))
    assert row["verdict"] == expected
    if "own" in planted:
        assert row["excluded"] == list(range(20)) and row["note"] == "no competent agents"


def test_b_of_confused_agents_says_nothing():
    row = verdicts.decide(rule("B"), reference(auc=0.8).replace(extinction=extinguished()))
    assert row["verdict"] == "inconclusive" and "confusion" in row["note"]


def test_sides_of_the_glass_are_weighted_by_scenes_or_read_alone():
    e = reference(n=3).replace(extinction=extinguished(n=3, noise=0.0))
    updates, both = extinction.after(e, [0, 1, 2], 1.0)
    left, right = (extinction.after(e, [0, 1, 2], 1.0, side=side)[1] for side in (0, 1))
    assert updates.tolist() == sorted(set(GRID)) and both[:, 0] == pytest.approx(0.4)
    assert (right - left) == pytest.approx(0.1) and both == pytest.approx(0.75 * left + 0.25 * right)
    assert np.isnan(extinction.after(e, [0, 1, 2], 0.3)[1]).all(), "what was not trained has no value"


def test_half_lives_come_back():
    e = reference(n=3).replace(extinction=extinguished(n=20, life=50.0))
    x, y = extinction.after(e, list(range(20)), 1.0)
    found = extinction.half_life(x, y)
    assert found.estimate == pytest.approx(50, rel=0.08) and found.low <= 50 * 1.05 and found.high >= 50 * 0.95
    never = extinction.half_life(x, np.full((20, len(x)), 0.3) + 0.001 * np.arange(20)[:, None])
    assert never.estimate == never.high == np.inf and never.n == 20
    late = extinction.half_life(np.array([0.0, 10.0, 100.0]), np.array([[0.4, 0.3, 0.2]] * 6))
    assert late.estimate == pytest.approx(100)


def test_half_lives_beside_a_control_are_those_of_the_labels_alone():
    """What falls by itself, or falls for the self as well, is divided out."""
    x = np.array([0.0, *GRID[1:]])
    jitter = 1 + 0.01 * np.random.default_rng(0).normal(size=(20, 1))
    erosion = jitter * 0.5 ** (x / 300)
    told = erosion * 0.5 ** (x / 100)
    alone = extinction.half_life(x, told)
    beside = extinction.half_life(x, told, erosion)
    assert alone.estimate == pytest.approx(75, rel=0.1) and beside.estimate == pytest.approx(100, rel=0.1)


def test_half_of_the_highest_is_found_between_checkpoints():
    updates = np.array([0, 10, 100])
    rho = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.1], [0.0, -0.1, -0.2]])
    found = stimuli.first_reached(updates, rho)
    assert 10 < found[0] < 100 and 0 < found[1] < 10 and np.isnan(found[2])


def test_a_forecast_is_judged_on_agents_it_was_not_made_from():
    """It is the correlation where there is one and nothing where there is none, whatever its sign."""
    rng = np.random.default_rng(0)
    early = rng.normal(size=(400, 1, 1))
    noise = rng.normal(size=(400, 1, 1))
    for sign in (1, -1):
        x = np.concatenate([early, sign * early + noise], -1)
        assert stimuli.forecast(x) == pytest.approx(1 / np.sqrt(2), abs=0.05)
    nothing = [stimuli.forecast(rng.normal(size=(20, 1, 2))) for _ in range(200)]
    assert abs(np.mean(nothing)) < 0.05, "leaving one out would give nearly -1 here"
    assert np.isnan(stimuli.forecast(np.ones((20, 1, 2))))


def test_an_agent_drawn_twice_does_not_foretell_itself():
    rng = np.random.default_rng(1)
    found = [stimuli.forecast(x[rng.integers(0, 20, 20)]) for x in rng.normal(size=(200, 20, 1, 2))]
    assert abs(np.mean(found)) < 0.06


def test_the_multitrait_matrix_is_one_of_correlations_and_its_lead_the_hardest_comparison():
    rng = np.random.default_rng(0)
    traits = rng.normal(size=(30, 2, 3))
    x = traits[..., None] + 0.1 * rng.normal(size=(30, 2, 3, 2))
    r = stimuli.multitrait(x)
    flat = pd.DataFrame({(half, kind): x[:, :, kind, half].ravel() for half in (0, 1) for kind in range(3)})
    assert r == pytest.approx(flat.corr().to_numpy())
    same = [r[k, 3 + k] for k in range(3)]
    other = max(abs(0) + r[i, j] for i in range(6) for j in range(6) if i % 3 != j % 3)
    assert stimuli.kinds_lead(x) == pytest.approx(min(same) - other) and stimuli.kinds_lead(x) > 0.4
    assert stimuli.factors(x).sum() == pytest.approx(1) and stimuli.factors(x)[0] < 0.6
    assert stimuli.factors(traits[..., :1].repeat(3, 2)[..., None].repeat(2, 3))[0] == pytest.approx(1)


def test_precision_over_training_knows_the_error_that_was_put_in():
    e = reference(n=3).replace(development=course(n=40, noise=0.04))
    t = stimuli.reliability_over_training(e, list(range(40)), "reward", "empathy", [0.0]).set_index("update")
    assert t.error[100] == pytest.approx(0.04 / np.sqrt(2), rel=0.25)
    assert (
        t.estimate[100] > 0.9 and t.estimate[0] < t.estimate[100] - 0.2 and t.spread[100] == pytest.approx(0.1, rel=0.3)
    )


def test_the_share_of_extinction_is_none_or_all_for_those_without_labels():
    rng = np.random.default_rng(0)
    never, told = 0.6 + 0.02 * rng.normal(size=20), 0.05 + 0.02 * rng.normal(size=20)
    assert extinction.generalised(never, never + 0.001 * rng.normal(size=20), told).high < 0.1
    assert extinction.generalised(never, told + 0.001 * rng.normal(size=20), told).low > 0.9


def test_extremes_are_not_chosen_by_an_agents_own_noise():
    flat = np.random.default_rng(0).normal(size=(400, 20, 30))
    assert abs(np.mean([stimuli.extreme(x)[1].mean() for x in flat])) < 0.05, "the lowest of thirty means is -.46"
    at, values = stimuli.extreme(np.array([[0.3, -0.2, 0.0], [0.2, -0.1, 0.1]] * 5))
    assert at == 1 and values.mean() == pytest.approx(-0.15)
    at, values = stimuli.extreme(np.array([[0.3, -0.2, 0.0], [0.2, -0.1, 0.1]] * 5), highest=True)
    assert at == 0 and values.mean() == pytest.approx(0.25)


def test_an_agent_that_was_watched_and_did_not_learn_is_left_out():
    e = watching()
    t = e.table("development")
    ignorant = t.rho.where(~((t.seed == 3) & (t.mover == "self")), 0.5)
    course_ = t.assign(rho=ignorant.where(~((t.seed != 3) & (t.mover == "self")), 1.0))
    good, bad = stimuli.measured(e.replace(development=course_))
    assert bad == [3] and len(good) == 19
