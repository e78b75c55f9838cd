"""A MariaDB server of the tests' own.

Owns one server per test session, in a temporary folder, on a unix socket and a free TCP port of
127.0.0.1; it is ended by its process id, also when tests fail. Knows the backup product's tables as
its owners describe them, and nothing of restorefs. Concurrency: plain blocking calls.

Tests use the fixture `mariadb`, which conftest.py makes known.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pymysql
import pytest

from tests.tools import require, run

USER = "restorefs"
PASSWORD = "p@ss/wörd:%"  # must be escaped in a URL, and must never be seen in a message
_READY_SECONDS = 60

# The backup product's schema. Strings are compared without regard to case, as by default.
PRODUCT_TABLES = (
    """CREATE TABLE vm_backup_contexts (
        context_id VARCHAR(64) PRIMARY KEY,
        vm_name VARCHAR(255) NOT NULL,
        repository_id VARCHAR(64)
    ) ENGINE=InnoDB""",
    """CREATE TABLE backup_jobs (
        id VARCHAR(64) PRIMARY KEY,
        vm_backup_context_id VARCHAR(64),
        status ENUM('pending','running','completed','failed') NOT NULL,
        created_at TIMESTAMP NULL DEFAULT CURRENT_TIMESTAMP,
        FOREIGN KEY (vm_backup_context_id)
            REFERENCES vm_backup_contexts (context_id) ON DELETE CASCADE
    ) ENGINE=InnoDB""",
    """CREATE TABLE backup_disks (
        id BIGINT PRIMARY KEY AUTO_INCREMENT,
        backup_job_id VARCHAR(64) NOT NULL,
        disk_index INT NOT NULL,
        vmware_disk_key INT,
        size_gb BIGINT,
        qcow2_path VARCHAR(512),
        disk_change_id VARCHAR(255),
        status ENUM('pending','running','completed','failed') NOT NULL,
        FOREIGN KEY (backup_job_id) REFERENCES backup_jobs (id) ON DELETE CASCADE
    ) ENGINE=InnoDB""",
)

# restore_mounts as the product itself may have made it.
PRODUCT_MOUNTS = """CREATE TABLE restore_mounts (
    id VARCHAR(36) PRIMARY KEY,
    backup_disk_id BIGINT NOT NULL,
    mount_path VARCHAR(512) NOT NULL,
    nbd_device VARCHAR(32) NOT NULL,
    filesystem_type VARCHAR(8),
    status ENUM('mounting','mounted','unmounting','failed') NOT NULL,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    last_accessed_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    expires_at TIMESTAMP NULL,
    UNIQUE KEY uk_backup_disk (backup_disk_id),
    UNIQUE KEY uk_nbd_device (nbd_device),
    FOREIGN KEY (backup_disk_id) REFERENCES backup_disks (id) ON DELETE CASCADE
) ENGINE=InnoDB"""


class MariaDb:
    """A running server. `start` and `stop` may be called any number of times; data stays."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "s"
        self.port = _free_port()
        self._process: subprocess.Popen[str] | None = None
        self._log: list[str] = []
        self._drain: threading.Thread | None = None
        run(
            "mariadb-install-db",
            "--no-defaults",
            f"--datadir={folder / 'data'}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            *self._as_user(),
        )

    def add_user(self) -> None:
        """Make the user of the URLs."""
        for host in ("localhost", "127.0.0.1"):
            self.execute(f"CREATE USER '{USER}'@'{host}' IDENTIFIED BY '{PASSWORD}'")
            self.execute(f"GRANT ALL ON *.* TO '{USER}'@'{host}'")

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        if self._process is not None:
            return
        process = subprocess.Popen(
            [
                "mariadbd",
                "--no-defaults",
                f"--datadir={self.folder / 'data'}",
                f"--socket={self.socket}",
                f"--pid-file={self.folder / 'pid'}",
                "--bind-address=127.0.0.1",
                f"--port={self.port}",
                "--skip-name-resolve",
                "--innodb-buffer-pool-size=32M",
                "--innodb-log-file-size=8M",
                "--innodb-flush-log-at-trx-commit=0",
                "--innodb-flush-method=nosync",
                *self._as_user(),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
        )
        self._process = process
        settled = threading.Event()
        self._drain = threading.Thread(target=self._follow, args=(process, settled))
        self._drain.start()
        if not settled.wait(_READY_SECONDS) or process.poll() is not None:
            self.stop()
            raise AssertionError("mariadbd does not start:\n" + "".join(self._log))

    def _follow(self, process: subprocess.Popen[str], settled: threading.Event) -> None:
        """Read the server's log, so that it never fills the pipe, until the server ends."""
        assert process.stderr is not None
        for line in process.stderr:
            self._log.append(line)
            if "ready for connections" in line:
                settled.set()
        process.wait()
        settled.set()

    def stop(self) -> None:
        """End the server and wait until it is gone."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert self._drain is not None
        self._drain.join()
        assert process.stderr is not None
        process.stderr.close()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Have the server down for a while."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Have the server take connections and answer nothing for a while."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    @contextmanager
    def database(self, name: str, *, tables: bool = True) -> Iterator[str]:
        """Make a database with the product's tables, or empty; yields its URL over TCP."""
        self.execute(f"CREATE DATABASE `{name}`")
        try:
            for table in PRODUCT_TABLES if tables else ():
                self.execute(table, database=name)
            yield self.url(name)
        finally:
            self.execute(f"DROP DATABASE `{name}`")

    def url(self, database: str) -> str:
        """Return a catalog URL over TCP."""
        password = quote(PASSWORD, safe="")
        return f"mysql+pymysql://{USER}:{password}@127.0.0.1:{self.port}/{database}"

    def socket_url(self, database: str) -> str:
        """Return a catalog URL over the unix socket."""
        password = quote(PASSWORD, safe="")
        return f"mysql+pymysql://{USER}:{password}@/{database}?unix_socket={self.socket}"

    def execute(self, sql: str, *values: Any, database: str | None = None) -> list[dict[str, Any]]:
        """Run one statement as the server's administrator, with the session in UTC; return its
        rows."""
        with (
            pymysql.connect(
                unix_socket=str(self.socket),
                user="root",
                ssl_disabled=True,  # its set-up takes longer than most statements
                database=database,
                autocommit=True,
                cursorclass=pymysql.cursors.DictCursor,
                init_command="SET time_zone = '+00:00'",
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(sql, values or None)
            return list(cursor.fetchall())

    @staticmethod
    def _as_user() -> list[str]:
        return ["--user=mysql"] if os.geteuid() == 0 else []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDb]:
    require("mariadbd", "mariadb-install-db")
    # Not below pytest's own folder: the server's user may not enter that.
    folder = Path(tempfile.mkdtemp(prefix="restorefs-mariadb-"))
    try:
        folder.chmod(0o755)
        if os.geteuid() == 0:
            shutil.chown(folder, "mysql", "mysql")
        server = MariaDb(folder)
        try:
            server.start()
            server.add_user()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
