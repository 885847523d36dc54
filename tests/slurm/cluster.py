"""A real SLURM on one machine: a controller, two virtual nodes and two fake GPUs; accounting is off.

Debian's slurm-wlm and munge are enough, without cgroups and without systemd. The node `n1` (partition `cpu`) has eight
declared CPUs; `n2` (partition `gpu`) has two GPUs whose device files are copies of /dev/null.
"""

import os
import secrets
import shutil
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel")
SYSTEM = Path("/etc/slurm")
"""Where every SLURM command looks without SLURM_CONF, which Snakemake's executor takes out of the environment."""

CONFIGURATION = """\
ClusterName=trainyard
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
GresTypes=gpu
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
MinJobAge=300
KillWait=10
SchedulerParameters=sched_min_interval=200000,sched_interval=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=8 RealMemory=32000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=8 RealMemory=32000 Gres=gpu:2
PartitionName=cpu Nodes=n1 Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=n2 MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """What this machine lacks to start a cluster, in words; None where nothing is missing."""
    if not sys.platform.startswith("linux"):
        return "SLURM runs on Linux"
    missing = [program for program in PROGRAMS if _which(program) is None]
    if missing:
        return f"no {', '.join(missing)} here (Debian: apt-get install slurm-wlm munge)"
    if os.geteuid() != 0:
        return "starting SLURM's daemons needs root, as in a container"
    if (SYSTEM / "slurm.conf").exists() and not _left_behind():
        return f"{SYSTEM} holds a configuration: this machine belongs to a cluster"
    try:
        __import__("snakemake_executor_plugin_slurm")
    except ImportError:
        return "snakemake-executor-plugin-slurm is not installed (pip install -e '.[slurm]')"
    return None


def _left_behind() -> Path | None:
    """The folder of an earlier cluster of these tests, whose test was killed; None where there is none."""
    link = SYSTEM / "slurm.conf"
    ours = link.is_symlink() and (not link.exists() or "ClusterName=trainyard\n" in link.read_text())
    return link.readlink().parent if ours else None


def _which(program: str) -> str | None:
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


class Cluster:
    """Started by `start`, ended by `stop`; everything but two links in /etc/slurm lies in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.links = [SYSTEM / name for name in ("slurm.conf", "gres.conf")]

    def start(self) -> None:
        """Write the configuration, start munge, controller and nodes, and wait until both nodes are idle."""
        before = _left_behind()
        if before is not None:
            Cluster(before).stop()
        for name in ("state", "spool.n1", "spool.n2", "dev"):
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o755)
        for number in range(2):
            # A copy of /dev/null; the trailing digit becomes the index of the GPU.
            os.mknod(self.folder / f"dev/nvidia{number}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        text = CONFIGURATION.format(host=socket.gethostname(), folder=self.folder, ports=_free_ports(3))
        (self.folder / "slurm.conf").write_text(text)
        gres = f"AutoDetect=off\nNodeName=n2 Name=gpu File={self.folder}/dev/nvidia[0-1]\n"
        (self.folder / "gres.conf").write_text(gres)
        SYSTEM.mkdir(exist_ok=True)
        for link in self.links:
            link.symlink_to(self.folder / link.name)
        files = {"key-file": key, "socket": "munge.socket", "pid-file": "munge.pid", "log-file": "munge.log"}
        options = [f"--{name}={self.folder / file}" for name, file in files.items()]
        self._run("munged", *options, f"--seed-file={self.folder}/munge.seed", "--force")
        self._run("slurmctld", "-f", f"{self.folder}/slurm.conf")
        for node in ("n1", "n2"):
            self._run("slurmd", "-f", f"{self.folder}/slurm.conf", "-N", node)
        self._wait_for_nodes()

    def stop(self) -> None:
        """Cancel what runs, end the daemons and take the links away."""
        subprocess.run(["scancel", "--user", "root"], capture_output=True)
        for name in ("slurmd.n1.pid", "slurmd.n2.pid", "slurmctld.pid", "munge.pid"):
            _end(self.folder / name)
        for link in self.links:
            if link.is_symlink() and link.readlink().parent == self.folder:
                link.unlink()

    def jobs(self) -> list[dict[str, str]]:
        """The queue: id, state, name and comment of each job that is pending or running."""
        line = subprocess.run(
            ["squeue", "--noheader", "--format=%i|%T|%k|%P"], capture_output=True, text=True, check=True
        )
        names = ("id", "state", "comment", "partition")
        return [dict(zip(names, row.split("|"), strict=True)) for row in line.stdout.split("\n") if row]

    def _run(self, program: str, *arguments: str) -> None:
        path = _which(program)
        assert path is not None
        # A daemon inherits the pipes of a captured run and would keep it waiting: the output goes to a file.
        with (self.folder / f"{program}.out").open("a") as out:
            subprocess.run([path, *arguments], check=True, stdout=out, stderr=out, stdin=subprocess.DEVNULL)

    def _wait_for_nodes(self) -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            states = subprocess.run(["sinfo", "-h", "-N", "-o", "%T"], capture_output=True, text=True).stdout.split()
            if states == ["idle", "idle"]:
                return
            time.sleep(0.5)
        logs = "".join(file.read_text()[-2000:] for file in sorted(self.folder.glob("*.log")))
        raise RuntimeError(f"SLURM did not come up: {states}\n{logs}")


def _free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    for each in held:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports


def _end(pid_file: Path) -> None:
    """End a daemon by its pid file and wait until it is gone."""
    if not pid_file.exists():
        return
    pid = int(pid_file.read_text())
    for number in (15, 9):
        try:
            os.kill(pid, number)
            until = time.monotonic() + 10
            while time.monotonic() < until:
                os.kill(pid, 0)
                time.sleep(0.1)
        except ProcessLookupError:
            return
