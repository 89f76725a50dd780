"""The chapters: a module of this package each, with its parameters, rules, analysis and figures; found by being here.

`CHAPTERS` has the parameters of every page, `PREDICTIONS` the preregistered rules, and `Source` is what a page is made
from.
"""

import difflib
import math
import re
import reprlib
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, ClassVar

import nbformat
import pandas as pd
from pydantic import Field, ValidationError

from ... import config, execute, models
from ...config import Stage
from ...pipeline import missing
from ...store import Store, home
from .. import results, studies
from ..results import Results
from ..studies import Parameters, similarity_of
from ..verdicts import Prediction, rule, verdicts
from ..verdicts import rules as rule_table

ORDER = ("P1", "P2", "P3", "P4", "P5", "P6", "P7", "F1", "F2", "F3", "A1", "A2", "B", "L1", "L2", "L3", "L4", "L5")
LATER = ("P5", "P6a", "P6b", "P6c", "P6d", "P7", "A1", "A2", "B")  # no chapter yet
GLUED = re.compile(r"\{glue:text\}`([^`]+)`")


class Apparatus(Parameters):
    chapter: ClassVar[str] = "01-apparatus"

    seed: int = Field(studies.FIRST, ge=0, le=9999, description="the agent in the pictures")
    similarity: float = similarity_of("in the pictures, cos(angle) to the self")

    def agents(self) -> list[Stage]:
        return studies.reference(self.profile, self.seeds)


class Verdicts(Parameters):
    chapter: ClassVar[str] = "verdicts"

    def agents(self) -> list[Stage]:
        return studies.everything(self.profile, self.seeds)


class Cost(Verdicts):
    chapter: ClassVar[str] = "cost"


class Unparametrised(config.Frozen):
    """Takes nothing: the rules are the package's own, and provenance is what it is."""

    def runs(self) -> list[Stage]:
        return []


MODULES = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
calibration = import_module(f"{__name__}.calibration")
_own = [Apparatus, Verdicts, Cost, *(value for module in MODULES for value in vars(module).values())]
_declared = {c.chapter: c for c in _own if isinstance(c, type) and issubclass(c, Parameters) and c.chapter}
CHAPTERS: dict[str, type[Parameters]] = dict(
    sorted({**_declared, **dict.fromkeys(("preregistration", "provenance"), Unparametrised)}.items())
)
PREDICTIONS: list[Prediction] = sorted(
    [row for module in MODULES for row in getattr(module, "ROWS", ())] + [row for name in LATER for row in rule(name)],
    key=lambda row: ORDER.index(row.prediction),
)


class BadParameter(ValueError):
    """A chapter, a parameter's name or a parameter's value that does not exist or does not fit."""


def rules(*ids: str) -> pd.DataFrame:
    """The preregistered rules of some predictions (all by default), as every verdict applies them."""
    return rule_table(row for row in PREDICTIONS if not ids or row.id in ids)


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
        wrong = f"{name}={_short(given.get(name))}: {first['msg']} ({model.model_fields[name].description})"
        valid = "; ".join(f"{k} ({describe(model, k)})" for k in model.model_fields)
        raise BadParameter(f"{wrong}. Parameters of {chapter}: {valid}") from None


def describe(model: type[Parameters], name: str) -> str:
    """Type, range and default of one parameter in a few words."""
    schema = model.model_json_schema()["properties"][name]
    kind = " or ".join(schema["enum"]) if "enum" in schema else schema["type"]
    bounds = [f"{word} {schema[key]:g}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in schema]
    return ", ".join([" ".join([kind, *bounds]), f"default {schema['default']}"])


def declaration(model: type[Parameters]) -> str:
    """The source of a notebook's cell of parameters: what papermill reads, from where they are declared."""
    lines = []
    for name, field in model.model_fields.items():
        default = f'"{field.default}"' if isinstance(field.default, str) else field.default
        lines.append(f"{name}: {type(field.default).__name__} = {default}  # {field.description}")
    return "\n".join(lines)


def likeness(name: str, known: Iterable[str]) -> float:
    """How like the nearest of the known names this one is, from 0 to 1."""
    return max((difflib.SequenceMatcher(None, name, k).ratio() for k in known), default=0.0)


def _short(value: str) -> str:
    """Text as far as it fits into a line of an error."""
    return value if len(value) <= 40 and value.isprintable() else reprlib.repr(value)


def _unknown(what: str, name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1, 0.0)
    if not near:
        return f"unknown {what}: {_short(repr(name))}; there are none"
    return f"unknown {what}: {_short(repr(name))}; did you mean {near[0]!r}? There are: {', '.join(known)}"


def with_default_seeds(chapter: str, given: dict[str, str], store: Store) -> Parameters:
    """As `validate`; a variant that has to train and does not say `seeds` takes those with published weights.

    The quick profile takes its own number.  Without any parameter given nothing is reduced.
    """
    parameters = validate(chapter, given)
    if "seeds" in given or not given:
        return parameters
    if parameters.profile != "paper":
        return parameters.model_copy(update={"seeds": parameters.planned()})
    if not missing(parameters.runs(), store):
        return parameters
    return parameters.model_copy(update={"seeds": min(parameters.seeds, studies.WEIGHTS)})


def head_notes(profile: str, store: Store) -> dict[tuple[str, str], str]:
    """What has to be said of everything that is read from a head, as far as the agents are at hand that show it."""
    runs = results.at_hand(studies.calibration(profile), store)
    battery, returns = (next((run for run in runs if run.stage == stage), None) for stage in ("battery", "returns"))
    if returns is None:
        return {}
    exact = calibration.is_exact(calibration.published_exactness(battery, store))
    table = store.read(returns.address).tables["returns"]
    found = results.gather(runs, store)
    return calibration.notes(calibration.recovery(found, table), calibration.told(found, table), exact)


def numbers_shown(folder: Path) -> dict[str, set[str]]:
    """What the pages of a folder show of what chapters glue: page -> keys."""
    wanted: dict[str, set[str]] = {}
    for path in sorted([*folder.glob("*.ipynb"), *folder.glob("*.md")]):
        text = path.read_text()
        if path.suffix == ".ipynb":
            text = "\n".join(c.source for c in nbformat.reads(text, as_version=4).cells if c.cell_type == "markdown")
        for target in GLUED.findall(text):
            name, _, key = target.rpartition("::")
            wanted.setdefault(name or path.name, set()).add(key.partition(":")[0])  # without its format
    return wanted


def _learns(manifest: dict) -> bool:
    """Whether a world model had anything to train; the others are not published, and may or may not be cached."""
    return models.learns(config.Model.from_columns(manifest["config"]))


class Source:
    """What a page is made from: its runs made available (published, cached, or trained now), and their results.

    given: the notebook's own names, of which those of the chapter's parameters are taken.
    """

    def __init__(self, chapter: str, given: dict[str, Any] | None = None, store: Store | None = None, workers: int = 0):
        model = find(chapter)
        own = {name: given[name] for name in model.model_fields if name in (given or {})}
        self.chapter, self.parameters = chapter, model(**own)
        self.store, self.runs = store or Store(), self.parameters.runs()
        self.trained = missing(self.runs, self.store)
        execute.fill(self.runs, self.store, workers=workers)

    @cached_property
    def results(self) -> Results:
        """Tables of every run, ready for metrics and verdicts where the parameters say."""
        where = {"s": "similarity", "company": "company", "layer": "layer"}
        given = {k: getattr(self.parameters, v) for k, v in where.items() if hasattr(self.parameters, v)}
        changed = set(self.parameters.model_dump(exclude_defaults=True)) - {
            "seeds",
            "seed",
            "readout",
            "subjects",
            *where.values(),
        }
        return results.gather(self.parameters.agents(), self.store, **given, altered=bool(changed))

    def verdicts(self, *ids: str) -> pd.DataFrame:
        """Verdicts on the chapter's predictions (all rows of those that are named), decided beside all others."""
        table = verdicts(PREDICTIONS, self.results, head_notes(self.parameters.profile, self.store))
        named = [name.split("/")[0] for name in table.id]
        return table[table.id.isin(ids) | table.prediction.isin(ids) | pd.Series(named).isin(ids)] if ids else table

    def table(self, name: str) -> pd.DataFrame:
        """One tidy table of every run that has it and whose agent is judged."""
        return results.load(self.parameters.agents(), self.store, name)

    @cached_property
    def _shown(self) -> set[str]:
        return numbers_shown(home() / "book").get(f"{self.chapter}.ipynb", set())

    def glue(self, name: str, value: Any) -> None:
        """Give a number to the pages, if some page shows it."""
        from myst_nb import glue  # a package of the extra `book`

        if name in self._shown:
            glue(name, value, display=False)

    @cached_property
    def provenance(self) -> str:
        """One line: configuration, commits, agents, device, seconds, and whether it was read or trained."""
        manifests, sources = zip(*(self.store.manifest(run.address) for run in self.runs), strict=True)
        fresh = {run.address for run in self.trained}
        how = Counter("trained now" if r.address in fresh else s for r, s in zip(self.runs, sources, strict=True))
        parents = {m["parent"] for m in manifests if m["parent"]} - {run.address for run in self.runs}
        known = [self.store.manifest(a) for a in sorted(parents) if self.store.has(a)]
        known = [m for m, source in known if fresh or source == "published"]  # whatever else is in the cache
        trained = [m for m in known if m["stage"] != "model" or _learns(m)]
        seconds = math.fsum(m["seconds"] for m in [*trained, *manifests])
        digest = config.digest([run.address for run in self.runs])
        commits = ", ".join(sorted({m["commit"] for m in manifests}))
        devices = ", ".join(sorted({m["device"] for m in manifests}))
        parts = ", ".join(f"{count} {word}" for word, count in sorted(how.items()))
        return (
            f"configuration {digest} · commit {commits} · {self.parameters.seeds} seeds · {devices} · "
            f"{seconds:,.0f} s of training and testing · {parts}"
        )
