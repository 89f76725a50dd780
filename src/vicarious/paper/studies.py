"""Which runs every study needs, and which are published with weights: profiles of sizes, and tables of agents."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar, Literal

import yaml
from pydantic import Field

from .. import config, models
from ..config import Stage
from .sentences import LAYERS, Encoding, Learner, Predictions

FIRST = 110  # seed; none from here on was trained before the rules were fixed
ENCODERS = ("cells/gru", "flat/gru")  # the reference and the other encoder: both have rows
COMPANY = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)  # p at which heads are raised
INPUTS = ("pixels", "pca")  # controls that have no world model, the same for both encoders
WEIGHTS = 5  # seeds whose agents are published with weights
KAPPAS = (-1.0, 0.0, 0.25, 0.5, 1.0)  # couplings that are planted at p = 1
GRADED = (0.0, 0.03, 0.1)  # company at which the shape of the curve is read
FINE = 21  # levels of appearance, twice as many steps as in the battery
VARIANTS: dict[str, tuple[dict, dict]] = {  # of a world model: what differs in its world, and in itself
    "untrained": ({}, {"trained_on": "nothing"}),
    "end_to_end": ({}, {"trained_on": "reward", "rate": 0.003}),
    "solitary": ({"eventful": 0.0}, {}),
    "expressionless": ({"expression": 0.0}, {}),
    "action_shown": ({}, {"hidden": 0.0}),
}
RAISED = ("drifters", "purposeful")  # others among whom alone heads are raised
PRIVILEGED = ("oracle", "disjoint")  # families that are told whose chamber is whose
READ = Encoding().layer  # at which verdicts on language are read: the best own slopes on seeds 900 to 905
LABELS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.3, 1.0)  # company p of reward models on sentences
CHOSEN = (0.0, 0.02, 0.1, 1.0)  # of these, those at which every layer is read


class Simulations(Stage):
    """How often the paper's statistics err on simulated studies whose truth is known."""

    stage: ClassVar[str] = "simulations"
    epoch: ClassVar[int] = 1
    studies: int = Field(1000, ge=10)
    agents: tuple[int, ...] = (10, 20, 40)
    resamples: int = Field(999, ge=99)
    seed: int = 0


config.TABLES |= {"simulations": "statistic data n rate studies"}
_tables = yaml.safe_load((Path(__file__).parent / "studies.yml").read_text())
PROFILES = {name: SimpleNamespace(**(_tables["profiles"]["paper"] | own)) for name, own in _tables["profiles"].items()}


@dataclass(frozen=True)
class Build:
    """Runs of one profile, by what is particular to them."""

    sizes: SimpleNamespace

    def battery(self, **own) -> config.Battery:
        return config.Battery(**{**self.sizes.battery, **own})

    def model(self, seed: int, family: str, variant: str = "", **world) -> config.Model:
        """A world model, or a variant of it."""
        changed, own = VARIANTS.get(variant, ({}, {}))
        diet = self.sizes.heads.get("episodes", config.Heads.model_fields["episodes"].default)
        distinct = diet if variant == "end_to_end" else None  # it learns from what heads learn from
        data = config.Episodes(seed=seed, world=config.World(**changed, **world), distinct=distinct)
        recipe = _tables["recipes"].get(family, {})
        return config.Model(data=data, family=family, **{**recipe, **self.sizes.model, **own})

    def heads(self, model: config.Model, company: float = 0.0, **own) -> config.Heads:
        return config.Heads(model=model, company=company, **{**self.sizes.heads, **own})

    def codes(self, model: config.Model, battery: config.Battery) -> config.Codes:
        return config.Codes(model=model, battery=battery, **self.sizes.codes)


def _unique(runs: Iterable[Stage]) -> list[Stage]:
    return list(dict.fromkeys(runs))


def _seeds(count: int) -> list[tuple[int, int]]:
    """(place, seed) of so many agents."""
    return [(i, FIRST + i) for i in range(count)]


def reference(
    profile: str = "paper",
    seeds: int | None = None,
    families: tuple[str, ...] = ENCODERS,
    company: tuple[float, ...] | None = None,
    heads: dict | None = None,
) -> list[Stage]:
    """World models of both encoders with what their codes share and foresee, and heads raised in every company.

    company: of every seed; by default p = 0, and for the sweep's seeds all of `COMPANY`.
    """
    sizes, build = PROFILES[profile], Build(PROFILES[profile])
    battery = build.battery()
    runs: list[Stage] = [battery, config.Returns(battery=battery)]
    for i, seed in _seeds(sizes.seeds if seeds is None else seeds):
        for family in families:
            own = build.model(seed, family)
            runs += [config.Foresight(model=own), build.codes(own, battery)]
            for p in company or COMPANY[: None if i < sizes.sweep else 1]:
                runs.append(config.Responses(heads=build.heads(own, p, **(heads or {})), battery=battery))
    return runs


def controls(profile: str = "paper", seeds: int | None = None) -> list[Stage]:
    """What the reference is compared with: heads on its inputs, and on encoders that learnt less, at p = 0 and 1."""
    sizes, build = PROFILES[profile], Build(PROFILES[profile])
    battery = build.battery()
    runs: list[Stage] = [battery]
    for i, seed in _seeds(sizes.seeds if seeds is None else seeds):
        own = [build.model(seed, family) for family in INPUTS]
        for family in ENCODERS:
            variants = {name: build.model(seed, family, name) for name in list(VARIANTS)[:4]}
            own += variants.values()
            runs += [config.Foresight(model=variants[name]) for name in ("solitary", "expressionless")]
            for raised in (*({"others": others} for others in RAISED), {"place": "left"}):
                head = build.heads(build.model(seed, family), **raised)
                runs.append(config.Responses(heads=head, battery=battery))
        for model in own:
            company = (0.0, 1.0) if i < sizes.sweep else (0.0,)
            runs += [config.Responses(heads=build.heads(model, p), battery=battery) for p in company]
            if i < sizes.few or model.family in INPUTS or model.trained_on == "nothing":
                runs.append(build.codes(model, battery))
    return runs


def ordinary(profile: str = "paper", seeds: int | None = None) -> list[Stage]:
    """The second route: predictions in ordinary eventful episodes, at p = 0."""
    sizes, build = PROFILES[profile], Build(PROFILES[profile])
    models_ = [build.model(seed, family) for _, seed in _seeds(seeds or sizes.seeds) for family in ENCODERS]
    battery = build.battery()
    return [battery, *(config.Ordinary(heads=build.heads(model), battery=battery) for model in models_)]


def calibration(profile: str = "paper", seeds: int | None = None) -> list[Stage]:
    """Runs that test the instrument and what learners recover of planted couplings (DESIGN 4).

    Couplings at p = 1; rewards of another episode; encoders that are told who is who, at p = 0 and 1, the oracle with a
    coupling as well; and world models that were always shown their own action.
    """
    sizes, build = PROFILES[profile], Build(PROFILES[profile])
    battery = build.battery()
    runs: list[Stage] = [battery, config.Returns(battery=battery), Simulations(**sizes.simulations)]
    for _, seed in _seeds(sizes.few if seeds is None else seeds):
        heads = []
        for family in ENCODERS:
            own, shown = build.model(seed, family), build.model(seed, family, "action_shown")
            heads += [build.heads(own, 1.0, kappa_gain=kappa, kappa_loss=kappa) for kappa in KAPPAS]
            heads += [build.heads(own, 1.0, rewards="shuffled"), build.heads(shown)]
            runs += [config.Foresight(model=model) for model in (own, shown)] + [build.codes(own, battery)]
        for family in PRIVILEGED:
            own = build.model(seed, family, marked=True)
            heads += [build.heads(own, p) for p in (0.0, 1.0)]
            if family == "oracle":
                heads.append(build.heads(own, 1.0, kappa_gain=0.25, kappa_loss=0.25))
        runs += [config.Responses(heads=head, battery=battery) for head in heads]
    return runs


def continuity(profile: str = "paper", seeds: int | None = None) -> list[Stage]:
    """Appearance by twice as many levels, and interventions on codes, in the company at which the shape is read."""
    sizes, build = PROFILES[profile], Build(PROFILES[profile])
    battery, fine = build.battery(), build.battery(levels=FINE)
    runs: list[Stage] = [battery, fine]
    for i, seed in _seeds(sizes.seeds if seeds is None else seeds):
        for family in ENCODERS:
            for p in GRADED if i < sizes.sweep else GRADED[:1]:
                head = build.heads(build.model(seed, family), p)
                runs += [config.Interventions(heads=head, battery=battery), config.Responses(heads=head, battery=fine)]
    return runs


def language(
    profile: str = "paper", seeds: int | None = None, layer: int = READ, company: tuple[float, ...] = LABELS
) -> list[Stage]:
    """Reward models on sentences, in every company at one layer; the other layers, encoders that know less, and what
    single sentences are predicted to be worth.  The quick profile keeps to what needs no encoder: published codes.
    """
    sizes, battery = PROFILES[profile], Build(PROFILES[profile]).battery()
    usual = Encoding(layer=layer)
    levels = [Encoding(layer=i) for i in range(LAYERS + 1)] if profile == "paper" else [usual]
    less = [Encoding(encoder=name, layer=0) for name in ("words", "tfidf")]
    less += [Encoding(encoder="random", layer=READ)] if profile == "paper" else []
    runs: list[Stage] = [battery, usual]
    for i, seed in _seeds(sizes.seeds if seeds is None else seeds):
        runs += [Learner(encoding=usual, seed=seed, company=p) for p in company]
        if i >= sizes.sweep:
            continue
        runs += [Learner(encoding=encoding, seed=seed, company=p) for encoding in levels for p in CHOSEN]
        runs += [Learner(encoding=encoding, seed=seed, company=p) for encoding in less for p in (0.0, 1.0)]
        runs += [Learner(encoding=usual, seed=seed, told=True, company=p) for p in (0.0, 1.0)]
        altered = [{"rewards": "shuffled"}, {"held_out": "patterns"}, {"labelled": "nobody"}]
        altered.append({"labelled": "strangers", "company": 1.0})
        runs += [Learner(encoding=usual, seed=seed, **own) for own in altered]
        runs += [Learner(encoding=e, seed=seed, labelled="reversal", company=1.0) for e in (*levels, less[0])]
    runs += [Predictions(encoding=e, company=p, first=FIRST, agents=sizes.sweep) for e in levels for p in CHOSEN]
    return _unique(runs)


_all = (reference, controls, ordinary, calibration, continuity, language)
STUDIES: dict[str, Callable[..., list[Stage]]] = {study.__name__: study for study in _all}


def everything(profile: str = "paper", seeds: int | None = None) -> list[Stage]:
    """The runs of all studies, each once; the calibration has at most as many agents as describe the instrument."""
    few = None if seeds is None else min(seeds, PROFILES[profile].few)
    most = [study(profile, seeds) for study in _all if study is not calibration]
    return _unique(run for runs in [*most, calibration(profile, few)] for run in runs)


def publication(runs: list[Stage]) -> tuple[list[Stage], list[Stage]]:
    """What is published: every stage's tables, and the weights of battery, true returns and reference agents.

    Of `WEIGHTS` seeds are those of reference world models with heads raised alone and with everybody; all others are
    trained when they are asked for.
    """
    some = reference(seeds=WEIGHTS, company=(0.0, 1.0))
    kept = {part for run in some for part in (run.find(config.Model), run.find(config.Heads))}
    stages: dict[str, Stage] = {}
    for run in runs:
        model, own = run.find(config.Model), [run.find(config.Heads), run.find(config.Battery), run]
        if model is not None and models.learns(model):
            own.insert(0, model)
        for stage in own:
            if stage is not None and (stage.stage != "battery" or run.stage in ("battery", "returns")):
                stages[stage.address] = stage
    whole = ("battery", "returns", "encoding")
    return list(stages.values()), [s for s in stages.values() if s in kept or s.stage in whole]


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

    chapter: its page; amount: the field of a profile that says how many agents it plans.
    """

    chapter: ClassVar[str] = ""
    amount: ClassVar[str] = "seeds"

    profile: Literal["paper", "quick"] = Field("paper", description="sizes of data, models and training")
    seeds: int = seeds_of("seeds")

    def planned(self) -> int:
        """Agents that the profile plans for this chapter."""
        return getattr(PROFILES[self.profile], self.amount)

    def runs(self) -> list[Stage]:
        """Everything the chapter reads."""
        return self.agents()

    def agents(self) -> list[Stage]:
        """Those of its runs whose agents are judged."""
        return reference(self.profile, self.seeds)
