"""Chapter 02: whether the instrument is exact, what learners recover of planted couplings, and how often the statistics
err (DESIGN 4).

The instrument is arithmetic: the simulator's own rewards and returns, put through battery and metrics without any
network, have to give a planted coupling back.  What heads that learnt recover of it is a finding about learning.
"""

from collections.abc import Callable, Iterator
from itertools import product
from typing import ClassVar

import numpy as np
import pandas as pd
from pydantic import Field
from torch import Tensor

from ... import battery as stimuli
from ... import config, metrics, stats
from ...config import Stage
from ...metrics import MAIN
from ...pipeline import STAGES, Output, Recipe, Workspace, each
from ...store import Store
from .. import studies
from ..plots import Line, draw
from ..results import FULL, Results
from ..studies import ENCODERS, KAPPAS, Parameters

EXACT = 1e-3  # within which the instrument has to give a coupling back
RECOVERED = 0.1  # of a slope of 1 on planted couplings
NULL = 0.05
TOLD = 0.05  # within which heads on the oracle's state have to give a coupling of .25 back
LOOKS = (0.0, 0.5)  # similarities at which planted couplings are read


class Calibration(Parameters):
    chapter: ClassVar[str] = "02-calibration"
    amount: ClassVar[str] = "few"

    seeds: int = studies.seeds_of("few")
    seed: int = Field(
        studies.FIRST, ge=0, le=9999, description="the agent whose values are compared with the true ones"
    )

    def agents(self) -> list[Stage]:
        return studies.calibration(self.profile, self.seeds)


def exactness(
    battery: config.Battery, scenes: stimuli.Scenes, gains: dict[str, Tensor], returns: pd.DataFrame
) -> pd.DataFrame:
    """Couplings that the instrument gives back of those planted, without any network: readout, mover, kappa, recovered.

    An agent that knows the truth predicts the simulator's own reward and V_pi + kappa V_other; a value's coefficient is
    over what V_other's joy is of V_pi's, by the table of `returns` (DESIGN 4).
    """
    truth, scale, rows = stimuli.truth(battery, scenes, gains), expected(returns), []
    for kappa in KAPPAS:
        found = metrics.coefficients(stimuli.truth(battery, scenes, gains, kappa), truth)
        for (readout, kind), mover in product(MAIN.items(), stimuli.OTHERS):
            own = found[(found.mover == mover) & (found.readout == readout) & (found.kind == kind)].rho
            rows.append((readout, mover, kappa, float(own.iloc[0]) / scale[readout, mover]))
    return pd.DataFrame(rows, columns=["readout", "mover", "kappa", "recovered"])


def published_exactness(battery: config.Battery, store: Store) -> pd.DataFrame:
    """`exactness` of templates and returns that are at hand."""
    scenes, _ = (lab := Workspace(store)).scenes(battery)
    table = store.read(config.Returns(battery=battery).address).tables["returns"]
    return exactness(battery, scenes, lab.returns(battery), table)


def is_exact(table: pd.DataFrame) -> bool:
    """Whether every coupling came back within `EXACT`."""
    return bool((table.recovered - table.kappa).abs().max() <= EXACT)


def expected(returns: pd.DataFrame) -> dict[tuple[str, str], float]:
    """What a coupling of 1 is as a coefficient, by readout and mover: for a value, V_other's joy over V_pi's."""
    slopes = {}
    for body in ("self", "other"):
        own = returns[returns.readout == body].assign(readout="value")
        own = metrics.slopes(own.drop(columns=metrics.AGENT, errors="ignore"))
        slopes[body] = own[own.kind == "joy"].set_index("mover").slope
    value = {("value", mover): float(slopes["other"][mover] / slopes["self"]["self"]) for mover in stimuli.OTHERS}
    return {("reward", mover): 1.0 for mover in stimuli.OTHERS} | value


def planted(results: Results, seeds: list[int], readout: str, family: str, s: float, scale: float) -> np.ndarray:
    """Planted and recovered coupling [n, couplings, 2] of heads that had everybody's company."""
    found = [
        results.rho(readout, seeds, family, s=s, company=FULL, kappa_gain=kappa, kappa_loss=kappa) / scale
        for kappa in KAPPAS
    ]
    return np.stack([np.broadcast_to(KAPPAS, (len(seeds), len(KAPPAS))), np.stack(found, 1)], -1)


def slope(x: np.ndarray) -> np.ndarray:
    """Slope [...] of recovered on planted couplings [..., n, couplings, 2], all agents together."""
    return stats.line(*(x[..., i].reshape(*x.shape[:-3], -1) for i in (0, 1)))[0]


def recovery(results: Results, returns: pd.DataFrame) -> pd.DataFrame:
    """What learners recover of planted couplings: readout, family, s, estimate, low, high, n, recovers.

    recovers: whether the slope's interval lies within .1 of 1.
    """
    scale, rows = expected(returns), []
    for readout, family, s in product(MAIN, ENCODERS, LOOKS):
        seeds = sorted(results.pick("gates", family=family, readout=readout, company=FULL).seed)
        x = planted(results, seeds, readout, family, s, scale[readout, "other"])
        found = stats.interval_of(slope, x[np.isfinite(x).all((1, 2))])
        within = 1 - RECOVERED <= found.low and found.high <= 1 + RECOVERED
        rows.append((readout, family, s, found.estimate, found.low, found.high, found.n, within))
    return pd.DataFrame(rows, columns=["readout", "family", "s", "estimate", "low", "high", "n", "recovers"])


def notes(recovered: pd.DataFrame, told: pd.DataFrame, exact: bool) -> dict[tuple[str, str], str]:
    """What has to be said of everything that is read from a head, by head and family."""
    found, wrong = {}, told[~told.right].set_index("readout")
    for key, own in recovered.groupby(["readout", "family"]):
        worst = own.loc[(own.estimate - 1).abs().idxmax()]
        said = f"this head recovers {worst.estimate:.2f} of planted couplings"
        parts = [] if own.recovers.all() else [said]
        missed = wrong[wrong.index == key[0]].itertuples()
        parts += [f"told the true state such a head has {row.estimate:.2f} for the {row.what}" for row in missed]
        found[key] = "; ".join([*parts, *([] if exact else ["instrument not exact"])])
    return found


def silence(results: Results) -> pd.DataFrame:
    """Controls that must be null where every event has been learnt from: readout, control, company, s, interval.

    At p = 0 the same controls can fail, and the table says what they give there.
    """
    rows = []
    at = [("shuffled rewards", family, FULL, {"rewards": "shuffled"}) for family in ENCODERS]
    at += [(family, family, p, {}) for family in studies.PRIVILEGED for p in (0.0, FULL)]
    for readout, (name, family, p, where), s in product(MAIN, at, LOOKS):
        t = results.agents("coefficients", family, company=p, **where)
        seeds = sorted(t.seed.unique())
        found = stats.interval(results.rho(readout, seeds, family, s=s, company=p, **where)) if seeds else stats.NOTHING
        label = f"{name}, {family}" if name != family else name
        rows.append((readout, label, p, s, found.estimate, found.low, found.high, found.n))
    return pd.DataFrame(rows, columns=["readout", "control", "company", "s", "estimate", "low", "high", "n"])


def told(results: Results, returns: pd.DataFrame) -> pd.DataFrame:
    """Heads on the oracle's state: own slope, and a coupling of .25 at p = 1; readout, what, interval, n, right.

    right: whether the interval lies within .1 of a slope of 1, and within .05 of the coupling.
    """
    rows, kappa, scale = [], {"kappa_gain": 0.25, "kappa_loss": 0.25}, expected(returns)
    for readout in MAIN:
        seeds = sorted(results.agents("gates", "oracle", readout=readout, company=FULL).seed)
        found = {"own slope": results.own(readout, seeds, "oracle", company=FULL)}
        coupled = results.rho(readout, seeds, "oracle", company=FULL, **kappa)
        found["coupling of .25"] = coupled / scale[readout, "other"]
        for name, x in found.items():
            own = stats.interval(x)
            truth, near = (1.0, RECOVERED) if name == "own slope" else (kappa["kappa_gain"], TOLD)
            right = truth - near <= own.low and own.high <= truth + near
            rows.append((readout, name, own.estimate, own.low, own.high, own.n, right))
    return pd.DataFrame(rows, columns=["readout", "what", "estimate", "low", "high", "n", "right"])


# How often the statistics of `stats` err, on simulated studies whose truth is known

DOSES = 11  # of similarity, as in the battery
DRAWS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "skewed": lambda rng, n: rng.standard_exponential(n) - 1,
    "heavy-tailed": lambda rng, n: rng.standard_t(5, n),
    "lower of two means": lambda rng, n: rng.standard_normal((n, 1)) + rng.standard_normal((n, 2)) + [0.0, 0.5],
    "lower of two equal means": lambda rng, n: rng.standard_normal((n, 1)) + rng.standard_normal((n, 2)),
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


STAGES["simulations"] = Recipe(
    each(lambda run, _: Output({"simulations": simulate(run)})), lambda run: run.studies * run.resamples
)


def recovered_lines(results: Results, returns: pd.DataFrame) -> pd.DataFrame:
    """Recovered against planted coupling: rows are heads, columns encoders; thin lines are agents."""
    lines, scale = [], expected(returns)
    for readout, family, s in product(MAIN, ENCODERS, LOOKS):
        seeds = sorted(results.pick("gates", family=family, readout=readout, company=FULL).seed)
        x = planted(results, seeds, readout, family, s, scale[readout, "other"])
        at, y = x[0, :, 0] + 0.06 * s - 0.015, x[..., 1]
        lines.append(Line(f"s = {s:g}", at, y, f"{readout} head, {family}", agents=True))
    identity = lambda ax: (ax.axline((0, 0), slope=1, color="0.8", zorder=0), ax.set_xlabel("planted kappa"))  # noqa: E731
    return draw(lines, "planted", axis=identity, columns=2, label="recovered kappa", sharex=True, zero=False)
