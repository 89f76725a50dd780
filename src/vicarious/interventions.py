"""Interventions on the latent, which alone license the word "because" (DESIGN 4).

The other's code and the self's are compared in the same picture with the two bodies exchanged.  The code of one is
then moved towards that of the other: along the axis between them, all the way, or equally far along random axes; or
that axis is erased.  Axes are found in one half of the scenes and used in the other half.

Shapes: L levels of appearance, X = 2 contacts (event, twin), K item kinds, n scenes, D latent.  Codes are
standardised as the heads read them, at the frame from which a readout's empathy coefficient is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from . import battery, config, metrics, models, world
from .battery import CONTACTS, PHASES
from .heads import HeadPair

PAIR = CONTACTS[:2]
KIND = {readout: metrics.KINDS[readout][kind] for readout, kind in metrics.MAIN.items()}
FRAME = {readout: next(iter(kind.contrast))[1] for readout, kind in KIND.items()}  # its phase
EVENT_FRAMES = tuple(FRAME.values())


@dataclass(frozen=True)
class Pairs:
    """Codes of the self and of the other that moves, by appearance, in the same picture with the bodies exchanged.

    own, other [L, X, K, n, readouts, D]; pixels [L] distance between the two pictures; side [n] of the mover's chamber.
    """

    own: Tensor
    other: Tensor
    pixels: Tensor
    side: Tensor

    @classmethod
    def of(cls, model: nn.Module, cfg: config.Battery, scenes: battery.Scenes, data: config.Episodes) -> Pairs:
        """As a seed's world model codes them, each readout at its own frame."""
        device = scenes.pos.device
        appearance, found, pixels = world.appearance(data.world, data.seed, device), {"self": [], "other": []}, []
        shape = (len(PAIR), len(data.world.ladder), len(scenes))
        at = [PHASES.index(phase) - len(PHASES) for phase in EVENT_FRAMES]
        for angle in battery.angles(cfg.levels).to(device):
            how = {"contacts": len(PAIR), "template": "self"}
            shown = {m: battery.present(scenes, m, angle, data.world, appearance, **how) for m in found}
            pixels.append((shown["self"][0] - shown["other"][0])[:, at].norm(dim=-1).mean())
            for mover, seen in shown.items():
                z = models.encode(model, *seen)[:, at]
                found[mover].append(z.clone().view(*shape, len(at), -1))
        own, other = (torch.stack(parts) for parts in found.values())
        return cls(own, other, torch.stack(pixels), scenes.side.long())

    def read(self, heads: HeadPair, readout: str) -> tuple[Tensor, Tensor]:
        """Standardised codes of self and other [L, X, K, n, D] at the readout's frame."""
        at = EVENT_FRAMES.index(FRAME[readout])
        return tuple((z[..., at, :] - heads.mean) / heads.scale for z in (self.own, self.other))


@dataclass(frozen=True)
class Axes:
    """Directions of unit length as found in some scenes: between other and self [D], and random ones [axes, D].

    centre [D]: the mean code; eraser: of what tells self from other linearly.  Random axes are random mixtures of the
    codes themselves, so that they lie where codes vary, without what they share with the first.
    """

    own: Tensor
    random: Tensor
    centre: Tensor
    eraser: Callable[[Tensor], Tensor]

    @classmethod
    def of(cls, own: Tensor, other: Tensor, count: int, g: torch.Generator) -> Axes:
        """From codes of the self and of the other [..., D], as many of each; LEACE (Belrose et al. 2023) erases."""
        from concept_erasure import LeaceEraser

        x = torch.cat([own.flatten(0, -2), other.flatten(0, -2)])
        label = torch.arange(2, device=x.device).repeat_interleave(len(x) // 2)
        centre, unit = x.mean(0), torch.nn.functional.normalize
        between = unit(own.flatten(0, -2).mean(0) - other.flatten(0, -2).mean(0), dim=0)
        mixed = torch.randn(count, len(x), generator=g).to(x.device) @ (x - centre)
        mixed = mixed - (mixed @ between)[:, None] * between
        return cls(between, unit(mixed, dim=1), centre, LeaceEraser.fit(x, label))


Group = tuple[Tensor, Axes]  # scenes, and axes that were found in others


def groups(cfg: config.Interventions, own: Tensor, other: Tensor, side: Tensor) -> list[Group]:
    """Scenes by half and by the side on which the mover's chamber is drawn, with the axes of the other half's.

    By side, because what is coded is whose chamber is whose, and its sign turns with the side.  A half that has no
    counterpart on its side, as may be with a handful of scenes, is left out.
    """
    found, even = [], torch.arange(len(side), device=side.device) % 2 == 0
    for number, (half, drawn) in enumerate(product((even, ~even), (0, 1))):
        here, there = (torch.nonzero(h & (side == drawn)).squeeze(1) for h in (half, ~half))
        if len(here) and len(there):
            g = world.generator(cfg.heads.model.data.seed, f"interventions/axes/{number}")
            below = (x[1:, :, :, there] for x in (own, other))  # identical appearance have no axis
            found.append((here, Axes.of(*below, cfg.axes, g)))
    return found


def moved(own: Tensor, other: Tensor, axes: Axes, alphas: Tensor) -> Iterator[tuple[str, str, Tensor]]:
    """(path, mover, codes [alphas, axes, X, K, n, D]) of paired codes own and other [X, K, n, D].

    axis: the code's component along the self-other axis goes from its own value to its partner's, for the other
    (towards the self) and for the self; shift: the same for all variants of a scene, their mean, so that nothing about
    the item comes along; random: as far along random axes; whole: all of the code goes.
    """
    a, far = alphas.view(-1, 1, 1, 1, 1, 1), ((own - other) @ axes.own)[..., None]  # [X, K, n, 1]
    yield "axis", "other", other + a * far * axes.own
    yield "axis", "self", own - a * far * axes.own
    yield "shift", "other", other + a * far.mean((0, 1)) * axes.own
    yield "whole", "other", other + a * (own - other)
    yield "random", "other", other + a * far * axes.random[:, None, None, None]


def erased(own: Tensor, other: Tensor, axes: Axes) -> Iterator[tuple[str, str, Tensor]]:
    """(path, mover, codes [1, axes, X, K, n, D]) of paired codes own and other [X, K, n, D].

    erased: without what tells self from other linearly; centred: the component along the self-other axis set to its
    mean; erased at random: so the components along random axes, one at a time.
    """
    for mover, x in (("other", other), ("self", own)):
        yield "erased", mover, axes.eraser(x.flatten(0, -2)).view(1, 1, *x.shape)
        for path, directions in ("centred", axes.own[None]), ("erased at random", axes.random):
            along = torch.einsum("...d,rd->r...", x - axes.centre, directions)[..., None]
            yield path, mover, (x - along * directions[:, None, None, None])[None]


@torch.no_grad()
def run(
    cfg: config.Interventions, heads: HeadPair, codes: Pairs, ladder: tuple[float, ...]
) -> tuple[pd.DataFrame, list[tuple[str, str, float, float]]]:
    """Slopes of the readout's main kind on valence after every intervention, and measures of distance, of one agent.

    The table has columns path, mover, similarity, alpha, readout, slope: means over scenes and axes.  alpha is the
    share of the way that a code has gone, 1 for erased ones.  `random, better way`: each random axis in the direction
    that raises the slope more.  Measures: as of `distances`.
    """
    rows: dict[tuple, list[tuple[int, float]]] = {}
    measures = [("distance_pixels", "other", s, float(d)) for s, d in zip(_levels(cfg), codes.pixels, strict=True)]
    alphas = torch.linspace(0, 1, 2 * cfg.battery.levels - 1, device=codes.side.device)
    for readout in metrics.KINDS:
        both = codes.read(heads, readout)
        found = groups(cfg, *both, codes.side)
        measures += distances(cfg, heads, readout, both, codes.pixels, found)
        for (here, axes), (level, s) in product(found, enumerate(_levels(cfg))):
            for path, mover, at, slope in _slopes(
                heads, readout, *(x[level][:, :, here] for x in both), axes, alphas, ladder
            ):
                rows.setdefault((path, mover, s, round(float(at), 4), readout), []).append((len(here), float(slope)))
    table = pd.DataFrame(rows.keys(), columns=["path", "mover", "similarity", "alpha", "readout"])
    return table.assign(
        slope=[np.average([x for _, x in v], weights=[n for n, _ in v]) for v in rows.values()]
    ), measures


def _levels(cfg: config.Interventions) -> list[float]:
    return battery.similarity(battery.angles(cfg.battery.levels))


def _slopes(
    heads: HeadPair, readout: str, own: Tensor, other: Tensor, axes: Axes, alphas: Tensor, ladder: tuple[float, ...]
) -> Iterator[tuple[str, str, float, float]]:
    """(path, mover, alpha, slope): means over scenes of every intervention on paired codes [X, K, n, D]."""
    steps = [(*part, alphas) for part in moved(own, other, axes, alphas)]
    steps += [(*part, alphas[-1:]) for part in erased(own, other, axes)]
    for path, mover, code, at in steps:
        slopes = event_slopes(readout, heads.nets[readout](code)[..., 0], ladder).double().mean(-1)  # [alphas, axes]
        yield from ((path, mover, a, x) for a, x in zip(at.tolist(), slopes.mean(1).tolist(), strict=True))
        if path == "random":
            back = event_slopes(readout, heads.nets[readout](2 * other - code[-1])[..., 0], ladder).double().mean(-1)
            yield "random, better way", mover, 1.0, float(torch.maximum(slopes[-1], back).mean())


def event_slopes(readout: str, out: Tensor, ladder: tuple[float, ...]) -> Tensor:
    """Slope on valence of event minus twin [..., n] of a readout's predictions [..., X, K, n]."""
    weights = torch.from_numpy(metrics.slope_weights(np.array(ladder), KIND[readout])).to(out)
    contrast = out[..., PAIR.index("event"), :, :] - out[..., PAIR.index("twin"), :, :]
    return torch.einsum("k,...kn->...n", weights, contrast)


def distances(
    cfg: config.Interventions,
    heads: HeadPair,
    readout: str,
    both: tuple[Tensor, Tensor],
    pixels: Tensor,
    found: list[Group],
) -> list[tuple[str, str, float, float]]:
    """How far the other is from the self, and what that says about empathy: measure, mover, similarity, value.

    `distance_<readout>`: mean distance of codes; `share_`: of its square, what lies along the self-other axis;
    `position_`, of other and self: mean place along it, from 0 (orthogonal other) to 1 (self beside an orthogonal
    other).  And over all scenes below identical appearance, per standard deviation of a distance over all of them:
    `partial_latent_` and `partial_pixels_`, slopes of a scene's response on both distances at once, and
    `within_latent_`, on the latent distance among scenes of the same appearance.
    """
    own, other = both
    ladder = cfg.heads.model.data.world.ladder
    apart = (own - other).norm(dim=-1).mean((1, 2))  # [L, n]
    shown, rows = {("distance", "other"): apart.mean(1)} | _along(own, other, found), []
    for (name, mover), values in shown.items():
        rows += [(f"{name}_{readout}", mover, s, float(v)) for s, v in zip(_levels(cfg), values, strict=True)]
    y = event_slopes(readout, heads.nets[readout](other)[..., 0], ladder)[1:].double()
    scaled = [(x - x.mean()) / x.std().clamp(min=1e-9) for x in (apart[1:].double(), pixels[1:, None].double() + 0 * y)]
    design = torch.stack([torch.ones_like(y), *scaled], -1).flatten(0, 1)
    partial = torch.linalg.lstsq(design.cpu(), y.flatten()[:, None].cpu(), driver="gelsd").solution[1:, 0]
    latent, rest = (x - x.mean(1, keepdim=True) for x in (scaled[0], y))
    within = (latent * rest).sum() / latent.square().sum().clamp(min=1e-9)
    parts = {"partial_latent": partial[0], "partial_pixels": partial[1], "within_latent": within}
    return rows + [(f"{name}_{readout}", "other", 1.0, float(value)) for name, value in parts.items()]


def _along(own: Tensor, other: Tensor, found: list[Group]) -> dict[tuple[str, str], Tensor]:
    """By level of appearance [L]: places of other and self on the self-other axis, and its share of their distance."""
    parts, counts = [], []
    for here, axes in found:
        mine, theirs = (x[:, :, :, here] @ axes.own for x in (own, other))  # [L, X, K, n]
        whole = (own - other)[:, :, :, here].square().sum(-1).mean((1, 2, 3))
        share = (mine - theirs).square().mean((1, 2, 3)) / whole.clamp(min=1e-9)
        mine, theirs = mine.mean((1, 2, 3)), theirs.mean((1, 2, 3))
        start, end = theirs[-1], mine[-1]
        parts.append(torch.stack([(theirs - start) / (end - start), (mine - start) / (end - start), share]))
        counts.append(len(here))
    weight = torch.tensor(counts, device=own.device)[:, None, None]
    mean = (torch.stack(parts) * weight).sum(0) / weight.sum()
    return dict(zip((("position", "other"), ("position", "self"), ("share", "other")), mean, strict=True))
