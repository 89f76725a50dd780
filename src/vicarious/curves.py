"""Learning curves: reward models on frozen world models, asked about own reward and the battery while they learn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from . import config, episodes, heads, metrics, monitor, world
from .episodes import Batch, labelled
from .responses import Codes
from .stimuli import CONTACTS, PHASES

TEST = 1024  # episodes on which own reward is tested, the same whatever an agent has learnt from
KIND = metrics.KINDS["reward"]["empathy"]
CONTACT = PHASES.index("contact")


def test_set(data: config.Episodes) -> Batch:
    """Episodes of a seed's world that nothing learns from: as many for every amount of data."""
    return episodes.collect(data.model_copy(update={"episodes": TEST}), purpose="test")


def alike(cfg: config.Curve) -> str:
    """A key that cells share exactly if they can train as one population."""
    return config.digest([heads.alike(cfg.at(0.0)), cfg.exposures, cfg.checkpoints, cfg.battery.address])


def train(
    cfgs: Sequence[config.Curve],
    z: Sequence[heads.Latents],
    data: Sequence[Batch],
    codes: Sequence[Codes],
    tests: Sequence[tuple[Tensor, Batch]],
    quiet: bool = True,
    stacked: bool | None = None,
) -> list[dict[str, pd.DataFrame]]:
    """Train the reward models of cells as one population; z, data, codes, tests (codes [B, T, D], episodes): of each.

    Returns each cell's tables.  `curves`: update, exposure, mover, similarity, slope of the response on valence (mean
    over scenes).  `learning`: update, exposure, measure, value: reward_loss and reward_r2 on test frames in which the
    other meets nothing, so that every exposure is judged on the same ones.
    """
    cfg = cfgs[0]
    own = [(i, p) for i, c in enumerate(cfgs) for p in c.exposures]
    shown = [{key: x[:2, :, :, CONTACT] for key, x in found.items()} for found in codes]
    asked: list[list[tuple]] = [[] for _ in cfgs]
    learnt: list[list[tuple]] = [[] for _ in cfgs]

    @torch.no_grad()
    def look(update: int, members: Sequence[heads.Heads]) -> None:
        for (i, p), head in zip(own, members, strict=True):
            asked[i] += [(update, p, *row) for row in _slopes(head, shown[i], cfgs[i].model.data.world.ladder)]
            learnt[i] += [(update, p, *row) for row in _own(head, *tests[i], cfgs[i].model.data.world)]

    at = monitor.checkpoints(cfg.updates, cfg.checkpoints)
    start = [heads.fresh(cfgs[i].at(p), z[i]) for i, p in own]
    look(0, start)
    heads.train(
        [cfgs[i].at(p) for i, p in own],
        [z[i] for i, _ in own],
        [data[i] for i, _ in own],
        quiet,
        stacked,
        readouts=("reward",),
        at={update: lambda members, update=update: look(update, members) for update in at if update},
    )
    return [
        {
            "curves": pd.DataFrame(rows, columns=["update", "exposure", "mover", "similarity", "slope"]),
            "learning": pd.DataFrame(own_rows, columns=["update", "exposure", "measure", "value"]),
        }
        for rows, own_rows in zip(asked, learnt, strict=True)
    ]


def _slopes(head: heads.Heads, shown: dict, ladder: tuple[float, ...]) -> list[tuple]:
    """(mover, similarity, slope) of answers to event and twin at contact, codes [2, K, n, D]."""
    rows = []
    for (mover, s), x in shown.items():
        out = head(x)[..., None, heads.READOUTS.index("reward")].cpu().numpy()  # [2, K, n, 1]
        slope = metrics.scene_slope(out, KIND, ladder, CONTACTS[:2], (PHASES[CONTACT],))
        rows.append((mover, s, np.float32(slope.mean())))
    return rows


def _own(head: heads.Heads, z: Tensor, data: Batch, cfg: config.World) -> list[tuple]:
    free, reward = labelled(data, 0.0), world.reward(data.contact, cfg, 0.0)
    error = (head(z)[..., heads.READOUTS.index("reward")] - reward)[free].square().mean()
    return [("reward_loss", float(error)), ("reward_r2", float(1 - error / reward[free].var()))]
