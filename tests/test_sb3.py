"""Claims about agents of other libraries that were trained on the chambers."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import tiny_battery

from vicarious import config, execute
from vicarious.interop import envs, sb3
from vicarious.paper import results, studies
from vicarious.store import Store

outsiders = pytest.importorskip("vicarious.outsiders")


def test_its_worlds_are_the_chambers_that_end_by_the_clock():
    worlds = sb3.Worlds(3, seed=1, frames=4)
    first = worlds.reset()
    assert first.shape == (3, *envs.Chambers().observations.shape)
    for step in range(1, 7):
        observed, gains, ends, told = worlds.step(np.zeros(3, int))
        assert ends.tolist() == [step % 3 == 0] * 3 and set(np.unique(gains)) <= {-1.0, 0.0, 1.0}
        for one, info in zip(observed, told, strict=True):
            assert bool(info) == bool(ends[0])
            if info:
                assert info["TimeLimit.truncated"] and not np.array_equal(info["terminal_observation"], one)


def test_reward_is_counted_as_it_is_earned():
    cfg = config.External(data=config.Episodes(seed=3), algorithm="dqn", steps=1)
    aimless, usual, eager = (sb3.mean_reward(cfg, None, purpose) for purpose in (0.0, None, 1.0))
    assert abs(aimless) < 0.01 < usual < eager
    assert sb3.mean_reward(cfg, lambda frames: np.zeros(len(frames), int)) < usual


@pytest.mark.parametrize("algorithm", studies.EXTERNAL)
def test_it_is_trained_probed_and_stored_and_the_same_again(algorithm, tmp_path):
    def made(folder, steps):
        data = config.Episodes(seed=904, frames=8)
        cell = config.External(data=data, algorithm=algorithm, steps=steps, worlds=8, battery=tiny_battery(), width=32)
        store = Store(tmp_path / folder, tmp_path / "data")
        execute.fill([cell], store, workers=0, device="cpu")
        return cell, store.read(cell.address, weights=True)

    cell, one = made("a", 4000)
    assert results.agent_columns(cell) == {"seed": 904, "family": algorithm, "exposure": 1.0, "kappa": 0.0}
    _, two = made("b", 4000)
    for name in ("outsiders", "measures"):
        pd.testing.assert_frame_equal(one.tables[name], two.tables[name], check_exact=True)
    told = one.tables["measures"].set_index("measure").value
    assert told["gain_aimless"] < told["gain_scripted"] and one.weights
    _, less = made("c", 8)
    assert told["gain"] > less.tables["measures"].set_index("measure").value["gain"]


def test_studies_have_as_many_of_each_kind_as_planned():
    cells = [c for c in studies.generality() if isinstance(c, config.External)]
    named = pd.Series([results.agent_columns(c)["family"] for c in cells]).value_counts()
    assert named.to_dict() == dict.fromkeys(("ppo", "dqn", "ppo:uneventful", "dqn:uneventful"), 5)
    assert len(execute.jobs(cells, 64)) == len(cells)


def test_the_readmes_example_probes_a_freshly_trained_agent(tmp_path, monkeypatch, capsys):
    """As it stands in the README."""
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    (example,) = [part for part in re.findall(r"```python\n(.*?)```", readme, re.S) if "stable_baselines3" in part]
    assert len([line for line in example.splitlines() if line.strip()]) <= 24
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    told = capsys.readouterr().out
    assert "value: own slope" in told and "empathy (value)" in told and "drifter 0.00" in told
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["scenes"] == 128 and report["gates"]["value"]["own"] > 0.02, "it has learnt something"
    assert (tmp_path / "fingerprint.png").stat().st_size > 5000
