"""Claims about the stimulus battery: matched sets, true returns, and the exactness of the instrument."""

import numpy as np
import pytest
import torch
from conftest import tiny_battery

from vicarious import battery, config, metrics, world
from vicarious.paper import chapters

CFG = config.Battery(scenes=64, rollouts=2)
SCENES = battery.make(CFG)
WORLD = config.World()
LOOK = world.appearance(WORLD, 900)
APPROACH, CONTACT, AFTER = (CFG.context + i for i in range(3))


@pytest.fixture(scope="module")
def gains():
    return {mover: battery.true_returns(CFG, SCENES, mover) for mover in battery.MOVERS}


def states(mover, **how):
    """Frames [X, K, n, T] of one mover's scenes, field by field."""
    state, _ = battery.instantiate(SCENES, mover, WORLD, **how)
    shape = (3, 3, len(SCENES), APPROACH + 3)
    return {f: getattr(state, f).view(*shape, *getattr(state, f).shape[1:]) for f in state.__dataclass_fields__}


def mover_body(mover):
    return 0 if mover in ("self", "quiet") else 1


@pytest.mark.parametrize("mover", battery.TEMPLATES)
def test_contexts_are_ordinary_frames_and_every_one_of_them_is_kept(mover):
    """Whoever draws the same states in the same order, without looking at what fits, has the same contexts."""
    found = states(mover)
    first = world.reset(WORLD.model_copy(update={"eventful": 1.0, "drifters": 0.0}), 64, _first())
    assert torch.equal(found["pos"][0, 0, :, 0, mover_body(mover)], first.pos[:, 0])
    after = world.geometry(3, torch.device("cpu"))[0]
    pos = found["pos"][0, 0]
    for t in range(APPROACH + 2):
        assert (after[pos[:, t]] == pos[:, t + 1, :, None]).any(-1).all(), "bodies move by single steps"
    assert torch.equal(found["side"][0, 0, :, 0], 1 - SCENES.side.long() if mover_body(mover) else SCENES.side.long())


def _first():
    return world.generator(CFG.seed, "battery/first")


@pytest.mark.parametrize("mover", battery.TEMPLATES)
def test_event_and_twin_differ_in_where_the_item_is_and_in_nothing_else(mover):
    found, body = states(mover), mover_body(mover)
    event, twin, averted = (found["items"][battery.CONTACTS.index(c)] for c in battery.CONTACTS)
    for name in ("pos", "side", "angle", "occupied", "stocked"):
        assert all(torch.equal(found[name][0], found[name][i]) for i in (1, 2))
    assert torch.equal(event[:, :, :APPROACH], twin[:, :, :APPROACH])
    assert torch.equal(event[..., 1 - body, :], twin[..., 1 - body, :])
    target = found["pos"][0, :, :, CONTACT, body]
    for k in range(3):
        at = lambda items, t, k=k: items[k, :, t, body].gather(1, target[k][:, None])[:, 0]  # noqa: E731
        assert (at(event, APPROACH) == k + 1).all() and (at(averted, APPROACH) == k + 1).all()
        assert (at(event, CONTACT) == k + 1).all() and (at(event, AFTER) == 0).all()
        assert (at(averted, CONTACT) == 0).all() and (at(twin, APPROACH) == 0).all()
        moved = event[k, :, APPROACH, body] != twin[k, :, APPROACH, body]
        assert (moved.sum(1) == 2).all(), "the same item in another cell"
        assert ((event[k, :, APPROACH, body] > 0).sum(1) == (twin[k, :, APPROACH, body] > 0).sum(1)).all()


@pytest.mark.parametrize("mover", battery.TEMPLATES)
def test_the_item_takes_the_place_of_another_so_that_no_chamber_has_more(mover):
    found, body = states(mover), mover_body(mover)
    items, pos = found["items"][0, 0, :, APPROACH, body], found["pos"][0, 0, :, APPROACH, body]
    lying = (items > 0).sum(1) - (items.gather(1, pos[:, None])[:, 0] > 0).long()
    assert (lying <= WORLD.max_items).all() and (lying >= 1).all()


@pytest.mark.parametrize("mover", battery.TEMPLATES)
def test_nobody_but_the_mover_meets_anything_in_the_event(mover):
    found, body = states(mover), mover_body(mover)
    contact = found["contact"][:, :, :, CONTACT:]
    assert not contact[..., 1 - body].any() and not contact[:, :, :, 1, body].any()
    assert not contact[1:, :, :, 0, body].any()
    assert torch.equal(contact[0, :, :, 0, body], torch.arange(1, 4)[:, None].expand(-1, len(SCENES)))


def test_movers_share_first_states_and_random_numbers():
    """Bodies that act alike have the very same scenes, whoever they are."""
    world_ = config.World(purpose=0.7, other_purpose=0.7)
    scenes = battery.make(CFG.model_copy(update={"world": world_}))
    own, other = (battery.TEMPLATES.index(mover) for mover in ("self", "other"))
    assert torch.equal(scenes.pos[own], scenes.pos[other]) and torch.equal(scenes.items[own], scenes.items[other])
    quiet = battery.TEMPLATES.index("quiet")
    assert torch.equal(scenes.pos[own, :, :, 0], scenes.pos[quiet, :, :, 0]), "the self's part of a quiet scene"
    assert torch.equal(scenes.items[own, ..., 0, :], scenes.items[quiet, ..., 0, :])


def test_in_quiet_scenes_the_other_has_nothing_and_in_nobodys_it_is_left_out_of_the_others():
    assert not states("quiet")["items"][..., 1, :].any() and states("quiet")["occupied"].all()
    nobody, other = states("nobody"), states("other")
    assert torch.equal(nobody["items"], other["items"]) and not nobody["occupied"].any()
    assert not nobody["contact"][..., 1].any() and torch.equal(nobody["contact"][..., 0], other["contact"][..., 0])
    angle = torch.tensor(1.0)
    with_body, without = (battery.present(SCENES, m, angle, WORLD, LOOK)[0] for m in ("other", "nobody"))
    differs = (with_body != without).view(*with_body.shape[:2], -1, world.channels(WORLD)).any(2).flatten(0, 1).any(0)
    assert differs.tolist() == [True] * 4 + [False] * 4 + [True], "appearance and mood, and nothing else"


def test_a_stranger_is_drawn_where_the_other_is_at_a_right_angle_to_every_appearance():
    right = torch.tensor(torch.pi / 2)
    stranger, other, nobody = (
        battery.present(SCENES, m, right, WORLD, LOOK)[0] for m in ("stranger", "other", "nobody")
    )
    parts = [x.view(*x.shape[:2], -1, world.channels(WORLD)) for x in (stranger, other, nobody)]
    drawn = [x[..., : WORLD.appearance] - parts[2][..., : WORLD.appearance] for x in parts[:2]]
    assert torch.equal(parts[0][..., WORLD.appearance :], parts[1][..., WORLD.appearance :]), "moods and all else alike"
    assert torch.equal(drawn[0].any(-1), drawn[1].any(-1)) and drawn[0].any(), "in the same place"
    bodies = drawn[0].flatten(0, 2)[drawn[0].any(-1).flatten()]
    torch.testing.assert_close(bodies.norm(dim=-1), torch.ones(len(bodies)))
    looks = world.bodies(torch.linspace(0, 2, 9), LOOK)
    torch.testing.assert_close(bodies @ looks.T, torch.zeros(len(bodies), 9), atol=1e-6, rtol=0)
    seen = drawn[0].reshape(9, len(SCENES), -1, WORLD.appearance).sum((0, 2))  # by scene
    directions, counts = (seen / seen.norm(dim=-1, keepdim=True)).round(decimals=3).unique(dim=0, return_counts=True)
    assert len(directions) == 4 and counts.max() - counts.min() <= 1, "both ways along both axes, equally often"


@pytest.mark.parametrize(("mover", "usual", "to"), [("right", "self", 1), ("left", "other", 0)])
@pytest.mark.parametrize("view", ["allocentric", "left"])
def test_a_mover_on_one_side_does_the_same_in_that_chamber(mover, usual, to, view):
    seen, angle = WORLD.model_copy(update={"view": view}), torch.tensor(torch.pi / 3)
    own, moved = (battery.present(SCENES, name, angle, seen, LOOK) for name in (usual, mover))
    assert torch.equal(own[1], moved[1]), "the self's actions"
    as_drawn = [x[0].view(*x[0].shape[:2], 3, 7, -1) for x in (own, moved)]
    swapped = torch.cat([as_drawn[0][..., 4:, :], as_drawn[0][..., 3:4, :], as_drawn[0][..., :3, :]], -2)
    there = torch.full((len(SCENES),), float(usual == "other")) if view == "left" else SCENES.side.float()
    elsewhere = (there != to).repeat(9)[:, None, None, None, None]
    torch.testing.assert_close(as_drawn[1], torch.where(elsewhere, swapped, as_drawn[0]))


def test_an_opposite_is_as_far_from_every_look_as_the_plane_allows():
    opposite, nobody = (battery.present(SCENES, m, None, WORLD, LOOK)[0] for m in ("opposite", "nobody"))
    drawn = (opposite - nobody).view(*opposite.shape[:2], -1, world.channels(WORLD))[..., : WORLD.appearance]
    bodies = drawn.flatten(0, 2)[drawn.any(-1).flatten()]
    looks = world.bodies(torch.linspace(0, np.radians(WORLD.widest), 9), LOOK)
    nearest = (bodies @ looks.T).amax(1)
    torch.testing.assert_close(nearest, torch.full_like(nearest, -np.cos(np.radians(WORLD.widest / 2))))


def test_moods_in_scenes_are_those_of_a_rollout():
    found = states("self")
    worth = world.worth_of(found["contact"], WORLD)
    expected = torch.zeros_like(worth[..., 0, :])
    for t in range(APPROACH + 3):
        assert torch.equal(found["mood"][..., t, :], expected)
        expected = expected / 2 + worth[..., t, :]
    after = found["mood"][0, :, :, AFTER, 0] - found["mood"][1, :, :, AFTER, 0]
    assert torch.equal(after, torch.tensor([-1.0, 0.0, 1.0])[:, None].expand(-1, len(SCENES))), "the event shows, later"
    assert torch.equal(found["mood"][0, :, :, CONTACT], found["mood"][1, :, :, CONTACT])


def test_the_same_picture_with_the_bodies_exchanged_differs_in_appearance_and_mood_alone():
    angle = torch.tensor(1.2)
    own, other = (battery.present(SCENES, m, angle, WORLD, LOOK, template="self")[0] for m in ("self", "other"))
    same = battery.present(SCENES, "other", torch.tensor(0.0), WORLD, LOOK, template="self")[0]
    assert torch.equal(same, battery.present(SCENES, "self", torch.tensor(0.0), WORLD, LOOK)[0])
    differs = (own != other).view(*own.shape[:2], -1, world.channels(WORLD)).any(2).flatten(0, 1).any(0)
    assert differs.tolist() == [True] * 4 + [False] * 5


def test_no_return_of_one_body_hangs_on_what_the_other_does(gains):
    _, measures = battery.returns(CFG, gains)
    effect = measures.set_index(["measure", "mover"])["value"]
    for mover in gains:
        assert (effect["self_effect", mover] > 0) == (mover in battery.SELVES)
        assert (effect["other_effect", mover] > 0) == (mover not in (*battery.SELVES, "nobody"))
    assert torch.equal(gains["self"][..., 0], gains["quiet"][..., 0]) and not gains["quiet"][..., 1].any()
    assert torch.equal(gains["other"][..., 0], gains["nobody"][..., 0]) and not gains["nobody"][..., 1].any()


def test_the_instrument_is_exact_without_any_network(gains):
    table = chapters.calibration.exactness(CFG, SCENES, gains, returns := battery.returns(CFG, gains)[0])
    assert set(table.kappa) == {-1.0, 0.0, 0.25, 0.5, 1.0} and len(table) == 20
    assert (table.recovered - table.kappa).abs().max() < 1e-4 and chapters.calibration.is_exact(table)
    for scaled in (torch.tensor([1.0, 3.0]), torch.tensor([1.01, 1.0])):  # of what the two bodies gain
        broken = gains | {mover: gains[mover] * scaled for mover in ("self", *battery.OTHERS)}
        assert not chapters.calibration.is_exact(chapters.calibration.exactness(CFG, SCENES, broken, returns))


def test_the_truth_is_worth_one_to_the_self_and_nothing_of_others(gains):
    truth = battery.truth(CFG, SCENES, gains)
    rho = metrics.coefficients(truth, truth)
    main = rho[rho.kind == rho.readout.map(metrics.MAIN)].set_index(["readout", "mover"]).rho
    assert np.allclose(main[["reward", "value"]].unstack()[["self", "quiet"]], 1)
    assert np.allclose(main[["reward", "value"]].unstack()[["other", "drifter", "nobody"]], 0)


def test_templates_have_a_digest_that_notices_a_change():
    again = battery.make(config.Battery(scenes=64, rollouts=99))
    assert again.digest == SCENES.digest != battery.make(tiny_battery()).digest
