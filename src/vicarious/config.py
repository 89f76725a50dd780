"""Configuration of every stage, and the address that a configuration gives its result.

An address is the hash of a stage's configuration without defaulted fields, its parent's address, and the
stage's epoch: an integer raised by hand whenever the arithmetic of that stage changes.  A new field with a
default therefore orphans no published result.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cache, cached_property
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

Found = TypeVar("Kind", bound="Stage")
Flip = tuple[type, str]  # a class and the alias of one of its fields


class Frozen(BaseModel):
    """Immutable configuration that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def given(part: Frozen, flip: Flip | None = None) -> dict:
    """The fields of a configuration that are not at their default, stages left out, as plain JSON.

    flip: one field that counts as given where it is not, and the reverse.
    """
    found = {}
    for name, field in type(part).model_fields.items():
        value, alias = getattr(part, name), field.alias or name
        if isinstance(value, Stage):
            continue
        if isinstance(value, Frozen):
            inside = given(value, flip) if value != field.default or (flip and flip[0] is type(value)) else {}
            found |= {alias: inside} if inside else {}
        elif (value != field.default) != (flip == (type(part), alias)):
            found[alias] = value
    return found


class World(Frozen):
    """The glass chambers (DESIGN 2): what exists, how it moves and how it is drawn."""

    size: int = Field(3, ge=2, le=6, description="side of a square chamber, in cells")
    ladder: tuple[float, ...] = Field((-1.0, 0.0, 1.0), description="rewards of the item kinds, ascending")
    max_items: int = Field(3, ge=1, description="items that a chamber holds at most")
    appear: float = Field(0.9, ge=0.0, le=1.0, description="probability per frame and chamber of a new item")
    vanish: float = Field(0.15, ge=0.0, le=1.0, description="probability per frame and item that it is gone")
    best: float = Field(0.5, ge=0.0, le=1.0, description="share of items that are of the best kind")
    appearance: int = Field(4, ge=3, le=16, description="channels of a body's appearance")
    widest: float = Field(110.0, ge=0.0, le=180.0, description="largest angle of an other's appearance, in degrees")
    expression: float = Field(1.0, ge=0.0, le=1.0, description="how strongly moods are drawn; 0: not at all")
    purpose: float = Field(0.8, ge=0.0, le=1.0, description="share of the self's steps that seek its items")
    other_purpose: float = Field(0.95, ge=0.0, le=1.0, description="the same of a purposeful other")
    drifters: float = Field(1 / 3, ge=0.0, le=1.0, description="share of episodes whose other is a drifter")
    eventful: float = Field(0.5, ge=0.0, le=1.0, description="share of episodes with another body and items for it")
    vacant: float = Field(1 / 3, ge=0.0, le=1.0, description="share of the others with items there, and nobody")
    taste: Literal["shared", "opposite", "alien"] = Field("shared", description="what a purposeful other seeks")
    view: Literal["allocentric", "left", "centred"] = Field("allocentric", description="frame of the observation")
    marked: bool = Field(False, description="the glass shows which chamber is the self's, by its sign")
    noise: float = Field(0.0, ge=0.0, description="standard deviation of the pixel noise")

    @model_validator(mode="after")
    def _ladder_is_usable(self):
        if list(self.ladder) != sorted(set(self.ladder)) or len(self.ladder) < 2 or 0.0 not in self.ladder:
            raise ValueError("ladder must ascend strictly and contain 0, e.g. (-1, 0, 1)")
        if self.max_items > self.size**2 - 3:
            raise ValueError(f"max_items must leave three cells free: at most {self.size**2 - 3}")
        return self


STAGES: dict[str, type[Stage]] = {}  # by name, filled as they are defined


class Stage(Frozen):
    """A stage of the pipeline: its configuration, the stages it stands on (the first is its parent), and its epoch.

    always: fields that are part of the address even at their default; shared: jobs of many agents read it.
    """

    stage: ClassVar[str] = ""
    shared: ClassVar[bool] = False
    epoch: ClassVar[int] = 0
    always: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def __pydantic_init_subclass__(cls, **_) -> None:
        if cls.stage:
            STAGES.setdefault(cls.stage, cls)

    @cached_property
    def parts(self) -> dict[str, Stage]:
        """The stages that this one stands on directly, by field."""
        return {name: value for name, value in self if isinstance(value, Stage)}

    @property
    def parent(self) -> Stage | None:
        return next(iter(self.parts.values()), None)

    def find(self, kind: type[Found]) -> Found | None:
        """This stage or the nearest one that it stands on of a kind; None where there is none."""
        if isinstance(self, kind):
            return self
        return next((found for part in self.parts.values() if (found := part.find(kind)) is not None), None)

    def own(self, flip: Flip | None = None) -> dict:
        """What of its configuration makes its address, its parent apart; further stages by their own addresses."""
        further = list(self.parts.items())[1:]
        always = {name: getattr(self, name) for name in self.always}
        return {**given(self, flip), **always, **{name: _address(part, flip) for name, part in further}}

    @property
    def address(self) -> str:
        """Sixteen hexadecimal digits that name this result."""
        return _address(self)

    def columns(self) -> dict[str, Any]:
        """The whole configuration, flat: `stage.field` -> value, of this stage and all that it stands on."""
        found = {}
        for part in self.parts.values():
            found |= part.columns()
        return found | _flat(self, self.stage)

    @classmethod
    def from_columns(cls: type[Found], row: dict[str, Any]) -> Found:
        """The stage whose `columns` these are.  Raises ValueError where they are not such."""
        return cls.model_validate(_nested(cls, cls.stage, row))

    def changed_default(self, address: str) -> str | None:
        """`Class.field` if this configuration had that address before the default of one field changed."""
        flips = [(kind, f.alias or name) for kind in _classes(self) for name, f in kind.model_fields.items()]
        return next((f"{k.__name__}.{name}" for k, name in flips if _address(self, (k, name)) == address), None)


@cache  # stages share their ancestors
def _address(stage: Stage, flip: Flip | None = None) -> str:
    parent = _address(stage.parent, flip) if stage.parent else None
    return digest([stage.stage, stage.epoch, stage.own(flip), parent])


def digest(content) -> str:
    """Sixteen hexadecimal digits of SHA-256 over canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _flat(part: Frozen, prefix: str) -> dict[str, Any]:
    found = {}
    for name, field in type(part).model_fields.items():
        value, key = getattr(part, name), f"{prefix}.{field.alias or name}"
        if isinstance(value, Frozen) and not isinstance(value, Stage):
            found |= _flat(value, key)
        elif not isinstance(value, Stage):
            found[key] = list(value) if isinstance(value, tuple) else value
    return found


def _nested(kind: type[Frozen], prefix: str, row: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for name, field in kind.model_fields.items():
        key, part = f"{prefix}.{field.alias or name}", field.annotation
        if isinstance(part, type) and issubclass(part, Frozen):
            found[name] = _nested(part, part.stage if issubclass(part, Stage) else key, row)
        elif row.get(key) is not None:
            found[name] = row[key]
    return found


def _classes(part: Frozen) -> Iterator[type[Frozen]]:
    """Of a configuration and all that is in it."""
    yield type(part)
    for _, value in part:
        if isinstance(value, Frozen):
            yield from _classes(value)


def same_chambers(battery: Battery, data: Episodes) -> None:
    """Scenes are templates of one chamber size and ladder; appearance, view, noise and taste may differ."""
    for name in ("size", "ladder"):
        if getattr(battery.world, name) != getattr(data.world, name):
            raise ValueError(
                f"the battery's world and the episodes' have different {name}: give Battery(world=...) the same"
            )


class Evaluated(Stage):
    """A stage whose agent is shown the battery."""

    @model_validator(mode="after")
    def _fits(self):
        same_chambers(self.battery, self.parent.find(Episodes))
        return self


class Episodes(Stage):
    """The episodes of one seed's world under scripted conduct: an endless stream, or a number of distinct ones."""

    stage: ClassVar[str] = "episodes"
    epoch: ClassVar[int] = 2
    seed: int = Field(ge=0)
    world: World = World()
    frames: int = Field(20, ge=4)
    distinct: int | None = Field(None, ge=64, description="episodes that there are; None: ever new ones")


class Model(Stage):
    """A world model, trained without reward and then frozen.

    family: `encoder/memory` as `vicarious.models` has them, or a control; trained_on: `world`, its own objective;
    `nothing`, its initial weights; `reward`, own reward alone in the heads' episodes at p = 0.
    """

    stage: ClassVar[str] = "model"
    epoch: ClassVar[int] = 3
    data: Episodes
    family: str = "cells/gru"
    trained_on: Literal["world", "nothing", "reward"] = "world"
    latent: int = Field(128, ge=2)
    width: int = Field(256, ge=8)
    updates: int = Field(3000, ge=1)
    batch: int = Field(32, ge=1)
    rate: float = Field(2e-2, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    hidden: float = Field(0.5, ge=0, le=1, description="share of episodes whose own next action has to be foreseen")
    bodies: float = Field(12.0, gt=0, description="weight of errors in the channels of bodies and of expression")
    stop: int | None = Field(None, ge=1, description="update at which it is taken as it is, short of all updates")
    state: int | None = Field(
        None,
        ge=2,
        description="width of the recurrent state, of which the code is then a linear map; None: the code itself",
    )


class Foresight(Stage):
    """How well a predictive world model foresees where a purposeful other will be next."""

    stage: ClassVar[str] = "foresight"
    epoch: ClassVar[int] = 3
    model: Model
    episodes: int = Field(4096, ge=64, description="that nothing has learnt from")

    @model_validator(mode="after")
    def _knows_whose_chamber_is_where(self):
        if self.model.data.world.view != "allocentric":
            raise ValueError("foresight of the other's place is read in worlds in allocentric view")
        return self


class Heads(Stage):
    """A reward model and a value function over one frozen world model, each trained by itself on own reward alone.

    At company 0 they are raised alone: they learn from all quiet and vacant episodes and from no eventful one.
    """

    stage: ClassVar[str] = "heads"
    epoch: ClassVar[int] = 4
    model: Model
    company: float = Field(0.0, ge=0.0, le=1.0, description="share p of the eventful episodes that is learnt from")
    kappa_gain: float = Field(0.0, ge=-1.0, le=1.0, description="coupling: the other's gains in the self's reward")
    kappa_loss: float = Field(0.0, ge=-1.0, le=1.0, description="coupling: the other's losses in the self's reward")
    rewards: Literal["own", "shuffled"] = Field("own", description="own reward, or that of another episode")
    others: Literal["all", "drifters", "purposeful"] = Field("all", description="among whom they are raised")
    place: Literal["either", "left"] = Field(
        "either", description="chambers in which they, and the battery, see the self"
    )
    episodes: int = Field(49152, ge=64)
    width: int = Field(128, ge=1, description="hidden units per layer")
    depth: int = Field(2, ge=1, le=6, description="hidden layers")
    reward_updates: int = Field(2000, ge=1, description="of the reward model")
    reward_rate: float = Field(1e-2, gt=0, description="of the reward model")
    updates: int = Field(2000, ge=1, description="of the value function")
    rate: float = Field(1e-2, gt=0, description="of the value function")
    batch: int = Field(64, ge=1, description="episodes per update")
    weight_decay: float = Field(0.01, ge=0)
    gamma: float = Field(0.8, gt=0, lt=1)
    lam: float = Field(0.95, ge=0, le=1)

    @property
    def data(self) -> Episodes:
        """The episodes that it learns from, a share of them: those of the usual world, whatever the model met, in
        which the self's chamber may always be the left one."""
        usual = {"eventful": World.model_fields["eventful"].default}
        usual |= {"view": "left"} if self.place == "left" else {}
        world = self.model.data.world.model_copy(update=usual)
        return self.model.data.model_copy(update={"world": world, "distinct": self.episodes})


class Battery(Stage):
    """The stimulus battery: scene templates that every agent is evaluated on."""

    stage: ClassVar[str] = "battery"
    shared: ClassVar[bool] = True
    epoch: ClassVar[int] = 2
    world: World = World()
    seed: int = 2022
    scenes: int = Field(256, ge=8)
    levels: int = Field(11, ge=2)
    context: int = Field(6, ge=1)
    gamma: float = Field(0.8, gt=0, lt=1)
    rollouts: int = Field(256, ge=1)


class Returns(Stage):
    """What every body really gains after every frame of the battery, by simulation."""

    stage: ClassVar[str] = "returns"
    epoch: ClassVar[int] = 2
    battery: Battery = Battery()


class Responses(Evaluated):
    """What one agent predicts in the battery."""

    stage: ClassVar[str] = "responses"
    epoch: ClassVar[int] = 6
    heads: Heads
    battery: Battery = Battery()


class Interventions(Responses):
    """What one agent predicts when codes of the battery are moved along the self-other axis, or it is erased."""

    stage: ClassVar[str] = "interventions"
    epoch: ClassVar[int] = 2
    always: ClassVar[tuple[str, ...]] = ("axes",)
    axes: int = Field(4, ge=1, description="random axes for comparison")


class Ordinary(Responses):
    """What one agent predicts in ordinary eventful episodes, regressed on what the bodies meet there."""

    stage: ClassVar[str] = "ordinary"
    epoch: ClassVar[int] = 1
    always: ClassVar[tuple[str, ...]] = ("episodes",)
    episodes: int = Field(4096, ge=64, description="that nothing has learnt from")


class Codes(Evaluated):
    """What one world model's codes share between self and other in the same event, and whether they tell who moved."""

    stage: ClassVar[str] = "codes"
    epoch: ClassVar[int] = 6
    model: Model
    battery: Battery = Battery()
    width: int = Field(128, ge=1)
    depth: int = Field(2, ge=1, le=6)
    fit_scenes: int = Field(8192, ge=64, description="scenes of their own to which decoder and probe are fitted")
    updates: int = Field(1000, ge=1, description="of decoder and probe")
    batch: int = Field(1024, ge=1, description="codes per update")
    rate: float = Field(3e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)


class External(Evaluated):
    """An agent of another library without a world model, trained on own reward alone, and what its value predicts."""

    stage: ClassVar[str] = "outsider"
    epoch: ClassVar[int] = 6
    data: Episodes
    algorithm: Literal["ppo", "dqn"]
    steps: int = Field(ge=1, description="of all worlds together")
    battery: Battery = Battery()
    worlds: int = Field(64, ge=4, multiple_of=4, description="in which it acts at once")
    width: int = Field(128, ge=1, description="hidden units per layer")
    depth: int = Field(2, ge=1, le=6, description="hidden layers")
    rate: float = Field(1e-3, gt=0)


TABLES = {  # columns of every kind of table; published ones have `address` beside them
    "responses": "contact valence phase readout mean n_scenes mover similarity step",
    "returns": "contact valence phase readout mean n_scenes mover similarity",
    "measures": "measure mover similarity value",
    "interventions": "path mover similarity alpha readout slope",
    "ordinary": "readout mover similarity slope error n_frames",
    "foresight": "measure value",
    "outsiders": "readout kind mover similarity slope rho",
}
TEXT = set("contact phase readout mover measure kind taste path withheld statistic data curve address".split())
