"""Claims about the chambers."""

import itertools
import math
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
    "all vacant": config.World(eventful=0.0, vacant=1.0),
    "no moods": config.World(expression=0.0),
    "marked": config.World(marked=True),
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
        occupied=other.occupied,
        stocked=other.stocked,
        mood=swap(one.mood, other.mood),
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
def test_coupling_adds_exactly_kappa_times_the_others_gains_or_losses(seed, kappa, taste):
    cfg = config.World(taste=taste)
    contact = roll(cfg, torch.Generator().manual_seed(seed))[0][-1].contact
    theirs, own = world.values(cfg)[1][contact[:, 1]], world.reward(contact, cfg)
    assert torch.equal(world.reward(contact, cfg, kappa, kappa), own + kappa * theirs)
    assert torch.equal(world.reward(contact, cfg, kappa_gain=kappa), own + kappa * theirs.clamp(min=0))
    assert torch.equal(world.reward(contact, cfg, kappa_loss=kappa), own + kappa * theirs.clamp(max=0))


@given(seeds, st.sampled_from(sorted(WORLDS)))
@settings(max_examples=40, deadline=None)
def test_items_come_one_at_a_time_into_free_cells_and_what_is_stood_on_was_there(seed, name):
    cfg, g = WORLDS[name], torch.Generator().manual_seed(seed)
    states, _ = roll(cfg, g, batch=16)
    for before, after in itertools.pairwise(states):
        left = before.items.masked_fill(before.there, 0)
        new = (after.items > 0) & (after.items != left)  # where one vanished another may appear at once
        assert (new.sum(2) <= 1).all() and not (new & after.there).any(), "nothing appears underfoot"
        assert ((after.items == left) | (after.items == 0) | new).all()
        assert torch.equal(after.contact, (left * after.there).sum(2)), "nothing vanishes underfoot"


def test_items_vanish_at_their_rate_and_half_of_them_are_good(g):
    cfg = config.World(eventful=1.0)
    states, _ = roll(cfg, g, batch=4096, steps=8)
    before, after = states[-2:]
    left = before.items.masked_fill(before.there, 0)
    lying = (left > 0) & ~after.there
    gone = lying & ((after.items == 0) | (after.items != left))
    assert abs(gone.sum() / lying.sum() - cfg.vanish) < 0.02
    new = after.items[(after.items > 0) & (left == 0)]
    share = torch.bincount(new, minlength=4)[1:] / len(new)
    assert torch.allclose(share, torch.tensor([0.25, 0.25, 0.5]), atol=0.02)


@given(seeds, st.sampled_from(["shared", "opposite", "alien"]))
@settings(max_examples=20, deadline=None)
def test_a_mood_is_what_was_met_by_the_bodys_own_taste_and_fades_by_half(seed, taste):
    cfg = config.World(taste=taste)
    states, _ = roll(cfg, torch.Generator().manual_seed(seed), batch=16)
    expected = torch.zeros_like(states[0].mood)
    for state in states:
        assert torch.equal(state.mood, expected)
        worth = torch.stack([world.values(cfg)[m][state.contact[:, m]] for m in (0, 1)], 1)
        expected = expected / 2 + worth


def test_moods_are_drawn_in_a_channel_of_their_own_where_bodies_are_unless_expression_is_off(g):
    cfg = config.World(view="left")
    state, look = roll(cfg, g)[0][-1], world.appearance(cfg, 3)
    shown = world.observe(state, cfg, look)[..., -1]
    assert torch.allclose(shown[:, :, :3].sum((1, 2)), state.mood[:, 0])
    assert torch.allclose(shown[:, :, 4:].sum((1, 2)), torch.where(state.occupied, state.mood[:, 1], 0.0))
    assert shown.abs().max() > 0
    hidden = cfg.model_copy(update={"expression": 0.0})
    assert not world.observe(state, hidden, look)[..., -1].any()
    rest = world.observe(state, cfg, look)[..., :-1]
    assert torch.equal(world.observe(state, hidden, look)[..., :-1], rest)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_position_does_not_give_identity_away(seed):
    """Swap who is who in the same picture: with identical looks the allocentric observation stays the same."""
    cfg, g = config.World(), torch.Generator().manual_seed(seed)
    state = roll(cfg, g, batch=16)[0][-1]
    state = replace(state, angle=torch.zeros_like(state.angle))
    state = replace(state, occupied=torch.ones_like(state.occupied))
    flipped = {name: getattr(state, name).flip(1) for name in ("pos", "items", "contact", "mood")}
    swapped = replace(state, side=1 - state.side, **flipped)
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
    assert torch.allclose(gram, torch.eye(4), atol=1e-6)
    assert sorted(look.kinds.tolist()) == [0, 1, 2]


def test_the_alien_seeks_what_is_worthless_to_the_self():
    own, alien = world.values(config.World(taste="alien"))
    assert own.tolist() == [0, -1, 0, 1] and alien.tolist() == [0, -1, 1, 0]


def one_chamber(cfg, items, pos=0):
    """A world whose self stands on a cell, with items {cell: rank + 1} in its chamber and nothing in the other's."""
    state = world.reset(cfg.model_copy(update={"appear": 0.0}), 1, torch.Generator().manual_seed(0))
    chambers = torch.zeros_like(state.items)
    for cell, kind in items.items():
        chambers[0, 0, cell] = kind
    return replace(state, pos=torch.tensor([[pos, 8]]), items=chambers)


@pytest.mark.parametrize(
    ("items", "pos", "action", "seeking"),
    [
        ({4: 3, 3: 1}, 0, "right", True),  # around a bad item
        ({2: 3, 1: 1}, 0, "stay", True),  # it waits where a bad one is in the only way
        ({2: 3, 6: 3}, 4, "up", True),  # equally near: the first cell, and of its ways the first action
        ({8: 3, 1: 3}, 0, "right", True),  # the nearest one
        ({1: 1, 3: 2}, 0, "stay", False),  # nothing good
    ],
)
def test_a_purposeful_step_goes_to_the_nearest_good_item_around_bad_ones_and_ties_have_an_order(
    items, pos, action, seeking
):
    cfg = config.World()
    found, seeks = world.purposeful_action(one_chamber(cfg, items, pos), cfg)
    assert world.ACTIONS[int(found[0, 0])] == action and seeks.tolist() == [[seeking, False]]


def test_purposeful_bodies_stay_where_there_is_nothing_to_seek_and_drifters_do_not(g):
    cfg = config.World(eventful=0.0, vacant=0.0, other_purpose=1.0, drifters=0.5)
    state = world.reset(cfg, 512, g)
    after = world.step(state, world.conduct(state, cfg, g), cfg, g)
    still, drifter = after.pos[:, 1] == state.pos[:, 1], state.purpose[:, 1] == 0
    assert still[~drifter].all() and still[drifter].float().mean() < 0.8


def test_drifters_do_not_seek_and_purposeful_others_do():
    data = episodes.collect(config.Episodes(seed=901, world=config.World(eventful=1.0)), count=4096)
    good, bad = ((data.contact[..., 1] == kind).float().mean(1) for kind in (3, 1))
    assert abs(good[data.drifter].mean() - 2 * bad[data.drifter].mean()) < 0.01, "half of all items are good"
    assert good[~data.drifter].mean() > 4 * bad[~data.drifter].mean()


def test_kinds_of_episodes_and_conduct_and_appearance_are_crossed():
    data = episodes.collect(config.Episodes(seed=902), count=8192)
    vacant = ~data.occupied
    for kind, share in ((data.eventful, 1 / 2), (data.quiet, 1 / 3), (vacant, 1 / 6), (data.drifter, 1 / 3)):
        assert abs(kind.float().mean() - share) < 0.02
    assert (data.eventful.int() + data.quiet.int() + vacant.int() == 1).all()
    assert abs(data.angle[data.drifter].mean() - data.angle[~data.drifter].mean()) < 0.05
    assert data.angle.max() <= math.radians(110) and data.angle.max() > math.radians(108)
    assert (data.contact[~data.eventful][..., 1] == 0).all() and (data.contact[data.eventful][..., 1] > 0).any()


def test_in_a_vacant_episode_items_are_there_and_nobody_and_in_a_quiet_one_the_reverse(g):
    cfg = config.World(view="left")
    look, state = world.appearance(cfg, 3), roll(cfg, g, batch=300)[0][-1]
    there = world.observe(state, cfg, look)[:, :, cfg.size + 1 :]
    bodies, kinds = there[..., :4].abs().sum((1, 2, 3)) > 0, there[..., 4:7].sum((1, 2, 3)) > 0
    assert torch.equal(bodies, state.occupied) and not kinds[~state.stocked].any()
    assert kinds[state.stocked].float().mean() > 0.9


def test_every_kind_is_met_often():
    contact = episodes.collect(config.Episodes(seed=903), count=4096).contact[:, 1:, 0]
    assert (contact > 0).float().mean() > 1 / 6
    assert all((contact == k).float().mean() > 0.005 for k in (1, 2, 3))


def test_the_glass_shows_whose_chamber_is_whose_where_it_is_asked_to(g):
    cfg = config.World(marked=True)
    state = roll(cfg, g)[0][-1]
    glass = world.observe(state, cfg, world.appearance(cfg, 1))[:, :, cfg.size, -2]
    assert torch.equal(glass, (1.0 - 2.0 * state.side)[:, None].expand(-1, 3))


def test_outlook_knows_where_purposeful_others_go(g):
    cfg = config.World(eventful=1.0, drifters=0.0)
    states = [state for state, _ in episodes.rollout(cfg, 512, 12, g)]
    seen = episodes.outlook(cfg, states)
    for name in ("informed", "aimless", "stays"):
        assert torch.allclose(getattr(seen, name).sum(1), torch.ones(len(seen.there)))
    assert len(seen.there) == 512 * 11 and 0.3 < seen.seeks.float().mean() < 0.95
    likely = seen.informed[seen.seeks].argmax(1) == seen.there[seen.seeks].argmax(1)
    assert likely.float().mean() > 0.93, "purpose is .95"
    assert seen.error("informed") < 0.12 < 0.8 < seen.error("aimless")
    assert seen.error("stays", seeking=False) < seen.error("aimless", seeking=False), "standing still passes for it"
    assert seen.error("stays") == pytest.approx(seen.error("aimless")), "but not where there is something to seek"


def test_an_unusable_world_is_refused():
    for bad in ({"ladder": (1, 0)}, {"ladder": (1.0, 2.0)}, {"max_items": 9}, {"other_purpose": 1.3}, {"colour": 1}):
        with pytest.raises(ValueError):
            config.World(**bad)
