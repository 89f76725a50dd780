"""Claims about measuring agents that this project did not train."""

import json

import numpy as np
import pytest
import torch

from vicarious import config, interop, world

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
        items = obs[..., CFG.appearance : -1] @ self.worth  # [B, T, H, W]
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
        own = t[(t.readout == readout) & (t.kind == "empathy") & (t.mover == "other")]
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
