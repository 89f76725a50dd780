"""Computing what is missing of many runs: on local processes, on a GPU, or on the workers of a scheduler; and how long
it will take, by what the published results took."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, ProcessPoolExecutor, wait
from functools import cached_property
from itertools import islice
from multiprocessing import active_children, get_context
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from . import config, models
from .config import Stage
from .pipeline import STAGES, Workspace, missing, model_key, needed
from .store import Store, commit
from .train import one_thread

POPULATION = 64  # agents that train as one on CUDA
EVERY = 30.0  # seconds between lines of progress where there is no terminal
TIMED = 30  # updates of a small world model by which this machine's pace is measured


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


def _owner(run: Stage) -> Stage | None:
    """What its job is about: its world model, or itself where it has none; None for what many jobs read."""
    return run.find(config.Model) or (None if run.shared else run)


def work(runs: list[Stage], cache: Path, data: Path, device: str, done: Callable[[], None] = lambda: None) -> None:
    """One job: all missing runs of a population of world models.  Out of GPU memory, it is halved and goes on."""
    try:
        return Workspace(Store(cache, data), device).produce(runs, done)
    except torch.OutOfMemoryError:
        members = list(dict.fromkeys(map(_owner, runs)))
        if len(members) == 1:
            raise MemoryError(
                f"{device} has too little memory for a single agent of this size; use --device cpu"
            ) from None
    gc.collect()
    torch.cuda.empty_cache()
    for half in (members[: len(members) // 2], members[len(members) // 2 :]):
        work([run for run in runs if _owner(run) in half], cache, data, device, done)


def jobs(runs: list[Stage], population: int) -> list[list[Stage]]:
    """Runs that are computed together: those of up to `population` world models that differ in their seed alone.

    What has no world model is a job of its own.
    """
    shapes: dict[str, dict[Stage, list[Stage]]] = {}
    for run in runs:
        if (owner := _owner(run)) is not None:
            shape = model_key(owner) if owner is not run else owner.address
            shapes.setdefault(shape, {}).setdefault(owner, []).append(run)
    groups = [
        [run for own in group for run in own]
        for members in shapes.values()
        for group in batched(members.values(), population)
    ]
    order = {run: i for i, run in enumerate(runs)}
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
    runs: list[Stage],
    store: Store,
    workers: int = 1,
    device: str = "auto",
    executor: Executor | None = None,
    population: int | None = None,
    alive: Callable[[], None] | None = None,
) -> int:
    """Compute every run that is neither published nor cached; returns how many there were.

    On a CPU one job per world model, on `workers` processes of one thread each (0: in this process); on CUDA one job
    per `population` of agents, one after the other in this process.  With an `executor` jobs are its own, and so is the
    device, which has to be named: `auto` is the CPU there; `alive` is called every second, and raises where nobody
    works any more.  Each result is stored the moment it is whole, so that a stopped study resumes where it was.

    Raises OSError where an executor's workers have stored their results elsewhere.
    """
    todo = missing(runs, store)
    device = resolve_device(device) if executor is None else device.replace("auto", "cpu")
    cuda = device.startswith("cuda")
    if not todo:
        return 0
    store.tidy()
    stages = needed(todo, store)
    groups = jobs(todo, population or group_size(device))
    with Progress(stages, store, 0 if executor or cuda else max(1, min(workers, len(groups)))) as bar:
        shared = [stage for stage in stages if _owner(stage) is None]
        Workspace(store).produce(shared, bar.update)  # what agents share, before any of them
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
                if alive:
                    alive()
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
    if lost := missing(todo, store):
        raise OSError(f"{len(lost)} results were computed, but are not in {store.runs}: all workers have to see it")
    return len(todo)


def _processes(count: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_begin)


def _begin() -> None:
    """Ctrl-C is for the one that waits for this process, and what it shares with others would outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tqdm.set_lock(threading.RLock())


@contextlib.contextmanager
def cluster(address: str, runs: Path) -> Iterator[tuple[Executor, Callable[[], None]]]:
    """Workers of a running `distributed` scheduler, and what raises once there are none left.

    Every one is asked first whether it has this package and sees the folder `runs`.  Raises ValueError where one does
    not, or without the package `distributed`; OSError where nobody answers.
    """
    try:
        from distributed import Client
    except ImportError:
        raise ValueError("--scheduler needs the package distributed: pip install 'vicarious[cluster]'") from None
    try:
        client = Client(address, timeout=10, set_as_default=False)
    except (OSError, ValueError) as error:
        raise OSError(f"no scheduler at {address}: start one with `dask scheduler` ({error})") from None

    def alive() -> None:
        if not client.nthreads():
            raise ValueError(f"the scheduler at {address} has no workers: start some, `dask worker {address}`")

    with client:
        alive()
        runs.mkdir(parents=True, exist_ok=True)
        try:
            lacks = {worker: found for worker, found in client.run(_lacking, str(runs), commit()).items() if found}
        except Exception as error:  # as it is where this package cannot be imported
            lacks = {"one of them": f"{type(error).__name__}: {error}"}
        for worker, lack in lacks.items():
            raise ValueError(f"not all workers of {address} can work: {worker}: {lack}")
        with client.get_executor(retries=2) as executor:
            yield executor, alive


def _lacking(runs: str, code: str) -> str | None:
    """On a worker: what it lacks."""
    if commit() != code:
        return f"it has the code of commit {commit()}, not of {code}"
    return None if os.access(runs, os.W_OK) else f"it cannot write to {runs}"


def lasting(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds < 120 else f"{seconds / 60:,.0f} min"


def counted(processes: int) -> str:
    return f"{processes} process" + "es" * (processes > 1)


class Progress:
    """How much of what is missing is done, by expected core-seconds: a bar on a terminal, else lines now and then.

    processes: that share the work; 0 where it is for others, or for a GPU.
    """

    def __init__(self, stages: list[Stage], store: Store, processes: int = 1):
        costs = Costs(store)
        self.left, self.store, self.processes = {stage: costs.expected(stage) for stage in stages}, store, processes
        self.count, self.expected, self.start = len(stages), sum(self.left.values()), time.perf_counter()
        self.bar = tqdm(total=round(self.expected), desc="trained", unit="s", disable=not sys.stderr.isatty())
        self._over = threading.Event()
        self._lines = threading.Thread(target=self._report, daemon=True)

    def update(self) -> None:
        """Count what has been stored since."""
        for stage in [s for s in self.left if self.store.cached(s.address)]:
            self.bar.update(round(self.left.pop(stage)))

    def line(self) -> str:
        """What is done, and the time that is left at the pace so far, half of what is under way counted as done."""
        spent, left, processes = time.perf_counter() - self.start, sum(self.left.values()), max(1, self.processes)
        done = self.expected - left + sum(islice(self.left.values(), processes)) / 2
        rate = spent / done if left < self.expected else 1 / processes
        return f"{self.count - len(self.left):,} of {self.count:,} results, about {lasting(rate * left)} left"

    def _report(self) -> None:
        while not self._over.wait(EVERY):
            print(self.line(), file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        where = f"{counted(self.processes)} here" if self.processes else "one core"
        lasts = f"about {lasting(self.expected / max(1, self.processes))} on {where}"
        print(f"{self.count:,} results are missing, {self.expected:,.0f} core-seconds: {lasts}", file=sys.stderr)
        if self.bar.disable:
            self._lines.start()
        return self

    def __exit__(self, *_) -> None:
        self._over.set()
        self.bar.close()


def family(stage: Stage) -> str:
    """What the cost of a stage depends on beside its extent: the family of its world model, or its algorithm."""
    model = stage.find(config.Model)
    if model is None:
        return getattr(stage, "algorithm", "")
    return model.family + (f", {model.trained_on}" if model.trained_on != "world" else "")


class Costs:
    """What a result costs: by what the published ones cost, as their manifests keep it, and this machine's pace."""

    def __init__(self, store: Store):
        self.store = store

    @cached_property
    def rates(self) -> dict[tuple[str, ...], float]:
        """Median seconds per unit of extent, by stage and family, and by stage alone, of what was made on CPUs."""
        found: dict[tuple[str, ...], list[float]] = {}
        for address, made in self.store.published["results"].items():
            if made["device"].startswith("cpu") and made["stage"] in STAGES:
                stage = config.STAGES[made["stage"]].from_columns(self.store.manifest(address)[0]["config"])
                rate = made["seconds"] / STAGES[stage.stage].extent(stage)
                for key in ((stage.stage, family(stage)), (stage.stage,)):
                    found.setdefault(key, []).append(rate)
        return {key: float(pd.Series(rates).median()) for key, rates in found.items()}

    def expected(self, stage: Stage) -> float:
        """Core-seconds that a stage takes where the published ones were made; 1 where nothing like it is published."""
        rate = self.rates.get((stage.stage, family(stage)), self.rates.get((stage.stage,)))
        return 1.0 if rate is None else max(0.1, rate * STAGES[stage.stage].extent(stage))

    @cached_property
    def pace(self) -> float:
        """How many times longer one core of this machine takes, by a second of training."""
        data, seconds = config.Episodes(seed=0), []
        with one_thread():
            for updates in (5, 5, 5 + TIMED):  # the first warms up
                start = time.perf_counter()
                models.train([config.Model(data=data, updates=updates)])
                seconds.append(time.perf_counter() - start)
        usual = self.expected(config.Model(data=data, updates=TIMED))
        return (seconds[2] - seconds[1]) / usual if self.rates else 1.0

    def plan(self, stages: list[Stage]) -> pd.DataFrame:
        """Stages by kind: stage, family, missing, each and all (core-seconds on this machine)."""
        rows = [(stage.stage, family(stage), self.pace * self.expected(stage)) for stage in stages]
        by = pd.DataFrame(rows, columns=["stage", "family", "seconds"]).groupby(["stage", "family"], sort=False)
        return by.seconds.agg(missing="count", each="mean", all="sum").reset_index()
