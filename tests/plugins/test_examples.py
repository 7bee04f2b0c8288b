"""The example plugins: short, shown whole in the docs, installed, listed, used and checked."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from docstrings import undocumented
from example_plugins import FOLDER, LINES, ROOT, module_of, with_examples
from PIL import Image
from small_tiny import small_tiny
from toy_encoders import RAWS, ToyImage, ToyText

import mmattrib as mm
from mmattrib.io import load_image
from mmattrib.methods import Side, guide_of
from mmattrib.plugins import default_plugins, using_plugins
from mmattrib.testing import (
    check_dataset,
    check_encoder,
    check_grid,
    check_method,
    check_metric,
)

HOOKS = {
    "encoder": "register_backbones",
    "method": "register_methods",
    "metric": "register_metrics",
    "dataset": "register_datasets",
}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of three pictures whose names are captions."""
    random = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for caption in ("a dog and a bell", "a car", "a red bird"):
        pixels = random.integers(0, 255, (72, 96, 3), "uint8")
        Image.fromarray(pixels).save(folder / f"{caption}.jpg")
    return folder


@pytest.fixture
def _installed() -> Iterator[None]:
    with using_plugins(with_examples()) as plugins:
        assert not plugins.problems
        yield


def test_the_folder_holds_these_examples_and_no_others() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == set(LINES) == set(HOOKS)


@pytest.mark.parametrize(("name", "most"), LINES.items(), ids=list(LINES))
def test_an_example_is_short(name: str, most: int) -> None:
    lines = (FOLDER / f"{name}.py").read_text(encoding="utf-8").splitlines()
    assert sum(bool(line.strip()) for line in lines) <= most


@pytest.mark.parametrize("name", LINES)
def test_an_example_is_documented_as_the_package_demands(name: str) -> None:
    assert not undocumented(module_of(name))


@pytest.mark.parametrize("name", LINES)
def test_an_example_is_shown_whole_in_the_docs(name: str) -> None:
    page = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    code = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    shown = f"<!-- from examples/plugins/{name}.py -->\n```python\n{code}```"
    assert shown in page, f"docs/plugins.md no longer shows {name}.py whole"


@pytest.mark.parametrize("name", LINES)
def test_contributing_names_each_example_as_the_file_to_copy(name: str) -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert f"[`examples/plugins/{name}.py`](examples/plugins/{name}.py)" in page


@pytest.mark.parametrize(("name", "hook"), HOOKS.items(), ids=list(HOOKS))
def test_an_example_implements_its_hook(name: str, hook: str) -> None:
    hooks = [each for each in vars(module_of(name)) if each.startswith("register_")]
    assert hooks == [hook]


@pytest.mark.usefixtures("_installed")
def test_the_encoder_conforms(pictures: Path) -> None:
    encoder = mm.load_backbone("patches", width=32)["image"]
    raws = [load_image(path) for path in sorted(pictures.iterdir())]
    check_encoder(encoder, raws)
    check_grid(encoder, raws[0])


@pytest.mark.usefixtures("_installed")
def test_the_encoder_explains_what_makes_two_pictures_alike(pictures: Path) -> None:
    first, second, _ = sorted(pictures.iterdir())
    found = mm.attribute(
        mm.load_backbone("patches"), image=first, inputs={"image_2": second}, method="nib"
    )
    assert list(found) == ["image", "image_2"]
    assert found["image"].scores.shape == (72, 96)


def toy_side() -> Side:
    """Captions of toy encoders, each with a picture as its guide."""
    text, image = ToyText(), ToyImage()
    for encoder in (text, image):
        encoder.module.eval().requires_grad_(False)
    captions, pictures = text.preprocess(RAWS["text"]()), image.preprocess(RAWS["image"]())
    guide = guide_of(image, [pictures.select([row]) for row in range(len(pictures))])
    return Side(text, captions, 0, guide, tuple(map(str, range(len(captions)))))


@pytest.mark.usefixtures("_installed")
def test_the_method_conforms_and_says_how_much_the_cosine_falls() -> None:
    method = mm.load_method("occlusion")
    check_method(method, ToyText(), RAWS["text"](), ToyImage(), RAWS["image"]())
    side = toy_side()
    without = side.tokens().clone()
    without[1, 2] = 0
    fall = side.cosines(side.tokens())[1] - side.cosines(without)[1]
    assert float(method(side).scores[1, 2]) == pytest.approx(float(fall), abs=1e-6)


@pytest.mark.usefixtures("_installed")
def test_the_metric_conforms() -> None:
    check_metric(default_plugins().registry.create("metric", "coverage"))


@pytest.mark.usefixtures("_installed")
def test_the_dataset_conforms(pictures: Path) -> None:
    data = mm.load_dataset("captioned", folder=pictures)
    check_dataset(data)
    assert [sample.inputs["text"] for sample in data] == sorted(p.stem for p in pictures.iterdir())


@pytest.mark.usefixtures("_installed")
def test_all_are_used_by_name_in_one_evaluation(pictures: Path) -> None:
    tiny = small_tiny()
    data = {
        "made": mm.load_dataset("scenes", n=2),
        "own": mm.load_dataset("captioned", folder=pictures).head(1),
    }
    found = mm.evaluate(
        tiny, data, methods=["occlusion", "random"], metrics=["coverage"],
        pairs=[("image", "text")], progress=False,
    )  # fmt: skip
    assert not found.problems
    table = found.table(dataset="made")
    assert "occlusion" in table
    assert "coverage" in table


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a distribution is installed whose plugins are these files as they are."""
    target = tmp_path_factory.mktemp("site")
    facts = target / "mmattrib_examples-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: mmattrib-examples\nVersion: 1.0\n"
    )
    entries = [f"{name} = own_{name}" for name in LINES]
    (facts / "entry_points.txt").write_text("\n".join(["[mmattrib]", *entries, ""]))
    for name in LINES:
        code = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
        (target / f"own_{name}.py").write_text(code, encoding="utf-8")
    return target


def run(site: Path, *arguments: str) -> str:
    path = os.pathsep.join([str(site), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=site)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_once_installed_they_are_listed_without_importing_torch(site: Path) -> None:
    listed = json.loads(run(site, "-m", "mmattrib", "plugins", "--json"))
    assert not listed["problems"]
    own = [
        each["gives"] for each in listed["plugins"] if each["distribution"] == "mmattrib-examples"
    ]
    given = {kind: names for gives in own for kind, names in gives.items()}
    assert given == {
        "backbones": ["patches"],
        "methods": ["occlusion"],
        "metrics": ["coverage"],
        "datasets": ["captioned"],
    }
    code = (
        "import sys; from mmattrib.plugins import load_plugins; load_plugins(); "
        "print('torch' in sys.modules)"
    )
    assert run(site, "-c", code).strip() == "False"


@pytest.mark.slow
def test_once_installed_the_command_line_takes_their_names(site: Path, pictures: Path) -> None:
    asked = ["evaluate", "--method", "occlusion", "--pair", "image,text", "--limit", "1"]
    own = ["--data", "captioned", "--data-option", f"folder={pictures}", "--metric", "cosine"]
    code = "from mmattrib.cli import main\n"
    for options in (own, ["--metric", "coverage"]):
        code += f"main({[*asked, *options]!r}, standalone_mode=False); print('---')\n"
    first, second, _ = run(site, "-c", code).split("---\n")
    for printed, metric in ((first, "cosine"), (second, "coverage")):
        assert re.search(r"^occlusion +1 ", printed, re.MULTILINE)
        assert metric in printed
