"""Claims about studies: same seed, same numbers; stopped and resumed, same table."""

import json
import re
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_battery, tiny_cells

from vicarious import config, episodes, execute, heads, models, train
from vicarious.paper import chapters, results, site, studies
from vicarious.paper.chapters import calibration, extinction, scaling
from vicarious.store import Store

GOLDEN = Path(__file__).parent / "golden.json"


def tables(store, cells):
    return results.load(cells, store, "responses"), results.load(cells, store, "measures")


def test_same_seed_same_machine_same_tables_bit_for_bit(filled, tmp_path):
    store, cells = filled
    again = Store(tmp_path / "runs", tmp_path / "data")
    execute.fill(cells, again, workers=0, device="cpu")
    for one, two in zip(tables(store, cells), tables(again, cells), strict=True):
        pd.testing.assert_frame_equal(one, two, check_exact=True)


def test_processes_give_the_same_tables_as_one(filled, tmp_path):
    store, cells = filled
    again = Store(tmp_path / "runs", tmp_path / "data")
    assert execute.fill(cells, again, workers=2, device="cpu") == len(cells)
    assert execute.fill(cells, again, workers=2, device="cpu") == 0
    for one, two in zip(tables(store, cells), tables(again, cells), strict=True):
        pd.testing.assert_frame_equal(one, two, check_exact=True)


def test_a_stopped_study_resumes_where_it_was(filled, tmp_path, monkeypatch):
    store, cells = filled
    again = Store(tmp_path / "runs", tmp_path / "data")
    real, calls = heads.train, []

    def stops(cfgs, *args):
        calls.append(tuple(cfg.address for cfg in cfgs))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(cfgs, *args)

    monkeypatch.setattr(heads, "train", stops)
    with pytest.raises(KeyboardInterrupt):
        execute.fill(cells, again, workers=0, device="cpu")
    execute.fill(cells, again, workers=0, device="cpu")
    assert len(calls) == len(set(calls)) + 1, "only the population that was under way is trained twice"
    pd.testing.assert_frame_equal(tables(store, cells)[0], tables(again, cells)[0], check_exact=True)


def test_seeds_differ():
    one, two = (models.build(config.Model(data=config.Episodes(seed=s), latent=8, width=16)) for s in (1, 2))
    assert not torch.equal(one.encoder[0].weight, two.encoder[0].weight)


def test_the_untrained_control_is_untrained_and_the_pixels_are_the_input():
    data = episodes.collect(config.Episodes(seed=908, episodes=64))
    for family in ("untrained", "pixels"):
        cfg = config.Model(data=config.Episodes(seed=908, episodes=64), family=family, updates=3)
        trained, fresh = models.train([cfg], [data])[0][0].state_dict(), models.build(cfg).state_dict()
        assert all(torch.equal(trained[k], fresh[k]) for k in fresh)
    z = models.build(cfg).encode(data.obs, data.prev_action)
    assert torch.equal(z[..., :168], data.obs) and z.shape[-1] == 3 * (168 + 6)
    assert torch.equal(z[:, 1:, 174 : 174 + 168], data.obs[:, :-1]) and not z[:, 0, 174:].any()


def test_training_a_world_model_makes_it_see_and_predict_better():
    data = episodes.collect(config.Episodes(seed=909, episodes=512))
    cfg = config.Model(data=config.Episodes(seed=909, episodes=512), latent=32, width=64, updates=150)
    before, after = models.evaluate(models.build(cfg), data[480:]), models.train([cfg], [data])[0][1]
    assert after["reconstruction"] < 0.7 * before["reconstruction"] and after["prediction"] < 0.7 * before["prediction"]


def test_a_code_does_not_see_the_future():
    cfg = config.Episodes(seed=910, episodes=64, world=config.World(view="left"))  # in which every family can be built
    data = episodes.collect(cfg)
    for family in models.FAMILIES:
        model = models.build(config.Model(data=cfg, family=family, latent=8, width=16))
        whole, part = model.encode(data.obs, data.prev_action), model.encode(data.obs[:, :9], data.prev_action[:, :9])
        assert torch.allclose(whole[:, :9], part, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"ladder": (-1.0, -0.5, 0.0, 0.5, 1.0), "max_items": 4},
        {"view": "centred"},
        {"view": "left", "noise": 0.1},
        {"size": 4, "taste": "alien"},
    ],
    ids=str,
)
def test_every_world_goes_all_the_way(options, store):
    world = config.World(**options)
    battery = config.Battery(world=world, scenes=8, rollouts=2, levels=2)
    model = config.Model(
        data=config.Episodes(seed=912, episodes=64, frames=6, world=world), latent=8, width=8, updates=2
    )
    heads = config.Heads(model=model, kappa=0.5, exposure=1.0, width=8, updates=2, reward_updates=2, batch=8)
    cells = [battery, config.Responses(heads=heads, battery=battery)]
    execute.fill(cells, store, workers=0, device="cpu")
    table = results.load(cells[1:], store, "responses")
    assert sorted(table.valence.unique()) == sorted(world.ladder) and table["mean"].notna().all()


def test_a_battery_of_another_ladder_is_refused():
    five = config.World(ladder=(-1.0, -0.5, 0.0, 0.5, 1.0))
    model = config.Model(data=config.Episodes(seed=1, world=five))
    for stage in (lambda: config.Responses(heads=config.Heads(model=model)), lambda: config.Codes(model=model)):
        with pytest.raises(ValueError, match="different ladder"):
            stage()


def test_foresight_is_refused_where_nobody_knows_which_chamber_is_whose():
    model = config.Model(data=config.Episodes(seed=0, world=config.World(view="centred")))
    with pytest.raises(ValueError, match="allocentric"):
        config.Foresight(model=model)


def test_cuda_without_a_gpu_is_one_clear_line():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(ValueError, match="no CUDA device"):
        execute.resolve_device("cuda")
    assert execute.resolve_device("auto") == "cpu"


def test_a_calibration_shares_world_models_and_tells_its_agents_apart():
    cells = studies.calibration(seeds=2)
    heads = {c.heads for c in cells if isinstance(c, config.Responses)}
    assert {h.kappa for h in heads if h.exposure == 1} == set(studies.KAPPAS)
    planted = {h.model for h in heads if h.kappa or h.label_source != "own"}
    assert planted == {c.model for c in studies.reference(seeds=2, families=("recurrent",))[1:] if c.stage == "codes"}
    shown = [tuple(results.agent_columns(c).values()) for c in cells if type(c) is config.Responses]
    assert len(shown) == len(set(shown)), "no two agents have the same name"
    usual = studies.continuity(seeds=2)
    more = [*studies.development(seeds=2), *studies.extinction(seeds=2), *studies.scaling(seeds=2)]
    more += [*studies.generality(seeds=2), *studies.leakage(seeds=2)]
    assert set(usual) & set(cells) and set(studies.everything(seeds=2)) == {*usual, *cells, *more}


def test_only_reference_agents_are_published_with_weights():
    tables, weights = studies.publication(studies.everything(seeds=studies.WEIGHTS + 1))
    heads = [w for w in weights if isinstance(w, config.Heads)]
    swept = [w for w in heads if w.exposure or w.model.family != "recurrent"]
    assert {w.model.data.seed for w in swept} == set(range(studies.WEIGHTS)) and len(swept) == studies.WEIGHTS * 8
    assert {w.model.data.seed for w in heads} == set(range(studies.WEIGHTS))
    assert {w.data.seed for w in weights if isinstance(w, config.Model)} == set(range(studies.WEIGHTS))
    assert all(w.kappa == 0 and w.label_source == "own" and not w.model.data.world.solitary for w in heads)
    assert {c.stage for c in tables} == set(config.STAGES) - {"episodes"} and len(tables) == len(set(tables))
    assert {c.parent for c in tables if c.parent} <= {
        *tables,
        *(c.data for c in tables if isinstance(c, (config.Model, config.External))),
    } | {c.model for c in tables if hasattr(c, "model") and not models.FAMILIES[c.model.family].trained}, (
        "what a result stands on is published with it, controls that learn nothing left out"
    )


@pytest.fixture
def tiny(monkeypatch):
    """A profile of one agent, every kind of cell in miniature."""
    own = dict(
        **dict.fromkeys(("seeds", "sweep", "scaled", "views", "external", "leaking", "dials"), 1),
        families=dict.fromkeys(studies.RECIPES, 1),
        external_sizes={"steps": 200, "worlds": 4},
        data={"episodes": 128, "frames": 8},
        model={"latent": 8, "width": 16, "updates": 5},
        heads={"width": 8, "updates": 5, "reward_updates": 5, "batch": 16},
        codes={"width": 8, "fit_scenes": 64, "updates": 20},
        battery={"scenes": 32, "rollouts": 4, "levels": 5},
        surface={"scenes": 8},
        simulations={"studies": 10, "agents": (10,), "resamples": 99},
        shapes={"studies": 10, "curves": 4},
        past={"ends": 2, "between": 1, "withheld": 1},
        base={"latent": 8, "width": 16, "state": 8, "updates": 5},
        curve={"width": 8, "updates": 6, "batch": 16, "checkpoints": 4},
        levels={"latent": (4, 8), "model-width": (8, 16), "head-width": (4, 8), "head-depth": (1, 2)}
        | {"data": (64, 128), "training": (3, 5)},
    )
    sizes = SimpleNamespace(**(vars(studies.PROFILES["paper"]) | own))
    monkeypatch.setitem(studies.PROFILES, "tiny", sizes)


def test_cells_of_continuity_are_filled_once_and_read_back(tiny, store):
    cells = studies.continuity("tiny", exposure=0.5, levels=5)
    kinds = pd.Series([c.stage for c in cells]).value_counts()
    assert kinds.to_dict() == {"responses": 8, "surface": 8, "codes": 3, "interventions": 3, "battery": 1, "shapes": 1}
    assert execute.fill(cells, store, workers=0, device="cpu") == len(cells)
    assert execute.fill(cells, store, workers=0, device="cpu") == 0 and results.at_hand(cells, store) == cells
    found = results.gather(cells, store, exposure=0.5)
    dose, curve = found.curve("value", [0], "pixels")
    assert dose.tolist() == pytest.approx([0, 22.5, 45, 67.5], abs=0.01) and curve.shape == (1, 4)
    alpha, moved = found.moved("value", [0], "whole", family="pixels")
    assert alpha.tolist() == [0, 0.25, 0.5, 0.75, 1] and moved.shape == (1, 5) and np.isfinite(moved).all()
    assert moved[0, 0] == pytest.approx(found.rho("value", [0], "pixels")[0], abs=1e-3), "not moved is as it was"


def test_cells_of_development_and_extinction_are_filled_once_and_read_back(tiny, store):
    cells = list(dict.fromkeys([*studies.development("tiny"), *studies.extinction("tiny")]))
    kinds = pd.Series([c.stage for c in cells]).value_counts()
    assert kinds.to_dict() == {"extinction": 14, "joint": 3, "codes": 3, "battery": 2, "responses": 1}
    assert execute.fill(cells, store, workers=0, device="cpu") == len(cells)
    assert execute.fill(cells, store, workers=0, device="cpu") == 0
    found = results.gather(cells, store)
    assert {0, 1, 2} == set(found.measures[found.measures.measure == "auc"].stop)
    assert set(found.table("development").family) == set(studies.REFERENCE)
    assert set(found.table("development").exposure) == {0.0, 1.0}
    assert set(found.table("extinction").exposure) == set(studies.SWITCHED)
    assert set(found.table("extinction").readout) == {"reward", "value"}
    updates, rho = extinction.after(found, [0], 1.0)
    assert updates[-1] == 10 and np.isfinite(rho).all()
    assert rho[0, 0] == pytest.approx(found.rho("reward", [0])[0], abs=1e-3), "it starts from the published head"
    manifests = [store.read(c.address).manifest for c in cells if c.stage == "extinction"]
    assert {m["split"]["withheld"] for m in manifests} == {"nothing", *studies.WITHHELD}
    assert all(m["split"]["withheld_contacts"] > 0 for m in manifests if m["split"]["withheld"] != "nothing")


def test_cells_of_scaling_are_filled_once_and_read_back(tiny, store):
    cells = studies.scaling("tiny", more={"latent": (6,)})
    kinds = pd.Series([c.stage for c in cells]).value_counts()
    assert kinds.to_dict() == {"curve": 1 + 2 + 1 + 1 + 1 + 2 + 1 + 4, "codes": 6, "battery": 1}
    assert execute.fill(cells, store, workers=0, device="cpu") == len(cells)
    assert execute.fill(cells, store, workers=0, device="cpu") == 0
    found = results.gather(cells, store)
    table = scaling.outcomes(found, bar=-9.0)
    assert scaling.base(table) == {
        "model_width": 16, "latent": 8, "head_width": 8, "head_depth": 2, "episodes": 128, "model_updates": 5,
    }  # fmt: skip
    assert list(scaling.along(found, table, "latent", 0.1).levels) == [4, 6, 8]
    for axis in ("head-width", "head-depth", "data"):
        one = scaling.along(found, table, axis, 0.0, "pixels")
        assert len(one.levels) == 2 and np.isfinite(one.final).all() and np.isnan(one.auc).all()
    assert np.isfinite(scaling.along(found, table, "training", 0.0).auc).all()
    losses = results.model_losses(cells, store)
    assert len(losses) == 7 and losses.loss.notna().all(), "the models of six sizes, and one as others are trained"
    sizes = {c.model: models.parameters(c.model) for c in cells if c.stage == "curve"}
    assert {n for model, n in sizes.items() if model.family == "pixels"} == {0}
    price = site.larger(cells, store, times=(1, 10))
    largest = max(sizes, key=sizes.get)
    assert price.parameters.tolist() == [sizes[largest], 10 * sizes[largest]]
    frames = {m: m.updates * m.batch * m.data.frames for m, n in sizes.items() if n == sizes[largest]}
    each = np.median([store.read(m.address).manifest["seconds"] / n for m, n in frames.items()])
    assert len(set(frames.values())) > 1, "of one size, trained for longer and shorter"
    assert price.core_hours[0] == pytest.approx(each * max(frames.values()) / 3600)
    assert price.core_hours[1] == pytest.approx(10 * price.core_hours[0])
    assert price.scaled_hours[1] == pytest.approx(100 * price.scaled_hours[0])
    assert price.operations[0] == pytest.approx(6 * sizes[largest] * max(frames.values())), "Kaplan et al.: 6 N D"


def test_scenes_shown_while_learning_have_a_yardstick_of_their_own(tiny, store):
    """Two batteries at hand must not be averaged into one truth."""
    usual, other = studies.reference("tiny", families=("recurrent",)), config.Battery(scenes=16, rollouts=4, levels=3)
    cells = [*usual, other, config.Joint(model=usual[1].find(config.Model), battery=other, checkpoints=3)]
    execute.fill(cells, store, workers=0, device="cpu")
    both, alone = (results.gather(some, store) for some in (cells, usual))
    true = [e.coefficients.drop_duplicates(["readout", "kind"]).true_slope.to_numpy() for e in (both, alone)]
    assert np.array_equal(*true)
    value = both.table("development").query("readout == 'value'").drop_duplicates("kind").set_index("kind").true_slope
    known = both.coefficients[both.coefficients.readout == "value"].drop_duplicates("kind").set_index("kind").true_slope
    assert not np.allclose(value, known[value.index]), "other scenes have other values"


def test_only_a_sweeps_seeds_meet_other_exposures(monkeypatch):
    cells = studies.reference(seeds=studies.PROFILES["paper"].sweep + 2)
    met = pd.DataFrame([results.agent_columns(c) for c in cells if isinstance(c, config.Responses)])
    met = met.groupby(["family", "exposure"]).seed.nunique()
    assert met["recurrent"].to_dict() == {0.0: 22, 0.1: 20, 1.0: 20}
    assert met["pixels"].to_dict() == met["untrained"].to_dict() == {0.0: 22, 0.1: 5, 1.0: 5}
    assert {c.heads.exposure for c in studies.reference(seeds=22, exposures=(0.3,)) if hasattr(c, "heads")} == {0.3}


def test_calibrating_cells_are_filled_once_and_read_back(tiny, tmp_path, monkeypatch):
    """The whole calibration in miniature: every kind of cell is computed, and a second time nothing is."""
    store, cells = Store(tmp_path / "runs", tmp_path / "data"), studies.calibration("tiny")
    assert execute.fill(cells, store, workers=0, device="cpu") == len(cells)
    assert execute.fill(cells, store, workers=0, device="cpu") == 0 and results.at_hand(cells, store) == cells
    found = results.gather(cells, store)
    assert set(found.gates.family) == {"recurrent", "oracle", "disjoint", "shuffled", "uneventful", "solitary"}
    scored = calibration.set_scores(found.table("precision"), 0.5)
    assert len(scored) == 7 * 4 * 2 * 2 and scored.rho.notna().all()
    assert not chapters.calibrated("tiny", store), "one agent calibrates nothing"
    monkeypatch.setattr(calibration, "calibrated", lambda e: True)
    assert chapters.calibrated("tiny", store)


def test_the_arithmetic_of_no_stage_changed_without_its_epoch():
    """If this fails, a stage computes something else than before: raise its `epoch` in config.py, and renew golden.json
    with `python tests/test_study.py`."""
    found = golden()
    known = json.loads(GOLDEN.read_text())
    assert {k: v["epoch"] for k, v in found.items()} == {k: v["epoch"] for k, v in known.items()}, "renew golden.json"
    for stage, entry in known.items():
        close = 5e-3 if stage in ("codes", "identity") else 1e-5  # decoders and probes train for long
        assert found[stage]["values"] == pytest.approx(entry["values"], rel=close, abs=close), stage


def golden() -> dict:
    """A few numbers of every stage of a tiny agent."""
    import tempfile

    cells = tiny_cells(seed=911, exposures=(0.0,))
    small = {"heads": cells[1].heads, "battery": tiny_battery()}
    more = {
        "surface": config.Surface(**small, scenes=8, tastes=("shared",)),
        "interventions": config.Interventions(**small),
        "shapes": studies.Shapes(curves=5, studies=10, noise=(0.1,)),
        "returns": config.Returns(battery=tiny_battery()),
        "precision": config.Precision(heads=cells[1].heads, battery=tiny_battery(), sets=2),
        "identity": config.Identity(
            model=cells[1].find(config.Model), battery=tiny_battery(), width=8, fit_scenes=64, updates=100
        ),
        "simulations": studies.Simulations(studies=20, agents=(10,), resamples=199),
        "joint": config.Joint(model=cells[1].find(config.Model), battery=tiny_battery(), checkpoints=3, width=8),
        "extinction": config.Extinction(heads=cells[1].heads, battery=tiny_battery(), exposure=1.0, past=2),
        "decoupling": config.Decoupling(heads=cells[1].heads, battery=tiny_battery(), past=2),
        "imagined": config.Imagined(**small),
        "foresight": config.Foresight(model=cells[1].find(config.Model), episodes=128),
        "curve": config.Curve(
            model=cells[1].find(config.Model), battery=tiny_battery(), checkpoints=3, width=8, updates=6
        ),
        "outsider": config.External(
            data=cells[1].find(config.Model).data, algorithm="ppo", steps=200, worlds=4, battery=tiny_battery()
        ),
    }
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("VICARIOUS_PRECISION", "fp32")  # the precision that every machine has
        store = Store(Path(folder) / "runs", Path(folder) / "data")
        execute.fill([*cells, *more.values()], store, workers=0, device="cpu")
        model, heads = cells[1].find(config.Model), cells[1].heads
        data = episodes.collect(model.data)
        numbers = {
            "episodes": [data.obs.double().mean(), data.contact.double().mean(), data.prev_action.double().std()],
            "battery": store.read(tiny_battery().address).tables["responses"]["mean"][::7],
            "model": [p.double().abs().sum() for p in store.read(model.address).weights.values()],
            "heads": [p.double().abs().sum() for p in store.read(heads.address).weights.values()],
            "responses": store.read(cells[1].address).tables["responses"]["mean"][::29],
            "codes": store.read(cells[2].address).tables["measures"].query("mover != 'drifter'")["value"],
            "returns": store.read(more["returns"].address).tables["returns"]["mean"][::29],
            "precision": store.read(more["precision"].address).tables["precision"]["slope"][::41],
            "identity": store.read(more["identity"].address).tables["identity"]["share_self"][::3],
            "surface": store.read(more["surface"].address).tables["surface"]["slope"][::5],
            "interventions": store.read(more["interventions"].address).tables["interventions"]["slope"][::17],
            "shapes": store.read(more["shapes"].address).tables["shapes"]["rate"],
            "simulations": store.read(more["simulations"].address).tables["simulations"]["rate"],
            "joint": store.read(more["joint"].address).tables["development"]["slope"][::31],
            "extinction": store.read(more["extinction"].address).tables["extinction"]["slope"][::7],
            "decoupling": store.read(more["decoupling"].address).tables["decoupling"]["slope"][::7],
            "imagined": store.read(more["imagined"].address).tables["imagined"]["slope"][::2],
            "foresight": store.read(more["foresight"].address).tables["foresight"]["value"],
            "outsider": store.read(more["outsider"].address).tables["outsiders"]["slope"][::5],
            "curve": store.read(more["curve"].address).tables["curves"]["slope"][::3],
        }
    return {k: {"epoch": config.STAGES[k].epoch, "values": [round(float(x), 6) for x in v]} for k, v in numbers.items()}


def test_without_a_terminal_progress_is_a_line_now_and_then(tmp_path, capsys, monkeypatch):
    """On any output: also while a single long training is under way in this very process."""
    monkeypatch.setattr(execute, "EVERY", 0.1)
    real = models.train
    monkeypatch.setattr(models, "train", lambda *args, **how: (time.sleep(0.5), real(*args, **how))[1])
    execute.fill(tiny_cells(), Store(tmp_path / "runs", tmp_path / "data"), workers=0, device="cpu")
    told = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"\d+ results are missing, [\d,]+ core-seconds: about \d+ s on 1 process here", told[0])
    assert len(told) > 3 and all(re.fullmatch(r"\d+ of \d+ results, about \d+ s left", line) for line in told[1:])


if __name__ == "__main__":
    with train.one_thread():
        GOLDEN.write_text(json.dumps(golden(), indent=1) + "\n")
