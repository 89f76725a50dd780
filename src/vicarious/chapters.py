"""The parameters of every chapter, the cells it needs, and what a chapter says about where its numbers come from."""

from __future__ import annotations

import difflib
import math
import reprlib
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from itertools import chain
from typing import ClassVar, Literal

import pandas as pd
from pydantic import Field, ValidationError

from . import calibration, config, metrics, models, study, training
from .evidence import Evidence
from .store import Store


class Parameters(config.Frozen):
    """What any chapter takes."""

    families: ClassVar[tuple[str, ...]] = ("recurrent",)
    amount: ClassVar[str] = "seeds"  # field of a profile that says how many agents it plans for this chapter
    swept: ClassVar[bool] = False  # whether other exposures than the one that verdicts are read at are shown

    profile: Literal["paper", "quick"] = Field("paper", description="sizes of data, models and training")
    seeds: int = Field(40, ge=1, le=1000, description="number of independently trained agents")

    def exposures(self) -> tuple[float, ...]:
        """All that are shown, ascending."""
        return tuple(sorted({getattr(self, "exposure", 0.0), *(study.EXPOSURES if self.swept else ())}))

    def heads(self) -> dict:
        return {}

    def planned(self) -> int:
        """Agents that the profile plans for this chapter."""
        return getattr(study.PROFILES[self.profile], self.amount)

    def cells(self) -> list[config.Stage]:
        """Everything the chapter reads."""
        return self.agents()

    def agents(self) -> list[config.Stage]:
        """Those of its cells whose agents are judged."""
        which = [(getattr(self, "exposure", 0.0),), None] if self.swept else [(getattr(self, "exposure", 0.0),)]
        parts = [study.reference(self.profile, self.seeds, self.families, p, heads=self.heads()) for p in which]
        return list(dict.fromkeys(chain.from_iterable(parts)))


class Apparatus(Parameters):
    swept: ClassVar[bool] = True

    seed: int = Field(0, ge=0, le=999, description="the agent in the pictures")
    similarity: float = Field(0.5, ge=0, le=1, description="looks of the other in the pictures, cos(angle) to the self")

    def agents(self) -> list[config.Stage]:
        wanted = super().agents()
        more = study.reference(self.profile, self.seed + 1, self.families, (0.0,))
        return wanted + [c for c in more if study.agent_columns(c)["seed"] == self.seed and c not in wanted]


class Sweep(Parameters):
    """A chapter of a sweep, which has fewer agents than cells about p = 0."""

    amount: ClassVar[str] = "sweep"

    seeds: int = Field(
        study.PROFILES["paper"].sweep, ge=1, le=1000, description="number of independently trained agents"
    )


class Calibration(Sweep):
    similarity: float = Field(
        0.5, ge=0, le=1, description="looks of the other at which precision is read, cos(angle) to the self"
    )
    seed: int = Field(0, ge=0, le=999, description="the agent whose values are compared with the true ones")

    def agents(self) -> list[config.Stage]:
        return study.calibration(self.profile, self.seeds)


class Similarity(Parameters):
    families: ClassVar[tuple[str, ...]] = study.FAMILIES

    similarity: float = Field(
        0.5, ge=0, le=1, description="looks of the other at which the verdict is read, cos(angle)"
    )


class Misgeneralisation(Parameters):
    families: ClassVar[tuple[str, ...]] = study.FAMILIES
    swept: ClassVar[bool] = True

    similarity: float = Field(
        0.5, ge=0, le=1, description="looks of the other at which the verdict is read, cos(angle)"
    )
    exposure: float = Field(0.0, ge=0, le=1, description="share p of the other's contacts labelled with own reward")
    head_width: int = Field(128, ge=1, le=4096, description="hidden units per layer of the heads")
    head_depth: int = Field(2, ge=1, le=6, description="hidden layers of the heads")

    def heads(self) -> dict:
        return {"width": self.head_width, "depth": self.head_depth}


class Continuity(Parameters):
    swept: ClassVar[bool] = True

    levels: int = Field(11, ge=8, le=21, description="levels of looks and of conduct, and of the interpolation")
    exposure: float = Field(0.0, ge=0, le=1, description="share p of the other's contacts labelled with own reward")
    readout: Literal["reward", "value"] = Field("reward", description="head that the figures show")

    def agents(self) -> list[config.Stage]:
        return study.continuity(self.profile, self.seeds, self.exposure, self.levels)


class Stimuli(Sweep):
    similarity: float = Field(
        0.5, ge=0, le=1, description="looks of the other at which kinds and precision are read, cos(angle)"
    )
    taught: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share p of the other's contacts labelled for the heads watched beside those without labels",
    )

    def agents(self) -> list[config.Stage]:
        watched = study.development(self.profile, self.seeds, (0.0, self.taught))
        return list(dict.fromkeys([*study.calibration(self.profile, self.seeds), *watched]))


class Extinction(Sweep):
    similarity: float = Field(
        0.5, ge=0, le=1, description="looks of the other at which the verdict is read, cos(angle)"
    )
    rate: float = Field(
        1e-3, gt=0, le=0.1, description="constant learning rate of the reward model once labels are given"
    )

    def agents(self) -> list[config.Stage]:
        return study.switched(self.profile, self.seeds, self.rate)


class Scaling(Parameters):
    amount: ClassVar[str] = "scaled"

    seeds: int = Field(
        study.PROFILES["paper"].scaled, ge=1, le=1000, description="number of independently trained agents"
    )
    similarity: float = Field(
        0.5, ge=0, le=1, description="looks of the other at which the verdicts are read, cos(angle)"
    )
    model_width: int = Field(
        0, ge=0, le=4096, description="a further width of the world model (its state is half as wide), 0 for none"
    )
    latent: int = Field(0, ge=0, le=4096, description="a further width of the code, 0 for none")
    head_width: int = Field(0, ge=0, le=4096, description="a further width of the reward model's layers, 0 for none")
    episodes: int = Field(0, ge=0, le=262144, description="a further number of episodes to learn from, 0 for none")

    def agents(self) -> list[config.Stage]:
        asked = {"model-width": self.model_width, "latent": self.latent}
        asked |= {"head-width": self.head_width, "data": self.episodes}
        return study.scaling(self.profile, self.seeds, {axis: (n,) for axis, n in asked.items() if n})


class Generality(Sweep):
    similarity: float = Field(
        0.5, ge=0, le=1, description="looks of the other at which the verdicts are read, cos(angle)"
    )
    readout: Literal["reward", "value"] = Field("reward", description="head that the figures show")

    def agents(self) -> list[config.Stage]:
        return study.generality(self.profile, self.seeds)


class Leakage(Parameters):
    amount: ClassVar[str] = "leaking"

    seeds: int = Field(
        study.PROFILES["paper"].leaking, ge=1, le=1000, description="number of independently trained agents"
    )
    similarity: float = Field(
        0.5, ge=0, le=1, description="looks of the other at which the residue is read, cos(angle)"
    )
    weight_decay: float = Field(
        0.0, ge=0, le=10, description="a further weight decay once the coupling has ceased, 0 for none"
    )

    def agents(self) -> list[config.Stage]:
        return study.leakage(self.profile, self.seeds, (self.weight_decay,) if self.weight_decay else ())


class Explorer(Sweep):
    def agents(self) -> list[config.Stage]:
        reference = study.reference(self.profile, self.seeds, ("recurrent",))
        return list(dict.fromkeys([*reference, *study.development(self.profile, self.seeds)]))


class Verdicts(Parameters):
    def agents(self) -> list[config.Stage]:
        return study.everything(self.profile, self.seeds)


class Cost(Verdicts):
    def cells(self) -> list[config.Stage]:
        return list(dict.fromkeys([*self.agents(), *study.calibration(self.profile)]))


class Unparametrised(config.Frozen):
    """Takes nothing: the rules are the package's own, and provenance is what it is."""

    def cells(self) -> list[config.Stage]:
        return []


CHAPTERS: dict[str, type[Parameters]] = {
    "preregistration": Unparametrised,
    "01-apparatus": Apparatus,
    "02-calibration": Calibration,
    "03-similarity": Similarity,
    "04-misgeneralisation": Misgeneralisation,
    "05-continuity": Continuity,
    "06-scaling": Scaling,
    "07-generality": Generality,
    "08-stimuli": Stimuli,
    "09-extinction": Extinction,
    "10-leakage": Leakage,
    "explorer": Explorer,
    "verdicts": Verdicts,
    "cost": Cost,
    "provenance": Unparametrised,
}


class BadParameter(ValueError):
    """A chapter, a parameter's name or a parameter's value that does not exist or does not fit."""


def find(chapter: str) -> type[Parameters]:
    """The parameter model of a chapter.  Raises BadParameter naming the nearest one."""
    if chapter not in CHAPTERS:
        raise BadParameter(_unknown("chapter", chapter, list(CHAPTERS)))
    return CHAPTERS[chapter]


def validate(chapter: str, given: dict[str, str]) -> Parameters:
    """Parameters from text, checked against the chapter's model.  Raises BadParameter in one line."""
    model = find(chapter)
    for name in given:
        if name not in model.model_fields:
            raise BadParameter(_unknown(f"parameter of {chapter}", name, list(model.model_fields)))
    try:
        return model.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        value, help_text = given.get(name), model.model_fields[name].description
        valid = "; ".join(f"{k} ({describe(model, k)})" for k in model.model_fields)
        raise BadParameter(
            f"{name}={_shown(value)}: {first['msg']} ({help_text}). Parameters of {chapter}: {valid}"
        ) from None


def describe(model: type[Parameters], name: str) -> str:
    """Type, range and default of one parameter in a few words."""
    schema = model.model_json_schema()["properties"][name]
    kind = " or ".join(schema["enum"]) if "enum" in schema else schema["type"]
    bounds = [f"{word} {schema[key]:g}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in schema]
    return ", ".join([" ".join([kind, *bounds]), f"default {schema['default']}"])


def nearness(name: str, known: Iterable[str]) -> float:
    """How like the nearest of the known names this one is, from 0 to 1."""
    return max((difflib.SequenceMatcher(None, name, k).ratio() for k in known), default=0.0)


def _shown(value: str) -> str:
    """Text as far as it fits into a line of an error."""
    return value if len(value) <= 40 and value.isprintable() else reprlib.repr(value)


def _unknown(what: str, name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1, 0.0)
    if not near:
        return f"unknown {what}: {_shown(repr(name))}; there are none"
    return f"unknown {what}: {_shown(repr(name))}; did you mean {near[0]!r}? There are: {', '.join(known)}"


def with_default_seeds(chapter: str, given: dict[str, str], store: Store) -> Parameters:
    """As `validate`; a variant that has to train and does not say `seeds` takes those with published weights.

    The quick profile takes its own number.  Without any parameter given nothing is reduced.
    """
    parameters = validate(chapter, given)
    if "seeds" in given or not given:
        return parameters
    if parameters.profile != "paper":
        return parameters.model_copy(update={"seeds": parameters.planned()})
    if not training.missing(parameters.cells(), store):
        return parameters
    return parameters.model_copy(update={"seeds": min(parameters.seeds, study.WEIGHTS)})


def evidence(cells: list[config.Stage], store: Store, **where) -> Evidence:
    """Evidence from cells that are at hand.  Scenes shown only while agents learnt are a yardstick of their own."""
    while_learning = {cell.battery for cell in cells if isinstance(cell, (config.Joint, config.Curve))}
    while_learning -= {cell.battery for cell in cells if isinstance(cell, config.Responses)}
    usual = [cell for cell in cells if cell not in while_learning]
    names = ("responses", "measures", "interventions", "precision", "extinction", "progress", "decoupling")
    tables = {name: study.load(usual, store, name) for name in names}
    truth = study.load(list(while_learning) or cells, store, "responses")
    if (slopes := study.load(usual, store, "development")) is not None:
        tables["development"] = slopes, truth
    if (slopes := study.load(usual, store, "curves")) is not None:
        own = [cell for cell in usual if isinstance(cell, config.Curve)]
        tables["curves"] = slopes, truth, study.load(own, store, "learning")
    if (slopes := study.load(usual, store, "imagined")) is not None:
        tables["imagined"] = slopes, _expected(usual, store, tables["responses"])
    if tables["responses"] is None:
        tables["responses"] = truth
    return Evidence.of(**tables, **where)


def _expected(cells: list[config.Stage], store: Store, responses: pd.DataFrame) -> pd.Series:
    """What contacts are worth that have to be imagined, from the true returns among these cells."""
    battery = next(cell.battery for cell in cells if isinstance(cell, config.Imagined))
    later, ahead = (
        store.read(config.Returns(battery=b).address).tables["returns"]
        for b in (battery, battery.model_copy(update={"gamma": study.NEXT}))
    )
    return metrics.expected(responses[responses.family == "truth"], later, ahead, battery.gamma)


def calibrated(profile: str, store: Store) -> bool:
    """Whether the instrument passes its own tests with agents at hand."""
    cells = study.at_hand(study.calibration(profile), store)
    read = (config.Battery, config.Responses, config.Codes)  # what its conditions are about
    asked = [cell for cell in cells if type(cell) in read]
    return bool(cells) and calibration.calibrated(evidence(asked, store))


class Source:
    """A chapter's cells, made available: published, cached, or trained now."""

    def __init__(self, parameters: Parameters, store: Store | None = None, workers: int = 0):
        self.parameters, self.store, self.cells = parameters, store or Store(), parameters.cells()
        self.trained = training.missing(self.cells, self.store)
        training.fill(self.cells, self.store, workers=workers)

    def evidence(self) -> Evidence:
        """Tables of every cell, ready for metrics and verdicts where the parameters say."""
        where = {"s": "similarity", "exposure": "exposure"}
        given = {k: getattr(self.parameters, v) for k, v in where.items() if hasattr(self.parameters, v)}
        changed = set(self.parameters.model_dump(exclude_defaults=True)) - {"seeds", "seed", "readout", *where.values()}
        tested = calibrated(self.parameters.profile, self.store)
        return evidence(self.parameters.agents(), self.store, **given, altered=bool(changed), calibrated=tested)

    def table(self, name: str) -> pd.DataFrame:
        """One tidy table of every cell that has it and whose agent is judged."""
        return study.load(self.parameters.agents(), self.store, name)

    def provenance(self) -> str:
        """One line: configuration, commits, agents, device, seconds, and whether it was read or trained."""
        return self._provenance

    @cached_property
    def _provenance(self) -> str:
        manifests, sources = zip(*(self.store.manifest(c.address) for c in self.cells), strict=True)
        fresh = {c.address for c in self.trained}
        how = Counter("trained now" if c.address in fresh else s for c, s in zip(self.cells, sources, strict=True))
        parents = {m["parent"] for m in manifests if m["parent"]}
        known = [self.store.manifest(a)[0] for a in sorted(parents) if self.store.has(a)]
        known = [m for m in known if m["stage"] != "model" or models.FAMILIES[m["config"]["family"]].trained]
        seconds = math.fsum(m["seconds"] for m in [*known, *manifests])
        digest = config.digest([c.address for c in self.cells])
        commits = ", ".join(sorted({m["commit"] for m in manifests}))
        devices = ", ".join(sorted({m["device"] for m in manifests}))
        parts = ", ".join(f"{count} {word}" for word, count in sorted(how.items()))
        return (
            f"configuration {digest} · commit {commits} · {self.parameters.seeds} seeds · {devices} · "
            f"{seconds:,.0f} s of training and testing · {parts}"
        )
