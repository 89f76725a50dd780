"""The verdict engine on synthetic agents whose verdict is known."""

import json

import numpy as np
import pandas as pd
import pytest
from test_metrics import TRUTH, table

from vicarious import battery, metrics
from vicarious.paper import chapters, results, studies, verdicts
from vicarious.paper.chapters.misgeneralisation import LEARNT_LESS, inputs

LEVELS = tuple(battery.similarity(battery.angles(7)))
FINE = tuple(battery.similarity(battery.angles(21)))
AT_S = 30.0  # dose, 90 degrees less the angle, of appearance at s = .5
USUAL = {"variant": "reference", "others": "all"}


def linear(dose):
    return dose / AT_S


def evidence(n=40, families=studies.ENCODERS, **planted):
    """n agents of each encoder, with controls, in every company at which something is read.

    planted: other, drifter, nobody, control (coefficients at s = .5 for both heads), own (slope), failing (share of
    agents whose own slope is .5), auc, tau, tau_control, foresight (of the way), noise, patched (what a patch along the
    axis adds), shape (of the coefficient over the dose of appearance, 1 at s = .5).
    """
    what = {"other": 0.4, "drifter": 0.1, "nobody": 0.0, "control": 0.1, "own": 1.0, "failing": 0.0, "auc": 1.0}
    what |= {"tau": 0.6, "tau_control": 0.2, "foresight": 0.8, "noise": 0.03, "patched": 0.3, "shape": linear} | planted
    rng = np.random.default_rng(0)
    responses, measures, moved, fine, seen = [TRUTH.assign(**USUAL)], [], [], [], []
    for seed in range(n):
        for family in families:
            jitter, good = rng.normal(0, what["noise"]), seed >= what["failing"] * n
            agent = {"seed": seed, "family": family, "company": 0.0}
            for variant, others in ROLES:
                gain = _gain(what, variant != "reference", good, jitter + rng.normal(0, what["noise"] / 3))
                one = table(gain, seed=seed, family=family, levels=LEVELS)
                responses.append(one.assign(variant=variant, others=others))
                measures.append(agent | {"variant": variant, "measure": "value_r", "value": 0.95, "others": others})
            for p in studies.GRADED:
                whole = table(_gain(what, False, good, jitter), seed=seed, family=family, company=p, levels=FINE)
                fine.append(whole[whole.mover == "other"].assign(**USUAL))
                moved += [(seed, family, p, *row) for row in _paths(what, jitter)]
                if p:
                    one = table(_gain(what, False, good, jitter), seed=seed, family=family, company=p, levels=LEVELS)
                    responses.append(one.assign(**USUAL))
                    measures.append(agent | USUAL | {"company": p, "measure": "value_r", "value": 0.95})
            measures += _codes(agent, "reference", what["tau"] + jitter, what["auc"])
            measures += _codes(agent, "untrained", what["tau_control"] + jitter, what["auc"])
            place = 0.9 - 0.8 * what["foresight"]
            rows = {"aimless": 0.9, "informed": 0.1, "place": place}
            seen += [{**agent, "variant": "reference", "measure": k, "value": v} for k, v in rows.items()]
        for family in studies.INPUTS:
            gain = _gain(what, True, True, rng.normal(0, what["noise"]))
            responses.append(table(gain, seed=seed, family=family, levels=LEVELS).assign(**USUAL))
            agent = {"seed": seed, "family": family, "company": 0.0}
            measures += _codes(agent, "reference", what["tau_control"] + rng.normal(0, what["noise"]), what["auc"])
    names = "seed family company path alpha similarity slope readout".split()
    tables = {"interventions": pd.DataFrame(moved, columns=names).assign(mover="other", **USUAL)}
    tables |= {"fine": metrics.slopes(pd.concat(fine)), "foresight": pd.DataFrame(seen)}
    return results.Results.of(metrics.slopes(pd.concat(responses, ignore_index=True)), pd.DataFrame(measures), **tables)


ROLES = [("reference", others) for others in ("all", *studies.RAISED)]
ROLES += [(variant, "all") for variant in ("untrained", *LEARNT_LESS, "expressionless")]


def _gain(what, control, good, jitter):
    def gain(readout, mover, s):
        if mover in ("self", "quiet"):
            return what["own"] if good else 0.5
        if mover == "nobody":
            return what["nobody"] - jitter
        at = what["control"] if control else what[mover]
        return at * float(what["shape"](90 - np.degrees(np.arccos(s)))) + jitter

    return gain


def _codes(agent, variant, tau, auc):
    """Measures of codes over appearance, which go with likeness."""
    for s in LEVELS:
        share = (90 - np.degrees(np.arccos(s))) / AT_S
        for name, value in {"tau": tau * share, "direction": tau * share, "auc": auc, "p_self": 0.01}.items():
            yield agent | {"variant": variant, "mover": "other", "similarity": s, "measure": name, "value": value}


def _paths(what, jitter):
    """What interventions make of one agent's coefficients: a straight way along the axis and to the self's own."""
    for alpha in np.linspace(0, 1, 21).round(2):
        for s in LEVELS:
            start = what["other"] * float(what["shape"](90 - np.degrees(np.arccos(s)))) + jitter
            yield "axis", alpha, s, start + what["patched"] * alpha, "reward"
            yield "random", alpha, s, start, "reward"
            yield "whole", alpha, s, start + (1 - start) * alpha, "reward"


PLANTED = evidence()


def decided(found, **how):
    return verdicts.verdicts(chapters.PREDICTIONS, found, **how).set_index("id")


LIVE = [p.id for p in chapters.PREDICTIONS if p.live and p.family]  # of world models; language has tests of its own
PENDING = [p.id for p in chapters.PREDICTIONS if not p.live]


def of(*names):
    return [row for row in LIVE if any(row.startswith(name) for name in names)]


def test_planted_empathy_is_supported_and_what_has_no_chapter_is_pending():
    found = decided(PLANTED).verdict
    assert found[LIVE].to_dict() == dict.fromkeys(LIVE, "supported")
    assert set(found[PENDING]) == {"pending"} and {"P5/data/p0", "P7", "B/value", "F2"} <= set(PENDING)


def test_planted_indifference_is_contradicted():
    found = decided(evidence(other=0.0, drifter=0.0, control=0.3, tau=0.0, tau_control=0.4, patched=0.0)).verdict
    against = of("P1a", "P1b", "P1c", "P2a", "P2b", "P2c", "P2d", "P3", "F1")
    assert found[against].to_dict() == dict.fromkeys(against, "contradicted")


def test_too_much_noise_decides_nothing():
    found = decided(evidence(other=0.15, control=0.1, drifter=0.15, tau=0.2, tau_control=0.1, noise=0.6)).verdict
    assert not set(found[of("P2a", "P1a", "P1b")]) - {"inconclusive"}


@pytest.mark.parametrize(
    ("planted", "expected"),
    [
        ({"nobody": 0.4}, {"P2a/reward/cells": "inconclusive", "F1/flat": "inconclusive"}),
        ({"drifter": 0.4}, {"F1/cells": "inconclusive", "P3/conduct/cells": "contradicted"}),
        ({"patched": 0.0}, {"P3/cells": "inconclusive", "P3/conduct/cells": "supported"}),
        ({"shape": lambda dose: 1.0 * (dose > 20)}, {"P3/cells": "supported", "P4/p0/cells": "contradicted"}),
        ({"control": 0.4}, {"P2b/reward/cells": "inconclusive", "P2c/cells": "inconclusive"}),
        ({"control": 0.6}, {"P2b/value/flat": "contradicted", "P2d/flat": "contradicted"}),
    ],
    ids=["of nobody too", "of drifters too", "no effect of the patch", "a step", "no more than inputs", "less"],
)
def test_what_else_would_explain_it_is_told_apart(planted, expected):
    assert decided(evidence(**planted)).verdict[list(expected)].to_dict() == expected


def test_a_control_that_is_not_competent_does_not_count():
    controls = inputs("cells/gru")
    assert PLANTED.counting("reward", controls) == controls
    t = PLANTED.gates
    gates = t.assign(own=np.where(t.family == "pca", 0.3, t.own))
    assert PLANTED.replace(gates=gates).counting("reward", controls) == [c for c in controls if c[0] != "pca"]
    nobody = PLANTED.replace(gates=t.assign(own=np.where(t.family.isin(studies.INPUTS), 0.3, t.own)))
    assert decided(nobody).verdict["P2b/reward/cells"] == "supported", "the untrained twin is left"


def test_without_a_competent_encoder_of_reward_alone_it_is_not_testable_whether_it_takes_a_world_model():
    t = PLANTED.gates
    weak = PLANTED.replace(gates=t.assign(own=np.where(t.variant == "end_to_end", 0.3, t.own)))
    found = decided(weak)
    assert found.verdict["P2c/cells"] == "not testable" and found.verdict["P2a/reward/cells"] == "supported"


def test_below_ten_agents_it_is_always_inconclusive():
    table_ = decided(evidence(n=9))
    assert set(table_.verdict[LIVE]) == {"inconclusive"} and table_.note["P2a/reward/cells"].startswith("fewer than 10")


def test_where_too_few_agents_are_competent_a_row_is_not_testable_and_names_them():
    row = decided(evidence(failing=0.2)).loc["P2a/reward/cells"]
    assert row.verdict == "not testable" and not row.gate_passed and row.excluded == list(range(8)) and row.n == 32
    assert "32 of 40 agents competent" in row.note and row.ungated is not None
    assert decided(evidence(failing=0.05)).verdict["P2a/reward/cells"] == "supported"


def test_confusion_is_never_empathy():
    table_ = decided(evidence(auc=0.8))
    assert set(table_.verdict[LIVE]) == {"not testable"} and "confused" in table_.note["P2a/reward/cells"]


def test_rows_about_conduct_want_world_models_that_foresee_others_and_no_others_do():
    table_ = decided(evidence(foresight=0.3))
    blind = of("F1", "P3/conduct")
    assert set(table_.verdict[blind]) == {"not testable"} and "foresight" in table_.note["F1/cells"]
    rest = [row for row in LIVE if row not in blind]
    assert set(table_.verdict[rest]) == {"supported"}


def test_agents_without_a_value_are_listed_and_count_against_the_gate():
    m = PLANTED.measures
    gone = m[~((m.measure == "tau") & (m.family == "pixels") & m.seed.isin([3, 4, 5, 6, 7]))]
    row = decided(PLANTED.replace(measures=gone)).loc["P1b/cells"]
    assert row.excluded == [3, 4, 5, 6, 7] and row.n == 35 and row.verdict == "not testable"
    assert "no value for agents [3, 4, 5, 6, 7]" in row.note


def test_identity_that_was_not_measured_is_not_identity():
    m = PLANTED.measures
    unknown = PLANTED.replace(measures=m[~((m.measure == "auc") & (m.seed == 0))])
    assert decided(unknown).verdict["P2a/reward/cells"] == "not testable"


def test_it_is_provisional_below_the_planned_number_and_a_heads_note_is_that_heads_alone():
    few = decided(evidence(n=20), notes={("value", "cells/gru"): "recovers half"})
    assert few.provisional["P1a/cells"] and not decided(PLANTED).provisional["P1a/cells"]
    assert few.note["F1/cells"].endswith("recovers half") and few.note["F1/flat"] == few.note["P2a/reward/cells"] == ""


def test_holm_takes_back_what_does_not_survive():
    found = evidence(n=12, other=0.125, control=0.115, drifter=0.12, tau=0.12, tau_control=0.1, noise=0.036)
    table_ = decided(found).loc[LIVE]
    raw = [verdicts.decide(p, found) for p in chapters.PREDICTIONS if p.id in LIVE]
    demoted = [r["id"] for r in raw if r["verdict"] != "inconclusive" and table_.p_holm[r["id"]] >= 0.05]
    assert demoted and all(table_.verdict[i] == "inconclusive" and "Holm" in table_.note[i] for i in demoted)
    assert (table_.p_holm >= table_.p - 1e-12).all()


def test_a_verdict_read_elsewhere_says_so():
    assert "not as preregistered" in decided(PLANTED.replace(s=0.9)).note["P2a/reward/cells"]


def test_ids_are_unique_and_cover_the_preregistration():
    ids = [p.id for p in chapters.PREDICTIONS]
    assert len(ids) == len(set(ids)) and {p.prediction for p in chapters.PREDICTIONS} == set(chapters.ORDER)


def test_thresholds_are_the_preregistered_ones():
    assert (results.S, results.P, verdicts.MINIMUM, verdicts.FORESEEN) == (0.5, 0.0, 10, 0.5)
    assert (metrics.TOLERANCE, metrics.AGREEMENT, metrics.PASSING, metrics.IDENTITY) == (0.2, 0.9, 0.9, 0.95)
    bars = {
        p.id: [c.supports and (c.supports.kind, c.supports.value) for c in p.criteria] for p in chapters.PREDICTIONS
    }
    assert bars["P2a/value/flat"] == [(">", 0.1), (">", 0.0)] and bars["P1b/cells"] == [(">", 0.05)]
    assert bars["F1/cells"] == [(">", 0.1), (">", 0.0), (">", 0.02)] and bars["P3/conduct/flat"] == [(">", 0.02)] * 3
    assert bars["P4/p.1/flat"][:3] == [("share", 0.9), None, ("<", 0.65)]


def test_the_first_editions_verdicts_are_kept_beside():
    rows = {p.id: p.first for p in chapters.PREDICTIONS}
    assert rows["P2b/reward/cells"] == "supported" and rows["P2a/value/cells"] == "contradicted" and rows["L1"] == ""


@pytest.mark.parametrize("found", [None, PLANTED], ids=["nothing", "agents"])
def test_json_is_plain_and_complete(found):
    rows = verdicts.as_json(verdicts.verdicts(chapters.PREDICTIONS, found))
    need = {"id", "prediction", "part", "head", "family", "claim", "statistic", "estimate", "ci_low", "ci_high", "n"}
    need |= {"excluded", "gate_passed", "provisional", "verdict", "first"}
    assert all(need <= set(row) for row in json.loads(json.dumps(rows, allow_nan=False)))


def test_a_condition_that_no_table_has_is_refused_and_not_passed_over():
    for ask in (PLANTED.rho, PLANTED.measure):
        with pytest.raises(KeyError, match="expsure"):
            ask({PLANTED.rho: "reward", PLANTED.measure: "auc"}[ask], [0, 1, 2], expsure=1.0)
    with pytest.raises(KeyError, match="expsure"):
        PLANTED.split_by_gate("reward", expsure=1.0)
