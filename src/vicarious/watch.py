"""Agents evaluated on the battery again and again while they learn: a monitor for any training loop, and the three
trainings of this library that are watched.

`train_jointly`: world model and heads together; `train_curves`: reward models on a frozen world model; `fine_tune`:
converged heads that are then given other labels.  Watching changes nothing of what is learnt.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from . import battery as stimuli
from . import config, episodes, heads, metrics, models, world
from .battery import CONTACTS, PHASES, CodesOf
from .episodes import Batch, labelled
from .heads import READOUTS
from .train import evaluating, fit

EARLY = 0.2  # share of training at which the final score is to be foretold
FIRST = 1 / 64  # share of training after which an agent is first evaluated
SAMPLE = 512  # episodes by whose codes heads standardise when they are evaluated in joint training
FOLLOWED = 256  # episodes on which joint training is followed
TEST = 1024  # episodes on which own reward is tested, the same whatever an agent has learnt from
PER_DECADE = 6  # checkpoints of fine-tuning, from its first update on
FINE_TUNED = ("empathy", "joy", "pain")  # kinds that event and twin in one frame tell
APART = np.pi / 4  # angle up to which an other is `alike`
LEFT = 0  # side of the glass
PROGRESS = {"extinction": "progress", "decoupling": "unlearning"}  # the table of what was learnt, by stage

Read = Callable[[Tensor], Tensor]  # codes [..., D] -> predictions [..., 1] of one readout
Tables = dict[str, pd.DataFrame]


def checkpoints(updates: int, count: int) -> list[int]:
    """About `count` updates: 0, log-spaced from the share `FIRST` of training to all of it, and the share `EARLY`."""
    spaced = np.geomspace(max(1, updates * FIRST), updates, max(2, count - 2)).round().astype(int)
    return sorted({0, round(EARLY * updates), *spaced.tolist()})


def _watched(evaluate: Callable[[int], None], at: Iterable[int]) -> dict[int, Callable[[], None]]:
    """Evaluates the agents as they are before training, and gives what is called after the other updates."""
    evaluate(0)
    return {update: partial(evaluate, update) for update in at if update}


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
                predicted = own[0][2][..., READOUTS.index("value")]
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
        """Correlation of predicted values with V_pi over self scenes: update, name, value."""
        return pd.DataFrame(self._agreement, columns=["update", "name", "value"])


@torch.no_grad()
def _slopes(
    read: Read, codes: CodesOf, kinds: dict[str, metrics.Kind], ladder: Sequence[float], phase: str
) -> Iterator[tuple[str, str, float, np.ndarray]]:
    """(kind, mover, similarity, slope [n] scene by scene) of what is read from codes [event and twin, K, n, D]."""
    for (mover, s), z in codes.items():
        out = read(z).cpu().numpy()  # [X, K, n, 1]
        for name, kind in kinds.items():
            yield name, mover, s, metrics.scene_slope(out, kind, ladder, CONTACTS[:2], (phase,))


def _own_error(out: Tensor, target: Tensor, free: Tensor) -> tuple[float, float]:
    """Mean squared error and R2 of predictions [B, T] in frames `free`: those in which the other meets nothing, so that
    every exposure is judged on the same ones."""
    error, own = (out - target)[free].square().mean(), target[free]
    return float(error), float(1 - error / own.var())


# Joint training


class JointModel(nn.Module):
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
        for readout, rate in (("reward", self.cfg.reward_rate), ("value", self.cfg.rate)):
            own |= {f"{readout}{i}": rate for i in range(len(self.cfg.exposures))}
        return own

    def heads(self, z: Tensor) -> dict[float, heads.HeadPair]:
        """The heads as they are now, by exposure, standardising as codes z [..., D] are spread."""
        found, flat = {}, z.flatten(0, -2)
        for i, p in enumerate(self.cfg.exposures):
            head = heads.HeadPair(self.latent, self.cfg.width, self.cfg.depth)
            head.nets = nn.ModuleDict({readout: getattr(self, f"{readout}{i}") for readout in READOUTS})
            head.mean, head.scale = flat.mean(0), heads.spread(flat)
            found[p] = head
        return found


def joint_loss(member: JointModel, obs: Tensor, prev_action: Tensor, reward: Tensor, *known: Tensor) -> Tensor:
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


def train_jointly(
    cfgs: Sequence[config.Joint],
    data: Sequence[Batch],
    monitors: Sequence[Monitor],
    quiet: bool = True,
    stacked: bool | None = None,
) -> list[tuple[JointModel, Tables]]:
    """Train agents that differ in their seed as one population, each watched by its monitor.

    Returns each with its tables.  `development`: what `Monitor.table` gives, the name being the exposure.  `learning`:
    update, exposure, measure, value: held-out losses and R2, agreement with V_pi, and at the end the monitor's share
    of the training time (evaluations on the way, that of the untrained agent left out).
    """
    cfg, cut = cfgs[0], models.split(len(data[0]))
    members = [JointModel(c).to(data[0].obs.device) for c in cfgs]
    rewards = [heads.reward_targets(c.at(0.0), d) for c, d in zip(cfgs, data, strict=True)]
    known = [[labelled(d, p) for p in cfg.exposures] for d in data]
    learning: list[list[tuple]] = [[] for _ in cfgs]

    def draw(rows: Tensor) -> list[list[Tensor]]:
        inputs = [[getattr(d, name)[own] for d, own in zip(data, rows, strict=True)] for name in ("obs", "prev_action")]
        labels = [[r[own] for r, own in zip(rewards, rows, strict=True)]]
        labels += [[k[i][own] for k, own in zip(known, rows, strict=True)] for i in range(len(cfg.exposures))]
        return inputs + labels

    def evaluate(update: int) -> None:
        for m, d, r, monitor, rows in zip(members, data, rewards, monitors, learning, strict=True):
            rows += _joint_evaluation(update, m, d, r, monitor, cut)

    at = _watched(evaluate, sorted(set.union(*(monitor.at for monitor in monitors))))
    start, spent = time.perf_counter(), sum(monitor.seconds for monitor in monitors)
    rows = [models.batches(c.model.data.seed, f"batches/{c.model.family}", c.model, cut) for c in cfgs]
    label = f"joint {cfg.model.family} seed {', '.join(str(c.model.data.seed) for c in cfgs)}"
    fit(
        *(members, joint_loss, draw, torch.stack(rows, 1), members[0].rates(), cfg.model.weight_decay),
        **{"stacked": stacked, "at": at, "label": label, "quiet": quiet},
    )
    watching = sum(monitor.seconds for monitor in monitors) - spent
    share = watching / (time.perf_counter() - start - watching)
    return [
        (m, {"development": _by_exposure(monitor.table()), "learning": _learning(c, rows, monitor, share)})
        for m, c, rows, monitor in zip(members, cfgs, learning, monitors, strict=True)
    ]


def _joint_evaluation(
    update: int, member: JointModel, data: Batch, reward: Tensor, monitor: Monitor, cut: int
) -> Iterator[tuple[int, float, str, float]]:
    """(update, exposure or -1, measure, value) of one member, and a look of its monitor."""
    model, sample, held = member.model, data[:SAMPLE], data[cut : cut + FOLLOWED]
    own = member.heads(models.encode(model, sample.obs, sample.prev_action))
    monitor(update, model, own)
    if model.trained:
        yield from ((update, -1.0, name, x) for name, x in models.evaluate(model, held).items())
    z = models.encode(model, held.obs, held.prev_action)
    for p, head in own.items():
        found = heads.evaluate(head, z, reward[cut : cut + FOLLOWED], labelled(held, p), member.cfg.at(p))
        yield from ((update, p, name, x) for name, x in found.items())


def _by_exposure(table: pd.DataFrame) -> pd.DataFrame:
    return table.rename(columns={"name": "exposure"})


def _learning(cfg: config.Joint, rows: list[tuple], monitor: Monitor, share: float) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["update", "exposure", "measure", "value"])
    agreement = _by_exposure(monitor.agreement()).assign(measure="value_r")
    final = pd.DataFrame([(cfg.model.updates, -1.0, "monitor_share", share)], columns=table.columns)
    return pd.concat([table, agreement, final], ignore_index=True)


# Learning curves


def test_set(data: config.Episodes) -> Batch:
    """Episodes of a seed's world that nothing learns from: as many for every amount of data."""
    return episodes.collect(data.model_copy(update={"episodes": TEST}), purpose="test")


def curve_key(cfg: config.Curve) -> str:
    """A key that runs share exactly if they can train as one population."""
    return config.digest([heads.batch_key(cfg.at(0.0)), cfg.exposures, cfg.checkpoints, cfg.battery.address])


def train_curves(
    cfgs: Sequence[config.Curve],
    z: Sequence[heads.Latents],
    data: Sequence[Batch],
    codes: Sequence[CodesOf],
    tests: Sequence[tuple[Tensor, Batch]],
    quiet: bool = True,
    stacked: bool | None = None,
) -> list[Tables]:
    """Train the reward models of runs as one population; z, data, codes, tests (codes [B, T, D], episodes): of each.

    Returns each run's tables.  `curves`: update, exposure, mover, similarity, slope of the response on valence (mean
    over scenes).  `learning`: update, exposure, measure, value: reward_loss and reward_r2 on test frames in which the
    other meets nothing.
    """
    cfg, contact = cfgs[0], PHASES.index("contact")
    own = [(i, p) for i, c in enumerate(cfgs) for p in c.exposures]
    encoded = [{key: x[:2, :, :, contact] for key, x in found.items()} for found in codes]
    targets = [world.reward(d.contact, c.model.data.world, 0.0) for c, (_, d) in zip(cfgs, tests, strict=True)]
    responses: list[list[tuple]] = [[] for _ in cfgs]
    learnt: list[list[tuple]] = [[] for _ in cfgs]
    kind, first = {"empathy": metrics.KINDS["reward"]["empathy"]}, READOUTS.index("reward")

    @torch.no_grad()
    def evaluate(update: int, members: Sequence[heads.HeadPair]) -> None:
        for (i, p), head in zip(own, members, strict=True):
            read, ladder = (lambda x, h=head: h(x)[..., None, first]), cfgs[i].model.data.world.ladder
            rows = _slopes(read, encoded[i], kind, ladder, "contact")
            responses[i] += [(update, p, mover, s, np.float32(slope.mean())) for _, mover, s, slope in rows]
            found = _own_error(head(tests[i][0])[..., first], targets[i], labelled(tests[i][1], 0.0))
            learnt[i] += [(update, p, m, v) for m, v in zip(("reward_loss", "reward_r2"), found, strict=True)]

    evaluate(0, [heads.fresh(cfgs[i].at(p), z[i]) for i, p in own])
    at = {u: partial(evaluate, u) for u in checkpoints(cfg.updates, cfg.checkpoints) if u}
    heads.train(
        *([cfgs[i].at(p) for i, p in own], [z[i] for i, _ in own], [data[i] for i, _ in own], quiet, stacked),
        readouts=("reward",),
        at=at,
    )
    return [
        {
            "curves": pd.DataFrame(rows, columns=["update", "exposure", "mover", "similarity", "slope"]),
            "learning": pd.DataFrame(own_rows, columns=["update", "exposure", "measure", "value"]),
        }
        for rows, own_rows in zip(responses, learnt, strict=True)
    ]


# Fine-tuning: heads that had converged are given other labels (DESIGN 4, 5: B, A)


def fine_tuning_checkpoints(cfg: config.Extinction) -> list[int]:
    """Updates after which the head is evaluated: the same for every length, and at every whole convergence."""
    spaced = (round(10 ** (i / PER_DECADE)) for i in range(9 * PER_DECADE))
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


def label_split(cfg: config.Extinction, data: Batch) -> dict:
    """Which of the other's contacts in training episodes had labels, as the manifest keeps it."""
    cut = models.split(len(data))
    met, given, held = data.contact[:cut, :, 1] > 0, known(cfg, data)[:cut], withheld(cfg, data)[:cut]
    return {
        "withheld": cfg.withheld,
        "labelled_contacts": int((met & given).sum()),
        "withheld_contacts": int((met & held).sum()),
        "labelled_episodes": int((met & given).any(1).sum()),
    }


def fine_tuning_rows(cfg: config.Extinction, cut: int) -> Tensor:
    """Episodes [updates, batch] that the head sees, the same for every exposure."""
    return models.batches(cfg.heads.model.data.seed, f"extinction/{cfg.readout}", cfg, cut)


def labels_seen(cfg: config.Extinction, data: Batch, at: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
    """Labelled eventful episodes in the batches that the head was given by update, repeats counted, and different ones.

    An update learns from as many frames at every exposure (`heads.LABELS` of a batch's), so that of those given some
    are left out: a fifth at p = 1, an eighth at p = 0.
    """
    cut = models.split(len(data))
    labelled_ = ((data.contact[:cut, :, 1] > 0) & known(cfg, data)[:cut]).any(1).cpu()
    seen = fine_tuning_rows(cfg, cut)
    seen = seen[: max(1, round(cfg.until * len(seen)))]
    count, different = [], []
    for update in at:
        own = seen[:update].flatten()
        own = own[labelled_[own]]
        count.append(len(own))
        different.append(len(own.unique()))
    return np.array(count), np.array(different)


def fine_tuning_key(cfg: config.Extinction) -> str:
    """A key that runs share exactly if they can train as one population."""
    own = {name: getattr(cfg, name) for name in ("readout", "past", "rate", "batch")}
    return config.digest([heads.batch_key(cfg.then), own, cfg.battery.address])


def fine_tune(
    cfgs: list[config.Extinction],
    start: list[heads.HeadPair],
    z: list[heads.Latents],
    data: list[Batch],
    codes: list[CodesOf],
    scenes: stimuli.Scenes,
    quiet: bool = True,
    stacked: bool | None = None,
) -> list[tuple[nn.Module, Tables]]:
    """Let heads of one length go on learning as one population; start, z, data, codes: of each.

    Returns each with its tables.  `extinction`: update, side (where the mover's chamber was drawn), kind, mover,
    similarity, slope (mean over scenes), n_scenes.  `progress`: update, labelled and different (labelled eventful
    episodes seen), loss and r2 (held out, on frames in which the other meets nothing).
    """
    cfg, cut = cfgs[0], models.split(len(data[0]))
    readout, phase = cfg.readout, "contact" if cfg.readout == "reward" else "approach"
    members = [copy.deepcopy(h.nets[readout]).requires_grad_(True) for h in start]
    rewards = [heads.reward_targets(c.then, d)[:cut] for c, d in zip(cfgs, data, strict=True)]
    labels = [torch.cat([known(c, d)[:cut], labelled(d, 0.0)[:cut]]) for c, d in zip(cfgs, data, strict=True)]
    taken = torch.stack([fine_tuning_rows(c, cut) for c in cfgs], 1)  # [U, P, N]
    for i, c in enumerate(cfgs):
        taken[round(c.until * len(taken)) :, i] += cut  # the second half of `labels`: nothing of the other's

    def draw(index: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        at = [own % cut for own in index]
        return (
            [x.inputs[own] for x, own in zip(z, at, strict=True)],
            [r[own] for r, own in zip(rewards, at, strict=True)],
            [k[own] for k, own in zip(labels, index, strict=True)],
        )

    encoded = [_standardised(h, x, phase) for h, x in zip(start, codes, strict=True)]
    held = [((x.held_out - h.mean) / h.scale, d[cut:]) for x, h, d in zip(z, start, data, strict=True)]
    responses: list[list[pd.DataFrame]] = [[] for _ in cfgs]
    progress: list[list[tuple]] = [[] for _ in cfgs]

    def evaluate(update: int) -> None:
        for i, c in enumerate(cfgs):
            responses[i].append(_by_side(c, members[i], encoded[i], scenes.side, phase).assign(update=update))
            progress[i].append((update, *_held_out_error(c, members[i], *held[i])))

    fit(
        *(members, partial(_head_loss, cfg), draw, taken, cfg.rate, cfg.then.weight_decay),
        constant=True,
        stacked=stacked,
        at=_watched(evaluate, fine_tuning_checkpoints(cfg)),
        label=f"{len(cfgs)} x {readout} fine-tuned at p = {cfg.exposure:g}",
        quiet=quiet,
    )
    return [
        (net, {c.stage: pd.concat(parts, ignore_index=True), PROGRESS[c.stage]: _progress(c, d, own)})
        for net, c, d, parts, own in zip(members, cfgs, data, responses, progress, strict=True)
    ]


def _head_loss(cfg: config.Extinction, net: nn.Module, x: Tensor, *labels: Tensor) -> Tensor:
    return heads.loss(cfg.readout, net(x)[..., 0].float(), *labels, cfg.heads)


def _progress(cfg: config.Extinction, data: Batch, own: list[tuple]) -> pd.DataFrame:
    table = pd.DataFrame(own, columns=["update", "loss", "r2"])
    table["labelled"], table["different"] = labels_seen(cfg, data, table["update"])
    return _named(cfg, table)


def _named(cfg: config.Extinction, table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(readout=cfg.readout, withheld=cfg.withheld, until=cfg.until)


def _standardised(start: heads.HeadPair, codes: CodesOf, phase: str) -> CodesOf:
    """Standardised codes [event and twin, K, n, D] of self and other in the frame that the head is read in."""
    at = PHASES.index(phase)
    own = {key: z[:2, :, :, at] for key, z in codes.items() if key[0] != "drifter"}
    return {key: (z - start.mean) / start.scale for key, z in own.items()}


def _by_side(cfg: config.Extinction, net: nn.Module, codes: CodesOf, side: Tensor, phase: str) -> pd.DataFrame:
    kinds, on = {name: metrics.KINDS[cfg.readout][name] for name in FINE_TUNED}, side.cpu().numpy()
    table = [
        (where, kind, mover, s, np.float32(slope[on == where].mean()), int((on == where).sum()))
        for kind, mover, s, slope in _slopes(net, codes, kinds, cfg.heads.model.data.world.ladder, phase)
        for where in (0, 1)
    ]
    return _named(cfg, pd.DataFrame(table, columns=["side", "kind", "mover", "similarity", "slope", "n_scenes"]))


@torch.no_grad()
def _held_out_error(cfg: config.Extinction, net: nn.Module, z: Tensor, data: Batch) -> tuple[float, float]:
    free, target, out = labelled(data, 0.0), heads.reward_targets(cfg.then, data), net(z)[..., 0]
    if cfg.readout == "value":
        target, free = heads.lambda_returns(target, out, free, cfg.heads.gamma, cfg.heads.lam)
    return _own_error(out, target, free)
