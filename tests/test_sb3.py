"""Claims about agents of other libraries that were trained on the chambers."""

import json
import re
from pathlib import Path

import gymnasium
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_battery
from stable_baselines3 import PPO
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack, VecMonitor, VecNormalize

from vicarious import config, execute, interop
from vicarious.interop import envs, sb3
from vicarious.paper import results
from vicarious.store import Store


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
    assert 0.02 < aimless < usual < eager, "half of all items are good"
    assert sb3.mean_reward(cfg, lambda frames: np.zeros(len(frames), int)) < usual


@pytest.mark.parametrize("algorithm", ["ppo", "dqn"])
def test_it_is_trained_probed_and_stored_and_the_same_again(algorithm, tmp_path):
    def made(folder, steps):
        data = config.Episodes(seed=904, frames=8)
        cell = config.External(data=data, algorithm=algorithm, steps=steps, worlds=8, battery=tiny_battery(), width=32)
        store = Store(tmp_path / folder, tmp_path / "data")
        execute.fill([cell], store, workers=0, device="cpu")
        return cell, store.read(cell.address, weights=True)

    cell, one = made("a", 4000)
    named = {"seed": 904, "family": algorithm, "view": "allocentric", "company": 1.0}
    assert named.items() <= results.agent_columns(cell).items()
    _, two = made("b", 4000)
    for name in ("outsiders", "measures"):
        pd.testing.assert_frame_equal(one.tables[name], two.tables[name], check_exact=True)
    told = one.tables["measures"].set_index("measure").value
    assert told["gain_aimless"] < told["gain_scripted"] and one.weights
    _, less = made("c", 8)
    assert told["gain"] > less.tables["measures"].set_index("measure").value["gain"]


def readme_example():
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    (example,) = [part for part in re.findall(r"```python\n(.*?)```", readme, re.S) if "stable_baselines3" in part]
    return example


@pytest.mark.parametrize("wrapped", ["VecNormalize(chambers)", "VecFrameStack(chambers, 2)"])
def test_the_readmes_example_works_for_agents_behind_wrappers(wrapped, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    own = readme_example().replace("    chambers,\n", f"    {wrapped},\n").replace("200_000", "2_000")
    assert wrapped in own and "2_000" in own
    exec(compile(own, "README.md", "exec"), {"VecNormalize": VecNormalize, "VecFrameStack": VecFrameStack})
    assert "value: own slope" in capsys.readouterr().out


def test_the_readmes_example_probes_a_freshly_trained_agent(tmp_path, monkeypatch, capsys):
    """As it stands in the README."""
    example = readme_example()
    assert len([line for line in example.splitlines() if line.strip()]) <= 24
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    told = capsys.readouterr().out
    assert "value: own slope" in told and "joy (value" in told and "drifter 0.00" in told
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["scenes"] == 128 and report["gates"]["value"]["own"] > 0.02, "it has learnt something"
    assert (tmp_path / "fingerprint.png").stat().st_size > 5000


# What an agent sees through

SMALL = config.Battery(levels=2, scenes=16, rollouts=4)


def trained(env, **policy):
    return PPO("MlpPolicy", env, n_steps=19, batch_size=76, n_epochs=1, seed=0, device="cpu", policy_kwargs=policy)


def slopes(agent):
    return interop.probe(agent, battery=SMALL).table.slope.to_numpy()


class ByHand:
    """The same agent, asked with observations that are prepared here."""

    def __init__(self, model, prepare):
        self.policy_, self.prepare = model.policy, prepare

    def predict(self, obs, prev_action):
        seen = self.prepare(obs).astype(np.float32)
        with torch.no_grad():
            value = self.policy_.predict_values(torch.as_tensor(seen).flatten(0, 1))
        return {"value": value.view(obs.shape[:2])}


def normalised(count=4):
    env = VecNormalize(sb3.Worlds(count, seed=0), clip_obs=5.0)
    agent = trained(env).learn(400)
    mean, std = env.obs_rms.mean, np.sqrt(env.obs_rms.var + env.epsilon)
    return agent, lambda obs: np.clip((obs - mean) / std, -5, 5)


def test_an_agent_behind_vecnormalize_sees_what_it_learnt_from():
    agent, prepare = normalised()
    statistics = agent.get_env().obs_rms.count
    assert slopes(agent) == pytest.approx(slopes(ByHand(agent, prepare)), abs=1e-5)
    assert np.abs(slopes(agent) - slopes(ByHand(agent, lambda obs: obs))).max() > 1e-3
    assert agent.get_env().obs_rms.count == statistics, "its statistics are left alone"


def test_an_agent_behind_vecframestack_sees_the_frames_before():
    agent = trained(VecFrameStack(sb3.Worlds(4, seed=0), 3)).learn(400)
    nothing = lambda obs: np.zeros_like(obs[:, :1])  # noqa: E731

    def prepare(obs):
        before = np.concatenate([nothing(obs), obs[:, :-1]], 1)
        two = np.concatenate([nothing(obs), before[:, :-1]], 1)
        return np.concatenate([two, before, obs], -1)

    assert slopes(agent) == pytest.approx(slopes(ByHand(agent, prepare)), abs=1e-5)


def test_wrappers_are_applied_from_the_world_outwards():
    env = VecFrameStack(VecMonitor(VecNormalize(sb3.Worlds(4, seed=0))), 2)
    agent = trained(env).learn(400)
    obs = np.random.default_rng(0).normal(size=(2, 5, 3, 7, 9)).astype(np.float32)
    inner = env.venv.venv
    seen = interop.stable_baselines(agent).prepare(obs)
    assert np.allclose(seen[:, 1:, ..., :9], inner.normalize_obs(obs)[:, :-1]) and not seen[:, 0, ..., :9].any()
    assert np.allclose(seen[..., 9:], inner.normalize_obs(obs))


def test_what_a_loaded_agent_saw_through_is_asked_for(tmp_path):
    agent, _ = normalised()
    expected = slopes(agent)
    agent.save(tmp_path / "agent")
    agent.get_env().save(tmp_path / "statistics")
    with pytest.raises(ValueError, match=r"PPO was loaded without its environment.*VecNormalize.load"):
        slopes(PPO.load(tmp_path / "agent"))
    env = VecNormalize.load(tmp_path / "statistics", sb3.Worlds(4, seed=0))
    assert slopes(PPO.load(tmp_path / "agent", env=env)) == pytest.approx(expected)


@pytest.mark.parametrize("wrapper", [gymnasium.wrappers.FlattenObservation, gymnasium.wrappers.NormalizeObservation])
def test_a_wrapper_that_is_not_known_is_named(wrapper):
    agent = trained(DummyVecEnv([lambda: wrapper(envs.ChambersEnv())] * 4))
    with pytest.raises(ValueError, match=f"sees through {wrapper.__name__}"):
        slopes(agent)


def test_what_is_out_of_sight_is_not_guessed(tmp_path):
    env = SubprocVecEnv([envs.ChambersEnv] * 2, start_method="spawn")
    try:
        with pytest.raises(ValueError, match="out of sight in SubprocVecEnv: load it with a DummyVecEnv"):
            slopes(trained(env))
    finally:
        env.close()


def test_a_vecnormalize_that_has_seen_nothing_is_told(tmp_path):
    agent, _ = normalised()
    agent.save(tmp_path / "agent")
    with pytest.raises(ValueError, match="VecNormalize has seen nothing yet"):
        slopes(PPO.load(tmp_path / "agent", env=VecNormalize(sb3.Worlds(4, seed=0))))


@pytest.mark.parametrize("options", [{"cfg": config.World(view="left")}, {"drawn": 3}])
@pytest.mark.parametrize(
    "made", [lambda **o: sb3.Worlds(4, 0, **o), lambda **o: DummyVecEnv([lambda: envs.ChambersEnv(**o)] * 4)]
)
def test_an_agent_is_probed_in_a_world_drawn_as_its_own(options, made):
    agent = trained(made(**options))
    with pytest.raises(ValueError, match="drawn in another way: probe it with its view"):
        slopes(agent)
    assert np.isfinite(interop.probe(agent, battery=SMALL, **options).table.slope).all()


def test_an_external_agent_may_hold_one_of_these():
    agent, prepare = normalised()
    agent.policy.train()
    assert np.array_equal(slopes(ByHand(agent, prepare)), slopes(ByHand(agent, prepare))) and agent.policy.training


def test_an_agent_trained_in_the_gymnasium_environment_is_probed():
    assert np.isfinite(slopes(trained(DummyVecEnv([lambda: gymnasium.make("vicarious/Chambers-v0")] * 4)))).all()


def test_a_policy_that_drops_out_is_probed_without_and_left_as_it_was():
    class Dropping(FlattenExtractor):
        def __init__(self, space):
            super().__init__(space)
            self.drop = torch.nn.Dropout(0.5)

        def forward(self, observations):
            return self.drop(super().forward(observations))

    agent = trained(sb3.Worlds(4, seed=0), features_extractor_class=Dropping).learn(100)
    agent.policy.train()
    assert np.array_equal(slopes(agent), slopes(agent)) and agent.policy.training


def test_a_recurrent_policy_is_told_what_it_needs():
    agent = trained(sb3.Worlds(4, seed=0))
    agent.policy.lstm_actor = torch.nn.LSTM(2, 2)  # as sb3-contrib's policies have
    with pytest.raises(ValueError, match="PPO is recurrent: write an ExternalAgent"):
        slopes(agent)
