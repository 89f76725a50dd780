"""Claims about populations: a member is the same agent alone and among others, on stacked weights or in turn."""

import copy

import pytest
import torch
from conftest import tiny_heads, tiny_model, tiny_study
from torch.utils._python_dispatch import TorchDispatchMode

from vicarious import config, episodes, execute, heads, models, pipeline, train
from vicarious.models.base import GRU
from vicarious.paper import results
from vicarious.store import Store

UPDATES = 20


def world_models(seeds=(920, 921, 922)):
    return [tiny_model(seed, latent=16, width=32, updates=UPDATES, rate=3e-3) for seed in seeds]


def pairs_of_heads():
    """Three world models' worth of latents, with heads of several companies, couplings and widths on each."""
    kinds = [{"company": 0.0}, {"company": 0.5, "kappa_gain": -1.0}, {"company": 1.0, "width": 5}]
    made = []
    for model in world_models():
        data = episodes.collect(tiny_heads(model).data)
        z = heads.Latents.of(models.encode(models.build(model), data.obs, data.prev_action))
        cfgs = [tiny_heads(model, **kind, updates=UPDATES, reward_updates=UPDATES) for kind in kinds]
        made += [(cfg, z, data) for cfg in cfgs]
    return tuple(map(list, zip(*made, strict=True)))


class Products(TorchDispatchMode):
    """Records the types of the factors of every matrix product."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__ in ("mm", "bmm", "addmm", "baddbmm"):
            self.seen.add(args[-1].dtype)
        return function(*args, **(kwargs or {}))


TYPES = {"fp32": {torch.float32}, "bf16": {torch.bfloat16}}


def distance(one: torch.nn.Module, two: torch.nn.Module) -> float:
    """Largest difference of any two weights."""
    pairs = zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


def moved(cfg: config.Model, model: torch.nn.Module) -> float:
    return distance(models.build(cfg), model)


@pytest.mark.parametrize("family", ["cells/gru", "flat/gru"])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 2e-4), ("bf16", 4e-2)])
def test_a_world_model_alone_and_in_a_stacked_population_agree_over_twenty_updates(
    family, precision, tolerance, monkeypatch
):
    monkeypatch.setenv("VICARIOUS_PRECISION", precision)
    cfgs = [c.model_copy(update={"family": family}) for c in world_models()]
    with Products() as products:
        together = models.train(cfgs, stacked=True)
    assert products.seen >= TYPES[precision] and (precision == "bf16" or products.seen == TYPES["fp32"])
    for cfg, (model, losses) in zip(cfgs, together, strict=True):
        ((alone, expected),) = models.train([cfg], stacked=False)
        assert moved(cfg, model) > 0.02, "it has learnt something"
        assert distance(model, alone) < tolerance
        assert losses == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 2e-2)])
def test_heads_alone_and_in_a_stacked_population_agree_over_twenty_updates(precision, tolerance, monkeypatch):
    monkeypatch.setenv("VICARIOUS_PRECISION", precision)
    cfgs, z, data = pairs_of_heads()
    with Products() as products:
        together = heads.train(cfgs, z, data, stacked=True)
    assert products.seen >= TYPES[precision] and (precision == "bf16" or products.seen == TYPES["fp32"])
    for cfg, latents, own, (head, losses) in zip(cfgs, z, data, together, strict=True):
        ((alone, expected),) = heads.train([cfg], [latents], [own], stacked=False)
        assert distance(heads.fresh(cfg, latents), head) > 0.02, "it has learnt something"
        assert distance(head, alone) < tolerance
        assert losses == pytest.approx(expected, rel=tolerance, abs=tolerance)


def test_members_trained_in_turn_are_bit_for_bit_those_trained_alone():
    """What a cell on a CPU holds does not depend on which others were missing when it was trained."""
    cfgs = world_models()
    for cfg, (model, _) in zip(cfgs, models.train(cfgs), strict=True):
        assert distance(model, models.train([cfg])[0][0]) == 0
    cfgs, z, data = pairs_of_heads()
    for cfg, latents, own, (head, _) in zip(cfgs, z, data, heads.train(cfgs, z, data), strict=True):
        assert distance(head, heads.train([cfg], [latents], [own])[0][0]) == 0


@pytest.mark.parametrize("stacked", [False, True])
def test_members_do_not_touch_each_other(stacked, monkeypatch):
    """A member whose episodes are absurd changes neither the weights nor the clipping of the others."""
    cfgs, real = world_models(), models.Feed._drawn
    calm = models.train(cfgs, stacked=stacked)

    def drawn(self):
        obs, *rest = real(self)
        return [obs * (1e3 if self.cfg == cfgs[1] else 1), *rest]

    monkeypatch.setattr(models.Feed, "_drawn", drawn)
    wild = models.train(cfgs, stacked=stacked)
    assert distance(calm[1][0], wild[1][0]) > 1e-3
    assert distance(calm[0][0], wild[0][0]) == distance(calm[2][0], wild[2][0]) == 0


def test_clipping_is_each_members_own_norm(monkeypatch):
    monkeypatch.setenv("VICARIOUS_PRECISION", "fp32")
    members = [torch.nn.Linear(3, 2) for _ in range(4)]
    stacked = train._Stacked(members, lambda m, x: m(x).square().sum())
    x = torch.randn(4, 5, 3) * torch.tensor([0.01, 1.0, 10.0, 100.0])[:, None, None]
    stacked([x]).backward()
    stacked.clip_(1.0)
    for i, member in enumerate(members):
        member(x[i]).square().sum().backward()
        torch.nn.utils.clip_grad_norm_(member.parameters(), 1.0)
        for name, parameter in member.named_parameters():
            assert torch.allclose(stacked.weights[f"member.{name}"].grad[i], parameter.grad, atol=1e-6)


def test_units_added_to_stack_heads_of_different_widths_stay_zero():
    head = heads.HeadPair(6, 5, 2)
    wide = heads._resized(head, 9)
    x, y = torch.randn(64, 6), torch.randn(64, 2)
    assert torch.allclose(head(x), wide(x), atol=1e-6)
    train.fit(
        [wide], lambda m, a, b: (m(a) - b).square().mean(), lambda rows: ([x], [y]), torch.zeros(30, 1, 1), 1e-2, 0.1
    )
    again = heads._resized(heads._resized(wide, 5), 9)
    assert distance(wide, again) == 0 and distance(wide, heads._resized(head, 9)) > 1e-2


def test_the_cell_is_a_gru():
    ours, theirs = GRU(7, 5), torch.nn.GRU(7, 5, batch_first=True)
    names = {"input.weight": "weight_ih_l0", "input.bias": "bias_ih_l0"}
    names |= {"state.weight": "weight_hh_l0", "state.bias": "bias_hh_l0"}
    ours.load_state_dict({mine: theirs.state_dict()[name] for mine, name in names.items()})
    x = torch.randn(4, 9, 7)
    assert torch.allclose(ours(x), theirs(x)[0], atol=1e-6)


def test_a_study_of_stacked_populations_finds_what_one_of_single_agents_finds(tmp_path, monkeypatch):
    """The way a study goes on a GPU, on the CPU: seeds as one population, everything else the same."""
    monkeypatch.setenv("VICARIOUS_PRECISION", "fp32")
    cells = list(
        dict.fromkeys(
            c for seed in (930, 931, 932) for c in tiny_study(seed, families=("cells/gru", "flat/gru", "pixels"))
        )
    )
    single, stacked = (Store(tmp_path / name / "runs", tmp_path / name / "data") for name in ("one", "many"))
    execute.fill(cells, single, workers=0, device="cpu")
    for module in (train, heads, pipeline):
        monkeypatch.setattr(module, "stacks", lambda device: True)
    execute.fill(cells, stacked, workers=0, device="cpu", population=2)
    sizes = {stacked.read(c.find(config.Model).address).manifest["population"] for c in cells[1:] if c.stage == "codes"}
    assert sizes == {1, 2}, "three seeds in populations of two"
    one, many = (results.load(cells, store, "responses") for store in (single, stacked))
    assert (one["mean"] - many["mean"]).abs().max() < 1e-3


def test_out_of_gpu_memory_halves_the_population_and_goes_on(tmp_path, monkeypatch):
    cells = list(dict.fromkeys(c for seed in range(940, 944) for c in tiny_study(seed, company=(0.0,))))
    store, real, tried = Store(tmp_path / "runs", tmp_path / "data"), models.train, []

    def train(cfgs, *args, **kwargs):
        tried.append(len(cfgs))
        if len(cfgs) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(cfgs, *args, **kwargs)

    monkeypatch.setattr(models, "train", train)
    monkeypatch.setattr(pipeline, "stacks", lambda device: True)
    execute.fill(cells, store, workers=0, device="cpu", population=4)
    assert tried == [4, 2, 1, 1, 2, 1, 1] and not pipeline.missing(cells, store)


def test_memory_too_small_for_one_agent_is_one_clear_line(tmp_path, monkeypatch):
    def train(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(models, "train", train)
    with pytest.raises(MemoryError, match="too little memory for a single agent"):
        execute.fill(tiny_study(), Store(tmp_path / "runs", tmp_path / "data"), workers=0, device="cpu")


def test_an_update_is_captured_once_after_warming_up_and_then_replayed(monkeypatch):
    """The control flow of a GPU, with a recorder in place of the graph."""
    calls = {"captured": 0, "replayed": 0}

    def captured(function, device):
        calls["captured"] += 1

        def replay():
            calls["replayed"] += 1
            function()

        return replay

    cfgs = world_models()
    expected = models.train(cfgs, stacked=True)
    monkeypatch.setattr(train, "captures", lambda device: True)
    monkeypatch.setattr(train, "_captured", captured)
    found = models.train(cfgs, stacked=True)
    assert calls == {"captured": 1, "replayed": UPDATES - train.WARM_UP}
    assert all(distance(a, b) == 0 for (a, _), (b, _) in zip(expected, found, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_captured_graph_trains_as_eager_kernels_do(monkeypatch):
    cfgs = world_models()
    twice = [models.train(cfgs, "cuda") for _ in range(2)]
    monkeypatch.setattr(train, "captures", lambda device: False)
    eager = models.train(cfgs, "cuda")
    for captured in twice:
        assert all(distance(a, b) < 2e-2 for (a, _), (b, _) in zip(captured, eager, strict=True))


def test_training_is_on_one_thread_whoever_calls_it(monkeypatch):
    cfgs = world_models((920,))
    threads, real = set(), models.Recurrent.losses

    def losses(self, *args, **given):
        threads.add(torch.get_num_threads())
        return real(self, *args, **given)

    monkeypatch.setattr(models.Recurrent, "losses", losses)
    torch.set_num_threads(2)
    ((two, _),) = models.train(cfgs)
    assert torch.get_num_threads() == 2, "the caller's own are as they were"
    assert 1 in threads
    torch.set_num_threads(1)
    ((one, _),) = models.train(cfgs)
    assert distance(one, two) == 0


def test_what_a_workspace_makes_is_made_on_one_thread(tmp_path, monkeypatch):
    lab, threads = pipeline.Workspace(Store(tmp_path / "runs", tmp_path / "data")), []
    real = episodes.collect
    monkeypatch.setattr(episodes, "collect", lambda *args: threads.append(torch.get_num_threads()) or real(*args))
    torch.set_num_threads(2)
    lab.latents(tiny_heads(tiny_model(family="pixels")))
    assert threads == [1] and torch.get_num_threads() == 2


def test_an_unknown_precision_is_refused(monkeypatch):
    monkeypatch.setenv("VICARIOUS_PRECISION", "fp8")
    with pytest.raises(ValueError, match="it is auto, bf16 or fp32"):
        train.precision("cpu")


@pytest.mark.parametrize("stacked", [False, True])
def test_a_world_model_taken_on_the_way_is_what_it_was_then(stacked, monkeypatch):
    """Stopping is looking: the rate is laid out for all updates, and the model as it is at that one."""
    monkeypatch.setenv("VICARIOUS_PRECISION", "fp32")
    cfgs = world_models()
    seen, real = {}, train.fit

    def watches(members, *args, **kwargs):
        look = lambda: seen.update(copy.deepcopy(members[0].state_dict()))  # noqa: E731
        return real(members, *args, **(kwargs | {"at": {3: look}}))

    monkeypatch.setattr(models, "fit", watches)
    models.train(cfgs[:1], stacked=stacked)
    monkeypatch.setattr(models, "fit", real)
    stopped = models.train([cfgs[0].model_copy(update={"stop": 3})], stacked=stacked)[0][0]
    assert all(torch.equal(seen[k], v) for k, v in stopped.state_dict().items())
    whole = models.train(cfgs[:1], stacked=stacked)[0][0]
    assert distance(stopped, whole) > 1e-4


def test_episodes_are_drawn_anew_and_own_actions_are_hidden_in_half_of_them():
    cfg = tiny_model(batch=64, updates=100, hidden=0.5)
    feed = models.Feed(cfg, models.build(cfg), "cpu")
    before = [x.clone() for x in feed.inputs]
    obs, prev_action, shown = feed.inputs
    hidden = (shown == 0).all(1)
    assert 0.4 < hidden.float().mean() < 0.6 and torch.equal(shown[~hidden], prev_action[~hidden])
    feed.renew()
    assert all(
        old.data_ptr() == new.data_ptr() for old, new in zip((obs, prev_action, shown), feed.inputs, strict=True)
    )
    assert (feed.inputs[0] != before[0]).flatten(1).any(1).all()
    rows = feed.rows()
    assert rows.shape == (100, 64) and torch.equal(rows[: models.FRESH].flatten(), torch.arange(len(feed)))


def test_a_fixed_number_of_distinct_episodes_is_all_that_a_world_model_learns_from():
    cfg = tiny_model(batch=16, updates=50)
    cfg = cfg.model_copy(update={"data": cfg.data.model_copy(update={"distinct": 64})})
    feed = models.Feed(cfg, models.build(cfg), "cpu")
    assert len(feed) == 64 and set(feed.rows().flatten().tolist()) == set(range(64))
    assert torch.equal(feed.inputs[0], episodes.collect(cfg.data).obs)
    ((one, _),), ((two, _),) = models.train([cfg]), models.train([cfg])
    assert distance(one, two) == 0
