"""Claims about the benchmark's harness; `make bench` itself takes minutes and other libraries."""

import json

import bench
import pytest
import torch

from vicarious import models
from vicarious.paper import site, studies


def contender(name, rate, package=None):
    """Does `rate` units of work in no time that could be told apart."""

    def make():
        if rate is None:
            raise ImportError("no such module")
        return lambda: rate

    return bench.Contender("group", name, "units/s", make, package)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(bench.pipeline, "missing", lambda *_: [])
    monkeypatch.setattr(bench, "ROUND_SECONDS", 0.001)
    monkeypatch.setattr(bench, "ROUNDS", 3)


def test_a_peer_that_cannot_be_run_is_named_and_the_table_stays(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench, "CONTENDERS", [contender("ours", 10.0), contender("theirs", None, "jaxmarl")])
    monkeypatch.setattr(bench, "one_seed", list)
    monkeypatch.setattr(bench, "rendering", list)
    monkeypatch.setattr(bench, "profile", lambda _: {})
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    monkeypatch.setattr("sys.argv", ["bench.py"])
    assert bench.main() == 1
    assert "theirs could not be run (ImportError: no such module)" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["_build"]


def test_what_was_measured_is_told_and_kept_when_it_is_stopped(monkeypatch, tmp_path, capsys):
    class Stops(list):
        def __call__(self):
            self.append(1)
            if len(self) > 4:
                raise KeyboardInterrupt
            return 1.0

    stops = Stops()
    first = bench.Contender("one", "ours", "units/s", lambda: lambda: 10.0)
    monkeypatch.setattr(bench, "CONTENDERS", [first, bench.Contender("two", "stops", "units/s", lambda: stops)])
    monkeypatch.setattr(bench, "ROUND_SECONDS", 0.0)
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    monkeypatch.setattr("sys.argv", ["bench.py"])
    with pytest.raises(KeyboardInterrupt):
        bench.main()
    kept = json.loads((tmp_path / "_build" / "bench.json").read_text())["rows"]
    assert [(row["group"], row["name"]) for row in kept] == [("one", "ours"), ("two", "stops")]
    told = capsys.readouterr().out
    assert "one: ours, warm:" in told and "one: round 3 of 3" in told and "two: round 2 of 3" in told


def test_what_is_broken_of_our_own_is_not_taken_for_a_missing_peer():
    with pytest.raises(ImportError):
        bench.race([contender("ours", None)])


def test_contenders_take_turns_and_ratios_are_within_rounds():
    order = []

    def make(name):
        return lambda: lambda: order.append(name) or 1.0

    pair = [bench.Contender("group", name, "units/s", make(name)) for name in "ab"]
    rates, failed = bench.race(pair)
    assert not failed and {len(r) for r in rates.values()} == {3}
    timed = [name for i, name in enumerate(order[4:]) if i == 0 or name != order[4:][i - 1]]
    assert timed == list("ababab")


@pytest.mark.parametrize("family", studies.ENCODERS)
def test_the_floor_does_the_products_of_an_update_and_no_others(family):
    """Counted by PyTorch itself over the forward and backward pass of a world model's losses."""
    from torch.utils.flop_counter import FlopCounterMode

    model, data = models.build(bench.recipe(family)), bench.corpus()[: bench.BATCH]
    with FlopCounterMode(display=False) as update:
        sum(model.losses(data.obs, data.prev_action).values()).mean().backward()
    floor = bench.model_floor(family, torch.float32)
    with FlopCounterMode(display=False) as counted:
        floor()
    assert counted.get_total_flops() == pytest.approx(update.get_total_flops(), rel=1e-6)


def test_a_study_that_grows_says_what_it_took(tmp_path):
    took = [bench.grown(tmp_path / str(n), dict.fromkeys(bench.SIZES, 1) | {"scenes": 32, "levels": n}) for n in (2, 4)]
    assert took[0]["files"] == took[1]["files"] and took[0]["MB"] < took[1]["MB"], "levels make no more results"
    rows = [{"axis": "", "times": 1, **bench.SIZES, **took[0]}]
    rows += [{"axis": axis, "times": 2, **bench.SIZES, **took[1]} for axis in bench.SIZES]
    table = site.growth({"growth": rows})
    assert table.index[0] == "2 agents, 128 scenes, 6 levels, 2 companies" and "2 times the agents" in table.index
    assert set(table["files"].iloc[1:]) == {"1.00 times"}
