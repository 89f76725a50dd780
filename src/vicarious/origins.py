"""Where the paper comes from: every chapter's parameters, and what made the published results."""

from __future__ import annotations

import re
from importlib import metadata

import pandas as pd

from . import chapters
from .store import Store

MADE_WITH = ["stage", "device", "threads", "precision", "python", "torch"]


def parameters() -> pd.DataFrame:
    """Every parameter of every chapter: type, range, default and what it is."""
    rows = []
    for chapter, model in chapters.CHAPTERS.items():
        for name, field in model.model_fields.items():
            rows.append((chapter, name, chapters.describe(model, name), field.description))
    return pd.DataFrame(rows, columns=["chapter", "parameter", "values", "what it is"]).set_index("chapter")


def results(store: Store) -> pd.DataFrame:
    """Published results by what made them: how many of which stages, and their core-seconds."""
    made = pd.DataFrame(
        [{k: str(m.get(k, "not recorded")) for k in MADE_WITH} | {"seconds": m["seconds"]} for m in _manifests(store)]
    )
    grouped = made.groupby(MADE_WITH[1:], sort=True)
    table = grouped.agg(results=("stage", "size"), core_seconds=("seconds", "sum")).reset_index()
    return table.assign(core_seconds=table.core_seconds.round().astype(int)).rename(
        columns={"core_seconds": "core-seconds"}
    )


def commits(store: Store) -> pd.DataFrame:
    """Published results by the commit whose code made them, and what they are."""
    made = pd.DataFrame([{"commit": m["commit"], "stage": m["stage"]} for m in _manifests(store)])
    table = made.groupby("commit").stage.agg(["size", lambda s: ", ".join(sorted(set(s)))])
    return table.set_axis(["results", "stages"], axis=1).sort_values("results", ascending=False)


def packages() -> pd.DataFrame:
    """Installed versions of what this package asks for."""
    wanted = {re.split(r"[ <>=!\[;]", r, maxsplit=1)[0] for r in metadata.requires("vicarious") if "bench" not in r}
    return pd.DataFrame([(n, metadata.version(n)) for n in sorted(wanted)], columns=["package", "version"]).set_index(
        "package"
    )


def _manifests(store: Store) -> list[dict]:
    return list(store.published["results"].values())
