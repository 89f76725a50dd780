"""Which agents a study needs, what tells them apart in tables, and which of them are published."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from . import config, models
from .store import Store
from .training import missing, model_of

FAMILIES = ("recurrent", "pixels", "untrained")
EXPOSURES = (0.0, 0.1, 1.0)
TOLD = ("oracle", "disjoint")  # families that only know one view
WEIGHTS = 5  # seeds whose agents are published with weights, controls and all
MODELS = 40  # seeds whose world models and heads at p = 0 are published with weights
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
OUTSIDERS = {"ppo": {"steps": 3_000_000, "worlds": 128}, "dqn": {"steps": 600_000}}  # agents without a world model
VIEWS = ("left", "centred")
VIEWED = ("recurrent", "transformer", "vae")  # families that are also shown the world in other views
DECAYS = (0.0, 1.0)  # weight decay once a coupling has ceased, beside the usual one
NARROW = 32  # hidden units of heads with less capacity
VALUE_RATE = 1e-4  # constant rate of the value function once labels are given


@dataclass(frozen=True)
class Profile:
    """Sizes of the studies, and how many agents each has.  `quick` promises no competence.

    seeds: agents of cells that a verdict about p = 0 is read from; sweep: of other cells; scaled: of every capacity.
    families: of every family of the generality study, views: of those that see the world in other views, outsiders: of
    those that have no world model (outsider: how they are trained, if not as usual); leaking: of
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
    outsiders: int
    outsider: dict
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
        dict.fromkeys(("recurrent", "rssm", "jepa"), 20)
        | dict.fromkeys(("transformer", "vae", "conv", "slots", "end_to_end"), 10),
        5,
        5,
        {},
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
        dict.fromkeys(("recurrent", "rssm", "jepa", "transformer", "vae", "conv", "slots", "end_to_end"), 2),
        0,
        1,
        {"steps": 20_000},
        2,
        0,
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

    With those of the reference study that they are compared with, controls among them; and agents that have no world
    model, with reference ones that are told as much.
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
            data = config.Episodes(seed=seed, **sizes.data)
            model = config.Model(data=data, family=family, **{**RECIPES[family], **sizes.model})
            if family != FAMILIES[0]:
                cells.append(config.Responses(heads=heads(model), battery=battery))
                cells.append(config.Codes(model=model, battery=battery, **probe))
            if hasattr(models.FAMILIES[family], "imagine"):
                cells.append(config.Imagined(heads=heads(model), battery=battery))
            if seed < sizes.views and family in VIEWED:
                cells += _viewed(model, battery, heads, probe)
    without = sizes.outsiders if seeds is None else min(seeds, sizes.outsiders)
    cells += [*reference(profile, without, FAMILIES[:1], (1.0,)), *_outsiders(sizes, battery, without)]
    return list(dict.fromkeys(cells))


def _outsiders(sizes: Profile, battery: config.Battery, seeds: int) -> list[config.Stage]:
    """Agents without a world model, and as many who never saw anything in the other's chamber while they learnt."""
    worlds = (config.World(), config.World(eventful=0.0))
    return [
        config.Outsider(
            data=config.Episodes(seed=seed, world=seen),
            algorithm=algorithm,
            battery=battery,
            **{**recipe, **sizes.outsider},
        )
        for seed in range(seeds)
        for seen in worlds
        for algorithm, recipe in OUTSIDERS.items()
    ]


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

    Value functions converged at kappa = 1 and at kappa = 0, all labels given, go on at kappa = 0; for some of the
    seeds for longer, at several weight decays (decays: further ones, for all), and with fewer hidden units.  World
    models and heads of a world whose others are of alien taste are shown the reference study's scenes; some of them
    and of the reference world models are asked to foresee others of either taste.
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
            for decay in (*(DECAYS if few else ()), *decays):
                own = {"past": 1, "weight_decay": decay}
                cells.append(config.Decoupling(heads=head(kappa), battery=battery, **own))
            if few:
                cells.append(config.Decoupling(heads=head(kappa, width=NARROW), battery=battery, past=1))
                cells.append(config.Decoupling(heads=head(kappa), battery=battery, past=sizes.past["ends"]))
        world = config.World(taste="alien")
        alien = model.model_copy(update={"data": model.data.model_copy(update={"world": world})})
        cells.append(config.Responses(heads=config.Heads(model=alien, **sizes.heads), battery=battery))
        cells.append(config.Codes(model=alien, battery=battery, **sizes.codes))
        cells += [config.Foresight(model=own) for own in (model, alien) if few]
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


def agent_columns(cell: config.Stage) -> dict:
    """What tells agents apart in a table: seed, family (or what else is particular to it), exposure, kappa."""
    if isinstance(cell, config.Outsider):
        alone = "" if cell.data.world.eventful else ":uneventful"
        return {"seed": cell.data.seed, "family": cell.algorithm + alone, "exposure": 1.0, "kappa": 0.0}
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
    of = {cell.address: cell for cell in cells}
    frame = store.rows(list(of), table)
    if frame is None:
        return None
    there = frame.address.unique()
    agents = pd.DataFrame([agent_columns(of[address]) for address in there], index=there)
    agents = agents.loc[frame.address.astype(str)].reset_index(drop=True)
    return pd.concat([frame.drop(columns=["address", *agents], errors="ignore"), agents], axis=1)


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
        if isinstance(cell, config.Returns):
            stages[cell.battery.address] = cell.battery
        stages[cell.address] = cell
    kinds = (config.Battery, config.Returns)
    return list(stages.values()), [s for s in stages.values() if s in kept or isinstance(s, kinds)]
