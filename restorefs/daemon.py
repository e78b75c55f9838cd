"""The daemon: makes the parts and wires them. The only place that knows them all.

Owns start and end. At the start everything that can be refused is refused before the mount is
made. At the end (SIGTERM, Ctrl-C, or an unmount from outside) requests stop first, then every disk
is let go, then the records are written, then the mount is gone; a second signal hurries.
"""

import fcntl
import gc
import json
import logging
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import trio

from restorefs.block.cache import BlockCache
from restorefs.catalog.base import Catalog
from restorefs.catalog.open import open_catalog, open_folder
from restorefs.config import Settings, is_ours
from restorefs.control.app import Access, make_app
from restorefs.control.doors import Doors
from restorefs.control.server import serve, serve_unix
from restorefs.control.sessions import Doorkeeper
from restorefs.control.status import Status
from restorefs.errors import ConfigError, RestoreError
from restorefs.fuse.mount import Mount, prepare, unmount
from restorefs.fuse.protocol import OPCODES
from restorefs.fuse.unmounter import unmounter
from restorefs.guestfs.base import GuestOptions
from restorefs.rights import Rights
from restorefs.session.ledger import Ledger
from restorefs.session.pool import Pool
from restorefs.session.settings import PoolSettings
from restorefs.session.uri import WebOptions
from restorefs.tree.presentation import Presentation, Profile
from restorefs.tree.refresh import Refresher
from restorefs.tree.tree import Tree

log = logging.getLogger(__name__)
_END_SECONDS = 10.0
_GARBAGE_THRESHOLD = 50_000  # more objects than at the last look; Python's own is 700
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


async def run(settings: Settings, ready: Callable[[str], None]) -> None:
    """Serve one mount until it is unmounted or a signal ends it.

    `ready` gets a line for people once the mount can be used. Raises ConfigError or CatalogError
    before anything is mounted.
    """
    _collect_garbage_seldom()
    settings.check()
    rights = Rights(settings.user)
    prepare(settings.mountpoint)
    _make_folders(settings, rights)
    with (
        Doors(settings) as doors,
        _unmounting(settings, rights) as unmounts,
        _instance(settings, rights) as instance_dir,
    ):
        doorkeeper = doors.doorkeeper()
        catalog = await trio.to_thread.run_sync(_open_catalog, settings)
        try:
            mounting = partial(Mount, settings=settings, rights=rights, unmount=unmounts)
            await _serve(settings, instance_dir, catalog, mounting, ready, doors, doorkeeper)
        except BaseExceptionGroup as group:
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
                error = error.exceptions[0]
            if isinstance(error, RestoreError):
                raise error from None
            raise
        finally:
            catalog.close()


def _collect_garbage_seldom() -> None:
    """Have Python look for cycles seldom: listings make very many objects, none of them in a cycle,
    and looking at them took a third of the time of a large one. What is there now stays for ever.
    """
    gc.freeze()
    gc.set_threshold(_GARBAGE_THRESHOLD)


async def _serve(
    settings: Settings,
    instance_dir: Path,
    catalog: Catalog,
    mounting: Callable[[Tree], Mount],
    ready: Callable[[str], None],
    doors: Doors,
    doorkeeper: Doorkeeper,
) -> None:
    ledger = Ledger(catalog, settings.mountpoint, settings.idle_timeout)
    pool_settings = PoolSettings(
        runtime_dir=instance_dir,
        repositories=settings.allowed_folders,
        idle_timeout=settings.idle_timeout,
        max_attached=settings.max_attached,
        attach_timeout=settings.bounded(settings.attach_timeout),
        read_timeout=settings.bounded(settings.read_timeout),
        guest_options=GuestOptions(settings.show_system_files, settings.oem_codepage),
        schemes=settings.allow_schemes,
        web=WebOptions(
            settings.tls_verify, settings.tls_ca, settings.bounded(settings.read_timeout)
        ),
    )
    pool = Pool(
        pool_settings,
        BlockCache(settings.cache_size),
        ledger,
        siblings=lambda record: tree.siblings(record),
    )
    tree = Tree(pool, _presentation(settings), started_ns=time.time_ns())
    refresher = Refresher(catalog, tree, pool, settings.vms)
    await refresher.load()
    settings.check_outside(tree.namespace.image_folders())
    left = await trio.to_thread.run_sync(catalog.recover)
    if left:
        log.warning("removed %d attach records that a crashed daemon left behind", left)
    status = Status(settings.mountpoint, datetime.now(UTC), refresher, pool, doors.urls)
    operations = {number: opcode.name for number, opcode in OPCODES.items()}
    access = Access(doorkeeper, doors.hosts, operations)
    app = make_app(status, tree, pool, access)
    mount = mounting(tree)
    refresher.tell = mount.forget

    async def mounted() -> None:
        count = len(tree.namespace.backups)
        if not count:
            log.warning("there are no backups in %s: %s", catalog.describe(), _shown(settings))
        line = f"{count} backups at {settings.mountpoint}"
        _notify_systemd(f"READY=1\nSTATUS={line}")
        ready(line + "".join(f", API at {url}" for url in doors.urls))

    async with trio.open_nursery() as listening:
        async with trio.open_nursery() as writing:
            writing.start_soon(ledger.run, name="ledger")
            try:
                async with trio.open_nursery() as services:
                    await services.start(pool.run, name="pool")
                    await services.start(serve_unix, app, instance_dir / "control.sock")
                    for door in doors.sockets:
                        await services.start(serve, app, door, doors.tls)
                    services.start_soon(refresher.run, name="catalog")
                    pool.replaced = lambda record: services.start_soon(
                        mount.forget, tree.renew(record), name="forget"
                    )
                    # Before anybody is told that we are ready, and may send one.
                    await listening.start(_obey_signals, mount, services.cancel_scope, refresher)
                    await mount.serve(mounted)
                    _notify_systemd("STOPPING=1")
                    services.cancel_scope.cancel()
            finally:
                ledger.close()
                writing.cancel_scope.deadline = trio.current_time() + _END_SECONDS
        listening.cancel_scope.cancel()
    log.info("unmounted %s", settings.mountpoint)


def _presentation(settings: Settings) -> Presentation:
    """Everything in a plain mount belongs to who serves it, unless somebody is named."""
    profile = Profile(settings.profile)
    uid, gid = settings.uid, settings.gid
    if profile is Profile.PLAIN:
        uid = os.geteuid() if uid is None else uid
        gid = os.getegid() if gid is None else gid
    return Presentation(uid, gid, settings.umask, profile)


async def _obey_signals(
    mount: Mount,
    services: trio.CancelScope,
    refresher: Refresher,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """End the services at the first signal, and hurry at the second. Listens until cancelled, so
    that no signal interrupts what is still to be tidied up; after that, none means anything."""
    for each in _SIGNALS:  # what the receiver puts back when it closes
        signal.signal(each, signal.SIG_IGN)
    with trio.open_signal_receiver(*_SIGNALS) as signals:
        task_status.started()
        async for number in signals:
            if number == signal.SIGHUP:
                refresher.wake()
                continue
            log.info("%s: ending", signal.Signals(number).name)
            if not services.cancel_called:  # else the mount is gone already
                mount.stop()
            break
        with trio.move_on_after(_END_SECONDS):
            async for number in signals:
                if number != signal.SIGHUP:
                    break
        if not services.cancel_called:
            log.warning("not waiting for the requests under way")
            services.cancel()
        async for _ in signals:
            pass


def _open_catalog(settings: Settings) -> Catalog:
    if settings.images is not None:
        return open_folder(settings.images)
    assert settings.catalog_url is not None
    return open_catalog(settings.catalog_url, settings.host_name)


def _shown(settings: Settings) -> str:
    """Say what would be shown, to somebody who sees nothing."""
    if settings.vms:
        return f"only machines whose names match {', '.join(settings.vms)} are shown"
    if settings.images is not None:
        return "images are found as BACKUP/disk0.qcow2 and the like, see `restorefs scan --help`"
    return "only disks with the status `completed` are shown"


def _make_folders(settings: Settings, rights: Rights) -> None:
    """Make the runtime folders: that of all mounts, which everybody may look into when it is
    root's, for its daemons may be different users, and this mount's, for its own user and root.

    Raises ConfigError when they cannot be made, or others can write to them.
    """
    as_root = os.geteuid() == 0
    folder = settings.instance_dir
    owner = rights.owner
    try:
        settings.runtime_dir.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            settings.runtime_dir.mkdir(mode=0o700)
            settings.runtime_dir.chmod(0o755 if as_root else 0o700)
        _require_ours(settings.runtime_dir, os.geteuid())
        _outwait(folder)
        if as_root and folder.is_dir() and folder.lstat().st_uid != owner[0]:
            # Left by a crash, when the daemon was another user: nothing mounted belongs to it.
            os.lchown(folder, 0, 0)
            shutil.rmtree(folder)
        folder.mkdir(mode=0o700, exist_ok=True)
        if as_root:
            os.lchown(folder, *owner)
        _require_ours(folder, owner[0])
    except OSError as error:
        raise ConfigError(f"cannot use the runtime folder {folder}: {error.strerror}") from error


def _outwait(folder: Path) -> None:
    """Give a daemon that ends just now the time to: its mount is gone by then, so that somebody who
    unmounts and mounts again comes here early."""
    deadline = time.monotonic() + _END_SECONDS
    while _is_held(folder) and time.monotonic() < deadline:
        time.sleep(0.05)


def _is_held(folder: Path) -> bool:
    """Whether a daemon has a runtime folder, or is about to remove it."""
    try:
        lock = os.open(folder / "lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return folder.exists()
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _require_ours(folder: Path, uid: int) -> None:
    if not is_ours(folder, uid):
        raise ConfigError(f"{folder} is not a folder that only we can write to; see --runtime-dir")


@contextmanager
def _unmounting(settings: Settings, rights: Rights) -> Iterator[Callable[[], None]]:
    """Yield what unmounts at the end, also when we are root no more; we no longer are then."""
    if not rights.changing:
        yield partial(unmount, settings.mountpoint)
        return
    with unmounter(settings.mountpoint, settings.instance_dir) as child:
        rights.lower()
        yield child.unmount


@contextmanager
def _instance(settings: Settings, rights: Rights) -> Iterator[Path]:
    """Hold this mount's runtime folder, which only our user and root may enter.

    Raises ConfigError when another daemon holds it.
    """
    folder = settings.instance_dir
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        lock = os.fdopen(os.open(folder / "lock", flags, 0o600), "w")
    except OSError as error:
        raise ConfigError(f"cannot use the runtime folder {folder}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"a restorefs already serves {settings.mountpoint}") from None
        for stale in folder.glob("*.sock"):
            stale.unlink()
        about = {"mountpoint": str(settings.mountpoint), "pid": os.getpid()}
        try:
            try:
                (folder / "instance.json").write_text(json.dumps(about))
            except OSError as error:
                raise ConfigError(
                    f"cannot use the runtime folder {folder}: {error.strerror}"
                ) from error
            yield folder
        finally:
            for path in (*folder.glob("*.sock"), folder / "instance.json", folder / "lock"):
                path.unlink(missing_ok=True)
            if not rights.changing:  # else it lies in a folder of root's: see _unmounting()
                folder.rmdir()


def _notify_systemd(message: str) -> None:
    """Tell systemd, if it started us, how we are (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
        try:
            notify.sendto(message.encode(), address.replace("@", "\0", 1))
        except OSError as error:
            log.warning("systemd was not told: %s", error)
