"""ROAR+: identities of degrading and retraining, and runs that are stopped and gone on with."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_encoders import ToyImage, ToyText, pictures

import mmattrib as mm
from mmattrib.errors import InputError, OptionError, WeightsError
from mmattrib.evaluation import (
    Retrained,
    RoarResults,
    load_retrained,
    remove_and_retrain,
    roar,
)
from mmattrib.evaluation.degrading import highest, without
from mmattrib.evaluation.retraining import Checkpoint, Recipe, batches, contrastive_loss, split
from mmattrib.samples import Part, SpanRegion
from mmattrib.types import Attribution

WORDS = ("dog", "cat", "sea", "red tree", "old bird", "blue car", "lamp", "two pigs")


def toys() -> mm.Backbone:
    return mm.Backbone({"image": ToyImage(), "text": ToyText()}, "toys")


def _known(k: int) -> dict[str, mm.Truth]:
    part = Part(SpanRegion(0, 3), name=WORDS[k % len(WORDS)])
    return {"text": mm.Truth((part,))}


def samples(count: int = 8) -> list[mm.Sample]:
    """Pictures of noise with captions whose first words are known to be shared."""
    return [
        mm.Sample(
            f"s{k}",
            {"image": raw, "text": f"{WORDS[k % len(WORDS)]} by a house"},
            _known(k),
        )
        for k, raw in enumerate(pictures(count, 36, 28))
    ]


@pytest.fixture(scope="module", autouse=True)
def _maps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Maps of the usual question, made once: explaining is the slow part."""
    KEPT["maps"] = tmp_path_factory.mktemp("usual")
    KEPT["usual"] = measure(KEPT["maps"], seeds=[0, 1])
    yield
    KEPT.clear()


KEPT: dict[str, Any] = {}


def measure(folder: Path, backbone: mm.Backbone | None = None, **given: Any) -> RoarResults:
    defaults: dict[str, Any] = {
        "methods": ["random"], "seeds": [0], "steps": 3, "batch": 3, "lr": 1e-2, "progress": False,
        "directions": ["text|image"],
    }  # fmt: skip
    data = given.pop("data", None) or samples()
    if "usual" in KEPT and not given.pop("fresh", False):
        shutil.copytree(KEPT["maps"] / "maps", folder / "maps", dirs_exist_ok=True)
    return remove_and_retrain(backbone or toys(), data, folder=folder, **{**defaults, **given})


def losses(found: RoarResults) -> list[tuple[Any, ...]]:
    return [(r.method, r.direction, r.seed, r.loss, r.clean, r.removed) for r in found.rows]


def test_taking_nothing_away_is_no_degradation_bit_for_bit(
    untrained: mm.Backbone, tmp_path: Path
) -> None:
    """On sound too, whose way through the short-time spectrum rounds."""
    found = measure(
        tmp_path, untrained, data=mm.load_dataset("scenes", n=5), directions=["audio|text"],
        percentiles={"audio": 100}, steps=1, batch=2, fresh=True,
    )  # fmt: skip
    none, random = found.rows
    assert (none.method, random.method) == ("none", "random")
    assert none.loss == random.loss == none.clean
    assert none.roar == random.roar == 0.0
    assert random.removed == {"audio": 0.0}


def test_what_is_taken_away_changes_the_loss_and_the_control_stays_at_zero(tmp_path: Path) -> None:
    found = measure(tmp_path, directions=["image|text", "text|image", "image+text"])
    by = {(row.method, row.direction): row for row in found.rows}
    for direction in ("image|text", "text|image", "image+text"):
        assert by["none", direction].roar == 0.0
        assert by["random", direction].roar != 0.0
        assert by["random", direction].before == by["none", direction].before
    assert by["random", "image|text"].removed["image"] == pytest.approx(0.25, abs=0.01)
    assert set(by["random", "image+text"].removed) == {"image", "text"}


def test_the_model_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = toys()
    before = model.weights_hash(), [p.requires_grad for e in model.values()
                                    for p in e.module.parameters()]  # fmt: skip
    measure(tmp_path / "a", model)
    monkeypatch.setattr(Checkpoint, "save", _stop)
    with pytest.raises(_StoppedError):
        measure(tmp_path / "b", model, checkpoint_seconds=0)
    model._hash = None
    assert before == (model.weights_hash(), [p.requires_grad for e in model.values()
                                             for p in e.module.parameters()])  # fmt: skip
    assert all(e.module.training for e in model.values())
    assert all(p.grad is None for e in model.values() for p in e.module.parameters())


class _StoppedError(Exception):
    pass


def _stop(*_: Any) -> None:
    raise _StoppedError


@pytest.mark.parametrize("after", [2, 5])
def test_a_stopped_run_goes_on_to_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    whole = KEPT["usual"]
    saved = 0
    save = Checkpoint.save

    def counted(self: Checkpoint, *given: Any) -> None:
        nonlocal saved
        save(self, *given)
        saved += 1
        if saved == after:
            raise _StoppedError

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoint, "save", counted)
        with pytest.raises(_StoppedError):
            measure(tmp_path / "cut", seeds=[0, 1], checkpoint_seconds=0)
    left = list((tmp_path / "cut" / "trainings").iterdir())
    assert len(left) == 1
    steps: list[int] = []
    restore = Checkpoint.restore

    def told(self: Checkpoint, *given: Any) -> tuple[int, float]:
        found = restore(self, *given)
        steps.append(found[0])
        return found

    monkeypatch.setattr(Checkpoint, "restore", told)
    again = measure(tmp_path / "cut", seeds=[0, 1])
    assert losses(again) == losses(whole)
    assert steps[0] == (after - 1) % 2 + 1, "it went on within the training"
    assert set(steps[1:]) <= {0}
    assert not list((tmp_path / "cut" / "trainings").iterdir())


def test_finished_work_is_found_and_methods_seeds_and_directions_are_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = measure(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(roar, "retrain", _stop)
        patched.setattr("mmattrib.evaluation.measure.explain_some", _stop)
        assert losses(measure(tmp_path)) == losses(first)
    more = measure(
        tmp_path,
        methods=["random", "grad-cam"],
        directions=["text|image", "image|text"],
        seeds=[0, 1],
    )
    assert len(more.rows) == 3 * 2 * 2
    kept = [row for row in losses(more) if row[:3] in {r[:3] for r in losses(first)}]
    assert kept == losses(first)
    stored = load_retrained(tmp_path / "roar.jsonl")
    assert sorted(map(str, losses(stored))) == sorted(map(str, losses(more)))
    other = tmp_path / "evaluation.jsonl"
    mm.evaluate(toys(), samples()[:1], methods=["random"], metrics=["cosine"], resume=other,
                progress=False)  # fmt: skip
    with pytest.raises(OptionError, match="an evaluation, not retraining"):
        load_retrained(other)
    with pytest.raises(OptionError, match=r"another evaluation: recipe\.lr"):
        measure(tmp_path, lr=1e-3)


def _cut(entry: dict[str, Any], name: str) -> None:
    (numbers,) = entry["rows"][0]["values"].values()
    del numbers[name]


def test_an_entry_of_another_shape_is_passed_over_and_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = measure(tmp_path)
    assert first.provenance["device"] == "cpu"
    path = tmp_path / "roar.jsonl"
    *others, last = path.read_text(encoding="utf-8").splitlines()
    assert json.loads(last)["stamp"]["device"] == "cpu"
    changes: list[Callable[[dict[str, Any]], object]] = [
        lambda entry: entry.update(rows=[]),
        lambda entry: entry["rows"][0].update(values={}),
        lambda entry: _cut(entry, "before"),
        lambda entry: entry["rows"][0]["values"]["text|image"].update(loss=None),
        lambda entry: entry["rows"][0].update(problem=3),
        lambda entry: entry["task"].update(pair=3),
        lambda entry: entry["task"].update(seed=None),
        lambda entry: entry["stamp"].update(method=None),
    ]
    for change in changes:
        changed = json.loads(last)
        change(changed)
        path.write_text("\n".join([*others, json.dumps(changed), ""]), encoding="utf-8")
        assert [row.method for row in load_retrained(path).rows] == ["none"]
    assert losses(measure(tmp_path)) == losses(first)
    assert losses(load_retrained(path)) == losses(first)
    with pytest.raises(OptionError, match="path of a file"):
        load_retrained(3)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="path of a folder"):
        measure(3, fresh=True)  # type: ignore[arg-type]


def test_a_clean_loss_of_zero_has_no_share() -> None:
    row = Retrained("a", ("image", "text"), "image|text", 0, 0.5, 0.0, 1.0, {}, 0, 1.0, 0.0, 1.0)
    assert math.isnan(row.roar)
    assert "| a |" in RoarResults([row]).table()


def test_a_method_explains_each_pair_once_for_all_seeds_and_directions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmattrib.evaluation import measure as measuring

    explained: list[int] = []
    plain = measuring.explain_some

    def counted(backbone: Any, batch: Sequence[Any], *given: Any) -> Any:
        explained.append(len(batch))
        return plain(backbone, batch, *given)

    monkeypatch.setattr(measuring, "explain_some", counted)
    measure(tmp_path, seeds=[0, 1], steps=1, fresh=True)
    assert explained == [8]
    (path,) = (tmp_path / "maps").iterdir()
    path.write_bytes(b"no safetensors")
    with pytest.raises(InputError, match=r"holds no maps of this run.*delete it"):
        measure(tmp_path, seeds=[2], steps=1, fresh=True)


def test_maps_from_disk_are_the_maps_that_were_made(tmp_path: Path) -> None:
    made = measure(tmp_path, seeds=[0], fresh=True)
    read = measure(tmp_path, seeds=[0, 1], fresh=True)
    assert losses(read) == losses(KEPT["usual"])
    assert losses(made) == [row for row in losses(read) if row[2] == 0]


def test_a_checkpoint_of_another_training_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    from mmattrib.evaluation.retraining import _optimiser
    from mmattrib.models.parameters import TrainableCopy

    copied = TrainableCopy(toys(), ("image",))
    optimiser = _optimiser(copied, Recipe())
    path = tmp_path / "t.safetensors"
    Checkpoint(path, "one").save(copied, optimiser, 3, 1.5)
    assert Checkpoint(path, "one").restore(copied, optimiser) == (3, 1.5)
    with pytest.raises(WeightsError, match="another training"):
        Checkpoint(path, "two").restore(copied, optimiser)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="no whole checkpoint"):
        Checkpoint(path, "one").restore(copied, optimiser)


def test_what_cannot_be_read_is_left_out_and_counted_unless_strict(tmp_path: Path) -> None:
    data = samples()
    data[3] = mm.Sample("gone", {"image": str(tmp_path / "no.png"), "text": "a dog"})
    found = measure(tmp_path / "a", data=data, steps=1)
    assert "1 left out, first gone: " in str(found.rows[0].problem)
    assert "gone" in found.table()
    with pytest.raises(InputError, match=r"sample 3, 'gone'"):
        measure(tmp_path / "b", data=data, steps=1, strict=True)


class _Changing(mm.Dataset):
    """Calls itself the same whatever can be read of it."""

    def __init__(self, samples: Sequence[mm.Sample]) -> None:
        self.samples = samples

    def __iter__(self) -> Iterator[mm.Sample]:
        return iter(self.samples)

    def describe(self) -> dict[str, Any]:
        return {}


def test_trainings_on_other_samples_are_not_compared(tmp_path: Path) -> None:
    data = samples()
    measure(tmp_path, data=_Changing(data), fresh=True)
    data[0] = mm.Sample("s0", {"image": "nowhere.png", "text": "a dog"})
    with pytest.raises(OptionError, match="on 7 and on 8 pairs of image and text"):
        measure(tmp_path, data=_Changing(data), seeds=[0, 1], fresh=True)


def test_the_truth_is_a_control_where_it_is_known(tmp_path: Path) -> None:
    found = measure(tmp_path, controls=["none", "truth"])
    truth = next(row for row in found.rows if row.method == "truth")
    assert 0.15 < truth.removed["text"] < 0.3, "the first of four or five words"
    assert truth.roar != 0.0
    with pytest.raises(OptionError, match="nothing is known of image"):
        measure(tmp_path / "b", controls=["truth"], directions=["image|text"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch": 7}, r"batch of 7 pairs .* 6 are there"),
        ({"epochs": 2}, "give epochs or steps, not both"),
        ({"lr": 0}, "lr must be"),
        ({"speed": 1}, "no option 'speed'; accepted: epochs"),
        ({"directions": ["image"]}, "'image' is no direction"),
        ({"directions": []}, "at least one"),
        ({"fills": {"image": "pink"}}, "no fill 'pink' for image; accepted: mean"),
        ({"fills": {"audio": "silence"}}, "a fill is given for 'audio'"),
        ({"percentiles": {"image": 101}}, "from 0 to 100"),
        ({"controls": ["nothing"]}, "no control 'nothing'"),
        ({"seeds": [1, 1]}, "different whole numbers"),
        ({"data": samples(3)}, "3 pairs of image and text can be read"),
    ],
)
def test_options_are_checked(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises((OptionError, InputError), match=message):
        measure(tmp_path, **given)


@pytest.mark.parametrize(
    "given",
    [
        {"lr": 1e-3}, {"weight_decay": 0.5}, {"batch": 2}, {"steps": 2}, {"scale": 3.0},
        {"held_out": 0.4}, {"negatives": "unlike"}, {"map_seed": 1}, {"seeds": [5]},
        {"percentiles": {"text": 90}}, {"fills": {"text": "delete"}},
    ],
    ids=lambda given: next(iter(given)),
)  # fmt: skip
def test_every_option_acts(tmp_path: Path, given: dict[str, Any]) -> None:
    data = samples(12) if "negatives" in given else None  # so many that words come again
    found = measure(tmp_path, data=data, **given)
    (changed,) = (row for row in found.rows if row.method == "random")
    usual = next(row for row in KEPT["usual"].rows if row.method == "random")
    assert changed.loss != usual.loss


def test_a_training_that_diverges_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(first: torch.Tensor, *_: Any) -> torch.Tensor:
        return first.sum() * torch.inf

    monkeypatch.setattr("mmattrib.evaluation.retraining.contrastive_loss", gone)
    with pytest.raises(OptionError, match=r"diverged; give a learning rate below lr=0\.01"):
        measure(tmp_path)


def test_unlike_negatives_need_names(tmp_path: Path) -> None:
    bare = [mm.Sample(s.id, s.inputs) for s in samples()]
    with pytest.raises(OptionError, match="truths of these samples name nothing"):
        measure(tmp_path, data=bare, negatives="unlike")


def test_the_loss_is_the_mean_cross_entropy_of_both_directions() -> None:
    random = np.random.default_rng(0)
    a, b = (torch.from_numpy(random.normal(size=(5, 4)).astype(np.float32)) for _ in range(2))
    a, b = (torch.nn.functional.normalize(x, dim=-1) for x in (a, b))
    logits = 7.0 * a.double() @ b.double().T
    own = logits.diagonal()
    expected = ((logits.logsumexp(1) - own).mean() + (logits.logsumexp(0) - own).mean()) / 2
    assert float(contrastive_loss(a, b, 7.0)) == pytest.approx(float(expected), abs=1e-5)
    alike = torch.ones(5, 5)  # every negative shares as much as the match
    assert float(contrastive_loss(a, b, 7.0, alike)) == pytest.approx(0.0, abs=1e-6)
    unlike = torch.eye(5)
    assert float(contrastive_loss(a, b, 7.0, unlike)) == float(contrastive_loss(a, b, 7.0))


def test_the_split_is_four_to_one_and_batches_follow_from_seed_and_step() -> None:
    train, kept = split(50, 0.2, 3)
    assert (len(train), len(kept)) == (40, 10)
    assert sorted(train + kept) == list(range(50))
    assert split(50, 0.2, 3) == (train, kept) != split(50, 0.2, 4)
    endless = batches(train, 12, 3)
    first = [next(endless) for _ in range(7)]
    later = batches(train, 12, 3, start=4)
    assert [next(later) for _ in range(3)] == first[4:]
    assert len({k for rows in first[:3] for k in rows}) == 36, "no pair twice in an epoch"


def test_scores_above_the_percentile_are_taken_and_equal_ones_stay() -> None:
    explanation = mm.attribute(
        toys(), image=pictures(1, 32, 24)[0], text="a dog by the old sea", method="random"
    )
    words = explanation["text"]
    taken = highest(words, 50)
    assert taken.tolist() == (words.scores > np.median(words.scores)).tolist()
    assert taken.sum() == 3
    text = without(explanation.inputs["text"], words, taken, "blank")
    assert text.text.count("#") == 3
    picture = explanation["image"]
    assert highest(picture, 75).mean() == pytest.approx(0.25, abs=0.02)
    flat = Attribution(
        "image", "", np.ones_like(picture.token_scores), picture.content, picture.placement, 0
    )
    assert not highest(flat, 75).any()
    raw = explanation.inputs["image"]
    assert without(raw, flat, highest(flat, 75), "mean") is raw


def test_tables_and_json_hold_every_number(tmp_path: Path) -> None:
    found = measure(tmp_path, seeds=[0, 1])
    table = found.table()
    assert "no degradation | 0.0 ± 0.0" in table
    assert "above random" in table
    assert " of 2 |" in table
    told = json.loads(found.to_json())
    assert len(told["rows"]) == 4
    assert told["rows"][2]["roar"] == pytest.approx(found.rows[2].roar)
    assert told["provenance"]["scale"] == {"image-text": pytest.approx(1 / 0.07)}
    assert found.seconds > 0
    assert [row.map_seconds > 0 for row in found.rows] == [False, False, True, True]
    assert 10 < found.peak_mb < 100_000
    with pytest.raises(OptionError, match="nothing was measured"):
        RoarResults(()).table()


KILLED = """
import os, signal, sys, warnings
sys.path[:0] = {paths!r}
import torch
torch.set_num_threads(1)
from pathlib import Path
import test_roar
from mmattrib.evaluation.retraining import Checkpoint
save, count = Checkpoint.save, 0
def killed(self, *given):
    global count
    save(self, *given)
    count += 1
    if count == {after}:
        os.kill(os.getpid(), signal.SIGKILL)
Checkpoint.save = killed
test_roar.measure(Path({folder!r}), checkpoint_seconds=0)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_kill_9_again_and_again_loses_nothing(tmp_path: Path) -> None:
    whole = measure(tmp_path / "whole")
    support = str(Path(__file__).parents[1] / "support")
    code = KILLED.format(
        paths=[str(Path(__file__).parent), support], after=1, folder=str(tmp_path / "cut")
    )
    codes = []
    for _ in range(12):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, timeout=600, env=dict(os.environ)
        )
        codes.append(done.returncode)
        if done.returncode == 0:
            break
    assert codes[0] == -signal.SIGKILL
    assert codes[-1] == 0, codes
    assert losses(load_retrained(tmp_path / "cut" / "roar.jsonl")) == losses(whole)
