"""PostgreSQL as the container's only process: a new cluster in /data where there is none, then the server itself."""

import os
import pwd
import subprocess
from pathlib import Path

PROGRAMS = Path("/usr/lib/postgresql/15/bin")
DATA = Path("/data/postgres")


def main() -> None:
    owner = pwd.getpwnam("postgres")
    DATA.mkdir(parents=True, exist_ok=True)
    os.chown(DATA, owner.pw_uid, owner.pw_gid)
    sockets = Path("/var/run/postgresql")
    sockets.mkdir(parents=True, exist_ok=True)
    os.chown(sockets, owner.pw_uid, owner.pw_gid)
    os.setgroups([])
    os.setgid(owner.pw_gid)
    os.setuid(owner.pw_uid)
    if not (DATA / "PG_VERSION").exists():
        subprocess.run([PROGRAMS / "initdb", "-D", DATA, "--auth=trust", "--no-sync", "-E", "UTF8"], check=True)
        with (DATA / "pg_hba.conf").open("a") as rules:
            rules.write("host all all all trust\n")
    (DATA / "postmaster.pid").unlink(missing_ok=True)  # a killed one's; its process id may be ours now
    server = str(PROGRAMS / "postgres")
    os.execv(server, [server, "-D", str(DATA), "-c", "listen_addresses=*", "-c", "fsync=off"])


if __name__ == "__main__":
    main()
