"""Claims about interventions: what is planted on an axis is moved along it, erased with it, and by nothing else."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import tiny_battery

from vicarious import battery, config, interventions, metrics, pipeline
from vicarious.interventions import Pairs

LADDER = (-1.0, 0.0, 1.0)
SCENES, LEVELS, WIDTH = 32, 5, 8
HEADS = config.Heads(model=config.Model(data=config.Episodes(seed=7)))
CELL = config.Interventions(heads=HEADS, battery=config.Battery(levels=LEVELS, scenes=SCENES))
SIMILARITY = torch.tensor(battery.similarity(battery.angles(LEVELS)))


@pytest.fixture
def planted():
    """Codes whose unit 0 says whose chamber is on the left, unit 1 what the mover meets, and the rest nothing."""
    g = torch.Generator().manual_seed(0)
    z = 0.3 * torch.randn(2, LEVELS, 2, len(LADDER), SCENES, 2, WIDTH, generator=g)
    side = torch.arange(SCENES) // 2 % 2
    met = torch.zeros(2, len(LADDER))
    met[0] = torch.tensor(LADDER)
    sign = (1.0 - 2 * side)[:, None]
    z[..., 1] = met[None, None, :, :, None, None]
    z[0, ..., 0] = sign
    z[1, ..., 0] = sign * (2 * SIMILARITY - 1).view(-1, 1, 1, 1, 1)
    z[..., 7] = sign  # which side the mover is drawn on can be seen
    return Pairs(z[0], z[1], 2 * (1 - SIMILARITY), side)


def answers(x):
    """What is met, as far as unit 0 agrees with the side: 1 for the self, 0 for an orthogonal other."""
    return (x[..., 1] * (1 + x[..., 0] * x[..., 7]) / 2)[..., None]


READER = SimpleNamespace(mean=torch.zeros(WIDTH), scale=torch.ones(WIDTH), nets=dict.fromkeys(metrics.KINDS, answers))


@pytest.fixture
def found(planted):
    table, _ = interventions.run(CELL, READER, planted, LADDER)
    return table[table.readout == "reward"].set_index(["path", "mover", "similarity", "alpha"]).slope.sort_index()


def test_along_the_axis_the_other_becomes_the_self_and_the_self_the_other(found):
    for s in SIMILARITY.double().round(decimals=4).tolist():
        for alpha in (0.0, 0.5, 1.0):
            assert found["axis", "other", s, alpha] == pytest.approx(s + alpha * (1 - s), abs=0.06)
            assert found["axis", "self", s, alpha] == pytest.approx(1 - alpha * (1 - s), abs=0.06)
            assert found["whole", "other", s, alpha] == pytest.approx(s + alpha * (1 - s), abs=0.03)


def test_random_axes_of_the_same_length_do_less(found):
    gained = found["axis", "other", 0.0, 1.0] - found["random", "other", 0.0, 1.0]
    assert gained > 0.6, "two of eight units matter here, so a random axis does something"
    better = found["random, better way", "other", 0.0, 1.0]
    assert found["random", "other", 0.0, 1.0] < better < found["axis", "other", 0.0, 1.0] - 0.3


def test_a_shift_by_a_scenes_mean_brings_nothing_about_the_item_along(planted):
    """Where the axis itself says what was met, a patch carries the partner's answer over, and a shift does not."""
    z = [x.clone() for x in (planted.own, planted.other)]
    z[1][..., 1] = 0
    z[0][..., 7] = z[1][..., 7] = 1.0
    z[0][..., 0], z[1][..., 0] = 1 + 2 * z[0][..., 1], 0.0
    reader = SimpleNamespace(**{**vars(READER), "nets": dict.fromkeys(metrics.KINDS, lambda x: x[..., :1])})
    table, _ = interventions.run(CELL, reader, Pairs(*z, planted.pixels, planted.side), LADDER)
    table = table[table.alpha == 1].set_index(["path", "mover", "similarity", "readout"]).slope
    assert table["axis", "other", 0.0, "reward"] > 1.5 and abs(table["shift", "other", 0.0, "reward"]) < 0.1


def test_without_the_axis_self_and_other_are_answered_alike(found):
    for s in (0.0, 0.7071):
        for path in ("erased", "centred"):
            assert found[path, "self", s, 1.0] == pytest.approx(found[path, "other", s, 1.0], abs=0.06)
        apart = found["erased at random", "self", s, 1.0] - found["erased at random", "other", s, 1.0]
        assert apart > 0.4 * (1 - s)


def test_axes_are_found_in_other_scenes_than_those_they_are_used_in(planted):
    own, other = planted.read(READER, "reward")
    seen = []
    for here, _ in interventions.groups(CELL, own, other, planted.side):
        assert len({int(planted.side[i]) for i in here}) == 1 and len({int(i) % 2 for i in here}) == 1
        seen += here.tolist()
    assert sorted(seen) == list(range(SCENES))
    for half in (0, 1):  # codes of a half do not change its own axes
        changed = other.clone()
        changed[:, :, :, half::2] += 5
        for (here, axes), (_, same) in zip(
            interventions.groups(CELL, own, other, planted.side),
            interventions.groups(CELL, own, changed, planted.side),
            strict=True,
        ):
            assert torch.equal(axes.own, same.own) == (int(here[0]) % 2 == half)


def test_distances_and_places_are_what_was_planted(planted):
    _, found = interventions.run(CELL, READER, planted, LADDER)
    rows = {(name, s): v for name, mover, s, v in found if mover == "other"}
    for s in SIMILARITY.double().round(decimals=4).tolist():
        assert rows["position_reward", s] == pytest.approx(s, abs=0.05)
        assert rows["distance_pixels", s] == pytest.approx(2 * (1 - s), abs=1e-4)
    mine = [v for name, mover, _, v in found if (name, mover) == ("position_reward", "self")]
    assert mine == pytest.approx([1] * LEVELS, abs=0.05)
    step, rest = 4.0, (WIDTH - 3) * 2 * 0.3**2  # squared, at orthogonal looks: along the axis, and noise
    assert rows["share_reward", 0.0] == pytest.approx(step / (step + rest), abs=0.05)
    assert rows["distance_reward", 0.0] > rows["distance_reward", 0.7071]


def test_partial_effects_tell_what_matters_among_scenes_from_what_only_goes_with_it():
    g, n = torch.Generator().manual_seed(1), 400
    own, other = torch.zeros(2, LEVELS, 2, len(LADDER), n, 2, WIDTH)
    far = torch.rand(LEVELS, n, generator=g) + 1 - SIMILARITY[:, None]
    other[..., 0] = far.view(LEVELS, 1, 1, n, 1)
    other[:, 0, :, :, :, 1] = torch.tensor(LADDER).view(1, -1, 1, 1)
    own[..., 1] = other[..., 1]
    reader = SimpleNamespace(
        **{**vars(READER), "nets": dict.fromkeys(metrics.KINDS, lambda x: x[..., 1:2] * (3 - x[..., :1]))}
    )
    codes = Pairs(own, other, 2 * (1 - SIMILARITY), torch.arange(n) // 2 % 2)
    rows = {name: v for name, _, s, v in interventions.run(CELL, reader, codes, LADDER)[1] if s == 1.0}
    spread = float(far[1:].std())
    assert rows["partial_latent_reward"] == pytest.approx(-spread, rel=1e-3)
    assert rows["partial_pixels_reward"] == pytest.approx(0, abs=1e-3)
    assert rows["within_latent_reward"] == pytest.approx(-spread, rel=1e-3), "per the same unit"


@pytest.fixture(scope="module")
def agent(filled):
    store, cells = filled
    return pipeline.Workspace(store), cells[1].heads


def test_pairs_are_the_same_picture_with_the_bodies_exchanged(agent):
    own, cfg = agent
    shown_ = tiny_battery()
    pairs = Pairs.of(own.model(cfg.model), shown_, own.scenes(shown_)[0], cfg.model.data)
    assert pairs.pixels[0] == 0 and (pairs.pixels.diff() > 0).all()
    angles = battery.angles(shown_.levels)
    assert (pairs.pixels >= (2**1.5 * (angles / 2).sin()) - 1e-4).all(), "two bodies each, and their moods"


def test_a_code_that_has_not_moved_is_answered_as_in_the_table_of_responses(agent):
    own, cfg = agent
    shown_ = tiny_battery().model_copy(update={"scenes": 32})
    cell, head, ladder = config.Interventions(heads=cfg, battery=shown_, axes=2), own.heads(cfg), LADDER
    pairs = Pairs.of(own.model(cfg.model), shown_, battery.make(shown_), cfg.model.data)
    table, _ = interventions.run(cell, head, pairs, ladder)
    alike = battery.make(shown_)
    alike = replace(alike, **{name: getattr(alike, name).clone() for name in ("pos", "actions", "items")})
    for tensor in (alike.pos, alike.actions, alike.items):
        tensor[battery.TEMPLATES.index("other")] = tensor[battery.TEMPLATES.index("self")]
    shown = battery.encode(own.model(cfg.model), shown_, alike, cfg.model.data)
    usual = metrics.slopes(battery.respond(head, shown, ladder))
    usual = (
        usual[(usual.kind == usual.readout.map(metrics.MAIN)) & (usual.mover == "other")]
        .set_index(["readout", "similarity"])
        .slope
    )
    start = table[(table.alpha == 0) & (table.mover == "other")]
    assert set(start.path) == {"axis", "shift", "whole", "random"}
    for row in start.itertuples():
        assert row.slope == pytest.approx(usual[row.readout, row.similarity], abs=1e-5)
    table = table.set_index(["path", "mover", "alpha", "readout", "similarity"]).slope.sort_index()
    end, mine = table["whole", "other", 1.0], table["axis", "self", 0.0]
    assert end.to_numpy() == pytest.approx(mine.to_numpy(), abs=1e-5), "all the way is the self"
