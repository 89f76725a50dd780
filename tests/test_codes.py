"""Claims about code similarity, on codes whose answer is known."""

import numpy as np
import pytest
import torch
from conftest import tiny_battery

from vicarious import battery, codes, config
from vicarious.paper import studies

LADDER = (-1.0, 0.0, 1.0)


def changes(axis: int, gain: float = 1.0, n: int = 400, dim: int = 16, seed: int = 0):
    """Event minus twin [K, n, D] that lies along one axis by worth, with noise, and a presence that all items have."""
    g = torch.Generator().manual_seed(seed)
    found = 0.3 * torch.randn(3, n, dim, generator=g)
    found[:, :, 3] += 2.0
    found[:, :, axis] += gain * torch.tensor(LADDER)[:, None]
    return found


@pytest.mark.parametrize("gain", [1.0, 0.5, -1.0, 0.0])
def test_tau_is_the_share_of_the_selfs_own_change_by_worth(gain):
    own, other = changes(0), changes(0, gain, seed=1)
    assert codes.transfer(own, other, LADDER) == pytest.approx(gain, abs=0.05)
    assert codes.transfer(own, own, LADDER) == pytest.approx(1)


def test_tau_knows_neither_another_axis_nor_mere_presence():
    own, elsewhere = changes(0), changes(1, seed=1)
    assert abs(codes.transfer(own, elsewhere, LADDER)) < 0.05
    assert abs(codes.transfer(own, changes(0, 0.0, seed=1), LADDER)) < 0.05, "all items add 2 on axis 3"


def test_tau_written_out():
    g = torch.Generator().manual_seed(3)
    own, other = torch.randn(2, 3, 20, 5, generator=g, dtype=torch.float64)
    total = [0.0, 0.0]
    for h in (0, 1):
        mine, theirs, held = own[:, h::2].mean(1), other[:, h::2].mean(1), own[:, 1 - h :: 2].mean(1)
        for v, opposite in ((0, 2), (2, 0)):
            total[0] += float(theirs[v] @ held[v] - theirs[v] @ held[opposite])
            total[1] += float(mine[v] @ held[v] - mine[v] @ held[opposite])
    assert codes.transfer(own, other, LADDER) == pytest.approx(total[0] / total[1])


def test_tau_across_place_asks_the_self_of_the_other_chamber():
    """Codes with an axis for each chamber: all transfer within a chamber, and none across; with a common axis, all."""
    side = torch.arange(400) // 2 % 2
    shared, apart = changes(0), changes(0)
    apart[:, side == 1] = apart[:, side == 1][..., [1, 0, *range(2, apart.shape[-1])]]
    assert codes.transfer(apart, apart, LADDER) == pytest.approx(1)
    assert abs(codes.transfer(apart, apart, LADDER, side)) < 0.05
    assert codes.transfer(shared, shared, LADDER, side) == pytest.approx(1, abs=0.05)
    half = changes(0, 0.5, seed=1)
    assert codes.transfer(shared, half, LADDER, side) == pytest.approx(0.5, abs=0.05)


def test_whitened_codes_have_no_preferred_direction():
    g = torch.Generator().manual_seed(0)
    z = torch.randn(5000, 6, generator=g) @ (torch.eye(6) + torch.diag(torch.ones(5), 1))
    covariance = torch.cov((z @ codes.whitening(z)).T)
    assert torch.allclose(covariance, torch.eye(6), atol=0.1)


def test_directions_are_those_of_the_movers_steps():
    scenes = battery.make(tiny_battery())
    for mover in ("self", "other", "nobody"):
        state, _ = battery.instantiate(scenes, mover, config.World(), contacts=1)
        pos = state.pos.view(3, len(scenes), -1, 2)[0, :, -3:-1, 0 if mover == "self" else 1]
        step = torch.tensor([-3, 3, -1, 1])[codes.directions(scenes, mover)]
        assert torch.equal(pos[:, 0] + step, pos[:, 1])


def u_centred(k):
    """Szekely & Rizzo's U-centring, the other road to the unbiased HSIC."""
    n = len(k)
    k = k.copy()
    np.fill_diagonal(k, 0)
    c = k - k.sum(0) / (n - 2) - k.sum(1)[:, None] / (n - 2) + k.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(c, 0)
    return c


def test_debiased_cka_equals_the_u_centred_inner_product():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 5)), rng.normal(size=(40, 3))
    a, b = u_centred(x @ x.T), u_centred(y @ y.T)
    slow = (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())
    assert codes.debiased_cka(torch.tensor(x), torch.tensor(y)) == pytest.approx(slow, abs=1e-9)
    assert codes.debiased_cka(torch.tensor(x), torch.tensor(x)) == pytest.approx(1)


def test_independent_codes_have_no_debiased_cka():
    rng = np.random.default_rng(1)
    found = [codes.debiased_cka(*(torch.tensor(rng.normal(size=(60, 30))) for _ in range(2))) for _ in range(30)]
    assert abs(np.mean(found)) < 0.03


def test_measures_are_complete_and_bounded(filled):
    store, runs = filled
    code_runs = [c for c in runs if isinstance(c, config.Codes)]
    assert {c.model.family for c in code_runs} == {"cells/gru", *studies.INPUTS}
    for run in code_runs:
        table = store.read(run.address).tables["measures"]
        assert {"tau", "tau_across", "direction", "cka", "auc", "p_self"} == set(table.measure)
        assert table["value"].notna().all()
        bounded = table[table.measure.isin(["auc", "p_self", "direction"])]["value"]
        assert bounded.between(0, 1).all()
        own = table[(table.measure == "tau") & (table.mover == "self")]["value"]
        assert own.tolist() == pytest.approx([1.0])
