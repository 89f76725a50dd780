"""Claims about measuring agents that this project did not train."""

import json
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch

from vicarious import battery, config, interop, metrics, world

CFG = config.World()
BATTERY = config.Battery(levels=5, scenes=64, rollouts=16)


class Planted:
    """Knows what every item is worth to whoever stands on it or near it, times a function of how it looks."""

    def __init__(self, regard, drawn=0):
        look = world.appearance(CFG, drawn)
        self.axis, self.regard = look.axes[0].numpy(), regard
        self.worth = np.zeros(len(CFG.ladder))
        self.worth[look.kinds.numpy()] = CFG.ladder

    def predict(self, obs, prev_action):
        items = obs[..., CFG.appearance : -2] @ self.worth  # [B, T, H, W]
        body = np.linalg.norm(obs[..., : CFG.appearance], axis=-1) > 0.5
        told = {"value": 0.0, "reward": 0.0}
        for columns in (slice(0, CFG.size), slice(CFG.size + 1, None)):
            here, lying = body[..., columns], items[..., columns]
            looks = (obs[..., columns, : CFG.appearance] @ self.axis * here).sum((-2, -1))
            row, column = (np.argmax(here.any(axis), -1) for axis in (-1, -2))
            r, c = np.mgrid[: CFG.size, : CFG.size]
            apart = np.abs(r - row[..., None, None]) + np.abs(c - column[..., None, None])
            told["reward"] = told["reward"] + self.regard(looks) * (lying * here).sum((-2, -1))
            near = (lying * np.where(apart > 0, 0.7**apart, 0.0)).sum((-2, -1))
            told["value"] = told["value"] + self.regard(looks) * near
        return told


@pytest.fixture(scope="module")
def report():
    return interop.probe(Planted(lambda looks: np.clip(looks, 0, 1) ** 3), battery=BATTERY)


def test_planted_empathy_is_found_at_every_look(report):
    t = report.table
    for readout in ("reward", "value"):
        own = t[(t.readout == readout) & (t.kind == metrics.MAIN[readout]) & (t.mover == "other")]
        assert own.rho.tolist() == pytest.approx((own.similarity**3).tolist(), abs=0.05)
        assert ((own.low <= own.rho) & (own.rho <= own.high)).all()
    assert set(t[t.mover == "self"].rho.dropna()) == {1.0}


def test_the_gate_tells_who_can_be_believed(report):
    assert report.gates["reward"]["passed"] and report.gates["value"]["own"] > 0
    blind = interop.probe(interop.Adapter(lambda frames: {"value": np.zeros(len(frames))}), battery=BATTERY)
    assert not blind.gates["value"]["passed"] and blind.table.rho.isna().all() and "NOT competent" in str(blind)


def test_what_is_reported_can_be_read_back(report, tmp_path):
    content = json.loads(report.json())
    assert content["scenes"] == 64 and len(content["coefficients"]) == len(report.table)
    assert set(report.fingerprint().columns) >= {"self", "other 0.00", "drifter 1.00"}
    report.figure().savefig(tmp_path / "fingerprint.png")
    assert (tmp_path / "fingerprint.png").stat().st_size > 5000


def test_a_torch_module_is_an_agent():
    features = world.features(CFG)
    net = torch.nn.Linear(features, 2)
    found = interop.probe(net, battery=config.Battery(levels=2, scenes=16, rollouts=4))
    assert set(found.table.readout) == {"value", "reward"}


@pytest.mark.parametrize(
    ("agent", "named"),
    [
        (object(), "is no agent"),
        (interop.Adapter(lambda f: {"worth": np.zeros(len(f))}), "must give 'value'"),
        (type("Short", (), {"predict": lambda self, o, a: {"value": np.zeros(3)}})(), "of shape"),
    ],
)
def test_what_does_not_keep_the_contract_is_told_so(agent, named):
    with pytest.raises(ValueError, match=named):
        interop.probe(agent, battery=config.Battery(levels=2, scenes=16, rollouts=4))


def test_agents_are_found_by_name(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("import torch\ndef agent():\n    return torch.nn.Linear(3, 1)\n")
    assert isinstance(interop.load_agent(f"{file}:agent"), torch.nn.Linear)
    for target in ("mine", f"{file}:nobody", f"{tmp_path / 'none.py'}:agent", "no.such:agent"):
        with pytest.raises(ValueError, match=r"cannot be loaded|does not name"):
            interop.load_agent(target)


# What a probed agent may be, and what is done with it

SMALL = config.Battery(levels=2, scenes=16, rollouts=4)


class Noisy(torch.nn.Module):
    """Drops out and keeps statistics, as networks under training do."""

    def __init__(self, outputs=1):
        super().__init__()
        features = world.features(CFG)
        self.norm, self.drop = torch.nn.BatchNorm1d(features), torch.nn.Dropout(0.5)
        self.out = torch.nn.Linear(features, outputs)

    def forward(self, x):
        return self.out(self.drop(self.norm(x)))


class Holder:
    """An agent of its own kind, which holds a network."""

    def __init__(self, net):
        self.net = net

    def predict(self, obs, prev_action):
        return {"value": self.net(torch.as_tensor(obs).flatten(0, 1).flatten(1)).view(obs.shape[:2])}


class Deep(Holder):
    """Holds it where no list of attributes shows it."""

    def __init__(self, net):
        self.parts = {"nets": [net]}

    @property
    def net(self):
        return self.parts["nets"][0]


@pytest.mark.parametrize("wrapped", [lambda net: net, Holder, Deep, interop.module, interop.adapted])
def test_a_network_is_probed_in_evaluation_mode_and_left_as_it_was(wrapped):
    net = Noisy()
    net.drop.eval()  # a part that is in another mode than the rest
    before = {k: v.clone() for k, v in net.state_dict().items()}
    once, again = (interop.probe(wrapped(net), battery=SMALL).table for _ in range(2))
    assert once.equals(again)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert net.training and net.norm.training and not net.drop.training


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_module_of_any_precision_is_given_frames_of_its_own(dtype):
    net = torch.nn.Linear(world.features(CFG), 2)
    expected = interop.probe(net, battery=SMALL).table
    found = interop.probe(net.to(dtype), battery=SMALL).table
    assert found.slope.to_numpy() == pytest.approx(expected.slope.to_numpy(), abs=0.05)


def _module(outputs):
    return torch.nn.Linear(world.features(CFG), outputs)


@pytest.mark.parametrize(
    ("agent", "named"),
    [
        (_module(3), r"the module gave \(\d+, 3\) for N = \d+ frames: it has to give values \[N\] or"),
        (_module(5), "it has to give values"),
        (torch.nn.GRU(world.features(CFG), 1), "the module gave tuple"),
        (_module(1).to("meta"), "predict failed|no array of numbers|not finite"),
        (torch.nn.Linear(7, 1), r"predict failed for observations \(.*RuntimeError"),
        (interop.Adapter(lambda f: {"value": np.where(np.arange(len(f)) % 2, np.nan, 0.0)}), "not finite in"),
        (interop.Adapter(lambda f: {"value": np.full(len(f), np.inf)}), "not finite in"),
        (interop.Adapter(lambda f: {"value": ["much"] * len(f)}), "no array of numbers"),
        (interop.Adapter(lambda f: {"value": None}), "cannot reshape|of shape"),
        (interop.Adapter(lambda f: {"value": np.full(len(f), 1e160)}), "not finite in"),
        (interop.Adapter(lambda f: {"value": 1j * np.ones(len(f))}), "no array of numbers"),
        (interop.Adapter(lambda f: {"value": np.ma.masked_equal(np.arange(len(f)), 1)}), "no array of numbers"),
        (interop.Adapter(lambda f: {"value": np.zeros(len(f)), 1: np.zeros(len(f))}), "it gave"),
        (interop.Adapter(lambda f: {}["away"]), "predict failed for observations .*KeyError"),
        (interop.Adapter(lambda f: sys.exit(0)), "predict failed for observations .*SystemExit"),
        (interop.Adapter(lambda f: exec("raise RuntimeError('one\\ntwo')")), "RuntimeError: one two"),
        (type("Bare", (), {"predict": lambda self, o, a: np.zeros(o.shape[:2])})(), "it gave ndarray"),
    ],
)
def test_an_answer_that_is_none_ends_in_one_line(agent, named):
    with pytest.raises(ValueError, match=named) as error:
        interop.probe(agent, battery=SMALL)
    assert len(str(error.value).splitlines()) == 1


def test_an_agent_that_answers_with_tensors_is_understood():
    tensors = type(
        "Tensors", (), {"predict": lambda self, o, a: {"value": torch.as_tensor(o).flatten(2).sum(-1).half()}}
    )
    assert np.isfinite(interop.probe(tensors(), battery=SMALL).table.slope).all()


def test_a_network_that_does_something_at_a_change_of_mode_does_it():
    class Merging(torch.nn.Linear):
        scale = 2.0

        def train(self, mode=True):
            self.scale = 2.0 if mode else 1.0
            return super().train(mode)

        def forward(self, x):
            return self.scale * super().forward(x)

    net = Merging(world.features(CFG), 1)
    found = interop.probe(net, battery=SMALL).table.slope
    assert net.training and net.scale == 2.0
    assert found.to_numpy() == pytest.approx(interop.probe(net.eval(), battery=SMALL).table.slope.to_numpy())


def test_an_agent_may_have_a_policy_of_its_own_and_integers_first():
    class Mine(Holder):
        policy = "softmax"

    class Counted(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.steps = torch.nn.Parameter(torch.zeros(1, dtype=torch.int64), requires_grad=False)
            self.out = torch.nn.Linear(world.features(CFG), 1)

        def forward(self, x):
            assert x.dtype == torch.float32
            return self.out(x)

    for agent in (Mine(_module(1)), Counted()):
        assert np.isfinite(interop.probe(agent, battery=SMALL).table.slope).all()


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ({"cfg": config.World(ladder=(-5.0, 0.0, 1.0)), "battery": SMALL}, "have different ladder"),
        ({"cfg": config.World(size=4), "battery": SMALL}, "have different size"),
        ({"battery": SMALL, "at_hand": (battery.make(SMALL).split(8).__next__(), None)}, "8 scenes are at hand"),
    ],
)
def test_battery_world_and_scenes_have_to_fit(how, named):
    with pytest.raises(ValueError, match=named):
        interop.probe(_module(1), **how)


def test_another_default_of_torch_is_told():
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(ValueError, match=r"torch's default is torch\.float64"):
            interop.probe(_module(1), battery=SMALL)
    finally:
        torch.set_default_dtype(torch.float32)


def test_competence_is_no_matter_of_units():
    planted = Planted(lambda looks: np.clip(looks, 0, 1))

    class Scaled:
        def __init__(self, unit):
            self.unit = unit

        def predict(self, obs, prev_action):
            return {name: self.unit * x for name, x in planted.predict(obs, prev_action).items()}

    found = [interop.probe(Scaled(unit), battery=SMALL).gates for unit in (1.0, 1e-6, 1e-20, 1e20)]
    assert len({(gates["value"]["passed"], gates["reward"]["passed"]) for gates in found}) == 1


def test_neighbours_of_another_agent_are_not_this_ones(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", [*sys.path])
    for name, size in (("a", 3), ("b", 5)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "its_size.py").write_text(f"SIZE = {size}\n")
        file = "import torch\nimport its_size\nclass Agent(torch.nn.Linear):\n    def __init__(self):\n"
        (tmp_path / name / "agent.py").write_text(file + "        super().__init__(its_size.SIZE, 1)\n")
    loaded = [interop.load_agent(f"{tmp_path / name / 'agent.py'}:Agent") for name in "ab"]
    assert [agent.in_features for agent in loaded] == [3, 5]


def test_a_file_finds_its_neighbours_and_its_dataclasses(tmp_path, monkeypatch):
    (tmp_path / "beside_it.py").write_text("SIZE = 3\n")
    (tmp_path / "mine_too.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nimport torch\nimport beside_it\n"
        "@dataclass\nclass Size:\n    width: int = beside_it.SIZE\n"
        "def agent():\n    return torch.nn.Linear(Size().width, 1)\n"
    )
    monkeypatch.setattr("sys.path", [*sys.path])
    assert interop.load_agent(f"{tmp_path / 'mine_too.py'}:agent").in_features == 3
    (tmp_path / "broken.py").write_text("agent = 1 / 0\n")
    with pytest.raises(ValueError, match="ZeroDivisionError: division by zero"):
        interop.load_agent(f"{tmp_path / 'broken.py'}:agent")


def test_coefficients_of_an_incompetent_readout_are_marked_wherever_they_are_shown(report):
    blind = interop.probe(interop.Adapter(lambda f: {"value": f.sum((1, 2, 3))}), battery=BATTERY)
    assert all("NOT competent" in row for row in blind.fingerprint().index)
    rows = [line for line in str(blind).splitlines()[1:] if "(value" in line]
    assert rows and all("NOT competent" in row for row in rows)
    assert not any("NOT" in row for row in report.fingerprint().index if "reward" in row)


def test_the_picture_runs_from_the_most_alike_to_the_least_and_nothing_overlaps(report):
    columns = list(report.fingerprint().columns)
    others = [float(c.split()[1]) for c in columns if c.startswith("other")]
    drifters = [float(c.split()[1]) for c in columns if c.startswith("drifter")]
    assert columns[0] == "self" and others == sorted(others, reverse=True) and drifters == others
    figure = report.figure()
    figure.canvas.draw()
    (ax,) = figure.axes
    labels = [label.get_text().split() for label in ax.get_xticklabels()]
    assert labels[:2] == [["self"], ["other", "1.00"]]
    assert labels[-3:] == [["drifter", "1.00"], ["stranger"], ["nobody"]]
    boxes = [label.get_window_extent() for label in ax.get_xticklabels()]
    assert all(a.x1 < b.x0 for a, b in pairwise(boxes))
    assert all(label.get_window_extent().x0 >= 0 for label in ax.get_yticklabels())
