"""Claims about the plan of a study: nothing is run, everything missing is counted, miniatures keep the shape."""

import json

import pandas as pd
import pytest
from click.testing import CliRunner
from conftest import tiny_cells

from vicarious import chapters, config, costs, study, training
from vicarious.cli import app
from vicarious.store import Store


def test_a_plan_counts_what_is_missing_and_stores_nothing(store):
    cells = tiny_cells(families=study.FAMILIES)
    table = costs.plan(cells, store, "cpu").set_index(["stage", "family"])
    assert table.missing.sum() == len(training.stages(cells, store)) == 1 + 3 * (1 + 2 + 2 + 1)
    assert not store.runs.exists()


def test_a_plan_leaves_out_what_is_at_hand(filled):
    store, cells = filled
    assert costs.plan(cells, store, "cpu").empty
    more = [c for c in tiny_cells(seed=999) if c.stage == "codes"]
    assert set(costs.plan(more, store, "cpu").stage) == {"model", "codes"}


def test_a_plan_extrapolates_from_miniatures_to_the_whole(store, monkeypatch):
    """Fake stages that take 2 s and 10 ms for every update or scene: the plan finds what the whole would take."""
    cells = study.reference(seeds=2, families=("recurrent",))

    def write(stages, at):
        for stage in stages:
            at.write(stage, 2 + 0.01 * costs._units(stage))

    monkeypatch.setattr(training, "make", lambda stage, at: write([stage], at))

    def work(cells, runs, data, device):
        at = Store(runs, data)
        write(training.stages(cells, at), at)

    monkeypatch.setattr(training, "work", work)
    table = costs.plan(cells, store, "cpu").set_index("stage")
    assert table.each.to_dict() == pytest.approx(
        {"battery": 4.56, "model": 32, "heads": 42, "responses": 4.56, "codes": 12}, abs=0.02
    )
    assert table["all"].to_dict() == pytest.approx((table.each * table.missing).to_dict())
    assert table.missing.to_dict() == {"battery": 1, "model": 2, "heads": 6, "responses": 6, "codes": 2}


def test_a_miniature_differs_in_length_and_in_nothing_else():
    cell = study.reference(seeds=1)[1]
    small = costs.miniature(cell, 1)
    assert small.heads.updates == cell.heads.updates // 100 and small.battery.scenes == cell.battery.scenes // 16
    assert small.heads.reward_updates == cell.heads.reward_updates // 100
    free = {"updates": True, "reward_updates": True, "model": {"updates"}}
    assert small.heads.model_dump(exclude=free) == cell.heads.model_dump(exclude=free)


def test_cells_of_one_kind_differ_in_seed_exposure_and_coupling_alone():
    one, two = (config.Heads(model=config.Model(data=config.Episodes(seed=s)), exposure=s / 2) for s in (0, 1))
    assert costs.kind(one) == costs.kind(two) != costs.kind(two.model_copy(update={"width": 64}))


def test_the_command_says_what_is_missing_and_how_long_it_takes(tmp_path, monkeypatch):
    monkeypatch.setitem(study.STUDIES, "reference", lambda *_: tiny_cells())
    monkeypatch.setattr("vicarious.training.fill", lambda *_, **__: pytest.fail("something ran"))
    env = {"VICARIOUS_HOME": str(tmp_path), "VICARIOUS_RUNS": str(tmp_path / "runs")}
    shown = CliRunner().invoke(app, ["study", "reference", "--plan", "--workers", "2"], env=env)
    assert shown.exit_code == 0 and "core-seconds" in shown.output and "on 2 processes" in shown.output
    assert "measuring a miniature" in shown.output


def test_what_was_spent_is_what_the_manifests_say(filled):
    store, cells = filled
    table = costs.spent(cells, store)
    manifests = [json.loads(path.read_text()) for path in store.runs.glob("*/manifest.json")]
    free = [m for m in manifests if m["stage"] == "model" and m["config"]["family"] != "recurrent"]
    kept = [m["seconds"] for m in manifests if m not in free]
    assert len(free) == 2
    assert table.results.sum() == len(kept) and table["all"].sum() == pytest.approx(sum(kept))


def test_the_benchmarks_table_says_of_every_bar_whether_it_was_met():
    bench = costs.benchmark()
    assert {"environment", "world model", "heads", "the study", "the book"} <= {row["group"] for row in bench["rows"]}
    for bar, shown in zip(bench["bars"], costs.bars(bench)[""], strict=True):
        assert shown == ("met" if bar["ratio"] >= bar["at_least"] else "missed")
    chapters_ = [row for row in bench["rows"] if row["group"] == costs.CHAPTERS]
    assert len(costs.rates(bench)) == len(bench["rows"]) - len(chapters_)
    assert len(costs.rendering(bench)) == len(chapters_) + 1 == len(chapters.CHAPTERS) + 1


def test_a_study_many_times_as_large_costs_as_many_times_as_much():
    spent = pd.DataFrame(
        [
            ("model", "recurrent", "cpu", 4, 3600.0, 14400.0),
            ("model", "vae", "gpu", 1, 1800.0, 1800.0),
            ("heads", "recurrent", "cpu", 10, 36.0, 360.0),
        ],
        columns=["stage", "family", "device", "results", "each", "all"],
    )
    table = costs.multiplied(spent, 100, (2, 50))
    assert table.loc["model"].tolist() == [500, 450.0, 450 / 48, 450 / 1200]
    assert table.loc["all", "results"] == 1500 and table.loc["all", "core-hours"] == pytest.approx(460)


def test_less_of_a_stage_is_expected_to_take_less():
    (quick, paper) = (study.everything(profile, 1) for profile in ("quick", "paper"))
    kinds = {(c.stage, costs.family(c)) for c in quick} & {(c.stage, costs.family(c)) for c in paper}
    assert len(kinds) > 20
    for kind in kinds:
        small, large = (
            max(training.expected(c) for c in cells if (c.stage, costs.family(c)) == kind) for cells in (quick, paper)
        )
        assert 0 < small < large or kind[0] == "foresight", kind
    usual = config.Model(data=config.Episodes(seed=0))
    for stage in (usual, config.Heads(model=usual), config.Codes(model=usual), config.Battery(), config.Returns()):
        assert training.expected(stage) == pytest.approx(training.EXPECTED[stage.stage]), "as it was measured"
    assert training.expected(usual.model_copy(update={"family": "slots"})) > 3 * training.expected(usual)
