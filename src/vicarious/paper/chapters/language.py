"""Chapter 11: what reward models on a pretrained language encoder predict of others' events (L1 to L5; DESIGN 5).

One encoder: agents differ in the events and the others that they learn from, in their weights and in their batches.
"""

import base64
import json
from functools import partial
from itertools import product
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
import scipy.stats
from pydantic import Field

from ... import metrics, stats
from ...config import Stage
from .. import sentences, studies
from ..plots import STYLES, Line, draw
from ..results import Agents, Results
from ..sentences import LAYERS, PEOPLE, VALENCES, Learner, Split
from ..studies import CHOSEN, LABELS, READ, Parameters
from ..verdicts import rule

GROUPS = tuple(sentences.material()["others"])
CLOSENESS = 0.02  # company p at which closeness is read
PERMUTATIONS = 9999
ALSO_MINE, ALSO_THEIRS = "mine, another was there", "another's, I was there"  # the same words
MISSING = 127  # where nobody predicted a sentence of which it learnt nothing
CONTROLS = {  # what less is known by, as figures call it: where it is found
    "language encoder": {},
    "rewards of other events": {"rewards": "shuffled"},
    "told whose event it is": {"variant": "told"},
    "learnt of nobody else": {"labelled": "nobody"},
    "learnt no event of the pattern": {"held_out": "patterns"},
    "static word vectors": {"layer": 0},
    "random transformer": {"family": "random", "layer": READ},
    "counts of words": {"family": "words", "layer": 0},
    "the same by rarity": {"family": "tfidf", "layer": 0},
}
FORMS = {"happened": "happened", "soon": "is about to happen", "not": "did not happen"}


class Language(Parameters):
    chapter: ClassVar[str] = "11-language"

    layer: int = Field(READ, ge=0, le=LAYERS, description="layer of the encoder at which verdicts are read")
    company: float = Field(0.0, ge=0, le=1, description="share p of the others' good and bad events that is labelled")
    subjects: Literal[("people", *GROUPS)] = Field("people", description="others of whom the figures show the mean")

    def agents(self) -> list[Stage]:
        return studies.language(self.profile, self.seeds, self.layer, tuple(sorted({*LABELS, self.company})))


def found(
    e: Results, seeds: list[int], groups: tuple[str, ...] | None = PEOPLE, what: str = "slope", **where
) -> np.ndarray:
    """rho [n, subjects]: slope of predicted reward on what the event is worth to the one that it happens to.

    Mean over determiners; of others without any label of a good or bad event, in events that were not learnt, unless
    `where` says else; NaN where an agent has such labels of a subject.  groups: None for `I`; what: `good` or `bad` for
    the mean prediction.  Own events count one reward each, so that the true slope for the self is 1.
    """
    usual = {"family": "minilm", "layer": e.layer, "company": e.company, "labelled": "half", "held_out": "events"}
    usual |= {"events": "new", "form": "plain", "known": 0}
    t, nouns = e.pick("language", **usual | where), sentences.others()
    names = ["I"] if groups is None else nouns.subject[nouns.group.isin(groups)]
    value = {"slope": (t.good - t.bad) / 2}.get(what, t.get(what))
    wide = t.assign(value=value).pivot_table(index="seed", columns="subject", values="value", observed=True)
    return wide.reindex(index=seeds, columns=names).to_numpy(float)


def mean(
    e: Results, seeds: list[int], groups: tuple[str, ...] | None = PEOPLE, what: str = "slope", **where
) -> np.ndarray:
    """rho [n], or what else is asked for, over the subjects of some groups, each counting as much as another."""
    x = found(e, seeds, groups, what, **where)
    count = np.isfinite(x).sum(1)
    return np.where(count, np.nansum(x, 1) / count.clip(1), np.nan)


def competent(e: Results, company: tuple[float, ...] | None = None) -> Agents:
    """Agents whose own slope in events that they did not learn is within the gate's tolerance, and the others."""
    seeds = sorted(e.pick("language", family="minilm", layer=e.layer, labelled="half", held_out="events").seed.unique())
    own = np.stack([mean(e, seeds, None, company=p) for p in company or (e.company,)], 1)
    passed = (np.abs(own - 1) <= metrics.TOLERANCE).all(1)
    return np.array(seeds)[passed].tolist(), np.array(seeds)[~passed].tolist()


def whose(e: Results, seeds: list[int], wording: str = "there", **where) -> np.ndarray:
    """Own event minus another's in the same words [n]: what I did while another saw it, and the reverse."""
    own, other = (mean(e, seeds, form=f"{side} {wording}", **where) for side in ("own", "other"))
    return own - other


def beyond_things(e: Results, seeds: list[int], **where) -> np.ndarray:
    return mean(e, seeds, **where) - mean(e, seeds, ("things",), **where)


def extinguished(e: Results, seeds: list[int]) -> np.ndarray:
    """rho without labels minus that of subjects held out from them where all good and bad events are labelled [n]."""
    return mean(e, seeds, company=0.0) - mean(e, seeds, company=1.0)


def closeness(e: Results, seeds: list[int]) -> np.ndarray:
    """rho at `CLOSENESS` over agents, closeness, and cosine to `I`, of every subject [subjects, 3]."""
    x = found(e, seeds, GROUPS, company=CLOSENESS)
    nouns, t = sentences.others(), e.pick("measures", measure="cosine to I", similarity=None, family=None, variant=None)
    cosine = t.drop_duplicates("mover").set_index("mover").value.reindex(nouns.subject)
    count = np.isfinite(x).sum(0)
    return np.stack([np.where(count, np.nansum(x, 0) / count.clip(1), np.nan), nouns.closeness, cosine], 1)


def partial_rank_correlation(x: np.ndarray) -> np.ndarray:
    """Rank correlation [...] of the first two columns of x [..., n, 3], what both share with the third taken out."""
    r = stats.correlations(scipy.stats.rankdata(x, axis=-2))
    ab, ac, bc = r[..., 0, 1], r[..., 0, 2], r[..., 1, 2]
    return (ab - ac * bc) / np.sqrt((1 - ac**2) * (1 - bc**2))


def permuted(x: np.ndarray) -> float:
    """Two-sided level at which the order of closeness correlates as it does: subjects' closeness permuted."""
    g = np.random.default_rng(0)
    order = g.permuted(np.tile(x[:, 1], (PERMUTATIONS, 1)), axis=1)
    null = partial_rank_correlation(
        np.stack([np.broadcast_to(x[:, 0], order.shape), order, np.broadcast_to(x[:, 2], order.shape)], -1)
    )
    above = (1 + (null >= partial_rank_correlation(x) - 1e-12).sum()) / (PERMUTATIONS + 1)
    return float(min(1.0, 2 * min(above, 1 - above + 1 / (PERMUTATIONS + 1))))


ROWS = [
    *rule("L1", mean, agents=competent),
    *rule("L2", whose, agents=competent),
    *rule("L3", beyond_things, agents=competent),
    *rule("L4", (closeness, partial_rank_correlation, permuted), agents=partial(competent, company=(CLOSENESS,))),
    *rule("L5", partial(mean, company=1.0), extinguished, agents=partial(competent, company=(0.0, 1.0))),
]


def labelled(seed: int, p: float) -> int:
    """Good and bad events of others that an agent learns at company p, in sentences."""
    return len(Split.of(Learner(seed=seed, company=p)).rows) - len(Split.of(Learner(seed=seed)).rows)


def half_lives(e: Results, seeds: list[int]) -> pd.DataFrame:
    """Labelled sentences at which rho of every subject, on average over agents, is half of what it is without any:
    subject, group, closeness, labels (NaN: it never falls so far)."""
    x = np.stack([np.nanmean(found(e, seeds, GROUPS, company=p), 0) for p in LABELS], 1)
    at = stats.crossing(-x, -x[:, 0] / 2)
    count = np.mean([labelled(seed, 1.0) for seed in seeds])
    labels = np.interp(at, np.arange(len(LABELS)), np.array(LABELS) * count)
    return sentences.others().assign(labels=np.where(np.isfinite(at), labels, np.nan))


# Tables and figures


def controls(e: Results, groups: tuple[str, ...]) -> pd.DataFrame:
    """Own slope in events that were learnt and that were not, rho of others without labels in both at p = 0, in new
    ones at p = 1, and own minus other's event in the same words, of every encoder and control; means over agents."""
    rows = {}
    for name, where in CONTROLS.items():
        own = {"layer": e.layer, "family": "minilm"} | where
        usual = {"labelled": "half", "held_out": "events"}
        seeds = sorted(e.pick("language", **usual | own).seed.unique())
        ask = lambda groups, own=own, seeds=seeds, **more: _mean(mean(e, seeds, groups, **own | more))  # noqa: E731
        rows[name] = {
            "own, learnt events": ask(None, events="learnt", company=0.0),
            "own, new events": ask(None, company=0.0),
            "others, learnt events": ask(groups, events="learnt", company=0.0),
            "others, new events": ask(groups, company=0.0),
            "others, p = 1": ask(groups, company=1.0),
            "own minus other in the same words": _mean(whose(e, seeds, **own, company=0.0)),
        }
    return pd.DataFrame(rows).T


def over_layers(e: Results) -> pd.DataFrame:
    """What the verdicts are about, by layer; and own minus another's event in the same words, for reward models that
    learnt such sentences, in the wording that they learnt, in another, and plain sentences of others."""
    rows = {}
    where = {f"layer {i}": {"layer": i} for i in range(LAYERS + 1)} | {"words": CONTROLS["counts of words"]}
    for name, own in where.items():
        seeds = sorted(e.pick("language", **{"family": "minilm", "labelled": "reversal"} | own).seed.unique())
        taught = own | {"labelled": "reversal", "company": 1.0}
        asked = {
            "L1": mean(e, seeds, company=0.0, **own),
            "L2": whose(e, seeds, company=0.0, **own),
            "L2, watched": whose(e, seeds, "watched", company=0.0, **own),
            "L3": beyond_things(e, seeds, company=0.0, **own),
            "L5": mean(e, seeds, company=1.0, **own),
            "taught": whose(e, seeds, **taught),
            "taught, watched": whose(e, seeds, "watched", **taught),
            "taught, plain": mean(e, seeds, **taught),
        }
        rows[name] = {what: stats.interval(x) for what, x in asked.items()}
    return pd.DataFrame(rows).T


def by_determiner(e: Results, seeds: list[int], groups: tuple[str, ...], name: str) -> pd.DataFrame:
    """rho with `my` and with `the`; rows are determiners, columns others and companies."""
    rows = {}
    those = {name: groups, "things": ("things",)}
    for d, p, who in product(("my", "the"), (0.0, CLOSENESS, 1.0), those):
        x = mean(e, seeds, those[who], company=p, determiner=d)
        rows.setdefault(d, {})[who, f"p = {p:g}"] = stats.interval(x)
    return pd.DataFrame(rows).T.sort_index(axis=1)


def remainder(e: Results, seeds: list[int], groups: tuple[str, ...]) -> pd.DataFrame:
    """rho where all good and bad events of half of the others are labelled, by whether subject and event were."""
    whom = {"labelled others": 1, "others without labels": 0}
    ask = lambda **where: stats.interval(mean(e, seeds, groups, company=1.0, **where))  # noqa: E731
    rows = {name: {events: ask(known=k, events=events) for events in ("learnt", "new")} for name, k in whom.items()}
    return pd.DataFrame(rows).T.rename(columns="{} events".format)


def over_subjects(e: Results, seeds: list[int]) -> stats.Interval:
    """People minus things with an interval over subjects (Welch), where `L3`'s is over agents."""
    one, two = (np.nanmean(found(e, seeds, groups), 0) for groups in (PEOPLE, ("things",)))
    ci = scipy.stats.ttest_ind(one, two, equal_var=False).confidence_interval()
    return stats.Interval(float(one.mean() - two.mean()), float(ci.low), float(ci.high), len(one) + len(two))


def _mean(x: np.ndarray) -> float:
    return float(np.nanmean(x)) if np.isfinite(x).any() else np.nan


def spoken_of(subjects: str) -> tuple[str, ...]:
    """The groups that a parameter names."""
    return PEOPLE if subjects == "people" else (subjects,)


def by_layer(e: Results, groups: tuple[str, ...], name: str) -> pd.DataFrame:
    """By layer, in new events: own slope, rho, and the slopes of own and others' events in the same words; a panel for
    each p."""
    lines, levels = [], np.arange(LAYERS + 1)
    styles = {name: STYLES["other"], "things": STYLES["nobody"], ALSO_MINE: (STYLES["self"][0], ":")}
    styles |= {ALSO_THEIRS: (STYLES["other"][0], ":")}
    seeds = sorted(e.pick("language", layer=0, labelled="half", held_out="events", company=0.0).seed.unique())
    for p in CHOSEN:
        ask = {
            "self": lambda **at: mean(e, seeds, None, **at),
            name: lambda **at: mean(e, seeds, groups, **at),
            "things": lambda **at: mean(e, seeds, ("things",), **at),
            ALSO_MINE: lambda **at: mean(e, seeds, form="own there", **at),
            ALSO_THEIRS: lambda **at: mean(e, seeds, form="other there", **at),
        }
        lines += [
            Line(
                series,
                levels,
                np.stack([f(layer=i, company=p) for i in levels], 1),
                f"p = {p:g}",
                style=styles.get(series),
            )
            for series, f in ask.items()
        ]
    axis = lambda ax: ax.set(xlabel="layer", xticks=levels)  # noqa: E731
    return draw(lines, "layer", axis=axis, columns=2, size=(4.2, 2.7), label="slope on the event's reward")


def by_subject(e: Results, seeds: list[int]) -> pd.DataFrame:
    """rho of every subject, from the nearest to the farthest, a panel for each p; one colour a group."""
    lines, nouns = [], sentences.others()
    for p in (0.0, CLOSENESS):
        for group in GROUPS:
            x = np.flatnonzero(nouns.group == group)
            lines.append(Line(group, x, found(e, seeds, (group,), company=p), f"p = {p:g}"))
    axis = lambda ax: ax.set_xticks(range(len(nouns)), nouns.subject, rotation=90, fontsize=7)  # noqa: E731
    return draw(lines, "subject", axis=axis, columns=1, size=(7.4, 2.4), bars=True, sharex=True)


def by_company(e: Results, seeds: list[int]) -> pd.DataFrame:
    """rho of every group without labels against the share p of labelled events of others, and own slope."""
    lines = [Line("self", np.array(LABELS), np.stack([mean(e, seeds, None, company=p) for p in LABELS], 1))]
    for group in GROUPS:
        y = np.stack([mean(e, seeds, (group,), company=p) for p in LABELS], 1)
        lines.append(Line(group, np.array(LABELS), y))
    axis = lambda ax: (ax.set_xscale("symlog", linthresh=0.01), ax.set_xlabel("company p"))  # noqa: E731
    return draw(lines, "company", axis=axis, columns=1, size=(6.4, 3.4))


def by_form(e: Results, seeds: list[int]) -> pd.DataFrame:
    """Mean predictions of good and bad events that happened, are about to, and did not; rows are subjects."""
    rows, nouns = {}, sentences.others().set_index("subject").group
    for subject in ("I", *sentences.ANTICIPATED):
        groups = None if subject == "I" else (nouns[subject],)
        at = 0 if groups is None else list(nouns.index[nouns == nouns[subject]]).index(subject)
        rows[subject] = {
            (said, what): _mean(found(e, seeds, groups, what, form=form)[:, at])
            for (form, said), what in product(FORMS.items(), ("good", "bad"))
        }
    return pd.DataFrame(rows).T


def by_label(e: Results, seeds: list[int]) -> pd.DataFrame:
    """rho of every group in new events: without labels, with half of all labelled (of those that are not), and where
    all events of strangers are labelled and nobody else's."""
    rows = {}
    for group in GROUPS:
        theirs = {"labelled": "strangers", "known": int(group == "strangers"), "company": 1.0}
        some = mean(e, seeds, (group,), **theirs)
        rows[group] = {
            "nobody": stats.interval(mean(e, seeds, (group,), company=0.0)),
            "half of every group": stats.interval(mean(e, seeds, (group,), company=1.0)),
            "strangers": stats.interval(some[np.isfinite(some)]),
        }
    return pd.DataFrame(rows).T.astype(str)


# The page's own choice


def predicted(e: pd.DataFrame) -> np.ndarray:
    """Predictions in hundredths [layers, companies, subjects with `I` first, events and valences], `MISSING` where
    there is none, from a table of `predictions`."""
    who = ["I", *sentences.others().subject]
    shared = [i for i, event in enumerate(sentences.events()) if event.shared]
    out = np.full((LAYERS + 1, len(CHOSEN), len(who), len(shared), len(VALENCES)), MISSING, np.int8)
    place = [
        e.layer.to_numpy(int),
        np.abs(np.subtract.outer(e.company.to_numpy(float), np.array(CHOSEN))).argmin(1),
        e.subject.astype(str).map({name: i for i, name in enumerate(who)}).to_numpy(int),
        e.event.map({number: i for i, number in enumerate(shared)}).to_numpy(int),
        e.valence.map({v: i for i, v in enumerate(VALENCES)}).to_numpy(int),
    ]
    out[tuple(place)] = e.hundredths
    return out.reshape(*out.shape[:3], -1)


def count_of(e: pd.DataFrame) -> np.ndarray:
    """How many agents a mean prediction is of [subjects with `I` first, events and valences], from the same table."""
    return predicted(e.assign(hundredths=e.n_agents))[e.layer.astype(int).min(), 0]


def chooser(table: pd.DataFrame) -> str:
    """HTML in which subject, event, layer and p are chosen, and the prediction is seen beside that of one's own."""
    nouns = sentences.others()
    people = [["I", "me", "my", "myself"]] + [
        [f"{d} {s}", f"{d} {s}", f"{d} {s}'s", g] for s, g, _, d in nouns.itertuples(index=False)
    ]
    clauses = [clause for event in sentences.events() if event.shared for clause in event.clauses]
    data = {"people": people, "clauses": clauses, "companies": CHOSEN, "layers": LAYERS + 1, "missing": MISSING}
    encoded = base64.b64encode(predicted(table).tobytes()).decode()
    data |= {"agents": count_of(table).tolist(), "layer": READ, "predicted": encoded}
    script = (Path(sentences.__file__).parent / "chooser.js").read_text().rstrip()
    return f'<div class="chooser" id="chooser"></div><script>{script}({json.dumps(data)});</script>'
