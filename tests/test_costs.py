"""Claims about what a study costs: everything missing is counted, and expected by what the published results took."""

import json

import pandas as pd
import pytest
from click.testing import CliRunner
from conftest import tiny_study

from vicarious import config, execute, pipeline
from vicarious.cli import app
from vicarious.paper import site, studies
from vicarious.store import Store


def test_a_plan_counts_what_is_missing_and_stores_nothing(store):
    runs = tiny_study(families=("cells/gru", "flat/gru", "pixels"))
    table = execute.Costs(store).plan(pipeline.needed(runs, store))
    assert table.missing.sum() == len(pipeline.needed(runs, store)) == 1 + 3 * (1 + 2 + 2 + 1)
    assert not store.runs.exists()


def test_a_plan_leaves_out_what_is_at_hand(filled):
    store, runs = filled
    assert not pipeline.needed(runs, store)
    more = [run for run in tiny_study(seed=999) if run.stage == "codes"]
    assert set(execute.Costs(store).plan(pipeline.needed(more, store)).stage) == {"model", "codes"}


def published(tmp_path, seconds):
    """A store that publishes heads of two lengths, which took so long for every update."""
    store = Store(tmp_path / "runs", tmp_path / "data")
    model = config.Model(data=config.Episodes(seed=0))
    runs = [
        config.Heads(model=model, company=p, updates=n, reward_updates=n) for p in (0.0, 0.5, 1.0) for n in (10, 40)
    ]
    for run in runs:
        store.write(run, seconds(run), device="cpu")
    store.publish(runs, [])
    return store, runs


def test_expected_seconds_are_the_published_ones_over_the_extent_whatever_the_seed(tmp_path, monkeypatch):
    store, runs = published(tmp_path, lambda run: 0.1 * (run.updates + run.reward_updates))
    costs = execute.Costs(store)
    for run in runs:
        assert costs.expected(run) == pytest.approx(0.1 * (run.updates + run.reward_updates), rel=1e-2)
    other = config.Heads(
        model=config.Model(data=config.Episodes(seed=7), family="vae"), updates=400, reward_updates=600
    )
    assert costs.expected(other) == pytest.approx(100, rel=1e-2), "of another family, by those of the same stage"
    assert costs.expected(config.Codes(model=other.model)) == 1, "nothing like it is published"
    monkeypatch.setattr(execute.Costs, "pace", 3.0)
    assert costs.plan([other])["all"].sum() == pytest.approx(300, rel=1e-2), (
        "on a machine that takes three times as long"
    )


def test_one_slow_result_does_not_change_what_is_expected(tmp_path):
    store, runs = published(tmp_path, lambda run: 1000.0 if run.company == 1 and run.updates == 10 else run.updates)
    assert execute.Costs(store).expected(runs[0]) == pytest.approx(10, rel=1e-2)


def test_what_the_published_results_took_is_foretold_by_the_others():
    """Sums over a stage and family are within a quarter, medians exact by construction; single ones differ."""
    store = Store()
    costs, rows = execute.Costs(store), []
    for address, made in store.published["results"].items():
        run = config.STAGES[made["stage"]].from_columns(store.manifest(address)[0]["config"])
        rows.append((run.stage, costs.expected(run), made["seconds"]))
    table = pd.DataFrame(rows, columns=["stage", "expected", "seconds"])
    long = table[table.stage.isin(["model", "heads", "codes", "interventions"])].groupby("stage").sum()
    assert ((long.expected / long.seconds - 1).abs() < 0.25).all()


def test_the_command_says_what_is_missing_and_how_long_it_takes(tmp_path, monkeypatch):
    monkeypatch.setitem(studies.STUDIES, "reference", lambda *_: tiny_study())
    monkeypatch.setattr("vicarious.execute.fill", lambda *_, **__: pytest.fail("something ran"))
    env = {"VICARIOUS_HOME": str(tmp_path), "VICARIOUS_RUNS": str(tmp_path / "runs")}
    shown = CliRunner().invoke(app, ["study", "reference", "--plan", "--workers", "2"], env=env)
    assert shown.exit_code == 0 and "core-seconds" in shown.output and "on 2 processes" in shown.output


def test_what_was_spent_is_what_the_manifests_say(filled):
    store, cells = filled
    table = site.spent(cells, store)
    manifests = [json.loads(path.read_text()) for path in store.runs.glob("*/manifest.json")]
    free = [m for m in manifests if m["stage"] == "model" and m["config"]["model.family"] != "cells/gru"]
    kept = [m["seconds"] for m in manifests if m not in free]
    assert len(free) == 2
    assert table.results.sum() == len(kept) and table["all"].sum() == pytest.approx(sum(kept))


def test_the_benchmarks_table_says_of_every_bar_whether_it_was_met():
    bench = site.benchmark()
    assert {"environment", "world model", "heads", "the study", "the book"} <= {row["group"] for row in bench["rows"]}
    for bar, shown in zip(bench["bars"], site.bars(bench)[""], strict=True):
        assert shown == ("met" if bar["ratio"] >= bar["at_least"] else "missed")
    chapters_ = [row for row in bench["rows"] if row["group"] == site.ONE_CHAPTER]
    assert len(site.rates(bench)) == len(bench["rows"]) - len(chapters_)


def test_a_study_many_times_as_large_costs_as_many_times_as_much():
    spent = pd.DataFrame(
        [
            ("model", "cells/gru", "cpu", 4, 3600.0, 14400.0),
            ("model", "vae", "gpu", 1, 1800.0, 1800.0),
            ("heads", "cells/gru", "cpu", 10, 36.0, 360.0),
        ],
        columns=["stage", "family", "device", "results", "each", "all"],
    )
    table = site.multiplied(spent, 100, (2, 50))
    assert table.loc["model"].tolist() == [500, 450.0, 450 / 48, 450 / 1200]
    assert table.loc["all", "results"] == 1500 and table.loc["all", "core-hours"] == pytest.approx(460)


def test_less_of_a_stage_is_expected_to_take_less():
    costs = execute.Costs(Store())
    (quick, paper) = (studies.everything(profile, 1) for profile in ("quick", "paper"))
    kinds = {(c.stage, execute.family(c)) for c in quick} & {(c.stage, execute.family(c)) for c in paper}
    assert len(kinds) > 15
    for kind in kinds:
        small, large = (
            max(costs.expected(c) for c in runs if (c.stage, execute.family(c)) == kind) for runs in (quick, paper)
        )
        fixed = kind[0] in ("foresight", "ordinary", "encoding", "learner", "predictions")
        fixed |= kind[1] in (*studies.INPUTS, *studies.PRIVILEGED)
        assert 0 < small < large or fixed, kind
