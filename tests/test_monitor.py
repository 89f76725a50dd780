"""Claims about agents that are watched while they learn everything together."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_battery

from vicarious import battery, config, episodes, heads, metrics, models, watch

MODEL = config.Model(data=config.Episodes(seed=921, episodes=128, frames=8), latent=8, width=16, updates=12, batch=16)
JOINT = config.Joint(model=MODEL, battery=tiny_battery(), checkpoints=5, width=8)


pytestmark = pytest.mark.usefixtures("exact")


def watched(cfg=JOINT, stacked=False):
    at = watch.checkpoints(cfg.model.updates, cfg.checkpoints)
    scenes = battery.make(cfg.battery)
    value = battery.true_returns(cfg.battery, scenes)[..., 0]
    eye = watch.Monitor(cfg.battery, cfg.model.data, at, scenes, value)
    return watch.train_jointly([cfg], [episodes.collect(cfg.model.data)], [eye], stacked=stacked)[0], eye


@pytest.mark.parametrize("stacked", [False, True])
def test_heads_leave_the_world_model_as_if_it_trained_alone(stacked):
    (agent, _), _ = watched(stacked=stacked)
    alone = models.train([MODEL], [episodes.collect(MODEL.data)], stacked=stacked)[0][0].state_dict()
    together = agent.model.state_dict()
    fresh = models.build(MODEL).state_dict()
    assert all(torch.equal(together[k], alone[k]) for k in alone)
    assert any(not torch.equal(together[k], fresh[k]) for k in alone)


def test_every_head_learns_and_by_its_own_labels():
    (agent, _), _ = watched()
    begin = heads.initial(JOINT.at(0.0), 8).nets
    for i in range(2):
        for readout in heads.READOUTS:
            assert not torch.equal(getattr(agent, f"{readout}{i}")[0].weight, begin[readout][0].weight)
    assert not torch.equal(agent.reward0[0].weight, agent.reward1[0].weight)


def test_heads_of_each_exposure_learn_from_its_own_labels_alone(monkeypatch):
    """Rewards that are lies wherever p = 0 has no label change the heads of p = 1, and nothing else."""
    (agent, _), real = watched()[0], heads.reward_targets
    data = episodes.collect(MODEL.data)
    hidden = ~episodes.labelled(data, 0.0)
    assert hidden.any()
    monkeypatch.setattr(heads, "reward_targets", lambda c, d: torch.where(hidden, 100.0, real(c, d)))
    again = watched()[0][0]
    same = {k: torch.equal(v, again.state_dict()[k]) for k, v in agent.state_dict().items()}
    assert all(same[k] for k in same if k.startswith(("model", "reward0", "value0")))
    assert not all(same[k] for k in same if k.startswith("reward1"))
    assert not all(same[k] for k in same if k.startswith("value1"))


def test_the_monitor_asks_when_it_should_and_keeps_what_the_battery_says():
    (agent, tables), _ = watched()
    at = watch.checkpoints(12, 5)
    found = tables["development"]
    assert sorted(found["update"].unique()) == at and set(found.exposure) == {0.0, 1.0}
    sample = episodes.collect(MODEL.data)[: watch.SAMPLE]
    head = agent.heads(models.encode(agent.model, sample.obs, sample.prev_action))[1.0]
    codes = battery.encode(agent.model, JOINT.battery, battery.make(JOINT.battery), MODEL.data)
    usual = metrics.slopes(battery.respond(head, codes, (-1.0, 0.0, 1.0)))
    last = found[(found["update"] == 12) & (found.exposure == 1.0)]
    keys = ["readout", "kind", "mover", "similarity"]
    both = last.groupby(keys).slope.mean().to_frame("watched").join(usual.set_index(keys).slope)
    assert len(both) == len(usual) == 8 * 7
    assert np.allclose(both.watched, both.slope, atol=1e-5)


def test_a_monitor_is_a_callback_for_any_training_loop():
    """Any object with `encode`, any function as readout; and it takes no part in the training."""

    class Mine:
        def encode(self, obs, prev_action):
            return torch.cat([obs, prev_action[..., None].to(obs.dtype)], -1)

    weights = torch.randn(169, 2, generator=torch.Generator().manual_seed(0))
    eye = watch.Monitor(tiny_battery(), config.Episodes(seed=3), at=[2])
    for update in range(1, 4):
        if update in eye.at:
            eye(update, Mine(), {"mine": lambda z: z @ weights, "zero": lambda z: z[..., :2] * 0})
    table = eye.table()
    assert set(table["update"]) == {2} and set(table.name) == {"mine", "zero"} and eye.seconds > 0
    assert (table[table.name == "zero"].slope == 0).all() and table[table.name == "mine"].slope.abs().max() > 0
    assert eye.agreement().empty, "without V_pi there is nothing to agree with"


def test_checkpoints_are_log_spaced_with_the_untrained_agent_and_a_fifth_of_training():
    at = watch.checkpoints(3000, 18)
    assert at[0] == 0 and at[-1] == 3000 and 600 in at and len(at) == 18
    spaced = np.diff(np.log([u for u in at if u not in (0, 600)]))
    assert np.ptp(spaced) < 0.02
    assert watch.checkpoints(5, 18) == [0, 1, 2, 3, 4, 5]


def test_learning_is_followed_and_the_monitors_share_is_kept():
    (_, tables), _ = watched()
    learning = tables["learning"]
    assert {"reconstruction", "prediction", "reward_r2", "value_loss", "value_r", "monitor_share"} <= set(
        learning.measure
    )
    wide = learning[learning.measure == "reconstruction"].set_index("update")["value"]
    assert wide[12] < wide[0]
    assert (learning[learning.measure == "monitor_share"]["value"] > 0).all()


def test_controls_are_watched_as_well():
    cfg = JOINT.model_copy(update={"model": MODEL.model_copy(update={"family": "pixels"})})
    (agent, tables), _ = watched(cfg)
    assert set(agent.rates()) == {"reward0", "reward1", "value0", "value1"}
    assert not tables["learning"].measure.eq("reconstruction").any() and len(tables["development"])
    assert isinstance(tables["development"], pd.DataFrame)


@pytest.mark.parametrize(
    "readout",
    [
        lambda z: torch.zeros(*z.shape[:-1], 3),
        lambda z: torch.zeros(*z.shape[:-1], 1),
        lambda z: torch.zeros(2, *z.shape[:-1]),
        lambda z: torch.full((*z.shape[:-1], 2), torch.nan),
    ],
)
def test_a_readout_that_gives_anything_else_is_told(readout):
    eye = watch.Monitor(JOINT.battery, MODEL.data)
    with pytest.raises(ValueError, match="readout mine gave"):
        eye(0, models.build(MODEL), {"mine": readout})


def test_a_monitor_refuses_what_does_not_fit_and_has_no_table_before_its_first_look():
    with pytest.raises(ValueError, match="have different ladder"):
        watch.Monitor(JOINT.battery, config.Episodes(seed=0, world=config.World(ladder=(-5.0, 0.0, 1.0))))
    with pytest.raises(ValueError, match="nothing has been evaluated yet"):
        watch.Monitor(JOINT.battery, MODEL.data).table()


def test_networks_that_are_watched_do_not_drop_out_and_are_left_as_they_were():
    model, drop = models.build(MODEL).train(), torch.nn.Sequential(torch.nn.Linear(8, 2), torch.nn.Dropout(0.5))
    eye = watch.Monitor(JOINT.battery, MODEL.data)
    for update in range(2):
        eye(update, model, {"mine": lambda z: drop(z)})
    one, two = (part.slope.to_numpy() for _, part in eye.table().groupby("update"))
    assert np.array_equal(one, two) and drop[1].training and model.training
