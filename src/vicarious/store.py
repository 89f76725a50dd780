"""Results with addresses: a local cache `runs/`, and the published subset `data/` that travels with the repository.

A cached result is a folder `runs/<address>/` of Parquet tables, safetensors weights and a JSON manifest with their
SHA-256; it appears in one rename, whole or not at all.  Published results are joined: one Parquet table of each kind,
one of their manifests with a column for every field of their configuration, weights, and `SHA256SUMS`, which
`sha256sum -c` understands too.  What is published is checked before use.  A file that does not match is reported and
left alone: it is neither used nor trained over.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, Field, StringConstraints, ValidationError
from torch import Tensor

from . import config
from .config import Stage
from .train import precision

LARGEST = {"bytes": 1 << 28, "values": 1 << 25}  # of a manifest, and in a table: several times what is published
MANIFEST, SUMS = "manifest.parquet", "SHA256SUMS"
SUM = re.compile(r"([0-9a-f]{64})  ((?:weights/)?[a-z0-9]+\.(?:parquet|safetensors))")


Tables = dict[str, pd.DataFrame] | None
Weights = dict[str, Tensor] | None
Columns = tuple[str, ...] | None  # of a table; all by default


class CorruptResult(Exception):
    """A stored result that is missing a file, cannot be read, or does not match its manifest."""


@dataclass
class Result:
    """One stage's result: tidy tables, weights, and the manifest of how it came about."""

    manifest: dict
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    source: str = "trained"


FileName = Annotated[str, StringConstraints(pattern=r"^(weights/)?[a-z0-9]+\.(parquet|safetensors)$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Manifest(BaseModel, extra="allow"):
    """How a result came about, as far as anything is computed from it."""

    stage: str
    parent: str | None
    config: dict
    seconds: float = Field(ge=0, allow_inf_nan=False)
    commit: str
    device: str


class _Published(_Manifest):
    tables: list[str]


class _Cached(_Manifest):
    files: dict[FileName, Digest]


def home() -> Path:
    """The repository: VICARIOUS_HOME, else the checkout this package is installed from, else the working directory.

    Raises ValueError where VICARIOUS_HOME is no folder.
    """
    if given := os.environ.get("VICARIOUS_HOME"):
        if not Path(given).is_dir():
            raise ValueError(f"VICARIOUS_HOME={given} is no folder: set it to a checkout of the repository")
        return Path(given).resolve()
    checkout = Path(__file__).resolve().parents[2]
    return checkout if (checkout / "pyproject.toml").exists() else Path.cwd()


def sha256(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


@lru_cache
def commit() -> str:
    """The code's commit, marked `+` where the package differs from it; `unknown` outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        dirty = subprocess.run([*git, "status", "--porcelain", "."], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")


@lru_cache
def processor() -> str:
    """The processor's name, as far as it can be told: the last bits of a result may hang on it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def provenance(device: str = "cpu") -> dict:
    """Where and with what a result was made: everything that is not part of its address."""
    return {
        "commit": commit(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else f"cpu {platform.machine()}",
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "precision": precision(device),
        "torch": torch.__version__.split("+")[0],
        "python": platform.python_version(),
    }


class Store:
    """Reads published before cached results; writes to the cache, and publishes from it."""

    def __init__(self, runs: Path | None = None, data: Path | None = None):
        self.runs = Path(runs or os.environ.get("VICARIOUS_RUNS") or home() / "runs").absolute()
        self.data = Path(data or home() / "data").absolute()
        if self.runs.exists() and not self.runs.is_dir():
            raise ValueError(f"{self.runs} is no folder: set VICARIOUS_RUNS to one")
        self._tables: dict[tuple, tuple[pd.DataFrame, dict[str, np.ndarray]]] = {}  # as they are read
        self._checked: set[str] = set()  # published results whose manifest is theirs

    def tidy(self, older: float = 3600.0) -> int:
        """Remove what killed writers left behind more than `older` seconds ago; returns how much that was."""
        left = [p for p in self.runs.glob(".partial-*") if time.time() - p.stat().st_mtime > older]
        for folder in left:
            shutil.rmtree(folder, ignore_errors=True)
        return len(left)

    @cached_property
    def published(self) -> dict:
        """What is published {files: SHA-256 by name, results: manifest by address}, every file of it verified."""
        path = self.data / SUMS
        if not path.exists():
            return {"files": {}, "results": {}}
        files = _read_sums(path)
        for name, digest in files.items():
            _verify(self.data / name, digest, path)
        return {"files": files, "results": _read_manifest(self.data / MANIFEST)}

    def _table(self, name: str, columns: Columns = None) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
        """A published table with its column `address`, read once, and which of its rows belong to each."""
        if (name, columns) not in self._tables:
            frame = _read_table(self.data / f"{name}.parquet", columns=[*columns, "address"] if columns else None)
            self._tables[name, columns] = frame, frame.groupby("address", observed=True).indices
        return self._tables[name, columns]

    def has(self, address: str, weights: bool = False) -> bool:
        """Whether a result is at hand; with `weights`, whether it can be computed with and not only read."""
        if address in self.published["results"] and (
            not weights or f"weights/{address}.safetensors" in self.published["files"]
        ):
            return True
        return self.cached(address)

    def cached(self, address: str) -> bool:
        """Whether a result is in the cache.  Raises CorruptResult where only part of one is."""
        folder = self.runs / address
        if folder.exists() and not (folder / "manifest.json").exists():
            raise CorruptResult(
                f"{folder / 'manifest.json'} is missing; delete the folder to have the result made anew"
            )
        return folder.exists()

    def manifest(self, address: str) -> tuple[dict, str]:
        """Where a result comes from, and whether it is `published` or `cached`.  Raises as `read` does."""
        if address in self.published["results"]:
            manifest, path, source = self.published["results"][address], self.data / MANIFEST, "published"
        elif self.cached(address):
            path, source = self.runs / address / "manifest.json", "cached"
            manifest = _read_json(path)
        else:
            raise KeyError(address)
        if source == "cached" or address not in self._checked:
            _belongs(manifest, address, path)
            self._checked.add(address)
        return manifest, source

    def rows(self, addresses: Sequence[str], name: str, columns: Columns = None) -> pd.DataFrame | None:
        """One kind of table of many results below each other, with their `address`; None where no result has it.

        Published results come first, each group in the order that was asked for.  columns: all by default.
        """
        published = [a for a in addresses if a in self.published["results"]]
        own = [self._published_rows(a, name, columns) for a in published if name in self.manifest(a)[0]["tables"]]
        parts = [self._table(name, columns)[0].take(np.concatenate(own))] if own else []
        for address in [a for a in addresses if a not in self.published["results"]]:
            if (table := self.read(address).tables.get(name)) is not None:
                parts.append(table[list(columns or table)].assign(address=address))
        return pd.concat(parts, ignore_index=True) if parts else None

    def _published_rows(self, address: str, name: str, columns: Columns = None) -> np.ndarray:
        manifest = self.data / MANIFEST
        if f"{name}.parquet" not in self.published["files"] or address not in (rows := self._table(name, columns)[1]):
            raise CorruptResult(f"{manifest} lists {name} of {address}, which no table holds")
        return rows[address]

    def read(self, address: str, weights: bool = False) -> Result:
        """The published result, else the cached one.  Raises KeyError where there is none, CorruptResult if damaged."""
        name = f"weights/{address}.safetensors"
        if address in self.published["results"] and (not weights or name in self.published["files"]):
            manifest, _ = self.manifest(address)
            own = {kind: self._table(kind)[0].take(self._published_rows(address, kind)) for kind in manifest["tables"]}
            tables = {kind: frame.drop(columns="address").reset_index(drop=True) for kind, frame in own.items()}
            tensors = _read_weights(self.data / name) if name in self.published["files"] else {}
            return Result(manifest, tables, tensors, "published")
        if not self.cached(address):
            raise KeyError(address)
        folder = self.runs / address
        manifest = _read_json(folder / "manifest.json")
        _belongs(manifest, address, folder / "manifest.json")
        for file, digest in manifest["files"].items():
            _verify(folder / file, digest, folder / "manifest.json")
        tables = {Path(f).stem: _read_table(folder / f) for f in manifest["files"] if f.endswith(".parquet")}
        tensors = _read_weights(folder / "weights.safetensors") if "weights.safetensors" in manifest["files"] else {}
        return Result(manifest, tables, tensors, "cached")

    def write(
        self, cfg: Stage, seconds: float, tables: Tables = None, weights: Weights = None, device: str = "cpu", **notes
    ) -> None:
        """Store a result whole: written beside its place, then renamed; if another process was first, theirs stays.

        Raises OSError where it cannot be written: nothing of it is left then.
        """
        self.runs.mkdir(parents=True, exist_ok=True)
        folder = _new_folder(self.runs)
        try:
            for name, table in (tables or {}).items():
                table.to_parquet(folder / f"{name}.parquet", index=False)
            if weights:
                tensors = {k: v.detach().cpu().contiguous() for k, v in weights.items()}
                (folder / "weights.safetensors").write_bytes(safetensors.torch.save(tensors))
            manifest = {"stage": cfg.stage, "epoch": cfg.epoch, "parent": cfg.parent.address if cfg.parent else None}
            manifest |= {"config": cfg.columns(), "seconds": round(seconds, 2), **provenance(device), **notes}
            manifest["files"] = {p.name: sha256(p) for p in sorted(folder.iterdir())}
            (folder / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True))
            try:
                os.rename(folder, self.runs / cfg.address)
            except OSError:
                if not (self.runs / cfg.address / "manifest.json").exists():
                    raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, cells: list[Stage], weights: list[Stage]) -> dict[str, int]:
        """Make `data/` hold exactly these results: tables joined by kind, weights one file each.  Returns sizes."""
        results = {cfg.address: self.read(cfg.address) for cfg in cells}
        tensors = {cfg.address: self.read(cfg.address, weights=True).weights for cfg in weights}
        target = _new_folder(self.data.parent)
        try:
            for name in sorted({n for r in results.values() for n in r.tables}):
                parts = [r.tables[name].assign(address=a) for a, r in results.items() if name in r.tables]
                frame = pd.concat(parts, ignore_index=True)
                text = [c for c in frame if not pd.api.types.is_numeric_dtype(frame[c])]
                frame = frame.astype(dict.fromkeys(text, "category"))
                frame.to_parquet(target / f"{name}.parquet", index=False, compression="zstd")
            (target / "weights").mkdir()
            for address, tensor in tensors.items():
                (target / "weights" / f"{address}.safetensors").write_bytes(safetensors.torch.save(tensor))
            pq.write_table(_manifests(results), target / MANIFEST, compression="zstd")
            files = sorted(p for p in target.rglob("*") if p.is_file())
            sums = [f"{sha256(p)}  {p.relative_to(target).as_posix()}\n" for p in files]
            (target / SUMS).write_text("".join(sums))
            old = self.data.with_name(".replaced-data")
            if self.data.exists():
                shutil.rmtree(old, ignore_errors=True)
                self.data.rename(old)
            target.rename(self.data)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(target, ignore_errors=True)
        self.__dict__.pop("published", None)
        self._tables, self._checked = {}, set()
        return {
            p.relative_to(self.data).as_posix(): p.stat().st_size for p in sorted(self.data.rglob("*")) if p.is_file()
        }


def _new_folder(parent: Path) -> Path:
    """An empty folder beside what it will become, with the permissions that the umask leaves."""
    folder = parent / f".partial-{uuid.uuid4().hex}"
    folder.mkdir()
    return folder


def _manifests(results: dict[str, Result]) -> pa.Table:
    """One row a result: where it comes from, and `stage.field` of its whole configuration."""
    rows = []
    for address, result in results.items():
        made = {k: v for k, v in result.manifest.items() if k not in ("files", "config", "tables")}
        rows.append({"address": address, **made, "tables": sorted(result.tables), **result.manifest["config"]})
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: [row.get(name) for row in rows] for name in names})


def _read_manifest(path: Path) -> dict[str, dict]:
    """Manifests by address, each with its configuration and without what does not apply to it."""
    found = {}
    for row in _read_table(path, pa.Table.to_pylist):
        row = {k: v for k, v in row.items() if v is not None or k == "parent"}
        made = {k: v for k, v in row.items() if "." not in k}
        _check(path, made | {"config": {k: v for k, v in row.items() if "." in k}}, _Published)
        found[str(made.pop("address", None))] = made | {"config": {k: v for k, v in row.items() if "." in k}}
    return found


def _read_sums(path: Path) -> dict[str, str]:
    """SHA-256 by file name."""
    try:
        lines = path.read_text().splitlines()
    except (ValueError, OSError) as error:
        raise CorruptResult(f"{path} cannot be read: {_short(error)}; restore it") from None
    found = [SUM.fullmatch(line) for line in lines]
    if not all(found) or MANIFEST not in {match[2] for match in found}:
        raise CorruptResult(f"{path} is no list of SHA-256 sums with {MANIFEST} in it; restore it (git checkout)")
    return {match[2]: match[1] for match in found}


def _belongs(manifest: dict, address: str, path: Path) -> None:
    """The configuration in the manifest must give the address that was asked for."""
    try:
        found = config.STAGES[manifest["stage"]].from_columns(manifest["config"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CorruptResult(f"{path}: no usable configuration for {address} ({type(error).__name__})") from None
    if found.address == address:
        return
    if changed := found.changed_default(address):
        raise CorruptResult(f"{path}: the default of {changed} changed since {address} was made: raise its `epoch`")
    raise CorruptResult(f"{path} describes {found.address} and not {address}; restore it or delete the result's folder")


def _verify(path: Path, digest: str, manifest: Path) -> None:
    if not path.exists():
        raise CorruptResult(f"{path} is missing although {manifest} lists it; restore it or delete the result's folder")
    if sha256(path) != digest:
        raise CorruptResult(f"{path} does not match the SHA-256 in {manifest}; restore it (git checkout) or delete it")


def _check(path: Path, content, shape: type[BaseModel]) -> dict:
    """Content that is a manifest of this shape.  Raises CorruptResult."""
    try:
        shape.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))[:80]
        raise CorruptResult(f"{path} is not a manifest: {where}: {first['msg']}; restore it or delete it") from None
    return content


def _read_json(path: Path) -> dict:
    """The manifest of a cached result."""
    try:
        if path.stat().st_size > LARGEST["bytes"]:
            raise ValueError(f"it has more than {LARGEST['bytes']:,} bytes")
        content = json.loads(path.read_text())
    except (ValueError, OSError, RecursionError) as error:
        raise CorruptResult(f"{path} cannot be read: {_short(error)}; restore it or delete its folder") from None
    return _check(path, content, _Cached)


def _read_table(
    path: Path, into: Callable[[pa.Table], Any] = pa.Table.to_pandas, columns: list[str] | None = None
) -> Any:
    """A Parquet table, of the kind that its name says if it is one of `config.TABLES`."""
    try:
        with pq.ParquetFile(path) as file:
            found, rows = file.schema_arrow, file.metadata.num_rows
            if rows * len(found.names) > LARGEST["values"]:
                raise ValueError(f"it has more than {LARGEST['values']:,} values")
            if path.name != MANIFEST:
                _check_columns(path.stem, found, rows)
            return into(file.read(columns))
    except Exception as error:
        raise CorruptResult(f"{path} cannot be read: {_short(error)}; restore it or delete its folder") from None


def _check_columns(name: str, found: pa.Schema, rows: int) -> None:
    """Raises ValueError unless a table has the columns of its kind, text and numbers where they belong."""
    if sorted(set(found.names) - {"address"}) != sorted(config.TABLES.get(name, "").split()):
        raise ValueError(f"it is no table of {name}")
    for column in found if rows else ():  # what learns nothing has measured nothing
        text = pa.types.is_dictionary(column.type) or pa.types.is_string(column.type)
        text |= pa.types.is_large_string(column.type)
        number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
        if not (text if column.name in config.TEXT else number):
            raise ValueError(f"its column {column.name} is {column.type}")


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except Exception as error:
        raise CorruptResult(f"{path} cannot be read: {_short(error)}; restore it or delete its folder") from None
