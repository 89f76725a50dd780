"""How every stage is computed, and the one way to get a result: published, else cached, else computed now.

`STAGES` says of every stage how it is computed, what it needs beside the stages it stands on, and what it is trained
together with; `Workspace.produce` computes and stores, and `Workspace` keeps in memory what several stages use.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
import torch

from . import battery as stimuli
from . import codes, config, episodes, heads, interventions, models, ordinary
from .config import Stage
from .store import Store
from .train import one_thread, stacks

MEASURE = ["measure", "mover", "similarity", "value"]  # columns of every table of measures


@dataclass(frozen=True)
class Output:
    """What computing one result gives: tidy tables by kind, weights, and notes for its manifest."""

    tables: dict[str, pd.DataFrame]
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """How a stage is computed.

    compute: runs of one batch key and the workspace -> an output of each.  batch_key: runs that share it train as one
    population on CUDA; None where nothing is trained together.  needs: results beside those of the stages that a run
    stands on.  extent: what its seconds are proportional to.
    """

    compute: Callable[[list[Stage], Workspace], list[Output]]
    extent: Callable[[Stage], float]
    batch_key: Callable[[Stage], str] | None = None
    needs: Callable[[Stage], list[Stage]] = lambda run: []


class Workspace:
    """Results of a store, each read or computed when first asked for, and what is made of them kept in memory.

    dtype: of the networks that it hands out; in float64 every processor predicts the same to ten digits.

    >>> lab = Workspace(Store())
    >>> model = config.Model(data=config.Episodes(seed=0))
    >>> head = lab.heads(config.Heads(model=model))
    """

    def __init__(self, store: Store, device: str = "cpu", quiet: bool = True, dtype: torch.dtype = torch.float32):
        self.store, self.device, self.quiet, self.dtype = store, device, quiet, dtype
        self._kept: dict[Stage, dict[tuple, Any]] = {}

    def produce(self, runs: Iterable[Stage], done: Callable[[], None] = lambda: None) -> None:
        """Compute and store what is missing of these runs and of what they need.

        On CUDA runs of one batch key train as one population; on a CPU each result is stored the moment it is whole.
        What is kept in memory of a world model goes with its last run.
        """
        device = torch.cuda.device(self.device) if self.device.startswith("cuda") else contextlib.nullcontext()
        with one_thread(), device:
            todo = needed(runs, self.store)
            trained = [kind for kind, recipe in STAGES.items() if recipe.batch_key]
            alone = [run for run in todo if run.stage not in trained]
            shared = [run for run in alone if run.find(config.Model) is None]
            groups = [[run] for run in shared]
            groups += [group for kind in trained for group in self._together([r for r in todo if r.stage == kind])]
            for group in groups:
                self._compute(group)
                done()
            for model in dict.fromkeys(run.find(config.Model) for run in alone if run not in shared):
                for run in alone:
                    if run.find(config.Model) == model:
                        self._compute([run])
                        done()
                self.release(model)

    def _together(self, runs: list[Stage]) -> list[list[Stage]]:
        groups: dict[str, list[Stage]] = {}
        for run in runs:
            key = STAGES[run.stage].batch_key(run) if stacks(torch.device(self.device)) else run.address
            groups.setdefault(key, []).append(run)
        return list(groups.values())

    def _compute(self, group: list[Stage]) -> None:
        start, recipe = time.perf_counter(), STAGES[group[0].stage]
        outputs = recipe.compute(group, self)
        seconds = (time.perf_counter() - start) / len(group)
        for run, output in zip(group, outputs, strict=True):
            notes = {"population": len(group)} if recipe.batch_key else {}
            if (battery := run.find(config.Battery)) is not None:
                notes["battery"] = self.scenes(battery)[0].digest if run is not battery else None
            notes |= output.notes
            self.store.write(run, seconds, output.tables, output.weights, self.device, **notes)

    def keep(self, owner: Stage, key: tuple, make: Callable[[], Any]) -> Any:
        """What `make` gives, made once and kept until its owner is released."""
        kept = self._kept.setdefault(owner, {})
        if key not in kept:
            with one_thread():
                kept[key] = make()
        return kept[key]

    def release(self, model: config.Model) -> None:
        """Let go of everything of one world model."""
        self._kept.pop(model, None)

    def weights(self, run: Stage) -> dict[str, torch.Tensor]:
        """Tensors of a result."""
        if not self.store.has(run.address, weights=True):
            self.produce([run])
        return self.store.read(run.address, weights=True).weights

    def model(self, cfg: config.Model) -> torch.nn.Module:
        """The frozen world model."""

        def load() -> torch.nn.Module:
            model = models.build(cfg)
            model.load_state_dict(self.weights(cfg))
            return model.requires_grad_(False).eval().to(self.device, self.dtype)

        return self.keep(cfg, ("model",), load)

    def latents(self, cfg: config.Heads) -> tuple[heads.Latents, episodes.Batch]:
        """Codes of all episodes that heads may learn from, and the episodes without their observations."""

        def encode() -> tuple[heads.Latents, episodes.Batch]:
            whole = episodes.collect(cfg.data, self.device)
            data = replace(whole, obs=whole.obs[..., :0].clone())
            z = models.encode(self.model(cfg.model), whole.obs, data.prev_action)
            del whole
            return heads.Latents.of(z), data

        return self.keep(cfg.model, ("latents", cfg.data), encode)

    def heads(self, cfg: config.Heads) -> heads.HeadPair:
        """The trained heads."""
        weights = self.weights(cfg)
        head = heads.HeadPair(len(weights["mean"]), cfg.width, cfg.depth)
        head.load_state_dict(weights)
        return head.requires_grad_(False).eval().to(self.device, self.dtype)

    def scenes(self, battery: config.Battery) -> tuple[stimuli.Scenes, torch.Tensor]:
        """Templates and V_pi of the battery: stored, so that every agent is evaluated on the very same."""

        def load() -> tuple[stimuli.Scenes, torch.Tensor]:
            tensors = dict(self.weights(battery))
            value = tensors.pop("value")
            return stimuli.Scenes(**tensors), value

        return self.keep(battery, ("scenes",), load)

    def returns(self, battery: config.Battery) -> dict[str, torch.Tensor]:
        """What every body really gains [X, K, n, phases, M] in the scenes of every mover."""
        return self.keep(battery, ("returns",), lambda: self.weights(config.Returns(battery=battery)))

    def codes(self, model: config.Model, battery: config.Battery, data: config.Episodes) -> stimuli.CodesOf:
        """A model's codes of every scene of a battery, drawn as in some episodes, encoded once."""

        def encode() -> stimuli.CodesOf:
            scenes = self.scenes(battery)[0].to(self.device)
            return stimuli.encode(self.model(model), battery, scenes, data)

        return self.keep(model, ("codes", battery, data.world.view), encode)

    def pairs(self, model: config.Model, battery: config.Battery, data: config.Episodes) -> interventions.Pairs:
        """A model's codes of self and other in the same pictures, the bodies exchanged."""

        def encode() -> interventions.Pairs:
            scenes = self.scenes(battery)[0].to(self.device)
            return interventions.Pairs.of(self.model(model), battery, scenes, data)

        return self.keep(model, ("pairs", battery, data.world.view), encode)


def missing(runs: Iterable[Stage], store: Store) -> list[Stage]:
    return [run for run in runs if not store.has(run.address)]


def needed(runs: Iterable[Stage], store: Store) -> list[Stage]:
    """Everything that has to be computed for these runs, once, each after what it stands on."""
    found: dict[Stage, None] = {}

    def visit(run: Stage, weights: bool) -> None:
        if run.stage in STAGES and run not in found and not store.has(run.address, weights):
            for part in (*run.parts.values(), *STAGES[run.stage].needs(run)):
                visit(part, True)
            found[run] = None

    for run in runs:
        visit(run, False)
    return list(found)


def _measures(rows: Iterable[tuple[str, float]]) -> pd.DataFrame:
    return pd.DataFrame([(name, "self", 1.0, value) for name, value in rows], columns=MEASURE)


def each(compute: Callable[[Stage, Workspace], Output]) -> Callable[[list[Stage], Workspace], list[Output]]:
    return lambda runs, lab: [compute(run, lab) for run in runs]


def _battery(run: config.Battery, lab: Workspace) -> Output:
    scenes = stimuli.make(run)
    value = stimuli.true_returns(run, scenes)[..., 0].contiguous()
    gains = {"self": torch.stack([value, torch.zeros_like(value)], -1)}
    return Output(
        {"responses": stimuli.truth(run, scenes, gains).assign(step=0)},
        {**scenes.tensors(), "value": value},
        {"battery": scenes.digest},
    )


def _returns(run: config.Returns, lab: Workspace) -> Output:
    scenes, _ = lab.scenes(run.battery)
    gains = {mover: stimuli.true_returns(run.battery, scenes, mover) for mover in ("self", *stimuli.OTHERS)}
    nothing = torch.tensor([1.0, 0.0])  # what there is to gain for an other that has nothing, or does not exist
    gains |= {"quiet": gains["self"] * nothing, "nobody": gains["other"] * nothing}
    table, measures = stimuli.returns(run.battery, gains)
    return Output({"returns": table, "measures": measures}, gains)


def _external(run: config.External, lab: Workspace) -> Output:
    from .interop import sb3  # needs packages of the extra `outsiders`

    model = sb3.train(run)
    return Output(sb3.external_tables(run, model, *lab.scenes(run.battery)), sb3.weights(model))


def _models(runs: list[config.Model], lab: Workspace) -> list[Output]:
    trained = models.train(runs, lab.device, quiet=lab.quiet)
    losses = [_measures((f"{name}_loss", x) for name, x in held_out.items()) for _, held_out in trained]
    return [Output({"measures": own}, model.state_dict()) for (model, _), own in zip(trained, losses, strict=True)]


def _heads(runs: list[config.Heads], lab: Workspace) -> list[Output]:
    latents, data = zip(*(lab.latents(run) for run in runs), strict=True)
    trained = heads.train(runs, latents, data, lab.quiet)
    return [Output({"measures": _measures(held_out.items())}, head.state_dict()) for head, held_out in trained]


def _responses(run: config.Responses, lab: Workspace) -> Output:
    head, encoded = lab.heads(run.heads), lab.codes(run.heads.model, run.battery, run.heads.data)
    table = stimuli.respond(head, encoded, run.heads.model.data.world.ladder).assign(step=run.heads.updates)
    agreement = _measures([("value_r", stimuli.value_agreement(head, encoded, lab.scenes(run.battery)[1]))])
    held_out = lab.store.read(run.heads.address).tables["measures"]
    return Output({"responses": table, "measures": pd.concat([held_out, agreement]).reset_index(drop=True)})


def _interventions(run: config.Interventions, lab: Workspace) -> Output:
    pairs, ladder = lab.pairs(run.heads.model, run.battery, run.heads.data), run.heads.model.data.world.ladder
    table, measures = interventions.run(run, lab.heads(run.heads), pairs, ladder)
    return Output({"interventions": table, "measures": pd.DataFrame(measures, columns=MEASURE)})


def _ordinary(run: config.Ordinary, lab: Workspace) -> Output:
    return Output({"ordinary": ordinary.regress(run, lab.model(run.heads.model), lab.heads(run.heads), lab.device)})


def _codes(run: config.Codes, lab: Workspace) -> Output:
    scenes, encoded = lab.scenes(run.battery)[0], lab.codes(run.model, run.battery, run.model.data)
    return Output({"measures": codes.measure(run, lab.model(run.model), scenes, encoded)})


def _scenes(run: Stage) -> float:
    battery = run.find(config.Battery)
    return battery.scenes * battery.levels


def _fitted(run: config.Codes) -> float:
    return run.fit_scenes * 3 + _scenes(run)


def _frames(run: config.Model) -> float:
    return (run.stop or run.updates) * run.batch * run.data.frames if models.learns(run) else 1e-9


def model_key(run: config.Model) -> str:
    return config.digest([run.own(), {**run.data.own(), "seed": 0}])


STAGES: dict[str, Recipe] = {
    "battery": Recipe(each(_battery), lambda run: run.scenes * run.rollouts),
    "returns": Recipe(each(_returns), lambda run: run.battery.scenes * run.battery.rollouts),
    "outsider": Recipe(each(_external), lambda run: run.steps),
    "model": Recipe(_models, _frames, model_key),
    "heads": Recipe(_heads, lambda run: run.updates + run.reward_updates, heads.batch_key),
    "foresight": Recipe(
        each(lambda run, lab: Output({"foresight": models.foresight(run, lab.model(run.model), lab.device)})),
        lambda run: run.episodes,
    ),
    "codes": Recipe(each(_codes), _fitted),
    "responses": Recipe(each(_responses), _scenes),
    "ordinary": Recipe(each(_ordinary), lambda run: run.episodes),
    "interventions": Recipe(each(_interventions), _scenes),
}
