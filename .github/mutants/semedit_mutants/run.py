"""`mutants [NAME ...]`: mutates modules on a copy of the checkout, prints what survived."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosmic_ray.commands import init
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome, WorkItem

WARM = Path(__file__).with_name("warm.py")
COPIED = ("semedit", "tests", "examples", "pyproject.toml", "README.md", "weights.toml")


@dataclass(frozen=True)
class Target:
    """A module and the tests that guard it, of targets.toml."""

    module: str
    tests: list[str]
    equivalent: list[str]  # mutated lines that change nothing


def targets(file: Path) -> dict[str, Target]:
    """Name -> target: the module's path without semedit/ and .py."""
    found = tomllib.loads(file.read_text("utf-8"))["target"]
    return {
        one["module"].removeprefix("semedit/").removesuffix(".py"): Target(
            one["module"], one["tests"], [e["line"] for e in one.get("equivalent", [])]
        )
        for one in found
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="modules (losses, editors/pernus); none: all")
    parser.add_argument("--lines", help="only mutants of these lines: 10-40")
    parser.add_argument("--every", type=int, default=1, help="only each so many-th mutant")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="the checkout")
    parser.add_argument("--seconds", type=float, default=60, help="that tests of a mutant may take")
    asked = parser.parse_args()
    config = tomllib.loads((asked.root / ".github/mutants/targets.toml").read_text("utf-8"))
    known = targets(asked.root / ".github/mutants/targets.toml")
    names = [name for name in known if any(name.startswith(a) for a in asked.names or [""])]
    rows, left = [], 0
    with tempfile.TemporaryDirectory() as folder:
        root, address = Path(folder) / "copy", str(Path(folder) / "socket")
        for name in COPIED:
            copy = shutil.copytree if (asked.root / name).is_dir() else shutil.copy
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            copy(asked.root / name, root / name)
        environment = {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
        server = subprocess.Popen(
            [sys.executable, str(WARM), "serve", address, str(root)],
            env=os.environ | environment,
        )
        try:
            while not Path(address).exists():
                if server.poll() is not None:
                    sys.exit("the process that runs the tests did not start")
                time.sleep(0.1)
            for name in names:
                row, survived = _mutated(root, address, known[name], config, asked)
                rows.append(f"| {name} | {row} |")
                print(rows[-1], flush=True)
                left += survived
        finally:
            server.kill()
    print("| file | mutants | killed | equivalent | survived |\n" + "\n".join(rows))
    sys.exit(bool(left))


def _mutated(
    root: Path, address: str, target: Target, config: dict[str, Any], asked: argparse.Namespace
) -> tuple[str, int]:
    command = f"{sys.executable} -I {WARM} ask {address} {' '.join(target.tests)}"
    if subprocess.run([*command.split(), "--first"]).returncode:
        sys.exit(f"{' '.join(target.tests)}: fails without any mutant")
    counts = {"killed": 0, "equivalent": 0, "survived": 0}
    module = root / target.module
    first, last = map(int, (asked.lines or "1-1000000").split("-"))
    with use_db(str(root / "session.sqlite"), WorkDB.Mode.create) as session:
        init([module], session, {})
        items = [i for i in session.pending_work_items if _wanted(i, config["operators"])]
        items = [i for i in items if first <= i.mutations[0].start_pos[0] <= last]
    original = module.read_text("utf-8")
    print(f"{target.module}: {len(items)} mutants", file=sys.stderr, flush=True)
    for item in sorted(items, key=lambda i: i.mutations[0].start_pos)[:: asked.every]:
        result = mutate_and_test(item.mutations, command, asked.seconds)
        module.write_text(original, "utf-8")
        diff = [line for line in (result.diff or "").splitlines()[3:] if line[:1] in "+-"]
        if not diff:
            continue  # no mutant
        new = [line[1:].strip() for line in diff if line[0] == "+"]
        if result.test_outcome is not TestOutcome.SURVIVED:
            counts["killed"] += 1
        elif any(line in target.equivalent for line in new):
            counts["equivalent"] += 1
        else:
            counts["survived"] += 1
            at = item.mutations[0].start_pos[0]
            print(f"{target.module}:{at} {item.mutations[0].operator_name}", *diff, sep="\n  ")
            sys.stdout.flush()
    (root / "session.sqlite").unlink(missing_ok=True)
    numbers = [sum(counts.values()), *counts.values()]
    return " | ".join(map(str, numbers)), counts["survived"]


def _wanted(item: WorkItem, operators: list[str]) -> bool:
    return all(mutation.operator_name in operators for mutation in item.mutations)


if __name__ == "__main__":
    main()
