"""The table, verified files, downloads from a server of our own, tensors on disk."""

import hashlib
import http.server
import json
import pickle
import threading
import urllib.error
import urllib.request
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from semedit import weights
from semedit.cli.app import app
from semedit.errors import WeightsError
from semedit.trainers.cnerf import CNeRFTrainer
from semedit.trainers.l2sae import L2SAETrainer
from semedit.trainers.semfaceedit import SemFaceEditTrainer

CONTENT = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMEDIT_WEIGHTS", str(tmp_path / "weights"))


# The table ---------------------------------------------------------------------------------------


def test_the_table_reads_and_names_what_is_needed():
    rows = weights.table()
    assert {"heads-128", "landmarks", "faces", "judge", "encoder", "ict-facekit"} <= set(rows)
    assert all(row.licence and row.use for row in rows.values())
    assert len([f for f, _, _ in rows["ict-facekit"].files if f.endswith(".obj")]) == 158
    for row in rows.values():
        assert row.kind == "builtin" or row.url.startswith("https://")


def test_rows_stand_together_by_what_one_wants():
    rows = weights.table().values()
    assert all(row.group for row in rows)
    told = CliRunner().invoke(app, ["weights", "list"], env={"COLUMNS": "200"}).output
    places = [told.index(row.group) for row in rows]
    for row, place in zip(rows, places, strict=True):
        later = [p for p in places if p > place]
        assert place < told.index(f"│ {row.name} ") < min(later, default=len(told)), row.name


@pytest.mark.parametrize("trainer", [L2SAETrainer, SemFaceEditTrainer, CNeRFTrainer])
def test_what_a_trainer_makes_has_a_row_that_names_it(trainer):
    row = weights.row(trainer().output)
    assert row.kind == "builtin"
    assert weights.how_to_get(row).startswith(f"semedit train {trainer.name} makes them")


GOOD = """[a]
kind = "library"
file = "a.pth"
url = "https://example.org/a.pth"
sha256 = "0123456789"
licence = "MIT"
use = "x"
"""


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"a.pth"', '"../a.pth"', "safe file name"),
        ('"a.pth"', '"/etc/a.pth"', "safe file name"),
        ('"a.pth"', '".a"', "safe file name"),
        ("https:", "http:", "https"),
        ('"0123456789"', '"01234"', "sha256"),
        ('"0123456789"', '"x123456789"', "sha256"),
        ('sha256 = "0123456789"', "", "sha256"),
        ('"library"', '"magic"', "kind"),
        ('"https://example.org/a.pth"', "3", "url = 3 is no str"),
        ('sha256 = "0123456789"', "sha256 = 123456789", "no str"),
        ('licence = "MIT"', 'licence = "MIT"\nbytes = "many"', "no int"),
        ('licence = "MIT"', "licence = true", "no str"),
        ('use = "x"', "", "use"),
        ("[a]", "[a", "weights.toml"),
        ("use =", "uses =", "uses"),
        ("[a]", "[a]\n[a]", "weights.toml"),
        ("[a]", "a = 1\n[b]", "not a table"),
        ("[a]", '["a/b"]', "safe file name"),
        ("[a]", 'files = [["../x", 1, "00"]]', "not a table"),
    ],
)
def test_bad_tables_are_refused(old, new, says):
    assert weights.read_table(GOOD)["a"].sha256 == "0123456789"
    with pytest.raises(WeightsError, match=says):
        weights.read_table(GOOD.replace(old, new))


def test_rows_must_not_share_a_file():
    with pytest.raises(WeightsError, match="share"):
        weights.read_table(GOOD + GOOD.replace("[a]", "[b]").replace('"a.pth"', '"A.PTH"'))


def test_asset_files_are_checked_too():
    asset = GOOD.replace("library", "asset") + f'files = [["../x", 1, "{SHA256}"]]\n'
    with pytest.raises(WeightsError, match="safe file name"):
        weights.read_table(asset)


# Files -------------------------------------------------------------------------------------------


def test_a_missing_file_says_how_to_get_it():
    with pytest.raises(WeightsError) as caught:
        weights.resolve("alexnet")
    text = str(caught.value)
    assert "semedit weights fetch alexnet" in text and "alexnet-owt-7be5be79.pth" in text
    assert not weights.on_disk("alexnet")


def test_an_unknown_name_brings_suggestions():
    with pytest.raises(WeightsError, match="did you mean alexnet"):
        weights.resolve("alexnett")


def test_add_checks_before_it_copies(tmp_path):
    wrong = tmp_path / "alexnet.pth"
    wrong.write_bytes(CONTENT)
    with pytest.raises(WeightsError, match="sha256"):
        weights.add("alexnet", wrong)
    assert not weights.folder().exists()


def test_a_changed_file_is_noticed(tmp_path, monkeypatch):
    row = weights.Row("own", "library", "own.pth", "x", "MIT", "https://e.org/", SHA256)
    monkeypatch.setitem(weights.table(), "own", row)
    good = tmp_path / "good"
    good.write_bytes(CONTENT)
    target = weights.add("own", good)
    assert weights.resolve("own") == target
    target.write_bytes(CONTENT[:-1])
    with pytest.raises(WeightsError, match="sha256"):
        weights.resolve("own")


def test_library_files_go_where_the_library_looks(tmp_path, monkeypatch):
    row = weights.Row(
        "own", "library", "own.pth", "x", "MIT", "https://e.org/", SHA256, looks="torch-hub"
    )
    monkeypatch.setitem(weights.table(), "own", row)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    good = tmp_path / "good"
    good.write_bytes(CONTENT)
    weights.add("own", good)
    placed = weights.place("own")
    assert placed == tmp_path / "torch" / "hub" / "checkpoints" / "own.pth"
    assert placed.read_bytes() == CONTENT
    weights.resolve("own").unlink()
    assert weights.resolve("own") == placed == weights.place("own")


def test_broken_files_are_told_apart(shared):
    folder = shared / "real" / "weights"
    with pytest.raises(WeightsError, match="web page"):
        weights.add("alexnet", folder / "NEGATIVE_html_page_named_yunet_2023mar.onnx")
    with pytest.raises(WeightsError, match="LFS pointer"):
        weights.add("alexnet", folder / "NEGATIVE_lfs_pointer_yunet_2023mar.onnx")
    with pytest.raises(WeightsError, match="not run"):
        weights.load_pickle(folder / "NEGATIVE_weights_only_numpy_scalar_fsanet1x1.chkpt")
    target = weights.add("retinaface-mobilenet", folder / "detection_mobilenet0.25_Final.pth")
    assert len(weights.load_pickle(target)) > 100


# Downloads ---------------------------------------------------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT at /good with ranges, server.files, and the ways a download goes wrong."""

    def do_GET(self):
        self.server.requests.append((self.path, self.headers.get("Range")))
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/good")
            self.end_headers()
        elif self.path == "/page":
            self._send(b"<!DOCTYPE html><html>quota exceeded</html>")
        elif self.path == "/pointer":
            self._send(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
        elif self.path == "/cut":  # promises all, sends half, hangs up
            body = CONTENT[start : start + len(CONTENT) // 2]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(CONTENT) - start))
            self.end_headers()
            self.wfile.write(body)
        elif self.path == "/whole":  # knows no ranges
            self._send(CONTENT)
        elif self.path == "/around":
            self.send_response(302)
            self.send_header("Location", "/around")
            self.end_headers()
        elif self.path == "/good" and start >= len(CONTENT):
            self.send_error(416)
        elif self.path == "/good":
            self._send(CONTENT[start:], 206 if start else 200)
        elif self.path in self.server.files:
            self._send(self.server.files[self.path])
        else:
            self.send_error(404)

    def _send(self, body, status=200):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests, server.files = [], {}
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


@pytest.mark.localhost
def test_download_and_progress(server, tmp_path):
    seen = []
    target = tmp_path / "a" / "file.pth"
    weights.download(
        server.url + "/moved", target, SHA256[:10], progress=lambda *args: seen.append(args)
    )
    assert target.read_bytes() == CONTENT and leftovers(tmp_path) == ["file.pth"]
    assert seen[-1] == ("file.pth", len(CONTENT), len(CONTENT))
    weights.download(server.url + "/good", target, SHA256)
    assert len(server.requests) == 2  # the second call asked nothing


@pytest.mark.localhost
def test_a_download_cut_short_is_resumed(server, tmp_path):
    target = tmp_path / "file.pth"
    with pytest.raises(WeightsError, match="cut short"):
        weights.download(server.url + "/cut", target, SHA256)
    assert not target.exists()
    weights.download(server.url + "/good", target, SHA256)
    assert target.read_bytes() == CONTENT and leftovers(tmp_path) == ["file.pth"]
    assert server.requests[-1] == ("/good", f"bytes={len(CONTENT) // 2}-")


@pytest.mark.localhost
def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    (tmp_path / "file.pth.part").write_bytes(CONTENT[:1000])
    weights.download(server.url + "/whole", tmp_path / "file.pth", SHA256)
    assert (tmp_path / "file.pth").read_bytes() == CONTENT
    assert leftovers(tmp_path) == ["file.pth"]


@pytest.mark.localhost
def test_the_rest_of_another_file_is_refused_and_the_next_try_starts_anew(server, tmp_path):
    target = tmp_path / "file.pth"
    (tmp_path / "file.pth.part").write_bytes(b"x" * 1000)
    with pytest.raises(WeightsError, match="sha256"):
        weights.download(server.url + "/good", target, SHA256)
    assert leftovers(tmp_path) == []
    weights.download(server.url + "/good", target, SHA256)
    assert target.read_bytes() == CONTENT and server.requests[-1] == ("/good", None)


def test_a_redirect_does_not_leave_https():
    request = urllib.request.Request("https://example.org/a")
    for place, fine in (("https://mirror.example.org/a", True), ("http://example.org/a", False)):
        opener = weights.remote._StayHttps()
        follow = partial(opener.redirect_request, request, None, 302, "", {}, place)
        if fine:
            assert follow().full_url == place
        else:
            with pytest.raises(urllib.error.URLError, match="not https"):
                follow()


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(WeightsError, match="cannot fetch"):
        weights.download("https://example.org/a.pth", tmp_path / "file" / "a.pth", SHA256)


@pytest.mark.localhost
def test_a_complete_part_is_only_checked(server, tmp_path):
    (tmp_path / "file.pth.part").write_bytes(CONTENT)
    weights.download(server.url + "/good", tmp_path / "file.pth", SHA256)
    assert leftovers(tmp_path) == ["file.pth"]


@pytest.mark.localhost
@pytest.mark.parametrize(
    ("path", "digest", "says"),
    [
        ("/page", SHA256, "web page"),
        ("/pointer", SHA256, "LFS pointer"),
        ("/good", "00" * 32, "sha256"),
        ("/none", SHA256, "404"),
        ("/around", SHA256, "redirect|infinite loop"),
    ],
)
def test_wrong_downloads_leave_nothing(server, tmp_path, path, digest, says):
    with pytest.raises(WeightsError, match=says) as caught:
        weights.download(server.url + path, tmp_path / "file.pth", digest, len(CONTENT))
    assert leftovers(tmp_path) == []
    for told in (server.url + path, "1.0 MB", str(tmp_path / "file.pth")):
        assert told in caught.value.message


def mesh(points: np.ndarray) -> bytes:
    """A Wavefront mesh as the head model's repository writes them: two quads of two materials."""
    lines = ["# a stand-in", "mtllib ICTFaceModelMaterial.mtl"]
    lines += [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in points]
    lines += [f"vt {u / 4:.6f} {u % 2:.6f}" for u in range(4)]
    lines += ["usemtl M_Face", "f 1/1/1 2/2/2 3/3/3 4/4/4", "usemtl M_Teeth", "f 3/1 4/2 5/3 6/4"]
    return ("\n".join(lines) + "\n").encode()


@pytest.fixture
def repository(server, monkeypatch):
    """A stand-in for the head model's repository behind the row `ict-facekit`; its meshes."""
    numbers = np.random.default_rng(0)
    neutral = numbers.normal(0, 5, (6, 3)).round(3)
    names = [f"identity{i:03d}" for i in range(100)] + ["jawOpen", "browDown_L"]
    moved = {name: neutral + numbers.integers(-64, 64, (6, 3)) / 64 for name in names}
    files = {f"{name}.obj": mesh(points) for name, points in moved.items()}
    files |= {
        "generic_neutral_mesh.obj": mesh(neutral),
        "ICTFaceModelMaterial.mtl": b"newmtl M_Face\n",
        "vertex_indices.json": json.dumps({"idx_to_landmark_verts": [5, 0, 3]}).encode(),
    }
    server.files = {f"/at-commit/FaceXModel/{name}": body for name, body in files.items()}
    rows = tuple(
        (f"FaceXModel/{name}", len(body), hashlib.sha256(body).hexdigest())
        for name, body in sorted(files.items())
    )
    row = replace(weights.row("ict-facekit"), url=f"{server.url}/at-commit/", files=rows)
    monkeypatch.setattr(weights.rows, "table", lambda: {"ict-facekit": row})
    return neutral, moved


@pytest.mark.localhost
def test_the_head_geometry_is_fetched_and_converted(server, repository, tmp_path):
    neutral, moved = repository
    result = CliRunner().invoke(app, ["weights", "fetch", "ict-facekit"])
    assert result.exit_code == 0, result.output
    assert leftovers(tmp_path) == ["ict_facekit_light.npz"]  # the sources are done with
    with np.load(weights.resolve("ict-facekit")) as arrays:
        np.testing.assert_allclose(arrays["neutral"], neutral, atol=1e-6)
        assert arrays["triangles"].tolist() == [[0, 1, 2], [0, 2, 3], [2, 3, 4], [2, 4, 5]]
        assert arrays["triangle_uv"].tolist() == [[0, 1, 2], [0, 2, 3], [0, 1, 2], [0, 2, 3]]
        assert arrays["triangle_material"].tolist() == [0, 0, 1, 1]
        assert arrays["materials"].tolist() == ["M_Face", "M_Teeth"]
        assert arrays["expression_names"].tolist() == ["browDown_L", "jawOpen"]
        assert arrays["landmarks68"].tolist() == [5, 0, 3]
        for held, names in (
            ("identity", [f"identity{i:03d}" for i in range(100)]),
            ("expression", ["browDown_L", "jawOpen"]),
        ):
            differences = np.stack([moved[name] - neutral for name in names])
            np.testing.assert_allclose(arrays[held], differences, atol=2e-3)
    asked = len(server.requests)
    assert CliRunner().invoke(app, ["weights", "fetch", "ict-facekit"]).exit_code == 0
    assert len(server.requests) == asked  # it is there


@pytest.mark.localhost
def test_one_wrong_file_of_the_head_geometry_is_refused(server, repository, tmp_path):
    path = "/at-commit/FaceXModel/identity042.obj"
    good = server.files[path]
    server.files[path] = good.replace(b"v ", b"v 1")
    result = CliRunner().invoke(app, ["weights", "fetch", "ict-facekit"])
    assert result.exit_code == 1 and "identity042.obj" in result.output
    assert not (tmp_path / "weights" / "ict_facekit_light.npz").exists()
    server.files[path], asked = good, len(server.requests)
    assert CliRunner().invoke(app, ["weights", "fetch", "ict-facekit"]).exit_code == 0
    again = [place for place, _ in server.requests[asked:]]
    assert again[0] == path and len(again) < len(server.files)  # what was right is kept


def test_offline_says_what_to_do(tmp_path):
    with pytest.raises(WeightsError) as caught:
        weights.download("https://example.org/x.pth", tmp_path / "x.pth", SHA256, 2_000_000)
    text = str(caught.value)
    assert "https://example.org/x.pth" in text and "2.0 MB" in text and str(tmp_path) in text


# Tensors -----------------------------------------------------------------------------------------


def test_tensors_round_trip_and_bytes_repeat(tmp_path):
    tensors = {"b": torch.randn(3, 4), "a": torch.arange(5), "c": torch.randn(2).double()}
    metadata = {"seed": "0", "kind": "test", "config": "{}", "data": "ä"}
    for name in ("one", "two"):
        weights.save(tmp_path / f"{name}.safetensors", tensors, metadata)
    one, two = (tmp_path / f"{n}.safetensors" for n in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    loaded, found = weights.load(one)
    assert found == metadata
    assert loaded["b"].dtype == torch.float32 and loaded["a"].dtype == torch.int64
    torch.testing.assert_close(loaded["b"], tensors["b"].half().float())
    weights.save(one, tensors, {}, half=False)
    assert torch.equal(weights.load(one)[0]["b"], tensors["b"])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_values_that_do_not_fit_are_refused(tmp_path, value):
    with pytest.raises(WeightsError, match="finite"):
        weights.save(tmp_path / "x.safetensors", {"a": torch.tensor([value])}, {})
    assert leftovers(tmp_path) == []


def test_a_cut_safetensors_file_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    weights.save(path, {"a": torch.randn(100)}, {})
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(WeightsError, match="whole safetensors"):
        weights.load(path)


def test_own_weights_are_added_under_their_name(tmp_path):
    path = tmp_path / "x.safetensors"
    weights.save(path, {"a": torch.randn(100)}, {"kind": "mine"})
    weights.add("mine", path)
    assert weights.load("mine")[1] == {"kind": "mine"}
    with pytest.raises(WeightsError, match="safe file name"):
        weights.add("../mine", path)


class Trap:
    def __reduce__(self):
        return (Path.touch, (Path("sprung"),))


def test_torchscript_is_not_run(tmp_path):
    path = tmp_path / "x.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(path))
    with pytest.raises(WeightsError, match="not run"):
        weights.load_pickle(path)
    result = CliRunner().invoke(app, ["weights", "import", str(path), "--name", "x"])
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.output
    assert not (weights.folder() / "x.safetensors").exists()


@pytest.mark.parametrize(
    "content", [pickle.dumps(Trap()), b"", b"junk", pickle.dumps({"a": 1})[:9]]
)
def test_pickles_with_code_are_not_run(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="not run"):
        weights.load_pickle(path)
    assert not (tmp_path / "sprung").exists()


def test_plain_checkpoints_are_read(tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"state_dict": {"a": torch.ones(2)}, "steps": 3}, path)
    assert weights.load_pickle(path)["steps"] == 3
    np.save(tmp_path / "y.npy", np.ones(2))


def test_tensors_of_another_network_are_refused_by_name():
    network = torch.nn.Linear(2, 3)
    held = {"weight": torch.zeros(3, 4), "scale": torch.zeros(1)}
    with pytest.raises(
        WeightsError, match=r"1 missing \(bias\), 1 unknown \(scale\), 1 of another"
    ):
        weights.fill(network, held, "some")
    weights.fill(network, {"weight": torch.ones(3, 2), "bias": torch.zeros(3)}, "some")
    assert float(network.weight.detach().sum()) == 6
