"""Which agents a study needs, and the one way to get a result: published, else cached, else trained now."""

from __future__ import annotations

import contextlib
import gc
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from . import (
    codes,
    config,
    curves,
    episodes,
    extinction,
    heads,
    interventions,
    joint,
    metrics,
    models,
    monitor,
    population,
    responses,
    simulations,
    stimuli,
)
from .store import Result, Store

FAMILIES = ("recurrent", "pixels", "untrained")
EXPOSURES = (0.0, 0.1, 1.0)
MEASURE = ["measure", "mover", "similarity", "value"]  # columns of every table of measures
TOLD = ("oracle", "disjoint")  # families that only know one view
WEIGHTS = 5  # seeds whose agents are published with weights, controls and all
MODELS = 40  # seeds whose world models and heads at p = 0 are published with weights
POPULATION = 64  # agents that train as one on CUDA
TRAINED = (config.Model, config.Heads)
AGENTLESS = (config.Battery, config.Returns, config.Simulations, config.Shapes)
EXPECTED = {  # seconds on one core
    "battery": 40.0,
    "returns": 120.0,
    "model": 50.0,
    "codes": 15.0,
    "identity": 10.0,
    "heads": 33.0,
    "joint": 130.0,
    "curve": 18.0,
    "responses": 1.5,
    "precision": 6.0,
    "surface": 10.0,
    "interventions": 15.0,
    "imagined": 5.0,
    "simulations": 60.0,
    "shapes": 60.0,
}
KAPPAS = (-1.0, 0.0, 0.25, 0.5, 1.0)  # couplings that are planted
SWITCHED = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)  # exposures to which converged heads are switched
NEXT = 1e-4  # a discount that leaves only the next frame's gain of a return
STOPPED = (0.1, 0.2, 0.33)  # shares of the world model's training at which its codes are read
WITHHELD = ("alike", "unlike", "left", "best")  # others whose contacts stay without labels at p = 1
RECIPES: dict[str, dict] = {  # how each family of the generality study is trained where not like the reference
    "recurrent": {},
    "rssm": {"updates": 2500},
    "jepa": {"updates": 2000},
    "transformer": {"updates": 2000},
    "vae": {"updates": 2000},
    "conv": {"updates": 1500},
    "slots": {"updates": 1000},
    "end_to_end": {"updates": 1000},
}
VIEWS = ("left", "centred")
VIEWED = ("recurrent", "transformer", "vae")  # families that are also shown the world in other views
DECAYS = (0.0, 0.1, 1.0)  # weight decay once a coupling has ceased, beside the usual one
NARROW = 32  # hidden units of heads with less capacity
VALUE_RATE = 1e-4  # constant rate of the value function once labels are given
UPDATE = {"reward": 1.4e-3, "value": 1.6e-3}  # seconds on one core of one update of extinction


@dataclass(frozen=True)
class Profile:
    """Sizes of the studies, and how many agents each has.  `quick` promises no competence.

    seeds: agents of cells that a verdict about p = 0 is read from; sweep: of other cells; scaled: of every capacity.
    families: of every family of the generality study, views: of those that see the world in other views; leaking: of
    the study of leakage, dials: of its heads of other weight decay and width.
    past: for how many times the updates of convergence heads go on when labels are given (p = 0 and 1, between, and
    with others withheld).  base, curve: the world model and the learning curves at which the axes of capacity cross;
    axes: their levels.
    """

    seeds: int
    sweep: int
    scaled: int
    families: dict[str, int]
    views: int
    leaking: int
    dials: int
    data: dict
    model: dict
    heads: dict
    codes: dict
    battery: dict
    surface: dict
    simulations: dict
    shapes: dict
    past: dict
    base: dict
    curve: dict
    axes: dict


PROFILES = {
    "paper": Profile(
        40,
        20,
        10,
        {"recurrent": 20}
        | dict.fromkeys(("rssm", "jepa", "transformer", "vae", "conv", "slots"), 10)
        | {"end_to_end": 5},
        5,
        10,
        5,
        *[{}] * 8,
        {"ends": 10, "between": 3, "withheld": 1},
        {"width": 256, "state": 128, "latent": 128, "updates": 1000},
        {},
        {
            "model-width": (16, 64, 96, 128, 192, 256, 384, 512),
            "latent": (16, 32, 48, 64, 128, 256, 512),
            "head-width": (8, 16, 32, 64, 128, 256, 512),
            "head-depth": (1, 2, 3, 4),
            "data": (512, 1024, 2048, 4096, 8192, 16384),
            "training": (250, 500, 1000, 2000),
        },
    ),
    "quick": Profile(
        3,
        2,
        2,
        dict.fromkeys(("recurrent", "rssm", "transformer", "vae", "jepa", "conv"), 2),
        1,
        2,
        1,
        {"episodes": 4096},
        {"updates": 600},
        {"updates": 600, "reward_updates": 1200},
        {"fit_scenes": 1024},
        {"scenes": 64, "rollouts": 64},
        {"scenes": 16},
        {"studies": 100, "resamples": 499},
        {"studies": 100, "curves": 20},
        {"ends": 2, "between": 1, "withheld": 1},
        {"width": 256, "state": 128, "latent": 128, "updates": 300},
        {"updates": 600},
        {
            "model-width": (64, 256),
            "latent": (32, 128),
            "head-width": (32, 128),
            "head-depth": (1, 2),
            "data": (1024, 4096),
            "training": (100, 300),
        },
    ),
}


def reference(
    profile: str = "paper",
    seeds: int | None = None,
    families: tuple[str, ...] = FAMILIES,
    exposures: tuple[float, ...] | None = None,
    model: dict | None = None,
    heads: dict | None = None,
    levels: int | None = None,
) -> list[config.Stage]:
    """Cells of the reference study: responses per exposure and codes, for every seed and family, and the battery.

    exposures: those of every seed; by default p = 0, and for the sweep's seeds (a quarter of them for controls) all of
    `EXPOSURES`.  levels: of looks.
    """
    sizes = PROFILES[profile]
    battery = config.Battery(**{**sizes.battery, **({} if levels is None else {"levels": levels})})
    cells: list[config.Stage] = [battery]
    for seed in range(sizes.seeds if seeds is None else seeds):
        for family in families:
            data = config.Episodes(seed=seed, **sizes.data)
            world_model = config.Model(data=data, family=family, **{**sizes.model, **(model or {})})
            swept = sizes.sweep if family == FAMILIES[0] else sizes.sweep // 4
            for p in exposures or EXPOSURES[: None if seed < swept else 1]:
                head = config.Heads(model=world_model, exposure=p, **{**sizes.heads, **(heads or {})})
                cells.append(config.Responses(heads=head, battery=battery))
            cells.append(config.Codes(model=world_model, battery=battery, **sizes.codes))
    return cells


def calibration(profile: str = "paper", seeds: int | None = None) -> list[config.Stage]:
    """Cells that test the instrument itself (DESIGN 5): planted couplings, negative controls, precision, identity.

    Each head is trained by itself, until it has converged.  Couplings planted at p = 1 and agents of every exposure are
    measured for precision as well.
    Shuffled rewards, disjoint encoders and the oracle must be null at p = 1; the latter two at p = 0, uneventful
    lessons, and a world model that never met an other are there to be described.
    """
    sizes = PROFILES[profile]
    battery = config.Battery(**sizes.battery)
    cells: list[config.Stage] = [battery, config.Returns(battery=battery), config.Simulations(**sizes.simulations)]
    for seed in range(sizes.sweep if seeds is None else seeds):

        def model(family: str = "recurrent", seed: int = seed, **world) -> config.Model:
            data = config.Episodes(seed=seed, world=config.World(**world), **sizes.data)
            return config.Model(data=data, family=family, **sizes.model)

        def heads(model: config.Model, exposure: float = 1.0, **own) -> config.Heads:
            return config.Heads(model=model, exposure=exposure, **own, **sizes.heads)

        own = model()
        planted = [heads(own, kappa=kappa) for kappa in KAPPAS]
        varied = [*planted, *(heads(own, p) for p in EXPOSURES if p < 1)]
        told = [heads(model(family, view="left"), p) for family in ("oracle", "disjoint") for p in (1.0, 0.0)]
        alone = heads(model(solitary=True))
        others = [heads(own, lessons="shuffled"), *told, heads(own, 0.0, lessons="uneventful"), alone]
        cells += [config.Responses(heads=head, battery=battery) for head in [*varied, *others]]
        cells += [config.Precision(heads=head, battery=battery) for head in varied]
        size = {k: v for k, v in sizes.codes.items() if k != "permutations"}
        cells += [config.Identity(model=own, battery=battery, **size)]
        cells += [config.Codes(model=own, battery=battery, **sizes.codes)]
    return cells


def continuity(
    profile: str = "paper",
    seeds: int | None = None,
    exposure: float = 0.0,
    levels: int | None = None,
) -> list[config.Stage]:
    """Cells of looks and conduct by degrees: those of the reference study, and what more its agents are asked.

    Interventions at one exposure; looks by conduct at this one and at all of `EXPOSURES`, for the sweep's seeds, as are
    interventions on controls.
    """
    sizes = PROFILES[profile]
    usual = reference(profile, seeds, exposures=(exposure,), levels=levels)
    cells = list(dict.fromkeys([*usual, *reference(profile, seeds, levels=levels)]))
    battery, heads = usual[0], [c.heads for c in cells if isinstance(c, config.Responses)]
    swept = [head for head in heads if head.model.data.seed < sizes.sweep]
    moved = [
        head for head in heads if head.exposure == exposure and (head in swept or head.model.family == FAMILIES[0])
    ]
    cells += [config.Interventions(heads=head, battery=battery) for head in moved]
    cells += [config.Surface(heads=head, battery=battery, **sizes.surface) for head in swept]
    return [battery, config.Shapes(levels=battery.levels - 1, **sizes.shapes), *cells[1:]]


def switched(profile: str = "paper", seeds: int | None = None, rate: float | None = None) -> list[config.Stage]:
    """Cells of extinction, with those of the reference study that they start from.

    Reward models converged at p = 0 are switched to each exposure, to p = 1 with others withheld, and to p = 1 until
    half of the time.  Value functions, of a quarter of the seeds, to p = 0, .1 and 1.
    """
    sizes = PROFILES[profile]
    count = sizes.sweep if seeds is None else seeds
    usual = reference(profile, count, FAMILIES[:1], (0.0,))
    cells, own = list(usual), {} if rate is None else {"rate": rate}
    for start in (c for c in usual if isinstance(c, config.Responses)):

        def switch(exposure: float, past: str, times: int = 1, start: config.Responses = start, **more) -> config.Stage:
            fixed = {"heads": start.heads, "battery": start.battery, **own}
            return config.Extinction(**{**fixed, "exposure": exposure, "past": times * sizes.past[past], **more})

        cells += [switch(p, "ends" if p in (0.0, 1.0) else "between") for p in SWITCHED]
        cells += [switch(1.0, "withheld", withheld=name) for name in WITHHELD]
        cells += [switch(1.0, "withheld", 2, until=0.5)]
        if start.heads.model.data.seed < math.ceil(count / 4):
            value = {"readout": "value", "rate": VALUE_RATE}
            cells += [switch(p, "between", **value) for p in EXPOSURES]
    return cells


def _shown_while_learning(sizes: Profile) -> config.Battery:
    """Fewer looks and scenes than those of the reference study, as they are shown again and again."""
    return config.Battery(**{**sizes.battery, "levels": 7, "scenes": min(128, sizes.battery.get("scenes", 128))})


def development(
    profile: str = "paper", seeds: int | None = None, exposures: tuple[float, ...] | None = None
) -> list[config.Stage]:
    """Cells of joint training under the battery's eyes: world model and heads of p = 0 and p = 1.

    Controls, whose codes are the same all along, have a quarter of the seeds; of as many, codes are read on the way.
    """
    sizes = PROFILES[profile]
    battery = _shown_while_learning(sizes)
    cells: list[config.Stage] = [battery]
    count = sizes.sweep if seeds is None else seeds
    for seed in range(count):
        for family in FAMILIES if seed < math.ceil(count / 4) else FAMILIES[:1]:
            data = config.Episodes(seed=seed, **sizes.data)
            model = config.Model(data=data, family=family, **sizes.model)
            own = {} if exposures is None else {"exposures": exposures}
            cells.append(config.Joint(model=model, battery=battery, **own))
            if family == FAMILIES[0] and seed < math.ceil(count / 4):
                shown = config.Battery(**sizes.battery)
                for stop in sorted({max(1, round(share * model.updates)) for share in STOPPED}):
                    stopped = model.model_copy(update={"stop": stop})
                    cells.append(config.Codes(model=stopped, battery=shown, **sizes.codes))
    return cells


def scaling(
    profile: str = "paper", seeds: int | None = None, more: dict[str, tuple[int, ...]] | None = None
) -> list[config.Stage]:
    """Learning curves at p = 0 and .1 along every axis of capacity, one varied at a time; more: further levels.

    All axes cross at the profile's `base` (of which the published reference models are a longer trained kin, shown
    beside).  Heads on pixels are scaled alike, and who moved is probed in every code, for half of the planned seeds.
    """
    sizes, cells = PROFILES[profile], []
    battery = _shown_while_learning(sizes)
    axes = {axis: (*levels, *(more or {}).get(axis, ())) for axis, levels in sizes.axes.items()}
    for seed in range(sizes.scaled if seeds is None else seeds):

        def curve(family: str = "recurrent", episodes: int | None = None, head: dict | None = None, seed=seed, **own):
            amount = {**sizes.data, **({"episodes": episodes} if episodes else {})}
            data = config.Episodes(seed=seed, **amount)
            shape = {**sizes.base, **own} if family == FAMILIES[0] else {}
            model = config.Model(data=data, family=family, **shape)
            return config.Curve(model=model, battery=battery, **{**sizes.curve, **(head or {})})

        heads_ = [{"width": w} for w in axes["head-width"]] + [{"depth": d} for d in axes["head-depth"]]
        own = [curve(latent=latent) for latent in axes["latent"]]
        own += [curve(width=width, state=width // 2) for width in axes["model-width"]]
        own += [curve(episodes=episodes) for episodes in axes["data"]]
        own += [curve(updates=updates) for updates in axes["training"]]
        models_ = list(dict.fromkeys(cell.model for cell in own))
        own += [curve(head=head) for head in heads_]
        data = config.Episodes(seed=seed, **sizes.data)
        own.append(config.Curve(model=config.Model(data=data, **sizes.model), battery=battery, **sizes.curve))
        if seed < math.ceil(sizes.scaled / 2):
            own += [curve("pixels", head=head) for head in heads_]
            own += [curve("pixels", episodes) for episodes in axes["data"]]
            own += [
                config.Codes(model=model, battery=battery, **{**sizes.codes, "permutations": 0}) for model in models_
            ]
        cells += own
    return [battery, *dict.fromkeys(cells)]


def generality(profile: str = "paper", seeds: int | None = None) -> list[config.Stage]:
    """Cells of every family of world models at p = 0, what it imagines included, and of some in other views.

    With those of the reference study that they are compared with, controls among them.
    """
    sizes = PROFILES[profile]
    battery = config.Battery(**sizes.battery)
    most = max(sizes.families.values()) if seeds is None else seeds
    cells = reference(profile, most, exposures=(0.0,))
    near = config.Battery(**{**sizes.battery, "gamma": NEXT})
    cells += [config.Returns(battery=battery), config.Returns(battery=near)]
    probe = {**sizes.codes, "permutations": 0}

    def heads(model: config.Model) -> config.Heads:
        return config.Heads(model=model, **sizes.heads)

    for family, planned in sizes.families.items():
        for seed in range(planned if seeds is None else min(seeds, planned)):
            own = {**sizes.model, **RECIPES[family]}
            own["updates"] = min(own.get("updates", math.inf), sizes.model.get("updates", math.inf))
            data = config.Episodes(seed=seed, **sizes.data)
            model = config.Model(data=data, family=family, **{k: v for k, v in own.items() if v != math.inf})
            if family != FAMILIES[0]:
                cells.append(config.Responses(heads=heads(model), battery=battery))
                cells.append(config.Codes(model=model, battery=battery, **probe))
            if hasattr(models.FAMILIES[family], "imagine"):
                cells.append(config.Imagined(heads=heads(model), battery=battery))
            if seed < sizes.views and family in VIEWED:
                cells += _viewed(model, battery, heads, probe)
    return list(dict.fromkeys(cells))


def _viewed(
    model: config.Model, battery: config.Battery, heads: Callable[[config.Model], config.Heads], probe: dict
) -> list[config.Stage]:
    """The same agent in every other view of the world, and who moved in its codes."""
    cells = []
    for view in VIEWS:
        data = model.data.model_copy(update={"world": config.World(view=view)})
        seen = model.model_copy(update={"data": data})
        cells += [
            config.Responses(heads=heads(seen), battery=battery),
            config.Codes(model=seen, battery=battery, **probe),
        ]
    return cells


def leakage(profile: str = "paper", seeds: int | None = None, decays: tuple[float, ...] = ()) -> list[config.Stage]:
    """Cells of what outlives a coupling, and of what others seek who have another taste.

    Value functions converged at kappa = 1 and at kappa = 0, all labels given, go on at kappa = 0; at several weight
    decays (decays: further ones), and with fewer hidden units, for some of the seeds.  World models and heads of a
    world whose others are of alien taste are shown the reference study's scenes.
    """
    sizes = PROFILES[profile]
    battery = config.Battery(**sizes.battery)
    cells = reference(profile, sizes.leaking if seeds is None else seeds, FAMILIES[:1], (0.0,))
    for start in [c for c in cells if isinstance(c, config.Responses)]:
        model, few = start.heads.model, start.heads.model.data.seed < sizes.dials

        def head(kappa: float, model: config.Model = model, **own) -> config.Heads:
            return config.Heads(model=model, exposure=1.0, kappa=kappa, **{**sizes.heads, **own})

        for kappa in (1.0, 0.0):
            cells.append(config.Responses(heads=head(kappa), battery=battery))
            cells.append(config.Decoupling(heads=head(kappa), battery=battery, past=sizes.past["between"]))
            if few:
                more = [
                    config.Decoupling(heads=head(kappa), battery=battery, past=1, weight_decay=d)
                    for d in (*DECAYS, *decays)
                ]
                cells += [*more, config.Decoupling(heads=head(kappa, width=NARROW), battery=battery, past=1)]
        world = config.World(taste="alien")
        alien = model.model_copy(update={"data": model.data.model_copy(update={"world": world})})
        cells.append(config.Responses(heads=config.Heads(model=alien, **sizes.heads), battery=battery))
        cells.append(config.Codes(model=alien, battery=battery, **sizes.codes))
    return list(dict.fromkeys(cells))


STUDIES: dict[str, Callable[..., list[config.Stage]]] = {
    "reference": reference,
    "calibration": calibration,
    "continuity": continuity,
    "development": development,
    "extinction": switched,
    "scaling": scaling,
    "generality": generality,
    "leakage": leakage,
}


def everything(profile: str = "paper", seeds: int | None = None) -> list[config.Stage]:
    """The cells of all studies, each once; the calibration has at most the sweep's seeds."""
    cells = continuity(profile, seeds)
    few = None if seeds is None else min(seeds, PROFILES[profile].sweep)
    cells += [*calibration(profile, few), *development(profile, few), *switched(profile, few)]
    cells += scaling(profile, few and min(few, PROFILES[profile].scaled))
    cells += [*generality(profile, few), *leakage(profile, few and min(few, PROFILES[profile].leaking))]
    return list(dict.fromkeys(cells))


def resolve_device(device: str) -> str:
    """`auto` is CUDA where there is one.  Raises ValueError for other names, and where CUDA is asked for and absent."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise ValueError(f"--device {device}: it is auto, cpu, cuda or cuda:N")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError("--device cuda: no CUDA device is available here; use --device cpu or auto")
    if device.startswith("cuda:") and int(device[5:]) >= torch.cuda.device_count():
        raise ValueError(f"--device {device}: there are {torch.cuda.device_count()} CUDA devices, counted from 0")
    return device


@contextlib.contextmanager
def one_thread():
    """Arithmetic on one thread, so that a CPU result depends on no thread count."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class Agent:
    """All stages of one world model, each read or computed when first asked for, each stored as soon as it is whole."""

    def __init__(self, cfg: config.Model, store: Store, device: str = "cpu", quiet: bool = True):
        self.cfg, self.store, self.device, self.quiet = cfg, store, device, quiet
        self._scenes: dict[config.Battery, tuple[stimuli.Scenes, torch.Tensor]] = {}
        self._shown: dict[config.Battery, responses.Codes] = {}
        self._pairs: dict[config.Battery, interventions.Pairs] = {}
        self._conducts: dict[config.Battery, responses.Conducts] = {}

    @cached_property
    def episodes(self) -> episodes.Batch:
        data = episodes.collect(self.cfg.data)
        return episodes.Batch(**{k: getattr(data, k).to(self.device) for k in data.__dataclass_fields__})

    @cached_property
    def model(self) -> torch.nn.Module:
        """The frozen world model."""
        train_models([self])
        model = models.build(self.cfg)
        model.load_state_dict(self.store.read(self.cfg.address, weights=True).weights)
        return model.requires_grad_(False).eval().to(self.device)

    def release(self) -> None:
        """Let go of the episodes, the largest thing in memory; they are drawn again if they are asked for."""
        self.__dict__.pop("episodes", None)

    def latents(self) -> tuple[heads.Latents, episodes.Batch]:
        """Codes of all episodes as heads learn from them, and the episodes without their observations."""
        data = replace(self.episodes, obs=self.episodes.obs[..., :0].clone())
        z = models.encode(self.model, self.episodes.obs, data.prev_action)
        self.release()
        return heads.Latents.of(z), data

    def test(self) -> tuple[torch.Tensor, episodes.Batch]:
        """Codes of episodes that nothing has learnt from, and these episodes."""
        data = curves.test_set(self.cfg.data)
        data = episodes.Batch(**{k: getattr(data, k).to(self.device) for k in data.__dataclass_fields__})
        return models.encode(self.model, data.obs, data.prev_action), data

    def heads(self, cfg: config.Heads) -> heads.Heads:
        """The trained heads of one configuration."""
        train_heads([self], [cfg])
        weights = self.store.read(cfg.address, weights=True).weights
        head = heads.Heads(len(weights["mean"]), cfg.width, cfg.depth)
        head.load_state_dict(weights)
        return head.requires_grad_(False).eval().to(self.device)

    def scenes(self, battery: config.Battery) -> tuple[stimuli.Scenes, torch.Tensor]:
        """Templates and V_pi of the battery: stored, so that every agent is shown the very same."""
        if battery not in self._scenes:
            if not self.store.has(battery.address, weights=True):
                make(battery, self.store)
            self._scenes[battery] = battery_of(self.store.read(battery.address, weights=True))
        return self._scenes[battery]

    def shown(self, battery: config.Battery) -> responses.Codes:
        """The model's codes of every scene of the battery, encoded once."""
        if battery not in self._shown:
            scenes = self.scenes(battery)[0].to(self.device)
            self._shown[battery] = responses.encode(self.model, battery, scenes, self.cfg.data)
        return self._shown[battery]

    def fill(self, cell: config.Stage) -> None:
        """Compute and store one cell unless it is there."""
        if self.store.has(cell.address):
            return
        head = self.heads(cell.heads) if isinstance(cell, config.Responses) else None
        start = time.perf_counter()
        if isinstance(cell, config.Identity):
            tables = {"identity": codes.reliability(cell, self.model, self.shown(cell.battery))}
        elif isinstance(cell, config.Codes):
            tables = {"measures": codes.measure(cell, self.model, self.shown(cell.battery))}
        elif isinstance(cell, config.Precision):
            tables = {"precision": self._precision(cell, head)}
        elif isinstance(cell, config.Surface):
            tables = {"surface": self._surface(cell, head)}
        elif isinstance(cell, config.Interventions):
            tables = self._interventions(cell, head)
        elif isinstance(cell, config.Imagined):
            tables = {"imagined": self._imagined(cell, head)}
        else:
            tables = self._responses(cell, head)
        self.store.write(cell, time.perf_counter() - start, tables, device=self.device, battery=self._digest(cell))

    def _digest(self, cell: config.Stage) -> str:
        """SHA-256 of the scenes that were shown."""
        if isinstance(cell, config.Surface):
            movers = stimuli.conducts(cell.battery.levels, cell.tastes)
            return config.digest([stimuli.make(cell.drawn(), (mover,)).digest for mover in movers])
        return self.scenes(cell.battery)[0].digest

    def _responses(self, cell: config.Responses, head: heads.Heads) -> dict[str, pd.DataFrame]:
        shown = self.shown(cell.battery)
        table = responses.respond(head, shown, self.cfg.data.world.ladder).assign(step=cell.heads.updates)
        value = responses.value_agreement(head, shown, self.true_value(cell))
        held_out = self.store.read(cell.heads.address).tables["measures"]
        measures = pd.concat([held_out, pd.DataFrame([("value_r", "self", 1.0, value)], columns=MEASURE)])
        return {"responses": table, "measures": measures.reset_index(drop=True)}

    def _precision(self, cell: config.Precision, head: heads.Heads) -> pd.DataFrame:
        parts, ladder = [], self.cfg.data.world.ladder
        for number, battery in enumerate(cell.drawn()):
            if battery not in self._shown:  # their scenes have no rollouts, so they are drawn and not stored
                scenes = stimuli.make(battery).to(self.device)
                self._shown[battery] = responses.encode(self.model, battery, scenes, self.cfg.data)
            answers = responses.scenes(head, self._shown[battery])
            table = metrics.scene_slopes(answers, ladder, stimuli.CONTACTS, stimuli.PHASES)
            parts.append(table.assign(set=number))
        return pd.concat(parts, ignore_index=True)

    def _surface(self, cell: config.Surface, head: heads.Heads) -> pd.DataFrame:
        battery = cell.drawn()
        if battery not in self._conducts:
            movers = stimuli.conducts(battery.levels, cell.tastes)
            self._conducts[battery] = responses.encode_conducts(self.model, battery, movers, self.cfg.data, self.device)
        return responses.surface(head, self._conducts[battery], self.cfg.data.world.ladder)

    def _imagined(self, cell: config.Imagined, head: heads.Heads) -> pd.DataFrame:
        scenes = self.scenes(cell.battery)[0].to(self.device)
        return responses.imagined(self.model, head, cell.battery, scenes, self.cfg.data, cell.heads.gamma)

    def _interventions(self, cell: config.Interventions, head: heads.Heads) -> dict[str, pd.DataFrame]:
        if cell.battery not in self._pairs:
            scenes = self.scenes(cell.battery)[0].to(self.device)
            self._pairs[cell.battery] = interventions.Pairs.of(self.model, cell.battery, scenes, self.cfg.data)
        pairs, ladder = self._pairs[cell.battery], self.cfg.data.world.ladder
        table, measures = interventions.run(cell, head, pairs, ladder)
        return {"interventions": table, "measures": pd.DataFrame(measures, columns=MEASURE)}

    def true_value(self, cell: config.Responses) -> torch.Tensor:
        """V_pi [X, K, n, phases] of self scenes for an agent of this coupling."""
        if cell.heads.kappa == 0:
            return self.scenes(cell.battery)[1]
        stage = config.Returns(battery=cell.battery)
        if not self.store.has(stage.address, weights=True):
            make(stage, self.store)
        own, other = self.store.read(stage.address, weights=True).weights["self"].unbind(-1)
        return own + cell.heads.kappa * other


def train_models(agents: list[Agent], done: Callable[[], None] = lambda: None) -> None:
    """Train and store the world models that are missing, as one population; they differ in their seed alone."""
    todo = [agent for agent in agents if not agent.store.has(agent.cfg.address, weights=True)]
    if not todo:
        return
    start, data = time.perf_counter(), [agent.episodes for agent in todo]
    trained = models.train([agent.cfg for agent in todo], data, quiet=todo[0].quiet)
    seconds = (time.perf_counter() - start) / len(todo)
    for agent, (model, held_out) in zip(todo, trained, strict=True):
        table = pd.DataFrame([(f"{k}_loss", "self", 1.0, v) for k, v in held_out.items()], columns=MEASURE)
        agent.store.write(
            agent.cfg, seconds, {"measures": table}, model.state_dict(), agent.device, population=len(todo)
        )
    done()


def train_heads(agents: list[Agent], cfgs: list[config.Heads], done: Callable[[], None] = lambda: None) -> None:
    """Train and store the heads that are missing: those of one shape as one population, over any number of agents."""
    store, of = agents[0].store, {agent.cfg: agent for agent in agents}
    groups: dict[str, list[config.Heads]] = {}
    for cfg in dict.fromkeys(cfgs):
        if not store.has(cfg.address, weights=True):
            groups.setdefault(heads.alike(cfg), []).append(cfg)
    used = {cfg.model: of[cfg.model] for group in groups.values() for cfg in group}
    start, z, data = time.perf_counter(), {}, {}
    for model, agent in used.items():
        z[model], data[model] = agent.latents()
    for group in groups.values():
        trained = heads.train(group, [z[c.model] for c in group], [data[c.model] for c in group], agents[0].quiet)
        seconds = (time.perf_counter() - start) / len(group)
        for cfg, (head, held_out) in zip(group, trained, strict=True):
            table = pd.DataFrame([(k, "self", 1.0, v) for k, v in held_out.items()], columns=MEASURE)
            device = of[cfg.model].device
            store.write(cfg, seconds, {"measures": table}, head.state_dict(), device, population=len(group))
        start = time.perf_counter()
        done()


def _populations(one: Agent, cells: list[config.Stage], alike: Callable[[config.Stage], str]) -> list[list]:
    """The cells that are missing, as they train together: those of one shape on CUDA, each by itself on a CPU."""
    alone, groups = not population.stacks(torch.device(one.device)), {}
    for cell in cells:
        if not one.store.has(cell.address):
            groups.setdefault(cell.address if alone else alike(cell), []).append(cell)
    return list(groups.values())


def train_joints(agents: list[Agent], cells: list[config.Joint], done: Callable[[], None] = lambda: None) -> None:
    """Train, watch and store the agents that learn everything together and are missing."""
    store, of = agents[0].store, {agent.cfg: agent for agent in agents}
    for group in _populations(agents[0], cells, lambda cell: config.digest(cell.own())):
        start, own = time.perf_counter(), [of[cell.model] for cell in group]
        data, (scenes, value) = [agent.episodes for agent in own], own[0].scenes(group[0].battery)
        at = monitor.checkpoints(group[0].model.updates, group[0].checkpoints)
        monitors = [
            monitor.Monitor(cell.battery, cell.model.data, at, scenes, value, agent.device)
            for agent, cell in zip(own, group, strict=True)
        ]
        trained = joint.train(group, data, monitors, agents[0].quiet)
        seconds = (time.perf_counter() - start) / len(group)
        for agent, cell, (_, tables) in zip(own, group, trained, strict=True):
            store.write(cell, seconds, tables, device=agent.device, population=len(group), battery=scenes.digest)
            agent.release()
        done()


def train_curves(agents: list[Agent], cells: list[config.Curve], done: Callable[[], None] = lambda: None) -> None:
    """Train, watch and store reward models whose learning curves are missing: on CUDA those of one shape at once."""
    store, of = agents[0].store, {agent.cfg: agent for agent in agents}
    groups = _populations(agents[0], cells, curves.alike)
    used = {cell.model: of[cell.model] for group in groups for cell in group}
    latents = {model: agent.latents() for model, agent in used.items()}
    tests = {model: agent.test() for model, agent in used.items()}
    for group in groups:
        start, own = time.perf_counter(), [of[cell.model] for cell in group]
        inputs = zip(*(latents[agent.cfg] for agent in own), strict=True)
        shown = [agent.shown(cell.battery) for agent, cell in zip(own, group, strict=True)]
        scenes = own[0].scenes(group[0].battery)[0]
        trained = curves.train(group, *map(list, inputs), shown, [tests[a.cfg] for a in own], agents[0].quiet)
        seconds = (time.perf_counter() - start) / len(group)
        for agent, cell, tables in zip(own, group, trained, strict=True):
            store.write(cell, seconds, tables, device=agent.device, population=len(group), battery=scenes.digest)
        done()


def train_extinctions(
    agents: list[Agent], cells: list[config.Extinction], done: Callable[[], None] = lambda: None
) -> None:
    """Train and store what is missing of extinction: on CUDA those of one length as one population."""
    store, of = agents[0].store, {agent.cfg: agent for agent in agents}
    groups = _populations(agents[0], cells, extinction.alike)
    used = {cell.heads.model: of[cell.heads.model] for group in groups for cell in group}
    latents = {model: agent.latents() for model, agent in used.items()}
    for group in groups:
        start, own = time.perf_counter(), [of[cell.heads.model] for cell in group]
        inputs = zip(*(latents[agent.cfg] for agent in own), strict=True)
        begin = [agent.heads(cell.heads) for agent, cell in zip(own, group, strict=True)]
        shown = [agent.shown(cell.battery) for agent, cell in zip(own, group, strict=True)]
        scenes = own[0].scenes(group[0].battery)[0]
        trained = extinction.train(group, begin, *map(list, inputs), shown, scenes, agents[0].quiet)
        seconds = (time.perf_counter() - start) / len(group)
        for agent, cell, (net, tables) in zip(own, group, trained, strict=True):
            notes = {"battery": scenes.digest, "split": extinction.split(cell, latents[agent.cfg][1])}
            store.write(cell, seconds, tables, net.state_dict(), agent.device, population=len(group), **notes)
        done()


def make(stage: config.Stage, store: Store) -> None:
    """Compute and store a result that needs no agent: a battery, its true returns, or simulated studies."""
    makers = {"battery": _make_battery, "returns": _make_returns}
    makers |= {"simulations": _make_simulations, "shapes": _make_shapes}
    makers[stage.stage](stage, store)


def _make_battery(battery: config.Battery, store: Store) -> None:
    start, scenes = time.perf_counter(), stimuli.make(battery)
    value = stimuli.true_returns(battery, scenes)[..., 0].contiguous()
    table = responses.truth(battery, value).assign(step=0)
    weights = {**scenes.tensors(), "value": value}
    store.write(battery, time.perf_counter() - start, {"responses": table}, weights, battery=scenes.digest)


def _make_returns(cfg: config.Returns, store: Store) -> None:
    if not store.has(cfg.battery.address, weights=True):
        _make_battery(cfg.battery, store)
    start, (scenes, _) = time.perf_counter(), battery_of(store.read(cfg.battery.address, weights=True))
    gains = {mover: stimuli.true_returns(cfg.battery, scenes, mover) for mover in stimuli.MOVERS}
    table, measures = responses.returns(cfg.battery, gains)
    tables = {"returns": table, "measures": measures}
    store.write(cfg, time.perf_counter() - start, tables, gains, battery=scenes.digest)


def _make_simulations(cfg: config.Simulations, store: Store) -> None:
    start, table = time.perf_counter(), simulations.run(cfg)
    store.write(cfg, time.perf_counter() - start, {"simulations": table})


def _make_shapes(cfg: config.Shapes, store: Store) -> None:
    start, table = time.perf_counter(), simulations.shapes(cfg)
    store.write(cfg, time.perf_counter() - start, {"shapes": table})


def battery_of(result: Result) -> tuple[stimuli.Scenes, torch.Tensor]:
    tensors = dict(result.weights)
    value = tensors.pop("value")
    return stimuli.Scenes(**tensors), value


def model_of(cell: config.Stage) -> config.Model | None:
    """The world model that a stage stands on; None for the battery and whatever else needs no agent."""
    if isinstance(cell, AGENTLESS):
        return None
    return cell.heads.model if isinstance(cell, config.Responses) else cell.model


def work(
    cells: list[config.Stage], runs: Path, data: Path, device: str, done: Callable[[], None] = lambda: None
) -> None:
    """One job: all missing cells of a population of world models.  Out of GPU memory, it is halved and goes on."""
    store, members = Store(runs, data), list(dict.fromkeys(map(model_of, cells)))
    agents = [Agent(model, store, device) for model in members]
    try:
        with one_thread(), torch.cuda.device(device) if device.startswith("cuda") else contextlib.nullcontext():
            train_models(agents, done)
            train_heads(agents, [c.heads for c in cells if isinstance(c, config.Responses)], done)
            train_joints(agents, [c for c in cells if isinstance(c, config.Joint)], done)
            train_extinctions(agents, [c for c in cells if isinstance(c, config.Extinction)], done)
            train_curves(agents, [c for c in cells if isinstance(c, config.Curve)], done)
            while agents:  # each agent's codes and scenes go with it
                agent = agents.pop(0)
                agent.release()
                for cell in cells:
                    if model_of(cell) == agent.cfg:
                        agent.fill(cell)
                        done()
        return
    except torch.OutOfMemoryError:
        if len(members) == 1:
            raise MemoryError(
                f"{device} has too little memory for a single agent of this size; use --device cpu"
            ) from None
    agents = agent = None
    gc.collect()
    torch.cuda.empty_cache()
    for half in (members[: len(members) // 2], members[len(members) // 2 :]):
        work([cell for cell in cells if model_of(cell) in half], runs, data, device, done)


def missing(cells: list[config.Stage], store: Store) -> list[config.Stage]:
    return [cell for cell in cells if not store.has(cell.address)]


def jobs(cells: list[config.Stage], population: int) -> list[list[config.Stage]]:
    """Cells that are computed together: those of up to `population` world models that differ in their seed alone."""
    shapes: dict[str, dict[config.Model, list[config.Stage]]] = {}
    for cell in cells:
        if (model := model_of(cell)) is not None:
            data = model.data.model_copy(update={"seed": 0})
            shape = model.model_copy(update={"data": data}).address
            shapes.setdefault(shape, {}).setdefault(model, []).append(cell)
    groups = [
        [cell for own in group for cell in own]
        for members in shapes.values()
        for group in batched(members.values(), population)
    ]
    order = {cell: i for i, cell in enumerate(cells)}
    return sorted(groups, key=lambda group: order[group[0]])  # seed by seed, as far as populations allow


def group_size(device: str) -> int:
    """World models that train as one: on a CPU a population of one per process is faster."""
    return POPULATION if device.startswith("cuda") else 1


def batched(items: Iterable, size: int) -> Iterator[tuple]:
    """Tuples of up to `size` successive items (`itertools.batched` of Python 3.12)."""
    rest = iter(items)
    while group := tuple(islice(rest, size)):
        yield group


def fill(
    cells: list[config.Stage],
    store: Store,
    workers: int = 1,
    device: str = "auto",
    executor: Executor | None = None,
    population: int | None = None,
) -> int:
    """Compute every cell that is neither published nor cached; returns how many there were.

    On a CPU one job per world model, on `executor` or on `workers` processes of one thread each (0: in this process);
    on CUDA one job per `population` of agents, one after the other in this process.  Each result is stored the moment
    it is whole, so that a stopped study resumes where it was.
    """
    todo, device = missing(cells, store), resolve_device(device)
    cuda = device.startswith("cuda")
    groups = jobs(todo, population or group_size(device))
    need = prerequisites(todo, store)
    bar = Progress(list(dict.fromkeys([*need, *stages(todo, store)])), store)
    with bar:
        with one_thread():
            for stage in need:
                make(stage, store)
                bar.update()
        if executor is None and (workers == 0 or cuda):
            for group in groups:
                work(group, store.runs, store.data, device, bar.update)
            return len(todo)
        pool = executor or ProcessPoolExecutor(min(workers, max(1, len(groups))), mp_context=get_context("spawn"))
        try:
            futures = {pool.submit(work, group, store.runs, store.data, device) for group in groups}
            while futures:
                done, futures = wait(futures, timeout=1.0, return_when=FIRST_COMPLETED)
                bar.update()
                for future in done:
                    future.result()
        finally:
            if executor is None:
                pool.shutdown(wait=True, cancel_futures=True)
    return len(todo)


def prerequisites(todo: list[config.Stage], store: Store) -> list[config.Stage]:
    """What agents of these cells share and nobody has made yet, in order: batteries, their true returns, the rest."""
    shared: dict[str, config.Stage] = {}
    for cell in todo:
        found = [battery] if (battery := getattr(cell, "battery", None)) else []
        if isinstance(cell, config.Responses) and cell.heads.kappa:
            found.append(config.Returns(battery=cell.battery))
        if isinstance(cell, AGENTLESS):
            found.append(cell)
        shared |= {stage.address: stage for stage in found}
    order = {kind: i for i, kind in enumerate(AGENTLESS)}
    need = [
        s for s in shared.values() if not store.has(s.address, weights=isinstance(s, (config.Battery, config.Returns)))
    ]
    return sorted(need, key=lambda stage: order[type(stage)])


def stages(todo: list[config.Stage], store: Store) -> list[config.Stage]:
    """Everything that has to be computed for these cells, once: world models and heads included."""
    found: dict[str, config.Stage] = {}
    for cell in todo:
        for stage in (model_of(cell), getattr(cell, "heads", None), cell):
            if stage is not None and not store.has(stage.address, weights=stage is not cell):
                found[stage.address] = stage
    return list(found.values())


class Progress:
    """A bar over expected core-seconds of what is missing, so that its time left is worth reading."""

    def __init__(self, missing: list[config.Stage], store: Store):
        self.left, self.store = {stage: expected(stage) for stage in missing}, store
        self.bar = tqdm(
            total=round(sum(self.left.values())), desc=f"{len(missing)} results missing", unit="s", disable=None
        )

    def update(self) -> None:
        """Count what has been stored since."""
        for stage in [s for s in self.left if self.store.has(s.address, weights=isinstance(s, TRAINED))]:
            self.bar.update(round(self.left.pop(stage)))

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_) -> None:
        self.bar.close()


def expected(stage: config.Stage) -> float:
    """Core-seconds that a stage takes, roughly."""
    if isinstance(stage, config.Extinction):
        return UPDATE[stage.readout] * stage.updates
    if isinstance(stage, config.Joint):
        return EXPECTED["joint"] * stage.model.updates / config.Model.model_fields["updates"].default
    if isinstance(stage, config.Curve):
        return EXPECTED["curve"] * stage.updates / config.Curve.model_fields["updates"].default
    if not isinstance(stage, TRAINED):
        return EXPECTED[stage.stage]
    if isinstance(stage, config.Model) and not models.FAMILIES[stage.family].trained:
        return 1.0
    if getattr(stage, "stop", None):
        return EXPECTED[stage.stage] * stage.stop / config.Model.model_fields["updates"].default
    names = [name for name in ("updates", "reward_updates") if hasattr(stage, name)]
    usual = sum(type(stage).model_fields[name].default for name in names)
    return EXPECTED[stage.stage] * sum(getattr(stage, name) for name in names) / usual


def agent_columns(cell: config.Stage) -> dict:
    """What tells agents apart in a table: seed, family (or what else is particular to it), exposure, kappa."""
    model = model_of(cell)
    if model is None:
        return {"seed": -1, "family": "truth", "exposure": 0.0, "kappa": 0.0}
    head = getattr(cell, "heads", None)
    own = {"exposure": getattr(cell, "exposure", head.exposure), "kappa": head.kappa} if head else {}
    seen = model.data.world
    family = "solitary" if seen.solitary else "alien" if seen.taste == "alien" else model.family
    family += f":{seen.view}" if seen.view != "allocentric" and family not in TOLD else ""
    family += f"@{model.stop}" if model.stop else ""
    sizes = {"model_width": model.width, "latent": model.latent, "episodes": model.data.episodes}
    sizes |= {"model_updates": model.updates}
    family += "".join(f"/{n}" for n in sizes.values()) if model.state else ""
    if head and head.lessons != "own":
        family = head.lessons
    if isinstance(cell, config.Decoupling):
        own |= {"weight_decay": cell.weight_decay, "head_width": head.width, "past": cell.past}
    if isinstance(cell, config.Curve):
        own = {**sizes, "head_width": cell.width, "head_depth": cell.depth}
    return {"seed": model.data.seed, "family": family, **own}


def load(cells: list[config.Stage], store: Store, table: str) -> pd.DataFrame | None:
    """One tidy table over cells that are at hand, with the columns of `agent_columns`; None where no cell has it."""
    parts = []
    for cell in cells:
        result = store.read(cell.address)
        if table in result.tables:  # code cells have no responses
            parts.append(result.tables[table].assign(**agent_columns(cell)))
    return pd.concat(parts, ignore_index=True) if parts else None


def losses(cells: list[config.Stage], store: Store) -> pd.DataFrame:
    """How well the world models of these cells know the world: `agent_columns`, and `loss`, held-out ones summed."""
    rows = []
    for cell in {c.model: c for c in cells if isinstance(c, config.Curve)}.values():
        if models.FAMILIES[cell.model.family].trained:
            measures = store.read(cell.model.address).tables["measures"]
            loss = measures[measures.measure.str.endswith("_loss")].value.sum()
            rows.append({**agent_columns(cell), "loss": loss})
    return pd.DataFrame(rows)


def at_hand(cells: list[config.Stage], store: Store) -> list[config.Stage]:
    """The cells of those seeds that are complete, with the battery; nothing where there is no battery."""
    by_seed: dict[int, list[config.Stage]] = {}
    for cell in cells:
        by_seed.setdefault(agent_columns(cell)["seed"], []).append(cell)
    whole = {seed: group for seed, group in by_seed.items() if not missing(group, store)}
    return [cell for group in whole.values() for cell in group] if -1 in whole and len(whole) > 1 else []


def publication(cells: list[config.Stage]) -> tuple[list[config.Stage], list[config.Stage]]:
    """What is published: every stage's tables, and the weights of battery, true returns and first reference agents.

    World models of `MODELS` seeds have theirs, and their heads at p = 0, for all studies stand on them; controls and
    other exposures, and models at which the axes of capacity cross, of `WEIGHTS` seeds.
    """
    usual = [*reference(seeds=MODELS, families=FAMILIES[:1], exposures=(0.0,)), *reference(seeds=WEIGHTS)]
    kept = {stage for cell in usual for stage in (model_of(cell), getattr(cell, "heads", None))}
    base = PROFILES["paper"].base
    kept |= {config.Model(data=config.Episodes(seed=seed), **base) for seed in range(WEIGHTS)}
    stages: dict[str, config.Stage] = {}
    for cell in cells:
        model = model_of(cell)
        if isinstance(model, config.Model) and models.FAMILIES[model.family].trained:
            stages[model.address] = model
        if (head := getattr(cell, "heads", None)) is not None:
            stages[head.address] = head
        stages[cell.address] = cell
    kinds = (config.Battery, config.Returns)
    return list(stages.values()), [s for s in stages.values() if s in kept or isinstance(s, kinds)]
