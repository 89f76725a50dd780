"""Agents evaluated on the battery again and again while they learn: a monitor for any training loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from . import battery as stimuli
from . import config, metrics, models, world
from .battery import CONTACTS, PHASES
from .heads import READOUTS
from .train import evaluating

FIRST = 1 / 64  # share of training after which an agent is first evaluated


def checkpoints(updates: int, count: int) -> list[int]:
    """About `count` updates: 0, and log-spaced from the share `FIRST` of training to all of it."""
    spaced = np.geomspace(max(1, updates * FIRST), updates, max(2, count - 1)).round().astype(int)
    return sorted({0, *spaced.tolist()})


class Monitor:
    """Evaluates an agent on the battery at checkpoints of its training, and keeps what it predicts.

    >>> monitor = Monitor(battery, episodes, at=checkpoints(updates, 16))
    >>> for update in range(updates):
    ...     ...
    ...     if update + 1 in monitor.at:
    ...         monitor(update + 1, model, {"mine": heads})
    >>> monitor.table()

    battery: the scenes; episodes: whose world and seed say how they are drawn.  scenes, value: the battery's templates
    and V_pi [X, K, n, phases] of the self, if they are at hand (else the scenes are drawn, and no agreement with V_pi
    is kept).  Observations are drawn once and stay in memory: about 7 MB a condition for 128 scenes of the reference
    world.  `seconds` is what the monitor has taken so far, its construction left out.
    """

    def __init__(
        self,
        battery: config.Battery,
        episodes: config.Episodes,
        at: Iterable[int] = (),
        scenes: stimuli.Scenes | None = None,
        value: Tensor | None = None,
        device: str | torch.device = "cpu",
    ):
        config.same_chambers(battery, episodes)
        self.ladder, self.at, self.seconds, self.value = episodes.world.ladder, set(at), 0.0, value
        scenes = (stimuli.make(battery) if scenes is None else scenes).to(device)
        appearance = world.appearance(episodes.world, episodes.seed, device)
        self.shape = (len(CONTACTS), len(self.ladder), len(scenes), len(PHASES))
        self.stimuli = list(stimuli.stimuli(battery, scenes, episodes.world, appearance))
        self._parts: list[pd.DataFrame] = []
        self._agreement: list[tuple] = []

    @torch.no_grad()
    def __call__(self, update: int, model: nn.Module, readouts: Mapping[object, Callable[[Tensor], Tensor]]) -> None:
        """Evaluate now.  model: anything with `encode(obs [B, T, F], prev_action [B, T]) -> z [B, T, D]`; readouts: by
        name, z [..., D] -> predictions [..., 2] of reward and value.  Raises ValueError where they give anything else.
        """
        start = time.perf_counter()
        predictions: dict[object, list] = {name: [] for name in readouts}
        with evaluating(part for part in (model, *readouts.values()) if isinstance(part, nn.Module)):
            for mover, s, obs, prev_action in self.stimuli:
                z = models.encode(model, obs, prev_action)[:, -len(PHASES) :]
                for name, readout in readouts.items():
                    out = readout(z)
                    if out.shape != (*z.shape[:-1], len(READOUTS)) or not out.isfinite().all():
                        wanted = f"finite reward and value {[*z.shape[:-1], len(READOUTS)]}"
                        raise ValueError(f"readout {name} gave {[*out.shape]} where {wanted} belong")
                    predictions[name].append((mover, s, out.reshape(*self.shape, -1).float().cpu()))
        for name, own in predictions.items():
            slopes = metrics.scene_slopes(own, self.ladder, CONTACTS, PHASES)
            self._parts.append(slopes.assign(update=update, name=name))
            if self.value is not None:
                quiet = next(out for mover, _, out in own if mover == "quiet")
                predicted = quiet[..., READOUTS.index("value")]
                r = np.corrcoef(predicted.flatten().double(), self.value.flatten().double())[0, 1]
                self._agreement.append((update, name, float(r)))
        self.seconds += time.perf_counter() - start

    def table(self) -> pd.DataFrame:
        """Slopes of every kind by update and readout: update, name, half, readout, kind, mover, similarity, slope.

        Raises ValueError before the first look.
        """
        if not self._parts:
            raise ValueError(
                "nothing has been evaluated yet: call the monitor with an update, a model and its readouts"
            )
        table = pd.concat(self._parts, ignore_index=True).drop(columns=["sd", "n_scenes"])
        return table.assign(slope=table.slope.astype(np.float32))

    def agreement(self) -> pd.DataFrame:
        """Correlation of predicted values with V_pi over quiet scenes: update, name, value."""
        return pd.DataFrame(self._agreement, columns=["update", "name", "value"])
