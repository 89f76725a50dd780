"""The verdict engine on synthetic agents whose verdict is known."""

import json

import numpy as np
import pandas as pd
import pytest
from test_metrics import TRUTH, table

from vicarious import battery, metrics
from vicarious.paper import chapters, results, verdicts
from vicarious.paper.chapters import generality

LEVELS = tuple(battery.similarity(battery.angles(7)))
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
    families=None,
    imagined=None,
):
    """n agents per family with these coefficients at s = .5 for both heads, and codes that transfer so well.

    shape: of the coefficient over the dose of looks, 1 at s = .5; patched: what a patch along the axis adds; families:
    further families, with what is particular to their agents; imagined: coefficients of imagined contacts by family.
    """
    usual = {"other": other, "auc": auc, "own": own}
    special = {"recurrent": usual} | {name: usual | more for name, more in (families or {}).items()}
    rng, parts, measures, moved = np.random.default_rng(0), [], [], []
    for seed in range(n):
        for family in (*special, "pixels", "untrained"):
            here = special.get(family, usual)
            jitter, good = rng.normal(0, noise), seed < passing * n

            def gain(readout, mover, s, family=family, jitter=jitter, good=good, here=here):
                if mover == "self":
                    return here["own"] if good else 0.5
                share = float(shape(90 - np.degrees(np.arccos(s))))
                if family not in special:
                    return pixels * share + jitter
                at = {"other": here["other"], "drifter": drifter}[mover]
                return orthogonal + (at - orthogonal) * share + jitter

            if family == "recurrent":
                moved += paths(seed, lambda s, gain=gain: gain("reward", "other", s), patched, rng.normal(0, noise))
            parts.append(table(gain, seed=seed, family=family, levels=LEVELS))
            agent = {"seed": seed, "family": family, "exposure": 0.0, "kappa": 0.0, "mover": "self", "similarity": 1.0}
            measures.append(agent | {"measure": "value_r", "value": 0.95})
            measures.append(agent | {"measure": "r2", "value": 0.9})
            code = {
                "transfer": (transfer if family in special else control) + jitter,
                "auc": here["auc"],
                "p_self": 0.01,
                "null0": -0.1 + jitter,
            }
            for name, value in code.items():
                for s in LEVELS:
                    measures.append(agent | {"mover": "other", "similarity": s, "measure": name, "value": value})
    moved = pd.DataFrame(moved, columns="seed path alpha similarity slope readout".split())
    moved = moved.assign(family="recurrent", exposure=0.0, kappa=0.0, mover="other")
    more = {"imagined": (foreseen(n, imagined, rng, noise), ONE)} if imagined else {}
    tables = pd.concat([*parts, TRUTH], ignore_index=True), pd.DataFrame(measures)
    return results.Results.of(*tables, interventions=moved, **more)


ONE = pd.Series(1.0, pd.MultiIndex.from_product([("self", "other", "drifter"), ("reward", "value")], names=["m", "r"]))


def foreseen(n, families, rng, noise):
    """Slopes of contacts that agents of these families imagine: family -> (own, other's at s = .5)."""
    rows = []
    for family, (own, other) in families.items():
        for seed in range(n):
            jitter = rng.normal(0, noise)
            for readout in ("reward", "value"):
                rows.append((seed, family, "self", 1.0, readout, own + jitter))
                share = [(90 - np.degrees(np.arccos(s))) / AT_S for s in LEVELS]
                rows += [
                    (seed, family, "other", s, readout, other * x + jitter) for s, x in zip(LEVELS, share, strict=True)
                ]
    table = pd.DataFrame(rows, columns="seed family mover similarity readout slope".split())
    return table.assign(exposure=0.0, kappa=0.0)


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
    return verdicts.verdicts(chapters.PREDICTIONS, found, **kwargs).set_index("id").verdict.to_dict()


LIVE = ["P1a", "P1b", "P2a/reward", "P2b/reward", "P2a/value", "P2b/value", "F1"]


BY_DEGREES = ["P3", "P3/conduct", "P4"]


def test_planted_empathy_is_supported_and_everything_else_pending():
    found = verdict(evidence())
    told = {k: v for k, v in found.items() if v != "pending"}
    unwatched = ["P7", "A", "B", *(k for k in told if k.startswith(("P5", "P6")))]
    assert {k: told.pop(k) for k in unwatched} == dict.fromkeys(unwatched, "inconclusive") and len(unwatched) == 15
    assert told == dict.fromkeys([*LIVE, *BY_DEGREES], "supported")
    assert {k for k, v in found.items() if v == "pending"} == {"F2"}


OTHERS = [f for f in generality.GENERAL if f != "recurrent"]


@pytest.mark.parametrize(
    ("families", "imagined", "expected"),
    [
        ({f: {} for f in OTHERS}, None, "supported"),
        ({f: {} for f in OTHERS}, {"rssm": (1.0, 0.4)}, "supported"),
        ({f: {} for f in OTHERS[:4]}, None, "inconclusive"),
        ({f: {"other": 0.0} if f == "jepa" else {} for f in OTHERS[:4]}, None, "inconclusive"),
        ({f: {"other": 0.0} if f == "jepa" else {} for f in OTHERS}, None, "contradicted"),
        ({f: {"other": 0.0, "own": 0.5} if f == "jepa" else {} for f in OTHERS}, None, "supported"),
        ({f: {"other": 0.0, "auc": 0.6} if f == "jepa" else {} for f in OTHERS}, None, "supported"),
        ({f: {} for f in OTHERS}, {"rssm": (1.0, 0.0)}, "contradicted"),
        ({f: {} for f in OTHERS}, {"rssm": (0.5, 0.0)}, "supported"),
    ],
    ids=[
        *(
            "all",
            "imagined too",
            "five families",
            "one of five without",
            "one without",
            "one without, incompetent",
            "one without, confused",
        ),
        *("one without in imagination", "one that cannot imagine"),
    ],
)
def test_whenever_takes_every_competent_family(families, imagined, expected):
    table = verdicts.verdicts(chapters.PREDICTIONS, evidence(n=12, families=families, imagined=imagined)).set_index(
        "id"
    )
    assert table.verdict["P6a/reward"] == expected
    assert table.gate_passed["P6a/reward"] or expected == "inconclusive"
    count = 1 + sum("own" not in more and "auc" not in more for more in families.values())
    assert table.n["P6a/reward"] == count


def test_a_family_is_compared_with_its_own_controls():
    beyond = evidence(n=12, families={f: {"other": -0.1} if f == "vae" else {} for f in OTHERS})
    table = verdicts.verdicts(chapters.PREDICTIONS, beyond).set_index("id")
    assert table.verdict["P6b/reward"] == "contradicted", "less than heads on pixels have"
    low, high = table.ci_low["P6b/reward"], table.ci_high["P6b/reward"]
    assert low < table.estimate["P6b/reward"] < high and high - low > 0.2, "families differ"


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
    table = verdicts.verdicts(chapters.PREDICTIONS, evidence(**planted)).set_index("id").verdict
    assert table[list(expected)].to_dict() == expected


def test_a_patch_that_does_no_more_than_random_ones_is_no_cause():
    found = evidence()
    m = found.table("interventions")
    beside = m[m.path == "axis"].assign(path="random")
    same = found.replace(interventions=pd.concat([m[m.path != "random"], beside]))
    assert verdict(same)["P3"] == "inconclusive" and verdict(found.replace(interventions=None))["P3"] == "inconclusive"


def test_planted_indifference_is_contradicted():
    found = verdict(evidence(other=0.0, drifter=0.0, pixels=0.3, transfer=0.0, control=0.5))
    assert {k: found[k] for k in LIVE} == dict.fromkeys(LIVE, "contradicted")


def test_too_much_noise_is_inconclusive():
    found = verdict(evidence(other=0.15, pixels=0.1, drifter=0.15, transfer=0.2, control=0.1, noise=0.3))
    assert {found[k] for k in LIVE} == {"inconclusive"}


def test_below_ten_agents_it_is_always_inconclusive():
    table = verdicts.verdicts(chapters.PREDICTIONS, evidence(n=9)).set_index("id")
    assert set(table.verdict[LIVE]) == {"inconclusive"} and table.note["P2a/reward"].startswith("fewer than 10")


def test_a_failed_gate_is_inconclusive_and_names_the_excluded():
    table = verdicts.verdicts(chapters.PREDICTIONS, evidence(passing=0.8)).set_index("id")
    row = table.loc["P2a/reward"]
    assert row.verdict == "inconclusive" and not row.gate_passed and row.excluded == list(range(32, 40)) and row.n == 32
    assert (
        verdicts.verdicts(chapters.PREDICTIONS, evidence(passing=0.95)).set_index("id").verdict["P2a/reward"]
        == "supported"
    )


def test_confusion_is_never_empathy():
    table = verdicts.verdicts(chapters.PREDICTIONS, evidence(auc=0.8)).set_index("id")
    assert set(table.verdict[LIVE]) == {"inconclusive"} and "confusion" in table.note["P2a/reward"]


def test_agents_without_a_value_are_listed_and_count_against_the_gate():
    found = evidence(n=20)
    m = found.measures
    gone = (m.measure == "r2") & (m.family == "pixels") & m.seed.isin([3, 4, 5])
    few = results.Results(found.coefficients, found.gates, m.assign(value=m["value"].where(~gone, 0.01)))
    row = verdicts.verdicts(chapters.PREDICTIONS, few).set_index("id").loc["P1b"]
    assert row.excluded == [3, 4, 5] and row.n == 17 and not row.gate_passed and row.verdict == "inconclusive"
    assert "no value for agents [3, 4, 5]" in row.note


def test_identity_that_was_not_measured_is_not_identity():
    found = evidence(n=20)
    m = found.measures
    unknown = results.Results(found.coefficients, found.gates, m[~((m.measure == "auc") & (m.seed == 0))])
    assert verdicts.verdicts(chapters.PREDICTIONS, unknown).set_index("id").verdict["P2a/reward"] == "inconclusive"


def test_excluded_agents_do_not_make_a_full_study_provisional():
    assert (
        not verdicts.verdicts(chapters.PREDICTIONS, evidence(n=40, passing=0.95))
        .set_index("id")
        .provisional["P2a/reward"]
    )


def test_one_failing_condition_is_enough():
    found = verdict(evidence(orthogonal=0.4))
    assert found["P2a/reward"] == "inconclusive", "rho without a looks contrast is not empathy for the similar"
    assert verdict(evidence(drifter=0.4))["F1"] == "inconclusive", "value without animacy is about items"


def test_it_is_provisional_below_the_planned_number_and_uncalibrated_until_told():
    few = verdicts.verdicts(chapters.PREDICTIONS, evidence(n=20)).set_index("id")
    many = verdicts.verdicts(chapters.PREDICTIONS, evidence(n=40).replace(calibrated=True)).set_index("id")
    assert few.provisional["P1a"] and not many.provisional["P1a"]
    assert "not calibrated" in few.note["P1a"] and many.note["P1a"] == ""


def test_holm_takes_back_what_does_not_survive():
    """A result that clears its bar by a hair does not stand beside six that do not."""
    found = evidence(n=12, other=0.125, pixels=0.115, drifter=0.12, transfer=0.12, control=0.1, noise=0.036)
    table = verdicts.verdicts(chapters.PREDICTIONS, found).set_index("id").loc[LIVE]
    raw = [verdicts.decide(p, found) for p in chapters.PREDICTIONS if p.id in LIVE]
    demoted = [r["id"] for r in raw if r["verdict"] != "inconclusive" and table.p_holm[r["id"]] >= 0.05]
    assert all(table.verdict[i] == "inconclusive" and "Holm" in table.note[i] for i in demoted)
    assert (table.p_holm >= table.p - 1e-12).all()


def test_a_verdict_read_elsewhere_says_so():
    found = evidence()
    elsewhere = results.Results(found.coefficients, found.gates, found.measures, s=0.9)
    assert (
        "not as preregistered" in verdicts.verdicts(chapters.PREDICTIONS, elsewhere).set_index("id").note["P2a/reward"]
    )


def test_ids_are_unique_and_cover_the_preregistration():
    ids = [p.id for p in chapters.PREDICTIONS]
    assert len(ids) == len(set(ids))
    assert {p.prediction for p in chapters.PREDICTIONS} == {*(f"P{i}" for i in range(1, 8)), "F1", "F2", "A", "B"}


def test_thresholds_are_the_preregistered_ones():
    assert (verdicts.MARGIN, verdicts.NULL, verdicts.S, verdicts.P, verdicts.MINIMUM) == (0.1, 0.05, 0.5, 0.0, 10)
    assert (metrics.TOLERANCE, metrics.AGREEMENT, metrics.PASSING, metrics.IDENTITY, metrics.UNDEFINED) == (
        0.2,
        0.9,
        0.9,
        0.95,
        0.1,
    )
    assert (verdicts.CONFIRMATORY, verdicts.SWEEP, verdicts.FAMILIES) == (40, 20, 10)


@pytest.mark.parametrize("found", [None, "some"])
def test_json_is_plain_and_complete(found):
    rows = verdicts.as_json(verdicts.verdicts(chapters.PREDICTIONS, evidence(n=12) if found else None))
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


def test_a_condition_that_no_table_has_is_refused_and_not_passed_over():
    found = evidence(n=3)
    for ask in (found.rho, found.measure):
        with pytest.raises(KeyError, match="expsure"):
            ask({found.rho: "reward", found.measure: "auc"}[ask], [0, 1, 2], expsure=1.0)
    with pytest.raises(KeyError, match="expsure"):
        found.split_by_gate("reward", expsure=1.0)
