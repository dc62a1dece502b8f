"""``cluster.yaml`` against the schema that Ray ships for its launcher."""

import json
import shlex
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parent.parent
SCHEMA = json.loads(files("ray.autoscaler").joinpath("ray-schema.json").read_text())
TEXT = (ROOT / "cluster.yaml").read_text()


def cluster() -> dict:
    return yaml.safe_load(TEXT)


def test_it_is_valid():
    jsonschema.validate(cluster(), SCHEMA)


@pytest.mark.parametrize("path", [("max_workerz",), ("available_node_types", "gpu", "min_worker")])
def test_a_misspelt_key_is_found(path):
    wrong = cluster()
    inner = wrong
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = 1
    with pytest.raises(jsonschema.ValidationError, match=path[-1]):
        jsonschema.validate(wrong, SCHEMA)


def test_it_describes_workers_with_gpus_and_a_head_without_trials():
    types, head = cluster()["available_node_types"], cluster()["head_node_type"]
    assert types[head]["resources"]["CPU"] == 0
    workers = [kind for name, kind in types.items() if name != head]
    assert workers and all(kind["resources"]["GPU"] > 1 for kind in workers)
    assert sum(kind["max_workers"] for kind in workers) <= cluster()["max_workers"]


def test_its_nodes_ask_for_a_token_and_its_dashboard_stays_on_loopback():
    starts = [*cluster()["head_start_ray_commands"], *cluster()["worker_start_ray_commands"]]
    starts = [command for command in starts if "ray start" in command]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert all("RAY_USAGE_STATS_ENABLED=0" in command for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert "~/.ray/auth_token" in cluster()["file_mounts"]


def test_the_command_in_its_comment_is_one_of_ours():
    from run_search import parser

    comment = " ".join(line.lstrip("# ") for line in TEXT.splitlines() if line.startswith("#"))
    command = comment[
        comment.index("python run_search.py") : comment.index("'", comment.index("run_search"))
    ]
    args = parser().parse_args(shlex.split(command.replace("\\", ""))[2:])
    assert args.address == "auto" and args.study_dir.is_absolute()
