"""The examples for clusters: shell and YAML that can be read, and options that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmattrib.cli.evaluate import evaluate
from mmattrib.evaluation.executors import ENGINES

ROOT = Path(__file__).parent.parent
CLUSTER = ROOT / "examples" / "cluster"
SCRIPTS, MANIFESTS = sorted(CLUSTER.glob("*.sh")), sorted(CLUSTER.glob("*.yaml"))
OPTIONS = {name for option in evaluate.params for name in option.opts}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_bash_and_its_directives_are_slurms(path: Path) -> None:
    subprocess.run([shutil.which("bash") or "bash", "-n", path], check=True)
    text = path.read_text(encoding="utf-8")
    directives = re.findall(r"^#SBATCH (.*)$", text, flags=re.MULTILINE)
    assert directives
    assert all(re.fullmatch(r"--[a-z-]+=\S+", line) for line in directives)
    code = text.split("set -euo pipefail")[1]
    assert not re.search(r"^#SBATCH", code, flags=re.MULTILINE), "SLURM stops at the first command"


def _commands() -> list[list[str]]:
    """Every line of `mmattrib evaluate` in the examples and on the page, as words."""
    texts = [path.read_text(encoding="utf-8") for path in [*SCRIPTS, *MANIFESTS]]
    texts += re.findall(
        r"```sh\n(.*?)```",
        (ROOT / "docs" / "evaluation-at-scale.md").read_text(encoding="utf-8"),
        flags=re.DOTALL,
    )
    found = []
    for text in texts:
        joined = text.replace("\\\n", " ")
        found += [line.split() for line in joined.splitlines() if "evaluate" in line]
        found += [line.split() for line in joined.splitlines() if re.match(r"\s+- --", line)]
    return found


def test_options_of_the_commands_exist() -> None:
    seen = 0
    for words in _commands():
        for word in words:
            if re.match(r"--[a-z]", word):
                seen += 1
                assert word.partition("=")[0] in OPTIONS, word
    assert seen > 20


def _read(name: str) -> dict[str, Any]:
    (found,) = yaml.safe_load_all((CLUSTER / name).read_text(encoding="utf-8"))
    return dict(found)


def test_the_ray_job_runs_the_same_image_everywhere_and_has_places_for_its_workers() -> None:
    job = _read("rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    containers = [c for pod in pods for c in pod["template"]["spec"]["containers"]]
    assert len({c["image"] for c in containers}) == 1
    assert all(c["volumeMounts"][0]["mountPath"] == "/data" for c in containers)
    words = job["spec"]["entrypoint"].split()
    assert all(word in OPTIONS for word in words if word.startswith("--"))
    workers = cluster["workerGroupSpecs"][0]
    places = workers["replicas"] * int(containers[1]["resources"]["requests"]["cpu"])
    assert int(words[words.index("--jobs") + 1]) == places


def test_the_plain_job_starts_again_and_keeps_its_store() -> None:
    job = _read("job.yaml")
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    spec = job["spec"]["template"]["spec"]
    assert spec["restartPolicy"] == "OnFailure"
    (container,) = spec["containers"]
    given = dict(word.removeprefix("--").split("=", 1) for word in container["args"])
    assert given["resume"].startswith(container["volumeMounts"][0]["mountPath"])
    assert given["engine"] in ENGINES
    assert spec["volumes"][0]["name"] == container["volumeMounts"][0]["name"]
