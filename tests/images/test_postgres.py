"""The trial Postgres, as the StatefulSet runs it."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.database import free_port
from tests.images.conftest import Image, Pod

PASSWORD = "a-password-of-forty-characters-or-so-0123"


def pod(built: dict[str, Image], folder: Path, port: int) -> Pod:
    for name in ("database", "secret"):
        (folder / name).mkdir(exist_ok=True)
    os.chown(folder / "database", 65532, 65532)
    (folder / "secret" / "password").write_text(PASSWORD)
    (folder / "secret" / "password").chmod(0o444)
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)
    return Pod(
        image=built["postgres"],
        uid=65532,
        mounts=((str(folder / "database"), "/var/lib/postgresql", True), (str(folder / "secret"), "/srv", False)),
        environment={
            "WATTLE_PASSWORD_FILE": "/srv/password",
            "PGDATA": "/var/lib/postgresql/data",
            "PGPORT": str(port),
        },
    )


@contextlib.contextmanager
def serving(what: Pod, port: int) -> Iterator[None]:
    process = subprocess.Popen(
        what.command(*what.image.config["Entrypoint"]), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        deadline = time.monotonic() + 90
        while True:
            assert process.poll() is None, process.communicate()[0]
            try:
                connect(port).close()
                break
            except psycopg.OperationalError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield
    finally:
        process.terminate()  # a smart shutdown: nobody is connected any more
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said


def connect(port: int, password: str = PASSWORD) -> "psycopg.Connection[tuple[object, ...]]":
    return psycopg.connect(f"postgresql://wattle:{password}@127.0.0.1:{port}/wattle", connect_timeout=5)


def test_it_makes_its_database_once_and_keeps_it(built: dict[str, Image], tmp_path: Path) -> None:
    port = free_port()
    what = pod(built, tmp_path, port)
    (tmp_path / "database" / "data.new").mkdir()  # what a killed first start leaves
    os.chown(tmp_path / "database" / "data.new", 65532, 65532)
    with serving(what, port), connect(port) as connection:
        connection.execute("CREATE TABLE kept (number int)")
        connection.execute("INSERT INTO kept VALUES (23)")
        [checksums] = connection.execute("SHOW data_checksums").fetchone() or [None]
        assert checksums == "on"
    with serving(what, port):
        with connect(port) as connection:
            assert connection.execute("SELECT number FROM kept").fetchone() == (23,)
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            connect(port, "another")


def test_no_private_key_is_shared_by_every_copy(built: dict[str, Image]) -> None:
    found = [path for path in (built["postgres"].root / "etc/ssl").rglob("*") if "snakeoil" in path.name]
    assert found == []
