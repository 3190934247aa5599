"""`semedit --help` must not feel like loading torch."""

import os
import subprocess
import sys
import time


def seconds(*command: str) -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    return time.perf_counter() - begun


def test_help_takes_at_most_two_fifths_of_importing_torch():
    tool = ("-c", "from semedit.cli import main; main()", "--help")
    torch = ("-c", "import torch")
    for command in (tool, torch):  # files into the cache
        seconds(*command)
    # The least of several alternating runs: other work on the machine only ever adds.
    pairs = [(seconds(*tool), seconds(*torch)) for _ in range(3)]
    ratio = min(p[0] for p in pairs) / min(p[1] for p in pairs)
    assert ratio <= 0.4, f"semedit --help takes {ratio:.2f} of `import torch`"


def test_help_does_not_load_torch():
    code = (
        "import sys; sys.argv = ['semedit', '--help']\n"
        "from semedit.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'numba', 'skimage', 'scipy'} & set(sys.modules), sorted(sys.modules)"
    )
    environment = os.environ | {"COLUMNS": "80"}
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=environment)


def test_commands_load_no_compiler_before_their_first_photograph(tmp_path):
    work = str(tmp_path / "work")
    code = (
        "import sys\n"
        "from semedit.media import decoding\n"
        "def stop(*arguments, **options):\n"
        "    loaded = {'numba', 'scipy', 'skimage', 'sklearn', 'torchvision'} & set(sys.modules)\n"
        "    print('loaded', sorted(loaded), flush=True)\n"
        "    raise SystemExit\n"
        "decoding._pool.call = stop\n"
        f"sys.argv = ['semedit', 'align', {str(tmp_path)!r}, '--work', {work!r}]\n"
        "from semedit.cli import main\n"
        "main()\n"
    )
    (tmp_path / "face.png").write_bytes(b"")
    run = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert run.stdout.startswith("loaded []"), run.stdout + run.stderr[-500:]
