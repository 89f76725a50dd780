"""Results with addresses: a local cache `runs/`, and the published subset `data/` that travels with the repository.

A cached result is a folder `runs/<address>/` of Parquet tables, safetensors weights and a JSON manifest with their
SHA-256; it appears in one rename, whole or not at all.  What is published is checked against its manifest before use.
A file that does not match is reported and left alone: it is neither used nor trained over.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated

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
from .population import precision

TABLES = {  # columns of every kind of table; published ones have `address` beside them
    "responses": "contact valence phase readout mean sd n_scenes mover similarity step",
    "returns": "contact valence phase readout mean sd n_scenes mover similarity",
    "measures": "measure mover similarity value",
    "precision": "half readout kind mover similarity slope sd n_scenes set",
    "surface": "taste purpose similarity readout slope sd n_scenes",
    "interventions": "path mover similarity alpha readout slope",
    "imagined": "mover similarity readout slope sd n_scenes",
    "identity": "mover similarity bin p_self share_self n_scenes",
    "development": "half readout kind mover similarity slope update exposure",
    "extinction": "side kind mover similarity slope n_scenes readout withheld until update",
    "decoupling": "side kind mover similarity slope n_scenes readout withheld until update",
    "progress": "update loss r2 labelled different readout withheld until",
    "unlearning": "update loss r2 labelled different readout withheld until",
    "curves": "update exposure mover similarity slope",
    "learning": "update exposure measure value",
    "foresight": "taste measure value",
    "outsiders": "readout kind mover similarity slope rho",
    "simulations": "statistic data n rate studies",
    "shapes": "curve noise statistic rate",
}
TEXT = set("contact phase readout mover measure kind taste path withheld statistic data curve address".split())
LARGEST = {"bytes": 1 << 28, "values": 1 << 25}  # of a manifest, and in a table: several times what is published


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


class _Made(BaseModel, extra="allow"):
    """How a result came about, as far as anything is computed from it."""

    stage: str
    parent: str | None
    config: dict
    seconds: float = Field(ge=0, allow_inf_nan=False)
    commit: str
    device: str


class _Cached(_Made):
    files: dict[FileName, Digest]


class _Entry(_Made):
    tables: list[str]


class _Published(BaseModel):
    files: dict[FileName, Digest]
    results: dict[str, _Entry]


def home() -> Path:
    """The repository: VICARIOUS_HOME, else the checkout this package is installed from, else the working directory."""
    if "VICARIOUS_HOME" in os.environ:
        return Path(os.environ["VICARIOUS_HOME"]).resolve()
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
        self.runs = Path(runs or os.environ.get("VICARIOUS_RUNS") or home() / "runs")
        self.data = Path(data or home() / "data")
        self._tables: dict[str, tuple[pd.DataFrame, dict[str, np.ndarray]]] = {}  # as they are read
        self._checked: set[str] = set()  # published results whose manifest is theirs

    def tidy(self, older: float = 3600.0) -> int:
        """Remove what killed writers left behind more than `older` seconds ago; returns how much that was."""
        left = [p for p in self.runs.glob(".partial-*") if time.time() - p.stat().st_mtime > older]
        for folder in left:
            shutil.rmtree(folder, ignore_errors=True)
        return len(left)

    @cached_property
    def published(self) -> dict:
        """The published manifest {files, results}, every file of it verified."""
        path = self.data / "manifest.json"
        if not path.exists():
            return {"files": {}, "results": {}}
        manifest = _read_json(path, _Published)
        for name, digest in manifest["files"].items():
            _verify(self.data / name, digest, path)
        return manifest

    def _table(self, name: str) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
        """A published table with its column `address`, read once, and which of its rows belong to each."""
        if name not in self._tables:
            frame = _read_parquet(self.data / f"{name}.parquet")
            rows = frame.groupby("address", observed=True).indices
            self._tables[name] = frame, rows
        return self._tables[name]

    def has(self, address: str, weights: bool = False) -> bool:
        """Whether a result is at hand; with `weights`, whether it can be computed with and not only read."""
        if address in self.published["results"] and (
            not weights or f"weights/{address}.safetensors" in self.published["files"]
        ):
            return True
        return self._cached(address)

    def _cached(self, address: str) -> bool:
        folder = self.runs / address
        if folder.exists() and not (folder / "manifest.json").exists():
            raise CorruptResult(
                f"{folder / 'manifest.json'} is missing; delete the folder to have the result made anew"
            )
        return folder.exists()

    def manifest(self, address: str) -> tuple[dict, str]:
        """Where a result comes from, and whether it is `published` or `cached`.  Raises as `read` does."""
        if address in self.published["results"]:
            manifest, path, source = self.published["results"][address], self.data / "manifest.json", "published"
        elif self._cached(address):
            path, source = self.runs / address / "manifest.json", "cached"
            manifest = _read_json(path, _Cached)
        else:
            raise KeyError(address)
        if source == "cached" or address not in self._checked:
            _belongs(manifest, address, path)
            self._checked.add(address)
        return manifest, source

    def rows(self, addresses: Sequence[str], name: str) -> pd.DataFrame | None:
        """One kind of table of many results below each other, with their `address`; None where no result has it.

        Published results come first, each group in the order that was asked for.
        """
        published = [a for a in addresses if a in self.published["results"]]
        own = [self._published_rows(a, name) for a in published if name in self.manifest(a)[0]["tables"]]
        parts = [self._table(name)[0].take(np.concatenate(own))] if own else []
        for address in [a for a in addresses if a not in self.published["results"]]:
            if (table := self.read(address).tables.get(name)) is not None:
                parts.append(table.assign(address=address))
        return pd.concat(parts, ignore_index=True) if parts else None

    def _published_rows(self, address: str, name: str) -> np.ndarray:
        manifest = self.data / "manifest.json"
        if f"{name}.parquet" not in self.published["files"] or address not in (rows := self._table(name)[1]):
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
        if not self._cached(address):
            raise KeyError(address)
        folder = self.runs / address
        manifest = _read_json(folder / "manifest.json", _Cached)
        _belongs(manifest, address, folder / "manifest.json")
        for file, digest in manifest["files"].items():
            _verify(folder / file, digest, folder / "manifest.json")
        tables = {Path(f).stem: _read_parquet(folder / f) for f in manifest["files"] if f.endswith(".parquet")}
        tensors = _read_weights(folder / "weights.safetensors") if "weights.safetensors" in manifest["files"] else {}
        return Result(manifest, tables, tensors, "cached")

    def write(
        self,
        cfg: config.Stage,
        seconds: float,
        tables: dict[str, pd.DataFrame] | None = None,
        weights: dict[str, Tensor] | None = None,
        device: str = "cpu",
        **notes,
    ) -> None:
        """Store a result whole: written beside its place, then renamed; if another process was first, theirs stays.

        Raises OSError where it cannot be written: nothing of it is left then.
        """
        self.runs.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".partial-", dir=self.runs))
        try:
            for name, table in (tables or {}).items():
                table.to_parquet(folder / f"{name}.parquet", index=False)
            if weights:
                tensors = {k: v.detach().cpu().contiguous() for k, v in weights.items()}
                _write_weights(tensors, folder / "weights.safetensors")
            manifest = {
                "stage": cfg.stage,
                "epoch": cfg.epoch,
                "parent": cfg.parent.address if cfg.parent else None,
                "config": cfg.model_dump(mode="json"),
                "seconds": round(seconds, 2),
                **provenance(device),
                **notes,
                "files": {p.name: sha256(p) for p in sorted(folder.iterdir())},
            }
            (folder / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True))
            try:
                os.rename(folder, self.runs / cfg.address)
            except OSError:
                if not (self.runs / cfg.address / "manifest.json").exists():
                    raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, cells: list[config.Stage], weights: list[config.Stage]) -> dict[str, int]:
        """Make `data/` hold exactly these results: tables joined by kind, weights one file each.  Returns sizes."""
        results = {cfg.address: self.read(cfg.address) for cfg in cells}
        tensors = {cfg.address: self.read(cfg.address, weights=True).weights for cfg in weights}
        target = Path(tempfile.mkdtemp(prefix=".partial-", dir=self.data.parent))
        try:
            for name in sorted({n for r in results.values() for n in r.tables}):
                parts = [r.tables[name].assign(address=a) for a, r in results.items() if name in r.tables]
                frame = pd.concat(parts, ignore_index=True)
                text = [c for c in frame if not pd.api.types.is_numeric_dtype(frame[c])]
                frame = frame.astype(dict.fromkeys(text, "category"))
                frame.to_parquet(target / f"{name}.parquet", index=False, compression="zstd")
            (target / "weights").mkdir()
            for address, tensor in tensors.items():
                _write_weights(tensor, target / "weights" / f"{address}.safetensors")
            files = sorted(p for p in target.rglob("*") if p.is_file())
            manifest = {
                "files": {p.relative_to(target).as_posix(): sha256(p) for p in files},
                "results": {a: _entry(r) for a, r in results.items()},
            }
            (target / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
            target.chmod(0o755)
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


def _entry(result: Result) -> dict:
    """A result's manifest as it is published: its files are tables of the joint files."""
    return {**{k: v for k, v in result.manifest.items() if k != "files"}, "tables": sorted(result.tables)}


def _belongs(manifest: dict, address: str, path: Path) -> None:
    """The configuration in the manifest must give the address that was asked for."""
    try:
        found = config.STAGES[manifest["stage"]].model_validate(manifest["config"]).address
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CorruptResult(f"{path}: no usable configuration for {address} ({type(error).__name__})") from None
    if found != address:
        raise CorruptResult(f"{path} describes {found} and not {address}; restore it or delete the result's folder")


def _verify(path: Path, digest: str, manifest: Path) -> None:
    if not path.exists():
        raise CorruptResult(f"{path} is missing although {manifest} lists it; restore it or delete the result's folder")
    if sha256(path) != digest:
        raise CorruptResult(f"{path} does not match the SHA-256 in {manifest}; restore it (git checkout) or delete it")


def _read_json(path: Path, shape: type[BaseModel]) -> dict:
    """A manifest of this shape."""
    try:
        if path.stat().st_size > LARGEST["bytes"]:
            raise ValueError(f"it has more than {LARGEST['bytes']:,} bytes")
        content = json.loads(path.read_text())
        shape.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))[:80]
        raise CorruptResult(f"{path} is not a manifest: {where}: {first['msg']}; restore it or delete it") from None
    except (ValueError, OSError, RecursionError) as error:
        raise CorruptResult(f"{path} cannot be read: {_short(error)}; restore it or delete its folder") from None
    return content


def _read_parquet(path: Path) -> pd.DataFrame:
    """A table of the kind that its name says, and of no other columns."""
    try:
        with pq.ParquetFile(path) as file:
            found, rows = file.schema_arrow, file.metadata.num_rows
            if rows * len(found.names) > LARGEST["values"]:
                raise ValueError(f"it has more than {LARGEST['values']:,} values")
            _check_columns(path.stem, found, rows)
            return file.read(use_threads=False).to_pandas()
    except Exception as error:
        raise CorruptResult(f"{path} cannot be read: {_short(error)}; restore it or delete its folder") from None


def _check_columns(name: str, found: pa.Schema, rows: int) -> None:
    """Raises ValueError unless a table has the columns of its kind, text and numbers where they belong."""
    if sorted(set(found.names) - {"address"}) != sorted(TABLES.get(name, "").split()):
        raise ValueError(f"it is no table of {name}")
    for column in found if rows else ():  # what learns nothing has measured nothing
        text = pa.types.is_dictionary(column.type) or pa.types.is_string(column.type)
        text |= pa.types.is_large_string(column.type)
        number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
        if not (text if column.name in TEXT else number):
            raise ValueError(f"its column {column.name} is {column.type}")


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except Exception as error:
        raise CorruptResult(f"{path} cannot be read: {_short(error)}; restore it or delete its folder") from None


def _write_weights(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        safetensors.torch.save_file(tensors, path)
    except safetensors.SafetensorError as error:  # of a full disk, too
        raise OSError(f"{path} cannot be written: {error}") from None
