"""`make bench`: this laboratory beside its peers, in one run on one machine.

Contenders of a group take turns, round after round, so that a machine that slows down slows them all; a ratio is the
median over rounds of the ratio within a round.  Writes book/bench.json, which a page of the book shows.  Exits with 1
and names the peer where one could not be run, and then leaves the table as it was.  `bench.py since COMMIT` adds what
readers wait for, at that commit and now.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import nn

from vicarious import config, episodes, execute, heads, models, pipeline, store, train, world
from vicarious.models.base import Recurrent
from vicarious.paper import book, site, studies

ROOT = Path(__file__).resolve().parents[1]
CORES = os.cpu_count() or 1
ROUNDS, ROUND_SECONDS = 5, 1.0
BATCH, FRAMES = config.Model.model_fields["batch"].default, config.Episodes.model_fields["frames"].default
SIZES = {"agents": 2, "scenes": 128, "levels": 6, "companies": 2}  # of the study that is made to grow
ALONE = ("world model", "heads")  # groups that run on one thread, as a study trains: one process a core
Run = Callable[[], float]  # does some work, returns how much


@dataclass(frozen=True)
class Contender:
    """One row: `make()` prepares and returns a `Run`; `package` names a peer."""

    group: str
    name: str
    unit: str
    make: Callable[[], Run]
    package: str | None = None


# environments: random actions, observation, automatic reset


def chambers(batch: int = 8192) -> Run:
    """As many worlds on each core, every core with random numbers of its own."""
    cfg, appearance = config.World(), world.appearance(config.World(), 0)
    pool = ThreadPoolExecutor(CORES)

    def roll(g: torch.Generator) -> None:
        with train.one_thread():
            state = world.reset(cfg, batch, g)
            world.observe(state, cfg, appearance)
            for _ in range(FRAMES):
                actions = torch.randint(len(world.ACTIONS), (batch, 2), generator=g)
                state = world.step(state, actions, cfg, g)
                world.observe(state, cfg, appearance)

    generators = [world.generator(core, "bench") for core in range(CORES)]

    def run() -> float:
        list(pool.map(roll, generators))
        return batch * FRAMES * CORES

    return run


def overcooked(batch: int) -> Run:
    import jax
    import jaxmarl

    env = jaxmarl.make("overcooked")

    def one(carry, key):
        state, total = carry
        keys = jax.random.split(key, 1 + env.num_agents)
        spaces = zip(env.agents, keys[1:], strict=True)
        actions = {agent: env.action_space(agent).sample(k) for agent, k in spaces}
        obs, state, *_ = env.step(keys[0], state, actions)  # resets itself
        return (state, total + sum(o.sum() for o in obs.values())), None

    @jax.jit
    def rollout(key):
        first, rest = jax.random.split(key)
        _, state = env.reset(first)
        return jax.lax.scan(one, (state, 0.0), jax.random.split(rest, 100))[0][1]

    many = jax.jit(jax.vmap(rollout))
    keys = jax.random.split(jax.random.PRNGKey(0), batch)
    many(keys).block_until_ready()

    def run() -> float:
        many(keys).block_until_ready()
        return batch * 100

    return run


def _python_environment(name: str, package: str, steps: int) -> float:
    """Steps of one gymnasium environment in this process; returns seconds."""
    import gymnasium

    importlib.import_module(package)
    env = gymnasium.make(name, disable_env_checker=True)
    env.reset(seed=0)
    start = time.perf_counter()
    for _ in range(steps):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if np.any(terminated) or np.any(truncated):
            env.reset()
    return time.perf_counter() - start


def gymnasium_environment(name: str, package: str, steps: int, processes: int) -> Run:
    """Python processes that step an environment each."""
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))

    def run(steps: int = steps) -> float:
        list(pool.map(_python_environment, [name] * processes, [package] * processes, [steps] * processes))
        return steps * processes

    run(50)
    return run


# world models: whole updates of the paper's batches, from data in memory


class States(nn.GRU):
    """`nn.GRU` that returns its states alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x)[0]


def corpus() -> episodes.Batch:
    return episodes.collect(config.Episodes(seed=900), count=2048)


def recipe(family: str, seed: int = 900) -> config.Model:
    """A family's world model as the paper trains it."""
    return studies.Build(studies.PROFILES["paper"]).model(seed, family)


def world_model(
    family: str, precision: str = "auto", members: int = 1, stacked: bool = False, updates: int = 60
) -> Run:
    data = corpus()
    cfgs = [recipe(family, 900 + i) for i in range(members)]
    g = torch.Generator().manual_seed(0)
    index = torch.randint(len(data), (updates, members, BATCH), generator=g)

    def run() -> float:
        os.environ["VICARIOUS_PRECISION"] = precision
        nets = [models.build(cfg) for cfg in cfgs]
        train.fit(
            nets,
            lambda model, obs, prev_action: sum(model.losses(obs, prev_action).values()).mean(),
            lambda rows: ([data.obs[r] for r in rows], [data.prev_action[r] for r in rows]),
            index,
            cfgs[0].rate,
            cfgs[0].weight_decay,
            stacked=stacked,
        )
        return members * updates * BATCH * FRAMES

    return run


def plain_loop(net: nn.Module, loss: Callable[[torch.Tensor], torch.Tensor], count: int, amp: bool = False) -> Run:
    """The usual loop of PyTorch: zero the gradients, forward, backward, clip, AdamW, schedule."""
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda _: 1.0)

    def run() -> float:
        for _ in range(20):
            with torch.autocast("cpu", torch.bfloat16, enabled=amp):
                value = loss(torch.randint(count, (BATCH,)))
            optimiser.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            schedule.step()
        return 20 * BATCH * FRAMES

    return run


def plain_gru(amp: bool) -> Run:
    data, cfg = corpus(), recipe("flat/gru")
    net = Recurrent(cfg, world.features(cfg.data.world))
    net.cell = States(cfg.latent + models.base.CODED, cfg.latent, batch_first=True)
    return plain_loop(
        net, lambda rows: sum(net.losses(data.obs[rows], data.prev_action[rows]).values()).mean(), len(data), amp
    )


def dreamer() -> Run:
    """TorchRL's DreamerV3 world-model loss over an RSSM of about as many weights as the reference model."""
    from tensordict import TensorDict
    from tensordict.nn import TensorDictModule, TensorDictSequential
    from torchrl.modules import SymExpTwoHot
    from torchrl.modules.models.model_based import RSSMPosteriorV3, RSSMPriorV3, RSSMRolloutV3
    from torchrl.objectives import DreamerV3ModelLoss

    data, actions, belief, kinds, classes, bins = corpus(), len(world.ACTIONS), 128, 8, 8, 255
    features, code = data.obs.shape[-1], belief + kinds * classes
    mlp = lambda a, b, c: nn.Sequential(nn.Linear(a, b), nn.SiLU(), nn.Linear(b, c))  # noqa: E731
    joined = lambda net: _Joined(net)  # noqa: E731
    prior = TensorDictModule(
        RSSMPriorV3(
            action_shape=torch.Size([actions]),
            hidden_dim=128,
            rnn_hidden_dim=belief,
            num_categoricals=kinds,
            num_classes=classes,
            action_dim=actions,
        ),
        in_keys=["state", "belief", "action"],
        out_keys=[("next", "prior_logits"), ("next", "state"), ("next", "belief")],
    )
    posterior = TensorDictModule(
        RSSMPosteriorV3(
            hidden_dim=128, num_categoricals=kinds, num_classes=classes, rnn_hidden_dim=belief, obs_embed_dim=128
        ),
        in_keys=[("next", "belief"), ("next", "encoded_latents")],
        out_keys=[("next", "posterior_logits"), ("next", "state")],
    )
    here = [("next", "state"), ("next", "belief")]
    net = TensorDictSequential(
        TensorDictModule(mlp(features, 256, 128), [("next", "observation")], [("next", "encoded_latents")]),
        RSSMRolloutV3(prior, posterior),
        TensorDictModule(joined(mlp(code, 256, features)), here, [("next", "reconstruction")]),
        TensorDictModule(joined(nn.Linear(code, bins)), here, [("next", "reward_logits")]),
        TensorDictModule(SymExpTwoHot(bins), [("next", "reward_logits")], [("next", "reward")]),
    )
    objective = DreamerV3ModelLoss(net, num_reward_bins=bins)
    objective.set_keys(pixels="observation", reco_pixels="reconstruction")
    reward = world.reward(data.contact, config.World()).unsqueeze(-1)
    taken = nn.functional.one_hot(data.prev_action, actions + 1)[..., 1:].float()

    def loss(rows: torch.Tensor) -> torch.Tensor:
        batch = TensorDict(
            {
                "state": torch.zeros(BATCH, FRAMES, kinds * classes),
                "belief": torch.zeros(BATCH, FRAMES, belief),
                "action": taken[rows],
                "next": {"observation": data.obs[rows], "reward": reward[rows]},
            },
            [BATCH, FRAMES],
        )
        return sum(value.sum() for value in objective(batch)[0].values())

    loss(torch.arange(BATCH))
    return plain_loop(net, loss, len(data))


class _Joined(nn.Module):
    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, *parts: torch.Tensor) -> torch.Tensor:
        return self.net(torch.cat(parts, -1))


def products(net: nn.Module, forward: Callable[[], torch.Tensor], dtype: torch.dtype) -> Run:
    """The floor: every matrix product of an update (forward, gradient of weights, gradient of inputs) and nothing else.

    forward: calls the network once and returns what is minimised; which layer multiplies how many rows, how often, and
    whether anything is learnt beneath it, is seen there.
    """
    seen: dict[nn.Linear, list[tuple[int, bool]]] = {}

    def note(layer: nn.Linear, inputs: tuple[torch.Tensor, ...]) -> None:
        seen.setdefault(layer, []).append((inputs[0].numel() // layer.in_features, inputs[0].requires_grad))

    hooks = [m.register_forward_pre_hook(note) for m in net.modules() if isinstance(m, nn.Linear)]
    forward()
    for hook in hooks:
        hook.remove()
    work = []
    for layer, calls in seen.items():
        n = sum(rows for rows, _ in calls)
        x, g = (torch.randn(n, k).to(dtype) for k in (layer.in_features, layer.out_features))
        work.append((x, layer.weight.detach().to(dtype), g, len(calls), sum(learnt for _, learnt in calls)))

    def run() -> float:
        for x, w, g, portions, inward in work:
            for part in x.chunk(portions):
                torch.mm(part, w.t())
            torch.mm(g.t(), x)
            for part in g.chunk(portions)[:inward]:
                torch.mm(part, w)
        return BATCH * FRAMES

    return run


def model_floor(family: str, dtype: torch.dtype) -> Run:
    net, data = models.build(recipe(family)), corpus()[:BATCH]
    return products(net, lambda: sum(net.losses(data.obs, data.prev_action).values()).mean(), dtype)


# heads: frames that a pair of heads learns from per second


def pairs(company: tuple[float, ...], stacked: bool, precision: str = "auto", updates: int = 60) -> Run:
    data = corpus()
    raw = torch.randn(len(data), FRAMES, 128)
    model, sizes = config.Model(data=config.Episodes(seed=900)), {"updates": updates, "reward_updates": updates}
    cfgs = [config.Heads(model=model, company=p, episodes=len(data), batch=BATCH, **sizes) for p in company]
    os.environ["VICARIOUS_PRECISION"] = precision
    z = heads.Latents.of(raw)

    def run() -> float:
        os.environ["VICARIOUS_PRECISION"] = precision
        heads.train(cfgs, [z] * len(cfgs), [data] * len(cfgs), stacked=stacked)
        return len(cfgs) * updates * BATCH * FRAMES

    return run


def heads_floor(dtype: torch.dtype) -> Run:
    net = heads.HeadPair(128, 128, 2).nets
    z = torch.randn(BATCH * FRAMES, 128)
    one = [products(net[name], lambda name=name: net[name](z).sum(), dtype) for name in heads.READOUTS]

    def run() -> float:
        return max(each() for each in one)

    return run


CONTENDERS = [
    Contender("environment", "glass chambers", "steps/s", chambers),
    *(
        Contender("environment", f"JaxMARL Overcooked, {n} at once", "steps/s", lambda n=n: overcooked(n), "jaxmarl")
        for n in (64, 1024)
    ),
    *(
        Contender(
            "environment",
            f"{package}, {n} process{'es' if n > 1 else ''}",
            "steps/s",
            lambda name=name, package=package, n=n: gymnasium_environment(name, package, 4000, n),
            package,
        )
        for package, name in (
            ("lbforaging", "Foraging-8x8-2p-3f-v3"),
            ("minigrid", "MiniGrid-Dynamic-Obstacles-6x6-v0"),
        )
        for n in (1, CORES)
    ),
    *(
        Contender("world model", name, "transitions/s", make)
        for family in studies.ENCODERS
        for name, make in (
            (family, lambda family=family: world_model(family)),
            (f"{family}, float32", lambda family=family: world_model(family, "fp32")),
            (f"{family}, 4 stacked", lambda family=family: world_model(family, members=4, stacked=True, updates=30)),
            (f"{family}: its matrix products, float32", lambda family=family: model_floor(family, torch.float32)),
            (f"{family}: its matrix products, bfloat16", lambda family=family: model_floor(family, torch.bfloat16)),
        )
    ),
    Contender("world model", "nn.GRU, float32", "transitions/s", lambda: plain_gru(False), "torch"),
    Contender("world model", "nn.GRU, bfloat16 autocast", "transitions/s", lambda: plain_gru(True), "torch"),
    Contender("world model", "TorchRL DreamerV3 model loss", "transitions/s", dreamer, "torchrl"),
    Contender("heads", "3 companies as one population", "frames/s", lambda: pairs((0.0, 0.1, 1.0), False)),
    Contender("heads", "one company alone", "frames/s", lambda: pairs((0.0,), False)),
    Contender("heads", "3 companies, stacked", "frames/s", lambda: pairs((0.0, 0.1, 1.0), True)),
    Contender("heads", "3 companies, float32", "frames/s", lambda: pairs((0.0, 0.1, 1.0), False, "fp32")),
    Contender("heads", "their matrix products, float32", "frames/s", lambda: heads_floor(torch.float32)),
    Contender("heads", "their matrix products, bfloat16", "frames/s", lambda: heads_floor(torch.bfloat16)),
]

# (this row, compared with that row, at least): the bars that were set beforehand
BARS = [
    ("glass chambers", "JaxMARL Overcooked, 64 at once", 3.0),
    ("glass chambers", "JaxMARL Overcooked, 1024 at once", 3.0),
    ("glass chambers", "lbforaging, 1 process", 150.0),
    ("flat/gru", "nn.GRU, float32", 1.3),
    ("flat/gru, float32", "nn.GRU, float32", 1.3),
    *(
        (name, f"cells/gru: its matrix products, {dtype}", 1 / 1.6)
        for name, dtype in (("cells/gru, float32", "float32"), ("cells/gru", "float32"), ("cells/gru", "bfloat16"))
    ),
]


def race(
    contenders: list[Contender], keep: Callable[[dict[str, list[float]]], None] = lambda rates: None
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Rates {name: one per round}, contenders taking turns, and the reasons {name: why} of those that could not run.

    keep: given the rates so far after every round.
    """
    runs, repeats, rates, failed = {}, {}, {c.name: [] for c in contenders}, {}
    for c in contenders:
        try:
            runs[c.name] = run = c.make()
            run()
            start = time.perf_counter()
            work = run()
            took = time.perf_counter() - start
        except Exception as error:
            if c.package is None:
                raise
            failed[c.name] = f"{type(error).__name__}: {error}".splitlines()[0]
            continue
        repeats[c.name] = max(1, round(ROUND_SECONDS / took))
        print(f"{c.group}: {c.name}, warm: {work / took:,.1f} {c.unit}", flush=True)
    for number in range(ROUNDS):
        for name, run in runs.items():
            start = time.perf_counter()
            work = sum(run() for _ in range(repeats[name]))
            rates[name].append(work / (time.perf_counter() - start))
        print(f"{contenders[0].group}: round {number + 1} of {ROUNDS}", flush=True)
        keep({name: r for name, r in rates.items() if r})
    return {name: r for name, r in rates.items() if r}, failed


def one_more() -> list[config.Stage]:
    """The runs of the first seed that is not published: both encoders in every company."""
    planned = studies.PROFILES["paper"].seeds
    runs = studies.reference("paper", planned + 1, company=studies.COMPANY)
    return [run for run in runs if (data := run.find(config.Episodes)) and data.seed == studies.FIRST + planned]


def agent(folder: Path) -> None:
    """One more seed of the paper, in a process of its own."""
    execute.fill(one_more(), store.Store(folder / "runs"), workers=CORES, device="cpu")


def memory(pid: int) -> float:
    """Proportional resident memory of a process and its descendants, GB (Linux)."""
    children, total = Path(f"/proc/{pid}/task/{pid}/children"), 0.0
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total = sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1e6
        return total + sum(memory(int(child)) for child in children.read_text().split())
    except OSError:
        return total


def one_seed() -> list[dict]:
    """Seconds of every stage of one more seed, of all of them together, and the peak of memory."""
    environment = {k: v for k, v in os.environ.items() if k != "VICARIOUS_PRECISION"}
    with tempfile.TemporaryDirectory() as folder:
        start, peak = time.perf_counter(), 0.0
        command = [sys.executable, __file__, "--agent", folder]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment) as process:
            while process.poll() is None:
                peak = max(peak, memory(process.pid))
                time.sleep(0.5)
        seconds = time.perf_counter() - start
        if process.returncode:
            raise RuntimeError("the reference study of one more seed failed")
        rows, at = [], store.Store(Path(folder) / "runs")
        taken: dict[str, float] = {}
        for stage in site.with_agents(one_more()):
            model = stage.find(config.Model) if not isinstance(stage, config.Model) else stage
            name = " on ".join([stage.stage, model.family]) if model else stage.stage
            taken[name] = taken.get(name, 0.0) + at.read(stage.address).manifest["seconds"]
    rows = [{"name": name, "unit": "core-seconds", "median": s} for name, s in taken.items() if s >= 0.1]
    rows.append({"name": f"one more seed, both encoders, {CORES} processes", "unit": "seconds", "median": seconds})
    rows.append({"name": "peak memory of that", "unit": "GB", "median": peak, "bar": 4.0, "met": peak < 4.0})
    return [{"group": "the study", **row} for row in rows]


def grown(folder: Path, sizes: dict[str, int]) -> dict:
    """What a small study of such sizes takes, from nothing: seconds, GB of memory at most, MB and files stored."""
    sets = config.Battery(scenes=sizes["scenes"], levels=sizes["levels"], rollouts=32)
    small = {"episodes": 2048, "updates": 100, "reward_updates": 100}
    world_models = [config.Model(data=config.Episodes(seed=900 + i), updates=100) for i in range(sizes["agents"])]
    raised = [
        config.Heads(model=model, company=float(p), **small)
        for model in world_models
        for p in np.linspace(0, 1, sizes["companies"])
    ]
    start = time.perf_counter()
    runs = [config.Responses(heads=head, battery=sets) for head in raised]
    pipeline.Workspace(store.Store(folder / "runs", folder / "none")).produce(runs)
    seconds = time.perf_counter() - start
    files = [path for path in (folder / "runs").rglob("*") if path.is_file()]
    taken = {"seconds": seconds, "GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}
    return taken | {"MB": sum(path.stat().st_size for path in files) / 1e6, "files": len(files)}


def growth() -> list[dict]:
    """What a study takes with so many agents, scenes, levels or companies, and with twice and four times as many."""
    found = []
    for axis, times in [("", 1), *((axis, times) for axis in SIZES for times in (2, 4))]:
        sizes = {name: count * (times if name == axis else 1) for name, count in SIZES.items()}
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-W", "ignore", __file__, "--grown", folder, json.dumps(sizes)]
            told = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
        found.append({"axis": axis, "times": times, **sizes, **json.loads(told.splitlines()[-1])})
    return found


def rendering() -> list[dict]:
    """Seconds from the published data to the rendered book, every chapter executed."""
    taken: dict[tuple[str, str], list[float]] = {}
    for _ in range(3):
        said: list[str] = []
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            book.render(Path(folder) / "out", workers=CORES, say=said.append)
            whole = "the book", "executing and rendering the book"
            taken.setdefault(whole, []).append(time.perf_counter() - start)
        for chapter, seconds in re.findall(r"\[\d+/\d+\] (\S+) (\d+) s", "\n".join(said)):
            taken.setdefault((site.ONE_CHAPTER, f"executing {chapter}"), []).append(float(seconds))
    return [
        {"group": group, "name": name, "unit": "seconds", "median": statistics.median(s), "low": min(s), "high": max(s)}
        for (group, name), s in sorted(taken.items(), key=lambda item: item[0][0] == site.ONE_CHAPTER)
    ]


COMMANDS = {  # what readers wait for, in a checkout
    "import vicarious": ["-c", "import vicarious"],
    "vicarious --help": ["-m", "vicarious.cli", "--help"],
    "vicarious verdicts": ["-m", "vicarious.cli", "verdicts"],
    "the book": ["-m", "vicarious.cli", "book", "--out", "_build/timed"],
}


def timed(checkout: Path, python: list[str]) -> tuple[float, str]:
    """Seconds that a command takes which runs a checkout's own package, and what it said."""
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "VICARIOUS_HOME": str(checkout)}
    start = time.perf_counter()
    command = [sys.executable, "-W", "ignore", *python]
    done = subprocess.run(command, cwd=checkout, env=environment, check=True, capture_output=True, text=True)
    return time.perf_counter() - start, done.stdout


def since(commit: str) -> dict:
    """What readers wait for at a commit and now, in turns: medians of seconds and of the ratios within rounds."""
    taken: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder) / "before"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(before)], check=True)
        subprocess.run(["git", "-C", str(before), "checkout", "-q", commit], check=True)
        for number in range(ROUNDS + 1):  # the first warms up
            for when, checkout in (("before", before), ("now", ROOT)):
                for name, python in COMMANDS.items():
                    seconds, said = timed(checkout, python)
                    found = {name: seconds}
                    found |= {f"executing {c}": float(s) for c, s in re.findall(r"\[\d+/\d+\] (\S+) (\d+) s", said)}
                    for row, value in found.items() if number else ():
                        taken.setdefault(row, {}).setdefault(when, []).append(value)
            print(f"since {commit}: round {number} of {ROUNDS}", flush=True)
    rows = [
        {"name": name, **{when: statistics.median(s) for when, s in both.items()}}
        | {"ratio": statistics.median(a / b for a, b in zip(both["before"], both["now"], strict=True))}
        for name, both in taken.items()
    ]
    return {"commit": commit, "rows": rows}


def summarise(group: str, rates: dict[str, list[float]]) -> list[dict]:
    """A row per contender: median, spread, and what the first one of the group is to it."""
    of = {c.name: c for c in CONTENDERS}
    ours, rows = next(iter(rates.values())), []
    for name, own in rates.items():
        ratio = statistics.median(a / b for a, b in zip(ours, own, strict=True))
        row = {"group": group, "name": name, "unit": of[name].unit, "median": statistics.median(own)}
        row |= {"low": min(own), "high": max(own), "ratio": ratio}
        if of[name].package:
            row |= {"package": of[name].package, "version": importlib.metadata.version(of[name].package)}
        rows.append(row)
    return rows


def bars(rates: dict[str, list[float]]) -> list[dict]:
    """Whether each bar was met: the median over rounds of the ratio within a round."""
    out = []
    os.environ.pop("VICARIOUS_PRECISION", None)
    for this, that, least in BARS:
        if "bfloat16" in that and train.precision("cpu") != "bf16":
            continue
        if this in rates and that in rates:
            ratio = statistics.median(a / b for a, b in zip(rates[this], rates[that], strict=True))
            out.append({"this": this, "that": that, "ratio": ratio, "at_least": least, "met": ratio >= least})
    return out


KINDS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"),
    "casts and copies": (
        "aten::copy_",
        "aten::_to_copy",
        "aten::to",
        "aten::empty_strided",
        "aten::cat",
        "aten::stack",
    ),
    "optimiser and clipping": ("aten::_fused_adamw_", "Optimizer", "aten::linalg_vector_norm", "aten::_foreach"),
}


def profile(precision: str) -> dict[str, float]:
    """Shares of the reference model's update, by what the time goes to."""
    run = world_model(studies.ENCODERS[0], precision)
    run()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        run()
    seconds = dict.fromkeys([*KINDS, "gates, activations, losses and calling them"], 0.0)
    for event in seen.key_averages():
        kind = next((k for k, names in KINDS.items() if event.key.startswith(names)), list(seconds)[-1])
        seconds[kind] += event.self_cpu_time_total
    return {kind: s / sum(seconds.values()) for kind, s in seconds.items()}


def hardware() -> dict:
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return {
        "processor": store.processor(),
        "cores": CORES,
        "bfloat16": bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
        "commit": store.commit(),
    }


def show(table: dict) -> None:
    for row in table["rows"]:
        print(f"{row['group']:12} {row['name']:44} {row['median']:14,.1f} {row['unit']:14} {row.get('ratio', 1):8.2f}")
    for bar in table["bars"]:
        met = "met" if bar["met"] else "MISSED"
        print(f"{bar['this']} / {bar['that']}: {bar['ratio']:.2f}, at least {bar['at_least']:.2f}: {met}")
    for row in table.get("growth", []):
        print(
            ", ".join(
                f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items()
            )
        )
    for precision, shares in table["profile"].items():
        print(f"an update in {precision}: " + ", ".join(f"{kind} {share:.0%}" for kind, share in shares.items()))


def write(table: dict, path: Path | None = None) -> None:
    path = path or ROOT / "book" / "bench.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(table, indent=1) + "\n")


def main() -> int:
    if sys.argv[1:2] == ["since"]:
        write({**site.benchmark(), "since": since(sys.argv[2])})
        return 0
    if todo := pipeline.missing(studies.reference(), store.Store()):
        print(f"bench: {len(todo)} results of the paper are missing: run `vicarious study` first", file=sys.stderr)
        return 2
    torch.set_num_threads(CORES)
    start, rows, rates, failed = time.perf_counter(), [], {}, {}
    partial = ROOT / "_build" / "bench.json"
    print(f"what is measured is kept in {partial}", flush=True)
    for group in dict.fromkeys(c.group for c in CONTENDERS):
        keep = lambda found, group=group: write({"rows": rows + summarise(group, found)}, partial)  # noqa: B023, E731
        with train.one_thread() if group in ALONE else contextlib.nullcontext():
            found, missing = race([c for c in CONTENDERS if c.group == group], keep)
        rows, rates, failed = rows + summarise(group, found), rates | found, failed | missing
    shares = {name: profile(name) for name in ("fp32", "bf16")}
    os.environ.pop("VICARIOUS_PRECISION", None)
    table = {"hardware": hardware(), "rounds": ROUNDS, "rows": rows, "bars": bars(rates), "profile": shares}
    table |= {name: value for name, value in site.benchmark().items() if name == "since"}
    if failed:
        show(table)
        for name, why in failed.items():
            print(f"bench: {name} could not be run ({why})", file=sys.stderr)
        return 1
    print("growth ...", flush=True)
    table["growth"] = growth()
    for measure in (one_seed, rendering):  # the book that is rendered shows what was written before
        print(f"{measure.__name__.replace('_', ' ')} ...", flush=True)
        rows += measure()
        write(table)
        write(table, partial)
    show(table)
    print(f"{time.perf_counter() - start:,.0f} s")
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--agent"]:
        agent(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["--grown"]:
        print(json.dumps(grown(Path(sys.argv[2]), json.loads(sys.argv[3]))))
    else:
        try:
            sys.exit(main())
        except KeyboardInterrupt:
            sys.exit("bench: stopped; what was measured is kept in _build/bench.json")
