"""A SLURM of its own for tests: munged, slurmctld and one slurmd a node, on this machine, in one folder.

Ports, sockets, keys and logs are the cluster's own, so that it disturbs no other SLURM of the machine; it needs root,
and the Debian packages slurm-wlm and munge.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from support import ROOT

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "sinfo", "scontrol", "scancel", "setpriv")

MUNGE = {
    "key-file": "munge.key",
    "socket": "munge.socket",
    "pid-file": "munge.pid",
    "log-file": "munge.log",
    "seed-file": "munge.seed",
}

# A container may have no cgroups to give, so processes are found by their parents. A requeued job waits until the
# credential of its last start has expired: two minutes by default, five seconds at least.
CONFIGURATION = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
KillWait=5
MinJobAge=3600
SchedulerParameters=sched_interval=2,batch_sched_delay=0,sched_min_interval=100000
GresTypes=gpu
{nodes}
NodeName=gpu[1-2] NodeAddr=127.0.0.1 CPUs=64 RealMemory=512000 Gres=gpu:8 State=DOWN
PartitionName=tests Nodes={names} Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=gpu[1-2] MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """What keeps a cluster from being started here, None if nothing does."""
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent:
        return f"no {absent[0]} here (Debian and Ubuntu: apt-get install slurm-wlm munge)"
    return None if os.geteuid() == 0 else "only root can start a SLURM of its own"


class Cluster:
    """A SLURM that runs; leaving the context ends its jobs and its daemons.

    Its nodes are in the partition `tests`. The partition `gpu` has nodes that are down: jobs for GPUs can be submitted
    to it, and wait.

    Attributes:
        folder: Where everything of it is.
        environment: All variables of a process that is to use it.
    """

    def __init__(self, folder: Path, nodes: int = 1, cpus: int = 2) -> None:
        self.folder = folder
        self._nodes = [f"node{i}" for i in range(1, nodes + 1)]
        self._daemons: list[subprocess.Popen[bytes]] = []
        host, ports = socket.gethostname(), _free_ports(1 + nodes)
        lines = [
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory=4000"
            for node, port in zip(self._nodes, ports[1:], strict=True)
        ]
        (folder / "state").mkdir(parents=True)
        values = {
            "folder": folder,
            "host": host,
            "port": ports[0],
            "nodes": "\n".join(lines),
            "names": ",".join(self._nodes),
        }
        (folder / "slurm.conf").write_text(CONFIGURATION.format(**values))
        (folder / "munge.key").write_bytes(os.urandom(1024))
        (folder / "munge.key").chmod(0o400)
        # Where the tests run in a job of another SLURM, its variables are not for these commands.
        outside = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
        self.environment = {**outside, "SLURM_CONF": str(folder / "slurm.conf")}

    def __enter__(self) -> Self:
        try:
            self._start("munged", "--foreground", "--force", *(f"--{k}={self.folder / v}" for k, v in MUNGE.items()))
            self.wait((self.folder / MUNGE["socket"]).exists, 10)
            self._start("slurmctld", "-D")
            for node in self._nodes:
                self._start("slurmd", "-D", "-N", node)
            self.wait(
                lambda: self._ask("sinfo", "-h", "-p", "tests", "-o", "%D %T") == f"{len(self._nodes)} idle\n", 30
            )
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command from the repository's root as a user of this cluster."""
        return subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True)

    def wait(self, condition: Callable[[], bool], seconds: float) -> None:
        """Wait until a condition holds; a failure shows the daemons' last words."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"waited {seconds} s\n{self._ask('squeue', '--states=all')}\n{self.logs()}"
            time.sleep(0.05)

    def logs(self) -> str:
        """The end of each daemon's log."""
        texts = {p.name: p.read_text(errors="replace").splitlines()[-8:] for p in sorted(self.folder.glob("*.log"))}
        return "\n".join(f"{name}: {line}" for name, lines in texts.items() for line in lines)

    def stop(self) -> None:
        """End all jobs, then all daemons, whatever state they are in."""
        if len(self._daemons) > 2 and self._ask("squeue", "-h"):
            self._ask("scancel", "--user=root")
            end = time.monotonic() + 20
            while self._ask("squeue", "-h") and time.monotonic() < end:
                time.sleep(0.2)
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in reversed(self._daemons):
            try:
                daemon.wait(timeout=10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._daemons.clear()

    def _start(self, *command: str) -> None:
        # They end with the tests, even where those are killed.
        with (self.folder / f"{Path(command[0]).name}-{len(self._daemons)}.out.log").open("wb") as log:
            self._daemons.append(
                subprocess.Popen(
                    ["setpriv", "--pdeathsig", "TERM", *command], env=self.environment, stdout=log, stderr=log
                )
            )

    def _ask(self, *command: str) -> str:
        return self.run(*command).stdout


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
