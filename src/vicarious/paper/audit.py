"""Whether what is published is what this code makes: some of its results trained again, and compared."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from .. import config, models, stats
from ..config import Stage
from ..pipeline import Workspace
from ..store import Result, Store
from .results import agent_columns

MARGIN = 0.05  # of a run's mean response, in reward: within it two makings are equivalent
SINGLE = 0.25  # of any one response: heads whose first weights differ by a millionth differ by up to .07
Say = Callable[[str], None]
SAME = ("device", "processor", "threads", "precision", "torch", "python")  # where the same bits are expected


class Without(Store):
    """A store that reads what is published but for some results, which it has to make anew."""

    def __init__(self, runs: Path, data: Path, hidden: set[str]):
        super().__init__(runs, data)
        self.hidden = hidden

    @cached_property
    def published(self) -> dict:
        whole = Store(self.runs, self.data).published
        files = {n: d for n, d in whole["files"].items() if Path(n).stem not in self.hidden}
        return {"files": files, "results": {a: m for a, m in whole["results"].items() if a not in self.hidden}}


@dataclass(frozen=True)
class Finding:
    """One result made twice.

    identical: bit for bit; largest: difference of any two of its mean responses, or of its measures; difference: of
    their mean; expected: whether the same bits were to be expected, since the published one was made on a platform
    like this one.
    """

    run: Stage
    identical: bool
    largest: float
    difference: float
    expected: bool

    @property
    def passed(self) -> bool:
        return self.identical or (not self.expected and self.largest < SINGLE)


def sample(runs: list[Stage], store: Store, number: int, whole: bool, seed: int) -> list[config.Responses]:
    """Published responses among these runs, drawn without looking at what they hold.

    Unless `whole`, of agents whose world model is published with weights, so that only heads have to be trained.
    """
    known = lambda m: not models.learns(m) or f"weights/{m.address}.safetensors" in store.published["files"]  # noqa: E731
    there = [c for c in runs if c.stage == "responses" and c.address in store.published["results"]]
    there = [c for c in there if whole or known(c.heads.model)]
    chosen = np.random.default_rng(seed).permutation(len(there))[:number]
    return [there[i] for i in sorted(chosen)]


def check(run: config.Responses, store: Store, whole: bool = False, device: str = "cpu") -> Finding:
    """Train one published run again, on its published world model or (whole) from nothing, and compare its tables."""
    hidden = {run.address, run.heads.address} | ({run.heads.model.address} if whole else set())
    with tempfile.TemporaryDirectory() as cache:
        again = Without(Path(cache), store.data, hidden)
        Workspace(again, device).produce([run])
        return compare(run, store.read(run.address), again.read(run.address))


def compare(run: Stage, published: Result, again: Result) -> Finding:
    """Whether two makings of a run have the same tables, of the same conditions; text may be stored as categories."""
    expected = all(published.manifest.get(k) == again.manifest.get(k) for k in SAME)
    identical, largest, difference = True, 0.0, 0.0
    for name in sorted(set(published.tables) | set(again.tables)):
        a, b = (_plain(result.tables.get(name)) for result in (published, again))
        text = [c for c in a if not pd.api.types.is_numeric_dtype(a[c])]
        if list(a) != list(b) or len(a) != len(b) or not a[text].astype(str).equals(b[text].astype(str)):
            return Finding(run, False, np.inf, np.inf, True)
        identical &= a.drop(columns=text).astype(float).equals(b.drop(columns=text).astype(float))
        value = "mean" if name == "responses" else "value"
        differences = (b[value] - a[value]).to_numpy()
        largest = max(largest, float(np.nanmax(np.abs(differences), initial=0.0)))
        difference = float(differences.mean()) if name == "responses" else difference
    return Finding(run, identical, largest, difference, expected)


def _plain(table: pd.DataFrame | None) -> pd.DataFrame:
    return pd.DataFrame() if table is None else table.dropna(axis=1, how="all").reset_index(drop=True)


def equivalent(findings: list[Finding]) -> bool:
    """Whether the mean response of runs that are not identical is the published one, within `MARGIN`, over the sample.

    Two one-sided t tests (Schuirmann 1987) from three runs on; with fewer, every difference has to lie within it.
    """
    differences = np.array([f.difference for f in findings if not f.identical])
    if len(differences) < 3:
        return bool((np.abs(differences) < MARGIN).all())
    return stats.equivalence(differences, MARGIN) < 1 - stats.LEVEL


def check_sample(
    runs: list[Stage],
    store: Store,
    number: int,
    whole: bool = False,
    seed: int = 0,
    device: str = "cpu",
    say: Say = print,
) -> bool:
    """Verify every published file, make a sample of these runs again, say what was found; whether all is well."""
    say(f"{len(store.published['files']):,} files of {len(store.published['results']):,} results match their SHA-256")
    chosen, findings = sample(runs, store, number, whole, seed), []
    for run in tqdm(chosen, desc="made again", disable=None):
        findings.append(check(run, store, whole, device))
        say(sentence(findings[-1]))
    passed = all(f.passed for f in findings) and equivalent(findings)
    say(f"{len(findings)} made again: {'as published' if passed else 'NOT as published'}")
    return passed


def sentence(finding: Finding) -> str:
    """One line on one run."""
    agent = agent_columns(finding.run)
    name = f"{finding.run.address} {agent['family']} seed {agent['seed']}, p = {agent['company']:g}"
    if finding.identical:
        return f"{name}: the same, bit for bit"
    where = "on a platform like this one" if finding.expected else "on another platform, or one that was not recorded"
    by = f"{finding.largest:.2g} at most, in the mean by {finding.difference:.2g}"
    return f"{name}: differs by {by}; was made {where}"
