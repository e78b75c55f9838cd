"""The qemu-nbd process of one disk, or another NBD server that is started likewise.

Owns how the child is started, found dead, and ended. Must not know what is on the disk.

The socket is made and put into listening here and handed to qemu-nbd (systemd's socket activation
protocol), so that connecting never races with its start. The child dies with the daemon, also on
SIGKILL: PR_SET_PDEATHSIG is tied to the *thread* that started it, so it is started from the loop's
own thread (some 2 ms), never from a worker; the shell then checks that the daemon still was its
parent when that became effective. It runs in a session of its own so that Ctrl-C does not reach it.
A password comes by a pipe: arguments are seen by everybody.
"""

import fcntl
import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import trio

from restorefs.errors import StorageError

_SCRIPT = '[ "$PPID" = "$1" ] || exit 1; shift; exec 3<&0 </dev/null; LISTEN_PID=$$ exec "$@"'
_STOP_SECONDS = 5.0
# Not ours: that may hold the catalog's password. qemu-nbd allocates a buffer for each request: left
# to itself, malloc(3) maps and unmaps each, and most of the time goes into page faults.
_ENVIRONMENT = {
    "PATH": os.defpath,
    "LANG": "C",
    "LISTEN_FDS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(4 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(16 << 20),
}
# How web servers and Ceph are reached is for the operator to say.
_PASSED_ON = (
    *("http_proxy", "https_proxy", "no_proxy", "HTTPS_PROXY", "NO_PROXY"),
    *("CEPH_ARGS", "CEPH_CONF"),
)
_FIRST_FREE_FD = 20  # the shell uses those below 10


class QemuNbd:
    """A running qemu-nbd that serves one image, read-only, on a unix socket."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        pidfd: int,
        stderr: int,
        socket_path: Path,
    ) -> None:
        self.process = process
        self.socket_path = socket_path
        self.below: QemuNbd | None = None
        self._hidden = ("", "")
        self._stderr = stderr
        self._pidfd = pidfd
        self._stopped = False

    @classmethod
    def start(
        cls,
        blockdev: str,
        socket_path: Path,
        *,
        shown: str | None = None,
        below: "QemuNbd | None" = None,
    ) -> "QemuNbd":
        """Start to serve `blockdev` (a json: pseudo filename that pins every format).

        shown: what stands for it in messages. below: a server that it reads from, and ends with.
        Must run in the loop's thread. Raises StorageError when a program is missing or the socket
        cannot be made.
        """
        arguments = ("--read-only", "--cache=writeback", blockdev)
        server = cls.launch("qemu-nbd", arguments, socket_path)
        server._hidden = (blockdev, shown or blockdev)
        server.below = below
        return server

    @classmethod
    def launch(
        cls, name: str, arguments: Sequence[str], socket_path: Path, secret: str | None = None
    ) -> "QemuNbd":
        """Start an NBD server; in `arguments`, "{secret}" is the descriptor that gives `secret`.

        As start().
        """
        programs = [shutil.which(each) for each in ("setpriv", "sh", name)]
        if None in programs:
            raise StorageError(f"{name}, setpriv or sh is not installed; see `restorefs check`")
        setpriv, shell, program = [str(path) for path in programs]
        guarded = [setpriv, "--pdeathsig", "KILL", "--no-new-privs"]
        if os.geteuid() == 0:  # it reads images of any owner, and may do nothing else as root
            guarded += ["--bounding-set", "-all,+dac_read_search", "--inh-caps", "-all"]
        guarded += ["--", shell, "-c", _SCRIPT, "sh"]
        passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        # Neither end blocks: a child with much to say loses words, it does not hang.
        stderr, child_stderr = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            socket_path.unlink(missing_ok=True)
            with socket.socket(socket.AF_UNIX) as listener, _piped(secret) as fds:
                listener.bind(str(socket_path))
                listener.listen(1)
                process = subprocess.Popen(
                    [
                        *(*guarded, str(os.getpid()), program),
                        *(each.replace("{secret}", "".join(map(str, fds))) for each in arguments),
                    ],
                    stdin=listener.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=child_stderr,
                    env=passed_on | _ENVIRONMENT,
                    pass_fds=fds,
                    start_new_session=True,
                )
            try:
                pidfd = os.pidfd_open(process.pid)
            except OSError:
                process.kill()
                process.wait()
                raise
        except OSError as error:
            os.close(stderr)
            socket_path.unlink(missing_ok=True)
            raise StorageError(f"cannot start {name}: {error}") from error
        finally:
            os.close(child_stderr)
        return cls(process, pidfd, stderr, socket_path)

    def reason(self) -> str:
        """Return what it has said on stderr, on one line; empty if nothing."""
        below = self.below.reason() if self.below else ""
        try:
            said = os.read(self._stderr, 4096)
        except BlockingIOError:
            said = b""
        text = " ".join(said.decode(errors="replace").split()).removeprefix("qemu-nbd: ")
        if self._hidden[0]:
            text = text.replace(*self._hidden)
        return f"{below} {text}" if below and text else below or text

    def opened_files(self) -> list[str]:
        """Return the files, folders and block devices that it has open. Raises StorageError."""
        found = []
        try:
            for fd in Path(f"/proc/{self.process.pid}/fd").iterdir():
                kind = stat.S_IFMT(fd.stat().st_mode)
                if kind in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFBLK):
                    found.append(str(fd.readlink()))
        except OSError as error:
            raise StorageError(f"cannot see what qemu-nbd has open: {error.strerror}") from error
        return found

    async def stop(self) -> None:
        """End the process and remove its socket, once. It only reads, so it is killed at once."""
        if self._stopped:
            return
        self._stopped = True
        with trio.CancelScope(shield=True):
            self.process.kill()
            with trio.move_on_after(_STOP_SECONDS):  # a process stuck in its storage is left
                await trio.lowlevel.wait_readable(self._pidfd)
            self.process.poll()
            os.close(self._pidfd)
            os.close(self._stderr)
            self.socket_path.unlink(missing_ok=True)
            if self.below is not None:
                await self.below.stop()


@contextmanager
def _piped(secret: str | None) -> Iterator[tuple[int, ...]]:
    """Put a secret into a pipe; gives the descriptors to pass on."""
    if secret is None:
        yield ()
        return
    low, write = os.pipe2(os.O_CLOEXEC)
    try:
        read = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE_FD)
        os.write(write, secret.encode())  # short: a pipe holds it
    finally:
        os.close(low)
        os.close(write)
    try:
        yield (read,)
    finally:
        os.close(read)
