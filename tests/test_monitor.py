"""Claims about agents that are watched while they learn."""

import numpy as np
import pytest
import torch
from conftest import tiny_battery, tiny_model

from vicarious import battery, config, heads, metrics, models, watch, world

MODEL, SHOWN = tiny_model(921), tiny_battery()

pytestmark = pytest.mark.usefixtures("exact")


def test_what_is_watched_is_what_the_battery_finds():
    model, scenes = models.build(MODEL), battery.make(SHOWN)
    head = heads.HeadPair(8, 8, 2)
    value = battery.true_returns(SHOWN, scenes)[..., 0]
    eye = watch.Monitor(SHOWN, MODEL.data, scenes=scenes, value=value)
    eye(12, model, {"mine": head})
    codes = battery.encode(model, SHOWN, scenes, MODEL.data)
    usual = metrics.slopes(battery.respond(head, codes, MODEL.data.world.ladder))
    keys = ["readout", "kind", "mover", "similarity"]
    both = eye.table().groupby(keys).slope.mean().to_frame("watched").join(usual.set_index(keys).slope)
    assert len(both) == len(usual) == 7 * len(list(battery.conditions(SHOWN.levels)))
    assert np.allclose(both.watched, both.slope, atol=1e-5)
    with torch.no_grad():
        assert eye.agreement()["value"].tolist() == pytest.approx([battery.value_agreement(head, codes, value)])


def test_a_monitor_is_a_callback_for_any_training_loop():
    """Any object with `encode`, any function as readout; and it takes no part in the training."""

    class Mine:
        def encode(self, obs, prev_action):
            return torch.cat([obs, prev_action[..., None].to(obs.dtype)], -1)

    weights = torch.randn(world.features(config.World()) + 1, 2, generator=torch.Generator().manual_seed(0))
    eye = watch.Monitor(tiny_battery(), config.Episodes(seed=3), at=[2])
    for update in range(1, 4):
        if update in eye.at:
            eye(update, Mine(), {"mine": lambda z: z @ weights, "zero": lambda z: z[..., :2] * 0})
    table = eye.table()
    assert set(table["update"]) == {2} and set(table.name) == {"mine", "zero"} and eye.seconds > 0
    assert (table[table.name == "zero"].slope == 0).all() and table[table.name == "mine"].slope.abs().max() > 0
    assert eye.agreement().empty, "without V_pi there is nothing to agree with"


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
    eye = watch.Monitor(SHOWN, MODEL.data)
    with pytest.raises(ValueError, match="readout mine gave"):
        eye(0, models.build(MODEL), {"mine": readout})


def test_a_monitor_refuses_what_does_not_fit_and_has_no_table_before_its_first_look():
    with pytest.raises(ValueError, match="have different ladder"):
        watch.Monitor(SHOWN, config.Episodes(seed=0, world=config.World(ladder=(-5.0, 0.0, 1.0))))
    with pytest.raises(ValueError, match="nothing has been evaluated yet"):
        watch.Monitor(SHOWN, MODEL.data).table()


def test_networks_that_are_watched_do_not_drop_out_and_are_left_as_they_were():
    model, drop = models.build(MODEL).train(), torch.nn.Sequential(torch.nn.Linear(8, 2), torch.nn.Dropout(0.5))
    eye = watch.Monitor(SHOWN, MODEL.data)
    for update in range(2):
        eye(update, model, {"mine": lambda z: drop(z)})
    one, two = (part.slope.to_numpy() for _, part in eye.table().groupby("update"))
    assert np.array_equal(one, two) and drop[1].training and model.training


def test_checkpoints_are_log_spaced_and_begin_with_the_untrained_agent():
    at = watch.checkpoints(3000, 18)
    assert at[0] == 0 and at[-1] == 3000 and len(at) == 18
    assert np.ptp(np.diff(np.log(at[1:]))) < 0.02
    assert watch.checkpoints(5, 18) == [0, 1, 2, 3, 4, 5]
