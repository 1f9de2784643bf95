"""A Ray cluster of this machine whose TPU slices are CPUs: real scheduling, gangs, collectives and deaths."""

import os
import pathlib

REPOSITORY = pathlib.Path(__file__).parents[2]
TOPOLOGY, POD_TYPE = "2x2x2", "v4-16"  # two hosts of four chips each


class Slices:
    """Fake v4-16 slices of two hosts, each host a Ray node with one CPU device; a context manager.

    Attributes:
      address: of the cluster.
    """

    def __init__(self, count: int, environment: dict[str, str] | None = None):
        from ray.cluster_utils import Cluster

        self._cluster = Cluster()
        self._environment = {
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests' / 'support'}",
            **{name: os.environ[name] for name in os.environ if name.startswith(("JAX_COMP", "JAX_PERS"))},
            **(environment or {}),
        }
        self._cluster.add_node(num_cpus=2, env_vars=self._environment, include_dashboard=False)
        self.hosts = [[self._add(number, host) for host in range(2)] for number in range(count)]
        self.address = self._cluster.address

    def __enter__(self) -> "Slices":
        return self

    def __exit__(self, *exception):
        self._cluster.shutdown()

    def remove(self, number: int, host: int) -> None:
        """Takes a host away at once, as a spot machine that gave no notice."""
        self._cluster.remove_node(self.hosts[number][host], allow_graceful=False)

    def replace(self, number: int, host: int) -> None:
        """Gives a host that was taken away again."""
        self.hosts[number][host] = self._add(number, host)

    def _add(self, number: int, host: int):
        head = {f"TPU-{POD_TYPE}-head": 1} if host == 0 else {}
        labels = {"slice-name": f"slice-{number}", "worker-id": str(host), "pod-type": POD_TYPE, "topology": TOPOLOGY}
        tpu = {"TPU_NAME": f"slice-{number}", "TPU_WORKER_ID": str(host)}
        tpu |= {"TPU_ACCELERATOR_TYPE": POD_TYPE, "TPU_TOPOLOGY": TOPOLOGY}
        return self._cluster.add_node(
            num_cpus=1,
            resources={"TPU": 4, "accelerator_type:TPU-V4": 1} | head,
            labels={f"ray.io/tpu-{name}": value for name, value in labels.items()},
            env_vars=self._environment | tpu,
        )
