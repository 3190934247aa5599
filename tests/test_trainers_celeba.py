"""Trainers on CelebA and CelebAMask-HQ, from tiny folders in their published layouts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import semedit
from PIL import Image
from torch import Tensor

from semedit import weights
from semedit.datasets.celeba import CROP, read_celeba, read_picture
from semedit.datasets.celebamask import IMAGES, MASKS, mask_path, read_components, read_folder
from semedit.editors.parts.wanted import WantedAttributes
from semedit.errors import InputError, OptionError, WeightsError
from semedit.faces import attributes, components, deeplab
from semedit.faces.branched import TREE, BranchedNet, leaf_paths
from semedit.faces.components import COMPONENTS
from semedit.media.labels import ATTRIBUTES, CELEBA, attribute_flag
from semedit.options import build_method
from semedit.tasks import steps
from semedit.trainers import TRAINERS
from semedit.trainers.attributes import AttributeTrainer
from semedit.trainers.deeplab import DeepLabTrainer, _begin
from semedit.trainers.loop import Schedule, train

# The words of list_attr_celeba.txt, in its order.
LISTED = (
    "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose "
    "Black_Hair Blond_Hair Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee "
    "Gray_Hair Heavy_Makeup High_Cheekbones Male Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard "
    "Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks Sideburns Smiling Straight_Hair "
    "Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace Wearing_Necktie Young"
)


def celeba_folder(root: Path, n: int = 24, nested: bool = True) -> Path:
    """Those who smile are red in the middle."""
    images, lists, parts = (
        root / (name if nested else "") for name in ("Img/img_align_celeba", "Anno", "Eval")
    )
    if not nested:
        images = root / "img_align_celeba"
    for folder in (images, lists, parts):
        folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows, split = [str(n), LISTED], []
    for i in range(n):
        has = rng.random(40) < 0.5
        pixels = rng.integers(60, 90, (218, 178, 3)).astype(np.uint8)
        pixels[60:170, 40:140, 0] += 150 * np.uint8(has[LISTED.split().index("Smiling")])
        name = f"{i + 1:06d}.jpg"
        Image.fromarray(pixels).save(images / name, quality=95)
        rows.append(name + "".join(f" {1 if value else -1:2d}" for value in has))
        split.append(f"{name} {0 if i < n - 6 else 1 + i % 2}")
    (lists / "list_attr_celeba.txt").write_text("\n".join(rows) + "\n")
    (parts / "list_eval_partition.txt").write_text("\n".join(split) + "\n")
    return root


def test_the_tree_holds_celebas_forty() -> None:
    assert set(CELEBA) == {name.lower() for name in LISTED.split()} and len(CELEBA) == 40
    assert {name for known in leaf_paths(CELEBA).values() for name in known} == set(CELEBA)
    named = [n for twigs in TREE.values() for leaves in twigs.values() for n in leaves.values()]
    assert sorted(name for names in named for name in names) == list(CELEBA)
    assert sum(len(leaves) for twigs in TREE.values() for leaves in twigs.values()) == 10
    paths = leaf_paths(("smiling", "tall", "bald"))
    assert paths == {
        "face/features/mouth": ("smiling",),
        "face/person/who": ("tall",),
        "around/hair/cut": ("bald",),
    }


def test_every_logit_has_its_name() -> None:
    torch.manual_seed(0)
    names = ("wavy_hair", "smiling", "young", "bald", "eyeglasses")
    network = BranchedNet(names, size=32, width=4, hidden=8).eval()
    images = torch.randn(2, 3, 40, 40)
    logits = network(images)
    assert logits.shape == (2, 5)
    with torch.no_grad():
        network.leaves["around-hair-cut"][-1].bias += 1.0
    assert torch.allclose(network(images) - logits, torch.tensor([1.0, 0, 0, 1.0, 0]), atol=1e-5)
    copy = BranchedNet(**network.config).eval()
    copy.load_state_dict(network.state_dict())
    assert torch.equal(copy(images), network(images))


@pytest.mark.parametrize("nested", [True, False], ids=["published", "flat"])
def test_celeba_is_read(tmp_path: Path, nested: bool) -> None:
    listed = read_celeba(celeba_folder(tmp_path, nested=nested))
    assert listed.names == tuple(name.lower() for name in LISTED.split())
    assert listed.truth.shape == (24, 40) and set(listed.truth.unique().tolist()) == {0.0, 1.0}
    assert len(listed.train) == 18 and len(listed.held) == 3
    smiles = listed.truth[:, listed.names.index("smiling")]
    red = Tensor([read_picture(path, 16)[8, 8, 0] for path in listed.paths])
    assert (red > 150).eq(smiles > 0.5).all()


def test_aligned_pictures_are_cut_as_ffhq_is(tmp_path: Path) -> None:
    """The eyes and mouth of CelebA's mean landmarks land where FFHQ's crop has them."""
    left, top, right, bottom = CROP
    eyes, mouth = (
        np.array([[69.6, 111.2], [107.6, 111.3]]),
        np.array([[71.8, 152.6], [105.6, 152.6]]),
    )
    along, down = eyes[1] - eyes[0], mouth.mean(0) - eyes.mean(0)
    x = along - np.array([-down[1], down[0]])
    x *= max(np.hypot(*along) * 2, np.hypot(*down) * 1.8) / np.hypot(*x)
    middle = eyes.mean(0) + 0.1 * down
    assert middle == pytest.approx([(left + right) / 2, (top + bottom) / 2], abs=1.0)
    assert 2 * x[0] == pytest.approx(right - left, abs=1.0)
    pixels = np.zeros((218, 178, 3), np.uint8)
    pixels[39:192, 12:165] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png", 32).min() > 60
    Image.fromarray(pixels[:178]).save(tmp_path / "b.png")  # square: whole
    assert read_picture(tmp_path / "b.png", 32)[0, 0].max() == 0


def test_damaged_lists_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="list_attr_celeba"):
        read_celeba(tmp_path)
    root = celeba_folder(tmp_path / "a")
    (root / "Eval" / "list_eval_partition.txt").write_text("000001.jpg 0\n")
    with pytest.raises(InputError, match="part"):
        read_celeba(root)
    path = root / "Anno" / "list_attr_celeba.txt"
    path.write_text(path.read_text().replace(" -1", " 0"))
    with pytest.raises(InputError, match="other than"):
        read_celeba(root)
    path.write_text("1\nSmiling\n000001.jpg 1 1\n")
    with pytest.raises(InputError, match="no list"):
        read_celeba(root)
    path.write_text("1\nSmiling\n999999.jpg 1\n")
    with pytest.raises(InputError, match="999999"):
        read_celeba(root)


def test_schedules_are_those_of_the_paper() -> None:
    whole = AttributeTrainer.schedule.sized(162_770)
    assert whole.kimg == pytest.approx(23 * 162.77)
    rates = [0.05 * whole.rate(step, 0.5) for step in (0, 39_999, 40_000, 80_000)]
    assert rates == pytest.approx([0.05, 0.05, 0.005, 0.0005])
    assert AttributeTrainer().lr == 0.05 and AttributeTrainer().optimiser == "adam"
    segmenter = DeepLabTrainer.schedule.sized(28_500)
    assert segmenter.kimg == pytest.approx(5 * 28.5) and DeepLabTrainer().lr == 3e-4
    assert [segmenter.rate(step, p) for step, p in ((0, 0.0), (9000, 0.9))] == [1.0, 1.0]
    with pytest.raises(OptionError):
        Schedule()


def test_attributes_are_learned_and_then_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEMEDIT_WEIGHTS", str(tmp_path / "own"))
    trainer = build_method(
        TRAINERS["attributes"], ["size=32", "width=6", "batch_size=6", "lr=0.003"]
    )
    run = tmp_path / "run"
    schedule = replace(trainer.schedule, epochs=20)
    figures = train(trainer, celeba_folder(tmp_path / "data"), run, schedule, quiet=True)
    assert set(figures) == {"attribute_accuracy", "attribute_balanced_accuracy"}
    with pytest.raises(WeightsError):
        attributes.load_classifier("branched")
    weights.add("attributes", run / "attributes.safetensors")
    classify = attributes.load_classifier()
    assert classify.name == "branched"
    listed = read_celeba(tmp_path / "data")
    images = torch.stack(
        [torch.from_numpy(read_picture(p, 64).copy()).permute(2, 0, 1) for p in listed.paths]
    )
    logits = classify(images / 127.5 - 1)
    assert logits.shape == (24, 40) and set(classify.names) == set(CELEBA)
    smiles = listed.truth[:, listed.names.index("smiling")] > 0.5
    found = logits[:, classify.names.index("smiling")] > 0
    assert (found == smiles)[listed.train].float().mean() > 0.9
    with pytest.raises(OptionError, match="judge"):
        attributes.load_classifier("judge")


def test_a_classifier_is_asked_for_what_it_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEMEDIT_WEIGHTS", str(tmp_path))
    attributes.require_known(["smiling"])
    with pytest.raises(OptionError, match="builtin does not know goatee") as error:
        steps.attributes({"goatee": True}).task()
    assert error.value.hint == f"it knows {', '.join(ATTRIBUTES)}"
    torch.manual_seed(0)
    network = BranchedNet(("goatee", "smiling"), size=32, width=2, hidden=4).eval()
    config = '{"names": ["goatee", "smiling"], "size": 32, "width": 2, "hidden": 4}'
    kind = {"kind": "attributes", "config": config}
    weights.save(tmp_path / "attributes.safetensors", network.state_dict(), kind)
    assert attributes.known_attributes() == attributes.load_classifier().names
    assert steps.attributes({"goatee": True}, "pernus").task().wanted == {"goatee": True}
    with pytest.raises(OptionError, match="branched does not know young") as error:
        steps.attributes({"goatee": True, "young": False}).task()
    assert error.value.hint == "it knows goatee, smiling"
    steps.attributes({"young": False}, options=["classifier=builtin"]).task()
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    found = WantedAttributes(attributes.load_classifier(), {"smiling": False, "goatee": True})
    expected = attributes.load_classifier()(images)
    assert torch.equal(found(images), torch.stack([-expected[:, 1], expected[:, 0]], 1))


def test_all_of_celebas_attributes_can_be_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEMEDIT_WEIGHTS", str(tmp_path / "own"))
    for name in CELEBA:
        for yes in (True, False):
            flag = attribute_flag(name, yes)
            said = semedit("attr", flag, "-o", "classifier=x", "--work", tmp_path, code=2)
            assert "no classifier is called 'x'" in said, flag
    said = semedit("attr", "--5-o-clock-shadow", "--work", tmp_path, code=2)
    assert "the classifier builtin does not know 5_o_clock_shadow" in " ".join(said.split())


# --- CelebAMask-HQ ---------------------------------------------------------------------------


def mask_folder(root: Path, n: int = 6) -> Path:
    """Grey skin with a red nose and, in half of them, a hat of two colours above."""
    (root / IMAGES).mkdir(parents=True)
    for i in range(n):
        number = i if i < n - 1 else 2001  # the last lies in the second folder of masks
        pixels = np.full((64, 64, 3), 20, np.uint8)
        pixels[20:60, 10:54] = 120
        pixels[36:44, 28:36] = (250, 20, 20)
        Image.fromarray(pixels).save(root / IMAGES / f"{number}.jpg", quality=95)
        parts = {"skin": (slice(20, 60), slice(10, 54)), "nose": (slice(36, 44), slice(28, 36))}
        if i % 2:
            parts["hair"] = (slice(10, 24), slice(10, 54))
        for part, box in parts.items():
            mask = np.zeros((32, 32), np.uint8)
            mask[box[0].start // 2 : box[0].stop // 2, box[1].start // 2 : box[1].stop // 2] = 255
            path = mask_path(root, number, part)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).convert("RGB").save(path)
    return root


def test_parts_become_components(tmp_path: Path) -> None:
    root = mask_folder(tmp_path)
    assert read_folder(root) == [0, 1, 2, 3, 4, 2001]
    assert mask_path(root, 2001, "skin").parent.name == "1"
    names = list(COMPONENTS)
    found = read_components(root, 1, 64)
    assert found[0, 0] == names.index("background") and found[50, 30] == names.index("skin")
    assert found[40, 32] == names.index("nose")
    assert found[22, 30] == names.index("hair")  # hair comes after skin
    (root / MASKS / "0" / "00001_nose.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="nose"):
        read_components(root, 1, 64)
    with pytest.raises(InputError, match="CelebAMask-HQ"):
        read_folder(tmp_path / "other")


def test_components_are_learned_and_then_segmented(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEMEDIT_WEIGHTS", str(tmp_path / "own"))
    trainer = DeepLabTrainer(batch_size=2, size=64, body="mobilenet", lr=2e-3)
    root = mask_folder(tmp_path / "data")
    run = tmp_path / "run"
    schedule = replace(trainer.schedule, epochs=2)
    figures = train(trainer, root, run, schedule, quiet=True)
    assert 0 <= figures["component_miou"] <= 1
    log = [line for line in (run / "log.jsonl").read_text().splitlines() if "loss" in line]
    assert log
    assert components.load_segmenter().name == "builtin"
    weights.add("deeplab", run / "deeplab.safetensors")
    segment = components.load_segmenter()
    assert segment.name == "deeplab"
    found = segment(torch.zeros(1, 3, 48, 48))
    assert found.shape == (1, 8, 48, 48) and torch.allclose(found.sum(1), torch.ones(1, 48, 48))


def test_a_body_starts_from_a_classifiers_weights(tmp_path: Path) -> None:
    network = deeplab.DeepLab(8, 64, "mobilenet")
    body = network.network.backbone
    state = {f"features.{k}": torch.full_like(v, 2) for k, v in body.state_dict().items()}
    torch.save({**state, "classifier.0.bias": torch.zeros(3)}, tmp_path / "x.pth")
    _begin(network, tmp_path / "x.pth")
    assert all(bool((v == 2).all()) for v in body.state_dict().values())
    torch.save({"features.0.0.weight": state["features.0.0.weight"]}, tmp_path / "x.pth")
    with pytest.raises(InputError, match="lacks"):
        _begin(network, tmp_path / "x.pth")
    with pytest.raises(OptionError):
        deeplab.DeepLab(8, 64, "resnet18")
