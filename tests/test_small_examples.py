"""What is registered is tested through a small example that stands in a test module of its room."""

from __future__ import annotations

from pathlib import Path

import pytest
import small_examples
from small_examples import ROOMS, function_of, maker, makers, needed

from mmattrib.plugins import default_plugins


@pytest.mark.parametrize("kind", list(ROOMS))
def test_every_small_example_is_of_something_registered(kind: str) -> None:
    registered = {function_of(name) for name in default_plugins().registry.names(kind)}
    assert set(makers(ROOMS[kind])) <= registered


def room(monkeypatch: pytest.MonkeyPatch, folder: Path, **modules: str) -> None:
    for name, text in modules.items():
        (folder / f"test_{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.setattr(small_examples, "TESTS", folder.parent)
    monkeypatch.setitem(ROOMS, "dataset", folder)


def test_a_new_one_is_found_by_its_name_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room(monkeypatch, tmp_path, mine="def small_my_set(folder):\n    return {'folder': folder}\n")
    assert needed("dataset", "my-set", "its options")(tmp_path) == {"folder": tmp_path}
    assert maker("dataset", "other") is None


def test_what_has_no_example_is_told_what_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room(monkeypatch, tmp_path, other="")
    says = rf"write def small_my_set\(folder: Path\), .* in tests/{tmp_path.name}/test_my_set\.py"
    with pytest.raises(pytest.fail.Exception, match=says):
        needed("dataset", "my-set", "the options that open a small one")


def test_two_of_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    same = "def small_one(folder): ...\n"
    room(monkeypatch, tmp_path, first=same, second=same)
    with pytest.raises(pytest.fail.Exception, match=r"test_first\.py and in test_second\.py"):
        maker("dataset", "one")
