"""Recipes: steps in one process; settings files and the environment; plans of both."""

import json
import shutil
import tomllib

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from semedit import generators, tasks
from semedit.batch.workspace import Workspace
from semedit.cli.app import app
from semedit.media import decoding
from semedit.tasks.demo import examples

RECIPE = """
inputs = ["raw"]
batch = 2

[[step]]
command = "align"
faces = "all"

[[step]]
command = "invert"
options = { steps = 2, tune_steps = 1 }

[[step]]
command = "attr"
smiling = true
from = "latents"
options = { steps = 2 }

[[step]]
command = "turntable"
frames = 4
mark = false
"""


def semedit(*arguments, code=0, **environment):
    """Run a command; returns its JSON lines, or its text without --json."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], env=environment)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    if "--json" in arguments:
        return [json.loads(line) for line in result.stdout.splitlines()]
    return result.output


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to work in, with one picture that shows nobody."""
    decoding.close()  # its processes stay in the folder they were started in
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save(tmp_path / "raw" / "nobody.png")
    yield tmp_path
    decoding.close()


def write(path, text):
    path.write_text(text)
    return path


# Recipes -----------------------------------------------------------------------------------------


def test_a_recipe_runs_its_steps_and_loads_models_once(here, monkeypatch):
    shutil.copyfile(examples()[0], here / "raw" / "head.png")
    (here / "raw" / "bad.jpg").write_bytes(b"no picture")
    loaded = []
    load = generators.load_generator
    monkeypatch.setattr(generators, "load_generator", lambda *a: (loaded.append(a), load(*a))[1])
    tasks._generator.cache_clear()
    recipe = write(here / "smile.toml", RECIPE)
    lines = semedit("run", recipe, "--json", code=3)
    assert lines[-1] == {"summary": True, "command": "run", "recipe": str(recipe), "steps": 4,
                         "failed": True}  # fmt: skip
    sums = {line["command"]: line for line in lines if line.get("summary")}
    assert (sums["align"]["done"], sums["align"]["error"], sums["align"]["skipped"]) == (1, 1, 1)
    assert [sums[name]["done"] for name in ("invert", "attr", "turntable")] == [1, 1, 1]
    assert len(loaded) == 1
    space = Workspace(here / "semedit-work")
    assert space.receipt("attr", "head/01-smiling")["inputs"]["latent"][0].startswith("latents/")
    assert space.receipt("turntable-gif", "head")["parameters"]["mark"] is False
    assert (space.root / "recipes" / "smile.toml").read_text() == RECIPE
    resolved = tomllib.loads((space.root / "recipes" / "smile.resolved.toml").read_text())
    assert [step["command"] for step in resolved["step"]] == list(sums)[:4]
    assert resolved["step"][0]["size"] == 256 and resolved["step"][3]["frames"] == 4
    assert [step.get("batch") for step in resolved["step"]] == [None, 2, 2, None]
    # Again, and by what was resolved: all is up to date.
    for again in (recipe, space.root / "recipes" / "smile.resolved.toml"):
        lines = semedit("run", again, "--json", code=3)
        assert not any(line.get("done") for line in lines if line.get("summary"))


def test_a_plan_of_a_recipe_does_nothing(here):
    recipe = write(here / "r.toml", RECIPE)
    lines = semedit("run", recipe, "--dry-run", "--json")
    plans = [line for line in lines if "todo" in line]
    assert [(line["command"], line["todo"]) for line in plans] == [("align", 1)]
    assert lines[-1]["command"] == "run" and lines[-1]["plan"] is True
    assert "have yet to make" in semedit("run", recipe, "--dry-run")
    assert not (here / "semedit-work").exists()


def test_a_plan_of_what_is_not_there_is_an_error(here):
    """No photographs; or faces that no step before it makes."""
    recipe = write(here / "r.toml", 'inputs = ["nowhere"]\n' + RECIPE.partition("\n\n")[2])
    *_, summary = semedit("run", recipe, "--dry-run", "--json", code=4)
    assert summary["command"] == "run" and summary["interrupted"]
    shutil.copyfile(examples()[0], here / "raw" / "head.png")
    semedit("align", "raw")
    write(recipe, 'inputs = ["raw"]\n[[step]]\ncommand = "pose"\n')
    assert "line 1: inputs have no effect" in semedit("run", recipe, "--dry-run")
    for name, code in (("head", 0), ("nobody", 4)):
        steps = f'[[step]]\ncommand = "pose"\n[[step]]\ncommand = "parse"\nnames = ["{name}"]\n'
        told = semedit("run", write(recipe, steps), "--dry-run", code=code)
        assert ("no face matches 'nobody'" in told) == (code == 4)


def test_what_is_typed_overrules_a_recipe(here):
    recipe = write(here / "r.toml", 'work = "a"\ninputs = ["raw"]\n[[step]]\ncommand = "align"\n')
    semedit("run", recipe, "--work", "b")
    assert not (here / "a").exists() and (here / "b" / "recipes" / "r.toml").is_file()
    semedit("run", recipe, SEMEDIT_WORK="c")
    assert (here / "a").exists() and not (here / "c").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no steps"),
        ("[[step]]\ncommand = 'fly'\n", "no step 'fly'"),
        ("[[step]]\ncommand = 'run'\n", "no step 'run'"),
        ("[[step]]\ncommand = 'align'\nsise = 3\n", "did you mean size"),
        ("[[step]]\ncommand = 'align'\nsize = 'x'\n", "step align"),
        ("[[step]]\ncommand = 'align'\nfaces = 'some'\n", "step align"),
        ("wrok = 'x'\n[[step]]\ncommand = 'align'\n", "did you mean work"),
        ("[[step]\n", "r.toml"),
    ],
)
def test_a_wrong_recipe_is_refused_before_anything_runs(here, text, says):
    recipe = write(here / "r.toml", 'inputs = ["raw"]\n' + text)
    assert says in " ".join(semedit("run", recipe, code=2).split())
    assert not (here / "semedit-work").exists()
    semedit("run", here / "none.toml", code=2)


TYPED = [
    ("invert", "options = { steps = 60, lr = 0.25 }", ("steps", 60)),
    ("invert", 'options = { "lr" = 1 }', ("lr", 1.0)),
    ("invert", 'options = ["lr=2", { steps = 7 }]', ("steps", 7)),
    ("invert", "coarse = true", ("coarse", 256)),
    ("edit", 'direction = "age"\nstrength = 2', ("strength", 2.0)),
    ("edit", 'direction = "age"\nstrength = "2.5"\nlayers = "0-7"', ("strength", 2.5)),
    ("attr", "smiling = true\nsteps = 9", ("steps", 9)),
    ("edit", 'region = "hair"\nstyle_noise = 1', ("style_noise", 1.0)),
]


def methods_of(monkeypatch):
    """The methods of the tasks that would run, and no run."""
    found = []

    def plan(task, space, **settings):
        found.append(task.method)
        return

    monkeypatch.setattr("semedit.tasks.plan_of", plan)
    monkeypatch.setattr("semedit.cli.common.show_plan", lambda *_: None)
    return found


@pytest.mark.parametrize(("command", "options", "expected"), TYPED)
def test_typed_values_reach_the_method_from_recipes_and_settings(
    here, monkeypatch, command, options, expected
):
    found = methods_of(monkeypatch)
    (here / "semedit-work").mkdir()
    semedit("run", write(here / "r.toml", f'[[step]]\ncommand = "{command}"\n{options}\n'),
            "--dry-run")  # fmt: skip
    write(here / "semedit.toml", f"[{command}]\n{options}\n")
    semedit(command, "--dry-run")
    assert [getattr(method, expected[0]) for method in found] == [expected[1]] * 2
    assert {type(getattr(method, expected[0])) for method in found} == {type(expected[1])}


@pytest.mark.parametrize(
    ("command", "options", "says"),
    [
        ("invert", "options = { steps = 2.5 }", "steps=2.5: not a value of type int"),
        ("invert", "options = { steps = true }", "steps=True: not a value of type int"),
        ("invert", "options = { steps = [1] }", "steps=[1]: not a value of type int"),
        ("invert", "options = { steps = 1979-05-27 }", "options.steps takes a text or a number"),
        ("attr", "smiling = true\nsteps = 2.5", "--steps"),
        ("edit", "direction = 'age'\nstrength = true", "strength is not a switch"),
        ("edit", "direction = 'age'\nstrength = 'x'", "strength=x: not a value of type float"),
    ],
)
def test_values_of_another_type_are_told_by_name(here, monkeypatch, command, options, says):
    methods_of(monkeypatch)
    (here / "semedit-work").mkdir()
    recipe = write(here / "r.toml", f'[[step]]\ncommand = "{command}"\n{options}\n')
    assert says in " ".join(semedit("run", recipe, "--dry-run", code=2).split())
    write(here / "semedit.toml", f"[{command}]\n{options}\n")
    assert says in " ".join(semedit(command, "--dry-run", code=2).split())


def test_a_step_that_cannot_start_ends_the_recipe(here):
    recipe = write(here / "r.toml", RECIPE)
    assert "no faces" in semedit("run", recipe, code=4)  # the only photograph shows nobody


# Settings ----------------------------------------------------------------------------------------


def test_flags_then_environment_then_folder_then_user_then_defaults(here, monkeypatch, tmp_path):
    user = tmp_path / "config"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(user))
    (user / "semedit").mkdir(parents=True)

    def size(*arguments, **environment):
        work = here / "w"
        shutil.rmtree(work, ignore_errors=True)
        semedit("align", "raw", "--work", work, *arguments, **environment)
        return Workspace(work).receipt("align", "nobody")["parameters"]["size"]

    assert size() == 256
    write(user / "semedit" / "config.toml", "[align]\nsize = 100\nmin_face = 7\n")
    assert size() == 100
    write(here / "semedit.toml", "[align]\nsize = 101\n")
    assert size() == 101
    assert size(SEMEDIT_ALIGN_SIZE="102") == 102
    assert size("--size", "103", SEMEDIT_ALIGN_SIZE="102") == 103
    receipt = Workspace(here / "w").receipt("align", "nobody")
    assert receipt["parameters"]["min_face"] == 7  # where the folder says nothing


def test_settings_reach_all_commands_that_have_the_option(here):
    write(here / "semedit.toml", 'work = "elsewhere"\n[weights.list]\n')
    semedit("align", "raw")
    assert (here / "elsewhere" / "receipts").is_dir()
    assert semedit("align", "raw", "--json", SEMEDIT_SHARD="1/1")[-1]["workspace"] == "elsewhere"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("wrk = 1\n", "did you mean work"),
        ("[algn]\n", "did you mean align"),
        ("[align]\nsise = 1\n", "did you mean size"),
        ("[weights.fly]\n", "no command 'fly'"),
        ("x = \n", "semedit.toml"),
    ],
)
def test_wrong_settings_are_refused(here, text, says):
    write(here / "semedit.toml", text)
    assert says in " ".join(semedit("align", "raw", code=2).split())


# Names ------------------------------------------------------------------------------------------


def aligned(monkeypatch, here, *arguments, **environment):
    """Back-ends of the align task that would run."""
    found = []
    monkeypatch.setattr("semedit.tasks.plan_of", lambda task, *_, **__: found.append(task))
    monkeypatch.setattr("semedit.cli.common.show_plan", lambda *_: None)
    semedit(*arguments, "--dry-run", **environment)
    return [(task.parse, task.pose) for task in found][-1]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), ("auto", "auto")),
        (("--parse", "none", "--pose", "builtin"), ("none", "builtin")),
        (("--no-parse", "--poser", "builtin"), ("none", "builtin")),
        (("--parser", "builtin", "--no-pose"), ("builtin", "none")),
        (("--no-parse", "--parser", "builtin"), ("none", "auto")),
    ],
)
def test_the_step_is_called_alike_and_earlier_flags_still_work(here, monkeypatch, flags, expected):
    assert aligned(monkeypatch, here, "align", "raw", *flags) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('parse = "builtin"\npose = "none"\n', ("builtin", "none")),
        ('parse = true\nparser = "builtin"\npose = false\nposer = "auto"\n', ("builtin", "none")),
        ("no-parse = true\nno_pose = true\n", ("none", "none")),
    ],
)
def test_files_of_now_and_of_earlier_versions_name_back_ends(here, monkeypatch, text, expected):
    step = f'inputs = ["raw"]\n[[step]]\ncommand = "align"\n{text}'
    assert aligned(monkeypatch, here, "run", write(here / "r.toml", step)) == expected
    write(here / "semedit.toml", f"[align]\n{text}")
    assert aligned(monkeypatch, here, "align", "raw") == expected
    assert aligned(monkeypatch, here, "align", "raw", SEMEDIT_ALIGN_PARSE="none")[0] == "none"


def test_the_command_line_knows_the_back_ends_that_there_are():
    from semedit.cli.chain import PARSE, POSE
    from semedit.faces.pipeline import BACKENDS

    assert set(BACKENDS["parse"]) == {*PARSE} - {"auto", "facexlib"}
    assert set(BACKENDS["pose"]) == {*POSE} - {"auto"}
    assert "perhaps" in semedit("align", "raw", "--parse", "perhaps", code=2)


def test_parse_and_pose_take_their_own_names(here, monkeypatch):
    found = []
    monkeypatch.setattr("semedit.tasks.plan_of", lambda task, *_, **__: found.append(task.backend))
    monkeypatch.setattr("semedit.cli.common.show_plan", lambda *_: None)
    for words in (["parse", "--parse"], ["pose", "--pose"], ["parse", "--backend"]):
        semedit(*words, "builtin", "--dry-run")
    assert found == ["builtin"] * 3


@pytest.mark.parametrize("key", ["from", "start"])
def test_settings_and_recipes_take_the_names_that_flags_have(here, monkeypatch, key):
    found = []
    monkeypatch.setattr(
        "semedit.tasks.plan_of", lambda task, *_, **__: found.append((task.start, task.mark))
    )
    monkeypatch.setattr("semedit.cli.common.show_plan", lambda *_: None)
    keys = f'{key} = "latents"\nno-mark = true\n'
    semedit("run", write(here / "r.toml", f'[[step]]\ncommand = "turntable"\n{keys}'), "--dry-run")
    write(here / "semedit.toml", f"[turntable]\n{keys}")
    semedit("turntable", "--dry-run")
    (here / "semedit.toml").unlink()
    semedit("turntable", "--dry-run", SEMEDIT_TURNTABLE_FROM="latents", SEMEDIT_MARK="false")
    assert found[:2] == [("latents", False)] * 2 and found[2][0] == "latents"
