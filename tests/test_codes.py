"""Claims about code similarity, on codes whose answer is known."""

import numpy as np
import pytest
import torch

from vicarious import codes, config
from vicarious.paper import studies

LADDER = (-1.0, 0.0, 1.0)


def test_cross_condition_r2_is_one_minus_residual_over_total():
    g = torch.Generator().manual_seed(0)
    z, y = torch.randn(2, 3, 10, 4, generator=g), codes.labels(LADDER, 10)
    decoder = torch.nn.Linear(4, 1).requires_grad_(False)
    guess = (z @ decoder.weight[0] + decoder.bias[0]).numpy()
    slow = 1 - np.square(y.numpy() - guess).sum() / np.square(y.numpy() - y.numpy().mean()).sum()
    assert codes.cross_condition(decoder, z, y) == pytest.approx(slow, abs=1e-5)
    centred = guess - guess.mean((0, 1))
    slow = 1 - np.square(y.numpy() - centred).sum() / np.square(y.numpy()).sum()
    assert codes.cross_condition(decoder, z, y, matched=True) == pytest.approx(slow, abs=1e-5)


def planted(shared: bool, n: int = 512, dim: int = 16):
    """Codes of self and other in which contact x valence lies on one axis, or on orthogonal ones."""
    g = torch.Generator().manual_seed(1)
    y = codes.labels(LADDER, n)
    axes = torch.eye(dim)
    own, other = (0.1 * torch.randn(2, 3, n, dim, generator=g) for _ in range(2))
    return own + y[..., None] * axes[0], other + y[..., None] * axes[0 if shared else 1], y


def small_config():
    return config.Codes(model=config.Model(data=config.Episodes(seed=907)), width=16, permutations=1)


def test_a_decoder_transfers_between_codes_that_share_an_axis_and_not_otherwise():
    for shared in (True, False):
        own, other, y = planted(shared)
        (decoder,) = codes.fit_mlps(
            own.flatten(0, 2), {"decoder": y.flatten()}, small_config(), torch.nn.functional.mse_loss
        )
        within, across = codes.cross_condition(decoder, own, y), codes.cross_condition(decoder, other, y)
        assert within > 0.95
        assert across / within > 0.95 if shared else across / within < 0.1
        cosine = float(codes.coding_axis(own, y) @ codes.coding_axis(other, y))
        assert cosine > 0.95 if shared else abs(cosine) < 0.2


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


def test_measures_are_complete_and_the_probe_is_bounded(filled):
    store, cells = filled
    code_cells = [c for c in cells if isinstance(c, config.Codes)]
    assert {c.model.family for c in code_cells} == set(studies.REFERENCE)
    for cell in code_cells:
        table = store.read(cell.address).tables["measures"]
        assert {"r2", "transfer", "transfer_matched", "null0", "cosine", "cka", "auc", "p_self"} == set(
            table.measure
        ) - {"r2_matched"}
        bounded = table[table.measure.isin(["auc", "p_self"])]["value"]
        assert bounded.between(0, 1).all() and table["value"].notna().all()
