"""World models behind one small interface, and the loop that trains any of them without reward.

A family is an `nn.Module` built as `Family(cfg, features)` with

    encode(obs [B, T, F], prev_action [B, T]) -> z [B, T, D]
    losses(obs, prev_action) -> {name: [B, T]}      empty where nothing is trained

Adding one takes a file beside this one and a line in `FAMILIES`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .. import config, world
from ..episodes import Batch
from .controls import Pixels, Untrained
from .recurrent import Recurrent

FAMILIES: dict[str, type[nn.Module]] = {"recurrent": Recurrent, "pixels": Pixels, "untrained": Untrained}
HELD_OUT = 1 / 16  # share of the episodes kept for held-out losses


def build(cfg: config.Model) -> nn.Module:
    """A freshly initialised world model, weights drawn from the seed's own stream."""
    if cfg.family not in FAMILIES:
        raise ValueError(f"unknown family {cfg.family!r}; there are: {', '.join(FAMILIES)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(world.generator(cfg.data.seed, f"weights/{cfg.family}").initial_seed())
        return FAMILIES[cfg.family](cfg, world.features(cfg.data.world))


def split(count: int) -> int:
    """Episodes before this index train; those from it on are held out."""
    return count - max(1, int(count * HELD_OUT))


def train(cfg: config.Model, data: Batch, quiet: bool = True) -> tuple[nn.Module, dict[str, float]]:
    """Train a world model on all episodes, reward unseen.  Returns it frozen, with its held-out losses.

    AdamW with a one-cycle rate and gradient clipping at 1; the loss is the mean over the family's named losses' sum.
    """
    model = build(cfg).to(data.obs.device)
    cut, g = split(len(data)), world.generator(cfg.data.seed, f"batches/{cfg.family}")
    if list(model.parameters()) and model.trained:
        optimiser = torch.optim.AdamW(model.parameters(), lr=cfg.rate, weight_decay=cfg.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, cfg.rate, total_steps=cfg.updates)
        for _ in tqdm(range(cfg.updates), desc=f"world model {cfg.family} seed {cfg.data.seed}", disable=quiet or None):
            batch = data[torch.randint(cut, (cfg.batch,), generator=g)]
            loss = sum(model.losses(batch.obs, batch.prev_action).values()).mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    model.requires_grad_(False).eval()
    return model, evaluate(model, data[cut:])


@torch.no_grad()
def evaluate(model: nn.Module, data: Batch) -> dict[str, float]:
    """Mean of each named loss over held-out episodes."""
    return {name: float(loss.mean()) for name, loss in model.losses(data.obs, data.prev_action).items()}


@torch.no_grad()
def encode(model: nn.Module, obs: Tensor, prev_action: Tensor, chunk: int = 1024) -> Tensor:
    """Latents [B, T, D] of whole sequences, in chunks so that memory stays small."""
    parts = [model.encode(o, a) for o, a in zip(obs.split(chunk), prev_action.split(chunk), strict=False)]
    return torch.cat(parts)
