"""Claims about the chapter on the instrument: learners that recover couplings are told from those that do not."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from test_metrics import TRUTH, table

from vicarious import metrics
from vicarious.metrics import MAIN
from vicarious.paper import results, studies
from vicarious.paper.chapters import calibration

LEVELS = (1.0, 0.5, 0.0)


def evidence(n=10, slope=None, leak=0.0):
    """Agents with every planted coupling, recovered with these slopes by readout, and controls that leak so much."""
    slope, rng, parts, measures = {"reward": 1.0, "value": 1.0} | (slope or {}), np.random.default_rng(0), [], []
    agents = [(f, k, {}) for f in studies.ENCODERS for k in studies.KAPPAS]
    agents += [(f, 0.0, {"rewards": "shuffled"}) for f in studies.ENCODERS]
    agents += [(f, k, {}) for f in studies.PRIVILEGED for k in (0.0, 0.25)]
    for seed, (family, kappa, how) in ((s, a) for s in range(n) for a in agents):
        jitter, control = rng.normal(0, 0.01), bool(how) or family == "disjoint"

        def gain(readout, mover, s, kappa=kappa, jitter=jitter, control=control):
            if mover in ("self", "quiet"):
                return 1.0
            if mover == "nobody":
                return 0.0
            scale = 1.0 if readout == "reward" else SCALE["value", mover]
            return (leak if control else slope[readout] * kappa * scale) + jitter

        agent = {"variant": "reference", "view": "allocentric", "others": "all", "rewards": "own"} | how
        agent |= {"kappa_gain": kappa, "kappa_loss": kappa}
        parts.append(table(gain, seed=seed, family=family, company=1.0, levels=LEVELS).assign(**agent))
        where = {"seed": seed, "family": family, "company": 1.0, "measure": "value_r", "value": 0.95}
        measures.append(agent | where)
    truth = TRUTH.assign(variant="reference", view="allocentric", others="all", rewards="own")
    return results.Results.of(metrics.slopes(pd.concat([*parts, truth], ignore_index=True)), pd.DataFrame(measures))


def returns():
    """True returns in which an other's joy is .8, and a drifter's .5, of the self's own."""
    parts = []
    for mover, body, gain in (("self", "self", 1.0), ("other", "other", 0.8), ("drifter", "other", 0.5)):
        own = table(lambda *_, g=gain: g, levels=(1.0,)).query("readout == 'value' and mover == 'self'")
        nothing = own.assign(mean=0.0)
        parts += [own.assign(readout=body, mover=mover)]
        parts += [nothing.assign(readout="other" if body == "self" else "self", mover=mover)]
    return pd.concat(parts, ignore_index=True)


RETURNS = returns()
SCALE = calibration.expected(RETURNS)


def test_a_values_full_coupling_is_what_the_others_joy_is_of_the_selfs():
    assert SCALE["value", "other"] == pytest.approx(0.8) and SCALE["value", "drifter"] == pytest.approx(0.5)
    assert SCALE["reward", "other"] == 1


def told(**planted):
    return calibration.told(evidence(**planted), RETURNS)


def test_a_head_that_is_told_the_true_state_and_errs_is_noted():
    found = told(slope={"value": 0.7})
    assert found.right.tolist() == [True, True, True, False]
    notes = calibration.notes(calibration.recovery(evidence(), RETURNS), found, True)
    said = {head: note for (head, _), note in notes.items()}
    assert said["reward"] == "" and said["value"].startswith("told the true state such a head has 0.1")


def test_learners_that_recover_couplings_carry_no_note():
    found = calibration.recovery(evidence(), RETURNS)
    assert len(found) == 8 and found.recovers.all() and found.estimate.tolist() == pytest.approx([1] * 8, abs=0.03)
    assert calibration.notes(found, told(), True) == dict.fromkeys(product(MAIN, studies.ENCODERS), "")


@pytest.mark.parametrize("head", MAIN)
def test_a_head_that_recovers_half_carries_a_note_and_the_other_does_not(head):
    found = calibration.recovery(evidence(slope={head: 0.5}), RETURNS)
    for (readout, _), note in calibration.notes(found, told(), True).items():
        assert note == ("this head recovers 0.50 of planted couplings" if readout == head else "")


def test_an_instrument_that_is_not_exact_is_noted_with_every_head():
    notes = calibration.notes(calibration.recovery(evidence(), RETURNS), told(), False)
    assert notes == dict.fromkeys(product(MAIN, studies.ENCODERS), "instrument not exact")


def test_controls_that_leak_are_seen_and_what_the_oracle_is_told_comes_back():
    for leak in (0.0, 0.2):
        found = calibration.silence(evidence(leak=leak))
        shuffled = found[found.control.str.startswith("shuffled") & (found.company == 1)]
        assert (
            shuffled.estimate.tolist() == pytest.approx([leak] * len(shuffled), abs=0.02) and (shuffled.n == 10).all()
        )
    found = told().set_index(["readout", "what"]).estimate
    assert found["value", "coupling of .25"] == pytest.approx(0.25, abs=0.02), "over what the other's joy is"
    assert found["reward", "own slope"] == pytest.approx(1)
    assert found["reward", "coupling of .25"] == pytest.approx(0.25, abs=0.02)
