"""Heads that had converged without labels of the other's contacts, and are then given them (DESIGN 4, 5: B).

One head goes on learning on frozen latents at a constant rate, and is asked about the battery's events again and again.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from . import config, heads, metrics, models, population, stimuli
from .episodes import Batch, labelled
from .responses import Codes
from .stimuli import CONTACTS, PHASES

PER_DECADE = 6  # checkpoints
FIRST = 1  # update of the first one after the start
KINDS = ("empathy", "joy", "pain")  # those that event and twin in one frame tell
APART = np.pi / 4  # looks up to which an other is `alike`
LEFT = 0  # side of the glass
PROGRESS = {"extinction": "progress", "decoupling": "unlearning"}  # the table of what was learnt, by stage


def checkpoints(cfg: config.Extinction) -> list[int]:
    """Updates after which the head is asked: the same for every length of training, and at every whole convergence."""
    spaced = (round(FIRST * 10 ** (i / PER_DECADE)) for i in range(9 * PER_DECADE))
    whole = {cfg.converged * k for k in (1, 2, 3, cfg.past)}
    return sorted(u for u in {0, *spaced, *whole} if u <= cfg.updates)


def withheld(cfg: config.Extinction, data: Batch) -> Tensor:
    """Frames [B, T] in which the other, if it meets something, is one of those that stay without a label."""
    best = len(cfg.heads.model.data.world.ladder)
    frames = {
        "nothing": torch.zeros_like(data.eventful)[:, None],
        "alike": (data.angle < APART)[:, None],
        "unlike": (data.angle >= APART)[:, None],
        "left": (data.side != LEFT)[:, None],  # where the self is on the right
        "best": data.contact[..., 1] == best,
    }
    return frames[cfg.withheld].expand(data.contact.shape[:2])


def known(cfg: config.Extinction, data: Batch) -> Tensor:
    """Frames [B, T] whose reward the head is now given."""
    never = labelled(data, 0.0)
    return never | (labelled(data, cfg.exposure) & ~withheld(cfg, data))


def split(cfg: config.Extinction, data: Batch) -> dict:
    """Which of the other's contacts in training episodes had labels, as the manifest keeps it."""
    cut = models.split(len(data))
    met, given, held = data.contact[:cut, :, 1] > 0, known(cfg, data)[:cut], withheld(cfg, data)[:cut]
    return {
        "withheld": cfg.withheld,
        "labelled_contacts": int((met & given).sum()),
        "withheld_contacts": int((met & held).sum()),
        "labelled_episodes": int((met & given).any(1).sum()),
    }


def rows(cfg: config.Extinction, cut: int) -> Tensor:
    """Episodes [updates, batch] that the head sees, the same for every exposure."""
    return models.batches(cfg.heads.model.data.seed, f"extinction/{cfg.readout}", cfg, cut)


def presented(cfg: config.Extinction, data: Batch, at: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
    """Labelled eventful episodes in the batches that the head was shown by update, repeats counted, and different ones.

    An update learns from as many frames at every exposure (`heads.LABELS` of a batch's), so that of those shown some
    are left out: a fifth at p = 1, an eighth at p = 0.
    """
    cut = models.split(len(data))
    told = ((data.contact[:cut, :, 1] > 0) & known(cfg, data)[:cut]).any(1).cpu()
    seen = rows(cfg, cut)
    seen = seen[: max(1, round(cfg.until * len(seen)))]
    count, different = [], []
    for update in at:
        own = seen[:update].flatten()
        own = own[told[own]]
        count.append(len(own))
        different.append(len(own.unique()))
    return np.array(count), np.array(different)


def alike(cfg: config.Extinction) -> str:
    """A key that cells share exactly if they can train as one population."""
    own = {name: getattr(cfg, name) for name in ("readout", "past", "rate", "batch")}
    return config.digest([heads.alike(cfg.then), own, cfg.battery.address])


def train(
    cfgs: list[config.Extinction],
    start: list[heads.Heads],
    z: list[heads.Latents],
    data: list[Batch],
    codes: list[Codes],
    scenes: stimuli.Scenes,
    quiet: bool = True,
    stacked: bool | None = None,
) -> list[tuple[nn.Module, dict[str, pd.DataFrame]]]:
    """Let heads of one length go on learning as one population; start, z, data, codes: of each.

    Returns each with its tables.  `extinction`: update, side (where the mover's chamber was drawn), kind, mover,
    similarity, slope (mean over scenes), n_scenes.  `progress`: update, labelled and different (labelled eventful
    episodes seen), loss and r2 (held out, on frames in which the other meets nothing).
    """
    cfg, cut = cfgs[0], models.split(len(data[0]))
    readout, index = cfg.readout, heads.READOUTS.index(cfg.readout)
    members = [copy.deepcopy(h.nets[readout]).requires_grad_(True) for h in start]
    rewards = [heads.taught(c.then, d)[:cut] for c, d in zip(cfgs, data, strict=True)]
    labels = [torch.cat([known(c, d)[:cut], labelled(d, 0.0)[:cut]]) for c, d in zip(cfgs, data, strict=True)]
    taken = torch.stack([rows(c, cut) for c in cfgs], 1)  # [U, P, N]
    for i, c in enumerate(cfgs):
        taken[round(c.until * len(taken)) :, i] += cut  # the second half of `labels`: nothing of the other's

    def draw(index: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        at = [own % cut for own in index]
        return (
            [x.inputs[own] for x, own in zip(z, at, strict=True)],
            [r[own] for r, own in zip(rewards, at, strict=True)],
            [k[own] for k, own in zip(labels, index, strict=True)],
        )

    shown = [_shown(c, h, x) for c, h, x in zip(cfgs, start, codes, strict=True)]
    held = [((x.held_out - h.mean) / h.scale, d[cut:]) for x, h, d in zip(z, start, data, strict=True)]
    asked: list[list[pd.DataFrame]] = [[] for _ in cfgs]
    progress: list[list[tuple]] = [[] for _ in cfgs]

    def look(update: int) -> None:
        for i, c in enumerate(cfgs):
            asked[i].append(_slopes(c, members[i], shown[i], scenes.side).assign(update=update))
            progress[i].append((update, *_own(c, members[i], *held[i], index)))

    look(0)
    at = checkpoints(cfg)
    population.train(
        members,
        lambda net, x, *labels: heads.loss(readout, net(x)[..., 0].float(), *labels, cfg.heads),
        draw,
        taken,
        cfg.rate,
        cfg.then.weight_decay,
        constant=True,
        stacked=stacked,
        at={u: (lambda u=u: look(u)) for u in at if u},
        label=f"{len(cfgs)} x {readout} switched to p = {cfg.exposure:g}",
        quiet=quiet,
    )
    return [
        (net, {c.stage: pd.concat(parts, ignore_index=True), PROGRESS[c.stage]: _progress(c, d, own)})
        for net, c, d, parts, own in zip(members, cfgs, data, asked, progress, strict=True)
    ]


def _progress(cfg: config.Extinction, data: Batch, own: list[tuple]) -> pd.DataFrame:
    table = pd.DataFrame(own, columns=["update", "loss", "r2"])
    table["labelled"], table["different"] = presented(cfg, data, table["update"])
    return _named(cfg, table)


def _named(cfg: config.Extinction, table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(readout=cfg.readout, withheld=cfg.withheld, until=cfg.until)


def _shown(cfg: config.Extinction, start: heads.Heads, codes: Codes) -> dict[tuple[str, float], Tensor]:
    """Standardised codes [event and twin, K, n, D] of self and other in the frame that the head is read in."""
    phase = PHASES.index("contact" if cfg.readout == "reward" else "approach")
    return {
        (mover, s): (z[:2, :, :, phase] - start.mean) / start.scale
        for (mover, s), z in codes.items()
        if mover != "drifter"
    }


@torch.no_grad()
def _slopes(cfg: config.Extinction, net: nn.Module, shown: dict, side: Tensor) -> pd.DataFrame:
    phase = "contact" if cfg.readout == "reward" else "approach"
    ladder, on = cfg.heads.model.data.world.ladder, side.cpu().numpy()
    table = []
    for (mover, s), z in shown.items():
        out = net(z).cpu().numpy()  # [X, K, n, 1]
        for kind in KINDS:
            slope = metrics.scene_slope(out, metrics.KINDS[cfg.readout][kind], ladder, CONTACTS[:2], (phase,))
            for where in (0, 1):
                own = slope[on == where]
                table.append((where, kind, mover, s, np.float32(own.mean()), len(own)))
    return _named(cfg, pd.DataFrame(table, columns=["side", "kind", "mover", "similarity", "slope", "n_scenes"]))


@torch.no_grad()
def _own(cfg: config.Extinction, net: nn.Module, z: Tensor, data: Batch, index: int) -> tuple[float, float]:
    """Held-out error and R2 where the other meets nothing, so that every exposure is judged on the same frames."""
    free, reward = labelled(data, 0.0), heads.taught(cfg.then, data)
    out = net(z)[..., 0]
    if cfg.readout == "value":
        reward, free = heads.lambda_returns(reward, out, free, cfg.heads.gamma, cfg.heads.lam)
    error, target = (out - reward)[free], reward[free]
    return float(error.square().mean()), float(1 - error.square().mean() / target.var())
