"""Claims about the controls that are told who is who."""

import pytest
import torch

from vicarious import config, episodes, models, world

CFG = config.Episodes(seed=912, episodes=128, world=config.World(view="left"))
DATA = episodes.collect(CFG)


def build(family, **own):
    return models.build(config.Model(data=CFG, family=family, latent=8, width=16, **own))


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
    own, other = model._routed(DATA.obs, DATA.prev_action)
    z = model.encode(DATA.obs, DATA.prev_action)
    shuffled = DATA.obs[torch.randperm(len(DATA), generator=torch.Generator().manual_seed(0))]
    grid, mixed = (x.unflatten(-1, (3, 7, -1)).clone() for x in (DATA.obs, shuffled))
    grid[..., 4:, :] = mixed[..., 4:, :]  # somebody else's neighbour
    with_another = model.encode(grid.flatten(-3), DATA.prev_action)
    assert torch.equal(z[..., :half], with_another[..., :half]) and not torch.equal(
        z[..., half:], with_another[..., half:]
    )
    action = (DATA.prev_action + 1) % 6
    assert torch.equal(z[..., half:], model.encode(DATA.obs, action)[..., half:]), (
        "the other's half knows no own action"
    )
    assert own[0] == "self" and own[1].shape == other[1].shape and z.shape[-1] == 8


def test_disjoint_encoders_learn():
    cfg = config.Model(data=CFG, family="disjoint", latent=16, width=32, updates=120)
    before, after = models.evaluate(models.build(cfg), DATA[120:]), models.train([cfg], [DATA])[0][1]
    assert set(after) == {f"{b}_{e}" for b in ("self", "other") for e in ("reconstruction", "prediction")}
    assert all(after[name] < before[name] for name in after)


@pytest.mark.parametrize("family", ["oracle", "disjoint"])
@pytest.mark.parametrize("options", [{}, {"view": "left", "noise": 0.1}])
def test_who_is_who_must_be_visible_to_them(family, options):
    data = config.Episodes(seed=1, world=config.World(**options))
    with pytest.raises(ValueError, match="knows who is who"):
        models.build(config.Model(data=data, family=family))
