"""Claims about the chambers as other people's agents see them."""

import subprocess
import sys

import numpy as np
import pytest
import torch

gymnasium = pytest.importorskip("gymnasium")
pettingzoo_test = pytest.importorskip("pettingzoo.test")

from gymnasium.utils.env_checker import check_env  # noqa: E402

from vicarious import config, episodes, world  # noqa: E402
from vicarious.interop import envs  # noqa: E402


@pytest.mark.parametrize("options", [{}, {"cfg": config.World(view="centred")}, {"cfg": config.World(noise=0.1)}])
@pytest.mark.filterwarnings("ignore:.*Box.*:UserWarning")
def test_gymnasiums_own_checks_pass(options):
    check_env(gymnasium.make("vicarious/Chambers-v0", render_mode="rgb_array", **options).unwrapped)


@pytest.mark.slow
def test_worlds_in_processes_of_their_own_do_not_wait_for_threads_that_are_not_there():
    """gymnasium forks; a fork has none of the threads that arithmetic has started."""
    code = (
        "import gymnasium, numpy as np, torch, vicarious.interop.envs\n"
        "torch.set_num_threads(4); torch.randn(2000, 2000) @ torch.randn(2000, 2000)\n"
        "env = gymnasium.make_vec('vicarious/Chambers-v0', num_envs=2, vectorization_mode='async')\n"
        "env.reset(seed=0); env.step(np.zeros(2, int)); env.close(); print('stepped')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "stepped", done.stderr


def test_pettingzoos_own_checks_pass():
    pettingzoo_test.parallel_api_test(envs.ChambersParallelEnv(), num_cycles=200)
    pettingzoo_test.parallel_seed_test(envs.ChambersParallelEnv)


def test_a_vector_is_as_many_worlds_that_end_together_and_begin_anew():
    env = gymnasium.make_vec("vicarious/Chambers-v0", num_envs=3, frames=4)
    first, _ = env.reset(seed=1)
    assert env.observation_space.contains(first) and first.shape[0] == 3
    ends = []
    for _ in range(9):
        observed, gains, terminated, truncated, _ = env.step(env.action_space.sample())
        assert env.observation_space.contains(observed) and gains.shape == (3,) and not terminated.any()
        ends.append(truncated.tolist())
    assert ends == [[e] * 3 for e in (False, False, True, False, False, False, True, False, False)]
    again, _ = env.reset(seed=1)
    assert np.array_equal(first, again) and not np.array_equal(first, env.reset()[0])


def test_the_self_is_paid_for_its_own_item_alone_unless_it_is_coupled():
    for kappa in (0.0, 0.5):
        env = envs.ChambersParallelEnv(kappa=kappa)
        env.reset(seed=3)
        paid = []
        while env.agents:
            before = env.chambers.state
            actions = world.conduct(before, env.chambers.cfg, torch.Generator().manual_seed(env.chambers.at))
            _, gains, *_ = env.step(dict(zip(envs.AGENTS, actions[0].tolist(), strict=True)))
            contact = env.chambers.state.contact
            own, others = (float(env.chambers.worth[m][contact[0, m]]) for m in range(2))
            assert gains == {"self": own + kappa * others, "other": others}
            paid.append((own, others))
        assert len(paid) == env.chambers.frames - 1


def test_what_is_drawn_is_what_the_papers_agents_of_that_seed_saw():
    """Items and glass, moods apart, cell by cell, and the self's own looks; another seed draws them otherwise."""
    cfg = config.Episodes(seed=5, distinct=256)
    cells = episodes.collect(cfg).obs.numpy().reshape(-1, 9)[:, :-1].round(4)
    looks, items = {tuple(c[:4]) for c in cells}, {tuple(c[4:]) for c in cells}

    def seen(drawn):
        env, kinds, bodies = envs.ChambersEnv(drawn=drawn), set(), set()
        for seed in range(20):
            observed, _ = env.reset(seed=seed)
            own = observed.reshape(-1, observed.shape[-1])[:, :-1].round(4)
            kinds |= {tuple(c[4:]) for c in own}
            axis = world.appearance(cfg.world, drawn).axes[0].numpy().round(4)
            bodies |= {tuple(c[:4]) for c in own if np.allclose(c[:4], axis)}
        return bodies, kinds

    bodies, kinds = seen(5)
    assert bodies and bodies <= looks and kinds <= items
    assert not seen(6)[0] & looks


def test_a_picture_shows_both_chambers():
    env = gymnasium.make("vicarious/Chambers-v0", render_mode="rgb_array")
    env.reset(seed=0)
    picture = env.render()
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3 and picture.std() > 10
