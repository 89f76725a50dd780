"""Claims about the reward model and the value function."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vicarious import config, episodes, heads, world

MODEL = config.Model(data=config.Episodes(seed=913), family="pixels")
RAISED = config.Heads(model=MODEL, episodes=512)
DATA = episodes.collect(RAISED.data)


def forward_view(reward, value, t, gamma, lam):
    """V's target at t the long way: a lambda-weighted mixture of all n-step returns that the episode holds."""
    returns, total = [], 0.0
    for n in range(1, len(reward) - t):
        total += gamma ** (n - 1) * reward[t + n]
        returns.append(total + gamma**n * value[t + n])
    weights = [(1 - lam) * lam ** (n - 1) for n in range(1, len(returns))] + [lam ** (len(returns) - 1)]
    return sum(w * r for w, r in zip(weights, returns, strict=True))


@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.5, 0.95, 1.0]), st.sampled_from([0.5, 0.8, 0.99]))
@settings(max_examples=60, deadline=None)
def test_lambda_returns_equal_the_forward_view(seed, lam, gamma):
    g = torch.Generator().manual_seed(seed)
    reward, value = (torch.randn(4, 9, generator=g, dtype=torch.float64) for _ in range(2))
    target = heads.lambda_returns(reward, value, gamma, lam)
    assert target.shape == (4, 8)
    for b in range(4):
        for t in range(8):
            slow = forward_view(reward[b].tolist(), value[b].tolist(), t, gamma, lam)
            assert float(target[b, t]) == pytest.approx(slow, abs=1e-10)


def kinds(rows):
    return {"eventful": DATA.eventful[rows], "quiet": DATA.quiet[rows], "vacant": ~DATA.occupied[rows]}


def test_heads_raised_alone_learn_from_all_quiet_and_vacant_episodes_and_from_no_eventful_one():
    rows, cut = heads.pool(RAISED, DATA), episodes.split(len(DATA))
    assert not kinds(rows)["eventful"].any()
    assert len(rows) == int((~DATA.eventful[:cut]).sum()) and rows.max() < cut


def test_company_is_nested_and_a_share_of_the_eventful_episodes():
    cut, eventful = episodes.split(len(DATA)), int(DATA.eventful[: episodes.split(len(DATA))].sum())
    pools = [set(heads.pool(RAISED.model_copy(update={"company": p}), DATA).tolist()) for p in (0.0, 0.1, 0.3, 1.0)]
    assert pools[0] < pools[1] < pools[2] < pools[3] == set(range(cut))
    for p, pool in zip((0.1, 0.3), pools[1:3], strict=True):
        assert abs((len(pool) - len(pools[0])) / eventful - p) < 0.06


def test_every_company_learns_from_as_many_frames_of_its_own_episodes():
    for p in (0.0, 0.1, 1.0):
        cfg = RAISED.model_copy(update={"company": p})
        rows = heads.batches(cfg, DATA, 50)
        assert rows.shape == (50, cfg.batch) and set(rows.flatten().tolist()) <= set(heads.pool(cfg, DATA).tolist())


@pytest.mark.parametrize("others", ["drifters", "purposeful"])
def test_heads_may_be_raised_among_some_others_only(others):
    rows = heads.pool(RAISED.model_copy(update={"others": others, "company": 1.0}), DATA)
    met = DATA.drifter[rows][DATA.occupied[rows]]
    assert len(met) and (met == (others == "drifters")).all() and (~DATA.occupied[rows]).any()


def test_episodes_of_heads_are_of_the_usual_world_whatever_their_world_model_met():
    world_ = config.World(eventful=0.0)
    solitary = MODEL.model_copy(update={"data": MODEL.data.model_copy(update={"world": world_})})
    assert config.Heads(model=solitary).data == config.Heads(model=MODEL).data


def test_own_losses_are_read_on_held_out_quiet_episodes_at_every_p():
    z = heads.Latents.of(DATA.obs)
    latents, reward = heads.held_out(z, DATA, heads.reward_targets(RAISED, DATA))
    quiet = DATA.quiet[episodes.split(len(DATA)) :]
    assert len(latents) == len(reward) == int(quiet.sum()) > 0


def test_standardised_latents_have_unit_spread_and_constant_ones_do_no_harm(monkeypatch):
    monkeypatch.setenv("VICARIOUS_PRECISION", "fp32")
    z = torch.randn(50, 6, 3) * torch.tensor([5.0, 0.1, 0.0]) + 2
    latents = heads.Latents.of(z)
    assert torch.allclose(latents.inputs.flatten(0, 1).std(0), torch.tensor([1.0, 1.0, 0.0]), atol=1e-4)
    assert latents.inputs.isfinite().all() and len(latents.inputs) + len(latents.held_out) == 50


def test_heads_learn_reward_and_value_where_the_code_tells_everything():
    """On a code that spells out the contacts, a short training is enough to be right about reward."""
    cfg = config.Heads(model=MODEL, company=1.0, episodes=1024, width=32, updates=300, reward_updates=300)
    data = episodes.collect(cfg.data)
    z = torch.nn.functional.one_hot(data.contact, 4).flatten(2).float()
    ((head, result),) = heads.train([cfg], [heads.Latents.of(z)], [data])
    assert result["reward_r2"] > 0.98
    with torch.no_grad():
        own = head(z)[..., 0][(data.contact[..., 0] == 3) & (data.contact[..., 1] == 0)]
        theirs = head(z)[..., 0][(data.contact[..., 0] == 0) & (data.contact[..., 1] == 3)]
    assert own.mean() == pytest.approx(1, abs=0.05) and theirs.mean() == pytest.approx(0, abs=0.05)


def test_shuffled_rewards_are_those_of_other_episodes():
    shuffled = RAISED.model_copy(update={"rewards": "shuffled"})
    reward, other = heads.reward_targets(RAISED, DATA), heads.reward_targets(shuffled, DATA)
    assert sorted(map(tuple, reward.tolist())) == sorted(map(tuple, other.tolist())), "the same sequences of rewards"
    assert (reward != other).any(1).float().mean() > 0.8, "and nearly every episode has another's"


def test_a_coupling_is_in_the_rewards_of_eventful_episodes_alone():
    coupled = RAISED.model_copy(update={"kappa_gain": 0.5, "kappa_loss": -1.0})
    added = heads.reward_targets(coupled, DATA) - heads.reward_targets(RAISED, DATA)
    worth = world.worth_of(DATA.contact, MODEL.data.world)[..., 1]
    assert torch.allclose(added, torch.where(worth > 0, 0.5 * worth, -worth))
    assert added[DATA.eventful].any() and not added[~DATA.eventful].any()


@pytest.fixture
def fp32(monkeypatch):
    """The precision in which stacked members and members in turn agree closely, and which every machine has."""
    monkeypatch.setenv("VICARIOUS_PRECISION", "fp32")


OWN = RAISED.model_copy(update={"company": 1.0, "width": 16, "updates": 20, "reward_updates": 20, "batch": 32})


def test_held_out_losses_are_kept_from_before_the_end(fp32):
    cfg = OWN.model_copy(update={"updates": 200, "reward_updates": 200})
    z = heads.Latents.of(DATA.obs)
    ((_, found),) = heads.train([cfg], [z], [DATA])
    assert found["late_reward_loss"] > found["reward_loss"] > 0, "still learning"
    ((_, same),) = heads.train([cfg], [z], [DATA], stacked=True)
    assert same["late_reward_loss"] == pytest.approx(found["late_reward_loss"], rel=1e-3), (
        "stacked weights are written back"
    )


@pytest.mark.parametrize("stacked", [False, True])
def test_heads_over_the_same_model_do_not_touch_each_other(stacked, fp32):
    """Each sees inputs and rewards of its own episodes, whoever trains beside it."""
    changes = ({"kappa_gain": 0.5}, {"rewards": "shuffled"}, {"company": 0.0}, {"others": "drifters"}, {})
    cfgs = [OWN.model_copy(update=change) for change in changes]
    z = heads.Latents.of(DATA.obs)
    together = heads.train(cfgs, [z] * 5, [DATA] * 5, stacked=stacked)
    for cfg, (member, _) in zip(cfgs, together, strict=True):
        ((alone, _),) = heads.train([cfg], [z], [DATA], stacked=False)
        assert all(
            torch.allclose(a, b, atol=1e-3) for a, b in zip(alone.parameters(), member.parameters(), strict=True)
        )


def test_the_two_heads_train_by_schedules_of_their_own(fp32):
    """The value function is the same however long the reward model trains."""
    longer, z = OWN.model_copy(update={"reward_updates": 60}), heads.Latents.of(DATA.obs)
    ((one, kept),) = heads.train([OWN], [z], [DATA])
    ((two, _),) = heads.train([longer], [z], [DATA])
    same = {
        name: [torch.equal(a, b) for a, b in zip(one.nets[name].parameters(), two.nets[name].parameters(), strict=True)]
        for name in heads.READOUTS
    }
    assert all(same["value"]) and not any(same["reward"])
    assert {"late_reward_loss", "late_value_loss", "late_reward_r2"} <= set(kept)
