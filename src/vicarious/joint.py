"""World model and heads trained together, no gradient from the heads into the latent, under the battery's eyes."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor, nn

from . import config, heads, models, population, world
from .episodes import Batch, labelled
from .heads import READOUTS
from .monitor import Monitor

SAMPLE = 512  # episodes by whose codes heads standardise when they are asked
HELD_OUT = 256  # episodes on which learning is followed


class Joint(nn.Module):
    """A world model and, for every exposure p, a reward model and a value function; each is a child of its own."""

    def __init__(self, cfg: config.Joint):
        super().__init__()
        self.model, self.cfg = models.build(cfg.model), cfg
        frame = torch.zeros(1, 1, world.features(cfg.model.data.world))
        self.latent = self.model.encode(frame, torch.zeros(1, 1, dtype=torch.long)).shape[-1]
        for i, p in enumerate(cfg.exposures):
            fresh = heads.initial(cfg.at(p), self.latent)
            for readout in READOUTS:
                self.add_module(f"{readout}{i}", fresh.nets[readout])

    def rates(self) -> dict[str, float]:
        """Peak learning rate of every child that learns."""
        own = {"model": self.cfg.model.rate} if self.model.trained else {}
        return (
            own
            | {f"reward{i}": self.cfg.reward_rate for i in range(len(self.cfg.exposures))}
            | {f"value{i}": self.cfg.rate for i in range(len(self.cfg.exposures))}
        )

    def heads(self, z: Tensor) -> dict[float, heads.Heads]:
        """The heads as they are now, by exposure, standardising as codes z [..., D] are spread."""
        found, flat = {}, z.flatten(0, -2)
        for i, p in enumerate(self.cfg.exposures):
            head = heads.Heads(self.latent, self.cfg.width, self.cfg.depth)
            head.nets = nn.ModuleDict({readout: getattr(self, f"{readout}{i}") for readout in READOUTS})
            head.mean, head.scale = flat.mean(0), heads.spread(flat)
            found[p] = head
        return found


def loss(member: Joint, obs: Tensor, prev_action: Tensor, reward: Tensor, *known: Tensor) -> Tensor:
    """Sum of the world model's own loss and that of every head on standardised, detached codes of the batch.

    obs [B, T, F]; prev_action, reward, and for every exposure known: [B, T].
    """
    z, cfg = member.model.encode(obs, prev_action), member.cfg
    total = torch.zeros((), device=obs.device)
    if member.model.trained:
        total = sum(member.model.losses(obs, prev_action, z).values()).mean()
    flat = z.detach().flatten(0, -2)
    x = (z.detach() - flat.mean(0)) / heads.spread(flat)
    for i, (p, k) in enumerate(zip(cfg.exposures, known, strict=True)):
        for readout in READOUTS:
            out = getattr(member, f"{readout}{i}")(x)[..., 0].float()
            total = total + heads.loss(readout, out, reward, k, cfg.at(p))
    return total


def train(
    cfgs: Sequence[config.Joint],
    data: Sequence[Batch],
    monitors: Sequence[Monitor],
    quiet: bool = True,
    stacked: bool | None = None,
) -> list[tuple[Joint, dict[str, pd.DataFrame]]]:
    """Train agents that differ in their seed as one population, each watched by its monitor.

    Returns each with its tables.  `development`: what `Monitor.table` gives, the name being the exposure.  `learning`:
    update, exposure, measure, value: held-out losses and R2, agreement with V_pi, and at the end the monitor's share
    of the training time (showings on the way, that of the untrained agent left out).
    """
    cfg, cut = cfgs[0], models.split(len(data[0]))
    device = data[0].obs.device
    members = [Joint(c).to(device) for c in cfgs]
    rewards = [heads.taught(c.at(0.0), d) for c, d in zip(cfgs, data, strict=True)]
    known = [[labelled(d, p) for p in cfg.exposures] for d in data]
    learning: list[list[tuple]] = [[] for _ in cfgs]

    def draw(rows: Tensor) -> list[list[Tensor]]:
        inputs = [[getattr(d, name)[own] for d, own in zip(data, rows, strict=True)] for name in ("obs", "prev_action")]
        labels = [[r[own] for r, own in zip(rewards, rows, strict=True)]]
        labels += [[k[i][own] for k, own in zip(known, rows, strict=True)] for i in range(len(cfg.exposures))]
        return inputs + labels

    def look(update: int) -> None:
        for m, d, r, monitor, rows in zip(members, data, rewards, monitors, learning, strict=True):
            sample, held = d[:SAMPLE], d[cut : cut + HELD_OUT]
            own = m.heads(models.encode(m.model, sample.obs, sample.prev_action))
            monitor(update, m.model, own)
            if m.model.trained:
                rows += [(update, -1.0, name, x) for name, x in models.evaluate(m.model, held).items()]
            z = models.encode(m.model, held.obs, held.prev_action)
            for p, head in own.items():
                found = heads.evaluate(head, z, r[cut : cut + HELD_OUT], labelled(held, p), cfg.at(p))
                rows += [(update, p, name, x) for name, x in found.items()]

    at = sorted(set.union(*(monitor.at for monitor in monitors)))
    look(0)
    start = time.perf_counter()
    spent = sum(monitor.seconds for monitor in monitors)
    population.train(
        members,
        loss,
        draw,
        torch.stack([models.batches(c.model.data.seed, f"batches/{c.model.family}", c.model, cut) for c in cfgs], 1),
        members[0].rates(),
        cfg.model.weight_decay,
        stacked=stacked,
        at={u: (lambda u=u: look(u)) for u in at if u},
        label=f"joint {cfg.model.family} seed {', '.join(str(c.model.data.seed) for c in cfgs)}",
        quiet=quiet,
    )
    watching = sum(monitor.seconds for monitor in monitors) - spent
    share = watching / (time.perf_counter() - start - watching)
    return [
        (m, {"development": _by_exposure(monitor.table()), "learning": _learning(c, rows, monitor, share)})
        for m, c, rows, monitor in zip(members, cfgs, learning, monitors, strict=True)
    ]


def _by_exposure(table: pd.DataFrame) -> pd.DataFrame:
    return table.rename(columns={"name": "exposure"})


def _learning(cfg: config.Joint, rows: list[tuple], monitor: Monitor, share: float) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["update", "exposure", "measure", "value"])
    agreement = _by_exposure(monitor.agreement()).assign(measure="value_r")
    final = pd.DataFrame([(cfg.model.updates, -1.0, "monitor_share", share)], columns=table.columns)
    return pd.concat([table, agreement, final], ignore_index=True)
