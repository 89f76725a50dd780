"""Claims about what no accident can lose: each fault is really injected into processes that really train."""

import contextlib
import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
from conftest import tiny_study
from distributed import Client
from tqdm import tqdm

from vicarious import config, execute
from vicarious.paper import results
from vicarious.store import Store

KILLS = 50
forked = multiprocessing.get_context("fork")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="faults are injected into forked processes")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Cells, and their tables as a run gives them that nothing happens to."""
    cells = tiny_study(families=("cells/gru", "flat/gru", "pixels"))
    store = Store(tmp_path_factory.mktemp("undisturbed") / "runs", Path("/nonexistent"))
    execute.fill(cells, store, workers=0, device="cpu")
    return cells, tables(cells, store)


def tables(cells, store):
    return [results.load(cells, store, name) for name in ("responses", "measures")]


def same(cells, store, expected):
    for one, two in zip(tables(cells, store), expected, strict=True):
        pd.testing.assert_frame_equal(one, two, check_exact=True)


def run(cells, runs, log=None, ready=None):
    """Fill in a process of its own; its log tells every result that it began to write."""
    tqdm.set_lock(threading.RLock())  # forked processes share one, and a killed one might hold it for ever
    store = Store(runs, Path("/nonexistent"))
    if log is not None:
        real = Store.write

        def told(self, cfg, *args, **more):
            with open(log, "a") as f:
                f.write(cfg.address + "\n")
            real(self, cfg, *args, **more)

        Store.write = told
    if ready is not None:
        ready.wait()
    execute.fill(cells, store, workers=0, device="cpu")


def begun(*args) -> multiprocessing.Process:
    process = forked.Process(target=run, args=args, daemon=True)
    process.start()
    return process


def stored(runs: Path) -> set[str]:
    return {p.name for p in runs.iterdir() if not p.name.startswith(".")} if runs.exists() else set()


def test_killed_fifty_times_at_random_moments_a_sweep_loses_nothing(undisturbed, tmp_path):
    cells, expected = undisturbed
    chance, kills, sweeps = random.Random(0), 0, 0
    while kills < KILLS or sweeps == 0:
        runs, log, whole = tmp_path / f"runs{sweeps}", tmp_path / f"log{sweeps}", False
        while not whole:
            before = stored(runs)
            done = len(log.read_text().split()) if log.exists() else 0
            process = begun(cells, runs, log)
            process.join(chance.uniform(0.0, 0.4))
            if process.is_alive() and kills < KILLS:
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
            process.join()
            written = log.read_text().split()[done:] if log.exists() else []
            assert not before & set(written), "what was whole is not made again"
            assert len(written) == len(set(written))
            assert len(set(written) - stored(runs)) <= 1, "only what was under way is lost"
            whole = process.exitcode == 0
        same(cells, Store(runs, Path("/nonexistent")), expected)
        sweeps += 1
    assert kills == KILLS


def test_what_killed_writers_leave_behind_is_removed_when_it_is_old(undisturbed, tmp_path):
    cells, expected = undisturbed
    runs = tmp_path / "runs"
    for name, age in (("old", 7200), ("young", 0)):
        (runs / f".partial-{name}").mkdir(parents=True)
        (runs / f".partial-{name}" / "table.parquet").write_bytes(b"half of it")
        os.utime(runs / f".partial-{name}", (time.time() - age,) * 2)
    run(cells, runs)
    assert [p.name for p in runs.glob(".partial-*")] == [".partial-young"], "another process may still be writing that"
    same(cells, Store(runs, Path("/nonexistent")), expected)


def cli(study_, runs, *options, **more):
    """The command itself, on a tiny study, in a process group of its own."""
    code = (
        "import signal, sys; sys.path.insert(0, sys.argv.pop(1))\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # whoever runs the tests may ignore it
        "from conftest import tiny_study; from vicarious import cli; from vicarious.paper import studies\n"
        f"studies.STUDIES['reference'] = lambda *_: tiny_study(families={study_!r}); cli.app()"
    )
    command = [
        sys.executable,
        "-c",
        code,
        str(Path(__file__).parent),
        "study",
        "reference",
        "--device",
        "cpu",
        *options,
    ]
    env = os.environ | {"VICARIOUS_RUNS": str(runs), "VICARIOUS_HOME": str(runs.parent), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    return subprocess.Popen(command, env=env, **pipes, **more)


def one_line(process, code: int) -> str:
    """What it says last; it must have ended so, and without a traceback."""
    _, told = process.communicate(timeout=120)
    assert process.returncode == code and "Traceback" not in told, told
    return told.strip().splitlines()[-1]


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of its own with little room."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_one_line_and_nothing_half_written_is_believed(undisturbed, tiny_disk):
    cells, expected = undisturbed
    runs = tiny_disk / "runs"
    told = one_line(cli(("cells/gru", "flat/gru", "pixels"), runs, "--workers", "0"), 1)
    assert "No space left on device" in told
    assert not list(runs.glob(".partial-*")) and 0 < len(stored(runs)) < len(cells)
    subprocess.run(["mount", "-o", "remount,size=100m", tiny_disk], check=True)
    run(cells, runs)
    same(cells, Store(runs, Path("/nonexistent")), expected)


def test_a_read_only_directory_is_one_line(undisturbed, tmp_path):
    cells, expected = undisturbed
    runs = tmp_path / "runs"
    runs.mkdir()
    if os.getuid() == 0:  # whom no permission stops: a file system that cannot be written
        subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", runs], check=True)
    else:
        runs.chmod(0o555)
    try:
        told = one_line(cli(("cells/gru", "flat/gru", "pixels"), runs, "--workers", "0"), 1)
        assert ("Read-only file system" in told or "Permission denied" in told) and str(runs) in told
        assert not list(runs.iterdir())
    finally:
        subprocess.run(["umount", "-l", runs], check=True) if os.getuid() == 0 else runs.chmod(0o755)
    run(cells, runs)
    same(cells, Store(runs, Path("/nonexistent")), expected)


def test_of_processes_that_race_for_the_same_cells_one_wins_each(undisturbed, tmp_path):
    cells, expected = undisturbed
    runs, ready = tmp_path / "runs", forked.Barrier(3)
    racing = [begun(cells, runs, tmp_path / f"log{i}", ready) for i in range(3)]
    for process in racing:
        process.join()
    assert [p.exitcode for p in racing] == [0, 0, 0]
    tried = [address for i in range(3) for address in (tmp_path / f"log{i}").read_text().split()]
    assert len(tried) > len(set(tried)), "they did race"
    assert stored(runs) == set(tried) and not list(runs.glob(".partial-*"))
    same(cells, Store(runs, Path("/nonexistent")), expected)


def test_a_dead_worker_is_one_line_and_the_next_run_goes_on(undisturbed, tmp_path):
    cells, expected = undisturbed
    runs = tmp_path / "runs"
    process = cli(("cells/gru", "flat/gru", "pixels"), runs, "--workers", "2")
    os.kill(child_of(process.pid, runs), signal.SIGKILL)
    told = one_line(process, 1)
    assert "a worker died" in told and "the same command goes on from there" in told
    run(cells, runs)
    same(cells, Store(runs, Path("/nonexistent")), expected)


def child_of(parent: int, runs: Path) -> int:
    """A worker process, once something has been stored."""
    for _ in range(600):
        if process_ids := [p for p in children(parent) if "spawn_main" in command_line(p)]:
            if len(stored(runs)) > 1:
                return process_ids[0]
        time.sleep(0.05)
    raise AssertionError("no worker in 30 s")


def children(parent: int) -> list[int]:
    path = Path(f"/proc/{parent}/task/{parent}/children")
    return [int(p) for p in path.read_text().split()] if path.exists() else []


def command_line(process: int) -> str:
    path = Path(f"/proc/{process}/cmdline")
    return path.read_bytes().replace(b"\0", b" ").decode() if path.exists() else ""


@pytest.mark.parametrize("whole", [True, False])
def test_ctrl_c_and_a_kill_end_all_at_once_in_one_line_and_lose_nothing(whole, undisturbed, tmp_path):
    """Ctrl-C goes to all processes of a terminal, what a scheduler or a container sends to the first one alone."""
    cells, expected = undisturbed
    runs = tmp_path / "runs"
    process = cli(("cells/gru", "flat/gru", "pixels"), runs, "--workers", "2")
    child_of(process.pid, runs)
    workers, start = children(process.pid), time.monotonic()
    os.killpg(process.pid, signal.SIGINT) if whole else process.send_signal(signal.SIGTERM)
    told = one_line(process, 130 if whole else 143)
    assert "stopped" in told and time.monotonic() - start < 20
    assert not any("spawn_main" in command_line(p) for p in workers), "no worker outlives it"
    run(cells, runs)
    same(cells, Store(runs, Path("/nonexistent")), expected)


def test_stopped_and_continued_it_goes_on_as_if_nothing_had_been(undisturbed, tmp_path):
    cells, expected = undisturbed
    runs = tmp_path / "runs"
    process = begun(cells, runs)
    for _ in range(5):
        time.sleep(0.1)
        os.kill(process.pid, signal.SIGSTOP)
        before = stored(runs)
        time.sleep(0.2)
        assert stored(runs) == before, "it was really stopped"
        os.kill(process.pid, signal.SIGCONT)
    process.join()
    assert process.exitcode == 0
    same(cells, Store(runs, Path("/nonexistent")), expected)


def test_a_study_says_beforehand_how_much_is_missing(tmp_path):
    process = cli(("cells/gru",), tmp_path / "runs", "--workers", "1")
    out, told = process.communicate(timeout=120)
    assert re.search(r"7 results are missing, [\d,]+ core-seconds: about", told) and "on 1 process here" in told
    assert "4 runs at hand, 4 computed now" in out


@contextlib.contextmanager
def scheduler(tmp_path, count, path=Path(__file__).parent):
    """A scheduler and workers on loopback, which also import from `path`: its address, and the workers."""
    found, env = tmp_path / "scheduler.json", os.environ | {"OMP_NUM_THREADS": "1"}
    env["PYTHONPATH"] = str(path)
    dask, quiet = [sys.executable, "-m", "dask"], {"env": env, "stderr": subprocess.DEVNULL}
    alone = ["--no-dashboard", "--scheduler-file", str(found)]
    started = [subprocess.Popen([*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", *alone], **quiet)]
    for _ in range(300):
        if found.exists() and found.stat().st_size:
            break
        time.sleep(0.1)
    address = json.loads(found.read_text())["address"]
    own = ["worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(tmp_path)]
    workers = [subprocess.Popen([*dask, *own], **quiet) for _ in range(count)]
    try:
        with Client(address) as client:
            client.wait_for_workers(count, timeout=60)
        yield address, workers
    finally:
        for process in (*workers, *started):
            process.kill()
            process.wait()


def kill_when(store, number, worker, at_its_death):
    """Kill a worker as soon as so many results are stored."""

    def kill():
        while len(stored(store.runs)) < number:
            time.sleep(0.01)
        worker.kill()
        at_its_death.append(len(stored(store.runs)))

    threading.Thread(target=kill, daemon=True).start()


def test_on_a_scheduler_one_of_whose_workers_is_killed_the_table_is_the_serial_ones(tmp_path):
    cells = list(dict.fromkeys(cell for seed in range(920, 926) for cell in tiny_study(seed)))
    alone, store = (Store(tmp_path / name, Path("/nonexistent")) for name in ("alone", "runs"))
    execute.fill(cells, alone, workers=0, device="cpu")
    with scheduler(tmp_path, 3) as (address, workers):
        kill_when(store, 4, workers[0], at_its_death := [])
        with execute.cluster(address, store.runs) as (executor, alive):
            assert execute.fill(cells, store, device="cpu", executor=executor, alive=alive) == len(cells)
        assert workers[0].wait(10) == -signal.SIGKILL and at_its_death[0] < len(stored(store.runs))
    same(cells, store, tables(cells, alone))


def test_a_scheduler_whose_last_worker_is_lost_ends_the_sweep_in_one_line(tmp_path):
    cells = list(dict.fromkeys(cell for seed in range(920, 926) for cell in tiny_study(seed)))
    store = Store(tmp_path / "runs", Path("/nonexistent"))
    with scheduler(tmp_path, 1) as (address, workers), pytest.raises(ValueError, match="has no workers: start some"):
        kill_when(store, 2, workers[0], [])
        with execute.cluster(address, store.runs) as (executor, alive):
            execute.fill(cells, store, device="cpu", executor=executor, alive=alive)
    assert 0 < len(execute.missing(cells, store)) < len(cells)


def test_workers_that_cannot_work_are_told_apart_before_the_sweep(tmp_path):
    (tmp_path / "vicarious.py").write_text("raise ModuleNotFoundError('No module named vicarious')\n")
    with (
        scheduler(tmp_path, 1, tmp_path) as (address, _),
        pytest.raises(ValueError, match="not all workers of") as told,
    ):
        with execute.cluster(address, tmp_path / "runs"):
            pass
    assert "No module named" in str(told.value) and len(str(told.value).splitlines()) == 1


def test_what_a_worker_lacks_is_said(tmp_path, monkeypatch):
    assert execute._lacking(str(tmp_path), execute.commit()) is None
    assert "has the code of commit" in execute._lacking(str(tmp_path), "another")
    assert "cannot write to" in execute._lacking(str(tmp_path / "gone"), execute.commit())


class Elsewhere(ThreadPoolExecutor):
    """Workers that store what they compute where nobody looks."""

    def submit(self, function, /, runs, cache, *rest):
        return super().submit(function, runs, cache / "elsewhere", *rest)


def test_what_is_called_computed_is_there(tmp_path):
    store = Store(tmp_path / "runs", Path("/nonexistent"))
    with Elsewhere(1) as executor, pytest.raises(OSError, match=r"results were computed, but are not in"):
        execute.fill(tiny_study(), store, device="cpu", executor=executor)


def test_a_relative_cache_is_where_it_was_named(tmp_path, monkeypatch):
    monkeypatch.setenv("VICARIOUS_RUNS", "mine")
    monkeypatch.chdir(tmp_path)
    store = Store()
    monkeypatch.chdir("/")
    assert store.runs == tmp_path / "mine" and store.data.is_absolute()


def test_the_umask_decides_who_may_read_what_is_stored_and_published(undisturbed, tmp_path):
    cells = [cell for cell in undisturbed[0] if cell.find(config.Model)][:2]
    before = os.umask(0o002)
    try:
        store = Store(tmp_path / "runs", tmp_path / "data")
        execute.fill(cells, store, workers=0, device="cpu")
        store.publish(cells, [cells[0].find(config.Model)])
    finally:
        os.umask(before)
    for path in [*tmp_path.rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o775 if path.is_dir() else 0o664), path


def test_no_scheduler_is_one_line(tmp_path):
    process = cli(("cells/gru",), tmp_path / "runs", "--scheduler", "tcp://127.0.0.1:9")
    assert "no scheduler at tcp://127.0.0.1:9" in one_line(process, 1)
