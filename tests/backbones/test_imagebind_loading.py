"""Loading ImageBind: whole or not at all, and the user's own environment left alone."""

from __future__ import annotations

import copy
import functools
import hashlib
import http.server
import os
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from small_imagebind import SMALL, backbone, checkpoint, model, raws

import mmattrib as mm
from mmattrib.backbones.imagebind import download, load, wrap
from mmattrib.backbones.imagebind import library as library_module
from mmattrib.errors import MissingExtraError, OptionError, WeightsError

small = functools.partial(load, architecture=SMALL)


def test_it_is_registered_without_importing_torch() -> None:
    code = (
        "import sys, mmattrib.plugins as p; r = p.default_plugins().registry;"
        "e = r.get('backbone', 'imagebind'); print(e.modalities, e.extra);"
        "print([m for m in ('torch', 'imagebind', 'timm') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'imu'" in out.stdout
    assert "mmattrib[imagebind]" in out.stdout
    assert out.stdout.strip().endswith("[]")


def test_the_library_leaves_no_trace_in_the_module_table() -> None:
    backbone()
    assert not [name for name in sys.modules if name.split(".")[0] == "imagebind"]


def test_a_package_that_the_user_imported_is_used_and_left(monkeypatch: pytest.MonkeyPatch) -> None:
    own = library_module.library()
    package = ModuleType("imagebind")
    package.__path__ = [str(own.vocabulary.parents[1])]
    package.__spec__ = __import__("importlib.util").util.find_spec("imagebind")
    monkeypatch.setitem(sys.modules, "imagebind", package)
    for name in ("models", "models.imagebind_model", "models.multimodal_preprocessors"):
        monkeypatch.setitem(sys.modules, f"imagebind.{name}", ModuleType(f"imagebind.{name}"))
    found = library_module._import()
    assert found.model is sys.modules["imagebind.models.imagebind_model"]
    assert sys.modules["imagebind"] is package


def test_the_empty_package_of_pypi_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "imagebind").mkdir()
    (tmp_path / "imagebind" / "__init__.py").write_text("raise RuntimeError('never run')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtraError, match="PyPI's package of this name is empty"):
        library_module._import()
    assert "imagebind" not in sys.modules


def test_a_library_that_it_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] in ("iopath", "imagebind")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "iopath", None)
    with pytest.raises(MissingExtraError, match=r"needs 'iopath.*pip install 'mmattrib\[imagebind"):
        library_module._import()
    assert not [name for name in sys.modules if name.split(".")[0] == "imagebind"]


def test_weights_are_the_files_own() -> None:
    loaded = backbone()
    state = model().state_dict()
    for modality, key in (("image", "vision"), ("audio", "audio"), ("text", "text")):
        tower = loaded[modality].module
        for name, value in tower.trunk.state_dict().items():
            assert torch.equal(value, state[f"modality_trunks.{key}.{name}"])
        assert not any(part.training for part in tower.modules())
    details = loaded.provenance
    assert details["sha256"] == hashlib.sha256(checkpoint().read_bytes()).hexdigest()
    assert details["published_weights"] is False
    assert details["licence"] == "CC BY-NC-SA 4.0"


def test_the_published_sizes_are_the_default() -> None:
    from mmattrib.backbones.imagebind.loading import build

    huge = build(library_module.library(), None)
    assert sum(p.numel() for p in huge.parameters()) == pytest.approx(1200.8e6, rel=1e-4)
    assert all(p.is_meta for p in huge.parameters())  # no memory for random weights
    with pytest.raises(WeightsError, match=r"does not have the architecture of ImageBind-huge"):
        load(str(checkpoint()))


def test_an_architecture_without_end_is_refused_before_it_is_built() -> None:
    from mmattrib.backbones.imagebind.loading import build

    with pytest.raises(OptionError, match="describes a model with vision_num_blocks 1000000000"):
        build(library_module.library(), {"vision_num_blocks": 10**9})


def test_a_live_model_is_wrapped_and_left_as_it_is() -> None:
    live = copy.deepcopy(model()).train()
    live.modality_trunks["text"].requires_grad_(False)
    before = {name: (p.data_ptr(), p.requires_grad) for name, p in live.named_parameters()}
    wrapped = wrap(live, audio_clips="cover")
    assert wrapped.modalities == backbone().modalities
    inputs = backbone()["depth"].preprocess(raws("depth"))
    found = mm.attribute(
        wrapped, inputs={"depth": raws("depth")[0], "text": "a dog"}, method="nib", layer=0
    )
    assert found["depth"].scores.max() > 0
    assert {n: (p.data_ptr(), p.requires_grad) for n, p in live.named_parameters()} == before
    assert all(part.training for part in live.modules())
    with wrapped["depth"].frozen():
        found = wrapped["depth"].embed(inputs)
    torch.testing.assert_close(found, backbone()["depth"].embed(inputs))
    with pytest.raises(OptionError, match="cannot wrap Linear"):
        wrap(torch.nn.Linear(2, 2))


def test_only_the_towers_asked_for_are_loaded(tmp_path: Path) -> None:
    audio_only = {k: v for k, v in model().state_dict().items() if ".audio." in k}
    path = tmp_path / "audio.pth"
    torch.save(audio_only, path)
    loaded = small(str(path), modalities=["audio"])
    assert loaded.modalities == ("audio",)
    inputs = loaded["audio"].preprocess(raws("audio"))
    assert torch.equal(loaded["audio"].embed(inputs), backbone()["audio"].embed(inputs))
    with pytest.raises(WeightsError, match=r"lacks .*modality_\w+\.text"):
        small(str(path), modalities=["audio", "text"])


def test_pictures_and_videos_share_one_tower() -> None:
    assert backbone()["image"].module is backbone()["video"].module


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "changed.pth"
    state = model().state_dict()
    name = "modality_heads.audio.2.weight"
    for changed, message in (
        ({k: v for k, v in state.items() if k != name}, rf"lacks 1 weight \({name}\)"),
        ({**state, "modality_heads.smell.weight": torch.ones(2)}, "has 1 weight.*smell"),
        ({**state, name: state[name][:, :-1]}, r"modality_heads\.audio.*instead of"),
        ({**state, name: state[name].to(torch.int8)}, "int8; accepted: floats"),
        ({"model": OrderedDict(state)}, "a dictionary of model"),
        ([1, 2], "holds list"),
    ):
        torch.save(changed, path)
        with pytest.raises(WeightsError, match=message):
            small(str(path))


def test_damaged_files_and_code_are_refused(tmp_path: Path) -> None:
    whole = checkpoint().read_bytes()
    path = tmp_path / "bad.pth"
    for size in (0, 100, len(whole) // 2, len(whole) - 7):
        path.write_bytes(whole[:size])
        with pytest.raises(WeightsError, match="download"):
            small(str(path))
    torch.save({"code": os.system}, path)
    with pytest.raises(WeightsError, match="would run code"):
        small(str(path))
    with pytest.raises(WeightsError, match="is not a file"):
        small(str(tmp_path / "missing.pth"))


def test_old_files_that_cannot_be_mapped_are_read(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save(model().state_dict(), path, _use_new_zipfile_serialization=False)
    inputs = backbone()["text"].preprocess(raws("text"))
    loaded = small(str(path), modalities="text")
    assert torch.equal(loaded["text"].embed(inputs), backbone()["text"].embed(inputs))


def test_the_file_may_change_after_loading(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    path.write_bytes(checkpoint().read_bytes())
    loaded = small(str(path), modalities="imu")
    inputs = loaded["imu"].preprocess(raws("imu"))
    before = loaded["imu"].embed(inputs)
    with path.open("r+b") as stream:
        stream.write(bytes(len(path.read_bytes())))
    assert torch.equal(loaded["imu"].embed(inputs), before)


def test_a_wrong_hash_is_refused() -> None:
    found = hashlib.sha256(checkpoint().read_bytes()).hexdigest()
    small(str(checkpoint()), modalities="imu", sha256=found.upper())
    with pytest.raises(WeightsError, match=f"has SHA-256 {found}, expected {'0' * 64}"):
        small(str(checkpoint()), sha256="0" * 64)


def test_options_out_of_range_are_refused() -> None:
    for options, message in (
        ({"modalities": ["smell"]}, "does not embed 'smell'"),
        ({"modalities": []}, "one or more of image"),
        ({"audio_clips": 0}, "audio_clips must be"),
        ({"audio_clips": "all"}, "audio_clips must be"),
        ({"audio_clips": 61}, "from 1 to 60"),
        ({"audio_clips": True}, "audio_clips must be"),
        ({"dtype": "int8"}, "dtype must be"),
        ({"device": "abacus"}, "abacus"),
        ({"architecture": {"width": 3}}, "architecture has no 'width'"),
        ({"architecture": {**SMALL, "text_num_heads": 5}}, "multiples of the number of heads"),
    ):
        with pytest.raises(OptionError, match=message):
            load(str(checkpoint()), **options)


def test_the_name_reaches_it() -> None:
    found = mm.load_backbone(
        "imagebind", checkpoint=str(checkpoint()), architecture=SMALL, modalities=("imu",)
    )
    assert found.name == "imagebind"


class _Server(http.server.BaseHTTPRequestHandler):
    """Sends a file, from the byte asked for; breaks off after ``most`` bytes."""

    data = b""
    most = 1 << 40
    ranges: list[str | None]
    takes_ranges = True

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.ranges.append(asked)
        start = int(asked.split("=")[1].rstrip("-")) if asked and self.takes_ranges else 0
        if self.path != "/weights.pth":
            return self.send_error(404)
        if start >= len(self.data):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(self.data) - start))
        self.end_headers()
        self.wfile.write(self.data[start : start + self.most])
        return None

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[type[_Server], str]]:
    handler = type("Handler", (_Server,), {"data": os.urandom(300_000), "ranges": []})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield handler, f"http://127.0.0.1:{running.server_port}/weights.pth"
        running.shutdown()


def test_a_broken_download_goes_on_where_it_stopped(
    server: tuple[type[_Server], str], tmp_path: Path
) -> None:
    handler, url = server
    target, sha256 = tmp_path / "deep" / "weights.pth", hashlib.sha256(handler.data).hexdigest()
    handler.most = 100_000
    for kept in (100_000, 200_000):
        with pytest.raises(WeightsError, match=rf"{kept:,} bytes are kept"):
            download.fetch(url, target, sha256, progress=False)
        assert not target.exists()
    handler.most = 1 << 40
    assert download.fetch(url, target, sha256, progress=False) == target
    assert target.read_bytes() == handler.data
    assert handler.ranges == [None, "bytes=100000-", "bytes=200000-"]
    assert [path.name for path in target.parent.iterdir()] == ["weights.pth"]


def test_a_server_that_cannot_resume_starts_anew(
    server: tuple[type[_Server], str], tmp_path: Path
) -> None:
    handler, url = server
    handler.takes_ranges = False
    target = tmp_path / "weights.pth"
    (tmp_path / "weights.pth.part").write_bytes(b"some of another file")
    download.fetch(url, target, hashlib.sha256(handler.data).hexdigest(), progress=False)
    assert target.read_bytes() == handler.data


def test_what_was_already_there_in_full_is_only_checked(
    server: tuple[type[_Server], str], tmp_path: Path
) -> None:
    handler, url = server
    (tmp_path / "weights.pth.part").write_bytes(handler.data)
    target = tmp_path / "weights.pth"
    download.fetch(url, target, hashlib.sha256(handler.data).hexdigest(), progress=False)
    assert target.read_bytes() == handler.data


def test_another_file_is_deleted(server: tuple[type[_Server], str], tmp_path: Path) -> None:
    _, url = server
    with pytest.raises(WeightsError, match="it was deleted"):
        download.fetch(url, tmp_path / "weights.pth", "0" * 64, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_no_network_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMATTRIB_CACHE", str(tmp_path))
    monkeypatch.setattr(download, "URL", "http://127.0.0.1:9/imagebind_huge.pth")
    with pytest.raises(WeightsError, match=r"cannot be downloaded .*checkpoint=\"imagebind_huge"):
        load()


def test_a_cached_file_must_be_the_published_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMATTRIB_CACHE", str(tmp_path))
    path = tmp_path / "imagebind" / "imagebind_huge.pth"
    path.parent.mkdir()
    path.write_bytes(checkpoint().read_bytes())
    with pytest.raises(WeightsError, match=f"expected {download.SHA256}"):
        load()


def test_the_default_cache_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MMATTRIB_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert download.cache_folder() == Path("/somewhere/mmattrib")
