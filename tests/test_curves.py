"""Claims about learning curves of reward models, and what is read from them where competence is equal."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_battery
from statsmodels.regression.mixed_linear_model import MixedLM

from vicarious import battery, config, episodes, heads, metrics, models, watch
from vicarious.paper import results, studies
from vicarious.paper.chapters import scaling
from vicarious.paper.results import Results

MODEL = config.Model(data=config.Episodes(seed=931, episodes=256, frames=8), family="pixels")
CELL = config.Curve(model=MODEL, battery=tiny_battery(), width=8, updates=24, batch=16, checkpoints=6)
DATA = episodes.collect(MODEL.data)


pytestmark = pytest.mark.usefixtures("exact")


@pytest.fixture(scope="module")
def agent(exact):
    model, test = models.build(MODEL), watch.test_set(MODEL.data)
    z = heads.Latents.of(models.encode(model, DATA.obs, DATA.prev_action))
    codes = battery.encode(model, tiny_battery(), battery.make(tiny_battery()), MODEL.data)
    return z, codes, (models.encode(model, test.obs, test.prev_action), test)


def learnt(agent, *cells, **how):
    z, codes, test = agent
    n = len(cells)
    return watch.train_curves(list(cells), [z] * n, [DATA] * n, [codes] * n, [test] * n, **how)


def test_watching_changes_nothing_and_the_last_look_is_the_trained_head(agent):
    (tables,) = learnt(agent, CELL)
    z, codes, (held, test) = agent
    for p in CELL.exposures:
        head = heads.train([CELL.at(p)], [z], [DATA])[0][0]
        answers = battery.respond(head, codes, MODEL.data.world.ladder)
        known = metrics.slopes(answers[answers.readout == "reward"])
        known = known[known.kind == "empathy"].set_index(["mover", "similarity"]).slope
        table = tables["curves"]
        last = table[(table["update"] == CELL.updates) & (table.exposure == p)].set_index(["mover", "similarity"]).slope
        assert len(last) == len(known) and np.allclose(last, known.reindex(last.index), atol=1e-6)
        free = test.contact[..., 1] == 0
        reward = torch.tensor([0.0, *MODEL.data.world.ladder])[test.contact[..., 0]]
        error = (head(held)[..., 0] - reward)[free].square().mean()
        own = tables["learning"]
        own = own[(own["update"] == CELL.updates) & (own.exposure == p)].set_index("measure").value
        assert own.reward_loss == pytest.approx(float(error), abs=1e-6)
        assert own.reward_r2 == pytest.approx(1 - float(error / reward[free].var()), abs=1e-5)


def test_a_population_of_widths_learns_what_each_does_alone(agent):
    cells = [CELL, CELL.model_copy(update={"width": 4})]
    assert watch.curve_key(cells[0]) == watch.curve_key(cells[1])
    for one, two in zip(learnt(agent, *cells, stacked=True), [t for c in cells for t in learnt(agent, c)], strict=True):
        for name in ("curves", "learning"):
            value = {"curves": "slope", "learning": "value"}[name]
            assert np.allclose(one[name][value], two[name][value], atol=2e-4)


def test_the_test_set_is_the_same_for_every_amount_of_data_and_nothing_learns_from_it():
    small, large = (watch.test_set(MODEL.data.model_copy(update={"episodes": n})) for n in (64, 512))
    assert torch.equal(small.obs, large.obs) and len(small) == watch.TEST
    flat = DATA.obs.flatten(1)
    assert (torch.cdist(flat[:64], small.obs.flatten(1)).min(1).values > 0.1).all()


# What is read from the curves: agents whose answers are a function of competence alone, and who differ in speed.

UPDATES = np.array([0, *np.geomspace(47, 3000, 22).round()])
WIDTHS = (16, 32, 64, 128, 256, 512)


def grown(speed, effect=lambda width: 0.0, ceiling=lambda width: 1.0, seeds=6, noise=0.0, form=lambda r2: 0.6 * r2):
    """Learning curves along the model's width: own R2 saturates faster the larger `speed(width)` is."""
    rng, parts = np.random.default_rng(0), []
    for seed in range(seeds):
        pace = rng.lognormal(0, 0.2)
        for width in WIDTHS:
            r2 = ceiling(width) * (1 - np.exp(-UPDATES * pace * speed(width) / 400))
            rho = form(r2) + effect(width) + noise * rng.standard_normal(len(r2))
            for mover, s, value in (("self", 1.0, r2), ("other", 0.0, rho), ("other", 0.5, rho), ("other", 1.0, r2)):
                own = {"update": UPDATES, "mover": mover, "similarity": s, "rho": value, "r2": r2}
                sizes = {
                    "model_width": width,
                    "latent": 128,
                    "head_width": 128,
                    "head_depth": 2,
                    "episodes": 16384,
                    "model_updates": 1000,
                }
                parts.append(pd.DataFrame(own | sizes).assign(seed=seed, family="recurrent", state=64))
    table = pd.concat(parts, ignore_index=True).assign(exposure=0.0)
    nothing = pd.DataFrame(columns=[*"measure mover similarity value seed family state".split(), *scaling.SIZES])
    return Results(pd.DataFrame(), pd.DataFrame(), nothing, curves=table)


def slopes(e, read="matched"):
    return scaling.along(e, scaling.outcomes(e), "model-width", 0.0).slope(read)


@pytest.mark.parametrize(
    "form", [lambda r2: 0.6 * r2, lambda r2: r2**4, lambda r2: 0.5 - (r2 - 0.3) ** 2], ids=range(3)
)
def test_speed_of_learning_alone_comes_out_flat_at_matched_competence(form):
    e = grown(speed=lambda width: (width / 100) ** 0.5, form=form)
    table = e.table("curves")[(e.table("curves").mover == "other") & (e.table("curves").similarity == 0.5)]
    early = table[table["update"] == UPDATES[12]].pivot(index="seed", columns="model_width", values="rho")
    naive = scaling.per_decade(np.array(WIDTHS), early.to_numpy())[:, 0]
    assert abs(naive.mean()) > 0.05, "without matching, speed passes for an effect of capacity"
    assert np.abs(slopes(e)).max() < 0.005


def test_an_effect_of_capacity_is_found_whatever_the_speed():
    e = grown(speed=lambda width: (width / 100) ** 0.5, effect=lambda width: 0.1 * np.log10(width))
    assert np.allclose(slopes(e), 0.1, atol=0.01)
    assert scaling.measurable("model-width", 0.0, e) == (list(range(6)), [])
    assert np.allclose(scaling.capacity_slopes("model-width", 0.0, e, [3, 1]), slopes(e)[[3, 1]])


def test_levels_that_never_become_competent_are_not_read():
    e = grown(speed=lambda width: 1.0, ceiling=lambda width: 0.6 if width < 60 else 1.0, effect=lambda w: -9 * (w < 60))
    found = scaling.along(e, scaling.outcomes(e), "model-width", 0.0)
    assert list(found.counts) == [False, False, True, True, True, True] and list(found.share[:2]) == [0, 0]
    assert np.abs(slopes(e)).max() < 1e-6 and np.isnan(found.matched[:, :2]).all()


def test_too_few_competent_levels_give_no_slope():
    e = grown(speed=lambda width: 1.0, ceiling=lambda width: 0.6 if width < 200 else 1.0)
    assert np.isnan(scaling.capacity_slopes("model-width", 0.0, e, [0, 1])).all()
    assert scaling.measurable("model-width", 0.0, e) == ([], list(range(6)))


def test_levels_that_cannot_tell_who_moved_are_confusion():
    e = grown(speed=lambda width: 1.0)
    rows = [
        {"measure": "auc", "mover": "other", "similarity": s, "value": 0.7 if w == 16 else 1.0, "seed": seed}
        | {
            "family": "recurrent",
            "state": 64,
            "latent": 128,
            "episodes": 16384,
            "model_updates": 1000,
            "model_width": w,
        }
        for w in WIDTHS
        for s in (0.0, 0.5, 1.0)
        for seed in (0, 1)
    ]
    measures = pd.DataFrame(rows)
    found = scaling.along(
        Results(e.coefficients, e.gates, measures, curves=e.table("curves")), scaling.outcomes(e), "model-width", 0.0
    )
    assert list(found.confused) == [True, False, False, False, False, False] and not found.counts[0]


def test_the_mean_slope_of_agents_is_that_of_the_mixed_model():
    e = grown(speed=lambda width: 1.0, effect=lambda width: 0.1 * np.log10(width), noise=0.05, seeds=12)
    found = scaling.along(e, scaling.outcomes(e), "model-width", 0.0)
    x, who = np.tile(np.log10(found.levels), 12), np.repeat(np.arange(12), len(found.levels))
    design = np.column_stack([np.ones(len(x)), x - x.mean()])
    fit = MixedLM(found.matched.ravel(), design, who, exog_re=design).fit()
    assert slopes(e).mean() == pytest.approx(fit.fe_params[1], abs=1e-3)


def test_extrapolations_are_wider_the_farther_and_the_freer_and_cover_the_truth():
    rng, x, far = np.random.default_rng(1), np.log10(WIDTHS), 512e3
    covered = []
    for _ in range(60):
        agents = rng.normal(0.1, 0.02, (12, 1)) * x + rng.normal(0, 0.05, (12, len(x)))
        near, distant = scaling.extrapolated(np.array(WIDTHS), agents, np.array([512, far]))
        bent = scaling.extrapolated(np.array(WIDTHS), agents, np.array([far]), degree=2)[0]
        widths = [i.high - i.low for i in (near, distant, bent)]
        assert widths[0] < widths[1] < widths[2]
        covered.append(distant.low < 0.1 * np.log10(far) < distant.high)
    assert np.mean(covered) > 0.88


@pytest.mark.parametrize("effect", [0.0, -0.1])
def test_what_only_the_quality_of_a_world_model_explains_is_told_from_capacity(effect):
    """Agents whose rho falls as their world model gets better, and, in the second study, with its width as well."""
    rows, losses = [], []
    for seed in range(3):
        for axis, level in [("model_width", w) for w in WIDTHS] + [("model_updates", u) for u in (250, 500, 2000)]:
            sizes = {"model_width": 128, "latent": 128, "episodes": 16384, "model_updates": 1000} | {axis: level}
            width, updates = sizes["model_width"], sizes["model_updates"]
            loss = 3 * (width / 128) ** -0.3 * (updates / 1000) ** -0.6 * (1 + 0.01 * seed)
            agent = {"seed": seed, "exposure": 0.0, "head_width": 128, "head_depth": 2, **sizes}
            rho = 0.3 + 0.4 * np.log(loss) + effect * np.log10(width)
            rows.append(agent | {"family": "recurrent", "reached": 1.0, "matched": rho, "own": 1, "final": 0, "r2": 1})
            losses.append({"seed": seed, "family": "recurrent", "state": 64, **sizes, "loss": loss})
    table = pd.DataFrame(rows)
    expected = scaling.by_training(table, pd.DataFrame(losses), "model-width", 0.0, [0, 1, 2])
    matched = scaling.selected(table, "model-width", 0.0).pivot(index="seed", columns="level", values="matched")
    there = np.isfinite(expected)
    assert there.sum(1).min() >= 4 and (matched.to_numpy()[:, 0] > matched.to_numpy()[:, -1] + 0.1).all()
    beyond = np.where(there, matched.to_numpy() - expected, np.nan)
    assert np.allclose(scaling.per_decade(np.array(WIDTHS), beyond)[:, 0], effect, atol=1e-6)


def test_the_study_varies_one_axis_at_a_time():
    cells = [c for c in studies.scaling(seeds=1) if isinstance(c, config.Curve) and c.model.state]
    base = studies.PROFILES["paper"].base
    for c in cells:
        apart = [
            c.model.latent != base["latent"],
            c.model.width != base["width"],
            c.model.data.episodes != 16384,
            c.width != 128,
            c.depth != 2,
            c.model.updates != base["updates"],
        ]
        assert sum(apart) <= 1 and c.model.state == (c.model.width // 2)
    for axis in studies.AXES.values():
        found = {results.agent_columns(c)[axis.column] for c in cells}
        assert found == set(axis.levels) and len(found) >= (6 if axis.most else 4)
