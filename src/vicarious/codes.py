"""Similarity of the codes for self and other, and whether a code still tells who moved (DESIGN 4).

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
from .battery import CONTACTS, MOVERS, PHASES, CodesOf
from .models.base import mlp
from .train import fit

Rows = Iterator[tuple[str, str, float, float]]

CHUNK = 512  # scenes encoded at a time, so that memory stays small
MET = [CONTACTS.index("event"), CONTACTS.index("twin")]
CONTACT = PHASES.index("contact")


def measure(cfg: config.Codes, model: nn.Module, codes: CodesOf) -> pd.DataFrame:
    """Tidy measures of one world model: measure, mover, similarity, value.

    r2: of a decoder fitted to the self; transfer: the same over R2 within self; both also `_matched`; null: transfer
    of decoders fitted to permuted labels; cosine: of coding axes, over the self's own between two sets of scenes; cka:
    debiased linear CKA; auc and p_self: who moved.  Decoder and probe are fitted to scenes of their own,
    `cfg.fit_scenes`, and judged on the battery.
    """
    at, fitting = _standardised(cfg, model, codes)
    rows = [*_transfer(cfg, at, fitting), *_axes(cfg, at, fitting), *_cka(at), *_identity(cfg, at, fitting)]
    return pd.DataFrame(rows, columns=["measure", "mover", "similarity", "value"])


def calibration_bins(cfg: config.Identity, model: nn.Module, codes: CodesOf, bins: int = 10) -> pd.DataFrame:
    """A reliability diagram of the probe for who moved: mover, similarity, bin, p_self, share_self, n_scenes.

    Per condition, scenes that the calibration was not fitted to, the mover's and as many of the self's, in bins of the
    predicted probability that it was the self; p_self is its mean in the bin, share_self how often it was.
    """
    at, fitting = _standardised(cfg, model, codes)
    rows = []
    for mover, s, _, probability, truth in _probed(cfg, at, fitting):
        at_bin = np.minimum((probability * bins).astype(int), bins - 1)
        for b in np.unique(at_bin):
            inside = at_bin == b
            rows.append((mover, s, b, probability[inside].mean(), truth[inside].mean(), int(inside.sum())))
    return pd.DataFrame(rows, columns=["mover", "similarity", "bin", "p_self", "share_self", "n_scenes"])


def _standardised(cfg: config.Codes, model: nn.Module, codes: CodesOf) -> tuple[CodesOf, dict[str, Tensor]]:
    """Codes at contact [event and twin, K, n, D] of battery and fitting scenes, by the latter's statistics."""
    fitting = _fitting_codes(cfg, model, codes["self", 1.0].device)
    flat = fitting["self"].flatten(0, -2)
    mean, scale = flat.mean(0), torch.where(flat.std(0) > 1e-6, flat.std(0), 1.0)
    at = {key: (z[MET][:, :, :, CONTACT] - mean) / scale for key, z in codes.items()}
    for z in fitting.values():
        z.sub_(mean).div_(scale)
    return at, fitting


def _fitting_codes(cfg: config.Codes, model: nn.Module, device: torch.device) -> dict[str, Tensor]:
    """Codes at contact [event and twin, K, n, D] of other scenes than the battery's, at appearances drawn per scene."""
    data = cfg.model.data
    scenes = battery.make(cfg.battery.model_copy(update={"scenes": cfg.fit_scenes, "seed": cfg.battery.seed + 1}))
    appearance, codes = world.appearance(data.world, data.seed, device), {}
    for mover in MOVERS:
        noise, parts = world.generator(0, f"battery/noise/{mover}", device), []
        for part in scenes.split(CHUNK):
            obs, prev_action = battery.present(part.to(device), mover, None, data.world, appearance, noise, len(MET))
            z = models.encode(model, obs, prev_action)[:, CONTACT - len(PHASES)].clone()  # not a view of all frames
            parts.append(z.view(len(MET), len(data.world.ladder), len(part), -1))
        codes[mover] = torch.cat(parts, 2)
    return codes


def labels(ladder: tuple[float, ...], scenes: int) -> Tensor:
    """What the decoder must tell [2, K, n]: +v where the item is met, -v in the twin, so that presence is worthless."""
    v = torch.tensor(ladder)
    return torch.stack([v, -v])[:, :, None].expand(-1, -1, scenes)


def fit_mlps(
    x: Tensor, ys: dict[str, Tensor], cfg: config.Codes, loss: Callable, weight: Tensor | None = None
) -> list[nn.Module]:
    """MLPs of the heads' own capacity fitted to x [R, D] and each of ys {tag: [R]}, as one population.

    weight [R]: how often a row is drawn, uniformly by default.
    """
    nets, index = [], []
    for tag in ys:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(world.generator(cfg.model.data.seed, f"codes/{tag}").initial_seed())
            nets.append(mlp(x.shape[-1], *[cfg.width] * cfg.depth, 1).to(x.device))
        g = world.generator(cfg.model.data.seed, f"codes/{tag}/batches")
        shape = (cfg.updates, cfg.batch)
        if weight is None:
            index.append(torch.randint(len(x), shape, generator=g))
        else:
            index.append(torch.multinomial(weight, cfg.updates * cfg.batch, replacement=True, generator=g).view(shape))
    fit(
        nets,
        lambda net, inputs, target: loss(net(inputs).squeeze(-1).float(), target),
        lambda rows: ([x[own] for own in rows], [y[own] for y, own in zip(ys.values(), rows, strict=True)]),
        torch.stack(index, 1),
        cfg.rate,
        cfg.weight_decay,
    )
    return nets


def cross_condition(fitted: nn.Module, z: Tensor, y: Tensor, matched: bool = False) -> float:
    """R2 of a decoder fitted in one condition on codes z [2, K, n, D] and labels y [2, K, n] of another.

    Cross-condition generalisation of Bernardi et al. (2020), for a graded label.  `matched` first subtracts from the
    predictions their mean over each scene's six variants, so that what the variants share (distractors) cannot count.
    """
    guess = fitted(z).squeeze(-1)
    if matched:
        guess = guess - guess.mean((0, 1), keepdim=True)
    from sklearn.metrics import r2_score  # imported where it is used: most chapters only read results

    return r2_score(y.flatten().numpy(), guess.flatten().cpu().numpy())


def _transfer(cfg: config.Codes, at: CodesOf, fitting: dict[str, Tensor]) -> Rows:
    ladder, device = cfg.model.data.world.ladder, fitting["self"].device
    x, y = fitting["self"].flatten(0, 2), labels(ladder, cfg.fit_scenes).flatten()
    test = labels(ladder, cfg.battery.scenes)
    g = world.generator(cfg.model.data.seed, "codes/permutation")
    permuted = {f"null/{i}": y[torch.randperm(len(y), generator=g)] for i in range(cfg.permutations)}
    ys = {tag: labelled.to(device) for tag, labelled in {"decoder": y, **permuted}.items()}
    decoder, *nulls = fit_mlps(x, ys, cfg, F.mse_loss)
    within = cross_condition(decoder, at["self", 1.0], test)
    within_matched = cross_condition(decoder, at["self", 1.0], test, matched=True)
    for (mover, s), z in at.items():
        r2, matched = cross_condition(decoder, z, test), cross_condition(decoder, z, test, matched=True)
        yield "r2", mover, s, r2
        yield "r2_matched", mover, s, matched
        yield "transfer", mover, s, r2 / within
        yield "transfer_matched", mover, s, matched / within_matched
    for i, null in enumerate(nulls):
        for (mover, s), z in at.items():
            if mover == "other":
                yield f"null{i}", mover, s, cross_condition(null, z, test) / within


def coding_axis(z: Tensor, y: Tensor) -> Tensor:
    """Direction [D] along which codes z [..., D] move with labels y [...]: their covariance, unit length."""
    axis = torch.einsum("...d,...->d", z, y)
    return axis / axis.norm()


def _axes(cfg: config.Codes, at: CodesOf, fitting: dict[str, Tensor]) -> Rows:
    """Cosine between the self's axis on the fitting scenes and the mover's on the battery, over the self's own."""
    ladder = cfg.model.data.world.ladder
    device = fitting["self"].device
    own, y = (labels(ladder, n).to(device) for n in (cfg.fit_scenes, cfg.battery.scenes))
    own = coding_axis(fitting["self"], own)
    ceiling = float(own @ coding_axis(at["self", 1.0], y))
    for (mover, s), z in at.items():
        yield "cosine", mover, s, float(own @ coding_axis(z, y)) / ceiling


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
        if mover != "self":
            yield "cka", mover, s, debiased_cka(own, z.flatten(0, 2))


def _identity(cfg: config.Codes, at: CodesOf, fitting: dict[str, Tensor]) -> Rows:
    """AUC of a probe for who met the item, and the calibrated probability that it was the self."""
    for mover, s, auc, probability, truth in _probed(cfg, at, fitting):
        yield "auc", mover, s, auc
        yield "p_self", mover, s, float(probability[truth == 0].mean())


def _probed(
    cfg: config.Codes, at: CodesOf, fitting: dict[str, Tensor]
) -> Iterator[tuple[str, float, float, np.ndarray, np.ndarray]]:
    """(mover, similarity, AUC, calibrated probability of self [2 K n / 2], whether it was the self) per condition.

    The probe is fitted to events only (in a twin nobody meets anything), self against others of every appearance,
    balanced, and calibrated per condition on half of the battery's scenes (Platt 1999), judged on the other half.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    own, others = fitting["self"][0].flatten(0, 1), torch.cat([fitting[m][0].flatten(0, 1) for m in MOVERS[1:]])
    y = torch.cat([torch.ones(len(own)), torch.zeros(len(others))])
    weight = torch.where(y == 1, 1 / len(own), 1 / len(others))
    (probe,) = fit_mlps(
        torch.cat([own, others]), {"probe": y.to(own.device)}, cfg, F.binary_cross_entropy_with_logits, weight
    )
    score = {key: probe(z[0]).squeeze(-1).cpu().numpy() for key, z in at.items()}  # [K, n]
    mine, half = score["self", 1.0], cfg.battery.scenes // 2
    for (mover, s), theirs in score.items():
        if mover == "self":
            continue
        auc = roc_auc_score(np.repeat([1, 0], mine.size), np.r_[mine.ravel(), theirs.ravel()])
        platt = LogisticRegression(C=1e6).fit(
            np.r_[mine[:, :half].ravel(), theirs[:, :half].ravel()][:, None], np.repeat([1, 0], mine[:, :half].size)
        )
        judged = np.r_[mine[:, half:].ravel(), theirs[:, half:].ravel()]
        truth = np.repeat([1, 0], mine[:, half:].size)
        yield mover, s, auc, platt.predict_proba(judged[:, None])[:, 1], truth
