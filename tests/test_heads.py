"""Claims about the reward model and the value function."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vicarious import config, episodes, heads, world
from vicarious.models import split

MODEL = config.Model(data=config.Episodes(seed=913, episodes=256), family="pixels")
DATA = episodes.collect(MODEL.data)


def forward_view(reward, value, known, t, gamma, lam):
    """V's target at t the long way: a lambda-weighted mixture of all n-step returns that the labels allow."""
    horizon = len(reward)
    if t + 1 >= horizon or not known[t + 1]:
        return None
    last = t + 1
    while last + 1 < horizon and known[last + 1]:
        last += 1
    returns, total = [], 0.0
    for n in range(1, last - t + 1):
        total += gamma ** (n - 1) * reward[t + n]
        returns.append(total + gamma**n * value[t + n])
    weights = [(1 - lam) * lam ** (n - 1) for n in range(1, len(returns))] + [lam ** (len(returns) - 1)]
    return sum(w * r for w, r in zip(weights, returns, strict=True))


@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.5, 0.95, 1.0]), st.sampled_from([0.5, 0.8, 0.99]))
@settings(max_examples=60, deadline=None)
def test_lambda_returns_equal_the_forward_view(seed, lam, gamma):
    g = torch.Generator().manual_seed(seed)
    reward, value = (torch.randn(4, 9, generator=g, dtype=torch.float64) for _ in range(2))
    known = torch.rand(4, 9, generator=g) < 0.8
    target, exists = heads.lambda_returns(reward, value, known, gamma, lam)
    for b in range(4):
        for t in range(9):
            slow = forward_view(reward[b].tolist(), value[b].tolist(), known[b].tolist(), t, gamma, lam)
            assert bool(exists[b, t]) == (slow is not None)
            if slow is not None:
                assert float(target[b, t]) == pytest.approx(slow, abs=1e-10)


def setting(p, seed=0):
    data = episodes.collect(config.Episodes(seed=905, episodes=256))
    known = episodes.labelled(data, p)
    reward = world.reward(data.contact, config.World())
    head = heads.HeadPair(12, 8, 2)
    z = torch.randn(256, 20, 12, generator=torch.Generator().manual_seed(seed))
    cfg = config.Heads(model=config.Model(data=config.Episodes(seed=905)), exposure=p)
    return head, z, reward, known, cfg


def test_what_is_not_labelled_is_not_learnt_from():
    head, z, reward, known, cfg = setting(0.0)
    changed = torch.where(known, reward, 100.0)
    one, two = (heads.losses(head(z), r, known, cfg) for r in (reward, changed))
    assert all(torch.equal(one[k], two[k]) for k in one)
    full = torch.ones_like(known)
    assert not torch.equal(
        heads.losses(head(z), changed, full, cfg)["reward"], heads.losses(head(z), reward, full, cfg)["reward"]
    )


def test_every_exposure_learns_from_as_many_frames():
    counts = {}
    for p in (0.0, 0.1, 1.0):
        _, _, reward, known, cfg = setting(p)
        count = int(heads.LABELS * known.numel())
        _, exists = heads.lambda_returns(reward, torch.zeros_like(reward), known, cfg.gamma, cfg.lam)
        counts[p] = [int((m & (m.flatten().cumsum(0).view_as(m) <= count)).sum()) for m in (known, exists)]
    assert counts[0.0] == counts[0.1] == counts[1.0]


def test_masked_mean_is_the_mean_of_the_first_marked_frames():
    error, mask = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[True, False], [True, True]])
    assert heads.masked_mean(error, mask, 2) == 2.0 and heads.masked_mean(error, mask, 9) == pytest.approx(8 / 3)


def test_standardised_latents_have_unit_spread_and_constant_ones_do_no_harm(monkeypatch):
    monkeypatch.setenv("VICARIOUS_PRECISION", "fp32")
    z = torch.randn(50, 6, 3) * torch.tensor([5.0, 0.1, 0.0]) + 2
    latents = heads.Latents.of(z)
    assert torch.allclose(latents.inputs.flatten(0, 1).std(0), torch.tensor([1.0, 1.0, 0.0]), atol=1e-4)
    assert latents.inputs.isfinite().all() and len(latents.inputs) + len(latents.held_out) == 50


def test_heads_learn_reward_and_value_where_the_code_tells_everything():
    """On a code that spells out the contacts, a short training is enough to be right about reward."""
    data = episodes.collect(config.Episodes(seed=906, episodes=1024))
    z = torch.nn.functional.one_hot(data.contact, 4).flatten(2).float()
    model = config.Model(data=config.Episodes(seed=906))
    cfg = config.Heads(model=model, exposure=1.0, width=32, updates=300, reward_updates=300)
    ((head, result),) = heads.train([cfg], [heads.Latents.of(z)], [data])
    assert result["reward_r2"] > 0.99
    with torch.no_grad():
        own = head(z)[..., 0][(data.contact[..., 0] == 3) & (data.contact[..., 1] == 0)]
        theirs = head(z)[..., 0][(data.contact[..., 0] == 0) & (data.contact[..., 1] == 3)]
    assert own.mean() == pytest.approx(1, abs=0.05) and theirs.mean() == pytest.approx(0, abs=0.05)


def test_shuffled_lessons_are_rewards_of_other_episodes_and_teach_nothing():
    own = config.Heads(model=MODEL, exposure=1.0)
    shuffled = own.model_copy(update={"label_source": "shuffled"})
    reward, other = heads.reward_targets(own, DATA), heads.reward_targets(shuffled, DATA)
    assert sorted(map(tuple, reward.tolist())) == sorted(map(tuple, other.tolist())), "the same sequences of rewards"
    assert (reward != other).any(1).float().mean() > 0.8, "and nearly every episode has another's"


def test_uneventful_lessons_are_about_episodes_without_items_in_the_others_chamber():
    cfg = config.Heads(model=MODEL, label_source="uneventful", updates=50)
    rows = heads._rows(cfg, DATA, cut := split(len(DATA)), cfg.updates)
    assert rows.shape == (50, cfg.batch) and not DATA.eventful[rows.flatten()].any() and rows.max() < cut
    assert len(rows.unique()) > 0.8 * int((~DATA.eventful[:cut]).sum()), "and about all of them"


@pytest.fixture
def fp32(monkeypatch):
    """The precision in which stacked members and members in turn agree closely, and which every machine has."""
    monkeypatch.setenv("VICARIOUS_PRECISION", "fp32")


def test_held_out_losses_are_kept_from_before_the_end(fp32):
    cfg = config.Heads(model=MODEL, exposure=1.0, width=16, updates=200, reward_updates=200, batch=32)
    z = heads.Latents.of(DATA.obs)
    ((_, found),) = heads.train([cfg], [z], [DATA])
    assert found["late_reward_loss"] > found["reward_loss"] > 0, "still learning"
    ((_, same),) = heads.train([cfg], [z], [DATA], stacked=True)
    assert same["late_reward_loss"] == pytest.approx(found["late_reward_loss"], rel=1e-3), (
        "stacked weights are written back"
    )


@pytest.mark.parametrize("stacked", [False, True])
def test_heads_of_other_lessons_over_the_same_model_do_not_touch_each_other(stacked, fp32):
    """Each sees inputs and rewards of its own episodes, whoever trains beside it."""
    own = config.Heads(model=MODEL, exposure=1.0, width=16, updates=20, reward_updates=20, batch=32)
    cfgs = [
        own.model_copy(update=u)
        for u in ({"kappa": 0.5}, {"label_source": "shuffled"}, {"label_source": "uneventful"}, {})
    ]
    z = heads.Latents.of(DATA.obs)
    together = heads.train(cfgs, [z] * 4, [DATA] * 4, stacked=stacked)
    for cfg, (member, _) in zip(cfgs, together, strict=True):
        ((alone, _),) = heads.train([cfg], [z], [DATA], stacked=False)
        assert all(
            torch.allclose(a, b, atol=1e-3) for a, b in zip(alone.parameters(), member.parameters(), strict=True)
        )


def test_the_two_heads_train_by_schedules_of_their_own(fp32):
    """The value function is the same however long the reward model trains, and stacked members are as if alone."""
    own = config.Heads(model=MODEL, exposure=1.0, width=16, updates=20, reward_updates=30, batch=32)
    longer, z = own.model_copy(update={"reward_updates": 60}), heads.Latents.of(DATA.obs)
    ((one, kept),) = heads.train([own], [z], [DATA])
    ((two, _),) = heads.train([longer], [z], [DATA])
    assert all(
        torch.equal(a, b) for a, b in zip(one.nets["value"].parameters(), two.nets["value"].parameters(), strict=True)
    )
    assert not any(
        torch.equal(a, b) for a, b in zip(one.nets["reward"].parameters(), two.nets["reward"].parameters(), strict=True)
    )
    assert {"late_reward_loss", "late_value_loss", "late_reward_r2"} <= set(kept)
    both = [own, own.model_copy(update={"kappa": 0.5})]
    for (member, _), cfg in zip(heads.train(both, [z, z], [DATA, DATA], stacked=True), both, strict=True):
        ((alone, _),) = heads.train([cfg], [z], [DATA], stacked=False)
        assert all(
            torch.allclose(a, b, atol=1e-3) for a, b in zip(alone.parameters(), member.parameters(), strict=True)
        )
