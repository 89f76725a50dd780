"""Claims about the families of world models: their objectives, their codes, and what they imagine."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.integrate
import torch
from conftest import tiny_battery, tiny_heads, tiny_model
from torch.distributions import Independent, Normal, OneHotCategorical, kl_divergence

from vicarious import battery, config, episodes, execute, models, world
from vicarious.models import base, families

DATA = config.Episodes(seed=940, frames=8)
BATCH = episodes.collect(DATA, count=128)
LEARNT = [name for name in models.FAMILIES if "/" in name]
IMAGINE = [name for name in LEARNT if hasattr(models.MEMORIES[name.split("/")[1]], "imagine")]

pytestmark = pytest.mark.usefixtures("exact")


def build(family: str, data: config.Episodes = DATA, **own):
    return models.build(config.Model(data=data, family=family, **{"latent": 16, "width": 32, **own}))


def given(model, rows: int = 32):
    """What the family's losses are given besides, for the first rows of the batch."""
    if not model.noise:
        return {}
    return {"given": torch.rand(rows, DATA.frames, model.noise, generator=torch.Generator().manual_seed(0))}


def test_a_family_is_an_encoder_with_a_memory():
    assert {"cells/gru", "flat/gru", "cells/rssm", "flat/transformer", "cells/slots"} <= set(models.FAMILIES)
    with pytest.raises(ValueError, match="unknown family 'conv/gru'"):
        build("conv/gru")


@pytest.mark.parametrize("family", LEARNT)
def test_losses_are_named_and_unreduced(family):
    model, few = build(family), BATCH[:32]
    losses = model.losses(few.obs, few.prev_action, few.prev_action, **given(model))
    assert losses and all(loss.shape == few.prev_action.shape and loss.isfinite().all() for loss in losses.values())


@pytest.mark.parametrize("family", LEARNT)
def test_every_family_learns_and_is_the_same_when_trained_again(family):
    cfg = config.Model(data=DATA, family=family, latent=16, width=32, updates=60, rate=3e-3)
    before = models.evaluate(cfg, models.build(cfg))
    (model, after), (again, _) = (models.train([cfg])[0] for _ in range(2))
    assert sum(after.values()) < sum(before.values())
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    z = models.encode(model, BATCH.obs, BATCH.prev_action)
    assert (z.flatten(0, 1).std(0) > 1e-3).float().mean() > 0.25, "codes tell frames apart"


@pytest.mark.parametrize("family", LEARNT)
def test_families_train_as_one_population(family):
    cfgs = [
        config.Model(data=DATA.model_copy(update={"seed": s}), family=family, latent=8, width=16, updates=3, rate=3e-3)
        for s in (1, 2)
    ]
    for cfg, (model, _) in zip(cfgs, models.train(cfgs, stacked=True), strict=True):
        alone, _ = models.train([cfg], stacked=False)[0]
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


@pytest.mark.parametrize("family", ["cells/gru", "flat/gru", "cells/rssm", "cells/transformer"])
def test_an_action_that_is_not_shown_does_not_reach_the_prediction_it_is_hidden_from(family):
    """Two episodes that differ in the last action alone are predicted alike where it is hidden."""
    model, few = build(family), BATCH[:16]
    changed = few.prev_action.clone()
    changed[:, -1] = changed[:, -1] % 5 + 1
    name = "dynamics" if family == "cells/rssm" else "prediction"
    frame = -1 if family == "cells/rssm" else -2
    hidden = torch.zeros_like(changed)
    one, two = (model.losses(few.obs, a, hidden)[name][:, frame] for a in (few.prev_action, changed))
    seen, other = (model.losses(few.obs, a, a)[name][:, frame] for a in (few.prev_action, changed))
    assert torch.equal(one, two) and not torch.allclose(seen, other)


def test_cells_code_alike_what_is_alike_wherever_it_is():
    """Without its places the encoder's answer is the same for every arrangement of the same cells."""
    model = build("cells/gru")
    shuffled = BATCH.obs.unflatten(-1, (21, -1))[:, :, torch.randperm(21)].flatten(-2)
    z, other = (model.encoder(obs) for obs in (BATCH.obs, shuffled))
    assert not torch.allclose(z, other, atol=1e-4)
    torch.nn.init.ones_(model.encoder.place)
    z, other = (model.encoder(obs) for obs in (BATCH.obs, shuffled))
    torch.testing.assert_close(z, other, rtol=1e-4, atol=1e-4)


def test_errors_weigh_bodies_and_moods_as_they_are_told_to():
    model = build("flat/gru", bodies=7.0)
    obs = torch.zeros(1, world.features(DATA.world))
    found = [
        float(model.error(obs + torch.nn.functional.one_hot(torch.tensor(i), obs.shape[1]), obs)) for i in range(9)
    ]
    assert found == [7, 7, 7, 7, 1, 1, 1, 1, 7]


@pytest.mark.parametrize("family", LEARNT)
def test_families_have_the_references_budget_of_parameters_or_less(family):
    budget = models.parameters(config.Model(data=config.Episodes(seed=0), family="flat/gru"))
    assert models.parameters(config.Model(data=config.Episodes(seed=0), family=family)) <= 1.25 * budget


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
    model, few = build("cells/rssm"), BATCH[:32]
    for name, moved, still in (("dynamics", "prior", "posterior"), ("representation", "posterior", "prior")):
        model.zero_grad()
        model.losses(few.obs, few.prev_action, **given(model))[name][:, 0].sum().backward()  # before any recurrence
        gradient = {part: list(getattr(model, part).parameters())[-1].grad for part in (moved, still)}
        assert gradient[moved].abs().sum() > 0
        assert gradient[still] is None or gradient[still].abs().sum() == 0


def test_samples_follow_their_probabilities_and_pass_their_gradient():
    model = build("cells/rssm")
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
    seed=941,
    frames=8,
    world=config.World(size=2, max_items=1, eventful=0.0, vacant=1.0, appear=0.0, vanish=1.0, expression=0.0),
)


@pytest.mark.slow
@pytest.mark.parametrize("family", IMAGINE)
def test_a_deterministic_world_is_imagined_as_it_is_observed(family):
    """Nobody else and no items: the next frame follows from the last one and the own action."""
    cfg = config.Model(data=ALONE, family=family, latent=32, width=64, updates=500, rate=4e-3, batch=64, hidden=0.0)
    cfg = cfg.model_copy(update={"updates": 1000, "rate": 3e-3}) if family == "cells/slots" else cfg  # it takes longer
    (model, _), t = models.train([cfg])[0], 5
    held = episodes.collect(ALONE, purpose="held out", count=64)
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
    scope = {name: getattr(base, name) for name in ("Predictive", "CODED", "mlp", "encoder", "decoder")}
    exec(example, scope)
    monkeypatch.setitem(models.MEMORIES, "mine", scope["Mine"])
    monkeypatch.setattr(models, "FAMILIES", [*models.FAMILIES, "cells/mine"])
    heads = tiny_heads(tiny_model(940, "cells/mine"))
    runs = [tiny_battery(), config.Responses(heads=heads, battery=tiny_battery())]
    execute.fill(runs, store, workers=0, device="cpu")
    assert set(store.read(runs[1].address).tables["responses"].mover) == set(battery.MOVERS)


@pytest.mark.parametrize("family", LEARNT)
def test_foresight_is_read_of_every_family(family, monkeypatch):
    monkeypatch.setattr(models, "READ_OUT", 64)
    cfg = config.Model(data=DATA, family=family, latent=16, width=32, updates=20)
    once, again = (models.foresight(config.Foresight(model=cfg, episodes=64), models.build(cfg)) for _ in range(2))
    table = once.set_index("measure")["value"]
    assert np.isfinite(table).all() and table["informed"] < table["aimless"]
    assert once.equals(again), "a decoder of foreseen codes has weights of its seed"


def test_what_is_added_to_slots_does_not_grow_with_them():
    model = build("cells/slots")
    with torch.no_grad():
        for parameter in model.onward.parameters():
            parameter.mul_(10)
        short, whole = (model.encode(BATCH.obs[:, :t], BATCH.prev_action[:, :t]).abs().max() for t in (2, None))
    assert whole < 20 * short, "at most as much in every frame as in one"
