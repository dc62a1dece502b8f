"""Environment variables that Ray reads when it is imported: set them first.

This file must not import ray.
"""

import contextlib
import os
import secrets
from pathlib import Path

TOKEN_FILE = Path("~/.ray/auth_token")

# Set before Ray starts, unless the user has set them.
LOCAL = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on Linux this binds every port to loopback
    "RAY_AUTH_MODE": "token",
}
ALWAYS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative --data-dir paths stay valid
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the record is ours
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial without a metric has failed; go on
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # journal and record hold the state, not Tune
}


def prepare(address: str | None) -> None:
    """Set what Ray reads at its import, where the user has not set it.

    Args:
        address: of a running cluster, whose own settings then hold, or None for a local instance:
            that one listens on loopback only and asks for a token.
    """
    for name, value in (ALWAYS | ({} if address else LOCAL)).items():
        os.environ.setdefault(name, value)
    if not address and os.environ["RAY_AUTH_MODE"] == "token":
        make_token()


def make_token() -> None:
    """Ray reads its token from the home folder; make one, readable by its owner only."""
    if "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ:
        return
    path = TOKEN_FILE.expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        contextlib.suppress(FileExistsError),
        open(path, "x", opener=for_owner_only) as file,
    ):
        file.write(secrets.token_hex(32))


def for_owner_only(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
