"""What a world model's codes share between self and other in the same event, without any reward, and whether a code
still tells who moved (DESIGN 4).

All measures are taken at contact, on scenes that neither decoder nor probe was fitted to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import battery, config, models, world
from .battery import CONTACTS, PHASES, CodesOf, Scenes
from .heads import spread
from .models.base import mlp
from .train import fit

Rows = Iterator[tuple[str, str, float, float]]

CHUNK = 512  # scenes encoded at a time, so that memory stays small
MET = [CONTACTS.index("event"), CONTACTS.index("twin")]
CONTACT = PHASES.index("contact")
UNASKED = (*battery.SIDES, "opposite")  # movers whose transfer is not measured
FITTED = ("self", *battery.OTHERS)  # movers whose scenes decoder and probe are fitted to


def measure(cfg: config.Codes, model: nn.Module, scenes: Scenes, codes: CodesOf) -> pd.DataFrame:
    """Tidy measures of one world model: measure, mover, similarity, value.

    tau: transfer of what events change, over the self's own; tau_across: the same with the self in the other chamber;
    direction: share of steps whose direction a decoder that
    was fitted to the self reads off; cka: debiased linear CKA; auc and p_self: who moved.  Decoder, probe and
    whitening are fitted to scenes of their own, `cfg.fit_scenes`, and everything is evaluated on the battery.
    """
    own = battery.make(cfg.battery.model_copy(update={"scenes": cfg.fit_scenes, "seed": cfg.battery.seed + 1}))
    fitting = _fitting_codes(cfg, model, own, codes["self", 1.0].device)
    flat = fitting["self"].flatten(0, -2)
    mean, scale = flat.mean(0), spread(flat)
    at = {key: (z[MET][:, :, :, CONTACT] - mean) / scale for key, z in codes.items()}
    for z in fitting.values():
        z.sub_(mean).div_(scale)
    rows = [*_tau(cfg, at, fitting, scenes.side), *_direction(cfg, model, scenes, own), *_cka(at)]
    rows += _identity(cfg, at, fitting)
    return pd.DataFrame(rows, columns=["measure", "mover", "similarity", "value"])


def _fitting_codes(cfg: config.Codes, model: nn.Module, scenes: Scenes, device: torch.device) -> dict[str, Tensor]:
    """Codes at contact [event and twin, K, n, D] of other scenes than the battery's, at appearances drawn per scene."""
    return {mover: _at_contact(cfg, model, scenes.to(device), mover) for mover in FITTED}


def _at_contact(
    cfg: config.Codes, model: nn.Module, scenes: Scenes, mover: str, angle: Tensor | None = None, hidden: bool = False
) -> Tensor:
    """Codes at contact [event and twin, K, n, D]; hidden: the own action that led to this frame is not shown."""
    data, at, device = cfg.model.data, CONTACT - len(PHASES), scenes.pos.device
    appearance = world.appearance(data.world, data.seed, device)
    noise, parts = world.generator(0, f"battery/noise/{mover}", device), []
    for part in scenes.split(CHUNK):
        obs, prev_action = battery.present(part, mover, angle, data.world, appearance, noise, len(MET))
        if hidden:
            prev_action = prev_action.clone()
            prev_action[:, at] = 0
        z = models.encode(model, obs, prev_action)[:, at].clone()  # not a view of all frames
        parts.append(z.view(len(MET), len(data.world.ladder), len(part), -1))
    return torch.cat(parts, 2)


def whitening(z: Tensor) -> Tensor:
    """The symmetric square root [D, D] of the inverse covariance of codes z [..., D], shrunk as by Ledoit & Wolf."""
    from sklearn.covariance import ledoit_wolf  # imported where it is used: most chapters only read results

    covariance, _ = ledoit_wolf(z.flatten(0, -2).double().cpu().numpy())
    values, axes = np.linalg.eigh(covariance)
    root = (axes / np.sqrt(np.maximum(values, 1e-9))) @ axes.T
    return torch.from_numpy(root).to(z)


def transfer(own: Tensor, other: Tensor, ladder: tuple[float, ...], side: Tensor | None = None) -> float:
    """tau of whitened codes of event minus twin, own and other [K, n, D], by what the item is worth.

    With D(v) the mean over a half of the scenes, and D' over the other half: the sum over v of
    D_other(v).D_self'(v) - D_other(v).D_self'(-v), over the same of the self (DESIGN 4).  1: the other's events change
    codes as the self's do, worth by worth; 0: not so.  It knows no reward.  Given side [n], where the mover's chamber
    is drawn, it is transfer across place: the other's on one side against the self's on the other one, over the
    self's own within a side.
    """
    pairs = [(i, ladder.index(-v)) for i, v in enumerate(ladder) if v and -v in ladder]
    places = [torch.ones(own.shape[1], dtype=torch.bool)] if side is None else [side == 0, side == 1]

    def along(moved: Tensor, against: list[Tensor]) -> Tensor:
        total = 0.0
        for here, there in zip(places, against, strict=True):
            for half in (0, 1):
                d, own_d = (
                    x[:, h::2][:, at[h::2]].mean(1).double()
                    for x, at, h in ((moved, here, half), (own, there, 1 - half))
                )
                total = total + sum(d[i] @ (own_d[i] - own_d[opposite]) for i, opposite in pairs)
        return total

    return float(along(other, places[::-1]) / along(own, places))


def _tau(cfg: config.Codes, at: CodesOf, fitting: dict[str, Tensor], side: Tensor) -> Rows:
    ladder, root = cfg.model.data.world.ladder, whitening(torch.cat([z.flatten(0, -2) for z in fitting.values()]))
    changes = {key: (z[0] - z[1]) @ root for key, z in at.items() if key[0] not in UNASKED}
    for (mover, s), change in changes.items():
        yield "tau", mover, s, transfer(changes["self", 1.0], change, ladder)
        yield "tau_across", mover, s, transfer(changes["self", 1.0], change, ladder, side)


def fit_mlp(
    x: Tensor, y: Tensor, cfg: config.Codes, loss: Callable, tag: str, outputs: int = 1, weight: Tensor | None = None
) -> nn.Module:
    """An MLP of the heads' own capacity fitted to x [R, D] and y [R]; loss(outputs [R, outputs], y) -> [].

    weight [R]: how often a row is drawn, uniformly by default.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(world.generator(cfg.model.data.seed, f"codes/{tag}").initial_seed())
        net = mlp(x.shape[-1], *[cfg.width] * cfg.depth, outputs).to(x.device)
    g = world.generator(cfg.model.data.seed, f"codes/{tag}/batches")
    weight = torch.ones(len(x)) if weight is None else weight
    index = torch.multinomial(weight, cfg.updates * cfg.batch, replacement=True, generator=g)
    fit(
        [net],
        lambda net, inputs, target: loss(net(inputs).float(), target),
        lambda rows: ([x[own] for own in rows], [y[own] for own in rows]),
        index.view(cfg.updates, 1, cfg.batch),
        cfg.rate,
        cfg.weight_decay,
    )
    return net


def directions(scenes: Scenes, mover: str) -> Tensor:
    """Which way the mover steps in each scene [n]: 0 to 3."""
    template = mover if mover in battery.TEMPLATES else "other"
    return scenes.actions[battery.TEMPLATES.index(template), :, CONTACT - len(PHASES), 0].long() - 1


def _direction(cfg: config.Codes, model: nn.Module, scenes: Scenes, own: Scenes) -> Rows:
    """Read off codes of frames whose own action is not shown: else the self's step is known without looking."""
    device = next(model.parameters(), torch.empty(0)).device
    z, scenes = _at_contact(cfg, model, own.to(device), "self", hidden=True), scenes.to(device)
    flat = z.flatten(0, -2)
    mean, scale = flat.mean(0), spread(flat)
    y = directions(own, "self").to(device).expand(z.shape[:-1]).flatten()
    decoder = fit_mlp((flat - mean) / scale, y, cfg, F.cross_entropy, "direction", outputs=len(world.ACTIONS) - 1)
    for mover, s, angle in battery.conditions(cfg.battery.levels):
        if mover in FITTED:
            at = _at_contact(cfg, model, scenes, mover, angle, hidden=True)
            guess = decoder((at - mean) / scale).argmax(-1)
            yield "direction", mover, s, float((guess == directions(scenes, mover)).double().mean())


def debiased_cka(x: Tensor, y: Tensor) -> float:
    """Linear CKA of x [R, D] and y [R, D'] with the unbiased HSIC estimator (Song et al. 2012, eq. 5)."""

    def hsic(a: Tensor, b: Tensor) -> Tensor:
        n = len(a)
        cross = a.sum(0) @ b.sum(0)
        return (a * b).sum() + a.sum() * b.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * cross

    k, l = (z.double() @ z.double().T for z in (x, y))  # noqa: E741
    k.fill_diagonal_(0), l.fill_diagonal_(0)
    return float(hsic(k, l) / (hsic(k, k) * hsic(l, l)).sqrt())


def _cka(at: CodesOf) -> Rows:
    own = at["self", 1.0].flatten(0, 2)
    for (mover, s), z in at.items():
        if mover in battery.OTHERS:
            yield "cka", mover, s, debiased_cka(own, z.flatten(0, 2))


def _identity(cfg: config.Codes, at: CodesOf, fitting: dict[str, Tensor]) -> Rows:
    """AUC of a probe for who met the item, and the calibrated probability that it was the self.

    The probe is fitted to events only (in a twin nobody meets anything), self against others of every appearance,
    balanced, and calibrated per condition on half of the battery's scenes (Platt 1999), judged on the other half.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    own = fitting["self"][0].flatten(0, 1)
    others = torch.cat([fitting[mover][0].flatten(0, 1) for mover in battery.OTHERS])
    y = torch.cat([torch.ones(len(own)), torch.zeros(len(others))])
    weight = torch.where(y == 1, 1 / len(own), 1 / len(others))
    probe = fit_mlp(
        torch.cat([own, others]),
        y.to(own.device),
        cfg,
        lambda out, target: F.binary_cross_entropy_with_logits(out[:, 0], target),
        "probe",
        weight=weight,
    )
    score = {key: probe(z[0]).squeeze(-1).cpu().numpy() for key, z in at.items()}  # [K, n]
    mine, half = score["self", 1.0], cfg.battery.scenes // 2
    for (mover, s), theirs in score.items():
        if mover in battery.OTHERS:
            yield "auc", mover, s, roc_auc_score(np.repeat([1, 0], mine.size), np.r_[mine.ravel(), theirs.ravel()])
            fitted = np.r_[mine[:, :half].ravel(), theirs[:, :half].ravel()][:, None]
            platt = LogisticRegression(C=1e6).fit(fitted, np.repeat([1, 0], mine[:, :half].size))
            yield "p_self", mover, s, float(platt.predict_proba(theirs[:, half:].reshape(-1, 1))[:, 1].mean())
