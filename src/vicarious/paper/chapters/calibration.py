"""Chapter 02: whether the instrument measures what it claims, how precisely, and how often its statistics err.

Planted couplings come back and controls stay silent (DESIGN 5): rules like any prediction's; while one of them is not
supported, every verdict carries a note.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import ClassVar

import numpy as np
import pandas as pd
from pydantic import Field
from scipy.special import expit

from ... import metrics, stats
from ...config import Stage
from ...pipeline import STAGES, Output, Recipe, each
from .. import studies
from ..plots import Line, draw, draw_similarity, over_similarity
from ..results import FULL, Agents, Results, S
from ..studies import KAPPAS, Sweep, similarity_of
from ..verdicts import NULL, decide, rule
from .continuity import JUMP, jump, lead

SILENT = ("shuffled", "disjoint", "oracle")  # must be null at p = 1
CELL = ["exposure", "kappa"]
LOOKS = (0.0, 0.5)  # similarities at which planted couplings are read: the ends of s <= .5
SPLIT_HALF, ICC = 0.8, 0.75  # bars of P7


class Calibration(Sweep):
    chapter: ClassVar[str] = "02-calibration"

    similarity: float = similarity_of("at which precision is read, cos(angle) to the self")
    seed: int = Field(0, ge=0, le=999, description="the agent whose values are compared with the true ones")

    def agents(self) -> list[Stage]:
        return studies.calibration(self.profile, self.seeds)


def pooled_line(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slope, intercept and R2 [...] of recovered on planted couplings [..., n, couplings, 2], all agents together."""
    return stats.line(*(x[..., i].reshape(*x.shape[:-3], -1) for i in (0, 1)))


def slope(x: np.ndarray) -> np.ndarray:
    return pooled_line(x)[0]


def determination(x: np.ndarray) -> np.ndarray:
    return pooled_line(x)[2]


def pooled_halves(x: np.ndarray) -> np.ndarray:
    """Split-half reliability [...] over all agents and designs of x [..., n, designs, halves]."""
    return stats.split_half(_together(x))


def pooled_icc(x: np.ndarray) -> np.ndarray:
    """ICC(2,k) [...] over all agents and designs of x [..., n, designs, sets]."""
    return stats.icc(_together(x))[1]


def _together(x: np.ndarray) -> np.ndarray:
    """x [..., n, designs, k] -> [..., n * designs, k]."""
    return x.reshape(*x.shape[:-3], -1, x.shape[-1])


def _competent(family: str, couplings: int, e: Results, head: str) -> Agents:
    """Seeds that pass the head's gate with all labels, at as many couplings, and the others."""
    g = e.gates[(e.gates.readout == head) & (e.gates.family == family) & (e.gates.exposure == FULL)]
    by = g.groupby("seed")
    good = by.passed.all() & (by.kappa.nunique() == couplings)
    return sorted(good.index[good]), sorted(good.index[~good])


def _everyone(family: str, e: Results, head: str) -> Agents:
    """All seeds of a control, which bypasses the gate."""
    t = e.coefficients
    return sorted(t[(t.family == family) & (t.exposure == FULL)].seed.unique()), []


def _planted(s: float, head: str, e: Results, seeds: list[int]) -> np.ndarray:
    return e.recovered(head, seeds, s)


def _silent(family: str, s: float, head: str, e: Results, seeds: list[int]) -> np.ndarray:
    return e.rho(head, seeds, family, s=s, exposure=FULL)


_recovered = [(partial(_planted, s), statistic) for s in LOOKS for statistic in (slope, determination)]
CONDITIONS = rule("planted", *_recovered, agents=partial(_competent, "recurrent", len(KAPPAS)))
for _family in SILENT:
    _who = partial(_everyone, _family) if _family == "shuffled" else partial(_competent, _family, 1)
    CONDITIONS += rule(_family, *(partial(_silent, _family, s) for s in LOOKS), agents=_who)


def condition_table(results: Results | None) -> pd.DataFrame:
    """One row per condition, as `verdicts.verdicts` has them."""
    results = results and results.replace(s=S)  # conditions are read at similarities of their own
    return pd.DataFrame([decide(c, results) for c in CONDITIONS])


def calibrated(results: Results | None) -> bool:
    """Whether every condition is supported."""
    if results is None:
        return False
    results = results.replace(s=S)
    return all(decide(c, results)["verdict"] == "supported" for c in CONDITIONS)  # not beyond the first that is not


def set_scores(precision: pd.DataFrame, s: float, kind: str = "empathy") -> pd.DataFrame:
    """Coefficients of one kind at similarity s by set and half of scenes: agent columns, readout, set, half, rho.

    precision: the table of that name in `Results`, coefficients from `metrics.scene_slopes` over sets.
    """
    found = metrics.at_similarity(precision[(precision.mover == "other") & (precision.kind == kind)], s)
    return found.assign(readout=found.readout.astype(str))  # published tables hold categories


def reliability(scored: pd.DataFrame) -> pd.DataFrame:
    """Split-half and ICC(2,k) of each readout over the pooled design of couplings and exposures, seeds resampled whole.

    scored: from `set_scores`.  Columns readout, statistic, estimate, low, high, agents.
    """
    rows = []
    for readout, own in scored.groupby("readout"):
        halves = own[own.set == 0].pivot_table(index="seed", columns=[*CELL, "half"], values="rho")
        sets = own.groupby(["seed", *CELL, "set"]).rho.mean().unstack([*CELL, "set"])
        for name, table, statistic in (("split-half", halves, pooled_halves), ("ICC(2,k)", sets, pooled_icc)):
            k = table.columns.get_level_values(-1).nunique()
            x = table.sort_index(axis=1).to_numpy().reshape(len(table), -1, k)
            found = stats.interval_of(statistic, x)
            rows.append((readout, name, found.estimate, found.low, found.high, x.shape[0] * x.shape[1]))
    return pd.DataFrame(rows, columns=["readout", "statistic", "estimate", "low", "high", "agents"])


def measurement_error(scored: pd.DataFrame) -> pd.DataFrame:
    """Within each cell: how far an agent's rho moves from one set of scenes to another, and how far agents differ.

    Columns readout, exposure, kappa, n, mean, sd_agents (of their means over sets), error (of one set).
    """
    sets = scored.groupby(["readout", *CELL, "seed", "set"]).rho.mean()
    agents = sets.groupby(level=["readout", *CELL, "seed"]).agg(["mean", "var"])
    cells = agents.groupby(level=["readout", *CELL])
    table = pd.DataFrame({"n": cells.size(), "mean": cells["mean"].mean(), "sd_agents": cells["mean"].std()})
    return table.assign(error=np.sqrt(cells["var"].mean())).reset_index()


def smallest_rho(scored: pd.DataFrame, shown: int, readout: str, scenes: list[int], agents: list[int]) -> pd.DataFrame:
    """Smallest mean rho that agents at p = 0 would show, by number of scenes and of agents (`stats.detectable`).

    scored: from `set_scores`, every half of a set with `shown` scenes.  All agents see the same scenes, so that what is
    particular to a scene is shared by them and does not average out over agents.
    """
    own = scored[(scored.readout == readout) & (scored.exposure == 0) & (scored.kappa == 0)]
    parts = stats.components(own.pivot_table(index="seed", columns=["set", "half"], values="rho").to_numpy())
    return stats.detectable(parts.rows, shown * parts.rest, shown * parts.columns, np.array(scenes), np.array(agents))


def confusion(e: Results, head: str, seeds: list[int], exposure: float = 0.0) -> pd.DataFrame:
    """rho by similarity, split into what taking the other for the self would explain, and the remainder, per agent.

    confused = probability that the mover is the self (calibrated probe) times the coefficient for the self.  Columns
    seed, similarity, rho, confused, remainder.
    """
    at = {"readout": head, "kind": "empathy", "family": "recurrent", "kappa": 0.0, "exposure": exposure}
    t = e.pick("coefficients", **at)
    t = t[t.seed.isin(seeds)]
    own = t[t.mover == "self"].set_index("seed").rho
    m = e.pick("measures", measure="p_self", mover="other", family="recurrent")[["seed", "similarity", "value"]]
    table = t[t.mover == "other"][["seed", "similarity", "rho"]].merge(m, on=["seed", "similarity"])
    confused = table.pop("value") * table.seed.map(own)
    return table.assign(confused=confused, remainder=table.rho - confused)


def true_slopes(returns: pd.DataFrame) -> pd.DataFrame:
    """What an event really does to each body's return: slope by kind and mover (index) and body (columns)."""
    parts = []
    for body in ("self", "other"):
        own = returns[returns.readout == body].assign(readout="value")
        parts.append(metrics.slopes(own.drop(columns=metrics.AGENT, errors="ignore")).assign(body=body))
    table = pd.concat(parts)
    return table.pivot_table(index=["kind", "mover"], columns="body", values="slope", sort=False)


# How often the statistics of `stats` err, on simulated studies whose truth is known

DOSES = 11  # of similarity, as in the battery
DRAWS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "skewed": lambda rng, n: rng.standard_exponential(n) - 1,
    "heavy-tailed": lambda rng, n: rng.standard_t(5, n),
    "lower of two means": lambda rng, n: rng.standard_normal((n, 1)) + rng.standard_normal((n, 2)) + [0.0, 0.5],
    "lower of two equal means": lambda rng, n: rng.standard_normal((n, 1)) + rng.standard_normal((n, 2)),
}

CURVES: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {  # over a dose from 0 to 1, one agent's
    "ramp": lambda x, rng: x,
    "bend": lambda x, rng: x ** rng.uniform(2, 4),
    "sigmoid": lambda x, rng: expit((x - rng.uniform(0.4, 0.8)) / 0.12),
    "one step": lambda x, rng: 1.0 * (x > rng.uniform(0, 1)),
    "two steps": lambda x, rng: 0.5 * (x > rng.uniform(0, 0.5)) + 0.5 * (x > rng.uniform(0.5, 1)),
    "four steps": lambda x, rng: 0.25 * (x[:, None] > rng.uniform([0, 0.25, 0.5, 0.75], [0.25, 0.5, 0.75, 1])).sum(1),
    "ramp and step": lambda x, rng: 0.5 * x + 0.5 * (x > rng.uniform(0, 1)),
}


def simulate(cfg: studies.Simulations) -> pd.DataFrame:
    """Rates over simulated studies: statistic, data, n (agents), rate, studies.

    Coverage: how often a 95% interval holds the true mean (of agents drawn as in `DRAWS`); false positives: how often a
    test at 5% speaks although there is nothing to find (equivalence at its margin, levels without trend).
    """
    rows = []
    for n in cfg.agents:
        rows += [(statistic, data, n, float(np.mean(x)), cfg.studies) for statistic, data, x in _studies(cfg, n)]
    return pd.DataFrame(rows, columns=["statistic", "data", "n", "rate", "studies"])


def _studies(cfg: studies.Simulations, n: int) -> Iterator[tuple[str, str, list[bool]]]:
    for data, drawn in DRAWS.items():
        rng = np.random.default_rng([cfg.seed, n])
        samples = [drawn(rng, n) for _ in range(cfg.studies)]
        for name, expand in ("bootstrap interval", False), ("expanded bootstrap interval", True):
            found = [stats.interval(x, cfg.resamples, expand) for x in samples]
            yield f"coverage of the {name}", data, [f.low <= 0 <= f.high for f in found]
    rng = np.random.default_rng([cfg.seed, n, 2])
    own = 1 + 0.1 * rng.standard_normal((cfg.studies, n, 1))
    rho = own * KAPPAS + 0.2 * rng.standard_normal((cfg.studies, n, 1)) + 0.1 * rng.standard_normal((cfg.studies, n, 5))
    x = np.stack([np.broadcast_to(KAPPAS, rho.shape), rho], -1)
    found = [stats.interval_of(slope, study, cfg.resamples) for study in x]
    yield "coverage of the expanded bootstrap interval", "a line's slope", [f.low <= 1 <= f.high for f in found]
    rng = np.random.default_rng([cfg.seed, n, 1])
    at_margin = NULL + 0.5 * NULL * rng.standard_normal((cfg.studies, n))
    yield "false positives of equivalence", "at the margin", [stats.equivalence(x, NULL) < 0.05 for x in at_margin]
    flat = rng.standard_normal((cfg.studies, n, DOSES)) + 3 * rng.standard_normal((cfg.studies, n, 1))
    yield "false positives of Page's test", "no trend", [stats.page(x) < 0.05 for x in flat]


def shapes(cfg: studies.Shapes) -> pd.DataFrame:
    """How often the verdict on the shape of a curve is right: curve, noise, statistic, rate.

    For every planted curve and level of noise: `smooth` and `step`, the share of studies that would say so by P4's
    bars on the lead of the smooth curve; `small jumps`, by its bar on the largest jump; and `agents smooth`, the share
    of single agents whose own lead is above 0.
    """
    dose, rng, rows = np.linspace(0, 1, cfg.levels), np.random.default_rng(cfg.seed), []
    for name, noise in product(CURVES, cfg.noise):
        y = np.stack([CURVES[name](dose, rng) for _ in range(cfg.curves)])
        y = y + noise * rng.standard_normal(y.shape)
        leads, jumps = lead(dose, y), jump(y)
        drawn = rng.integers(cfg.curves, size=(cfg.studies, cfg.agents))
        mean, error = leads[drawn].mean(1), leads[drawn].std(1, ddof=1) / np.sqrt(cfg.agents)
        wide = jumps[drawn].mean(1) + 2 * jumps[drawn].std(1, ddof=1) / np.sqrt(cfg.agents)
        found = {"smooth": mean > 2 * error, "step": mean < -2 * error, "small jumps": wide < JUMP}
        found["agents smooth"] = leads > 0
        rows += [(name, noise, statistic, float(hits.mean())) for statistic, hits in found.items()]
    return pd.DataFrame(rows, columns=["curve", "noise", "statistic", "rate"])


STAGES["simulations"] = Recipe(
    each(lambda run, _: Output({"simulations": simulate(run)})), lambda run: run.studies * run.resamples
)
STAGES["shapes"] = Recipe(each(lambda run, _: Output({"shapes": shapes(run)})), lambda run: run.curves * run.studies)


def recovery(results: Results, seeds: dict[str, list[int]], kinds: tuple[str, ...]) -> pd.DataFrame:
    """Recovered against planted coupling: rows are heads, columns kinds; thin lines agents, a line per similarity."""
    lines = []
    for readout, kind, s in product(("reward", "value"), kinds, LOOKS):
        x = results.recovered(readout, seeds[readout], s, kind)
        x, y = x[0, :, 0] + 0.06 * s - 0.015, x[..., 1]
        lines.append(Line(f"s = {s:g}", x, y, f"{readout} head, {kind}", agents=True))
    identity = lambda ax: (ax.axline((0, 0), slope=1, color="0.8", zorder=0), ax.set_xlabel("planted kappa"))  # noqa: E731
    return draw(lines, "planted", axis=identity, columns=len(kinds), label="recovered rho", sharex=True, zero=False)


def who_moved(identity: pd.DataFrame) -> pd.DataFrame:
    """A reliability diagram of the probe for who moved; identity: from `codes.calibration_bins`."""
    own, lines = identity[identity.mover == "other"], []
    for name, some in {"identical looks": own[own.similarity == 1], "all other looks": own[own.similarity < 1]}.items():
        weighted = some[["p_self", "share_self"]].mul(some.n_scenes, axis=0).groupby(some["bin"]).sum()
        x, y = (weighted[column] / some.groupby("bin").n_scenes.sum() for column in weighted)
        lines.append(Line(name, x.to_numpy(), y.to_numpy()))
    diagonal = lambda ax: (ax.axline((0, 0), slope=1, color="0.8"), ax.set_xlabel("predicted probability of self"))  # noqa: E731
    return draw(lines, "p_self", "share_self", diagonal, size=(4.4, 3.4), label="how often it was the self", zero=False)


def confusion_curves(parts: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """rho of each head against similarity, beside what confusion would explain; parts: head -> `confusion`."""
    said = {"rho": "rho", "confused": "what confusion explains"}
    at = product(parts.items(), said.items())
    return draw_similarity(over_similarity(t, value, name, f"{head} head, p = 0") for (head, t), (value, name) in at)


def smallest_detectable(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Smallest detectable rho against the number of agents, one line per number of scenes, one panel a head."""
    each = [(readout, m, own) for readout, table in tables.items() for m, own in table.groupby("scenes")]
    lines = [Line(f"{m} scenes", o.agents.to_numpy(), o.smallest.to_numpy(), f"{r} head") for r, m, o in each]
    known = all(np.isfinite(line.y).all() for line in lines)  # one agent has no variance
    axis = lambda ax: ax.set(yscale="log" if known else "linear", xlabel="agents")  # noqa: E731
    how = {"label": "smallest detectable rho", "palette": "flare", "zero": False, "levels": True}
    return draw(lines, "agents", "smallest", axis, columns=2, size=(4.2, 3.4), **how)
