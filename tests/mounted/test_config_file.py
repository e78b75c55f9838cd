"""`restorefs mount --config`: every option of a mount from a file."""

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from restorefs import daemon
from restorefs.cli import main
from restorefs.cli.commands import mount
from restorefs.cli.config_file import keys_of
from restorefs.config import Settings
from tests.mounted.conftest import Serve
from tests.mounted.daemon import Daemon, Place, restorefs
from tests.mounted.disks import Sample
from tests.tools import require_root

EXAMPLE = Path(__file__).parents[2] / "systemd" / "example.toml"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "main.toml"


def invoke(*args: str | Path, env: dict[str, str] | None = None) -> Result:
    words = ["mount", *map(str, args)]
    return CliRunner().invoke(main, words, prog_name="restorefs", env=env or {})


def refusal(file: Path, text: str) -> str:
    """Return what is said about a file that is refused."""
    file.write_text(text)
    done = invoke("--config", file)
    assert done.exit_code == 2, done
    assert done.stdout == ""
    (said,) = re.findall(r"^Error: (.*)$", done.stderr, re.MULTILINE)
    return str(said)


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """What the daemon would have been started with."""
    found = []

    async def run(settings: Settings, ready: object) -> None:
        found.append(settings)

    monkeypatch.setattr(daemon, "run", run)
    return found


def test_each_option_is_a_key(file: Path, settings: list[Settings], tmp_path: Path) -> None:
    file.write_text(f"""
        mountpoint = "{tmp_path}/mnt"
        images = "{tmp_path}"
        repository = ["{tmp_path}", "/usr"]
        idle-timeout = "15m"
        max-attached = 7
        attach-timeout = 5
        read-timeout = "9s"
        cache-size = "1G"
        profile = "samba"
        uid = 1000
        gid = 4294967294
        umask = "027"
        show-system-files = true
        oem-codepage = "cp850"
        deny-comm = "updatedb, mlocate"
        vm = ["*"]
        allow-scheme = ["https"]
        tls-ca = "/etc/hostname"
        no-tls-verify = true
        host-name = "restore1"
        noexec = true
        user = "nobody"
        listen = "[::1]:80"
        listen-insecure = true
        token-file = "{tmp_path}/tokens"
        tls-cert = "{tmp_path}/cert"
        tls-key = "{tmp_path}/key"
        allow-host = ["restore.example.org", "other:443"]
        log-level = "warning"
    """)
    keys = tomllib.loads(file.read_text())
    assert keys.keys() == keys_of(mount).keys() - {"catalog"}, "a new option: name it here"
    done = invoke("--config", file)
    assert done.exit_code == 0, done.output
    (found,) = settings
    assert found == Settings(
        mountpoint=tmp_path / "mnt",
        images=tmp_path,
        repositories=(tmp_path, Path("/usr")),
        idle_timeout=900,
        max_attached=7,
        attach_timeout=5,
        read_timeout=9,
        cache_size=1 << 30,
        profile="samba",
        uid=1000,
        gid=4294967294,
        umask=0o027,
        show_system_files=True,
        oem_codepage="cp850",
        deny_comm=("updatedb", "mlocate"),
        vms=("*",),
        allow_schemes=("https",),
        tls_ca=Path("/etc/hostname"),
        tls_verify=False,
        host_name="restore1",
        noexec=True,
        user="nobody",
        listen=("::1", 80),
        listen_insecure=True,
        token_file=tmp_path / "tokens",
        tls_cert=tmp_path / "cert",
        tls_key=tmp_path / "key",
        allow_hosts=("restore.example.org", "other:443"),
        runtime_dir=found.runtime_dir,
    )


def test_the_command_line_wins(file: Path, settings: list[Settings], tmp_path: Path) -> None:
    file.write_text(f"""
        mountpoint = "/mnt/of-the-file"
        catalog = "sqlite:////of-the-file.db"
        idle-timeout = "15m"
        cache-size = "1G"
        repository = ["{tmp_path}"]
    """)
    assert invoke("--config", file).exit_code == 0
    typed = ("--idle-timeout", "2h", "--repository", "/usr", "/mnt/typed")
    assert invoke(*typed, "--config", file).exit_code == 0
    assert invoke("--config", file, "--catalog", "sqlite:////typed.db").exit_code == 0
    # One of the two says where the backups are, so the one that was typed stands for both.
    assert invoke("--config", file, "--images", tmp_path).exit_code == 0
    of_file, other, catalog, images = settings
    assert (of_file.mountpoint, of_file.catalog_url) == (
        Path("/mnt/of-the-file"),
        "sqlite:////of-the-file.db",
    )
    assert (of_file.idle_timeout, of_file.cache_size) == (900, 1 << 30)
    assert (other.mountpoint, other.idle_timeout) == (Path("/mnt/typed"), 7200)
    assert (other.cache_size, other.repositories) == (1 << 30, (Path("/usr"),))
    assert catalog.catalog_url == "sqlite:////typed.db"
    assert (images.catalog_url, images.images) == (None, tmp_path)


def test_the_environment_gives_way(file: Path, settings: list[Settings], tmp_path: Path) -> None:
    env = {"RESTOREFS_CATALOG": "sqlite:////of-the-environment.db"}
    assert invoke("/mnt", env=env).exit_code == 0
    assert invoke("--images", tmp_path, "/mnt", env=env).exit_code == 0
    file.write_text(f'images = "{tmp_path}"')
    assert invoke("--config", file, "/mnt", env=env).exit_code == 0
    file.write_text('catalog = "sqlite:////of-the-file.db"')
    assert invoke("--config", file, "/mnt", env=env).exit_code == 0
    file.write_text("uid = 1")
    assert invoke("--config", file, "/mnt", env=env).exit_code == 0
    assert [(each.catalog_url, each.images) for each in settings] == [
        (env["RESTOREFS_CATALOG"], None),
        (None, tmp_path),
        (None, tmp_path),
        ("sqlite:////of-the-file.db", None),
        (env["RESTOREFS_CATALOG"], None),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('idle_timeout = "1h"', "idle_timeout: there is no such key; did you mean idle-timeout?"),
        ('--uid = "1"', "--uid: there is no such key; did you mean uid?"),
        ('config = "/etc/x.toml"', "config: there is no such key; "),
        ('source = "x"', "source: there is no such key; "),
        ("nonsense = 1", "nonsense: there is no such key; there are allow-host, allow-scheme, "),
        ('[mount]\nimages = "/"', "mount: there is no such key; "),
        ('uid = "1000"', "uid: must be a whole number, not text"),
        ("uid = -1", "uid: -1 is not in the range 0<=x<=4294967294"),
        ("max-attached = 0", "max-attached: 0 is not in the range x>=1"),
        ("max-attached = 1.5", "max-attached: must be a whole number, not a number with a point"),
        ("max-attached = true", "max-attached: must be a whole number, not true or false"),
        ("umask = 22", 'umask: must be text in quotes, such as "...", not a number'),
        ('umask = "99"', "umask: '99' is not an octal mask such as 022"),
        ('idle-timeout = "soon"', "'soon' is not a duration such as 90s, 15m, 1h"),
        ('idle-timeout = "99999999999d"', "idle-timeout: '99999999999d' is too long"),
        ("idle-timeout = 99999999999", "idle-timeout: '99999999999' is too long"),
        ("idle-timeout = true", "idle-timeout: must be text in quotes"),
        ('cache-size = "much"', "'much' is not a size such as 512K, 256M, 1G"),
        ('show-system-files = "yes"', "show-system-files: must be true or false, not text"),
        ('oem-codepage = "utf-8"', "'utf-8' is not a character set such as cp437"),
        ('log-level = "loud"', "'loud' is not one of 'debug', 'info', 'warning', 'error'"),
        ('images = "/nowhere"', "images: Directory '/nowhere' does not exist"),
        ('images = "backups"', "images: must be a path that begins with /, not 'backups'"),
        ('mountpoint = "mnt"', "mountpoint: must be a path that begins with /"),
        ('repository = "/usr"', 'repository: must be a list, such as ["..."], not text'),
        ('repository = ["/usr", 1]', "repository: must be text in quotes"),
        ("user = 2026-01-01", 'user: must be text in quotes, such as "...", not a date'),
        ("uid = {a = 1}", "uid: must be a whole number, not a table"),
        ("uid 1000", "is not TOML: "),
        ("uid = 1\nuid = 2", "is not TOML: "),
        ('catalog = "\\u001b[31m"\numask = "\\u001b"', "umask: "),
    ],
)
def test_what_is_refused(text: str, said: str, file: Path) -> None:
    found = refusal(file, text)
    assert found.startswith(f"{file}: ")
    assert said in found
    assert found.isprintable()


def test_a_file_that_cannot_be_read(file: Path, tmp_path: Path) -> None:
    file.write_bytes(b'user = "\xff"')
    for path, said in (
        (file, "is not TOML"),
        (tmp_path / "none.toml", "No such file or directory"),
        (tmp_path, "is a directory"),
    ):
        done = invoke("--config", path)
        assert done.exit_code == 2
        assert said in done.stderr
        assert str(path) in done.stderr


def test_no_mountpoint(file: Path) -> None:
    assert "MOUNTPOINT, or `mountpoint` in --config FILE" in refusal(file, 'images = "/usr"')


def test_both_a_catalog_and_images(file: Path, tmp_path: Path) -> None:
    text = f'mountpoint = "/mnt"\nimages = "{tmp_path}"\ncatalog = "sqlite:////c.db"'
    assert "not both" in refusal(file, text)


def test_no_backups(file: Path) -> None:
    assert "one of --catalog URL and --images FOLDER" in refusal(file, 'mountpoint = "/mnt"')


@pytest.mark.parametrize(
    ("url", "without"),
    [
        ("mysql+pymysql://restorefs:secret@localhost/backups", ":secret"),
        ("mysql+pymysql://restorefs@localhost/backups?password=secret", "?password=secret"),
        ("mysql://restorefs@localhost/backups?charset=utf8mb4&passwd=secret", "&passwd=secret"),
    ],
)
def test_a_password_that_everybody_may_read(
    file: Path, settings: list[Settings], url: str, without: str
) -> None:
    file.write_text(f'mountpoint = "/mnt"\ncatalog = "{url}"\n')
    file.chmod(0o644)
    done = invoke("--config", file)
    assert done.exit_code == 2
    assert f"{file}: holds a password, and everybody may read it: `chmod o-r {file}`" in done.stderr
    assert "secret" not in done.stderr
    file.chmod(0o640)
    assert invoke("--config", file).exit_code == 0
    assert settings[0].catalog_url == url
    file.write_text(file.read_text().replace(without, ""))
    file.chmod(0o644)
    assert invoke("--config", file).exit_code == 0


def test_a_file_that_others_may_write(file: Path, settings: list[Settings], tmp_path: Path) -> None:
    require_root()  # who does what it says with all rights
    file.write_text(f'mountpoint = "/mnt"\nimages = "{tmp_path}"\n')
    for mode, group, allowed in (
        *((0o666, 0, False), (0o602, 0, False), (0o664, 65534, False)),
        *((0o664, 0, True), (0o644, 65534, True)),
    ):
        os.chown(file, 65534, group)
        file.chmod(mode)
        done = invoke("--config", file)
        assert (done.exit_code == 0) is allowed, oct(mode)
        assert (
            f"others may write to it, and root does what it says: `chmod go-w {file}`"
            in done.stderr
        ) is not allowed
    assert len(settings) == 2


@pytest.mark.parametrize("key", ["mountpoint", "images", "token-file", "user", "catalog", "umask"])
def test_a_character_that_no_argument_has(file: Path, key: str) -> None:
    assert refusal(file, f'{key} = "/mnt\\u0000"').endswith(f"{key}: must not contain a NUL")


# --- the example ---------------------------------------------------------------------------------


def example() -> dict[str, Any]:
    """Return the example with every key in it, also those that are commented out."""
    text = re.sub(r"^#(?=[a-z-]+ = )", "", EXAMPLE.read_text(), flags=re.MULTILINE)
    return tomllib.loads(text)


def test_the_example_has_every_option() -> None:
    assert example().keys() == keys_of(mount).keys()
    defaults = {key: param.default for key, param in keys_of(mount).items()}
    for key, value in example().items():
        default = defaults[key]
        if isinstance(default, str | int) and not isinstance(default, bool):
            assert value == default, key
    for part in EXAMPLE.read_text().split("\n\n"):
        assert part.startswith("#"), f"nothing says what this is:\n{part}"
        assert max(map(len, part.splitlines())) <= 100


def test_the_example_is_read(file: Path, settings: list[Settings], tmp_path: Path) -> None:
    text = EXAMPLE.read_text().replace("/srv/backups", str(tmp_path))
    file.write_text(text)
    file.chmod(0o600)
    assert invoke("--config", file).exit_code == 0
    file.write_text(re.sub(r"^#(?=[a-z-]+ = )", "", text, flags=re.MULTILINE))
    done = invoke("--config", file)
    assert done.exit_code == 0, done.output
    plain, full = settings
    assert str(plain.mountpoint) == "/mnt/restore"
    assert full.user == "restorefs"


def test_options_that_are_added_later_are_keys(file: Path, tmp_path: Path) -> None:
    """Whatever is a parameter of the command, whoever adds it."""
    found = {}

    @click.command()
    @click.option("--deny-comm", "denied", multiple=True)
    @click.option("--listen", type=int)
    def later(**options: Any) -> None:
        found.update(options)

    config = next(each for each in mount.params if each.name == "config")
    later.params.append(config)
    file.write_text('deny-comm = ["smbd", "rsync"]\nlisten = 8080\n')
    assert CliRunner().invoke(later, ["--config", str(file)]).exit_code == 0
    assert found == {"denied": ("smbd", "rsync"), "listen": 8080}


# --- a daemon ------------------------------------------------------------------------------------


def test_a_daemon(serve: Serve, sample: Sample, place: Place, tmp_path: Path) -> None:
    file = tmp_path / "main.toml"
    file.write_text(f"""
        mountpoint = "{place.mountpoint}"
        images = "{sample.repository}"
        umask = "077"
        max-attached = 3
    """)
    how: dict[str, Any] = {"place": place, "named": False}
    daemon: Daemon = serve("--config", file, **how)
    assert (daemon.backups / sample.full / "disk1" / "small").stat().st_mode & 0o777 == 0o600
    assert "at most 3" in daemon.cli("status").out
    daemon.check()
    typed: Daemon = serve("--config", file, "--umask", "007", **how)
    assert (typed.backups / sample.full / "disk1" / "small").stat().st_mode & 0o777 == 0o640
    typed.check()
    file.write_text("nonsense = true")
    done = restorefs("--runtime-dir", place.runtime_dir, "mount", "--config", file)
    assert done.code == 2
    assert f"{file}: nonsense" in done.err
    assert os.listdir(place.runtime_dir) == []  # noqa: PTH208
