"""Claims about converged heads that are given labels of the other's contacts."""

import numpy as np
import pytest
import torch
from conftest import tiny_battery

from vicarious import battery, config, episodes, heads, metrics, models, watch

MODEL = config.Model(data=config.Episodes(seed=922, episodes=256, frames=8), family="pixels")
HEADS = config.Heads(model=MODEL, width=8, updates=8, reward_updates=8, batch=16)
DATA = episodes.collect(MODEL.data)
CUT = models.split(len(DATA))


pytestmark = pytest.mark.usefixtures("exact")


@pytest.fixture(scope="module")
def start(exact):
    model = models.build(MODEL)
    z = heads.Latents.of(models.encode(model, DATA.obs, DATA.prev_action))
    scenes = battery.make(tiny_battery())
    codes = battery.encode(model, tiny_battery(), scenes, MODEL.data)
    return heads.train([HEADS], [z], [DATA])[0][0], z, codes, scenes


def cell(**own):
    return config.Extinction(heads=HEADS, battery=tiny_battery(), **{"exposure": 1.0, "past": 2, **own})


def switched(start, *cfgs, data=DATA):
    head, z, codes, scenes = start
    n = len(cfgs)
    return watch.fine_tune(list(cfgs), [head] * n, [z] * n, [data] * n, [codes] * n, scenes)


def slopes(tables, **where):
    t = tables["extinction"]
    for name, value in where.items():
        t = t[t[name] == value]
    return t.sort_values(["update", "side", "kind", "mover", "similarity"]).slope.to_numpy()


@pytest.mark.parametrize("withheld", ["nothing", "alike", "unlike", "left", "best"])
def test_labelled_and_withheld_contacts_are_all_there_are(withheld):
    parts = watch.label_split(cell(withheld=withheld), DATA)
    every = int((DATA.contact[:CUT, :, 1] > 0).sum())
    assert parts["labelled_contacts"] + parts["withheld_contacts"] == every and parts["withheld"] == withheld
    low, high = (0, 0) if withheld == "nothing" else (0.15, 0.7)
    assert low <= parts["withheld_contacts"] / every <= high


def test_the_alike_and_the_unlike_share_no_body():
    one, two = (watch.withheld(cell(withheld=name), DATA) for name in ("alike", "unlike"))
    assert (one ^ two).all() and torch.equal(one[:, 0], DATA.angle < np.pi / 4)


def test_those_left_of_the_glass_are_others_whose_self_is_on_the_right():
    held = watch.withheld(cell(withheld="left"), DATA)
    half = DATA.obs.view(len(DATA), 8, 3, 7, -1)[..., :4].square().sum(-1) > 0.5  # where bodies are
    assert half[..., :3].any((-1, -2)).all() and half[..., 4:].any((-1, -2)).all(), "one body on each side"
    me = DATA.side == 0  # and the self, whose looks never change, is on the left of these
    looks = DATA.obs.view(len(DATA), 8, 3, 7, -1)[:, 0, ..., :4]
    left = looks[:, :, :3].sum((1, 2))
    assert left[me].std(0).max() < 1e-5 < left[~me].std(0).max()
    assert torch.equal(held[:, 0], ~me)


@pytest.mark.parametrize("withheld", ["alike", "left", "best"])
def test_what_is_withheld_is_not_learnt_from(start, monkeypatch, withheld):
    cfg = cell(withheld=withheld)
    (net, tables), real = switched(start, cfg)[0], heads.reward_targets
    hidden = ~watch.known(cfg, DATA)
    lies = lambda c, d: torch.where(hidden, 100.0, real(c, d)) if len(d) == len(DATA) else real(c, d)  # noqa: E731
    monkeypatch.setattr(heads, "reward_targets", lies)
    again, _ = switched(start, cfg)[0]
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))
    other, _ = switched(start, cell())[0]
    assert any(not torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))
    assert set(tables["extinction"].withheld) == {withheld}


def test_it_starts_from_the_converged_head_and_leaves_it_alone(start):
    head, _, codes, _ = start
    before = [p.clone() for p in head.parameters()]
    _, tables = switched(start, cell())[0]
    assert all(torch.equal(a, b) for a, b in zip(before, head.parameters(), strict=True))
    usual = metrics.slopes(battery.respond(head, codes, (-1.0, 0.0, 1.0)))
    usual = usual[(usual.readout == "reward") & (usual.mover != "drifter")].set_index(["kind", "mover", "similarity"])
    found = tables["extinction"]
    found = found[found["update"] == 0].assign(total=lambda t: t.slope * t.n_scenes)
    mean = found.groupby(["kind", "mover", "similarity"])[["total", "n_scenes"]].sum()
    assert (mean.n_scenes == 8).all()
    assert np.allclose(mean.total / mean.n_scenes, usual.slope.reindex(mean.index), atol=1e-5)


@pytest.mark.parametrize("readout", ["reward", "value"])
def test_longer_and_paused_learning_is_the_same_as_far_as_it_goes(start, readout):
    short, long = (switched(start, cell(past=k, readout=readout))[0][1] for k in (1, 2))
    paused, never = (switched(start, cell(readout=readout, **k))[0][1] for k in ({"until": 0.5}, {"exposure": 0.0}))
    for update in (0, 1, 5, 8):
        assert len(slopes(short, update=update)) and set(short["extinction"].readout) == {readout}
        assert np.array_equal(slopes(short, update=update), slopes(long, update=update))
        assert np.array_equal(slopes(short, update=update), slopes(paused, update=update))
    assert not np.array_equal(slopes(long, update=16), slopes(paused, update=16))
    assert not np.array_equal(slopes(never, update=8), slopes(short, update=8))


def test_stacked_weights_are_asked_as_they_are_then(start):
    head, z, codes, scenes = start
    cfgs = [cell(exposure=1.0), cell(exposure=1.0, until=0.5), cell(exposure=0.0)]
    one, two = (
        watch.fine_tune(cfgs, [head] * 3, [z] * 3, [DATA] * 3, [codes] * 3, scenes, stacked=stacked)
        for stacked in (False, True)
    )
    for (_, a), (_, b) in zip(one, two, strict=True):
        assert np.allclose(slopes(a), slopes(b), atol=1e-4)
    assert not np.allclose(slopes(two[0][1], update=16), slopes(two[1][1], update=16), atol=1e-4)


def test_exposures_train_as_one_population_as_they_do_alone(start):
    cfgs = [cell(exposure=p) for p in (0.0, 0.3, 1.0)]
    for (one, _), cfg in zip(switched(start, *cfgs), cfgs, strict=True):
        alone, _ = switched(start, cfg)[0]
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), alone.parameters(), strict=True))


def test_labelled_episodes_are_counted_as_they_are_seen(start):
    cfg = cell(exposure=0.5, until=0.5)
    _, tables = switched(start, cfg)[0]
    progress = tables["progress"].set_index("update")
    met = (DATA.contact[:CUT, :, 1] > 0).any(1) & (DATA.exposed_at[:CUT] < 0.5)
    seen = watch.fine_tuning_rows(cfg, CUT)
    assert progress.labelled[5] == int(met[seen[:5].flatten()].sum())
    assert progress.labelled[16] == progress.labelled[8] == int(met[seen[:8].flatten()].sum())
    assert progress.different[8] == len({int(e) for e in seen[:8].flatten() if met[e]})
    assert switched(start, cell(exposure=0.0))[0][1]["progress"].labelled.eq(0).all()


def test_labels_that_say_nothing_comes_of_it_take_the_answer_away(start):
    """Heads that predict reward wherever they are asked unlearn it for the other's contacts, and only with labels."""
    head, z, codes, scenes = start
    own = heads.HeadPair(len(head.mean), 8, 2)
    own.load_state_dict(head.state_dict())
    with torch.no_grad():
        own.nets["reward"][-1].bias.add_(2.0)
    met = (DATA.contact[:CUT, :, 1] > 0) & (DATA.contact[:CUT, :, 0] == 0)

    def left(p):
        cfg = cell(exposure=p, past=20)
        net, _ = watch.fine_tune([cfg], [own], [z], [DATA], [codes], scenes)[0]
        return float(net(z.inputs[met]).mean())

    assert left(1.0) < left(0.0) - 0.1


def test_checkpoints_are_the_same_for_every_length_and_at_every_convergence():
    short, long = (
        watch.fine_tuning_checkpoints(config.Extinction(heads=config.Heads(model=MODEL), exposure=1, past=k))
        for k in (3, 10)
    )
    assert short[:2] == [0, 1] and short[-1] == 24000 and long[-1] == 80000 and {8000, 16000} < set(short)
    assert [u for u in long if u <= 24000] == short
