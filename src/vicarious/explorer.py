"""The explorer: what agents predict for self, other and drifter, by everything that was varied, on one page."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import scipy.stats

from . import figures, metrics, stats
from .evidence import Evidence
from .stimuli import MOVERS

CONVERGED = "converged"  # heads trained on a frozen world model; other stages are updates of learning together


def data(evidence: Evidence) -> dict:
    """Everything the page shows, ready for JSON.

    kinds: readout -> kind -> valences and the frames that it compares, (contact, phase, sign).  stages: `converged`,
    and the updates at which agents were watched.  series: [readout, kind, exposure, stage, mover, similarities, means,
    half-widths of Student's intervals over agents], in coefficients rho; agents: how many there are of either.
    """
    trained = evidence.coefficients[
        (evidence.coefficients.family == "recurrent") & (evidence.coefficients.kappa == 0)
    ].assign(stage=CONVERGED)
    parts = [trained]
    if evidence.development is not None:
        watched = evidence.development[evidence.development.family == "recurrent"]
        parts.append(watched.assign(stage=watched["update"].astype(int).astype(str)))
    agents = {stage: int(part.seed.nunique()) for stage, part in zip((CONVERGED, "watched"), parts, strict=False)}
    columns = ["readout", "kind", "exposure", "stage", "mover", "similarity"]
    per_agent = pd.concat([p.groupby([*columns, "seed"], observed=True).rho.mean() for p in parts]).dropna()
    each = per_agent.groupby(level=columns, observed=True).agg(["mean", "sem", "size"])
    half = each["sem"] * scipy.stats.t.ppf((1 + stats.LEVEL) / 2, np.maximum(each["size"] - 1, 1))
    each = each.assign(half=half.fillna(0.0)).reset_index()
    series = [
        [*(str(k) for k in key[:2]), float(key[2]), *map(str, key[3:]), *_columns(own)]
        for key, own in each.groupby(columns[:-1], observed=True, sort=False)
    ]
    updates = sorted({int(s[3]) for s in series if s[3] != CONVERGED})
    kinds = {
        readout: {
            name: {"valences": kind.valences, "frames": [[*cell, sign] for cell, sign in kind.contrast.items()]}
            for name, kind in own.items()
        }
        for readout, own in metrics.KINDS.items()
    }
    return {
        "kinds": kinds,
        "stages": [*map(str, updates), CONVERGED],
        "exposures": sorted({s[2] for s in series}),
        "movers": list(MOVERS),
        "agents": agents,
        "colours": {name: figures.COLOURS[name] for name in MOVERS},
        "items": {"gain": figures.ITEMS[1.0], "loss": figures.ITEMS[-1.0]},
        "series": series,
    }


def _columns(own: pd.DataFrame) -> tuple[list[float], ...]:
    own = own.sort_values("similarity")
    return tuple([round(float(x), 4) for x in own[c]] for c in ("similarity", "mean", "half"))


def page(evidence: Evidence, script: str = "../_static/explorer.js") -> str:
    """HTML of the explorer: its data and a place for it, which the book's own script fills; no server, no network."""
    content = json.dumps(data(evidence), separators=(",", ":"), sort_keys=True).replace("<", "\\u003c")
    empty = '<div id="explorer-view"><noscript>The explorer needs JavaScript.</noscript></div>'
    numbers = f'<script type="application/json" id="explorer-data">{content}</script>'
    return f'{empty}{numbers}<script src="{script}" defer></script>'
