"""Claims about the controls: what they are told, and what they are not."""

import pytest
import torch

from vicarious import config, episodes, heads, models, world

CFG = config.Episodes(seed=912, world=config.World(marked=True))
DATA = episodes.collect(CFG, count=128)
NAMED = {"latent": 8, "width": 16}


def build(family, **own):
    return models.build(config.Model(data=CFG, family=family, **(NAMED | own)))


def test_the_oracle_marks_who_met_what():
    z = build("oracle").encode(DATA.obs, DATA.prev_action)
    kinds = len(CFG.world.ladder)
    order = world.appearance(CFG.world, CFG.seed).kinds  # channel of each rank
    assert torch.equal(z[..., : DATA.obs.shape[-1]], DATA.obs)
    for body in (0, 1):
        first = DATA.obs.shape[-1] + kinds * body
        marked = z[..., first : first + kinds]
        met = DATA.contact[..., body]
        assert torch.equal(marked.sum(-1), (met > 0).float())
        assert torch.equal(marked[met > 0].argmax(-1), order[met[met > 0] - 1])


def test_disjoint_halves_know_nothing_of_each_other():
    model, half = build("disjoint"), 4
    z = model.encode(DATA.obs, DATA.prev_action)
    grid = DATA.obs.unflatten(-1, (3, 7, -1)).clone()
    left = DATA.side == 0
    mixed = DATA.obs.unflatten(-1, (3, 7, -1))[torch.randperm(len(DATA), generator=torch.Generator().manual_seed(0))]
    grid[left, :, :, 4:] = mixed[left, :, :, 4:]  # somebody else's neighbour, on whichever side that is
    grid[~left, :, :, :3] = mixed[~left, :, :, :3]
    with_another = model.encode(grid.flatten(-3), DATA.prev_action)
    assert torch.equal(z[..., :half], with_another[..., :half])
    assert not torch.equal(z[..., half:], with_another[..., half:])
    other_action = model.encode(DATA.obs, (DATA.prev_action + 1) % 6)
    assert torch.equal(z[..., half:], other_action[..., half:]), "the other's half knows no own action"
    assert not torch.equal(z[..., :half], other_action[..., :half]) and z.shape[-1] == 8


def test_disjoint_encoders_learn():
    cfg = config.Model(data=CFG, family="disjoint", latent=16, width=32, updates=120)
    before, after = models.evaluate(cfg, models.build(cfg)), models.train([cfg])[0][1]
    assert set(after) == {f"{b}_{e}" for b in ("self", "other") for e in ("reconstruction", "prediction")}
    assert all(after[name] < before[name] for name in after)


@pytest.mark.parametrize("family", ["oracle", "disjoint"])
@pytest.mark.parametrize("options", [{}, {"marked": True, "noise": 0.1}, {"marked": True, "view": "centred"}])
def test_who_is_who_must_be_shown_to_them(family, options):
    data = config.Episodes(seed=1, world=config.World(**options))
    with pytest.raises(ValueError, match="needs a world with marked=True"):
        models.build(config.Model(data=data, family=family))


def test_an_untrained_twin_is_the_family_before_its_first_update():
    own, twin = (config.Model(data=CFG, **NAMED, trained_on=x) for x in ("world", "nothing"))
    ((found, losses),) = models.train([twin])
    assert losses == {} and not models.learns(twin)
    fresh = models.build(own).state_dict()
    assert all(torch.equal(found.state_dict()[name], fresh[name]) for name in fresh)


def test_end_to_end_learns_own_reward_from_what_heads_learn_from_at_p_0():
    data = CFG.model_copy(update={"distinct": 512})
    cfg = config.Model(data=data, **NAMED, trained_on="reward", updates=150)
    before, after = models.evaluate(cfg, models.build(cfg)), models.train([cfg])[0][1]
    assert set(after) == {"reward"} and after["reward"] < before["reward"]
    feed = models.Feed(cfg, models.build(cfg), "cpu")
    whole = episodes.collect(data)
    learnt = heads.pool(config.Heads(model=cfg, episodes=512), whole)
    assert torch.equal(feed.inputs[0], whole.obs[learnt]), "those held out from the heads are held out from it"
    assert torch.equal(feed.inputs[2], world.reward(whole.contact, data.world)[learnt])


def test_principal_components_are_those_of_stacked_frames_and_actions():
    cfg = config.Model(data=CFG, family="pca", latent=8)
    ((found, _),) = models.train([cfg])
    seen = episodes.collect(CFG, "cpu", "pca", models.FITTED)
    x = build("pixels").encode(seen.obs, seen.prev_action).flatten(0, 1).double()
    z = found.encode(seen.obs, seen.prev_action).flatten(0, 1).double()
    values = torch.linalg.eigvalsh(torch.cov(x.T))[-8:]
    assert torch.allclose(torch.cov(z.T), values.diag(), atol=1e-3) and z.mean().abs() < 1e-4
