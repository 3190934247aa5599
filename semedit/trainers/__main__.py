"""`python -m semedit.trainers NAME --data DIR --run DIR --minutes M`: training without the CLI."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..methods import build
from . import TRAINERS
from .loop import Schedule, train


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m semedit.trainers")
    parser.add_argument("name", choices=sorted(TRAINERS))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--kimg", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", dest="options", action="append", default=[], metavar="NAME=VALUE")
    given = parser.parse_args()
    kind = TRAINERS[given.name]
    trainer = build(kind, given.options)
    schedule = Schedule(kimg=given.kimg, minutes=given.minutes)
    print(train(trainer, given.data, given.run, schedule, given.seed))


if __name__ == "__main__":
    main()
