"""The daemon: makes the parts and wires them. The only place that knows them all.

Owns start and end. At the start everything that can be refused is refused before the mount is
made. At the end (SIGTERM, Ctrl-C, or an unmount from outside) requests stop first, then every disk
is let go, then the records are written, then the mount is gone; a second signal hurries.
"""

import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial

import trio

from restorefs.block.cache import BlockCache
from restorefs.catalog.base import Catalog
from restorefs.catalog.open import open_catalog, open_folder
from restorefs.config import Settings
from restorefs.control.app import Access, make_app
from restorefs.control.doors import Doors
from restorefs.control.server import listen_unix, serve
from restorefs.control.status import Status
from restorefs.errors import RestoreError
from restorefs.fuse.mount import Mount, examine, prepare, unmount
from restorefs.fuse.protocol import OPCODES
from restorefs.fuse.unmounter import unmounter
from restorefs.guestfs.base import GuestOptions
from restorefs.rights import Rights
from restorefs.runtime import held, introduced
from restorefs.session.ledger import Ledger
from restorefs.session.pool import Pool
from restorefs.session.settings import PoolSettings
from restorefs.session.uri import WebOptions
from restorefs.tree.presentation import Presentation, Profile
from restorefs.tree.refresh import Refresher
from restorefs.tree.tree import Tree

log = logging.getLogger(__name__)
_CONTROL = "control.sock"
_END_SECONDS = 10.0
_GARBAGE_THRESHOLD = 50_000  # more objects than at the last look; Python's own is 700
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


async def run(settings: Settings, ready: Callable[[str], None]) -> None:
    """Serve one mount until it is unmounted or a signal ends it.

    `ready` gets a line for people once the mount can be used. Raises ConfigError, CatalogError or
    MountError before anything is mounted, and MountError when it cannot be unmounted.
    """
    _collect_garbage_seldom()
    settings.check()
    rights = Rights(settings.user)
    with ExitStack() as until_the_end:
        meanwhile = partial(examine, settings.mountpoint)
        until_the_end.enter_context(held(settings, rights.owner, meanwhile))
        prepare(settings.mountpoint)
        doors = until_the_end.enter_context(Doors(settings))
        unmounts = until_the_end.enter_context(_unmounting(settings, rights))
        until_the_end.enter_context(introduced(settings))
        catalog = await trio.to_thread.run_sync(_open_catalog, settings)
        try:
            mounting = partial(Mount, settings=settings, rights=rights, unmount=unmounts)
            control = until_the_end.enter_context(listen_unix(settings.instance_dir / _CONTROL))
            await _serve(settings, catalog, mounting, ready, doors, control)
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
    catalog: Catalog,
    mounting: Callable[[Tree], Mount],
    ready: Callable[[str], None],
    doors: Doors,
    control: socket.socket,
) -> None:
    doorkeeper = doors.doorkeeper()
    ledger = Ledger(catalog, settings.mountpoint, settings.idle_timeout)
    pool_settings = PoolSettings(
        runtime_dir=settings.instance_dir,
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

    async def mounted(services: trio.Nursery) -> None:
        # Not before: nobody is answered while root's rights are in reach.
        await services.start(serve, app, control)
        for door in doors.sockets:
            await services.start(serve, app, door, doors.tls)
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
                    services.start_soon(refresher.run, name="catalog")
                    pool.replaced = lambda record: services.start_soon(
                        mount.forget, tree.renew(record), name="forget"
                    )
                    # Before anybody is told that we are ready, and may send one.
                    await listening.start(_obey_signals, mount, services.cancel_scope, refresher)
                    await mount.serve(partial(mounted, services))
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


@contextmanager
def _unmounting(settings: Settings, rights: Rights) -> Iterator[Callable[[], None]]:
    """Yield what unmounts at the end, also when we are root no more; we no longer are then."""
    if not rights.changing:
        yield partial(unmount, settings.mountpoint)
        return
    with unmounter(settings.mountpoint, settings.instance_dir) as child:
        rights.lower()
        yield child.unmount


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
