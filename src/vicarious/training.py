"""All stages of an agent, and the one way to get a result: published, else cached, else trained now."""

from __future__ import annotations

import contextlib
import gc
import math
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, ProcessPoolExecutor, wait
from dataclasses import replace
from functools import cached_property
from itertools import islice
from multiprocessing import active_children, get_context
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from . import (
    codes,
    config,
    curves,
    episodes,
    extinction,
    heads,
    interventions,
    joint,
    metrics,
    models,
    monitor,
    population,
    responses,
    simulations,
    stimuli,
    world,
)
from .store import Result, Store

MEASURE = ["measure", "mover", "similarity", "value"]  # columns of every table of measures
POPULATION = 64  # agents that train as one on CUDA
TRAINED = (config.Model, config.Heads)
AGENTLESS = (config.Battery, config.Returns, config.Simulations, config.Shapes)
EXPECTED = {  # seconds on one core
    "battery": 40.0,
    "returns": 120.0,
    "model": 50.0,
    "foresight": 3.0,
    "codes": 15.0,
    "identity": 10.0,
    "heads": 33.0,
    "joint": 130.0,
    "curve": 18.0,
    "responses": 1.5,
    "precision": 6.0,
    "surface": 10.0,
    "interventions": 15.0,
    "imagined": 5.0,
    "simulations": 60.0,
    "shapes": 60.0,
}
STEP = {"ppo": 7.5e-5, "dqn": 6e-4}  # seconds on one core of one step of an outsider
SLOWER = {"rssm": 2.0, "transformer": 1.2, "conv": 2.2, "slots": 6.0}  # families, beside the reference
UPDATE = {"reward": 1.4e-3, "value": 1.6e-3}  # seconds on one core of one update of extinction


def resolve_device(device: str) -> str:
    """`auto` is CUDA where there is one.  Raises ValueError for other names, and where CUDA is asked for and absent."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise ValueError(f"--device {device}: it is auto, cpu, cuda or cuda:N")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError("--device cuda: no CUDA device is available here; use --device cpu or auto")
    if device.startswith("cuda:") and int(device[5:]) >= torch.cuda.device_count():
        raise ValueError(f"--device {device}: there are {torch.cuda.device_count()} CUDA devices, counted from 0")
    return device


@contextlib.contextmanager
def one_thread():
    """Arithmetic on one thread, so that a CPU result depends on no thread count."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class Agent:
    """All stages of one world model, each read or computed when first asked for, each stored as soon as it is whole."""

    def __init__(self, cfg: config.Model, store: Store, device: str = "cpu", quiet: bool = True):
        self.cfg, self.store, self.device, self.quiet = cfg, store, device, quiet
        self._scenes: dict[config.Battery, tuple[stimuli.Scenes, torch.Tensor]] = {}
        self._shown: dict[config.Battery, responses.Codes] = {}
        self._pairs: dict[config.Battery, interventions.Pairs] = {}
        self._conducts: dict[config.Battery, responses.Conducts] = {}

    @cached_property
    def episodes(self) -> episodes.Batch:
        data = episodes.collect(self.cfg.data)
        return episodes.Batch(**{k: getattr(data, k).to(self.device) for k in data.__dataclass_fields__})

    @cached_property
    def model(self) -> torch.nn.Module:
        """The frozen world model."""
        train_models([self])
        model = models.build(self.cfg)
        model.load_state_dict(self.store.read(self.cfg.address, weights=True).weights)
        return model.requires_grad_(False).eval().to(self.device)

    def release(self) -> None:
        """Let go of the episodes, the largest thing in memory; they are drawn again if they are asked for."""
        self.__dict__.pop("episodes", None)

    def latents(self) -> tuple[heads.Latents, episodes.Batch]:
        """Codes of all episodes as heads learn from them, and the episodes without their observations."""
        data = replace(self.episodes, obs=self.episodes.obs[..., :0].clone())
        z = models.encode(self.model, self.episodes.obs, data.prev_action)
        self.release()
        return heads.Latents.of(z), data

    def test(self) -> tuple[torch.Tensor, episodes.Batch]:
        """Codes of episodes that nothing has learnt from, and these episodes."""
        data = curves.test_set(self.cfg.data)
        data = episodes.Batch(**{k: getattr(data, k).to(self.device) for k in data.__dataclass_fields__})
        return models.encode(self.model, data.obs, data.prev_action), data

    def heads(self, cfg: config.Heads) -> heads.Heads:
        """The trained heads of one configuration."""
        train_heads([self], [cfg])
        weights = self.store.read(cfg.address, weights=True).weights
        head = heads.Heads(len(weights["mean"]), cfg.width, cfg.depth)
        head.load_state_dict(weights)
        return head.requires_grad_(False).eval().to(self.device)

    def scenes(self, battery: config.Battery) -> tuple[stimuli.Scenes, torch.Tensor]:
        """Templates and V_pi of the battery: stored, so that every agent is shown the very same."""
        if battery not in self._scenes:
            if not self.store.has(battery.address, weights=True):
                make(battery, self.store)
            self._scenes[battery] = battery_of(self.store.read(battery.address, weights=True))
        return self._scenes[battery]

    def shown(self, battery: config.Battery) -> responses.Codes:
        """The model's codes of every scene of the battery, encoded once."""
        if battery not in self._shown:
            scenes = self.scenes(battery)[0].to(self.device)
            self._shown[battery] = responses.encode(self.model, battery, scenes, self.cfg.data)
        return self._shown[battery]

    def fill(self, cell: config.Stage) -> None:
        """Compute and store one cell unless it is there."""
        if self.store.has(cell.address):
            return
        head = self.heads(cell.heads) if isinstance(cell, config.Responses) else None
        start = time.perf_counter()
        if isinstance(cell, config.Foresight):
            tables = {"foresight": self._foresight(cell)}
        elif isinstance(cell, config.Identity):
            tables = {"identity": codes.reliability(cell, self.model, self.shown(cell.battery))}
        elif isinstance(cell, config.Codes):
            tables = {"measures": codes.measure(cell, self.model, self.shown(cell.battery))}
        elif isinstance(cell, config.Precision):
            tables = {"precision": self._precision(cell, head)}
        elif isinstance(cell, config.Surface):
            tables = {"surface": self._surface(cell, head)}
        elif isinstance(cell, config.Interventions):
            tables = self._interventions(cell, head)
        elif isinstance(cell, config.Imagined):
            tables = {"imagined": self._imagined(cell, head)}
        else:
            tables = self._responses(cell, head)
        shown = {"battery": self._digest(cell)} if hasattr(cell, "battery") else {}
        self.store.write(cell, time.perf_counter() - start, tables, device=self.device, **shown)

    def _digest(self, cell: config.Stage) -> str:
        """SHA-256 of the scenes that were shown."""
        if isinstance(cell, config.Surface):
            movers = stimuli.conducts(cell.battery.levels, cell.tastes)
            return config.digest([stimuli.make(cell.drawn(), (mover,)).digest for mover in movers])
        return self.scenes(cell.battery)[0].digest

    def _responses(self, cell: config.Responses, head: heads.Heads) -> dict[str, pd.DataFrame]:
        shown = self.shown(cell.battery)
        table = responses.respond(head, shown, self.cfg.data.world.ladder).assign(step=cell.heads.updates)
        value = responses.value_agreement(head, shown, self.true_value(cell))
        held_out = self.store.read(cell.heads.address).tables["measures"]
        measures = pd.concat([held_out, pd.DataFrame([("value_r", "self", 1.0, value)], columns=MEASURE)])
        return {"responses": table, "measures": measures.reset_index(drop=True)}

    def _precision(self, cell: config.Precision, head: heads.Heads) -> pd.DataFrame:
        parts, ladder = [], self.cfg.data.world.ladder
        for number, battery in enumerate(cell.drawn()):
            if battery not in self._shown:  # their scenes have no rollouts, so they are drawn and not stored
                scenes = stimuli.make(battery).to(self.device)
                self._shown[battery] = responses.encode(self.model, battery, scenes, self.cfg.data)
            answers = responses.scenes(head, self._shown[battery])
            table = metrics.scene_slopes(answers, ladder, stimuli.CONTACTS, stimuli.PHASES)
            parts.append(table.assign(set=number))
        return pd.concat(parts, ignore_index=True)

    def _surface(self, cell: config.Surface, head: heads.Heads) -> pd.DataFrame:
        battery = cell.drawn()
        if battery not in self._conducts:
            movers = stimuli.conducts(battery.levels, cell.tastes)
            self._conducts[battery] = responses.encode_conducts(self.model, battery, movers, self.cfg.data, self.device)
        return responses.surface(head, self._conducts[battery], self.cfg.data.world.ladder)

    def _imagined(self, cell: config.Imagined, head: heads.Heads) -> pd.DataFrame:
        scenes = self.scenes(cell.battery)[0].to(self.device)
        return responses.imagined(self.model, head, cell.battery, scenes, self.cfg.data, cell.heads.gamma)

    def _foresight(self, cell: config.Foresight) -> pd.DataFrame:
        """Losses in eventful episodes of every taste whose other is purposeful: taste, measure, value.

        Beside the family's own losses `place`: squared error of where the other is drawn in the next frame.
        """
        rows = []
        for taste in cell.tastes:
            seen = self.cfg.data.world.model_copy(update={"taste": taste})
            test = self.cfg.data.model_copy(update={"world": seen, "episodes": cell.episodes})
            data = episodes.collect(test, self.device, purpose="test")
            data = data[data.eventful & ~data.drifter]
            losses = models.evaluate(self.model, data) | {"place": self._misplaced(data)}
            rows += [(taste, name, loss) for name, loss in losses.items()]
        return pd.DataFrame(rows, columns=["taste", "measure", "value"])

    @torch.no_grad()
    def _misplaced(self, data: episodes.Batch) -> float:
        """Mean squared error, summed over cells and channels, of the other's body in the next frame."""
        cfg, n = self.cfg.data.world, self.cfg.data.world.size
        z = models.encode(self.model, data.obs, data.prev_action)
        wrong = (self.model.predict(z[:, :-1], data.prev_action[:, 1:]) - data.obs[:, 1:]).square()
        wrong = wrong.view(*wrong.shape[:2], *world.grid(cfg), -1)[..., : cfg.appearance]
        right, left = wrong[..., n + 1 :, :].sum((-3, -2, -1)), wrong[..., :n, :].sum((-3, -2, -1))
        return float(torch.where(data.side[:, None] == 0, right, left).mean())

    def _interventions(self, cell: config.Interventions, head: heads.Heads) -> dict[str, pd.DataFrame]:
        if cell.battery not in self._pairs:
            scenes = self.scenes(cell.battery)[0].to(self.device)
            self._pairs[cell.battery] = interventions.Pairs.of(self.model, cell.battery, scenes, self.cfg.data)
        pairs, ladder = self._pairs[cell.battery], self.cfg.data.world.ladder
        table, measures = interventions.run(cell, head, pairs, ladder)
        return {"interventions": table, "measures": pd.DataFrame(measures, columns=MEASURE)}

    def true_value(self, cell: config.Responses) -> torch.Tensor:
        """V_pi [X, K, n, phases] of self scenes for an agent of this coupling."""
        if cell.heads.kappa == 0:
            return self.scenes(cell.battery)[1]
        stage = config.Returns(battery=cell.battery)
        if not self.store.has(stage.address, weights=True):
            make(stage, self.store)
        own, other = self.store.read(stage.address, weights=True).weights["self"].unbind(-1)
        return own + cell.heads.kappa * other


def train_models(agents: list[Agent], done: Callable[[], None] = lambda: None) -> None:
    """Train and store the world models that are missing, as one population; they differ in their seed alone."""
    todo = [agent for agent in agents if not agent.store.has(agent.cfg.address, weights=True)]
    if not todo:
        return
    start, data = time.perf_counter(), [agent.episodes for agent in todo]
    trained = models.train([agent.cfg for agent in todo], data, quiet=todo[0].quiet)
    seconds = (time.perf_counter() - start) / len(todo)
    for agent, (model, held_out) in zip(todo, trained, strict=True):
        table = pd.DataFrame([(f"{k}_loss", "self", 1.0, v) for k, v in held_out.items()], columns=MEASURE)
        agent.store.write(
            agent.cfg, seconds, {"measures": table}, model.state_dict(), agent.device, population=len(todo)
        )
    done()


def train_heads(agents: list[Agent], cfgs: list[config.Heads], done: Callable[[], None] = lambda: None) -> None:
    """Train and store the heads that are missing: those of one shape as one population, over any number of agents."""
    store, of = agents[0].store, {agent.cfg: agent for agent in agents}
    groups: dict[str, list[config.Heads]] = {}
    for cfg in dict.fromkeys(cfgs):
        if not store.has(cfg.address, weights=True):
            groups.setdefault(heads.alike(cfg), []).append(cfg)
    used = {cfg.model: of[cfg.model] for group in groups.values() for cfg in group}
    start, z, data = time.perf_counter(), {}, {}
    for model, agent in used.items():
        z[model], data[model] = agent.latents()
    for group in groups.values():
        trained = heads.train(group, [z[c.model] for c in group], [data[c.model] for c in group], agents[0].quiet)
        seconds = (time.perf_counter() - start) / len(group)
        for cfg, (head, held_out) in zip(group, trained, strict=True):
            table = pd.DataFrame([(k, "self", 1.0, v) for k, v in held_out.items()], columns=MEASURE)
            device = of[cfg.model].device
            store.write(cfg, seconds, {"measures": table}, head.state_dict(), device, population=len(group))
        start = time.perf_counter()
        done()


def _populations(one: Agent, cells: list[config.Stage], alike: Callable[[config.Stage], str]) -> list[list]:
    """The cells that are missing, as they train together: those of one shape on CUDA, each by itself on a CPU."""
    alone, groups = not population.stacks(torch.device(one.device)), {}
    for cell in cells:
        if not one.store.has(cell.address):
            groups.setdefault(cell.address if alone else alike(cell), []).append(cell)
    return list(groups.values())


def train_joints(agents: list[Agent], cells: list[config.Joint], done: Callable[[], None] = lambda: None) -> None:
    """Train, watch and store the agents that learn everything together and are missing."""
    store, of = agents[0].store, {agent.cfg: agent for agent in agents}
    for group in _populations(agents[0], cells, lambda cell: config.digest(cell.own())):
        start, own = time.perf_counter(), [of[cell.model] for cell in group]
        data, (scenes, value) = [agent.episodes for agent in own], own[0].scenes(group[0].battery)
        at = monitor.checkpoints(group[0].model.updates, group[0].checkpoints)
        monitors = [
            monitor.Monitor(cell.battery, cell.model.data, at, scenes, value, agent.device)
            for agent, cell in zip(own, group, strict=True)
        ]
        trained = joint.train(group, data, monitors, agents[0].quiet)
        seconds = (time.perf_counter() - start) / len(group)
        for agent, cell, (_, tables) in zip(own, group, trained, strict=True):
            store.write(cell, seconds, tables, device=agent.device, population=len(group), battery=scenes.digest)
            agent.release()
        done()


def train_curves(agents: list[Agent], cells: list[config.Curve], done: Callable[[], None] = lambda: None) -> None:
    """Train, watch and store reward models whose learning curves are missing: on CUDA those of one shape at once."""
    store, of = agents[0].store, {agent.cfg: agent for agent in agents}
    groups = _populations(agents[0], cells, curves.alike)
    used = {cell.model: of[cell.model] for group in groups for cell in group}
    latents = {model: agent.latents() for model, agent in used.items()}
    tests = {model: agent.test() for model, agent in used.items()}
    for group in groups:
        start, own = time.perf_counter(), [of[cell.model] for cell in group]
        inputs = zip(*(latents[agent.cfg] for agent in own), strict=True)
        shown = [agent.shown(cell.battery) for agent, cell in zip(own, group, strict=True)]
        scenes = own[0].scenes(group[0].battery)[0]
        trained = curves.train(group, *map(list, inputs), shown, [tests[a.cfg] for a in own], agents[0].quiet)
        seconds = (time.perf_counter() - start) / len(group)
        for agent, cell, tables in zip(own, group, trained, strict=True):
            store.write(cell, seconds, tables, device=agent.device, population=len(group), battery=scenes.digest)
        done()


def train_extinctions(
    agents: list[Agent], cells: list[config.Extinction], done: Callable[[], None] = lambda: None
) -> None:
    """Train and store what is missing of extinction: on CUDA those of one length as one population."""
    store, of = agents[0].store, {agent.cfg: agent for agent in agents}
    groups = _populations(agents[0], cells, extinction.alike)
    used = {cell.heads.model: of[cell.heads.model] for group in groups for cell in group}
    latents = {model: agent.latents() for model, agent in used.items()}
    for group in groups:
        start, own = time.perf_counter(), [of[cell.heads.model] for cell in group]
        inputs = zip(*(latents[agent.cfg] for agent in own), strict=True)
        begin = [agent.heads(cell.heads) for agent, cell in zip(own, group, strict=True)]
        shown = [agent.shown(cell.battery) for agent, cell in zip(own, group, strict=True)]
        scenes = own[0].scenes(group[0].battery)[0]
        trained = extinction.train(group, begin, *map(list, inputs), shown, scenes, agents[0].quiet)
        seconds = (time.perf_counter() - start) / len(group)
        for agent, cell, (net, tables) in zip(own, group, trained, strict=True):
            notes = {"battery": scenes.digest, "split": extinction.split(cell, latents[agent.cfg][1])}
            store.write(cell, seconds, tables, net.state_dict(), agent.device, population=len(group), **notes)
        done()


def make(stage: config.Stage, store: Store) -> None:
    """Compute and store a result that needs no agent: a battery, its true returns, or simulated studies."""
    makers = {"battery": _make_battery, "returns": _make_returns}
    makers |= {"simulations": _make_simulations, "shapes": _make_shapes}
    makers[stage.stage](stage, store)


def _make_battery(battery: config.Battery, store: Store) -> None:
    start, scenes = time.perf_counter(), stimuli.make(battery)
    value = stimuli.true_returns(battery, scenes)[..., 0].contiguous()
    table = responses.truth(battery, value).assign(step=0)
    weights = {**scenes.tensors(), "value": value}
    store.write(battery, time.perf_counter() - start, {"responses": table}, weights, battery=scenes.digest)


def _make_returns(cfg: config.Returns, store: Store) -> None:
    if not store.has(cfg.battery.address, weights=True):
        _make_battery(cfg.battery, store)
    start, (scenes, _) = time.perf_counter(), battery_of(store.read(cfg.battery.address, weights=True))
    gains = {mover: stimuli.true_returns(cfg.battery, scenes, mover) for mover in stimuli.MOVERS}
    table, measures = responses.returns(cfg.battery, gains)
    tables = {"returns": table, "measures": measures}
    store.write(cfg, time.perf_counter() - start, tables, gains, battery=scenes.digest)


def _make_simulations(cfg: config.Simulations, store: Store) -> None:
    start, table = time.perf_counter(), simulations.run(cfg)
    store.write(cfg, time.perf_counter() - start, {"simulations": table})


def _make_shapes(cfg: config.Shapes, store: Store) -> None:
    start, table = time.perf_counter(), simulations.shapes(cfg)
    store.write(cfg, time.perf_counter() - start, {"shapes": table})


def make_outsider(cell: config.Outsider, store: Store) -> None:
    """Train, probe and store an agent of another library."""
    from . import outsiders

    scenes, value = battery_of(store.read(cell.battery.address, weights=True))
    start, model = time.perf_counter(), outsiders.train(cell)
    tables = outsiders.measure(cell, model, scenes, value)
    seconds = time.perf_counter() - start
    store.write(cell, seconds, tables, outsiders.weights(model), battery=scenes.digest)


def battery_of(result: Result) -> tuple[stimuli.Scenes, torch.Tensor]:
    tensors = dict(result.weights)
    value = tensors.pop("value")
    return stimuli.Scenes(**tensors), value


def model_of(cell: config.Stage) -> config.Model | None:
    """The world model that a stage stands on; None for outsiders, the battery and whatever else needs no agent."""
    if isinstance(cell, (*AGENTLESS, config.Outsider)):
        return None
    return cell.heads.model if isinstance(cell, config.Responses) else cell.model


def work(
    cells: list[config.Stage], runs: Path, data: Path, device: str, done: Callable[[], None] = lambda: None
) -> None:
    """One job: all missing cells of a population of world models.  Out of GPU memory, it is halved and goes on."""
    store = Store(runs, data)
    if isinstance(cells[0], config.Outsider):
        with one_thread():
            make_outsider(cells[0], store)
        return done()
    members = list(dict.fromkeys(map(model_of, cells)))
    agents = [Agent(model, store, device) for model in members]
    try:
        with one_thread(), torch.cuda.device(device) if device.startswith("cuda") else contextlib.nullcontext():
            train_models(agents, done)
            train_heads(agents, [c.heads for c in cells if isinstance(c, config.Responses)], done)
            train_joints(agents, [c for c in cells if isinstance(c, config.Joint)], done)
            train_extinctions(agents, [c for c in cells if isinstance(c, config.Extinction)], done)
            train_curves(agents, [c for c in cells if isinstance(c, config.Curve)], done)
            while agents:  # each agent's codes and scenes go with it
                agent = agents.pop(0)
                agent.release()
                for cell in cells:
                    if model_of(cell) == agent.cfg:
                        agent.fill(cell)
                        done()
        return
    except torch.OutOfMemoryError:
        if len(members) == 1:
            raise MemoryError(
                f"{device} has too little memory for a single agent of this size; use --device cpu"
            ) from None
    agents = agent = None
    gc.collect()
    torch.cuda.empty_cache()
    for half in (members[: len(members) // 2], members[len(members) // 2 :]):
        work([cell for cell in cells if model_of(cell) in half], runs, data, device, done)


def missing(cells: list[config.Stage], store: Store) -> list[config.Stage]:
    return [cell for cell in cells if not store.has(cell.address)]


def jobs(cells: list[config.Stage], population: int) -> list[list[config.Stage]]:
    """Cells that are computed together: those of up to `population` world models that differ in their seed alone.

    An outsider is a job of its own.
    """
    shapes: dict[str, dict[config.Stage, list[config.Stage]]] = {}
    for cell in cells:
        if (model := model_of(cell)) is not None:
            data = model.data.model_copy(update={"seed": 0})
            shape = model.model_copy(update={"data": data}).address
            shapes.setdefault(shape, {}).setdefault(model, []).append(cell)
        elif isinstance(cell, config.Outsider):
            shapes[cell.address] = {cell: [cell]}
    groups = [
        [cell for own in group for cell in own]
        for members in shapes.values()
        for group in batched(members.values(), population)
    ]
    order = {cell: i for i, cell in enumerate(cells)}
    return sorted(groups, key=lambda group: order[group[0]])  # seed by seed, as far as populations allow


def group_size(device: str) -> int:
    """World models that train as one: on a CPU a population of one per process is faster."""
    return POPULATION if device.startswith("cuda") else 1


def batched(items: Iterable, size: int) -> Iterator[tuple]:
    """Tuples of up to `size` successive items (`itertools.batched` of Python 3.12)."""
    rest = iter(items)
    while group := tuple(islice(rest, size)):
        yield group


def fill(
    cells: list[config.Stage],
    store: Store,
    workers: int = 1,
    device: str = "auto",
    executor: Executor | None = None,
    population: int | None = None,
) -> int:
    """Compute every cell that is neither published nor cached; returns how many there were.

    On a CPU one job per world model, on `workers` processes of one thread each (0: in this process); on CUDA one job
    per `population` of agents, one after the other in this process.  With an `executor` jobs are its own, and so is the
    device, which has to be named: `auto` is the CPU there.  Each result is stored the moment it is whole, so that a
    stopped study resumes where it was.
    """
    todo = missing(cells, store)
    device = resolve_device(device) if executor is None else device.replace("auto", "cpu")
    cuda = device.startswith("cuda")
    if todo:
        store.tidy()
    groups = jobs(todo, population or group_size(device))
    need = prerequisites(todo, store)
    bar = Progress(list(dict.fromkeys([*need, *stages(todo, store)])), store)
    with bar:
        with one_thread():
            for stage in need:
                make(stage, store)
                bar.update()
        if executor is None and (workers == 0 or cuda):
            for group in groups:
                work(group, store.runs, store.data, device, bar.update)
            return len(todo)
        pool, futures, others = executor or _processes(min(workers, max(1, len(groups)))), set(), active_children()
        try:
            futures = {pool.submit(work, group, store.runs, store.data, device) for group in groups}
            while futures:
                done, futures = wait(futures, timeout=1.0, return_when=FIRST_COMPLETED)
                bar.update()
                for future in done:
                    future.result()
        except BaseException:  # what is under way is given up: it could take minutes, and nothing finished is lost
            for future in futures:
                future.cancel()
            if executor is None:
                for process in set(active_children()) - set(others):  # the caller may have some of its own
                    process.terminate()
            raise
        finally:
            if executor is None:
                pool.shutdown(wait=True, cancel_futures=True)
    return len(todo)


def _processes(count: int) -> ProcessPoolExecutor:
    """Local processes; Ctrl-C is for the one that waits for them."""
    deaf = {"initializer": signal.signal, "initargs": (signal.SIGINT, signal.SIG_IGN)}
    return ProcessPoolExecutor(count, mp_context=get_context("spawn"), **deaf)


@contextlib.contextmanager
def cluster(address: str) -> Iterator[Executor]:
    """Workers of a running `distributed` scheduler, which see the same files.  Raises ValueError without the package,
    OSError where nobody answers."""
    try:
        from distributed import Client
    except ImportError:
        raise ValueError("--scheduler needs the package distributed: pip install 'vicarious[cluster]'") from None
    try:
        client = Client(address, timeout=10, set_as_default=False)
    except (OSError, ValueError) as error:
        raise OSError(f"no scheduler at {address}: start one with `dask scheduler` ({error})") from None
    with client, client.get_executor(retries=2) as executor:
        if not client.scheduler_info()["workers"]:
            raise ValueError(f"the scheduler at {address} has no workers: start some with `dask worker {address}`")
        yield executor


def prerequisites(todo: list[config.Stage], store: Store) -> list[config.Stage]:
    """What agents of these cells share and nobody has made yet, in order: batteries, their true returns, the rest."""
    shared: dict[str, config.Stage] = {}
    for cell in todo:
        found = [battery] if (battery := getattr(cell, "battery", None)) else []
        if isinstance(cell, config.Responses) and cell.heads.kappa:
            found.append(config.Returns(battery=cell.battery))
        if isinstance(cell, AGENTLESS):
            found.append(cell)
        shared |= {stage.address: stage for stage in found}
    order = {kind: i for i, kind in enumerate(AGENTLESS)}
    need = [
        s for s in shared.values() if not store.has(s.address, weights=isinstance(s, (config.Battery, config.Returns)))
    ]
    return sorted(need, key=lambda stage: order[type(stage)])


def stages(todo: list[config.Stage], store: Store) -> list[config.Stage]:
    """Everything that has to be computed for these cells, once: world models and heads included."""
    found: dict[str, config.Stage] = {}
    for cell in todo:
        for stage in (model_of(cell), getattr(cell, "heads", None), cell):
            if stage is not None and not store.has(stage.address, weights=stage is not cell):
                found[stage.address] = stage
    return list(found.values())


class Progress:
    """A bar over expected core-seconds of what is missing, so that its time left is worth reading."""

    def __init__(self, missing: list[config.Stage], store: Store):
        self.left, self.store = {stage: expected(stage) for stage in missing}, store
        self.bar = tqdm(
            total=round(sum(self.left.values())), desc=f"{len(missing)} results missing", unit="s", disable=None
        )

    def update(self) -> None:
        """Count what has been stored since."""
        for stage in [s for s in self.left if self.store.has(s.address, weights=isinstance(s, TRAINED))]:
            self.bar.update(round(self.left.pop(stage)))

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_) -> None:
        self.bar.close()


def expected(stage: config.Stage) -> float:
    """Core-seconds that a stage takes, roughly."""
    if isinstance(stage, config.Extinction):
        return UPDATE[stage.readout] * stage.updates
    if isinstance(stage, config.Outsider):
        return STEP[stage.algorithm] * stage.steps
    if isinstance(stage, config.Joint):
        return EXPECTED["joint"] * stage.model.updates / config.Model.model_fields["updates"].default
    if isinstance(stage, config.Curve):
        return EXPECTED["curve"] * stage.updates / config.Curve.model_fields["updates"].default
    if isinstance(stage, config.Heads):
        return EXPECTED["heads"] * (stage.updates + stage.reward_updates) / 12_000
    model = stage if isinstance(stage, config.Model) else model_of(stage)
    slower = SLOWER.get(model.family, 1.0) if model else 1.0
    if not isinstance(stage, config.Model):
        return EXPECTED[stage.stage] * slower * _share(stage)
    if not models.FAMILIES[stage.family].trained:
        return 1.0
    return EXPECTED["model"] * slower * (stage.stop or stage.updates) / config.Model.model_fields["updates"].default


def _share(stage: config.Stage) -> float:
    """How much there is of a stage that trains no agent, beside its default: scenes, rollouts, studies."""

    def share(part: config.Stage, *names: str) -> float:
        return math.prod(getattr(part, name) / type(part).model_fields[name].default for name in names)

    if isinstance(stage, config.Codes):
        return share(stage, "fit_scenes")
    if isinstance(stage, (config.Simulations, config.Shapes)):
        return share(stage, "studies")
    if isinstance(stage, config.Battery):
        return share(stage, "scenes", "rollouts")
    if isinstance(stage, config.Returns):
        return share(stage.battery, "scenes", "rollouts")
    return share(stage.battery, "scenes") if hasattr(stage, "battery") else 1.0
