"""A second route to the coefficient: what heads predict in ordinary eventful episodes, by what both bodies meet.

No scene is scripted and no twin is needed; what remains is that a body's contacts go with whatever else is in a frame.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from . import config, episodes, models, world
from .battery import angles, similarity
from .heads import READOUTS

LEAD = {"reward": 0, "value": 1}  # frames by which a readout is read before the contact


@torch.no_grad()
def regress(cfg: config.Ordinary, model: nn.Module, heads: nn.Module, device: str = "cpu") -> pd.DataFrame:
    """Slopes of predictions on what the self and the other meet, by least squares on both at once.

    Rewards are regressed on contacts of the same frame, values on those of the next one.  Columns readout, mover (the
    body: self, other, or drifter), similarity of the other, slope, error (standard), n_frames.
    """
    data, levels = cfg.heads.data, angles(cfg.battery.levels)
    data = data.model_copy(update={"world": data.world.model_copy(update={"eventful": 1.0})})
    seen = episodes.collect(data, device, "ordinary", cfg.episodes)
    out = heads(models.encode(model, seen.obs, seen.prev_action)).cpu()  # [B, T, readouts]
    worth = world.worth_of(seen.contact, data.world).cpu()
    step = float(levels[1] - levels[0]) / 2
    rows = []
    for kind, drifter in (("other", False), ("drifter", True)):
        for angle, s in zip(levels, similarity(levels), strict=True):
            own = ((seen.angle - angle).abs() <= step) & (seen.drifter == drifter)
            rows += _fitted(out[own.cpu()], worth[own.cpu()], kind, s)
    return pd.DataFrame(rows, columns=["readout", "mover", "similarity", "slope", "error", "n_frames"])


def _fitted(out: Tensor, worth: Tensor, kind: str, s: float) -> Iterator[tuple[str, str, float, float, float, int]]:
    for readout, lead in LEAD.items():
        met = worth[:, 1 + lead :].flatten(0, 1).double().numpy()
        y = out[:, 1 : out.shape[1] - lead, READOUTS.index(readout)].flatten().double().numpy()
        x = np.column_stack([np.ones(len(met)), met])
        slope, *_ = np.linalg.lstsq(x, y, rcond=None)
        spread = np.square(y - x @ slope).sum() / max(1, len(y) - x.shape[1])
        error = np.sqrt(spread * np.diag(np.linalg.pinv(x.T @ x)))
        for mover, i in (("self", 1), (kind, 2)):
            if mover != "self" or kind == "other":
                yield readout, mover, s, float(slope[i]), float(error[i]), len(y)
