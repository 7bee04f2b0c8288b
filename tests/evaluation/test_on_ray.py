"""Workers of Ray: the same numbers, a dead worker's task done by another, and an end on Ctrl-C."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from deadly_candidates import Deadly

import mmattrib as mm
from mmattrib.errors import MissingExtraError, OptionError, WorkerError
from mmattrib.evaluation import LiveModel, NamedModel, executor_for
from mmattrib.evaluation.measure import SECONDS, Context
from mmattrib.evaluation.on_ray import _device_of, _share
from mmattrib.workers import RETRIES, died

ROOT = Path(__file__).parents[2]
SUPPORT = ROOT / "tests" / "support"
GIVEN = {"metrics": ["auc"], "pairs": [("image", "text")], "progress": False}


@pytest.mark.parametrize("found", [None, ModuleType("ray")], ids=["nothing", "a folder"])
def test_without_ray_the_extra_is_named(
    found: ModuleType | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of that name where Python looks, such as Ray's own in /tmp, is no Ray."""
    monkeypatch.setitem(sys.modules, "ray", found)
    with pytest.raises(MissingExtraError, match=r"pip install 'mmattrib\[ray\]'"):
        executor_for(2, "ray")


def test_what_ray_cannot_do_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", np)  # anything: it is not asked
    with pytest.raises(OptionError, match="cpu, cuda on Ray"):
        executor_for(2, "ray", "cuda:1")
    with pytest.raises(OptionError, match="takes no device"):
        executor_for(2, "processes", "cuda")


def test_a_file_tells_the_device_of_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmattrib.evaluation.on_ray._library", lambda: None)
    source = mm.evaluation.NamedModel.of("tiny")
    assert executor_for(2, "ray", "cuda").place(source) == "cuda"
    assert executor_for(2, "ray").place(source) == "cpu"


@pytest.mark.parametrize(
    ("gpus", "jobs", "share"), [(4, 4, 1), (4, 2, 1), (2, 3, 0.5), (1, 3, 1 / 3), (0, 3, 1)]
)
def test_workers_share_gpus_where_these_are_fewer(gpus: int, jobs: int, share: float) -> None:
    ray = SimpleNamespace(cluster_resources=lambda: {"CPU": 8.0, "GPU": float(gpus)})
    assert _share(ray, jobs) == pytest.approx(share)
    if gpus:
        assert sum(1 // share for _ in range(gpus)) >= jobs


def test_models_go_to_the_device_of_a_worker(untrained: mm.Backbone) -> None:
    live = LiveModel.of(untrained)
    named = NamedModel("tiny", "w", ("image",), (("checkpoint", "x"),))
    assert (live.device, named.device) == ("cpu", "cpu")
    context = Context({"a": live, "b": named}, {}, {}, {}, {})
    assert _device_of(context) == "cpu"
    moved = context.settled("meta")  # torch's device without memory
    assert {source.device for source in moved.backbones.values()} == {"meta"}
    assert untrained["image"].device.type == "meta"
    assert dict(moved.backbones["b"].options) == {"checkpoint": "x", "device": "meta"}  # type: ignore[attr-defined]
    second = NamedModel("tiny", "w", ("image",), (("device", "cuda:1"),))
    with pytest.raises(OptionError, match="sees no GPU but its own"):
        _device_of(Context({"a": second}, {}, {}, {}, {}))


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """Ray on this machine, with places for two workers."""
    ray = pytest.importorskip("ray")
    path = os.pathsep.join([str(ROOT), str(SUPPORT), os.environ.get("PYTHONPATH", "")])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)  # workers import what the tests send them
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(
            "local", num_cpus=2, include_dashboard=False, log_to_driver=False,
            logging_level="error", _node_ip_address="127.0.0.1",
        )  # fmt: skip
    yield
    ray.shutdown()


pytestmark = pytest.mark.filterwarnings("default")  # Ray's own


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray", "chunks_of_two")
def test_results_are_those_of_this_process_row_by_row(
    untrained: mm.Backbone, three: mm.Dataset, tmp_path: Path
) -> None:
    given = {**GIVEN, "methods": ["nib", "random"], "metrics": ["auc", "confidence_drop"]}
    alone = mm.evaluate(untrained, three, **given)
    found = mm.evaluate(
        untrained, three, engine="ray", jobs=2, resume=tmp_path / "run.jsonl", **given
    )
    assert set(found.columns) == set(alone.columns)
    for column, values in alone.columns.items():
        if column.metric != SECONDS:
            np.testing.assert_array_equal(found.columns[column], values)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray", "chunks_of_two")
def test_a_dead_workers_task_goes_to_another_a_bounded_number_of_times(tmp_path: Path) -> None:
    text = {"image": np.zeros((8, 8, 3), np.uint8)}
    samples = [mm.Sample(f"s{n}", {**text, "text": f"word {n}"}) for n in range(8)]
    deaths = {2: RETRIES, 4: RETRIES + 1}
    found = mm.evaluate(
        mm.load_backbone("tiny"), samples, methods=[Deadly(str(tmp_path), deaths)],
        engine="ray", jobs=2, **GIVEN,
    )  # fmt: skip
    values = found.values("deadly", "image|text", "auc").tolist()
    assert values[:4] + values[6:] == [0, 1, 2, 3, 6, 7]
    assert np.isnan(values[4:6]).all()
    assert [problem[2] for problem in found.problems] == [str(died(RETRIES + 1))] * 2
    for start, times in deaths.items():
        assert len(list((tmp_path / str(start)).iterdir())) == times


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_worker_beyond_the_clusters_places_holds_nothing_up(
    untrained: mm.Backbone, three: mm.Dataset
) -> None:
    found = mm.evaluate(untrained, three, methods=["random"], engine="ray", jobs=3, **GIVEN)
    assert not np.isnan(found.values("random", "image|text", "auc")).any()


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_waiting_for_places_that_are_not_there_is_told(
    untrained: mm.Backbone, three: mm.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cluster has no GPU: the run waits, says so, and can be interrupted."""
    ray = pytest.importorskip("ray")
    if ray.cluster_resources().get("GPU"):
        pytest.skip("there is a GPU")
    told: list[str] = []

    def tell(message: str, **_: object) -> None:
        told.append(message)
        raise KeyboardInterrupt

    monkeypatch.setattr("mmattrib.evaluation.on_ray.PATIENCE", 1)
    monkeypatch.setattr("mmattrib.evaluation.on_ray.warnings", SimpleNamespace(warn=tell))
    engine = executor_for(1, "ray", "cuda")
    with pytest.raises(KeyboardInterrupt):
        mm.evaluate(untrained, three, methods=["random"], engine=engine, **GIVEN)
    assert "no worker has found a place" in told[0]
    assert "'num_gpus': 1.0" in told[0]
    assert ray.is_initialized(), "what was running before runs on"


PROGRAM = """
import os, signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may ignore it
import mmattrib as mm
from deadly_candidates import Deadly

class Slow(Deadly):
    def measure(self, context, task):
        open(os.path.join(self.folder, "pid%d" % os.getpid()), "w").close()
        time.sleep(600)

sample = mm.Sample("s", {{"image": [[[0, 0, 0]] * 8] * 8, "text": "a dog"}})
mm.evaluate(mm.load_backbone("tiny"), [sample], methods=[Slow({folder!r})], metrics=["auc"],
            pairs=[("image", "text")], progress=False, engine="ray", jobs=1)
"""


@pytest.mark.slow
def test_ctrl_c_ends_the_run_its_workers_and_the_ray_that_it_started(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    script = tmp_path / "run.py"
    script.write_text(PROGRAM.format(folder=str(tmp_path)))
    path = os.pathsep.join([str(ROOT), str(SUPPORT)])
    environment = {**os.environ, "PYTHONPATH": path, "RAY_ADDRESS": ""}
    parent = subprocess.Popen(
        [sys.executable, script], env=environment, stderr=subprocess.PIPE, start_new_session=True
    )
    deadline = time.monotonic() + 240
    while not (pids := list(tmp_path.glob("pid*"))) and time.monotonic() < deadline:
        assert parent.poll() is None, parent.stderr.read().decode()[-2000:]  # type: ignore[union-attr]
        time.sleep(0.2)
    worker = int(pids[0].name.removeprefix("pid"))
    parent.send_signal(signal.SIGINT)
    assert parent.wait(60) != 0
    assert b"KeyboardInterrupt" in parent.communicate()[1]
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not Path(f"/proc/{worker}").exists()


@pytest.mark.slow
def test_a_cluster_that_does_not_answer_is_said_at_once(
    untrained: mm.Backbone, three: mm.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    if ray.is_initialized():
        ray.shutdown()
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(WorkerError, match=r"the Ray cluster at RAY_ADDRESS=127\.0\.0\.1:1 cannot"):
        mm.evaluate(untrained, three, methods=["random"], engine="ray", **GIVEN)


FAKES = {
    "scontrol": "#!/bin/sh\necho localhost\n",
    "hostname": "#!/bin/sh\necho 127.0.0.1\n",
    "srun": '#!/bin/bash\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n',
}


@pytest.mark.slow
def test_the_example_for_slurm_runs_where_its_commands_are_played_by_others(
    tmp_path: Path,
) -> None:
    """One machine, which is this one: Ray is started, joined through its address, and used."""
    pytest.importorskip("ray")
    fakes = {tmp_path / "fake" / name: text for name, text in FAKES.items()}
    for name, module in (("mmattrib", "mmattrib"), ("ray", "ray.scripts.scripts")):
        text = f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n'
        fakes[tmp_path / ".venv" / "bin" / name] = text
    for path, text in fakes.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = {
        **os.environ, "PATH": f"{tmp_path / 'fake'}:{os.environ['PATH']}", "PORT": str(port),
        "PYTHONPATH": str(ROOT), "SLURM_JOB_NODELIST": "localhost", "SLURM_JOB_NUM_NODES": "1",
        "SLURM_CPUS_PER_TASK": "2",
    }  # fmt: skip
    short = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # Ray's sockets need short names
    script = ROOT / "examples" / "cluster" / "slurm_ray.sh"
    words = ["--method", "random", "--metric", "auc", "--pair", "image,text", "--limit", "20"]
    with (tmp_path / "log").open("w") as log:
        running = subprocess.Popen(
            ["bash", script, *words, "--out", "table.md"], cwd=tmp_path, stdout=log, stderr=log,
            env={**given, "RAY_TMPDIR": short}, start_new_session=True,
        )  # fmt: skip
    try:
        assert running.wait(300) == 0, (tmp_path / "log").read_text()[-2000:]
        assert "scenes: 20 samples" in (tmp_path / "table.md").read_text()
    finally:  # as SLURM ends what a job leaves behind
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(running.pid, number)
            time.sleep(5)
        shutil.rmtree(short, ignore_errors=True)
