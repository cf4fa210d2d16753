"""The architecture, held: imports point upstream only, and a heavy library has one owner."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import featstore
import heads

ROOT = Path(__file__).parent.parent

# Downstream from the top: a module may import only modules of the rows above its own. A package counts as one.
LADDER = [
    ["errors", "records", "versions", "formats", "telemetry", "wording", "zips", "processes", "streams"],
    ["folders", "progress"],
    ["spec", "whole", "bounds", "objects"],
    ["cloud"],
    ["catalog", "dataset", "decode", "augmentation"],
    ["scan", "machine"],
    ["weights"],
    ["backbone"],
    ["runtime", "store"],
    ["cached", "calibration"],
    ["known", "table", "job"],
    ["rates", "keeping", "shuffling", "scale"],
    ["planning", "extraction"],
    ["api", "features", "fetch", "garbage", "neighbours", "online", "recompute", "top5"],
    ["transformer", "doctor", "show", "command", "options"],
    ["arguments", "show_scale"],
    ["cli"],
    ["__main__"],
]

# The same inside heads; modules of one package may import each other.
HEADS_LADDER = [
    ["kinds"],
    ["evaluation"],
    ["bundles"],
    ["training"],
    ["live"],
    ["predict", "demo_images", "notes"],
    ["report"],
    ["apply", "augmented", "compose", "demo"],
    ["evaluate", "submit", "export"],
    ["contest"],
    ["service"],
    ["cli_apply", "cli_bundles", "cli_live", "cli_serve"],
    ["cli"],
]

OWNERS = {
    "PIL": {"featstore.decode"},
    "keras": {
        "featstore.backbone",
        "featstore.weights.",
        "featstore.runtime.tensorflow",
        "heads.kinds.dense_training",
        "heads.live.",
        "heads.export.",
    },
    "tensorflow": {
        "featstore.backbone",
        "featstore.runtime.tensorflow",
        "heads.kinds.dense_training",
        "heads.live.",
        "heads.export.formats",
    },
    "openvino": {
        "featstore.runtime.graph_files",
        "featstore.runtime.openvino",
        "featstore.weights.package_index",
        "heads.export.formats",
    },
    "nncf": {"featstore.runtime.calibrate"},
    "fastapi": {"heads.service.app", "heads.service.routes."},
    "pydantic": {"heads.service.answers"},
    "blake3": {"featstore.store.names"},
    "starlette": {"heads.service."},
    "uvicorn": {"heads.service.run"},
    "prometheus_client": {"heads.service.metrics"},
    "onnx": {"heads.export.formats"},
    "onnxruntime": {"heads.export.formats"},
    "tf2onnx": {"heads.export.formats"},
    "h5py": {"featstore.store."},
    "hdf5plugin": {"featstore.store."},
    "pyarrow": {"featstore.extraction.ray_worker", "featstore.store.parquet"},
    "ray": {"featstore.extraction.ray_cluster"},
    "fsspec": {"featstore.cloud"},
    "sklearn": {"heads.", "featstore.transformer"},
    "typer": {
        "cli",
        "featstore.cli",
        "featstore.command",
        "featstore.options",
        "heads.cli",
        "heads.cli_apply",
        "heads.cli_bundles",
        "heads.cli_live",
        "heads.cli_serve",
    },
    "matplotlib": {"heads.contest.show", "heads.report.canvas", "heads.report.contact", "heads.report.plots"},
    "jinja2": {"heads.report.html"},
    "rich": {
        "featstore.arguments",
        "featstore.show",
        "featstore.show_scale",
        "featstore.progress",
        "heads.contest.show",
        "heads.report.",
    },
    "skimage": {"heads.demo_images"},
}

HEAVY = (
    "PIL",
    "keras",
    "tensorflow",
    "openvino",
    "h5py",
    "nncf",
    "sklearn",
    "pandas",
    "pyarrow",
    "ray",
    "fsspec",
    "s3fs",
    "gcsfs",
    "botocore",
    "matplotlib",
    "jinja2",
)


def modules() -> list[tuple[str, Path]]:
    files = [ROOT / "cli.py", *sorted((ROOT / "featstore").rglob("*.py")), *sorted((ROOT / "heads").rglob("*.py"))]
    return [(".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), f) for f in files]


def imports_of(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    guarded = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module if node.module not in ("featstore", "heads") else f"{node.module}.{node.names[0].name}"


def rung(module: str) -> int | None:
    package, _, rest = module.partition(".")
    ladder = {"featstore": LADDER, "heads": HEADS_LADDER}[package]
    return next((i for i, row in enumerate(ladder) if rest.split(".")[0] in row), None)


def test_every_module_stands_on_a_ladder() -> None:
    lost = [name for name, _ in modules() if "." in name and rung(name) is None]
    assert lost == []


@pytest.mark.parametrize(("name", "path"), modules(), ids=[m for m, _ in modules()])
def test_an_import_points_only_upstream(name: str, path: Path) -> None:
    if name in ("cli", "featstore", "heads"):  # cli is the top; a door names what is behind it, and loads it on use
        return
    package, part = name.split(".")[:2]
    for imported in imports_of(path):
        top, _, rest = imported.partition(".")
        assert top != "cli" or name == "featstore.__main__", f"{name} imports the command line"
        assert (package, top) != ("featstore", "heads"), f"{name} imports {imported}"
        if top == package and rest and rest.split(".")[0] != part:
            mine, theirs = rung(name), rung(imported)
            assert theirs is not None, f"{name} imports {imported}, which is not on the ladder"
            assert mine is not None
            assert theirs < mine, f"{name} imports {imported}, which is not upstream of it"


@pytest.mark.parametrize(("name", "path"), modules(), ids=[m for m, _ in modules()])
def test_a_heavy_library_has_one_owner(name: str, path: Path) -> None:
    for imported in imports_of(path):
        by_the_back_door = imported == "featstore.weights.keras_io"  # its import_keras
        owners = OWNERS.get("keras" if by_the_back_door else imported.split(".")[0])
        if owners is not None:
            assert any(name == o or (o.endswith(".") and f"{name}.".startswith(o)) for o in owners), (
                f"{name} imports {imported}, which belongs to {', '.join(sorted(owners))}"
            )


HELP = "import cli, sys; sys.argv = ['featstore', '--help']; cli.app()"


@pytest.mark.parametrize("code", ["import featstore", "import heads", "import cli", HELP])
def test_the_doors_load_no_heavy_library(code: str) -> None:
    report = f"import atexit, sys; atexit.register(lambda: print('LOADED', [m for m in {HEAVY} if m in sys.modules]))"
    check = f"{report}; {code}"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip().endswith("LOADED []"), done.stdout[-300:]


@pytest.mark.parametrize("package", [featstore, heads], ids=["featstore", "heads"])
def test_the_public_door_opens_every_name_and_only_those(package: ModuleType) -> None:
    assert all(getattr(package, name) is not None for name in package.__all__)
    assert sorted(package._HOMES) == [name for name in package.__all__ if name != "__version__"]
    assert dir(package) == sorted(package.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = package.nonsense
