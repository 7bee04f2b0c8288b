"""What could only be refused after the work is refused before it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mmattrib import files
from mmattrib.cli.outputs import check_file, check_folder
from mmattrib.cli.program import main
from mmattrib.errors import InputError, MmattribError


def refusal(*arguments: str) -> str:
    found = CliRunner().invoke(main, arguments)
    assert found.exit_code == 2, found.output
    assert found.stdout == ""
    return found.stderr


EVALUATE = ("evaluate", "--limit", "1", "--pair", "image,text")
ATTRIBUTE = ("attribute", "--image", "a.npy", "--text", "a dog", "--method", "random")


@pytest.mark.parametrize(
    "command", [EVALUATE, ATTRIBUTE, ("scenes", "o"), ("demo",), ("tune", "--out", "a.toml")]
)
@pytest.mark.parametrize("seed", ["100000000000000000000000000", "9" * 5000])
def test_a_seed_out_of_range_is_refused_as_it_is_read(command: Any, seed: str) -> None:
    assert "seed" in refusal(*command, "--seed", seed)


@pytest.mark.parametrize("value", ["nan", "3"])
def test_a_seed_is_no_option_of_a_method(value: str) -> None:
    said = refusal(*EVALUATE, "--method", f"random:seed={value}")
    assert "'random' sets the seed" in said
    assert "--seed" in said


@pytest.mark.parametrize("option", ["least=abc", "split=5", "texts=[]"])
def test_an_option_of_another_type_is_refused(tmp_path: Path, option: str) -> None:
    given = ("--data", "coco", "--data-option", f"folder={tmp_path}", "--data-option", option)
    assert f"dataset 'coco': {option.partition('=')[0]} must be " in refusal(*EVALUATE, *given)


@pytest.mark.parametrize("check", [lambda p: check_file(p / "x.html", "--out"), check_folder])
def test_a_folder_in_which_no_file_can_be_made_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: Callable[..., None]
) -> None:
    """Its permissions may say otherwise, as those of /proc do to root."""

    def refused(self: Path, *_: Any, **__: Any) -> Any:
        raise FileNotFoundError(2, "No such file or directory", str(self))

    def run() -> None:
        check(tmp_path, "--out") if check is check_folder else check(tmp_path)

    run()
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(files.Path, "open", refused)
    with pytest.raises(InputError, match=r"--out .* cannot be written \(No such file"):
        run()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
def test_proc_holds_no_page() -> None:
    with pytest.raises(MmattribError, match="/proc"):
        check_file(Path("/proc/x.html"), "--out")
