"""Claims about the calibration on synthetic agents: it passes a good instrument and fails each kind of bad one."""

import numpy as np
import pandas as pd
import pytest
from test_metrics import TRUTH, table
from test_verdicts import evidence as reference

from vicarious import metrics
from vicarious.paper import chapters, results, studies, verdicts
from vicarious.paper.chapters import calibration

LEVELS = (1.0, 0.5, 0.0)


def evidence(n=20, slope=1.0, offset=0.0, noise=0.02, leak=None, own=1.0, auc=1.0, ignorant=None):
    """Agents with every planted coupling, recovered with this slope and offset, and controls of which one may leak."""
    rng, parts, measures = np.random.default_rng(0), [], []
    agents = [("recurrent", kappa) for kappa in studies.KAPPAS] + [(family, 0.0) for family in calibration.SILENT]
    for seed in range(n):
        for family, kappa in agents:
            jitter = rng.normal(0, noise)

            def gain(readout, mover, s, family=family, kappa=kappa, jitter=jitter):
                if mover == "self":
                    return own if family == "recurrent" else float(family not in ("shuffled", ignorant))
                if family != "recurrent":
                    return (0.2 if family == leak else 0.0) + jitter
                return slope * kappa + offset + jitter

            own_table = table(gain, seed=seed, family=family, exposure=1.0, levels=LEVELS)
            parts.append(own_table.assign(kappa=kappa))
            agent = {
                "seed": seed,
                "family": family,
                "exposure": 1.0,
                "kappa": kappa,
                "mover": "self",
                "similarity": 1.0,
            }
            measures.append(agent | {"measure": "value_r", "value": 0.95})
        for s in LEVELS:
            code = {"seed": seed, "family": "recurrent", "mover": "other", "similarity": s}
            measures += [code | {"measure": "auc", "value": auc}, code | {"measure": "p_self", "value": 0.25 * s}]
    return results.Results.of(pd.concat([*parts, TRUTH], ignore_index=True), pd.DataFrame(measures))


def decided(found):
    return calibration.condition_table(found).set_index("id").verdict.to_dict()


def test_a_good_instrument_passes_and_its_verdicts_lose_their_note():
    found = evidence()
    assert set(decided(found).values()) == {"supported"} and calibration.calibrated(found)
    notes = verdicts.verdicts(
        chapters.PREDICTIONS, reference(n=40).replace(calibrated=calibration.calibrated(found))
    ).note
    assert not notes.str.contains("not calibrated").any()


@pytest.mark.parametrize(
    "fault, failed",
    [
        ({"slope": 0.7}, {"planted"}),
        ({"slope": 1.3}, {"planted"}),
        ({"noise": 1.0}, {"planted", *calibration.SILENT}),
        ({"leak": "oracle"}, {"oracle"}),
        ({"leak": "shuffled"}, {"shuffled"}),
        ({"own": 0.5}, {"planted"}),
        ({"auc": 0.8}, {"planted"}),
        ({"ignorant": "disjoint"}, {"disjoint"}),
        ({"n": 9}, {"planted", *calibration.SILENT}),
    ],
)
def test_each_fault_fails_its_own_condition(fault, failed):
    found = evidence(**fault)
    wrong = {name.split("/")[0] for name, verdict in decided(found).items() if verdict != "supported"}
    assert wrong == failed and not calibration.calibrated(found)


def test_without_results_nothing_is_calibrated():
    assert not calibration.calibrated(None)
    assert set(calibration.condition_table(None).verdict) == {"pending"}


def test_an_offset_alone_shows_in_the_intercept_and_not_in_the_slope():
    x = evidence(offset=-0.25).recovered("reward", list(range(20)), 0.0)
    slope, intercept, _ = verdicts.stats.line(x[..., 0].ravel(), x[..., 1].ravel())
    assert (slope, intercept) == (pytest.approx(1.0, abs=0.02), pytest.approx(-0.25, abs=0.02))


def precision(noise: float, seeds=20) -> pd.DataFrame:
    """Four sets in two halves of scenes for agents whose true coefficients are their kappa."""
    rng, rows = np.random.default_rng(0), []
    for seed in range(seeds):
        for kappa in studies.KAPPAS:
            for number in range(4):
                for half in (0, 1):
                    for mover, s in (("self", 1.0), *(("other", s) for s in LEVELS)):
                        for readout in metrics.KINDS:
                            true = 1.0 if readout == "reward" else TRUE_VALUE
                            slope = true * ((1.0 if mover == "self" else kappa) + rng.normal(0, noise))
                            rows.append((seed, kappa, number, half, mover, s, readout, slope / true, noise * 8, 64))
    columns = "seed kappa set half mover similarity readout rho sd n_scenes".split()
    return pd.DataFrame(rows, columns=columns).assign(family="recurrent", exposure=0.0, kind="empathy")


TRUE_VALUE = float(
    metrics.slopes(TRUTH.drop(columns=metrics.AGENT, errors="ignore"))
    .query("readout == 'value' and kind == 'empathy'")
    .slope.iloc[0]
)


def test_reliability_is_high_where_agents_differ_by_more_than_scenes_and_low_where_not():
    fine = calibration.reliability(calibration.set_scores(precision(0.05), 0.5))
    rough = calibration.reliability(calibration.set_scores(precision(3.0), 0.5))
    assert (fine.low > 0.95).all() and (rough.estimate < 0.6).all() and set(fine.agents) == {100}


def test_measurement_error_is_what_was_put_in():
    scored = calibration.set_scores(precision(0.1, seeds=60), 0.5)
    found = calibration.measurement_error(scored)
    assert np.sqrt((found.error**2).mean()) == pytest.approx(0.1 / np.sqrt(2), rel=0.1), (
        "a set is the mean of two halves"
    )
    assert found["mean"].to_numpy() == pytest.approx(np.tile(studies.KAPPAS, 2), abs=0.03)


def test_confusion_and_remainder_add_up():
    found = evidence(n=3)
    t = calibration.confusion(found, "reward", [0, 1, 2], exposure=1.0)
    assert t.confused.to_numpy() == pytest.approx(0.25 * t.similarity), "own slope is 1, so the probability itself"
    assert (t.confused + t.remainder).to_numpy() == pytest.approx(t.rho.to_numpy()) and len(t) == 9
