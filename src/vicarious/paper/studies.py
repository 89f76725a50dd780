"""Which runs every study needs, and which of them are published with weights: profiles of sizes, and tables of axes."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar, Literal

import yaml
from pydantic import Field

from .. import config, metrics, models
from ..config import Stage

REFERENCE = ("recurrent", "pixels", "untrained")
EXPOSURES = (0.0, 0.1, 1.0)
WEIGHTS = 5  # seeds whose agents are published with weights, controls and all
KAPPAS = (-1.0, 0.0, 0.25, 0.5, 1.0)  # couplings that are planted
SWITCHED = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)  # exposures at which converged heads are fine-tuned
STOPPED = (0.1, 0.2, 0.33)  # shares of the world model's training at which its codes are read
WITHHELD = ("alike", "unlike", "left", "best")  # others whose contacts stay without labels at p = 1
VIEWS = ("left", "centred")
SEEN_IN_VIEWS = ("recurrent", "transformer", "vae")  # families that also see the world in other views
DECAYS = (0.0, 1.0)  # weight decay once a coupling has ceased, beside the usual one
NARROW = 32  # hidden units of heads with less capacity
VALUE_RATE = 1e-4  # constant rate of the value function in fine-tuning
NEXT = 1e-4  # a discount that leaves only the next frame's reward of a return
PRIVILEGED = {"oracle": "left", "disjoint": "left"}  # families that only know one view of the world


class Simulations(Stage):
    """How often the paper's statistics err on simulated studies whose truth is known."""

    stage: ClassVar[str] = "simulations"
    epoch: ClassVar[int] = 1
    studies: int = Field(1000, ge=10)
    agents: tuple[int, ...] = (10, 20, 40)
    resamples: int = Field(999, ge=99)
    seed: int = 0


class Shapes(Stage):
    """How often planted curves, smooth or with steps, are recognised at every level of noise."""

    stage: ClassVar[str] = "shapes"
    epoch: ClassVar[int] = 1
    levels: int = Field(10, ge=4, description="of the dose, as below identical appearance")
    agents: int = Field(40, ge=2, description="of a study")
    curves: int = Field(1000, ge=2, description="agents that are simulated, of whom studies are drawn")
    studies: int = Field(1000, ge=10)
    noise: tuple[float, ...] = Field((0.005, 0.01, 0.02, 0.05, 0.1, 0.2), description="as a share of the curve's range")
    seed: int = 0


config.TABLES |= {"simulations": "statistic data n rate studies", "shapes": "curve noise statistic rate"}


@dataclass(frozen=True)
class Axis:
    """An axis of capacity, as `studies.yml` has it: what its levels are, and which field of which part they set."""

    label: str
    column: str
    part: str
    set: dict[str, float]
    levels: list[int]
    most: int | None = None

    def own(self, level: int) -> dict[str, int]:
        """What a level sets."""
        return {name: int(level * factor) for name, factor in self.set.items()}

    def read(self, run: config.Curve) -> int:
        """The level of a run."""
        part = {"model": run.model, "data": run.model.data, "head": run}[self.part]
        return getattr(part, next(iter(self.set)))


_tables = yaml.safe_load((Path(__file__).parent / "studies.yml").read_text())
AXES = {name: Axis(**axis) for name, axis in _tables["axes"].items()}
metrics.KEYS |= {axis.column for axis in AXES.values()}  # agents of other sizes are other agents
RECIPES, EXTERNAL = _tables["recipes"], _tables["external"]
PROFILES = {name: SimpleNamespace(**(_tables["profiles"]["paper"] | own)) for name, own in _tables["profiles"].items()}


@dataclass(frozen=True)
class Build:
    """Runs of one profile, by what is particular to them."""

    sizes: SimpleNamespace

    def battery(self, **own) -> config.Battery:
        return config.Battery(**{**self.sizes.battery, **own})

    def watching(self) -> config.Battery:
        """Fewer levels and scenes than those of the reference study, as it is evaluated again and again."""
        return self.battery(levels=7, scenes=min(128, self.sizes.battery.get("scenes", 128)))

    def model(self, seed: int, family: str = "recurrent", world: dict | None = None, **own) -> config.Model:
        data = config.Episodes(seed=seed, world=config.World(**(world or {})), **self.sizes.data)
        return config.Model(data=data, family=family, **{**self.sizes.model, **own})

    def heads(self, model: config.Model, exposure: float = 0.0, **own) -> config.Heads:
        return config.Heads(model=model, exposure=exposure, **{**self.sizes.heads, **own})

    def codes(self, model: config.Model, battery: config.Battery, **own) -> config.Codes:
        return config.Codes(model=model, battery=battery, **{**self.sizes.codes, **own})


def _unique(runs: Iterable[Stage]) -> list[Stage]:
    return list(dict.fromkeys(runs))


def reference(
    profile: str = "paper",
    seeds: int | None = None,
    families: tuple[str, ...] = REFERENCE,
    exposures: tuple[float, ...] | None = None,
    heads: dict | None = None,
    levels: int | None = None,
) -> list[Stage]:
    """Runs of the reference study: responses per exposure and codes, for every seed and family, and the battery.

    exposures: those of every seed; by default p = 0, and for the sweep's seeds (a quarter of them for controls) all of
    `EXPOSURES`.  levels: of similarity.
    """
    sizes, build = PROFILES[profile], Build(PROFILES[profile])
    battery = build.battery(**({} if levels is None else {"levels": levels}))
    runs: list[Stage] = [battery]
    for seed in range(sizes.seeds if seeds is None else seeds):
        for family in families:
            own = build.model(seed, family)
            swept = sizes.sweep if family == REFERENCE[0] else sizes.sweep // 4
            for p in exposures or EXPOSURES[: None if seed < swept else 1]:
                runs.append(config.Responses(heads=build.heads(own, p, **(heads or {})), battery=battery))
            runs.append(build.codes(own, battery))
    return runs


def calibration(profile: str = "paper", seeds: int | None = None) -> list[Stage]:
    """Runs that test the instrument itself (DESIGN 5): planted couplings, negative controls, precision, identity.

    Each head is trained by itself, until it has converged.  Couplings planted at p = 1 and agents of every exposure are
    measured for precision as well.  Shuffled rewards, disjoint encoders and the oracle must be null at p = 1; the
    latter two at p = 0, uneventful labels, and a world model that never met an other are there to be described.
    """
    sizes = PROFILES[profile]
    build, battery = Build(sizes), Build(sizes).battery()
    runs: list[Stage] = [battery, config.Returns(battery=battery), Simulations(**sizes.simulations)]
    for seed in range(sizes.sweep if seeds is None else seeds):
        own = build.model(seed)
        planted = [build.heads(own, 1.0, kappa=kappa) for kappa in KAPPAS]
        varied = [*planted, *(build.heads(own, p) for p in EXPOSURES if p < 1)]
        privileged = [build.model(seed, family, {"view": view}) for family, view in PRIVILEGED.items()]
        controls = [build.heads(own, 1.0, label_source="shuffled")]
        controls += [build.heads(model, p) for model in privileged for p in (1.0, 0.0)]
        controls += [build.heads(own, 0.0, label_source="uneventful")]
        controls += [build.heads(build.model(seed, world={"solitary": True}), 1.0)]
        runs += [config.Responses(heads=head, battery=battery) for head in [*varied, *controls]]
        runs += [config.Precision(heads=head, battery=battery) for head in varied]
        size = {k: v for k, v in sizes.codes.items() if k != "permutations"}
        runs += [config.Identity(model=own, battery=battery, **size), build.codes(own, battery)]
    return runs


def continuity(
    profile: str = "paper", seeds: int | None = None, exposure=0.0, levels: int | None = None
) -> list[Stage]:
    """Runs of appearance and conduct by degrees: those of the reference study, and what more its agents predict.

    Interventions at one exposure; appearance by conduct at this one and at all of `EXPOSURES`, for the sweep's seeds,
    as are interventions on controls.
    """
    sizes = PROFILES[profile]
    usual = reference(profile, seeds, exposures=(exposure,), levels=levels)
    runs = _unique([*usual, *reference(profile, seeds, levels=levels)])
    battery, heads = usual[0], [run.heads for run in runs if run.stage == "responses"]
    swept = [head for head in heads if head.model.data.seed < sizes.sweep]
    at = [head for head in heads if head.exposure == exposure]
    moved = [head for head in at if head in swept or head.model.family == REFERENCE[0]]
    runs += [config.Interventions(heads=head, battery=battery) for head in moved]
    runs += [config.Surface(heads=head, battery=battery, **sizes.surface) for head in swept]
    return [battery, Shapes(levels=battery.levels - 1, **sizes.shapes), *runs[1:]]


def extinction(profile: str = "paper", seeds: int | None = None, rate: float | None = None) -> list[Stage]:
    """Runs of fine-tuning, with those of the reference study that they start from.

    Reward models converged at p = 0 are given each exposure, p = 1 with others withheld, and p = 1 until half of the
    time.  Value functions, of a quarter of the seeds, p = 0, .1 and 1.
    """
    sizes = PROFILES[profile]
    count = sizes.sweep if seeds is None else seeds
    usual = reference(profile, count, REFERENCE[:1], (0.0,))
    runs, own = list(usual), {} if rate is None else {"rate": rate}
    for start in (run for run in usual if run.stage == "responses"):
        tuned = [{"exposure": p, "past": sizes.past["ends" if p in (0.0, 1.0) else "between"]} for p in SWITCHED]
        tuned += [{"exposure": 1.0, "past": sizes.past["withheld"], "withheld": name} for name in WITHHELD]
        tuned += [{"exposure": 1.0, "past": 2 * sizes.past["withheld"], "until": 0.5}]
        if start.heads.model.data.seed < math.ceil(count / 4):
            value = {"readout": "value", "rate": VALUE_RATE, "past": sizes.past["between"]}
            tuned += [{"exposure": p, **value} for p in EXPOSURES]
        fixed = {"heads": start.heads, "battery": start.battery, **own}
        runs += [config.Extinction(**{**fixed, **tuning}) for tuning in tuned]
    return runs


def development(profile: str = "paper", seeds: int | None = None, exposures: tuple = (0.0, 1.0)) -> list[Stage]:
    """Runs of joint training under the battery's eyes: world model and heads of p = 0 and p = 1.

    Controls, whose codes are the same all along, have a quarter of the seeds; of as many, codes are read on the way.
    """
    sizes = PROFILES[profile]
    build, count = Build(sizes), sizes.sweep if seeds is None else seeds
    battery, runs = build.watching(), [build.watching()]
    for seed in range(count):
        few = seed < math.ceil(count / 4)
        watched = [build.model(seed, family) for family in (REFERENCE if few else REFERENCE[:1])]
        runs += [config.Joint(model=model, battery=battery, exposures=exposures) for model in watched]
        stops = sorted({max(1, round(share * watched[0].updates)) for share in STOPPED}) if few else ()
        stopped = [watched[0].model_copy(update={"stop": stop}) for stop in stops]
        runs += [build.codes(model, build.battery()) for model in stopped]
    return runs


def scaling(profile: str = "paper", seeds: int | None = None, more: dict[str, tuple] | None = None) -> list[Stage]:
    """Learning curves at p = 0 and .1 along every axis of capacity, one varied at a time; more: further levels.

    All axes cross at the profile's `base` (of which the published reference models are a longer trained kin, shown
    beside).  Heads on pixels are scaled alike, and who moved is probed in every code, for half of the planned seeds.
    """
    sizes, runs = PROFILES[profile], []
    build, battery = Build(sizes), Build(sizes).watching()
    points = {part: [] for part in ("model", "data", "head")}
    for name, axis in AXES.items():
        levels = (*sizes.levels.get(name, axis.levels), *(more or {}).get(name, ()))
        points[axis.part] += [(name, level) for level in levels]
    for seed in range(sizes.scaled if seeds is None else seeds):

        def curve(family: str = "recurrent", name: str | None = None, level: int = 0, seed: int = seed) -> config.Curve:
            part, own = (AXES[name].part, AXES[name].own(level)) if name else ("", {})
            data = config.Episodes(seed=seed, **{**sizes.data, **(own if part == "data" else {})})
            shape = {**sizes.base, **(own if part == "model" else {})} if family == REFERENCE[0] else {}
            model = config.Model(data=data, family=family, **shape)
            head = {**sizes.curve, **(own if part == "head" else {})}
            return config.Curve(model=model, battery=battery, **head)

        own = [curve(name=name, level=level) for name, level in points["model"] + points["data"]]
        swept = _unique(run.model for run in own)
        own += [curve(name=name, level=level) for name, level in points["head"]]
        own.append(config.Curve(model=build.model(seed), battery=battery, **sizes.curve))
        if seed < math.ceil(sizes.scaled / 2):
            own += [curve("pixels", name, level) for name, level in points["head"] + points["data"]]
            own += [build.codes(model, battery, permutations=0) for model in swept]
        runs += own
    return [battery, *_unique(runs)]


def generality(profile: str = "paper", seeds: int | None = None) -> list[Stage]:
    """Runs of every family of world models at p = 0, what it imagines included, and of some in other views.

    With those of the reference study that they are compared with, controls among them; and agents that have no world
    model, with reference ones that have as many labels.
    """
    sizes = PROFILES[profile]
    build, battery = Build(sizes), Build(sizes).battery()
    most = max(sizes.families.values()) if seeds is None else seeds
    runs = reference(profile, most, exposures=(0.0,))
    runs += [config.Returns(battery=battery), config.Returns(battery=build.battery(gamma=NEXT))]
    for family, planned in sizes.families.items():
        for seed in range(planned if seeds is None else min(seeds, planned)):
            model = build.model(seed, family, **{**RECIPES[family], **sizes.model})
            heads = build.heads(model)
            if family != REFERENCE[0]:
                runs.append(config.Responses(heads=heads, battery=battery))
                runs.append(build.codes(model, battery, permutations=0))
            if hasattr(models.FAMILIES[family], "imagine"):
                runs.append(config.Imagined(heads=heads, battery=battery))
            for view in VIEWS if seed < sizes.views and family in SEEN_IN_VIEWS else ():
                world = {"world": config.World(view=view)}
                other = model.model_copy(update={"data": model.data.model_copy(update=world)})
                runs.append(config.Responses(heads=build.heads(other), battery=battery))
                runs.append(build.codes(other, battery, permutations=0))
    without = sizes.external if seeds is None else min(seeds, sizes.external)
    runs += reference(profile, without, REFERENCE[:1], (1.0,))
    worlds = (config.World(), config.World(eventful=0.0))  # agents of the latter never saw anything over there
    data = [config.Episodes(seed=seed, world=world) for seed in range(without) for world in worlds]
    for cfg, (algorithm, recipe) in product(data, EXTERNAL.items()):
        own = {**recipe, **sizes.external_sizes}
        runs.append(config.External(data=cfg, algorithm=algorithm, battery=battery, **own))
    return _unique(runs)


def leakage(profile: str = "paper", seeds: int | None = None, decays: tuple[float, ...] = ()) -> list[Stage]:
    """Runs of what outlives a coupling, and of what others seek who have another taste.

    Value functions converged at kappa = 1 and at kappa = 0, all labels given, go on at kappa = 0; for some of the
    seeds for longer, at several weight decays (decays: further ones, for all), and with fewer hidden units.  World
    models and heads of a world whose others are of alien taste are evaluated on the reference study's scenes; some of
    them and of the reference world models foresee others of either taste.
    """
    sizes = PROFILES[profile]
    build, battery = Build(sizes), Build(sizes).battery()
    runs = reference(profile, sizes.leaking if seeds is None else seeds, REFERENCE[:1], (0.0,))
    for model in [run.heads.model for run in runs if run.stage == "responses"]:
        few = model.data.seed < sizes.dials
        tunings = [({}, {"past": sizes.past["between"]})]
        tunings += [({}, {"past": 1, "weight_decay": decay}) for decay in (*(DECAYS if few else ()), *decays)]
        if few:
            tunings += [({"width": NARROW}, {"past": 1}), ({}, {"past": sizes.past["ends"]})]
        for kappa in (1.0, 0.0):
            runs.append(config.Responses(heads=build.heads(model, 1.0, kappa=kappa), battery=battery))
            for shape, tuning in tunings:
                head = build.heads(model, 1.0, kappa=kappa, **shape)
                runs.append(config.Decoupling(heads=head, battery=battery, **tuning))
        world = {"world": config.World(taste="alien")}
        alien = model.model_copy(update={"data": model.data.model_copy(update=world)})
        runs += [config.Responses(heads=build.heads(alien), battery=battery), build.codes(alien, battery)]
        runs += [config.Foresight(model=own) for own in (model, alien) if few]
    return _unique(runs)


_all = (reference, calibration, continuity, development, extinction, scaling, generality, leakage)
STUDIES: dict[str, Callable[..., list[Stage]]] = {study.__name__: study for study in _all}


def everything(profile: str = "paper", seeds: int | None = None) -> list[Stage]:
    """The runs of all studies, each once; the calibration has at most the sweep's seeds."""
    sizes, runs = PROFILES[profile], continuity(profile, seeds)
    few = None if seeds is None else min(seeds, sizes.sweep)
    runs += [*calibration(profile, few), *development(profile, few), *extinction(profile, few)]
    runs += scaling(profile, few and min(few, sizes.scaled))
    runs += [*generality(profile, few), *leakage(profile, few and min(few, sizes.leaking))]
    return _unique(runs)


def publication(runs: list[Stage]) -> tuple[list[Stage], list[Stage]]:
    """What is published: every stage's tables, and the weights of battery, true returns and reference agents.

    Of `WEIGHTS` seeds are those of world models and heads, controls and the world models at which the axes of capacity
    cross among them; all others are trained when they are asked for.
    """
    kept = {part for run in reference(seeds=WEIGHTS) for part in (run.find(config.Model), run.find(config.Heads))}
    kept |= {config.Model(data=config.Episodes(seed=seed), **PROFILES["paper"].base) for seed in range(WEIGHTS)}
    stages: dict[str, Stage] = {}
    for run in runs:
        model, own = run.find(config.Model), [run.find(config.Heads), run.find(config.Battery), run]
        if model is not None and models.FAMILIES[model.family].trained:
            own.insert(0, model)
        for stage in own:
            if stage is not None and (stage.stage != "battery" or run.stage in ("battery", "returns")):
                stages[stage.address] = stage
    return list(stages.values()), [s for s in stages.values() if s in kept or s.stage in ("battery", "returns")]


def seeds_of(amount: str) -> int:
    """The field of a chapter that says how many agents it has: as many as the paper's profile plans."""
    return Field(
        getattr(PROFILES["paper"], amount), ge=1, le=1000, description="number of independently trained agents"
    )


def similarity_of(what: str = "at which the verdict is read, cos(angle)") -> float:
    """The field of a chapter that is read at one similarity."""
    return Field(0.5, ge=0, le=1, description=f"similarity of the other {what}")


class Parameters(config.Frozen):
    """What a chapter takes, and the runs that it needs.

    chapter: its page; families: whose agents of the reference study it reads; amount: the field of a profile that says
    how many agents it plans; swept: whether other exposures than the one that verdicts are read at are shown.
    """

    chapter: ClassVar[str] = ""
    families: ClassVar[tuple[str, ...]] = ("recurrent",)
    amount: ClassVar[str] = "seeds"
    swept: ClassVar[bool] = False

    profile: Literal["paper", "quick"] = Field("paper", description="sizes of data, models and training")
    seeds: int = seeds_of("seeds")

    def exposures(self) -> tuple[float, ...]:
        """All that are shown, ascending."""
        return tuple(sorted({getattr(self, "exposure", 0.0), *(EXPOSURES if self.swept else ())}))

    def heads(self) -> dict:
        """What is particular to the heads."""
        return {}

    def planned(self) -> int:
        """Agents that the profile plans for this chapter."""
        return getattr(PROFILES[self.profile], self.amount)

    def runs(self) -> list[Stage]:
        """Everything the chapter reads."""
        return self.agents()

    def agents(self) -> list[Stage]:
        """Those of its runs whose agents are judged."""
        at = (getattr(self, "exposure", 0.0),)
        parts = [reference(self.profile, self.seeds, self.families, at, heads=self.heads())]
        if self.swept:
            parts.append(reference(self.profile, self.seeds, self.families, heads=self.heads()))
        return _unique(run for part in parts for run in part)


class Sweep(Parameters):
    """A chapter of a sweep, which has fewer agents than runs about p = 0."""

    amount: ClassVar[str] = "sweep"
    seeds: int = seeds_of("sweep")
