"""Claims about the chambers."""

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vicarious import config, episodes, world

WORLDS = {
    "default": config.World(),
    "five steps": config.World(ladder=(-1, -0.5, 0, 0.5, 1)),
    "left": config.World(view="left"),
    "centred": config.World(view="centred"),
    "noisy": config.World(noise=0.1),
    "opposite": config.World(taste="opposite"),
    "alien": config.World(taste="alien"),
    "large": config.World(size=4, max_items=5),
    "small": config.World(size=2, max_items=1),
    "all drifters": config.World(drifters=1.0),
    "never eventful": config.World(eventful=0.0),
}
seeds = st.integers(0, 2**31)


def roll(cfg, g, batch=64, steps=12):
    """States and actions of an ordinary rollout."""
    states, actions = [world.reset(cfg, batch, g)], []
    for _ in range(steps):
        actions.append(world.conduct(states[-1], cfg, g))
        states.append(world.step(states[-1], actions[-1], cfg, g))
    return states, actions


@pytest.mark.parametrize("name", WORLDS)
def test_every_world_honours_the_contract(name, g):
    cfg = WORLDS[name]
    states, actions = roll(cfg, g)
    look, cells, kinds = world.appearance(cfg, 3), cfg.size**2, len(cfg.ladder)
    for state in states:
        obs = world.observe(state, cfg, look, g)
        assert obs.shape[0] == 64 and obs.flatten(1).shape[1] == world.features(cfg) and obs.isfinite().all()
        assert ((state.pos >= 0) & (state.pos < cells)).all() and ((state.items >= 0) & (state.items <= kinds)).all()
        standing = (state.items > 0).sum(2) - (state.contact > 0).long()
        assert (standing <= cfg.max_items).all()
    assert all(((a >= 0) & (a < len(world.ACTIONS))).all() for a in actions)
    repeat = roll(cfg, torch.Generator().manual_seed(0))[0][-1]
    again = roll(cfg, torch.Generator().manual_seed(0))[0][-1]
    assert torch.equal(repeat.items, again.items) and torch.equal(repeat.pos, again.pos)


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_nothing_in_the_others_chamber_changes_the_selfs_return(seed):
    cfg, g = config.World(), torch.Generator().manual_seed(seed)
    one = world.reset(cfg, 32, g)
    other = world.reset(config.World(eventful=1.0, drifters=0.5), 32, g)
    swap = lambda a, b: torch.stack([a[:, 0], b[:, 1]], 1)  # noqa: E731
    two = replace(
        one,
        pos=swap(one.pos, other.pos),
        items=swap(one.items, other.items),
        purpose=swap(one.purpose, other.purpose),
        angle=other.angle,
        eventful=other.eventful,
    )
    returns = []
    for state in (one, two):
        h, total = torch.Generator().manual_seed(seed + 1), []
        for _ in range(12):
            state = world.step(state, world.conduct(state, cfg, h), cfg, h)
            total.append(world.reward(state.contact, cfg))
        returns.append(torch.stack(total))
    assert torch.equal(*returns)


@given(seeds, st.sampled_from([-1.0, 0.25, 1.0]), st.sampled_from(["shared", "opposite", "alien"]))
@settings(max_examples=20, deadline=None)
def test_coupling_adds_exactly_kappa_times_the_others_worth(seed, kappa, taste):
    cfg = config.World(taste=taste)
    contact = roll(cfg, torch.Generator().manual_seed(seed))[0][-1].contact
    theirs = world.values(cfg)[1][contact[:, 1]]
    assert torch.equal(world.reward(contact, cfg, kappa), world.reward(contact, cfg) + kappa * theirs)


@given(seeds, st.sampled_from(sorted(WORLDS)))
@settings(max_examples=30, deadline=None)
def test_items_come_by_respawn_and_go_by_consumption_alone(seed, name):
    cfg, g = WORLDS[name], torch.Generator().manual_seed(seed)
    states, _ = roll(cfg, g, batch=16)
    for before, after in itertools.pairwise(states):
        under = torch.zeros_like(before.items, dtype=torch.bool).scatter(2, before.pos.unsqueeze(2), True)
        left = torch.where(under, 0, before.items)
        born = (left == 0) & (after.items > 0)
        assert torch.equal(torch.where(born, 0, after.items), left)
        assert (born.sum(2) <= 1).all()
        stands = torch.zeros_like(born).scatter(2, after.pos.unsqueeze(2), True)
        assert not (born & stands).any(), "nothing respawns underfoot"
        assert torch.equal(after.contact, left.gather(2, after.pos.unsqueeze(2)).squeeze(2))


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_position_does_not_give_identity_away(seed):
    """Swap who is who in the same picture: with identical looks the allocentric observation stays the same."""
    cfg, g = config.World(), torch.Generator().manual_seed(seed)
    state = roll(cfg, g, batch=16)[0][-1]
    state = replace(state, angle=torch.zeros_like(state.angle))
    swapped = replace(
        state, side=1 - state.side, pos=state.pos.flip(1), items=state.items.flip(1), contact=state.contact.flip(1)
    )
    look = world.appearance(cfg, seed)
    assert torch.equal(world.observe(state, cfg, look), world.observe(swapped, cfg, look))


def test_the_self_is_on_either_side_equally_often(g):
    share = world.reset(config.World(), 20000, g).side.float().mean()
    assert abs(share - 0.5) < 0.015


def test_the_left_view_draws_the_own_chamber_left_and_the_centred_view_the_own_body_in_the_middle(g):
    for view in ("left", "centred"):
        cfg = config.World(view=view)
        state = replace(roll(cfg, g)[0][-1], angle=torch.full((64,), torch.pi / 2))
        look = world.appearance(cfg, 1)
        looks = world.observe(state, cfg, look)[..., :4] @ look.axes[0]  # 1 where the self stands, else 0
        b, row, col = (looks > 0.5).nonzero(as_tuple=True)
        assert torch.equal(b, torch.arange(64))
        if view == "left":
            assert (col < cfg.size).all()
        else:
            assert (row == cfg.size - 1).all() and (col == 2 * cfg.size).all()


def test_similarity_of_looks_is_the_cosine_of_the_angle():
    look = world.appearance(config.World(), 5)
    gram = look.axes @ look.axes.T
    assert torch.allclose(gram, torch.eye(2), atol=1e-6)
    assert sorted(look.kinds.tolist()) == [0, 1, 2]


def test_the_alien_seeks_what_is_worthless_to_the_self():
    own, alien = world.values(config.World(taste="alien"))
    assert own.tolist() == [0, -1, 0, 1] and alien.tolist() == [0, -1, 1, 0]


def test_a_greedy_step_goes_to_the_best_item_and_around_bad_ones():
    cfg = config.World()
    state = world.reset(config.World(respawn=0.0), 1, torch.Generator().manual_seed(0))
    items = torch.zeros_like(state.items)
    items[0, 0, 2], items[0, 0, 1] = 3, 1  # good two to the right of cell 0, bad in between
    state = replace(state, pos=torch.zeros_like(state.pos), items=items)
    for tie in torch.rand(20, 1, 2, 5, generator=torch.Generator().manual_seed(1)):
        action, seeks = world.greedy_action(state, cfg, world.values(cfg), tie)
        assert seeks.tolist() == [[True, False]]
        assert world.ACTIONS[int(action[0, 0])] not in {"right"}, "the bad item is in the way"


def test_drifters_do_not_seek_and_purposeful_others_do(g):
    cfg = config.World(eventful=1.0)
    data = episodes.collect(config.Episodes(seed=901, episodes=4096, world=cfg))
    good = (data.contact[..., 1] == 3).float().mean(1)
    bad = (data.contact[..., 1] == 1).float().mean(1)
    assert abs(good[data.drifter].mean() - bad[data.drifter].mean()) < 0.01
    assert good[~data.drifter].mean() > 1.4 * bad[~data.drifter].mean()


def test_looks_and_conduct_are_crossed():
    data = episodes.collect(config.Episodes(seed=902, episodes=4096))
    assert abs(data.drifter.float().mean() - 1 / 3) < 0.03 and abs(data.eventful.float().mean() - 0.5) < 0.03
    assert abs(data.angle[data.drifter].mean() - data.angle[~data.drifter].mean()) < 0.05
    assert (data.contact[~data.eventful][..., 1] == 0).all()


def test_every_kind_is_met_often():
    contact = episodes.collect(config.Episodes(seed=903, episodes=4096)).contact[:, 1:, 0]
    assert (contact > 0).float().mean() > 1 / 6
    assert all((contact == k).float().mean() > 0.03 for k in (1, 2, 3))


def test_exposure_is_nested_and_labels_all_but_the_others_contacts():
    data = episodes.collect(config.Episodes(seed=904, episodes=512))
    none, some, all_ = (episodes.labelled(data, p) for p in (0.0, 0.1, 1.0))
    theirs = data.contact[..., 1] > 0
    assert torch.equal(none, ~theirs) and all_.all()
    assert (some >= none).all() and 0.03 < (some & theirs).sum() / theirs.sum() < 0.2


def test_an_unusable_world_is_refused():
    for bad in (
        {"ladder": (1, 0)},
        {"ladder": (1.0, 2.0)},
        {"max_items": 9},
        {"other_purpose": (0.9, 0.3)},
        {"colour": 1},
    ):
        with pytest.raises(ValueError):
            config.World(**bad)


def test_in_a_solitary_world_nobody_and_nothing_is_in_the_other_chamber(g):
    cfg = config.World(solitary=True, view="left")
    look, state = world.appearance(cfg, 3), world.reset(cfg, 200, g)
    for _ in range(10):
        state = world.step(state, world.conduct(state, cfg, g), cfg, g)
        other = world.observe(state, cfg, look)[:, :, cfg.size + 1 :]
        assert not other.any() and not state.contact[:, 1].any()
    both = world.observe(state, cfg.model_copy(update={"solitary": False}), look)
    assert both[:, :, cfg.size + 1 :, : cfg.appearance].any(), "where there is an other, it is drawn"
