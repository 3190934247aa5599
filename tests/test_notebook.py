"""The ten lines of examples/from-python.md, on a photograph."""

import re
from pathlib import Path

import pytest

import semedit
from semedit.errors import OptionError

GUIDE = Path(__file__).resolve().parents[1] / "examples" / "from-python.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with portrait.jpg."""
    import skimage.data

    place = tmp_path_factory.mktemp("notebook")
    semedit.write_image(place / "portrait.jpg", skimage.data.astronaut(), mark=False)
    return place


def test_the_ten_lines_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (lines,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.S)
    quick = lines.replace("steps=24", "steps=1, tune_steps=1").replace("frames=24", "frames=3")
    assert quick != lines
    names: dict = {}
    exec(compile(quick, str(GUIDE), "exec"), names)
    faces, latent, smiling = names["faces"], names["latent"], names["smiling"]
    assert len(faces) == len(latent) == len(smiling) == 1
    assert faces.images.shape == (1, 3, 256, 256) and faces.labels.shape == (1, 256, 256)
    assert smiling.method == "hybrid+fast" or "fast" in smiling.method
    assert names["frames"].shape == (3, 128, 128, 3)
    assert (folder / "smiling.gif").stat().st_size > 1000
    sheet = semedit.show(names["generator"], latent, smiling, faces=faces)
    assert sheet.width > 3 * 128  # three pictures side by side


def test_one_way_to_edit_is_asked_for() -> None:
    generator = semedit.load_generator("heads-128")
    with pytest.raises(OptionError, match="one way"):
        semedit.edit(generator, None, None)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="one way"):
        semedit.edit(generator, None, None, {"smiling": True}, "smiling")  # type: ignore[arg-type]
