"""Hosts on one machine: network namespaces on a bridge, each with processes, mounts and a host name of its own.

A host has its own address and interface, its own process ids, /tmp/ray, /dev/shm, home folder and /etc/hosts, in which
its name is a loopback address, as Debian writes it. It shares the machine's other files, so a folder is shared storage
unless a host is given one of its own there. Needs root, iproute2 and util-linux.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
ONPREM = REPOSITORY / "cluster" / "onprem" / "ray-node.sh"
HEAD_PORT = 6379
SHM_MIB = 512
TOOLS = ("ip", "tc", "unshare", "nsenter", "setpriv", "mount")


def missing() -> str | None:
    """Return why there can be no hosts here; none where there can."""
    if os.geteuid() != 0:
        return "hosts are network namespaces, which need root"
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    if absent:
        return f"hosts need {', '.join(absent)} (iproute2, util-linux)"
    probe = f"s4probe{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"network namespaces cannot be made here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", probe], check=True)
    return None


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)} ended with {done.returncode}: {done.stderr.strip()}")


@dataclass
class Host:
    """One host. Its network outlives its processes: a host that was killed can be booted again."""

    name: str
    address: str
    cpus: int
    folder: Path
    """What it does not share: ray's files, home."""
    token: str | None
    """Ray's token; none: its user has none."""
    private: Sequence[Path] = ()
    """Folders that are empty and its own here, where other hosts share them."""
    environment: Mapping[str, str] = field(default_factory=dict)
    joined: bool = False
    """Whether it is part of the Ray cluster."""
    _keeper: subprocess.Popen[bytes] | None = None
    _started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def interface(self) -> str:
        """Name of its network interface; another one on every host."""
        return f"e{self.name}"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def ray_files(self) -> Path:
        """What /tmp/ray is on this host."""
        return self.folder / "ray"

    def boot(self) -> None:
        """Start its first process, which all others end with."""
        for folder in (self.home / ".ray", self.ray_files, *self.private):
            folder.mkdir(parents=True, exist_ok=True)
        if self.token is not None:
            (self.home / ".ray" / "auth_token").write_text(self.token)
            (self.home / ".ray" / "auth_token").chmod(0o600)
        names = self.folder / "hosts"
        names.write_text(f"127.0.0.1 localhost\n127.0.1.1 {self.name}\n")
        Path("/tmp/ray").mkdir(exist_ok=True)  # noqa: S108  # where the host's own folder is put
        mounts = [f"mount --bind {self.ray_files} /tmp/ray", f"mount --bind {names} /etc/hosts"]
        mounts += [f"mount -t tmpfs -o size={SHM_MIB}m tmpfs /dev/shm"]
        mounts += [f"mount -t tmpfs tmpfs {folder}" for folder in self.private]
        script = " && ".join([f"hostname {self.name}", *mounts, "echo up; while :; do sleep 3600 & wait; done"])
        self._keeper = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "nsenter", f"--net=/run/netns/{self.name}",
             "unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc",
             "sh", "-c", script],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        assert self._keeper.stdout is not None
        if self._keeper.stdout.readline().strip() != b"up":
            raise RuntimeError(f"host {self.name} did not come up")

    def command(self, *words: str | Path) -> list[str]:
        """Return the command that runs `words` on this host."""
        settings = {
            "HOME": str(self.home),
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "HOSTNAME": self.name,
            "OMP_NUM_THREADS": "1",
            **self.environment,
        }
        pairs = [f"{key}={value}" for key, value in settings.items()]
        unset = ["-u", "RAY_ADDRESS", "-u", "RAY_AUTH_TOKEN", "-u", "RAY_AUTH_TOKEN_PATH"]
        target = ["nsenter", "--target", str(self._init), "--net", "--mount", "--uts", "--ipc", "--pid"]
        return [*target, "env", *unset, *pairs, *map(str, words)]

    def run(
        self, *words: str | Path, timeout: float = 120, check: bool = True, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; what it printed is in the result, and in the error of one that failed."""
        done = subprocess.run(
            self.command(*words), capture_output=True, text=True, timeout=timeout, check=False, cwd=cwd
        )
        if check and done.returncode:
            raise RuntimeError(f"{self.name}: {words} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    def start(self, *words: str | Path, log: Path, cwd: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a command; what it prints goes to a file."""
        with log.open("wb") as out:
            started = subprocess.Popen(
                self.command(*words), stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, cwd=cwd,
                start_new_session=True,
            )  # fmt: skip
        self._started.append(started)
        return started

    def kill(self) -> None:
        """End all its processes at once. Their connections are closed by the kernel, which peers see."""
        self.joined = False
        if self._keeper is not None:
            self._keeper.kill()
            self._keeper.wait()
            assert self._keeper.stdout is not None
            self._keeper.stdout.close()
            self._keeper = None
        for started in self._started:
            started.wait()
        self._started.clear()

    def cut(self) -> None:
        """Take its network away: peers see silence, and Ray's processes here end once they are taken for dead."""
        self.joined = False
        _ip("-n", self.name, "link", "set", self.interface, "down")

    def mend(self) -> None:
        """Give its network back."""
        _ip("-n", self.name, "link", "set", self.interface, "up")

    def slow(self, megabits: float) -> None:
        """Limit what it sends. (`tc netem` could delay too, but not every kernel has it; every one has tbf.)"""
        self._queue("replace", "tbf", "rate", f"{megabits}mbit", "burst", "32kbit", "latency", "400ms")

    def quicken(self) -> None:
        """Limit it no more."""
        self._queue("del")

    def _queue(self, verb: str, *limit: str) -> None:
        words = ["tc", "-n", self.name, "qdisc", verb, "dev", self.interface, "root", *limit]
        subprocess.run(words, check=True)

    def sent_bytes(self) -> int:
        """Return the bytes that its interface has sent."""
        table = self.run("cat", "/proc/net/dev").stdout
        line = next(line for line in table.splitlines() if line.strip().startswith(f"{self.interface}:"))
        return int(line.partition(":")[2].split()[8])

    @property
    def _init(self) -> int:
        assert self._keeper is not None, f"{self.name} is not up"
        pid = self._keeper.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0])


class Hosts:
    """Hosts on one bridge. The first is the head of their Ray cluster; nothing runs until it is told to."""

    def __init__(self, folder: Path, cpus: Sequence[int]) -> None:
        """Make the network and boot the hosts.

        Args:
            folder: for what the hosts do not share.
            cpus: that Ray is told of, host by host.
        """
        tag = secrets.token_hex(4)  # of the 15 characters that an interface's name may have
        self._bridge = f"s4b{tag}"
        self._subnet = f"10.77.{secrets.randbelow(255)}"
        self._tag = tag
        self._folder = folder
        self.token = secrets.token_hex(32)
        self.all: list[Host] = []
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("link", "set", self._bridge, "up")
        try:
            for count in cpus:
                self.add(count)
        except BaseException:
            self.close()
            raise

    def __getitem__(self, number: int) -> Host:
        return self.all[number]

    @property
    def head(self) -> Host:
        return self.all[0]

    @property
    def address(self) -> str:
        """Of the cluster."""
        return f"{self.head.address}:{HEAD_PORT}"

    def add(self, cpus: int, *, token: bool = True, private: Sequence[Path] = ()) -> Host:
        """Connect one more host, and boot it."""
        number = len(self.all) + 1
        name = f"s4h{self._tag}{number}"
        host = Host(
            name,
            f"{self._subnet}.{number}",
            cpus,
            self._folder / f"host{number}",
            self.token if token else None,
            private,
        )
        self.all.append(host)
        plug = self._plug(number)
        _ip("netns", "add", name)
        _ip("link", "add", host.interface, "type", "veth", "peer", "name", plug)
        _ip("link", "set", host.interface, "netns", name)
        _ip("link", "set", plug, "master", self._bridge, "up")
        _ip("-n", name, "addr", "add", f"{host.address}/24", "dev", host.interface)
        _ip("-n", name, "link", "set", host.interface, "up")
        _ip("-n", name, "link", "set", "lo", "up")
        host.boot()
        return host

    def start_head(self, *options: str) -> None:
        """Start the cluster's head on the first host."""
        where = ["--address", self.head.address, "--port", str(HEAD_PORT), "--cpus", str(self.head.cpus)]
        self.head.run(ONPREM, "head", *where, *options)

    def join(self, host: Host) -> None:
        """Let a host join the cluster."""
        host.run(ONPREM, "join", self.address, "--address", host.address, "--cpus", str(host.cpus))
        host.joined = True

    def start(self, *options: str) -> None:
        """Start the head and let all others join."""
        self.start_head(*options)
        for host in self.all[1:]:
            self.join(host)

    def gather(self, hosts: Sequence[Host]) -> None:
        """Boot hosts that are not part of the cluster now, and let them join."""
        for host in hosts:
            if not host.joined:
                host.kill()
                host.boot()
                self.join(host)

    def close(self) -> None:
        """End everything; nothing stays on the machine but the folder."""
        for host in self.all:
            host.kill()
        for number, host in enumerate(self.all, 1):
            with contextlib.suppress(RuntimeError):  # with its namespace it would go later
                _ip("link", "del", self._plug(number))
            with contextlib.suppress(RuntimeError):
                _ip("netns", "del", host.name)
        with contextlib.suppress(RuntimeError):
            _ip("link", "del", self._bridge)

    def _plug(self, number: int) -> str:
        """Return the name of a host's end at the bridge."""
        return f"p{self._tag}{number}"


@contextlib.contextmanager
def hosts(folder: Path, cpus: Sequence[int]) -> Iterator[Hosts]:
    """Make hosts, and take everything away again."""
    made = Hosts(folder, cpus)
    try:
        yield made
    finally:
        made.close()


def wait_for(condition: Callable[[], bool], what: str, timeout: float = 60.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:g} s for {what}")
        time.sleep(0.2)


def interrupt(running: subprocess.Popen[bytes], kind: int = signal.SIGINT) -> None:
    """Send a signal to a command that `Host.start` started: to itself, not to what carried it onto the host."""
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    for child in children:
        os.kill(int(child), kind)
