"""A PostgreSQL of its own for benchmarks, by the script that the tests use."""

import os
import pathlib
import pwd
import shutil
import socket
import subprocess
import sys


class Cluster:
    """Ends with this process unless its folder is kept."""

    def __init__(self) -> None:
        settings = {}
        if os.geteuid() == 0:
            user = next(pwd.getpwnam(name) for name in ("postgres", "nobody") if exists(name))
            settings = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self.owner = settings.get("user", os.geteuid())
        script = pathlib.Path(__file__).resolve().parent.parent / "tests/support/postgres.sh"
        self.process = subprocess.Popen(
            ["sh", str(script)], cwd="/", text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **settings,
        )
        word, _, self.folder = self.process.stdout.readline().strip().partition(" ")
        if word != "folder":
            sys.exit(f"PostgreSQL: {word} {self.folder}")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.start()
        # By name where Debian has it, else beside postgres.
        self.psql = shutil.which("psql") or max(pathlib.Path("/usr/lib/postgresql").glob("*/bin/psql"))

    def start(self) -> None:
        if not self.ask(f"start {self.port}").startswith("started"):
            sys.exit(f"PostgreSQL does not start: see {self.folder}/log")

    def ask(self, command: str) -> str:
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def url(self, database: str) -> str:
        return f"postgres://identity@127.0.0.1:{self.port}/{database}"

    def sql(self, database: str, text: str) -> str:
        command = [self.psql, "-qtA", "-v", "ON_ERROR_STOP=1", self.url(database)]
        environment = os.environ | {"PGOPTIONS": "-c client_min_messages=warning"}
        done = subprocess.run(command, input=text, text=True, stdout=subprocess.PIPE, check=True, env=environment)
        return done.stdout.strip()

    def fresh(self, database: str) -> str:
        """The URL of an empty database of that name."""
        self.sql("postgres", f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
        self.sql("postgres", f"CREATE DATABASE {database}")
        return self.url(database)

    def keep(self, folder: pathlib.Path) -> None:
        """Copies the files of the stopped server."""
        self.ask("stop")
        shutil.copytree(self.folder, folder)
        for path in (folder, *folder.rglob("*")):
            os.chown(path, self.owner, -1)

    def postmaster(self) -> int:
        return int(pathlib.Path(self.folder, "data/postmaster.pid").read_text().split()[0])

    def seconds(self) -> float:
        """The processor time of the server and of all its processes that have ended."""
        return sum(processor_ticks(self.postmaster())) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def processor_ticks(pid: int) -> tuple[int, int]:
    """The processor time of a process, and that of those of its children that have ended."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own, children = fields[11:13], fields[13:15]
    return sum(map(int, own)), sum(map(int, children))


def exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def main() -> None:
    """Answers each line of standard input, a name, with the URL of an empty database of that name."""
    cluster = Cluster()
    try:
        for line in sys.stdin:
            print(cluster.fresh(line.strip()), flush=True)
    finally:
        cluster.end()


if __name__ == "__main__":
    main()
