"""Connect to Ray: a local instance of our own, or a cluster that somebody runs."""

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import NamedTuple

import ray


class ClusterError(Exception):
    """Ray could not be reached or started; the message says what to do."""


class Cluster(NamedTuple):
    dashboard: str | None  # address of the web page
    address: str
    cpus: int
    gpus: int
    local: bool
    machines: tuple[int, ...]  # CPUs of each


@contextlib.contextmanager
def connected(address: str | None, engines: int | None) -> Iterator[Cluster]:
    """Ray for the length of a study; a local instance ends with it, a cluster stays.

    Args:
        address: of a running cluster ("auto", "host:port"), or None for an instance of our own.
        engines: for which a local instance has a CPU each at least, and all of the machine's.

    Raises:
        ClusterError: if there is no cluster at the address or the instance does not start.
    """
    try:
        context = ray.init(
            address=address or "local",
            num_cpus=None if address else max(engines or 1, os.cpu_count() or 1),
            include_dashboard=None if address else True,
            dashboard_host="127.0.0.1",
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
        )
    except Exception as error:  # of any class: a web page that does not start is an Exception
        if address:
            raise ClusterError(
                f"no Ray cluster answers at {address!r} ({one_line(error)}): start one with "
                "`ray start --head`, or leave --address out to search on this machine"
            ) from error
        raise ClusterError(f"Ray did not start on this machine: {one_line(error)}") from error
    try:
        resources = ray.cluster_resources()
        yield Cluster(
            dashboard=context.dashboard_url,
            address=ray.get_runtime_context().gcs_address,
            cpus=int(resources.get("CPU", 0)),
            gpus=int(resources.get("GPU", 0)),
            local=not address,
            machines=tuple(
                int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]
            ),
        )
    finally:
        ray.shutdown()


def one_line(error: Exception) -> str:
    """The message of an error without its line breaks, at most 200 characters."""
    return " ".join(str(error).split())[:200]
