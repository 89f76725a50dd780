"""`make gpu`: everything that CUDA does otherwise, seen on one device, in at most eight minutes.

Parts: whether members learn on CUDA what they learn on a CPU; speed, memory and share of the matrix ceiling by size of
the population; what too little memory does; whether a published agent's heads, trained anew there, predict what is
published; and in the time that is left what is missing of the paper, the largest sweep first.  A part that fails says
so and the others go on.  Writes gpu.json to the folder OUT (default _build/gpu), and the sweep's results as parts of
one archive: `cat sweep.tar.* | tar -x -C runs` adds them to the cache.  Without a CUDA device the same parts run on
the CPU, at the smallest sizes: the script is proven, no more.

Needs torch 2.11 or newer and what the library itself imports.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import platform
import signal
import statistics
import tarfile
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from vicarious import battery, config, episodes, execute, heads, models, pipeline, store, train, world
from vicarious.paper import audit, studies

START, LIMIT = time.perf_counter(), 480.0
CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
POPULATIONS = (1, 8, 64, 256) if CUDA else (1, 2)
UPDATES, ROUNDS = (100, 5) if CUDA else (3, 2)
AGREE = {"fp32": 2e-3, "bf16": 5e-2}  # of any weight after twenty updates: TF32 is off, sums have another order
MARGIN = 0.02  # of a predicted response that CUDA and the CPU read from the same weights
Row = dict[str, object]


def sync() -> None:
    if CUDA:
        torch.cuda.synchronize()


def seconds(run: Callable[[], object]) -> float:
    sync()
    start = time.perf_counter()
    run()
    sync()
    return time.perf_counter() - start


def members(count: int, **changed) -> list[config.Model]:
    """World models of `count` seeds."""
    return [config.Model(data=config.Episodes(seed=900 + i), **changed) for i in range(count)]


def largest_difference(one: torch.nn.Module, two: torch.nn.Module) -> float:
    pairs = zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    return max(float((a.cpu() - b.cpu()).abs().max()) for a, b in pairs)


@contextlib.contextmanager
def drawn_on_the_host() -> Iterator[None]:
    """Both devices learn from the same episodes, which generators of two devices would not give."""
    real, models.HELD_OUT = models.Feed._pool, 64

    def pool(self: models.Feed) -> list[torch.Tensor]:
        there, self.device, self.g = self.device, "cpu", world.generator(self.cfg.data.seed, "gpu")
        found = [x.to(there) for x in real(self)]
        self.device = there
        return found

    models.Feed._pool = pool
    try:
        yield
    finally:
        models.Feed._pool = real


def agreement() -> list[Row]:
    """Largest difference of any weight after twenty updates: alone and in a population of three, of every family."""
    rows = []
    for family in [name for name in models.FAMILIES if models.CONTROLS.get(name, models.WorldModel).learns]:
        for precision in AGREE:
            os.environ["VICARIOUS_PRECISION"] = precision
            seen = config.World(marked=family == "disjoint")
            data = [config.Episodes(seed=s, distinct=128, world=seen) for s in (900, 901, 902)]
            cfgs = [config.Model(data=d, family=family, updates=20, batch=16, rate=3e-3) for d in data]
            with drawn_on_the_host():
                host = models.train(cfgs, stacked=False)
                found = {"3 together": models.train(cfgs, DEVICE), "alone": models.train(cfgs[:1], DEVICE)}
            for name, there in found.items():
                pairs = list(zip(host, there, strict=False))
                worst = max(largest_difference(a, b) for (a, _), (b, _) in pairs)
                here = [models.evaluate(c, m.cpu()) for c, (m, _) in zip(cfgs, there, strict=False)]
                loss = max(
                    abs(x - y) / max(abs(x), 1e-9)
                    for ((_, a), _), b in zip(pairs, here, strict=True)
                    for x, y in zip(a.values(), b.values(), strict=True)
                )
                rows.append({"family": family, "precision": precision, "as": name, "weights": worst, "loss": loss})
                rows[-1]["ok"] = loss < AGREE[precision]
    os.environ["VICARIOUS_PRECISION"] = "auto"
    return rows


def ceiling() -> list[Row]:
    """The rate of a large matrix product."""
    n, rows = (8192 if CUDA else 512), []
    for dtype in (torch.bfloat16, torch.float32):
        a, b = (torch.randn(n, n, device=DEVICE, dtype=dtype) for _ in range(2))
        for _ in range(3):
            a @ b
        took = statistics.median(seconds(lambda a=a, b=b: [a @ b for _ in range(5)]) / 5 for _ in range(ROUNDS))
        rows.append({"product": f"{n} x {n} {dtype}".replace("torch.", ""), "tflops": 2 * n**3 / took / 1e12})
    return rows


def environment() -> list[Row]:
    """Steps of random actions with observation, by how many worlds are stepped at once."""
    rows, cfg = [], config.World()
    for count in (1024, 8192, 65536) if CUDA else (1024,):
        g, appearance = torch.Generator(DEVICE).manual_seed(0), world.appearance(cfg, 0, DEVICE)

        def run(count=count, g=g, appearance=appearance) -> None:
            state = world.reset(cfg, count, g)
            for _ in range(20):
                actions = torch.randint(len(world.ACTIONS), (count, 2), generator=g, device=DEVICE)
                state = world.step(state, actions, cfg, g)
                world.observe(state, cfg, appearance)

        run()
        took = statistics.median(seconds(run) for _ in range(ROUNDS))
        rows.append({"worlds": count, "steps_per_second": 20 * count / took})
    return rows


def per_update(fit: Callable[[int], object]) -> float:
    """Seconds of one update: of a longer training less a shorter one, so that set-up and capture are left out."""
    fit(5)
    short, long = (seconds(lambda n=n: fit(n)) for n in (5, 5 + UPDATES))
    return max(1e-9, (long - short) / UPDATES)


def world_models(peak: float) -> list[Row]:
    """Transitions learnt from a second, and the share of the ceiling, by family and population."""
    rows = []
    for family in studies.ENCODERS:
        for count in POPULATIONS:
            cfgs = members(count, family=family)
            if CUDA:
                torch.cuda.reset_peak_memory_stats()
            took = per_update(
                lambda n, cfgs=cfgs: models.train([c.model_copy(update={"updates": n}) for c in cfgs], DEVICE)
            )
            frames = count * cfgs[0].batch * cfgs[0].data.frames
            flops = 6 * multiplied(cfgs[0]) * count * cfgs[0].batch
            rows.append({"family": family, "population": count, "precision": train.precision(DEVICE)})
            rows[-1] |= {"transitions_per_second": frames / took, "ms_per_update": 1e3 * took}
            rows[-1] |= {"share_of_ceiling": flops / took / 1e12 / peak, "gib": memory()}
            gc.collect()
    return rows


def multiplied(cfg: config.Model) -> float:
    """Multiplications of one episode's forward pass: half of what its matrix products count as operations."""
    from torch.utils.flop_counter import FlopCounterMode

    model, data = models.build(cfg), episodes.collect(config.Episodes(seed=0), count=1)
    with FlopCounterMode(display=False) as counter:
        model.losses(data.obs, data.prev_action)
    return counter.get_total_flops() / 2


def memory() -> float:
    return torch.cuda.max_memory_allocated() / 2**30 if CUDA else float("nan")


def readouts() -> list[Row]:
    """Updates of both heads a second, for every member of a population; and scenes of the battery."""
    rows = []
    for count in POPULATIONS[:3]:
        cfgs = [config.Heads(model=model, episodes=1024, company=1.0) for model in members(count)]
        data = [episodes.collect(c.data, DEVICE) for c in cfgs]
        latents = [
            heads.Latents.of(models.encode(models.build(c.model).to(DEVICE), d.obs, d.prev_action))
            for c, d in zip(cfgs, data, strict=True)
        ]
        took = per_update(
            lambda n, cfgs=cfgs, data=data, latents=latents: heads.train(
                [c.model_copy(update={"updates": n, "reward_updates": n}) for c in cfgs], latents, data
            )
        )
        rows.append({"what": f"both heads, {count} agents", "per_second": count / took})
    shown = config.Battery(levels=7, scenes=128, rollouts=1)
    own = cfgs[0].model
    scenes, model = battery.make(shown).to(DEVICE), models.build(own).to(DEVICE)
    battery.encode(model, shown, scenes, own.data)
    took = statistics.median(seconds(lambda: battery.encode(model, shown, scenes, own.data)) for _ in range(ROUNDS))
    return [*rows, {"what": "batteries of 128 scenes encoded", "per_second": 1 / took}]


def scarcity() -> list[Row]:
    """A population that does not fit is halved until it does, and every result is stored."""
    if not CUDA:
        return [{"population": 0, "stored": 0, "ok": True, "note": "needs CUDA"}]
    total = torch.cuda.get_device_properties(0).total_memory
    gc.collect()
    torch.cuda.empty_cache()
    runs = [
        config.Model(data=config.Episodes(seed=900 + i), latent=512, width=2048, batch=256, updates=5)
        for i in range(16)
    ]
    halved, real = [], execute.work
    with tempfile.TemporaryDirectory() as cache:
        try:
            torch.cuda.set_per_process_memory_fraction(min(1.0, 3 * 2**30 / total))
            execute.work = lambda group, *rest: (halved.append(len(group)), real(group, *rest))[1]
            execute.work(runs, Path(cache), store.Store().data, DEVICE)
        finally:
            execute.work = real
            torch.cuda.set_per_process_memory_fraction(1.0)
        stored = sum(store.Store(Path(cache)).cached(run.address) for run in runs)
    return [
        {
            "population": len(runs),
            "populations tried": str(halved),
            "stored": stored,
            "ok": stored == len(runs) and len(halved) > 1,
        }
    ]


def published(count: int = 2) -> list[Row]:
    """Heads of published agents trained anew on CUDA, against what is published."""
    here, rows = store.Store(), []
    for run in audit.sample(studies.reference(), here, count if CUDA else 0, False, 0):
        found = audit.check(run, here, False, DEVICE)
        rows.append({"run": run.address, "largest": found.largest, "of the mean": found.difference})
        rows[-1]["ok"] = found.largest < audit.SINGLE and abs(found.difference) < audit.MARGIN
    return rows


def sweep(out: Path) -> list[Row]:
    """What is missing of the paper, as one population of seeds after the other, the largest first, until the time is
    up; on a CPU a whole small study instead."""
    published = store.Store().data
    rows, groups = [], {}
    with tempfile.TemporaryDirectory() as cache:
        at = store.Store(Path(cache), published if CUDA else Path(cache) / "nothing")
        wanted = studies.everything("paper") if CUDA else studies.reference("quick", 1)
        for run in pipeline.missing(wanted, store.Store() if CUDA else at):
            if (model := run.find(config.Model)) is not None:
                groups.setdefault(pipeline.model_key(model), []).append(run)
        with stopped_after(LIMIT - (time.perf_counter() - START)) as clock:
            for group in sorted(groups.values(), key=len, reverse=True):
                model, start = group[0].find(config.Model), time.perf_counter()
                about = {"family": model.family, "trained_on": model.trained_on, "runs": len(group)}
                with contextlib.suppress(TimeoutError):
                    execute.fill(group, at, 0, DEVICE)
                left = len(pipeline.missing(group, at))
                rows.append(
                    {**about, "seconds": time.perf_counter() - start, "missing": left, "ok": clock.up or not left}
                )
                if clock.up:
                    break
        packed = pack(Path(cache), out)
    return [*rows, {"family": f"{packed:.1f} MB packed"}]


class Clock:
    up = False


@contextlib.contextmanager
def stopped_after(limit: float) -> Iterator[Clock]:
    """Raises TimeoutError within the block when so many seconds are over, once."""
    clock = Clock()

    def stop(*_: object) -> None:
        clock.up = True
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(1.0, limit))
    try:
        yield clock
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def pack(cache: Path, out: Path, part: int = 15_000_000, most: int = 7) -> float:
    """Write whole results of a cache to sweep.tar.00, .01, ... in `out`, as many as fit; returns MB."""
    whole, size = io.BytesIO(), 0
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for folder in sorted(cache.glob("[!.]*")):
            size += sum(path.stat().st_size for path in folder.iterdir()) + 8_192
            if size < part * most:
                archive.add(folder, folder.name)
    data = whole.getvalue()
    for number, start in enumerate(range(0, len(data), part)):
        (out / f"sweep.tar.{number:02}").write_bytes(data[start : start + part])
    return len(data) / 1e6


def table(rows: Sequence[Row]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = lambda v: f"{v:.4g}" if isinstance(v, float) else str(v)  # noqa: E731
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(text(row.get(c, "")) for c in columns) + " |" for row in rows)])


def main() -> int:
    out = Path(os.environ.get("OUT") or "_build/gpu")
    out.mkdir(parents=True, exist_ok=True)
    torch.backends.cuda.matmul.allow_tf32 = False
    about = {
        "device": torch.cuda.get_device_name() if CUDA else f"cpu {platform.machine()}",
        "torch": torch.__version__,
    }
    print(about, flush=True)
    found: dict[str, object] = {"about": about}
    peak = 1.0
    parts: dict[str, Callable[[], list[Row]]] = {
        "ceiling": ceiling,
        "agreement": agreement,
        "world models": lambda: world_models(peak),
        "heads and battery": readouts,
        "too little memory": scarcity,
        "published agents": published,
        "environment": environment,
        "what is missing": lambda: sweep(out),
    }
    failed = []
    for name, part in parts.items():
        if (spent := time.perf_counter() - START) > LIMIT:
            failed.append(f"{name}: not run, {spent:.0f} s were spent")
            continue
        start = time.perf_counter()
        try:
            rows = part()
        except Exception as error:
            traceback.print_exc()
            rows = [{"failed": f"{type(error).__name__}: {str(error)[:300]}", "ok": False}]
        if name == "ceiling" and "tflops" in rows[0]:
            peak = rows[0]["tflops"]
        found[name] = rows
        if not all(row.get("ok", True) for row in rows):
            failed.append(name)
        print(f"\n## {name} ({time.perf_counter() - start:.0f} s)\n\n{table(rows)}", flush=True)
        (out / "gpu.json").write_text(json.dumps(found, indent=1, default=str) + "\n")
    print(f"\n{time.perf_counter() - START:.0f} s; " + ("; ".join(failed) if failed else "all parts as they should be"))
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
