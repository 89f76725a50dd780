"""The battery as a monitor: shown to an agent again and again while it learns, from inside anyone's training loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from . import config, metrics, models, responses, stimuli, world
from .heads import READOUTS
from .stimuli import CONTACTS, PHASES

EARLY = 0.2  # share of training at which the final score is to be foretold


FIRST = 1 / 64  # share of training after which it is first asked


def checkpoints(updates: int, count: int) -> list[int]:
    """About `count` updates: 0, log-spaced from the share `FIRST` of training to all of it, and the share `EARLY`."""
    spaced = np.geomspace(max(1, updates * FIRST), updates, max(2, count - 2)).round().astype(int)
    return sorted({0, round(EARLY * updates), *spaced.tolist()})


class Monitor:
    """Shows an agent the battery at checkpoints of its training, and keeps what it answers.

    >>> monitor = Monitor(battery, episodes, at=checkpoints(updates, 16))
    >>> for update in range(updates):
    ...     ...
    ...     if update + 1 in monitor.at:
    ...         monitor(update + 1, model, {"mine": heads})
    >>> monitor.table()

    battery: the scenes that are shown; episodes: whose world and seed say how they are drawn.  scenes, value: the
    battery's templates and V_pi [X, K, n, phases] of the self, if they are at hand (else the scenes are drawn, and no
    agreement with V_pi is kept).  Observations are drawn once and stay in memory: about 7 MB a condition for 128 scenes
    of the reference world.  `seconds` is what the monitor has taken so far, its construction left out.
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
        self.ladder, self.at, self.seconds, self.value = episodes.world.ladder, set(at), 0.0, value
        scenes = (stimuli.make(battery) if scenes is None else scenes).to(device)
        look = world.look(episodes.world, episodes.seed, device)
        self.shape = (len(CONTACTS), len(self.ladder), len(scenes), len(PHASES))
        self.shown = list(responses.presented(battery, scenes, episodes.world, look))
        self._parts: list[pd.DataFrame] = []
        self._agreement: list[tuple] = []

    @torch.no_grad()
    def __call__(self, update: int, model: nn.Module, readouts: Mapping[object, Callable[[Tensor], Tensor]]) -> None:
        """Ask now.  model: anything with `encode(obs [B, T, F], prev_action [B, T]) -> z [B, T, D]`; readouts: by name,
        z [..., D] -> predictions [..., 2] of reward and value."""
        start = time.perf_counter()
        answers: dict[object, list] = {name: [] for name in readouts}
        for mover, s, obs, prev_action in self.shown:
            z = models.encode(model, obs, prev_action)[:, -len(PHASES) :]
            for name, readout in readouts.items():
                answers[name].append((mover, s, readout(z).view(*self.shape, -1).cpu()))
        for name, own in answers.items():
            slopes = metrics.scene_slopes(own, self.ladder, CONTACTS, PHASES)
            self._parts.append(slopes.assign(update=update, name=name))
            if self.value is not None:
                predicted = own[0][2][..., READOUTS.index("value")]
                r = np.corrcoef(predicted.flatten().double(), self.value.flatten().double())[0, 1]
                self._agreement.append((update, name, float(r)))
        self.seconds += time.perf_counter() - start

    def table(self) -> pd.DataFrame:
        """Slopes of every kind by update and readout: update, name, half, readout, kind, mover, similarity, slope."""
        table = pd.concat(self._parts, ignore_index=True).drop(columns=["sd", "n_scenes"])
        return table.assign(slope=table.slope.astype(np.float32))

    def agreement(self) -> pd.DataFrame:
        """Correlation of predicted values with V_pi over self scenes: update, name, value."""
        return pd.DataFrame(self._agreement, columns=["update", "name", "value"])
