"""The verdict engine on synthetic agents whose verdict is known."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from test_metrics import TRUTH, table

from vicarious import metrics, predictions, rules, stimuli

LEVELS = tuple(stimuli.similarity(stimuli.angles(7)))
AT_S = 30.0  # dose, 90 degrees less the angle, of looks at s = .5


def evidence(
    n=40,
    other=0.4,
    drifter=0.1,
    pixels=0.1,
    orthogonal=0.0,
    own=1.0,
    auc=1.0,
    transfer=0.6,
    control=0.2,
    noise=0.03,
    passing=1.0,
    shape=lambda dose: dose / AT_S,
    patched=0.3,
):
    """n agents per family with these coefficients at s = .5 for both heads, and codes that transfer so well.

    shape: of the coefficient over the dose of looks, 1 at s = .5; patched: what a patch along the axis adds.
    """
    rng, parts, measures, moved = np.random.default_rng(0), [], [], []
    for seed in range(n):
        for family in ("recurrent", "pixels", "untrained"):
            jitter, good = rng.normal(0, noise), seed < passing * n

            def gain(readout, mover, s, family=family, jitter=jitter, good=good):
                if mover == "self":
                    return own if good else 0.5
                share = float(shape(90 - np.degrees(np.arccos(s))))
                if family != "recurrent":
                    return pixels * share + jitter
                return orthogonal + ({"other": other, "drifter": drifter}[mover] - orthogonal) * share + jitter

            if family == "recurrent":
                moved += paths(seed, lambda s, gain=gain: gain("reward", "other", s), patched, rng.normal(0, noise))
            parts.append(table(gain, seed=seed, family=family, levels=LEVELS))
            agent = {"seed": seed, "family": family, "exposure": 0.0, "kappa": 0.0, "mover": "self", "similarity": 1.0}
            measures.append(agent | {"measure": "value_r", "value": 0.95})
            measures.append(agent | {"measure": "r2", "value": 0.9})
            code = {
                "transfer": (transfer if family == "recurrent" else control) + jitter,
                "auc": auc,
                "p_self": 0.01,
                "null0": -0.1 + jitter,
            }
            for name, value in code.items():
                for s in LEVELS:
                    measures.append(agent | {"mover": "other", "similarity": s, "measure": name, "value": value})
    moved = pd.DataFrame(moved, columns="seed path alpha similarity slope readout".split())
    moved = moved.assign(family="recurrent", exposure=0.0, kappa=0.0, mover="other")
    return predictions.Evidence.of(pd.concat([*parts, TRUTH], ignore_index=True), pd.DataFrame(measures), moved)


def paths(seed, rho, patched, jitter):
    """What interventions make of one agent's coefficients: a straight way along the axis and to the self's own."""
    for alpha in np.linspace(0, 1, 11).round(1):
        for s in LEVELS:
            start = rho(s)
            yield seed, "axis", alpha, s, start + (patched + jitter) * alpha, "reward"
            yield seed, "random", alpha, s, start, "reward"
            yield seed, "whole", alpha, s, start + (1 - start) * alpha, "reward"
    for s in LEVELS:
        yield seed, "erased", 1.0, s, 0.5 * rho(s), "reward"
        yield seed, "centred", 1.0, s, 0.5 * rho(s), "reward"
        yield seed, "erased at random", 1.0, s, rho(s), "reward"
        yield seed, "shift", 1.0, s, rho(s) + patched + jitter, "reward"
        yield seed, "random, better way", 1.0, s, rho(s) + 0.06, "reward"


def verdict(found, **kwargs):
    return predictions.verdicts(found, **kwargs).set_index("id").verdict.to_dict()


LIVE = ["P1a", "P1b", "P2a/reward", "P2b/reward", "P2a/value", "P2b/value", "F1"]


BY_DEGREES = ["P3", "P3/conduct", "P4"]


def test_planted_empathy_is_supported_and_everything_else_pending():
    found = verdict(evidence())
    told = {k: v for k, v in found.items() if v != "pending"}
    unwatched = ["P7", "B", *(k for k in told if k.startswith("P5"))]
    assert {k: told.pop(k) for k in unwatched} == dict.fromkeys(unwatched, "inconclusive") and len(unwatched) == 10
    assert told == dict.fromkeys([*LIVE, *BY_DEGREES], "supported")
    assert {"P6a/reward", "F2", "A"} <= {k for k, v in found.items() if v == "pending"}


@pytest.mark.parametrize(
    ("planted", "expected"),
    [
        ({"other": 0.0, "drifter": 0.1}, {"P3": "contradicted", "P3/conduct": "contradicted"}),
        ({"other": -0.3, "drifter": -0.4}, {"P3": "contradicted", "P3/conduct": "supported"}),
        ({"patched": 0.0}, {"P3": "inconclusive", "P3/conduct": "supported"}),
        ({"shape": lambda dose: 1.0 * (dose > 20)}, {"P3": "supported", "P4": "contradicted"}),
        ({"shape": lambda dose: 1 + 0.2 * (dose > 40) - (dose < 20), "noise": 0.2}, {"P4": "contradicted"}),
        ({"shape": lambda dose: np.tanh(dose / 12)}, {"P3": "supported", "P4": "inconclusive"}),
    ],
    ids=["flat", "falling", "no effect of the patch", "a step", "two steps", "smooth but steep"],
)
def test_degrees_are_told_from_steps_and_causes_from_correlations(planted, expected):
    table = predictions.verdicts(evidence(**planted)).set_index("id").verdict
    assert table[list(expected)].to_dict() == expected


def test_a_patch_that_does_no_more_than_random_ones_is_no_cause():
    found = evidence()
    m = found.interventions
    beside = m[m.path == "axis"].assign(path="random")
    same = replace(found, interventions=pd.concat([m[m.path != "random"], beside]))
    assert verdict(same)["P3"] == "inconclusive" and verdict(replace(found, interventions=None))["P3"] == "inconclusive"


def test_planted_indifference_is_contradicted():
    found = verdict(evidence(other=0.0, drifter=0.0, pixels=0.3, transfer=0.0, control=0.5))
    assert {k: found[k] for k in LIVE} == dict.fromkeys(LIVE, "contradicted")


def test_too_much_noise_is_inconclusive():
    found = verdict(evidence(other=0.15, pixels=0.1, drifter=0.15, transfer=0.2, control=0.1, noise=0.3))
    assert {found[k] for k in LIVE} == {"inconclusive"}


def test_below_ten_agents_it_is_always_inconclusive():
    table = predictions.verdicts(evidence(n=9)).set_index("id")
    assert set(table.verdict[LIVE]) == {"inconclusive"} and table.note["P2a/reward"].startswith("fewer than 10")


def test_a_failed_gate_is_inconclusive_and_names_the_excluded():
    table = predictions.verdicts(evidence(passing=0.8)).set_index("id")
    row = table.loc["P2a/reward"]
    assert row.verdict == "inconclusive" and not row.gate_passed and row.excluded == list(range(32, 40)) and row.n == 32
    assert predictions.verdicts(evidence(passing=0.95)).set_index("id").verdict["P2a/reward"] == "supported"


def test_confusion_is_never_empathy():
    table = predictions.verdicts(evidence(auc=0.8)).set_index("id")
    assert set(table.verdict[LIVE]) == {"inconclusive"} and "confusion" in table.note["P2a/reward"]


def test_agents_without_a_value_are_listed_and_count_against_the_gate():
    found = evidence(n=20)
    m = found.measures
    gone = (m.measure == "r2") & (m.family == "pixels") & m.seed.isin([3, 4, 5])
    few = predictions.Evidence(found.coefficients, found.gates, m.assign(value=m["value"].where(~gone, 0.01)))
    row = predictions.verdicts(few).set_index("id").loc["P1b"]
    assert row.excluded == [3, 4, 5] and row.n == 17 and not row.gate_passed and row.verdict == "inconclusive"
    assert "no value for agents [3, 4, 5]" in row.note


def test_identity_that_was_not_measured_is_not_identity():
    found = evidence(n=20)
    m = found.measures
    unknown = predictions.Evidence(found.coefficients, found.gates, m[~((m.measure == "auc") & (m.seed == 0))])
    assert predictions.verdicts(unknown).set_index("id").verdict["P2a/reward"] == "inconclusive"


def test_excluded_agents_do_not_make_a_full_study_provisional():
    assert not predictions.verdicts(evidence(n=40, passing=0.95)).set_index("id").provisional["P2a/reward"]


def test_one_failing_condition_is_enough():
    found = verdict(evidence(orthogonal=0.4))
    assert found["P2a/reward"] == "inconclusive", "rho without a looks contrast is not empathy for the similar"
    assert verdict(evidence(drifter=0.4))["F1"] == "inconclusive", "value without animacy is about items"


def test_it_is_provisional_below_the_planned_number_and_uncalibrated_until_told():
    few = predictions.verdicts(evidence(n=20)).set_index("id")
    many = predictions.verdicts(replace(evidence(n=40), calibrated=True)).set_index("id")
    assert few.provisional["P1a"] and not many.provisional["P1a"]
    assert "not calibrated" in few.note["P1a"] and many.note["P1a"] == ""


def test_holm_takes_back_what_does_not_survive():
    """A result that clears its bar by a hair does not stand beside six that do not."""
    found = evidence(n=12, other=0.125, pixels=0.115, drifter=0.12, transfer=0.12, control=0.1, noise=0.036)
    table = predictions.verdicts(found).set_index("id").loc[LIVE]
    raw = [predictions.judge(p, found) for p in predictions.PREDICTIONS if p.id in LIVE]
    demoted = [r["id"] for r in raw if r["verdict"] != "inconclusive" and table.p_holm[r["id"]] >= 0.05]
    assert all(table.verdict[i] == "inconclusive" and "Holm" in table.note[i] for i in demoted)
    assert (table.p_holm >= table.p - 1e-12).all()


def test_a_verdict_read_elsewhere_says_so():
    found = evidence()
    elsewhere = predictions.Evidence(found.coefficients, found.gates, found.measures, s=0.9)
    assert "not as preregistered" in predictions.verdicts(elsewhere).set_index("id").note["P2a/reward"]


def test_ids_are_unique_and_cover_the_preregistration():
    ids = [p.id for p in predictions.PREDICTIONS]
    assert len(ids) == len(set(ids))
    assert {p.prediction for p in predictions.PREDICTIONS} == {*(f"P{i}" for i in range(1, 8)), "F1", "F2", "A", "B"}


def test_thresholds_are_the_preregistered_ones():
    assert (predictions.MARGIN, predictions.NULL, predictions.S, predictions.P, predictions.MINIMUM) == (
        0.1,
        0.05,
        0.5,
        0.0,
        10,
    )
    assert (metrics.TOLERANCE, metrics.AGREEMENT, metrics.PASSING, metrics.IDENTITY, metrics.UNDEFINED) == (
        0.2,
        0.9,
        0.9,
        0.95,
        0.1,
    )
    assert (rules.CONFIRMATORY, rules.SWEEP, rules.FAMILIES) == (40, 20, 10)


@pytest.mark.parametrize("found", [None, "some"])
def test_json_is_plain_and_complete(found):
    rows = predictions.as_json(predictions.verdicts(evidence(n=12) if found else None))
    text = json.dumps(rows, allow_nan=False)
    need = {
        "id",
        "prediction",
        "part",
        "head",
        "family",
        "claim",
        "statistic",
        "estimate",
        "ci_low",
        "ci_high",
        "n",
        "excluded",
    }
    need |= {"gate_passed", "provisional", "verdict"}
    assert all(need <= set(row) for row in json.loads(text))
