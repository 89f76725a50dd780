"""Claims about the battery: scenes differ only as named."""

import math
from dataclasses import replace

import pytest
import torch

from vicarious import battery, config, metrics, world
from vicarious.paper.chapters import calibration

CFG = config.Battery(scenes=64, rollouts=8, levels=3)
A, C, E = CFG.context, CFG.context + 1, CFG.context + 2


@pytest.fixture(scope="module")
def scenes():
    return battery.make(CFG)


def test_templates_are_the_same_every_time(scenes):
    battery.make.cache_clear()
    assert battery.make(CFG).digest == scenes.digest
    assert battery.make(CFG.model_copy(update={"seed": 1})).digest != scenes.digest


def test_event_twin_and_averted_share_context_and_movement(scenes):
    items = scenes.items.long()
    assert (items[:, :, :, :, :A] == items[:, :1, :1, :, :A]).all(), "nothing differs before the approach"
    # pos and actions have no axis for contact or valence at all: movement cannot differ


def test_event_and_twin_hold_the_same_items_but_for_the_place_of_one(scenes):
    event, twin = scenes.items[:, 0].long(), scenes.items[:, 1].long()
    for t in (A, C):
        differ = event[:, :, :, t] != twin[:, :, :, t]
        assert (differ[..., 0, :].sum(-1) == 2).all() and not differ[..., 1, :].any()
        assert torch.equal(event[:, :, :, t].sort(-1).values, twin[:, :, :, t].sort(-1).values)


def test_the_twins_item_lies_farther_away_than_the_events(scenes):
    _, apart = world.geometry(CFG.world.size, torch.device("cpu"))
    pos = scenes.pos[:, :, A, 0].long()
    event, twin = scenes.items[:, 0, 0, :, A, 0].long(), scenes.items[:, 1, 0, :, A, 0].long()
    near, far = (event != twin) & (event > 0), (event != twin) & (twin > 0)
    distance = apart[pos]
    assert (distance[near] == 1).all()
    assert (distance[far].view(3, -1) >= 2).all()


def test_only_the_mover_meets_anything_and_only_in_the_event(scenes):
    for mover, body in (("self", 0), ("other", 1), ("drifter", 1)):
        state, _ = battery.instantiate(scenes, mover, None if mover == "self" else torch.tensor(0.3))
        contact = state.contact.view(3, 3, CFG.scenes, -1, 2)
        ranks = torch.tensor([1, 2, 3])[:, None].expand(3, CFG.scenes)
        assert torch.equal(contact[0, :, :, C, body], ranks)
        assert not contact[1:, :, :, A:].any() and not contact[0, :, :, [A, E]].any()
        assert not contact[:, :, :, A:, 1 - body].any()


def test_movers_step_as_their_actions_say(scenes):
    after, _ = world.geometry(CFG.world.size, torch.device("cpu"))
    pos, actions = scenes.pos.long(), scenes.actions.long()
    assert torch.equal(after[pos[:, :, :-1], actions[:, :, 1:]], pos[:, :, 1:])


def test_self_and_identical_other_are_the_same_picture_with_roles_swapped(scenes):
    look = world.appearance(CFG.world, 7)
    own = replace(battery.instantiate(scenes, "self")[0], angle=torch.zeros(3 * 3 * CFG.scenes * 9))
    theirs, prev_action = battery.instantiate(scenes, "other", torch.tensor(0.0))
    assert torch.equal(world.observe(own, CFG.world, look), world.observe(theirs, CFG.world, look))
    assert not torch.equal(prev_action, battery.instantiate(scenes, "self")[1]), "only the own actions tell them apart"


def test_levels_are_uniform_in_angle():
    assert battery.similarity(battery.angles(11))[0] == 1.0 and battery.similarity(battery.angles(11))[-1] == 0.0
    steps = battery.angles(11).diff()
    assert torch.allclose(steps, torch.full_like(steps, math.pi / 20), atol=1e-6)


def test_true_value_of_a_lone_item_is_its_discounted_worth():
    """A body that always seeks reaches an item d cells away in d steps: V_pi = gamma^(d-1), to be found by rollouts."""
    quiet = config.World(respawn=0.0, purpose=1.0, max_items=3)
    cfg = config.Battery(world=quiet, rollouts=3, scenes=8)
    state = world.reset(quiet, 2, torch.Generator().manual_seed(0))
    items = torch.zeros_like(state.items)
    items[0, 0, 8], items[1, 0, 1] = 3, 3
    state = replace(state, pos=torch.zeros_like(state.pos), items=items, contact=torch.zeros_like(state.contact))
    assert torch.allclose(battery._rollout(cfg, state)[:, 0], torch.tensor([0.8**3, 1.0]))


def test_the_truth_is_one_for_reward_and_nearness_for_value(scenes):

    table = battery.truth(CFG, battery.true_returns(CFG, scenes)[..., 0])
    slope = (
        metrics.slopes(table.assign(seed=-1, family="truth", exposure=0.0, kappa=0.0))
        .set_index(["readout", "kind"])
        .slope
    )
    assert slope["reward", "empathy"] == pytest.approx(1.0)
    assert 0.2 < slope["value", "empathy"] < 0.6
    assert slope["value", "disappointment"] < -0.5, "value falls as a good item vanishes and V counts what is ahead"


def test_the_response_table_has_a_row_for_every_condition(filled):
    store, cells = filled
    table = store.read(cells[1].address).tables["responses"]
    keys = ["readout", "mover", "similarity", "valence", "contact", "phase", "step"]
    assert len(table) == (1 + 2 * 3) * 3 * 3 * 3 * 2 and not table.duplicated(keys).any()
    assert (table.n_scenes == 8).all() and table["mean"].notna().all()


def test_the_others_event_never_changes_the_selfs_return_to_the_last_bit():
    for mover in ("other", "drifter"):
        gains = battery.true_returns(CFG, scenes := battery.make(CFG), mover)
        own, others = gains.unbind(-1)
        assert torch.equal(own, own[:1, :1].expand_as(own)), "no item and no contact of the other matters to it"
        assert not torch.equal(others, others[:1, :1].expand_as(others))
    own, others = battery.true_returns(CFG, scenes, "self").unbind(-1)
    assert torch.equal(others, others[:1, :1].expand_as(others)) and not torch.equal(own, own[:1, :1].expand_as(own))


def test_a_drifter_gains_from_what_it_meets_and_nothing_from_what_it_seeks():
    """It seeks nothing, so a good item nearby is worth to it what a bad one costs: joy and pain have one slope."""
    cfg = CFG.model_copy(update={"rollouts": 64})
    table, _ = battery.returns(cfg, {m: battery.true_returns(cfg, battery.make(cfg), m) for m in ("other", "drifter")})
    slope = calibration.true_slopes(table)["other"]
    assert slope["joy", "drifter"] == pytest.approx(slope["pain", "drifter"], abs=0.02)
    assert slope["joy", "other"] > slope["pain", "other"] + 0.02


def test_an_agent_that_never_met_an_other_is_shown_one():
    cfg = config.World(view="left")
    look, scenes = world.appearance(cfg, 0), battery.make(CFG)
    for mover in ("self", "other"):
        met = battery.present(scenes, mover, torch.tensor(1.0), cfg, look)[0]
        never = battery.present(scenes, mover, torch.tensor(1.0), cfg.model_copy(update={"solitary": True}), look)[0]
        assert torch.equal(met, never)
