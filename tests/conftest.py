"""Every test runs without network and away from the user's own files."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

_connect = socket.socket.connect
_local_allowed = False


def _refuse(self, address):
    host = address[0] if isinstance(address, tuple) else ""
    if self.family == socket.AF_UNIX or (_local_allowed and host in ("127.0.0.1", "localhost")):
        return _connect(self, address)
    raise OSError(f"a test tried to reach {address}: sockets are closed in tests")


@pytest.fixture(autouse=True, scope="session")
def isolated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Closed sockets; HOME and all caches in a temporary folder; no SEMEDIT_ settings."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", _refuse)
        patch.setattr(socket.socket, "connect_ex", _refuse)
        for name in [n for n in os.environ if n.startswith("SEMEDIT_")]:
            if name not in ("SEMEDIT_SHARED", "SEMEDIT_ICT"):
                patch.delenv(name)
        for name in ("HOME", "USERPROFILE", "XDG_CACHE_HOME", "XDG_DATA_HOME", "TORCH_HOME"):
            patch.setenv(name, str(home))
        patch.setenv("NO_COLOR", "1")
        yield


@pytest.fixture(autouse=True)
def _local_server(request: pytest.FixtureRequest) -> Iterator[None]:
    global _local_allowed
    _local_allowed = request.node.get_closest_marker("localhost") is not None
    yield
    _local_allowed = False


@pytest.fixture(scope="session")
def shared() -> Path:
    """Photographs and weight files that are not shipped; skips where they are not at hand."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("SEMEDIT_SHARED", beside))
    if not (folder / "real").is_dir():
        pytest.skip("no shared folder beside the checkout (SEMEDIT_SHARED)")
    return folder
