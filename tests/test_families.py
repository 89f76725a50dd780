"""Claims about the families of world models: their objectives, their codes, and what they imagine."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.integrate
import torch
from torch.distributions import Independent, Normal, OneHotCategorical, kl_divergence

from vicarious import config, episodes, execute, models, world
from vicarious.models import base, families

DATA = config.Episodes(seed=940, episodes=128, frames=8)
BATCH = episodes.collect(DATA)
LEARNT = [name for name, family in models.FAMILIES.items() if family.trained and name != "disjoint"]
IMAGINE = [name for name in LEARNT if hasattr(models.FAMILIES[name], "imagine")]

pytestmark = pytest.mark.usefixtures("exact")


def build(family: str, data: config.Episodes = DATA, **own):
    return models.build(config.Model(data=data, family=family, **{"latent": 16, "width": 32, **own}))


def given(model, rows: int = 32):
    """What the family's losses are given besides, for the first rows of the batch."""
    if model.noise:
        return {"given": torch.rand(rows, DATA.frames, model.noise, generator=torch.Generator().manual_seed(0))}
    return {"given": models._targets(model, BATCH[:rows])[0]} if model.supervised else {}


@pytest.mark.parametrize("family", LEARNT)
def test_losses_are_named_and_unreduced(family):
    model, few = build(family), BATCH[:32]
    losses = model.losses(few.obs, few.prev_action, **given(model))
    assert losses and all(loss.shape == few.prev_action.shape and loss.isfinite().all() for loss in losses.values())


@pytest.mark.parametrize("family", LEARNT)
def test_every_family_learns_and_is_the_same_when_trained_again(family):
    cfg = config.Model(data=DATA, family=family, latent=16, width=32, updates=60)
    before = models.evaluate(models.build(cfg), BATCH[120:])
    (model, after), (again, _) = (models.train([cfg], [BATCH])[0] for _ in range(2))
    assert sum(after.values()) < sum(before.values())
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    z = models.encode(model, BATCH.obs, BATCH.prev_action)
    assert z.flatten(0, 1).std(0).median() > 1e-3, "codes tell frames apart"


@pytest.mark.parametrize("family", LEARNT)
def test_families_train_as_one_population(family):
    cfgs = [
        config.Model(data=DATA.model_copy(update={"seed": s}), family=family, latent=8, width=16, updates=3)
        for s in (1, 2)
    ]
    data = [episodes.collect(c.data) for c in cfgs]
    together = models.train(cfgs, data, stacked=True)
    for cfg, own, (model, _) in zip(cfgs, data, together, strict=True):
        alone, _ = models.train([cfg], [own], stacked=False)[0]
        for a, b in zip(model.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("family", LEARNT)
def test_no_code_knows_the_future(family):
    model, t = build(family), 5
    later = BATCH.obs.clone()
    later[:, t:] = later[:, t:].roll(1, 0)
    action = BATCH.prev_action.clone()
    action[:, t:] = (action[:, t:] + 1) % 6
    z, other = model.encode(BATCH.obs, BATCH.prev_action), model.encode(later, action)
    torch.testing.assert_close(z[:, :t], other[:, :t])
    assert not torch.allclose(z[:, t:], other[:, t:])


@pytest.mark.parametrize("family", LEARNT)
def test_families_have_the_reference_budget_of_parameters_or_less(family):
    budget = models.parameters(config.Model(data=config.Episodes(seed=0)))
    assert models.parameters(config.Model(data=config.Episodes(seed=0), family=family)) <= 1.1 * budget


def test_kl_of_gaussians_is_the_closed_form():
    g = torch.Generator().manual_seed(1)
    mean, log_var = torch.randn(5, 3, generator=g), torch.randn(5, 3, generator=g)
    posterior = Normal(mean, (0.5 * log_var).exp())
    torch.testing.assert_close(
        families.kl_to_standard_normal(mean, log_var), kl_divergence(posterior, Normal(0.0, 1.0))
    )
    x = torch.randn(5, 3, generator=g)
    constant = 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(families.gaussian_nll(x, mean, log_var) + constant, -posterior.log_prob(x))


def test_kl_of_categoricals_is_the_closed_form():
    g = torch.Generator().manual_seed(2)
    p, q = (torch.randn(5, 6, families.CLASSES, generator=g).log_softmax(-1) for _ in range(2))
    expected = kl_divergence(Independent(OneHotCategorical(logits=p), 1), Independent(OneHotCategorical(logits=q), 1))
    torch.testing.assert_close(families.kl_categorical(p, q), expected)


def test_the_two_halves_of_the_balanced_kl_move_different_weights(monkeypatch):
    monkeypatch.setattr(families, "FREE", 0.0)
    model, few = build("rssm"), BATCH[:32]
    for name, moved, still in (("dynamics", "prior", "posterior"), ("representation", "posterior", "prior")):
        model.zero_grad()
        model.losses(few.obs, few.prev_action, **given(model))[name][:, 0].sum().backward()  # before any recurrence
        gradient = {part: list(getattr(model, part).parameters())[-1].grad for part in (moved, still)}
        assert gradient[moved].abs().sum() > 0
        assert gradient[still] is None or gradient[still].abs().sum() == 0


def test_samples_follow_their_probabilities_and_pass_their_gradient():
    model = build("rssm")
    log_p = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().expand(model.variables, 4).requires_grad_()
    noise = torch.rand(40_000, model.stochastic, generator=torch.Generator().manual_seed(3)).clamp(1e-6, 1 - 1e-6)
    picked = model._pick(log_p.expand(40_000, -1, -1), noise)
    share = picked.detach().unflatten(-1, (model.variables, 4)).mean(0)
    torch.testing.assert_close(share, log_p.detach().exp(), atol=0.015, rtol=0)
    (gradient,) = torch.autograd.grad(picked[..., 0].mean(), log_p)
    assert gradient[0, 0] == pytest.approx(0.1, rel=1e-4), "that of the probability itself"


def epps_pulley(x: torch.Tensor) -> float:
    """Its definition over the whole line, in closed form (Baringhaus & Henze 1988), for samples x [R]."""
    apart = (x[:, None] - x).double()
    near = (-apart.square() / 2).exp().mean()
    to_normal = (-x.double().square() / 4).exp().mean() / math.sqrt(2)
    return float(len(x) * math.sqrt(2 * math.pi) * (near - 2 * to_normal + 1 / math.sqrt(3)))


@pytest.mark.parametrize("sample", ["normal", "shifted", "wide", "two points"])
def test_sigreg_is_its_definition_on_known_samples(sample):
    x = torch.randn(2000, 1, generator=torch.Generator().manual_seed(4))
    x = {"normal": x, "shifted": x + 1, "wide": 2 * x, "two points": x.sign()}[sample]

    def integrand(t: float) -> float:
        empirical = np.exp(1j * t * x[:, 0].numpy().astype(float)).mean()
        return abs(empirical - np.exp(-(t**2) / 2)) ** 2 * np.exp(-(t**2) / 2)

    expected = len(x) * scipy.integrate.quad(integrand, -families.REACH, families.REACH)[0]
    found = float(families.sigreg(x, torch.ones(1, 1)))
    assert found == pytest.approx(expected, rel=0.01, abs=0.01)
    if sample in ("normal", "shifted"):  # nothing to speak of beyond the last knot
        assert found == pytest.approx(epps_pulley(x[:, 0]), rel=0.02, abs=0.02)


def test_sigreg_is_small_for_an_isotropic_gaussian_alone():
    g = torch.Generator().manual_seed(5)
    x, slices = torch.randn(2000, 8, generator=g), torch.nn.functional.normalize(torch.randn(8, 64, generator=g), dim=0)
    chance = math.sqrt(2 * math.pi) * (1 - 1 / math.sqrt(3))  # its expectation for N(0, 1), any number of samples
    assert float(families.sigreg(x, slices)) == pytest.approx(chance, rel=0.3)
    assert float(families.sigreg(torch.zeros(2000, 8), slices)) > 100 * chance, "collapse"
    assert float(families.sigreg(x * torch.linspace(0.1, 2, 8), slices)) > 10 * chance, "stretched"


@pytest.mark.parametrize("family", IMAGINE)
def test_what_is_imagined_depends_on_the_action_and_not_on_what_follows(family):
    model, t = build(family), 5
    obs, action = BATCH.obs, BATCH.prev_action
    z = model.imagine(obs[:, :t], action[:, :t], action[:, t : t + 2])
    assert z.shape == (len(BATCH), 2, model.encode(obs, action).shape[-1])
    other = model.imagine(obs[:, :t], action[:, :t], (action[:, t : t + 2] % 5) + 1)
    assert not torch.allclose(z, other)
    assert torch.equal(z, model.imagine(obs[:, :t], action[:, :t], action[:, t : t + 2])), "always the same"


ALONE = config.Episodes(
    seed=941, episodes=1024, frames=8, world=config.World(size=2, max_items=1, solitary=True, respawn=0.0)
)


@pytest.mark.slow
@pytest.mark.parametrize("family", IMAGINE)
def test_a_deterministic_world_is_imagined_as_it_is_observed(family):
    """Nobody else and no items: the next frame follows from the last one and the own action."""
    cfg = config.Model(data=ALONE, family=family, latent=32, width=64, updates=600)
    data = episodes.collect(ALONE)
    (model, _), t = models.train([cfg], [data])[0], 5
    held = data[models.split(len(data)) :]
    shown = getattr(model, "decode", getattr(model, "decoder", lambda z: z))  # codes themselves if nothing decodes them
    seen = shown(model.encode(held.obs, held.prev_action)[:, t])
    action = held.prev_action[:, t : t + 1]
    imagined, other = (
        shown(model.imagine(held.obs[:, :t], held.prev_action[:, :t], a)[:, 0]) for a in (action, action % 5 + 1)
    )
    error = lambda x: float((x - seen).square().sum(-1).mean())  # noqa: E731
    assert error(imagined) < 0.25 * error(seen.roll(1, 0)), "nearer to what is then seen than to another episode's"
    assert error(imagined) < 0.5 * error(other), "and than what another action would have led to"


def test_a_further_family_takes_one_file_and_one_line(monkeypatch, store):
    """The README's example, registered and run through the instrument."""

    readme = (Path(__file__).parents[1] / "README.md").read_text()
    (example,) = (block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "class Mine" in block)
    assert len(example.splitlines()) <= 10
    scope = {name: getattr(base, name) for name in ("Predictive", "CODED", "mlp")}
    exec(example, scope)
    monkeypatch.setitem(models.FAMILIES, "mine", scope["Mine"])
    model = config.Model(data=DATA, family="mine", latent=8, width=16, updates=5)
    heads = config.Heads(model=model, width=8, updates=5, reward_updates=5, batch=16)
    battery = config.Battery(scenes=8, rollouts=4, levels=3)
    cells = [battery, config.Responses(heads=heads, battery=battery), config.Imagined(heads=heads, battery=battery)]
    execute.fill(cells, store, workers=0, device="cpu")
    assert set(store.read(cells[2].address).tables["imagined"].mover) == {"self", "other", "drifter"}


def test_the_taught_family_learns_from_own_reward_where_it_is_known():
    lessons = models._targets(build("end_to_end"), BATCH)[0]
    assert torch.equal(lessons[..., 0], world.reward(BATCH.contact, DATA.world))
    assert torch.equal(lessons[..., 1] == 0, BATCH.contact[..., 1] > 0), "p = 0"
    assert not any(models.FAMILIES[name].supervised for name in LEARNT if name != "end_to_end")
