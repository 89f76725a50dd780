"""Interventions on the latent, which alone license the word "because" (DESIGN 4).

The other's code and the self's are compared in the same picture with the two bodies exchanged.  The code of one is
then moved towards that of the other: along the axis between them, all the way, or equally far along random axes; or
that axis is erased.  Axes are found in one half of the scenes and used in the other half.

Shapes: L looks, X = 2 contacts (event, twin), K item kinds, n scenes, D latent.  Codes are standardised as the heads
read them, at the frame from which a readout's empathy coefficient is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from . import config, metrics, models, stimuli, world
from .heads import Heads
from .stimuli import CONTACTS, PHASES

MET = CONTACTS[:2]
FRAME = {readout: next(iter(kinds["empathy"].contrast))[1] for readout, kinds in metrics.KINDS.items()}  # its phase
FRAMES = tuple(FRAME.values())


@dataclass(frozen=True)
class Pairs:
    """Codes of the self and of the other that moves, by look, in the same picture with the bodies exchanged.

    own, other [L, X, K, n, readouts, D]; pixels [L] distance between the two pictures; side [n] of the mover's chamber.
    """

    own: Tensor
    other: Tensor
    pixels: Tensor
    side: Tensor

    @classmethod
    def of(cls, model: nn.Module, cfg: config.Battery, scenes: stimuli.Scenes, data: config.Episodes) -> Pairs:
        """As a seed's world model codes them, each readout at its own frame."""
        device = scenes.pos.device
        look, found, pixels = world.look(data.world, data.seed, device), {"self": [], "other": []}, []
        shape = (len(MET), len(data.world.ladder), len(scenes))
        at = [PHASES.index(phase) - len(PHASES) for phase in FRAMES]
        for angle in stimuli.angles(cfg.levels).to(device):
            shown = {m: stimuli.present(scenes, m, angle, data.world, look, contacts=len(MET)) for m in found}
            pixels.append((shown["self"][0] - shown["other"][0])[:, at].norm(dim=-1).mean())
            for mover, seen in shown.items():
                z = models.encode(model, *seen)[:, at]
                found[mover].append(z.clone().view(*shape, len(at), -1))
        own, other = (torch.stack(parts) for parts in found.values())
        return cls(own, other, torch.stack(pixels), scenes.side.long())

    def read(self, heads: Heads, readout: str) -> tuple[Tensor, Tensor]:
        """Standardised codes of self and other [L, X, K, n, D] at the readout's frame."""
        at = FRAMES.index(FRAME[readout])
        return tuple((z[..., at, :] - heads.mean) / heads.scale for z in (self.own, self.other))


@dataclass(frozen=True)
class Axes:
    """Directions of unit length as found in some scenes: between other and self [D], and random ones [axes, D].

    centre [D]: the mean code; eraser: of what tells self from other linearly.  Random axes are random mixtures of the
    codes themselves, so that they lie where codes vary.
    """

    own: Tensor
    random: Tensor
    centre: Tensor
    eraser: object

    @classmethod
    def of(cls, own: Tensor, other: Tensor, count: int, g: torch.Generator) -> Axes:
        """From codes of the self and of the other [..., D], as many of each; LEACE (Belrose et al. 2023) erases."""
        from concept_erasure import LeaceEraser

        x = torch.cat([own.flatten(0, -2), other.flatten(0, -2)])
        label = torch.arange(2, device=x.device).repeat_interleave(len(x) // 2)
        between, centre = own.flatten(0, -2).mean(0) - other.flatten(0, -2).mean(0), x.mean(0)
        mixed = torch.randn(count, len(x), generator=g).to(x.device) @ (x - centre)
        unit = torch.nn.functional.normalize
        return cls(unit(between, dim=0), unit(mixed, dim=1), centre, LeaceEraser.fit(x, label))


def moved(own: Tensor, other: Tensor, axes: Axes, alphas: Tensor) -> Iterator[tuple[str, str, Tensor]]:
    """(path, mover, codes [alphas, axes, ..., D]) of paired codes own and other [..., D].

    axis: the code's component along the self-other axis goes from its own value to its partner's, for the other
    (towards the self) and for the self; random: the other's, displaced as far along random axes; whole: all of it goes.
    """
    a = alphas.view(-1, *[1] * (own.dim() + 1))
    far = (own - other) @ axes.own  # [...]
    step = far[..., None] * axes.own
    yield "axis", "other", other + a * step
    yield "axis", "self", own - a * step
    yield "whole", "other", other + a * (own - other)
    shape = [-1, *[1] * (own.dim() - 1), own.shape[-1]]
    yield "random", "other", other + a * far[..., None] * axes.random.view(shape)


def erased(own: Tensor, other: Tensor, axes: Axes) -> Iterator[tuple[str, str, Tensor]]:
    """(path, mover, codes [1, axes, ..., D]) without what tells self from other linearly, or without random axes."""
    for mover, x in (("other", other), ("self", own)):
        yield "erased", mover, axes.eraser(x.flatten(0, -2)).view(1, 1, *x.shape)
        along = torch.einsum("...d,rd->r...", x - axes.centre, axes.random)[..., None]
        yield "erased at random", mover, (x - along * axes.random.view(-1, *[1] * (x.dim() - 1), x.shape[-1]))[None]


@torch.no_grad()
def run(cfg: config.Interventions, heads: Heads, codes: Pairs, ladder: tuple[float, ...]) -> pd.DataFrame:
    """Slopes of the empathy contrast on valence after every intervention, per agent: the mean over scenes and axes.

    Columns path, mover, similarity, alpha, readout, slope.  alpha is the share of the way that a code has gone; erased
    codes have alpha 1.
    """
    rows: dict[tuple, list[Tensor]] = {}
    similarity, alphas = (
        stimuli.similarity(stimuli.angles(cfg.battery.levels)),
        torch.linspace(0, 1, cfg.battery.levels),
    )
    for readout in metrics.KINDS:
        net, both = heads.nets[readout], codes.read(heads, readout)
        for here, axes in _halves(cfg, *both, codes.side):
            for level, s in enumerate(similarity):
                own, other = (x[level][:, :, here] for x in both)
                steps = [(*part, alphas) for part in moved(own, other, axes, alphas.to(own.device))]
                steps += [(*part, alphas[-1:]) for part in erased(own, other, axes)]
                for path, mover, code, at in steps:
                    slope = scene_slopes(readout, net(code)[..., 0], ladder).mean(1)  # [alphas, n]
                    for alpha, own_slopes in zip(at, slope, strict=True):
                        rows.setdefault((path, mover, s, round(float(alpha), 4), readout), []).append(own_slopes)
    table = pd.DataFrame(rows.keys(), columns=["path", "mover", "similarity", "alpha", "readout"])
    return table.assign(slope=[float(torch.cat(parts).double().mean()) for parts in rows.values()])


def scene_slopes(readout: str, out: Tensor, ladder: tuple[float, ...]) -> Tensor:
    """Slope on valence of event minus twin [..., n] of a readout's answers [..., X, K, n]."""
    weights = torch.from_numpy(metrics.line(np.array(ladder), metrics.KINDS[readout]["empathy"])).to(out)
    contrast = out[..., MET.index("event"), :, :] - out[..., MET.index("twin"), :, :]
    return torch.einsum("k,...kn->...n", weights, contrast)


def _halves(cfg: config.Interventions, own: Tensor, other: Tensor, side: Tensor) -> Iterator[tuple[Tensor, Axes]]:
    """(scenes, axes found in the other half's scenes) by half and by the side on which the mover's chamber is drawn.

    By side, because what is coded is whose chamber is whose, and its sign turns with the side.  A half that has no
    counterpart on its side, as may be with a handful of scenes, is left out.
    """
    even = torch.arange(len(side), device=side.device) % 2 == 0
    for number, (half, drawn) in enumerate(product((even, ~even), (0, 1))):
        here, there = (torch.nonzero(h & (side == drawn)).squeeze(1) for h in (half, ~half))
        if len(here) and len(there):
            g = world.generator(cfg.heads.model.data.seed, f"interventions/axes/{number}")
            below = (x[1:, :, :, there] for x in (own, other))  # identical looks have no axis
            yield here, Axes.of(*below, cfg.axes, g)


@torch.no_grad()
def distances(
    cfg: config.Interventions, heads: Heads, codes: Pairs, ladder: tuple[float, ...]
) -> list[tuple[str, str, float, float]]:
    """How far the other is from the self, and what that says about empathy: measure, mover, similarity, value.

    `distance_pixels`: of the two pictures.  Per readout, `distance_<readout>`: mean distance of codes; `share_`: of its
    square, what lies along the self-other axis; `position_`, of other and self: mean place along it, from 0 (orthogonal
    other) to 1 (self beside an orthogonal other).  And over all scenes below identical looks, `partial_latent_` and
    `partial_pixels_`: slopes of a scene's response on both distances at once, and `within_latent_`: on the latent
    distance among scenes of the same looks; each per standard deviation of it.
    """
    levels, pixels = stimuli.similarity(stimuli.angles(cfg.battery.levels)), codes.pixels
    rows = [("distance_pixels", "other", s, float(d)) for s, d in zip(levels, pixels, strict=True)]
    for readout in metrics.KINDS:
        own, other = codes.read(heads, readout)
        apart = (own - other).norm(dim=-1).mean((1, 2))  # [L, n]
        shown = {("distance", "other"): apart.mean(1)} | _along(cfg, own, other, codes.side)
        for (name, mover), values in shown.items():
            rows += [(f"{name}_{readout}", mover, s, float(v)) for s, v in zip(levels, values, strict=True)]
        y = scene_slopes(readout, heads.nets[readout](other)[..., 0], ladder)[1:].double()
        latent, drawn = apart[1:].double(), pixels[1:, None].expand_as(apart[1:]).double()
        both = np.stack([_scored(latent), _scored(drawn)], -1).reshape(-1, 2)
        partial = np.linalg.lstsq(np.c_[np.ones(len(both)), both], y.flatten().cpu().numpy(), rcond=None)[0]
        centred = _scored(latent - latent.mean(1, keepdim=True)).ravel()
        within = centred @ (y - y.mean(1, keepdim=True)).flatten().cpu().numpy() / (centred @ centred)
        parts = {"partial_latent": partial[1], "partial_pixels": partial[2], "within_latent": within}
        rows += [(f"{name}_{readout}", "other", 1.0, float(value)) for name, value in parts.items()]
    return rows


def _scored(x: Tensor) -> np.ndarray:
    return ((x - x.mean()) / x.std().clamp(min=1e-9)).cpu().numpy()


def _along(cfg: config.Interventions, own: Tensor, other: Tensor, side: Tensor) -> dict[tuple[str, str], Tensor]:
    """By look [L], means over scenes: places of other and self on the self-other axis, its share of their distance."""
    parts, counts = [], []
    for here, axes in _halves(cfg, own, other, side):
        mine, theirs = (x[:, :, :, here] @ axes.own for x in (own, other))  # [L, X, K, n]
        whole = (own - other)[:, :, :, here].square().sum(-1).mean((1, 2, 3))
        share = (mine - theirs).square().mean((1, 2, 3)) / whole.clamp(min=1e-9)
        mine, theirs = mine.mean((1, 2, 3)), theirs.mean((1, 2, 3))
        start, end = theirs[-1], mine[-1]
        parts.append(torch.stack([(theirs - start) / (end - start), (mine - start) / (end - start), share]))
        counts.append(len(here))
    weight = torch.tensor(counts, device=side.device)[:, None, None]
    found = (torch.stack(parts) * weight).sum(0) / weight.sum()
    return dict(zip((("position", "other"), ("position", "self"), ("share", "other")), found, strict=True))
