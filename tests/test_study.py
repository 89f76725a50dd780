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
from conftest import tiny_battery, tiny_model, tiny_study

from vicarious import config, episodes, execute, heads, metrics, models, train, world
from vicarious.paper import chapters, results, sentences, studies
from vicarious.paper.chapters import calibration, continuity, misgeneralisation
from vicarious.pipeline import Workspace
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
    one, two = (models.build(tiny_model(seed)) for seed in (1, 2))
    assert not torch.equal(one.encoder.content.weight, two.encoder.content.weight)


def test_pixels_are_the_input_and_the_two_frames_before_it():
    data = episodes.collect(config.Episodes(seed=908), count=64)
    z = models.build(config.Model(data=config.Episodes(seed=908), family="pixels")).encode(data.obs, data.prev_action)
    n = data.obs.shape[-1]
    assert torch.equal(z[..., :n], data.obs) and z.shape[-1] == 3 * (n + 6)
    assert torch.equal(z[:, 1:, n + 6 : 2 * n + 6], data.obs[:, :-1]) and not z[:, 0, n + 6 :].any()


def test_training_a_world_model_makes_it_see_and_foresee_better():
    cfg = config.Model(data=config.Episodes(seed=909), latent=32, width=64, updates=200)
    before, ((model, after),) = models.evaluate(cfg, models.build(cfg)), models.train([cfg])
    assert after["reconstruction"] < 0.7 * before["reconstruction"] and after["prediction"] < 0.7 * before["prediction"]
    table = models.foresight(config.Foresight(model=cfg, episodes=512), model).set_index("measure")["value"]
    fresh = models.foresight(config.Foresight(model=cfg, episodes=512), models.build(cfg)).set_index("measure")["value"]
    assert table["informed"] < 0.12 < 0.8 < table["aimless"] == fresh["aimless"]
    assert table["place"] < fresh["place"] and table["stays_all"] < table["aimless"]


def test_a_code_does_not_see_the_future():
    cfg = config.Episodes(seed=910, world=config.World(marked=True))  # in which every family can be built
    data = episodes.collect(cfg, count=64)
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
    model = config.Model(data=config.Episodes(seed=912, frames=6, world=world), latent=8, width=8, updates=2)
    sizes = {"episodes": 128, "width": 8, "updates": 2, "reward_updates": 2, "batch": 8}
    heads = config.Heads(model=model, kappa_gain=0.5, company=1.0, **sizes)
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


def test_everything_is_all_studies_and_no_run_twice():
    runs = studies.everything(seeds=2)
    assert len(runs) == len(set(runs))
    assert set(runs) == {run for study in studies.STUDIES.values() for run in study(seeds=2)}
    seeds = {results.agent_columns(run)["seed"] for run in runs} - {-1}
    assert seeds == {studies.FIRST, studies.FIRST + 1}, "none that was trained before the rules were fixed"


def test_every_variant_is_told_from_the_reference_and_by_its_own_name():
    build = studies.Build(studies.PROFILES["paper"])
    for name in ("reference", *studies.VARIANTS):
        assert results.variant(build.model(100, "cells/gru", name)) == name
    assert build.model(100, "cells/gru", "end_to_end").data.distinct == config.Heads.model_fields["episodes"].default


def test_heads_of_a_sweeps_seeds_meet_every_company_and_those_of_others_none():
    runs = studies.reference(seeds=studies.PROFILES["paper"].sweep + 2)
    met = pd.DataFrame([results.agent_columns(c) for c in runs if isinstance(c, config.Responses)])
    met = met.groupby(["family", "company"]).seed.nunique()
    more = studies.PROFILES["paper"].sweep
    for family in studies.ENCODERS:
        assert met[family].to_dict() == {0.0: more + 2} | dict.fromkeys(studies.COMPANY[1:], more)


def test_only_reference_agents_raised_alone_or_with_everybody_are_published_with_weights():
    tables, weights = studies.publication(studies.everything(seeds=studies.WEIGHTS + 1))
    heads_ = [w for w in weights if isinstance(w, config.Heads)]
    assert {(w.model.family, w.company) for w in heads_} == {(f, p) for f in studies.ENCODERS for p in (0.0, 1.0)}
    swept = min(studies.WEIGHTS, studies.PROFILES["paper"].sweep)
    assert len(heads_) == len(studies.ENCODERS) * (studies.WEIGHTS + swept)
    assert all(w.kappa_gain == 0 and w.others == "all" and results.variant(w.model) == "reference" for w in heads_)
    assert len(tables) == len(set(tables))


@pytest.fixture
def tiny(monkeypatch):
    """A profile of one agent, every kind of run in miniature."""
    own = {
        **dict.fromkeys(("seeds", "sweep", "few"), 1),
        "model": {"latent": 8, "width": 16, "updates": 5},
        "heads": {"episodes": 256, "width": 8, "updates": 5, "reward_updates": 5, "batch": 16},
        "codes": {"width": 8, "fit_scenes": 64, "updates": 20},
        "battery": {"scenes": 16, "rollouts": 4, "levels": 11},
        "simulations": {"studies": 10, "agents": (10,), "resamples": 99},
    }
    sizes = SimpleNamespace(**(vars(studies.PROFILES["paper"]) | own))
    monkeypatch.setitem(studies.PROFILES, "tiny", sizes)


def test_all_runs_are_computed_once_and_read_back(tiny, store, monkeypatch):
    """The whole study in miniature, and everything that the rules ask of it."""
    made_up = torch.randn(len(sentences.table()), 8, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(sentences, "encode", lambda _: made_up.half())
    runs = studies.everything("tiny")
    assert execute.fill(runs, store, workers=0, device="cpu") == len(runs)
    assert execute.fill(runs, store, workers=0, device="cpu") == 0
    assert set(results.at_hand(runs, store)) == set(runs)
    found, seed = results.gather(runs, store), [studies.FIRST]
    assert set(found.gates.variant) == {"reference", *studies.VARIANTS}
    assert set(found.gates.family) == {*studies.ENCODERS, *studies.INPUTS, *studies.PRIVILEGED}
    for prediction in (p for p in chapters.PREDICTIONS if p.live):
        for criterion in prediction.criteria:
            units = 1 if prediction.unit == "agent" else len(sentences.others())
            assert criterion.values(found, seed).shape[0] == units, prediction.id
    for family in studies.ENCODERS:
        start = found.moved("value", seed, "whole", family)[1][:, 0]
        assert np.isfinite(start).all() and np.isfinite(found.foreseen(seed, family)).all()
        route = misgeneralisation.second_route(found, "reward", family)
        assert len(route) == 11 and route.rho.notna().all()
    fine = found.curve("reward", seed, "cells/gru", "fine")[0]
    assert len(fine) == studies.FINE - 1
    head = next(run.heads for run in runs if isinstance(run, config.Interventions) and run.heads.company == 0)
    dose, slopes = continuity.scene_curves(Workspace(store), head, runs[0], "reward", count=16)
    ours = found.curve("reward", seed, head.model.family, "fine")
    true = found.coefficients.query("readout == 'reward' and kind == 'empathy'").true_slope.iloc[0]
    assert dose == pytest.approx(ours[0], abs=0.02) and slopes.mean(0) / true == pytest.approx(ours[1][0], abs=1e-4)
    cells = found.cells()
    assert len(cells) == len(found.gates.drop_duplicates(metrics.AGENT[1:])) and cells.agents.eq(1).all()
    asked = found.cells(company=0.0, others="all", rewards="own").droplevel("p")
    assert asked.foresight.notna()[[(f, v) for f in studies.ENCODERS for v in ("reference", "solitary")]].all()
    assert asked.identity.notna()[[(f, v) for f in studies.ENCODERS for v in ("reference", "untrained")]].all()
    assert len(chapters.head_notes("tiny", store)) == 4
    table = calibration.silence(found)
    assert set(table.control) == {"shuffled rewards, cells/gru", "shuffled rewards, flat/gru", "oracle", "disjoint"}
    assert (
        table.estimate.notna().all()
        and calibration.told(found, store.read(config.Returns(battery=runs[0]).address).tables["returns"])
        .estimate.notna()
        .all()
    )


def test_heads_whose_self_is_always_on_the_left_are_raised_and_shown_so(store):
    """Over the usual world model, whose own chamber was either: where no reward of its own was ever met, it is told."""
    battery, cfg = tiny_battery(), tiny_study(seed=913, company=(0.0,))[1].heads
    left = cfg.model_copy(update={"place": "left"})
    assert left.model == cfg.model and left.data.world.view == "left" and left.data != cfg.data
    obs = episodes.collect(left.data).obs.unflatten(-1, (*world.grid(left.data.world), -1))
    own = world.appearance(left.data.world, left.data.seed).axes[0]
    assert ((obs[..., : left.data.world.size, : len(own)] @ own) > 0.99).flatten(2).any(-1).all(), "the self"
    lab = Workspace(store)
    usual, shown = (lab.codes(cfg.model, battery, c.data) for c in (cfg, left))
    side = lab.scenes(battery)[0].side.bool()  # where the mover's chamber is drawn
    for mover, on_the_right in (("self", side), ("other", ~side)):
        before, after = usual[mover, 1.0], shown[mover, 1.0]
        assert torch.equal(before[:, :, ~on_the_right], after[:, :, ~on_the_right])
        assert not torch.equal(before[:, :, on_the_right], after[:, :, on_the_right])


def test_the_arithmetic_of_no_stage_changed_without_its_epoch():
    """If this fails, a stage computes something else than before: raise its `epoch` in config.py, and renew golden.json
    with `python tests/test_study.py`."""
    found = golden()
    known = json.loads(GOLDEN.read_text())
    assert {k: v["epoch"] for k, v in found.items()} == {k: v["epoch"] for k, v in known.items()}, "renew golden.json"
    for stage, entry in known.items():
        close = 5e-3 if stage == "codes" else 1e-5  # decoders and probes train for long
        assert found[stage]["values"] == pytest.approx(entry["values"], rel=close, abs=close), stage


def golden() -> dict:
    """A few numbers of every stage of a tiny agent."""
    import tempfile

    cells = tiny_study(seed=911, company=(0.0,))
    small, model = {"heads": cells[1].heads, "battery": tiny_battery()}, cells[1].heads.model
    more = {
        "interventions": config.Interventions(**small),
        "ordinary": config.Ordinary(**small, episodes=512),
        "returns": config.Returns(battery=tiny_battery()),
        "simulations": studies.Simulations(studies=20, agents=(10,), resamples=199),
        "foresight": config.Foresight(model=model, episodes=128),
        "learner": sentences.Learner(encoding=sentences.Encoding(encoder="words", layer=0), seed=911, updates=20),
        "outsider": config.External(data=model.data, algorithm="ppo", steps=200, worlds=4, battery=tiny_battery()),
    }
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("VICARIOUS_PRECISION", "fp32")  # the precision that every machine has
        store = Store(Path(folder) / "runs", Path(folder) / "data")
        execute.fill([*cells, *more.values()], store, workers=0, device="cpu")
        heads = cells[1].heads
        data = episodes.collect(model.data, count=128)
        numbers = {
            "episodes": [data.obs.double().mean(), data.contact.double().mean(), data.prev_action.double().std()],
            "battery": store.read(tiny_battery().address).tables["responses"]["mean"][::7],
            "model": [p.double().abs().sum() for p in store.read(model.address).weights.values()],
            "heads": [p.double().abs().sum() for p in store.read(heads.address).weights.values()],
            "responses": store.read(cells[1].address).tables["responses"]["mean"][::29],
            "codes": store.read(cells[2].address).tables["measures"].query("mover != 'drifter'")["value"],
            "returns": store.read(more["returns"].address).tables["returns"]["mean"][::29],
            "ordinary": store.read(more["ordinary"].address).tables["ordinary"]["slope"][::3],
            "interventions": store.read(more["interventions"].address).tables["interventions"]["slope"][::17],
            "simulations": store.read(more["simulations"].address).tables["simulations"]["rate"],
            "foresight": store.read(more["foresight"].address).tables["foresight"]["value"],
            "outsider": store.read(more["outsider"].address).tables["outsiders"]["slope"][::5],
            "learner": store.read(more["learner"].address).tables["language"]["good"].dropna()[::29],
        }
    return {k: {"epoch": config.STAGES[k].epoch, "values": [round(float(x), 6) for x in v]} for k, v in numbers.items()}


def test_without_a_terminal_progress_is_a_line_now_and_then(tmp_path, capsys, monkeypatch):
    """On any output: also while a single long training is under way in this very process."""
    monkeypatch.setattr(execute, "EVERY", 0.1)
    real = models.train
    monkeypatch.setattr(models, "train", lambda *args, **how: (time.sleep(0.5), real(*args, **how))[1])
    execute.fill(tiny_study(), Store(tmp_path / "runs", tmp_path / "data"), workers=0, device="cpu")
    told = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"\d+ results are missing, [\d,]+ core-seconds: about \d+ s on 1 process here", told[0])
    assert len(told) > 3 and all(re.fullmatch(r"\d+ of \d+ results, about \d+ s left", line) for line in told[1:])


if __name__ == "__main__":
    with train.one_thread():
        GOLDEN.write_text(json.dumps(golden(), indent=1) + "\n")
