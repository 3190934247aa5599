"""One descent step of EG3D's codes at 512 pixels, in a process of its own; a line on stdin runs one
more.

    python tests/benchmarks/eg3d_steps.py full|coarse

"full" draws the picture at 512 pixels, "coarse" ends at the 64 of the volume rendering. Each prints
the CPU seconds (user and system) of a step and the greatest resident size so far, as JSON.
"""

from __future__ import annotations

import json
import resource
import sys

import torch

from semedit import cameras
from semedit.generators.triplane.eg3d import EG3D, EG3DConfig
from semedit.runtime.allocator import keep_freed_memory
from tests.benchmarks.stylegan2_steps import cpu_seconds

SIDES = {"full": None, "coarse": 64}


def main(kind: str) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    torch.manual_seed(0)
    generator = EG3D(EG3DConfig()).eval().requires_grad_(False)
    ws = torch.randn(1, generator.num_ws, 512, requires_grad=True)
    c = cameras.orbit(0.2, 0.1)
    adam = torch.optim.Adam([ws], 1e-3)
    for _ in sys.stdin:
        begun = cpu_seconds()
        image = generator.synthesis({"ws": ws}, c, resolution=SIDES[kind]).image
        adam.zero_grad()
        image.square().mean().backward()
        adam.step()
        seconds = cpu_seconds() - begun
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps({"seconds": seconds, "mebibytes": peak // 1024}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
