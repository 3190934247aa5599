"""The folder loop on a Ray cluster of this machine: a head and two nodes, one of them killed."""

import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path

import grey_task
import numpy as np
import pytest
from typer.testing import CliRunner

from semedit.batch import Run
from semedit.batch.ray import Cluster, for_each_on_ray
from semedit.batch.workspace import Workspace
from semedit.cli.app import app
from semedit.errors import FailuresError, OptionError
from semedit.media.photographs import write_image
from semedit.tasks import run_task
from semedit.tasks.demo import examples

pytestmark = pytest.mark.localhost
COUNT = 36


@pytest.fixture
def raw(tmp_path):
    for i in range(COUNT):
        pixels = np.full((12, 10 + i, 3), 5 * i, np.uint8)
        write_image(tmp_path / "raw" / f"{i:02d}.png", pixels, mark=False)
    (tmp_path / "raw" / "bad.jpg").write_bytes(b"no picture")
    return tmp_path / "raw"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A cluster whose head computes nothing; nodes are added by the tests."""
    pytest.importorskip("ray", reason="needs the extra semedit[ray]")
    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    patch.setenv("RAY_TMPDIR", "/tmp")  # paths of sockets must be short
    patch.setenv("RAY_DISABLE_IMPORT_WARNING", "1")
    import ray
    from ray.cluster_utils import Cluster as Local

    memory = {"object_store_memory": 80 << 20}
    local = Local(initialize_head=True, head_node_args={"num_cpus": 0, **memory})
    ray.init(local.address, log_to_driver=False)
    yield lambda: local.add_node(num_cpus=1, **memory), local
    ray.shutdown()
    local.shutdown()
    patch.undo()


def some_node(cluster):
    """See to it that something computes; nodes take long to start on a busy machine."""
    import ray

    add, _ = cluster
    if not ray.cluster_resources().get("CPU"):
        add()


@pytest.mark.timeout(900)
def test_a_node_is_lost_and_nothing_else(cluster, raw, tmp_path):
    add, local = cluster
    nodes = [add(), add()]
    alone = Workspace(tmp_path / "alone")
    run_task(grey_task.Grey([str(raw)]), alone, grey_task.Watch())
    space, watch = Workspace(tmp_path / "work"), grey_task.Watch()

    log, at_work = tmp_path / "log", []

    def kill():
        deadline = time.monotonic() + 400
        while len(at_work) < 2 and time.monotonic() < deadline:  # both nodes are busy
            time.sleep(0.02)
            at_work[:] = set(log.read_text().split()) if log.exists() else ()
        local.remove_node(nodes[0], allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    task = grey_task.Grey([str(raw)], seconds=0.5, log=str(log))
    tally = run_task(task, space, watch, Cluster(gpus=False))
    killer.join()
    assert len(at_work) == 2
    assert (tally.done, tally.error, tally.total) == (COUNT, 1, COUNT + 1)
    assert len(watch.outcomes) == COUNT + 1  # a name that comes twice fails in Watch
    assert watch.outcomes["bad"].error["code"] == "input"
    assert grey_task.tree(space) == grey_task.tree(alone)
    again = run_task(task, space, grey_task.Watch(), Cluster(gpus=False))
    assert (again.uptodate, again.error) == (COUNT, 1)


def test_errors_come_back_from_the_nodes(cluster, raw, tmp_path):
    some_node(cluster)
    space = Workspace(tmp_path / "work")
    for i in range(4):
        (raw / f"bad{i}.png").write_bytes(b"")
    with pytest.raises(FailuresError):
        run_task(
            grey_task.Grey([str(raw)]),
            space,
            grey_task.Watch(),
            Cluster(gpus=False),
            max_failures=3,
        )


def test_without_ray_it_is_said_what_to_install(monkeypatch, tmp_path, raw):
    monkeypatch.setitem(sys.modules, "ray", None)
    task = grey_task.Grey([str(raw)])
    run = Run(Workspace(tmp_path / "work"), "grey")
    with pytest.raises(OptionError, match=r"semedit\[ray\]"):
        for_each_on_ray(run, task, grey_task.Watch(), Cluster())


def test_commands_run_on_a_cluster(cluster, tmp_path):
    """`align` itself, with one good file in a folder of its own, as a local run has it."""
    some_node(cluster)
    (tmp_path / "raw" / "sub").mkdir(parents=True)
    (tmp_path / "raw" / "bad.jpg").write_bytes(b"no picture")
    shutil.copyfile(examples()[0], tmp_path / "raw" / "sub" / "head.png")
    command = ["align", str(tmp_path / "raw"), "--device", "cpu", "--json", "--work"]
    spaces = [Workspace(tmp_path / name) for name in ("ray", "local")]
    for space, more in zip(spaces, (["--engine", "ray"], []), strict=True):
        result = CliRunner().invoke(app, [*command, str(space.root), *more])
        assert result.exit_code == 3, result.output
        lines = [json.loads(line) for line in result.stdout.splitlines()]
        assert {line["name"]: line["status"] for line in lines[:-1]} == {
            "bad": "error",
            "sub/head": "done",
        }
    assert grey_task.tree(spaces[0]) == grey_task.tree(spaces[1])
