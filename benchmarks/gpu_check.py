"""What a GPU gets to see before it is trusted: the tests marked cuda, then `affuse bench extract`, from a checkout.

    python benchmarks/gpu_check.py run --video-dir VIDEOS

For a machine without a package index, what it lacks is collected on another, where affuse is installed:

    python benchmarks/gpu_check.py pack WHEELS --there LIST    # LIST: what `pip list --format=freeze` says over there
    python benchmarks/gpu_check.py run --video-dir VIDEOS --wheels WHEELS
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from importlib.metadata import requires, version
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
NEEDED = ("affuse", "hypothesis", "pytest", "scikit-image")  # the package, and what its tests take
GLIBC = ("2_34", "2_28", "2_17", "2_12", "2_5")  # of the platforms whose wheels a machine takes
MARKED = "test_cuda.py"
LIMIT = 480  # s for tests and measurement
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")


def lacking(there: set[str], python: str) -> dict[str, str]:
    """What affuse and its tests need on Linux beyond `there`, as {name: version installed here}."""
    found, seen, todo = {}, set(), [Requirement(name) for name in NEEDED]
    while todo:
        need = todo.pop()
        name, key = canonicalize_name(need.name), (need.name, *need.extras)
        if name in there or key in seen:
            continue
        seen.add(key)
        found[name] = version(name)
        for below in map(Requirement, requires(name) or ()):
            target = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
            if not below.marker or any(below.marker.evaluate(target | {"extra": e}) for e in ("", *need.extras)):
                todo.append(below)
    return found


def pack(wheels: Path, there: Path, python: str) -> None:
    """Fill `wheels`, and say what it takes. Sources of packages without a wheel, and affuse's, are built here."""
    names = re.findall(r"^[\w.-]+", there.read_text(), re.MULTILINE)
    needed = lacking({canonicalize_name(name) for name in names}, python)
    pins = [f"{name}=={number}" for name, number in needed.items() if name != "affuse"]
    platforms = [f"--platform=manylinux_{glibc}_x86_64" for glibc in GLIBC]
    asked = (f"--python-version={python}", *platforms, "--no-deps", "--prefer-binary", "--dest", wheels)
    subprocess.run([*PIP, "download", *asked, *pins], check=True)
    shutil.rmtree(ROOT / "build" / "lib", ignore_errors=True)  # setuptools would pack what has since been removed
    sources = list(wheels.glob("*.tar.gz"))
    subprocess.run([*PIP, "wheel", "--no-deps", "--wheel-dir", wheels, ROOT, *sources], check=True)
    for source in sources:
        source.unlink()
    sizes = {path.name: path.stat().st_size / 2**20 for path in sorted(wheels.glob("*.whl"))}
    for name, size in sizes.items():
        print(f"{size:8.2f} MiB  {name}")
    print(f"{sum(sizes.values()):8.2f} MiB in all")


def run(video_dir: Path, device: str, out: Path, wheels: Path | None, more: list[str]) -> None:
    """Test and measure on `device`; `more` goes to `affuse bench extract`. Facts go to `out`/extract-<name>.json.

    Ends the process with a sentence where a test fails or is skipped, or time runs out.
    """
    end, environment = time.monotonic() + LIMIT, dict(os.environ)
    with TemporaryDirectory() as folder:  # worked in, so that nothing is imported from the checkout's folders

        def call(*command: str | Path) -> str:
            asked = [sys.executable, "-m", *map(str, command)]
            left = end - time.monotonic()
            options = {"cwd": folder, "env": environment, "stdout": subprocess.PIPE, "text": True}
            try:
                done = subprocess.run(asked, **options, timeout=left)
            except subprocess.TimeoutExpired:
                sys.exit(f"{' '.join(asked)} was stopped: {LIMIT} s are over. Fewer videos or --repeats 1 take less.")
            print(done.stdout, end="", flush=True)
            if done.returncode:
                sys.exit(f"{' '.join(asked)} failed with status {done.returncode}.")
            return done.stdout

        if wheels:
            site = Path(folder) / "site"
            offline = ("--no-index", "--no-deps", "--no-compile", "--target", site)
            subprocess.run([*PIP, "install", *offline, *wheels.resolve().glob("*.whl")], check=True)
            environment["PYTHONPATH"] = str(site)
        tested = call("pytest", "-rs", "-c", ROOT / "pyproject.toml", ROOT / "tests" / MARKED, "--device", device)
        if "skipped" in tested:
            sys.exit(f"Not every test ran on {device}; see above.")
        name = torch.cuda.get_device_name(device) if device != "cpu" else "cpu rehearsed"
        facts = (out / f"extract-{re.sub(r'[^a-z0-9]+', '-', name.lower())}.json").resolve()
        call("affuse", "bench", "extract", "--profile", "offline", "--allow-untrained", "--device", device,
             "--set", "modalities=[visual,audio]", "--video-dir", video_dir.resolve(), "--out", facts,
             *more)  # fmt: skip
    print(facts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack")
    packing.add_argument("wheels", type=Path)
    packing.add_argument("--there", type=Path, required=True)
    packing.add_argument("--python", default="3.12", help="of the machine without an index")
    running = commands.add_parser("run", epilog="Other options go to `affuse bench extract`.")
    running.add_argument("--video-dir", type=Path, required=True)
    running.add_argument("--device", default="cuda")
    running.add_argument("--out", type=Path, default=ROOT / "benchmarks")
    running.add_argument("--wheels", type=Path)
    options, more = parser.parse_known_args()
    given = vars(options)
    if given.pop("command") == "pack":
        pack(**given)
    else:
        run(**given, more=more)


if __name__ == "__main__":
    main()
