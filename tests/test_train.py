"""Claims about populations: a member is the same agent alone and among others, on stacked weights or in turn."""

import copy

import pytest
import torch
from conftest import tiny_cells
from torch.utils._python_dispatch import TorchDispatchMode

from vicarious import config, episodes, execute, heads, models, pipeline, train
from vicarious.models.base import GRU
from vicarious.paper import results, studies
from vicarious.store import Store

UPDATES = 20


def world_models(seeds=(920, 921, 922)):
    cfgs = [
        config.Model(data=config.Episodes(seed=s, episodes=128, frames=8), latent=16, width=32, updates=UPDATES)
        for s in seeds
    ]
    return cfgs, [episodes.collect(c.data) for c in cfgs]


def pairs_of_heads():
    """Three world models' worth of latents, with heads of several exposures, couplings and widths on each."""
    cfgs, data = world_models()
    codes = [
        heads.Latents.of(models.encode(models.build(c), d.obs, d.prev_action)) for c, d in zip(cfgs, data, strict=True)
    ]
    kinds = [{"exposure": 0.0}, {"exposure": 0.5, "kappa": -1.0}, {"exposure": 1.0, "width": 5}]
    sizes = {"width": 8, "updates": UPDATES, "reward_updates": UPDATES, "batch": 16}
    made = [
        (config.Heads(**{"model": c, **sizes, **kind}), z, d)
        for c, z, d in zip(cfgs, codes, data, strict=True)
        for kind in kinds
    ]
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


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 2e-2)])
def test_a_world_model_alone_and_in_a_stacked_population_agree_over_twenty_updates(precision, tolerance, monkeypatch):
    monkeypatch.setenv("VICARIOUS_PRECISION", precision)
    cfgs, data = world_models()
    with Products() as products:
        together = models.train(cfgs, data, stacked=True)
    assert products.seen >= TYPES[precision] and (precision == "bf16" or products.seen == TYPES["fp32"])
    for cfg, own, (model, losses) in zip(cfgs, data, together, strict=True):
        ((alone, expected),) = models.train([cfg], [own], stacked=False)
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
    cfgs, data = world_models()
    for cfg, own, (model, _) in zip(cfgs, data, models.train(cfgs, data), strict=True):
        assert distance(model, models.train([cfg], [own])[0][0]) == 0
    cfgs, z, data = pairs_of_heads()
    for cfg, latents, own, (head, _) in zip(cfgs, z, data, heads.train(cfgs, z, data), strict=True):
        assert distance(head, heads.train([cfg], [latents], [own])[0][0]) == 0


@pytest.mark.parametrize("stacked", [False, True])
def test_members_do_not_touch_each_other(stacked):
    """A member whose data are absurd changes neither the weights nor the clipping of the others."""
    cfgs, data = world_models()
    spoilt = [data[0], episodes.Batch(**{**vars(data[1]), "obs": data[1].obs * 1e3}), data[2]]
    calm, wild = (models.train(cfgs, d, stacked=stacked) for d in (data, spoilt))
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
    cells = list(dict.fromkeys(c for seed in (930, 931, 932) for c in tiny_cells(seed, families=studies.REFERENCE)))
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
    cells = list(dict.fromkeys(c for seed in range(940, 944) for c in tiny_cells(seed, exposures=(0.0,))))
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
        execute.fill(tiny_cells(), Store(tmp_path / "runs", tmp_path / "data"), workers=0, device="cpu")


def test_an_update_is_captured_once_after_warming_up_and_then_replayed(monkeypatch):
    """The control flow of a GPU, with a recorder in place of the graph."""
    calls = {"captured": 0, "replayed": 0}

    def captured(function, device):
        calls["captured"] += 1

        def replay():
            calls["replayed"] += 1
            function()

        return replay

    cfgs, data = world_models()
    expected = models.train(cfgs, data, stacked=True)
    monkeypatch.setattr(train, "captures", lambda device: True)
    monkeypatch.setattr(train, "_captured", captured)
    found = models.train(cfgs, data, stacked=True)
    assert calls == {"captured": 1, "replayed": UPDATES - train.WARM_UP}
    assert all(distance(a, b) == 0 for (a, _), (b, _) in zip(expected, found, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_captured_graph_trains_as_eager_kernels_do(monkeypatch):
    cfgs, data = world_models()
    data = [episodes.Batch(**{k: v.cuda() for k, v in vars(d).items()}) for d in data]
    twice = [models.train(cfgs, data) for _ in range(2)]
    monkeypatch.setattr(train, "captures", lambda device: False)
    eager = models.train(cfgs, data)
    for captured in twice:
        assert all(distance(a, b) < 2e-2 for (a, _), (b, _) in zip(captured, eager, strict=True))


def test_training_is_on_one_thread_whoever_calls_it(monkeypatch):
    cfgs, data = world_models((920,))
    threads, real = set(), models.Recurrent.losses

    def losses(self, *args, **given):
        threads.add(torch.get_num_threads())
        return real(self, *args, **given)

    monkeypatch.setattr(models.Recurrent, "losses", losses)
    torch.set_num_threads(2)
    ((two, _),) = models.train(cfgs, data)
    assert torch.get_num_threads() == 2, "the caller's own are as they were"
    assert 1 in threads
    torch.set_num_threads(1)
    ((one, _),) = models.train(cfgs, data)
    assert distance(one, two) == 0


def test_what_a_workspace_makes_is_made_on_one_thread(tmp_path, monkeypatch):
    lab, threads = pipeline.Workspace(Store(tmp_path / "runs", tmp_path / "data")), []
    real = episodes.collect
    monkeypatch.setattr(episodes, "collect", lambda *args: threads.append(torch.get_num_threads()) or real(*args))
    torch.set_num_threads(2)
    lab.episodes(config.Episodes(seed=920, episodes=64, frames=4))
    assert threads == [1] and torch.get_num_threads() == 2


def test_an_unknown_precision_is_refused(monkeypatch):
    monkeypatch.setenv("VICARIOUS_PRECISION", "fp8")
    with pytest.raises(ValueError, match="it is auto, bf16 or fp32"):
        train.precision("cpu")


@pytest.mark.parametrize("stacked", [False, True])
def test_a_world_model_taken_on_the_way_is_what_it_was_then(stacked, monkeypatch):
    """Stopping is looking: the rate is laid out for all updates, and the model as it is at that one."""
    monkeypatch.setenv("VICARIOUS_PRECISION", "fp32")
    cfgs, data = world_models()
    seen, real = {}, train.fit

    def watches(members, *args, **kwargs):
        look = lambda: seen.update(copy.deepcopy(members[0].state_dict()))  # noqa: E731
        return real(members, *args, **kwargs, at={3: look})

    monkeypatch.setattr(models, "fit", watches)
    models.train(cfgs[:1], data[:1], stacked=stacked)
    monkeypatch.setattr(models, "fit", real)
    stopped = models.train([cfgs[0].model_copy(update={"stop": 3})], data[:1], stacked=stacked)[0][0]
    assert all(torch.equal(seen[k], v) for k, v in stopped.state_dict().items())
    whole = models.train(cfgs[:1], data[:1], stacked=stacked)[0][0]
    assert distance(stopped, whole) > 1e-4
