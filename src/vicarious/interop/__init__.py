"""The battery on an agent that this project did not train: what it predicts for itself, for others, for drifters.

The contract is `ExternalAgent`: observations and actions in, values and optionally rewards out.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from .. import battery as stimuli
from .. import config, drawings, metrics, stats, world
from ..battery import CONTACTS, PHASES
from ..train import evaluating

CHUNK = 256  # sequences at a time
RESAMPLES = 1999
OUTPUTS = ("value", "reward")
UNCHANGED = (  # wrappers that leave observations as they are
    *("VecMonitor", "VecCheckNan", "VecVideoRecorder", "Monitor", "TimeLimit", "OrderEnforcing", "PassiveEnvChecker"),
    *("RecordEpisodeStatistics", "RecordVideo", "Autoreset", "NormalizeReward", "TransformReward", "ClipReward"),
)
LARGEST = 1e30  # prediction
FOLDERS: set[Path] = set()  # of agents' files that were loaded
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
    """An external agent made of a function of single frames: frames [N, ...] -> {readout: [N]}.

    prepare: what is done to the observations of whole sequences before, [B, T, H, W, C] -> [B, T, ...].
    """

    function: Callable[[np.ndarray], Mapping[str, Any]]
    prepare: Callable[[np.ndarray], np.ndarray] = np.asarray

    def predict(self, obs: np.ndarray, prev_action: np.ndarray) -> dict[str, np.ndarray]:
        seen = self.prepare(obs)
        predicted = self.function(seen.reshape(-1, *seen.shape[2:]))
        return {name: _array(name, x).reshape(obs.shape[:2]) for name, x in predicted.items()}


def _array(name: str, x: Any) -> np.ndarray:
    """Predictions as an array of float64, whatever holds them on whichever device.  Raises ValueError."""
    try:
        found = np.asanyarray(x.detach().cpu().double() if torch.is_tensor(x) and not x.is_complex() else x)
        if found.dtype.kind not in "biufO" or np.ma.is_masked(found):
            raise ValueError("masked" if np.ma.is_masked(found) else f"of type {found.dtype}")
        return np.asarray(found, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"predict gave {name} as {type(x).__name__}, which is no array of numbers ({error})") from None


def stable_baselines(model: Any) -> Adapter:
    """A Stable-Baselines3 actor-critic (its value) or DQN (its largest Q), trained on `vicarious.interop.envs`.

    It sees what its own environment makes of the chambers: normalised or stacked frames.
    """
    kind, policy = type(model).__name__, model.policy
    if not hasattr(model, "q_net") and not hasattr(policy, "predict_values"):
        raise ValueError(f"{kind} has neither a value function nor Q: write an ExternalAgent for it")
    if hasattr(policy, "lstm_actor"):
        raise ValueError(f"{kind} is recurrent: write an ExternalAgent that carries its state through a sequence")
    if (env := model.get_env()) is None:
        lost = f"{kind} was loaded without its environment, which knows whether its observations were normalised"
        raise ValueError(f"{lost}: load it with one, {kind}.load(PATH, env=VecNormalize.load(STATISTICS, Worlds(...)))")

    def function(frames: np.ndarray) -> dict[str, torch.Tensor]:
        seen, _ = policy.obs_to_tensor(frames)
        return {"value": model.q_net(seen).amax(1) if hasattr(model, "q_net") else policy.predict_values(seen)}

    return Adapter(function, _preprocessing(env))


def _preprocessing(env: Any) -> Callable[[np.ndarray], np.ndarray]:
    """What an environment's wrappers make of observations [B, T, ...].  Raises ValueError for those not known here."""
    steps: list[Callable[[np.ndarray], np.ndarray]] = []
    while hasattr(env, "venv"):
        kind = type(env).__name__
        if kind == "VecNormalize":
            if env.norm_obs and env.obs_rms.count < 1:
                raise ValueError("the agent's VecNormalize has seen nothing yet: give it that of its training")
            steps.insert(0, env.normalize_obs)
        elif kind == "VecFrameStack":
            steps.insert(0, partial(_stacked, count=env.stacked_obs.n_stack, axis=env.stacked_obs.repeat_axis))
        elif kind not in UNCHANGED:
            raise ValueError(f"the agent sees through {kind}, which is not known here: write an ExternalAgent for it")
        env = env.venv
    if not hasattr(env, "envs") and not hasattr(env, "chambers"):
        kind = type(env).__name__
        raise ValueError(f"what the agent sees through is out of sight in {kind}: load it with a DummyVecEnv or Worlds")
    for single in getattr(env, "envs", []):
        while hasattr(single, "env"):
            if (kind := type(single).__name__) not in UNCHANGED:
                raise ValueError(f"the agent sees through {kind}, which is not known here: use VecNormalize or none")
            single = single.env
    return lambda obs: reduce(lambda seen, step: step(seen), steps, obs)


def _stacked(obs: np.ndarray, count: int, axis: int) -> np.ndarray:
    """Every frame of [B, T, ...] after those before it, oldest first, nothing before the first."""
    padded = np.concatenate([np.zeros_like(obs[:, :1])] * (count - 1) + [obs], 1)
    return np.concatenate([padded[:, i : i + obs.shape[1]] for i in range(count)], axis if axis < 0 else axis + 2)


def module(net: torch.nn.Module) -> Adapter:
    """A torch module: frames [N, H * W * C] -> values [N] or [N, 1], or [N, 2] with rewards beside them.

    Frames are given in the type and on the device of its first parameter that is no integer.
    """

    def function(frames: np.ndarray) -> dict[str, torch.Tensor]:
        like = next((p for p in net.parameters() if p.is_floating_point()), torch.empty(0))
        out = net(torch.as_tensor(frames).flatten(1).to(like))
        shape = tuple(out.shape) if torch.is_tensor(out) else type(out).__name__
        if shape not in ((len(frames),), (len(frames), 1), (len(frames), 2)):
            wanted = "values [N] or [N, 1], or [N, 2] with rewards beside them"
            raise ValueError(f"the module gave {shape} for N = {len(frames)} frames: it has to give {wanted}")
        return dict(zip(OUTPUTS, out.view(len(frames), -1).unbind(1), strict=False))

    return Adapter(function)


def adapted(agent: Any) -> ExternalAgent:
    """The agent itself if it is one, else by an adapter.  Raises ValueError where none fits."""
    if hasattr(agent, "policy") and hasattr(agent, "get_env"):
        return stable_baselines(agent)
    if isinstance(agent, ExternalAgent):
        return agent
    if isinstance(agent, torch.nn.Module):
        return module(agent)
    raise ValueError(f"{type(agent).__name__} is no agent: it needs predict(obs, prev_action) -> {{'value': ...}}")


def _networks(agent: Any) -> list[torch.nn.Module]:
    """The torch modules that an agent is, or holds as attributes."""
    return [x for x in (agent, *getattr(agent, "__dict__", {}).values()) if isinstance(x, torch.nn.Module)]


def _check_world(agent: Any, cfg: config.World, drawn: int) -> None:
    """Raises ValueError where an agent's own environment is drawn in another way than the battery will be."""
    env = getattr(agent, "get_env", lambda: None)()
    while hasattr(env, "venv"):
        env = env.venv
    inside = getattr(env, "envs", [env])[0]
    own = getattr(getattr(inside, "unwrapped", inside), "chambers", None)
    if own is None:
        return
    here = world.appearance(cfg, drawn)
    same = all(torch.equal(getattr(own.appearance, name), getattr(here, name)) for name in ("axes", "kinds"))
    if own.cfg.view != cfg.view or not same:
        wanted = f"probe it with its view ({own.cfg.view}) and drawn"
        raise ValueError(f"the agent's world is drawn in another way: {wanted}")


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
        """rho: a row a kind and readout, marked where the agent is not competent; a column a mover, others and then
        drifters from the most alike to the least."""
        doubted = {name: "" if gate["passed"] else ", NOT competent" for name, gate in self.gates.items()}
        order = {mover: place for place, mover in enumerate(stimuli.MOVERS)}
        named = self.table.assign(
            row=self.table.kind + " (" + self.table.readout + self.table.readout.map(doubted) + ")",
            column=self.table.mover.where(
                ~self.table.mover.isin(stimuli.OTHERS), self.table.mover + self.table.similarity.map(" {:z.2f}".format)
            ),
            at=self.table.mover.map(order) - self.table.similarity / 2,
        ).sort_values("at", kind="stable")
        wide = named.pivot(index="row", columns="column", values="rho")
        rows = named.sort_index().row
        return wide[list(dict.fromkeys(named.column))].loc[list(dict.fromkeys(rows))]

    def figure(self) -> plt.Figure:
        """The fingerprint as a picture: others, most alike first, the drifter most alike, a stranger, nobody."""
        wide = self.fingerprint()
        drifters = [c for c in wide if c.startswith("drifter")]
        shown = wide.drop(columns=["quiet", *stimuli.SIDES, "opposite", *drifters[1:]]).rename(
            columns=lambda c: c.replace(" ", "\n")
        )
        return drawings.fingerprint({f"{self.scenes} scenes": shown})

    def json(self) -> str:
        rows = [
            {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()}
            for row in self.table.round(4).to_dict("records")
        ]
        content = {"scenes": self.scenes, "gates": self.gates, "coefficients": rows}
        return json.dumps(content, indent=1, allow_nan=False)

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
    Torch modules that the agent is or holds are in evaluation mode meanwhile, and then as they were.

    Raises ValueError where what it predicts is not finite numbers of the right shape, or where it was trained in a
    world that is drawn in another way.
    """
    cfg = cfg or config.World()
    if torch.get_default_dtype() != torch.float32:
        raise ValueError(f"torch's default is {torch.get_default_dtype()}: the chambers need torch.float32")
    rules = {k: getattr(cfg, k) for k in ("size", "ladder", "max_items", "appear", "vanish", "best")}  # not how drawn
    battery = battery or config.Battery(levels=7, scenes=256, world=config.World(**rules))
    config.same_chambers(battery, config.Episodes(seed=drawn, world=cfg))
    external, (scenes, truth) = adapted(agent), at_hand or (stimuli.make(battery), None)
    _check_world(agent, cfg, drawn)
    if len(scenes) != battery.scenes:
        raise ValueError(f"{len(scenes)} scenes are at hand, and the battery has {battery.scenes}")
    shape = (len(CONTACTS), len(cfg.ladder), len(scenes), len(PHASES))
    predictions: dict[str, Predictions] = {}
    with evaluating(_networks(agent)):
        for mover, s, obs, prev_action in stimuli.stimuli(battery, scenes, cfg, world.appearance(cfg, drawn)):
            for readout, out in _ask(external, obs, prev_action, (*world.grid(cfg), -1)).items():
                predictions.setdefault(readout, []).append((mover, s, out.reshape(shape)))
    truth = stimuli.true_returns(battery, scenes)[..., 0] if truth is None else truth  # takes long: last
    parts = [_coefficients(readout, own, cfg.ladder) for readout, own in predictions.items()]
    gates = {readout: _gate(readout, own, cfg.ladder, truth.numpy()) for readout, own in predictions.items()}
    return Report(pd.concat(parts, ignore_index=True), gates, len(scenes))


@torch.no_grad()
def _ask(external: ExternalAgent, obs: torch.Tensor, prev_action: torch.Tensor, grid: tuple) -> dict[str, np.ndarray]:
    """Predictions [B, phases] to scenes [B, T, F], by readout.  Raises ValueError where they break the contract."""
    parts: dict[str, list[np.ndarray]] = {}
    for o, a in zip(obs.split(CHUNK), prev_action.split(CHUNK), strict=True):
        frames = o.view(*o.shape[:2], *grid).numpy()
        try:
            predicted = external.predict(frames, a.numpy())
        except (Exception, SystemExit) as error:
            why = " ".join(str(error).split())
            raise ValueError(
                f"predict failed for observations {frames.shape}: {type(error).__name__}: {why}"
            ) from error
        given = sorted(map(str, predicted)) if isinstance(predicted, Mapping) else type(predicted).__name__
        if "value" not in given or set(given) - set(OUTPUTS):
            raise ValueError(f"predict must give 'value' and may give 'reward'; it gave {given}")
        for name, x in predicted.items():
            found = _array(name, x)
            if found.shape != frames.shape[:2]:
                raise ValueError(f"predict gave {name} of shape {found.shape} for {frames.shape[:2]} frames")
            if wrong := int((~(np.abs(found) < LARGEST)).sum()):
                raise ValueError(f"predict gave {name} that is not finite in {wrong:,} of {found.size:,} frames")
            parts.setdefault(name, []).append(found[:, -len(PHASES) :])
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
    """The self's own slope over scenes in which the other has nothing, and for values their correlation [] with V_pi
    [X, K, n, phases]."""
    quiet = [condition for condition in predictions if condition[0] == "quiet"]
    own, slopes = quiet[0][2], _slopes(quiet, metrics.KINDS[readout][metrics.MAIN[readout]], ladder)["quiet", 1.0]
    size = np.abs(slopes).max() or 1.0
    unit = stats.interval(slopes / size)  # competence is no matter of units
    found = stats.Interval(unit.estimate * size, unit.low * size, unit.high * size, unit.n)
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
        agent = getattr(_module_of(place), name)
        has_answers = hasattr(agent, "predict") or isinstance(agent, torch.nn.Module)
        return agent() if isinstance(agent, type) or (callable(agent) and not has_answers) else agent
    except (Exception, SystemExit) as error:  # of whatever is in that file
        why = " ".join(str(error).split())
        raise ValueError(f"{target} cannot be loaded: {type(error).__name__}: {why}") from error


def _module_of(place: str) -> ModuleType:
    """The module of a file, which finds its neighbours as `python FILE.py` would, or of a name (as `python -m`)."""
    path = Path(place).resolve()
    is_file = path.suffix == ".py"
    folder = path.parent if is_file else Path.cwd()
    for name, known in list(sys.modules.items()):  # neighbours of another agent are not this one's
        origin = getattr(known, "__file__", None)
        if origin and Path(origin).parent in FOLDERS - {folder}:
            del sys.modules[name]
    FOLDERS.add(folder)
    sys.path.insert(0, str(folder))
    if not is_file:
        return importlib.import_module(place)
    name = path.stem if path.stem not in sys.modules else f"{path.stem} of {path.parent}"
    spec = importlib.util.spec_from_file_location(name, path)
    found = importlib.util.module_from_spec(spec)
    sys.modules[name] = found  # dataclasses and pickles look their module up
    try:
        spec.loader.exec_module(found)
    except BaseException:
        del sys.modules[name]
        raise
    return found
