"""Sentences and their grammar, reward models on their codes, and the rules of L1 to L5."""

import base64
import json
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch

from vicarious import execute
from vicarious.paper import chapters, results, sentences, studies
from vicarious.paper.chapters import language
from vicarious.paper.sentences import Encoding, Learner, Split
from vicarious.paper.verdicts import decide
from vicarious.pipeline import Workspace
from vicarious.store import Store


@pytest.fixture(scope="module")
def text() -> pd.DataFrame:
    return sentences.table()


def test_every_sentence_is_one_in_grammar_and_there_is_none_twice(text):
    assert text.text.is_unique
    assert text.text.str.fullmatch(r"[A-Z][A-Za-z ',-]*\.").all() and not text.text.str.contains("  ").any()
    words = text.text.str.lower()
    assert not words.str.contains(r"\bi (?:is|has|does)\b|\bme's\b|\bi's\b|\bi am (?!about)").any(), "agreement"
    assert not words.str.contains(r"\b(?:a) [aeiou](?!ni)|\ban [^aeiou]").any(), "articles"
    assert not any(re.search(r"\b(\w+) \1\b", sentence) for sentence in words), "a word said twice"
    others = text[text.subject != "I"]
    assert [s.lower() in t.lower() for s, t in zip(others.subject, others.text, strict=True)].count(False) == 0
    alone = others[~others.form.str.contains("there|watched")]
    assert not alone.text.str.contains(r"\b(?:I|me)\b").any(), "what happens to another happens to nobody else"


def test_what_did_not_happen_and_what_is_about_to_are_told_in_base_forms(text):
    past = {verb for verb, base in sentences.material()["base"].items() if verb != base}
    said = text[text.form.isin(("soon", "not"))].text
    joined = said.str.extract(r" and (\w+)")[0].dropna()  # a second verb would have to change too
    assert not (set(joined) & past) - {"rested"}
    after = said.str.extract(r"(?:about to|did not) (\w+)")[0].dropna()
    assert len(after) > 100 and not set(after) & past
    assert text[text.form == "not"].text.str.contains(r"\b(?:did|was) not\b").all()


def test_there_are_enough_of_everything(text):
    events, others = sentences.events(), sentences.others()
    assert len(events) >= 100 and len(others) >= 24 and others.closeness.is_monotonic_decreasing
    assert {event.domain for event in events} == {"body", "possessions", "status", "company", "achievement"}
    plain = text[(text.form == "plain") & (text.subject != "I")]
    assert plain.groupby("subject").determiner.nunique().eq(2).all()
    own = text[text.subject == "I"].text
    starts = own.str.startswith("I ").mean()
    assert 0.1 < starts < 0.9, "the first word does not say whose event it is"
    assert own.str.contains(r"\bme\b").any() and own.str.contains(r"\bmy\b", case=False).any()


@pytest.mark.parametrize("wording", sentences.WITNESSED)
def test_role_reversal_keeps_every_word(text, wording):
    seen, own = (text[text.form == f"{side} {wording}"].reset_index(drop=True) for side in ("other", "own"))
    assert len(seen) and (seen.subject == own.subject).all() and (seen.event == own.event).all()
    bag = lambda s: sorted(re.findall(r"\w+", s.lower()))  # noqa: E731
    assert all(bag(a) == bag(b) and a != b for a, b in zip(seen.text, own.text, strict=True))


@pytest.mark.parametrize("encoder", ["words", "tfidf"])
def test_counts_of_words_cannot_tell_whose_event_it_is(encoder, text):
    z = sentences.encode(Encoding(encoder=encoder, layer=0))
    seen, own = (np.flatnonzero(text.form == form) for form in ("other there", "own there"))
    assert torch.equal(z[seen], z[own])


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Workspace:
    """Codes that say what happens, to whom, and nothing else: each a vector of its own, added."""
    folder = tmp_path_factory.mktemp("language")
    text, g = sentences.table(), torch.Generator().manual_seed(0)
    who = pd.factorize(text.subject)[0]
    codes = torch.randn(64, 24, generator=g)[who] + torch.randn(24, generator=g) * torch.tensor(text.valence)[:, None]
    store = Store(folder / "runs", folder / "data")
    measures = sentences.likeness(codes)
    store.write(Encoding(), 0.0, {"sentences": text, "measures": measures}, {"codes": codes.half()})
    return Workspace(store)


def slopes_of(run: Learner, lab: Workspace) -> pd.DataFrame:
    lab.produce([run])
    return lab.store.read(run.address).tables["language"]


def asked(table: pd.DataFrame, **where) -> float:
    for column, value in ({"form": "plain", "events": "new"} | where).items():
        table = table[table[column] == value]
    return float((table.good - table.bad).mean() / 2)


def test_additive_codes_give_everybody_about_one_without_labels_and_nothing_with_them(lab):
    alone, company = (slopes_of(Learner(seed=3, company=p), lab) for p in (0.0, 1.0))
    assert asked(alone, subject="I") > 0.95 and asked(alone[alone.subject != "I"], known=0) > 0.6
    assert asked(company, subject="I") > 0.95 and abs(asked(company[company.subject != "I"], known=1)) < 0.05


def test_rewards_of_other_events_teach_nothing(lab):
    assert abs(asked(slopes_of(Learner(seed=3, rewards="shuffled"), lab), subject="I")) < 0.2


def test_one_that_is_told_whose_event_it_is_can_tell_people_who_were_never_labelled(lab):
    told = slopes_of(Learner(seed=3, told=True, company=1.0), lab)
    usual = slopes_of(Learner(seed=3, company=1.0), lab)
    assert abs(asked(told[told.subject != "I"], known=0)) < abs(asked(usual[usual.subject != "I"], known=0)) + 0.02
    assert asked(told, form="own there", known=0) - asked(told, form="other there", known=0) > 0.5, (
        "the mark alone says it"
    )


def test_labels_are_nested_halves_of_every_group_and_nothing_new_is_learnt(text):
    some, more = (Split.of(Learner(seed=5, company=p)) for p in (0.1, 0.3))
    assert set(some.rows) < set(more.rows) and (some.learnt == more.learnt).all()
    assert some.learnt[some.rows].all()
    learnt = text.iloc[some.rows]
    assert set(learnt.subject[learnt.subject != "I"]) == set(text.subject[some.known])
    by_group = sentences.others().assign(known=lambda t: t.subject.isin(text.subject[some.known]))
    assert by_group.groupby("group").known.mean().eq(0.5).all()
    own = (learnt.subject == "I").to_numpy()
    assert (some.reward[own] == learnt.valence[own]).all() and (some.reward[~own] == 0).all()
    strangers = Split.of(Learner(seed=5, labelled="strangers", company=1.0))
    assert set(text.subject[strangers.known]) == set(sentences.material()["others"]["strangers"])
    apart = Split.of(Learner(seed=5, held_out="patterns"))
    pattern = np.cumsum([event.shared for event in sentences.events()])
    learnt_patterns = pd.Series(apart.learnt).groupby(pattern[text.event]).nunique()
    assert learnt_patterns.eq(1).all(), "a pattern is learnt whole or not at all"


def study(lab: Workspace, seeds: int, slope) -> results.Results:
    """Results of agents that predict slope(subject, form, known, p) of every sentence's event, and a bit of noise."""
    text, rows, g = sentences.table(), [], np.random.default_rng(0)
    for seed in range(studies.FIRST, studies.FIRST + seeds):
        for p in (0.0, language.CLOSENESS, 1.0):
            run = Learner(seed=seed, company=p)
            split = Split.of(run)
            keys = zip(text.subject, text.form, split.known, strict=True)
            values = np.array([slope(*key, p) for key in keys]) * text.valence + g.normal(0, 0.02, len(text))
            rows.append(sentences.means(values.to_numpy(), split).assign(**run.agent))
    measures = lab.store.read(Encoding().address).tables["measures"].assign(seed=-1, family="truth")
    return results.Results(pd.DataFrame(), pd.DataFrame(), measures, language=pd.concat(rows))


def decided(e: results.Results) -> dict[str, dict]:
    return {p.id: decide(p, e) for p in chapters.PREDICTIONS if p.prediction.startswith("L")}


def test_rules_are_supported_and_contradicted_by_agents_made_so(lab):
    nearness = dict(zip(sentences.others().subject, np.linspace(0.8, 0.1, len(sentences.others())), strict=True))

    def vicarious(subject, form, known, p):
        own = subject == "I" or form.startswith("own")
        return 1.0 if own else 0.0 if p == 1 else nearness[subject]

    found = decided(study(lab, 12, vicarious))
    assert {k: v["verdict"] for k, v in found.items()} == dict.fromkeys(("L1", "L2", "L3", "L4", "L5"), "supported")
    assert all("one encoder" in v["note"] for v in found.values())
    assert found["L1"]["n"] == 12 and found["L4"]["estimate"] > 0.9

    def blind(subject, form, known, p):
        own = subject == "I" or form.startswith("own")
        return 1.0 if own else 0.0 if p == 0 else -nearness[subject] if p < 1 else 0.5

    found = decided(study(lab, 12, blind))
    contradicted = {k for k, v in found.items() if v["verdict"] == "contradicted"}
    assert contradicted == {"L1", "L3", "L4", "L5"} and found["L2"]["verdict"] == "supported"


def test_an_incompetent_agent_does_not_speak(lab):
    found = decided(study(lab, 10, lambda subject, form, known, p: 0.5))
    assert all(v["verdict"] == "not testable" and "gate" in v["note"] for v in found.values())


def test_partial_rank_correlation_is_that_of_residuals_of_ranks():
    x = np.random.default_rng(3).normal(size=(28, 3))
    x[:, 0] += x[:, 1] + x[:, 2]
    ranks = scipy.stats.rankdata(x, axis=0)
    rest = [ranks[:, i] - np.polyval(np.polyfit(ranks[:, 2], ranks[:, i], 1), ranks[:, 2]) for i in (0, 1)]
    assert language.partial_rank_correlation(x) == pytest.approx(scipy.stats.pearsonr(*rest)[0])
    assert language.permuted(x) < 0.05
    null = np.random.default_rng(4).normal(size=(40, 28, 3))
    assert np.mean([language.permuted(x) < 0.1 for x in null]) < 0.3, "no order, no level"


def test_choosing_shows_what_was_published_of_single_sentences(lab):
    run = sentences.Predictions(first=3, agents=2, company=0.02)
    lab.produce([run])
    table = lab.store.read(run.address).tables["predicted"].assign(**run.agent)
    assert (table.n_agents > 0).all() and table.hundredths.abs().max() <= 100
    found = language.predicted(table)
    page = language.chooser(table)
    data = json.loads(re.search(r"\}\)\((\{.*\})\);</script>", page)[1])
    assert np.array_equal(np.frombuffer(base64.b64decode(data["predicted"]), np.int8), found.ravel())
    row = table[table.subject != "I"].iloc[7]
    who = 1 + list(sentences.others().subject).index(row.subject)
    shared = [i for i, event in enumerate(sentences.events()) if event.shared]
    clause = 3 * shared.index(row.event) + sentences.VALENCES.index(row.valence)
    assert found[row.layer, language.CHOSEN.index(row.company), who, clause] == row.hundredths
    event = sentences.events()[row.event]
    assert data["clauses"][clause] == event.clauses[sentences.VALENCES.index(row.valence)]
    assert data["people"][who][0] == f"{row.determiner} {row.subject}"


def test_another_wheel_is_one_line_that_names_the_extra(tmp_path, monkeypatch):
    path = tmp_path / sentences.WEIGHTS
    path.parent.mkdir()
    path.write_bytes(b"other weights")
    monkeypatch.setattr(sentences, "find_spec", lambda _: SimpleNamespace(submodule_search_locations=[str(tmp_path)]))
    with pytest.raises(ValueError, match=r"not all-MiniLM-L6-v2 as published .*vicarious\[language\]") as error:
        sentences.folder()
    assert "\n" not in str(error.value)


def test_no_wheel_is_one_line_that_names_the_extra(monkeypatch, store):
    monkeypatch.setattr(sentences, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"not installed: pip install 'vicarious\[language\]'"):
        execute.fill([Learner(encoding=Encoding(layer=5), seed=1)], store, workers=0, device="cpu")


@pytest.mark.skipif(
    sentences.find_spec("transformers") is None or sentences.find_spec(sentences.PACKAGE) is None,
    reason="the extra `language` is not installed",
)
def test_the_encoder_gives_the_published_codes():
    published = Store().read(Encoding().address, weights=True)
    again = sentences.encode(Encoding())
    assert (again.float() - published.weights["codes"].float()).abs().max() < 1e-2


def test_published_sentences_are_these():
    made = Store().read(Encoding().address)
    assert made.manifest["sentences"] == sentences.digest()
    assert made.tables["sentences"].astype(str).equals(sentences.table().astype(str))


def test_the_chapters_parameters_change_what_is_read():
    own = language.Language(seeds=2, layer=5, company=0.07)
    learners = [run for run in own.agents() if isinstance(run, Learner)]
    assert {run.company for run in learners if run.encoding.layer == 5} >= {*studies.LABELS, 0.07}
    usual = [run for run in language.Language(seeds=2).agents() if isinstance(run, Learner)]
    assert {run.company for run in usual if run.encoding.layer == studies.READ} == set(studies.LABELS)
