"""Fills an old system's database, imports and exports it, and prints one table."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

from cluster import Cluster

LEAST_RATE = 10_000
# Of the peak of the import of fewer users, to that of ten times as many.
MOST_GROWTH = 1.25

# A hundred users a tenant, ids as Prisma's cuid() makes them, e-mails in no order, one hash for all.
OLD_SYSTEM = """
CREATE TABLE tenants (
    id text PRIMARY KEY, name text NOT NULL,
    "createdAt" timestamp(3) NOT NULL DEFAULT now(), "updatedAt" timestamp(3) NOT NULL);
CREATE TABLE users (
    id text PRIMARY KEY, email text NOT NULL, "firstName" text NOT NULL, "lastName" text NOT NULL,
    password text NOT NULL, "tenantId" text NOT NULL REFERENCES tenants (id),
    "createdAt" timestamp(3) NOT NULL DEFAULT now(), "updatedAt" timestamp(3) NOT NULL);
INSERT INTO tenants SELECT 'c' || substr(md5('t' || n), 1, 24), 'Tenant ' || n, at, at
    FROM (SELECT n, '2020-01-01'::timestamp + n * interval '1 minute' AS at
          FROM generate_series(0, ({users} - 1) / 100) n) t;
INSERT INTO users SELECT 'c' || substr(md5('u' || n), 1, 24), 'user.' || substr(md5('e' || n), 1, 12) || '@example.com',
    'Ada', 'Lovelace', '$2b$10$abcdefghijklmnopqrstuuMFdJu9yVgmagVAIC24fOZkaFqd3s9JC',
    'c' || substr(md5('t' || n % (({users} - 1) / 100 + 1)), 1, 24), at, at
    FROM (SELECT n, '2021-01-01'::timestamp + n * interval '1 second' AS at FROM generate_series(0, {users} - 1) n) u;
CREATE UNIQUE INDEX users_email_key ON users (email);
ANALYZE
"""


class Bench:
    def __init__(self, binary: str, cluster: Cluster, folder: pathlib.Path) -> None:
        self.binary, self.cluster, self.folder = binary, cluster, folder

    def identity(self, url: str, *arguments: str) -> tuple[float, float, float, str]:
        """Seconds, those of processors, the peak of resident memory in MB, and what was printed."""
        environment = {"DATABASE_URL": url, "IDENTITY_LOG": "warn"}
        began = time.perf_counter()
        process = subprocess.Popen(
            [self.binary, *arguments], env=environment, cwd=self.folder, text=True, stdout=subprocess.PIPE
        )
        printed = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        if status != 0:
            sys.exit(f"identity {' '.join(arguments)}: status {status}: {printed}")
        return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000, printed

    def fresh(self, engine: str, name: str) -> str:
        if engine == "PostgreSQL":
            url = self.cluster.fresh(name)
        else:
            for path in self.folder.glob(f"{name}.db*"):
                path.unlink()
            url = f"sqlite:{self.folder}/{name}.db"
        self.identity(url, "migrate", "run")
        return url

    def old_system(self, users: int) -> str:
        url = self.cluster.fresh("old")
        self.cluster.sql("old", OLD_SYSTEM.replace("{users}", str(users)))
        return url

    def measure(self, what: str, url: str, users: int, *arguments: str) -> tuple[float, float]:
        servers = self.cluster.seconds()
        seconds, own, peak, printed = self.identity(url, *arguments)
        time.sleep(0.5)  # until the server has seen its processes end
        processor = (own + self.cluster.seconds() - servers) / users * 1e6
        if arguments[0] == "import" and f"users: {users} imported, 0 there already, 0 refused" not in printed:
            sys.exit(f"{what}: {printed}")
        print(f"{what:<33} {users:>8} users {users / seconds:>8.0f} a second {processor:>5.0f} µs of processors a user"
              f" {peak:>5.0f} MB, load {os.getloadavg()[0]:.1f}", flush=True)
        return users / seconds, peak


def main() -> None:
    binary, users, fewer, keep = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    print(cpu[1] if cpu else "unknown processor", f"{os.cpu_count()} cores", flush=True)
    cluster = Cluster()
    folder = pathlib.Path(keep or tempfile.mkdtemp(prefix="identity-import."))
    folder.mkdir(parents=True, exist_ok=True)
    slow, peaks = [], {}
    try:
        bench = Bench(binary, cluster, folder)
        for count in sorted({min(fewer, users), users}):
            old = bench.old_system(count)
            for engine in ("PostgreSQL", "SQLite"):
                url = bench.fresh(engine, "identity")
                rate, peak = bench.measure(f"import into {engine}", url, count, "import", "prisma", "--from", old)
                peaks.setdefault(engine, []).append(peak)
                if rate < LEAST_RATE:
                    slow.append(f"{engine}, {count} users: {rate:.0f} a second")
                bench.measure(f"export from {engine}", url, count, "export", f"{engine}.jsonl")
            for engine in ("PostgreSQL", "SQLite"):
                copy = bench.fresh(engine, "copy")
                rate, _ = bench.measure(
                    f"import of JSON lines into {engine}", copy, count, "import", "jsonl", "SQLite.jsonl"
                )
                if rate < LEAST_RATE:
                    slow.append(f"JSON lines into {engine}, {count} users: {rate:.0f} a second")
            same = (folder / "SQLite.jsonl").stat().st_size == (folder / "PostgreSQL.jsonl").stat().st_size
            if not same:
                sys.exit("the two exports are of different sizes")
        cluster.sql("postgres", "DROP DATABASE copy")
        if keep:
            shutil.rmtree(folder / "postgres", ignore_errors=True)
            cluster.keep(folder / "postgres")
    finally:
        cluster.end()
        for path in (*folder.glob("copy.db*"), *folder.glob("*.jsonl")):
            path.unlink()
        if not keep:
            shutil.rmtree(folder)
    grown = [f"{engine}: {few:.0f} MB, then {many:.0f} MB" for engine, (few, *more) in peaks.items()
             for many in more if many > few * MOST_GROWTH]
    if slow or grown:
        sys.exit("broken:" + "".join(f"\n  {line}" for line in slow + grown))


main()
