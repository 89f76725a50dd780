"""The battery on an agent that this project did not train: what it predicts for itself, for others, for drifters.

The contract is `ExternalAgent`: observations and actions in, values and optionally rewards out.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from .. import battery as stimuli
from .. import config, drawings, metrics, stats, world
from ..battery import CONTACTS, PHASES

CHUNK = 256  # sequences at a time
RESAMPLES = 1999
OUTPUTS = ("value", "reward")
Predictions = list[tuple[str, float, np.ndarray]]  # (mover, similarity, [X, K, n, phases]) of a readout, self first


@runtime_checkable
class ExternalAgent(Protocol):
    """What an agent has to be able to do.

    obs [B, T, H, W, C] are frames as `vicarious.interop.envs` gives them; prev_action [B, T] what the self did before
    each, 0 for nothing yet, else 1 + the action.  Returns {"value": [B, T]}, the discounted reward that is expected
    after a frame, and optionally {"reward": [B, T]}, that of the frame itself.  An agent that sees single frames
    ignores T.
    """

    def predict(self, obs: np.ndarray, prev_action: np.ndarray) -> Mapping[str, np.ndarray]: ...


@dataclass(frozen=True)
class Adapter:
    """An external agent made of a function of single frames: frames [N, H, W, C] -> {readout: [N]}."""

    function: Callable[[np.ndarray], Mapping[str, np.ndarray]]

    def predict(self, obs: np.ndarray, prev_action: np.ndarray) -> dict[str, np.ndarray]:
        predicted = self.function(obs.reshape(-1, *obs.shape[2:]))
        return {name: np.asarray(x).reshape(obs.shape[:2]) for name, x in predicted.items()}


def stable_baselines(model: Any) -> Adapter:
    """A Stable-Baselines3 actor-critic (its value) or DQN (its largest Q), trained on `vicarious.interop.envs`."""

    def predict(frames: np.ndarray) -> dict[str, np.ndarray]:
        seen, _ = model.policy.obs_to_tensor(frames)
        if hasattr(model, "q_net"):
            return {"value": model.q_net(seen).max(1).values.cpu().numpy()}
        return {"value": model.policy.predict_values(seen).flatten().cpu().numpy()}

    if not hasattr(model, "q_net") and not hasattr(model.policy, "predict_values"):
        raise ValueError(f"{type(model).__name__} has neither a value function nor Q: write an ExternalAgent for it")
    return Adapter(predict)


def module(net: torch.nn.Module) -> Adapter:
    """A torch module: frames [N, H * W * C] -> values [N] or [N, 1], or [N, 2] with rewards beside them."""

    def predict(frames: np.ndarray) -> dict[str, np.ndarray]:
        out = net(torch.as_tensor(frames).flatten(1))
        out = out[:, None] if out.ndim == 1 else out
        return {name: out[:, i].cpu().numpy() for i, name in enumerate(OUTPUTS[: out.shape[1]])}

    return Adapter(predict)


def adapted(agent: Any) -> ExternalAgent:
    """The agent itself if it is one, else by an adapter.  Raises ValueError where none fits."""
    if isinstance(agent, ExternalAgent) and not hasattr(agent, "policy"):
        return agent
    if hasattr(agent, "policy"):
        return stable_baselines(agent)
    if isinstance(agent, torch.nn.Module):
        return module(agent)
    raise ValueError(f"{type(agent).__name__} is no agent: it needs predict(obs, prev_action) -> {{'value': ...}}")


@dataclass(frozen=True)
class Report:
    """What was found.

    table: readout, kind, mover, similarity, rho, low, high: the slope of the prediction on what the item is worth over
    the self's own, with 95% bootstrap intervals over scenes; NaN where the self's own cannot be told from 0.
    gates: per readout the own slope with its interval, for values their correlation with those of the scripted conduct,
    and whether the agent is competent enough for rho to mean anything.
    """

    table: pd.DataFrame
    gates: dict[str, dict[str, Any]]
    scenes: int

    def fingerprint(self) -> pd.DataFrame:
        """rho, a row a kind and readout, a column a mover and similarity."""
        named = self.table.assign(
            row=self.table.kind + " (" + self.table.readout + ")",
            column=self.table.mover.where(
                self.table.mover == "self", self.table.mover + self.table.similarity.map(" {:.2f}".format)
            ),
        )
        wide = named.pivot(index="row", columns="column", values="rho")
        return wide[list(dict.fromkeys(named.column))].loc[list(dict.fromkeys(named.row))]

    def figure(self) -> plt.Figure:
        """The fingerprint as a picture: others from the most alike to the least, then one drifter."""
        wide = self.fingerprint()
        others = [c for c in wide if c.startswith("other")][::-1]
        drifter = [c for c in wide if c.startswith("drifter")][-2:-1]
        return drawings.fingerprint({f"{self.scenes} scenes": wide[["self", *others, *drifter]]})

    def json(self) -> str:
        rows = [
            {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()}
            for row in self.table.round(4).to_dict("records")
        ]
        return json.dumps({"scenes": self.scenes, "gates": self.gates, "coefficients": rows}, indent=1)

    def __str__(self) -> str:
        lines = []
        for readout, gate in self.gates.items():
            verdict = "competent" if gate["passed"] else "NOT competent: its coefficients mean nothing"
            predicted = "" if gate["agreement"] is None else f", r = {gate['agreement']:.2f} with the true value"
            lines.append(
                f"{readout}: own slope {gate['own']:.2f} [{gate['low']:.2f}, {gate['high']:.2f}]{predicted}; {verdict}"
            )
        return "\n".join([*lines, self.fingerprint().round(2).to_string(na_rep="-")])


def probe(
    agent: Any,
    cfg: config.World | None = None,
    drawn: int = 0,
    battery: config.Battery | None = None,
    at_hand: tuple[stimuli.Scenes, torch.Tensor] | None = None,
) -> Report:
    """Show an agent the battery, drawn as its own seed draws it (`drawn`, as in `vicarious.interop.envs`), and report.

    at_hand: the battery's templates and V_pi [X, K, n, phases] of the self; else they are drawn and simulated, which
    takes most of the time.

    The value's truth is that of the scripted conduct, which is not the agent's own; so the gate asks for a correlation
    with it and for an own slope above 0, not for its size, and coefficients are over the agent's own slope.
    """
    cfg = cfg or config.World()
    rules = {k: getattr(cfg, k) for k in ("size", "ladder", "max_items", "respawn")}  # not how it is drawn
    battery = battery or config.Battery(levels=7, scenes=256, world=config.World(**rules))
    external, (scenes, truth) = adapted(agent), at_hand or _drawn(battery)
    shape = (len(CONTACTS), len(cfg.ladder), len(scenes), len(PHASES))
    predictions: dict[str, Predictions] = {}
    for mover, s, obs, prev_action in stimuli.stimuli(battery, scenes, cfg, world.appearance(cfg, drawn)):
        for readout, out in _ask(external, obs, prev_action, (*world.grid(cfg), -1)).items():
            predictions.setdefault(readout, []).append((mover, s, out.reshape(shape)))
    parts = [_coefficients(readout, own, cfg.ladder) for readout, own in predictions.items()]
    gates = {readout: _gate(readout, own, cfg.ladder, truth.numpy()) for readout, own in predictions.items()}
    return Report(pd.concat(parts, ignore_index=True), gates, len(scenes))


def _drawn(battery: config.Battery) -> tuple[stimuli.Scenes, torch.Tensor]:
    scenes = stimuli.make(battery)
    return scenes, stimuli.true_returns(battery, scenes)[..., 0]


@torch.no_grad()
def _ask(external: ExternalAgent, obs: torch.Tensor, prev_action: torch.Tensor, grid: tuple) -> dict[str, np.ndarray]:
    """Predictions [B, phases] to scenes [B, T, F], by readout."""
    parts: dict[str, list[np.ndarray]] = {}
    for o, a in zip(obs.split(CHUNK), prev_action.split(CHUNK), strict=True):
        predicted = external.predict(o.view(*o.shape[:2], *grid).numpy(), a.numpy())
        if "value" not in predicted or set(predicted) - set(OUTPUTS):
            raise ValueError(f"predict must give 'value' and may give 'reward'; it gave {sorted(predicted)}")
        for name, x in predicted.items():
            if np.shape(x) != tuple(o.shape[:2]):
                raise ValueError(f"predict gave {name} of shape {np.shape(x)} for {tuple(o.shape[:2])} frames")
            parts.setdefault(name, []).append(np.asarray(x, float)[:, -len(PHASES) :])
    return {name: np.concatenate(own) for name, own in parts.items()}


def _slopes(
    predictions: Predictions, kind: metrics.Kind, ladder: tuple[float, ...]
) -> dict[tuple[str, float], np.ndarray]:
    """Slopes scene by scene [n] of one kind, by mover and similarity; the self comes first."""
    return {(m, s): metrics.scene_slope(x, kind, ladder, CONTACTS, PHASES) for m, s, x in predictions}


def _coefficients(readout: str, predictions: Predictions, ladder: tuple[float, ...]) -> pd.DataFrame:
    """Every kind's coefficients: means over scenes over the self's, the same scenes drawn again for all."""
    scenes = predictions[0][2].shape[2]
    drawn = np.random.default_rng(0).integers(scenes, size=(RESAMPLES, scenes))
    tails, rows = [50 * (1 - stats.LEVEL), 50 * (1 + stats.LEVEL)], []
    for name, kind in metrics.KINDS[readout].items():
        slopes = _slopes(predictions, kind, ladder)
        own = slopes["self", 1.0]
        low, high = np.percentile(own[drawn].mean(1), tails)
        for (mover, s), x in slopes.items():
            found = [np.nan] * 3
            if low > 0 or high < 0:
                found = [x.mean() / own.mean(), *np.percentile(x[drawn].mean(1) / own[drawn].mean(1), tails)]
            rows.append((readout, name, mover, s, float(x.mean()), *map(float, found)))
    return pd.DataFrame(rows, columns=["readout", "kind", "mover", "similarity", "slope", "rho", "low", "high"])


def _gate(readout: str, predictions: Predictions, ladder: tuple[float, ...], truth: np.ndarray) -> dict[str, Any]:
    """The self's own slope over scenes, and for values their correlation [] with V_pi [X, K, n, phases]."""
    own = predictions[0][2]
    found = stats.interval(_slopes(predictions[:1], metrics.KINDS[readout]["empathy"], ladder)["self", 1.0])
    r = float(np.corrcoef(own.ravel(), truth.ravel())[0, 1]) if readout == "value" and own.std() > 0 else None
    passed = found.low > 0 and (readout == "reward" or (r is not None and r >= metrics.AGREEMENT))
    numbers = {"own": found.estimate, "low": found.low, "high": found.high, "agreement": r}
    return {**{k: None if v is None else round(v, 4) for k, v in numbers.items()}, "passed": bool(passed)}


def load_agent(target: str) -> Any:
    """The object that `package.module:name` or `file.py:name` names; called if it is a function.  Raises ValueError."""
    place, _, name = target.rpartition(":")
    if not place or not name:
        raise ValueError(f"{target} does not name an agent: say package.module:name or file.py:name")
    try:
        if place.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(place).stem, place)
            found = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(found)
        else:
            found = importlib.import_module(place)
        agent = getattr(found, name)
    except (ImportError, OSError, AttributeError) as error:
        raise ValueError(f"{target} cannot be loaded: {error}") from None
    is_factory = callable(agent) and not hasattr(agent, "predict") and not isinstance(agent, torch.nn.Module)
    return agent() if is_factory else agent
