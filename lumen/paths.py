"""Where Lumen keeps things on this machine. `LUMEN_HOME` gathers all of it under one folder."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

# A UNIX socket path holds 108 bytes on Linux; replicas add "/model-name-0.sock" to the run folder.
_LONGEST_RUN_DIR = 64


@dataclass(frozen=True, slots=True)
class Paths:
    """The folders and files of one Lumen installation; nothing is created until `make` is called."""

    config_dir: Path
    state_dir: Path
    data_dir: Path
    run_dir: Path

    @property
    def config_file(self) -> Path:
        return self.config_dir / "config.yaml"

    @property
    def keys_file(self) -> Path:
        return self.config_dir / "keys.json"

    @property
    def local_key_file(self) -> Path:
        """The key of this machine's own user (0600), so that `lumen chat` works without being told one."""
        return self.config_dir / "local.key"

    @property
    def ledger_file(self) -> Path:
        """What every request cost; SQLite, with its write-ahead log beside it."""
        return self.state_dir / "ledger.db"

    @property
    def memory_file(self) -> Path:
        """What models took of this machine's memory when they last ran; lost, it is measured again."""
        return self.state_dir / "memory.json"

    @property
    def pool_file(self) -> Path:
        """What it took to wake models, and at which hours they are asked for; lost, it is learned again."""
        return self.state_dir / "pool.json"

    @property
    def probed_file(self) -> Path:
        """What `lumen provider test --probe` found out about models; lost, it is found out again."""
        return self.state_dir / "probed.json"

    @property
    def trials_file(self) -> Path:
        """The shadows and canaries of routes, and how far judges are trusted."""
        return self.state_dir / "trials.json"

    @property
    def scorers_dir(self) -> Path:
        """What routes have learnt: versions of their scorers."""
        return self.state_dir / "scorers"

    @property
    def audit_file(self) -> Path:
        """Who changed what, line by line; see `lumen/audit.py`."""
        return self.state_dir / "audit.jsonl"

    @property
    def payloads_dir(self) -> Path:
        """What routes keep of requests and answers; see `gateway/payloads.py`."""
        return self.state_dir / "payloads"

    @property
    def prefixes_dir(self) -> Path:
        """What local models computed of prompts, to go on with after a restart; lost, it is computed again."""
        return self.state_dir / "prefixes"

    @property
    def models_dir(self) -> Path:
        return self.data_dir / "models"

    @property
    def engines_dir(self) -> Path:
        """Environments of engines that bring packages of their own."""
        return self.data_dir / "engines"

    @property
    def log_dir(self) -> Path:
        return self.state_dir / "logs"

    @property
    def gateway_log(self) -> Path:
        return self.log_dir / "gateway.log"

    @property
    def admin_socket(self) -> Path:
        return self.run_dir / "admin.sock"

    @property
    def handover_socket(self) -> Path:
        """Where a gateway that is to take over asks for the sockets of the running one; see `lumen/handover/`."""
        return self.run_dir / "handover.sock"

    @property
    def gateway_file(self) -> Path:
        """What runs: {"pid", "started", "url", "argv"} as JSON, written by the gateway when it listens."""
        return self.run_dir / "gateway.json"

    def make(self) -> None:
        """Create every folder, private to this user.

        Raises:
            PermissionError: the run folder exists and belongs to somebody else.
        """
        for folder in (self.config_dir, self.state_dir, self.data_dir, self.log_dir, self.models_dir, self.run_dir):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = self.run_dir.lstat()
        if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
            raise PermissionError(f"{self.run_dir} belongs to another user; remove it or set LUMEN_HOME")
        self.run_dir.chmod(0o700)


def paths() -> Paths:
    """The paths in force: under `LUMEN_HOME` where it is set, else the platform's usual places.

    Raises:
        ConfigError: those would be in this user's home, and nobody knows where that is.
    """
    home = os.environ.get("LUMEN_HOME")
    try:
        if home:
            root = Path(home).expanduser().resolve()
            config, state, data = root / "config", root / "state", root / "data"
        else:
            config, state, data = _usual()
    except RuntimeError:
        from lumen.core.errors import ConfigError

        raise ConfigError("this user has no home folder to keep things in; set LUMEN_HOME to a folder") from None
    return Paths(config, state, data, _run_dir(state))


def _usual() -> tuple[Path, Path, Path]:
    """Configuration, state and data where this platform keeps them.

    Raises:
        RuntimeError: this user has no home.
    """
    # Imported here: the command line prints its help without it.
    from platformdirs import PlatformDirs

    dirs = PlatformDirs("lumen", appauthor=False)
    found = Path(dirs.user_config_dir), Path(dirs.user_state_dir), Path(dirs.user_data_dir)
    if not all(folder.is_absolute() for folder in found):
        # Earlier versions leave `~` as it stands: a folder of that name wherever the command happens to be called.
        raise RuntimeError("no home")
    return found


def _run_dir(state: Path) -> Path:
    """The sockets' folder: inside the state folder where the path is short enough for a UNIX socket.

    Else below the folder for temporary files, or, where that is too long as well, below the one that every system has.
    """
    digest = hashlib.sha256(os.fsencode(state)).hexdigest()[:12]
    name = f"lumen-{os.getuid()}-{digest}"
    shared = Path("/tmp") / name
    places = (state / "run", Path(tempfile.gettempdir()) / name, shared)
    return next((place for place in places if len(os.fsencode(place)) <= _LONGEST_RUN_DIR), shared)
