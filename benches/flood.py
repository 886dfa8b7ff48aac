"""Runs identity-load's attacks against a server, and holds what they did against what is promised."""

import argparse
import base64
import dataclasses
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

from cluster import Cluster, processor_ticks

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Of the tenant that is listed and deleted.
USERS = 200_000
# More than two cores serve, of both.
LOOKUPS, LOGINS = 1_000, 1_000
PACED_RESETS = 2_000
CONNECTIONS = 10_100
# What one source may have of them; beyond that each new one takes the place of an idle one.
SHARE = 5_000
# On four connections.
UNREAD = 1_000
# Whose owners are the ordinary callers.
OTHERS = 40
# Above this share of the processors, what else runs on the machine disturbs the figures.
DISTURBED = 0.10
# What an allocator may keep of memory that was given back.
KEPT_MB = 20
LOAD_TIMEOUT = 180


@dataclasses.dataclass
class Row:
    """One figure, and whether it is what was promised."""

    figure: str
    promise: str
    value: str
    met: bool


def flood(run: dict, engine: str) -> Iterator[Row]:
    alone, flooded, logins = run["lookups_alone"], run["lookups_flooded"], run["logins"]
    idle, p99 = alone["latency"]["p99_ms"], flooded["latency"]["p99_ms"]
    bound = max(2 * idle, 2)
    yield Row("look-ups' p99, idle and in the flood", "twice the idle one or 2 ms", f"{ms(idle)}, {ms(p99)}",
              p99 <= bound)
    lost = sum(count for code, count in flooded["codes"].items() if code != "OK")
    yield Row("look-ups that fail", "none", str(lost), lost == 0)
    refused = logins["refused_latency"] and logins["refused_latency"]["p99_ms"]
    yield Row("refusals' p99", "20 ms", "no refusals" if refused is None else ms(refused),
              refused is not None and refused <= 20)
    share = run["admitted_ratio"] or 0
    before, after = (beside["ok_per_second"] for beside in run["logins_beside"])
    yield Row("logins, of those that can be served", "0.9",
              f"{share:.2f} of {before:.1f} / s before and {after:.1f} / s after", share >= 0.9)


def resets(run: dict, engine: str) -> Iterator[Row]:
    others, writes = run["others"], ("refreshes", "updates")
    yield growth(run, 60)
    lost = sum(others[name]["during"]["failed"] for name in writes)
    made = sum(calls(others[name]["during"]) for name in writes)
    yield Row("writes of others that fail", "none", f"{lost} of {made}", lost == 0)
    p99 = max(at(others[name], "during", "p99_ms") for name in writes)
    yield Row("writes' p99", "500 ms", ms(p99), p99 < 500)
    yield lookups(run, None)
    yield served("logins of others that are served", others["logins"], 0.7)
    yield Row("a second after the end", "as before", *afterwards(others))
    yield Row("streams reset a second", "", f"{run['counts']['streams reset'] / run['seconds']:.0f}", True)


def guesses(run: dict, engine: str) -> Iterator[Row]:
    yield served("the domain's own logins, at the first try", run["others"]["own logins"], 0.9)


def connections(run: dict, engine: str) -> Iterator[Row]:
    for name, during in ((name, phases["during"]) for name, phases in run["others"].items()):
        longest = during["latency"]["max_ms"]
        yield Row(name, "within a second, none fails", f"max {ms(longest)}, {failures(during)}",
                  longest <= 1_000 and during["failed"] == 0)
    counts = run["counts"]
    yield Row("connections opened, served, ended", f"more than {SHARE} opened",
              ", ".join(str(counts[f"connections {what}"]) for what in ("opened", "served", "ended")),
              counts["connections opened"] > SHARE)
    memory = run["memory"]
    yield Row("memory", "", f"+{memory['peak_mb'] - memory['before_mb']:.0f} MB", True)


def unread(run: dict, engine: str) -> Iterator[Row]:
    yield growth(run, 150)
    kept = run["memory"]["end_mb"] - run["memory"]["before_mb"]
    yield Row("memory some seconds after the deadline", f"back but for {KEPT_MB} MB", f"{kept:+.0f} MB",
              kept <= KEPT_MB)
    opened, ended = (run["counts"][f"streams {what}"] for what in ("opened", "ended by the service"))
    yield Row("streams that the service ended", f"all of {UNREAD}", f"{ended} of {opened}",
              ended == opened == UNREAD)
    yield lookups(run, None)


def locked(run: dict, engine: str) -> Iterator[Row]:
    yield lookups(run, 20)
    yield served("logins of others that are served", run["others"]["logins"], 0.9)


def hammer(run: dict, engine: str) -> Iterator[Row]:
    yield lookups(run, 20)
    yield served("logins of others that are served", run["others"]["logins"], 0.9)
    answers = run["calls"]["logins of the attacker"]
    yield Row("logins of the attacker, a second", "", f"{answers['ok'] / run['seconds']:.0f} answered, "
              f"{answers['failed'] / run['seconds']:.0f} refused or failed", True)


def lists(run: dict, engine: str) -> Iterator[Row]:
    yield lookups(run, 20 if engine == "postgres" else 50)
    for name, answers in run["calls"].items():
        yield Row(f"{name}, a second", "", f"{answers['ok'] / run['seconds']:.0f} answered, "
                  f"{answers['failed'] / run['seconds']:.0f} refused or failed", True)


def delete_tenant(run: dict, engine: str) -> Iterator[Row]:
    waits = {name: max(at(phases, phase, "max_ms") for phase in ("during", "after"))
             for name, phases in run["others"].items()}
    who = max(waits, key=waits.get)
    lost = sum(phases[phase]["failed"] for phases in run["others"].values() for phase in ("during", "after"))
    yield Row("the longest wait of anybody else", "200 ms", f"{ms(waits[who])} ({who})", waits[who] <= 200)
    yield Row("calls of others that fail", "none", str(lost), lost == 0)
    deletion = run["calls"]["deletion"]
    took, answer = deletion["latency"]["max_ms"], ", ".join(deletion["codes"])
    watched = 1.5 * run["seconds"] + 1
    part = f", of which {watched:.0f} s were watched" if took > watched * 1_000 else ""
    yield Row("the deletion itself", "ends with OK", f"{ms(took)}, {answer}{part}", answer == "OK")


def growth(run: dict, most: float) -> Row:
    memory = run["memory"]
    grown = memory["peak_mb"] - memory["before_mb"]
    return Row("memory", f"at most +{most} MB", f"+{grown:.0f} MB of {memory['before_mb']:.0f}", grown <= most)


def lookups(run: dict, most: float | None) -> Row:
    phases = run["others"]["look-ups"]
    idle, p99, during = at(phases, "before", "p99_ms"), at(phases, "during", "p99_ms"), phases["during"]
    value = f"{ms(idle)}, {ms(p99)}, {failures(during)}"
    if most is None:
        return Row("look-ups' p99, idle and then", "", value, True)
    return Row("look-ups' p99, idle and then", f"{most} ms, none fails", value, p99 < most and during["failed"] == 0)


def served(figure: str, phases: dict, least: float) -> Row:
    during = phases["during"]
    share = during["ok"] / calls(during)
    return Row(figure, f"at least {least}", f"{during['ok']} of {calls(during)}", share >= least)


def afterwards(others: dict) -> tuple[str, bool]:
    """What is not as before from a second after the attack: a call that fails, or a p99 that doubled."""
    late = [f"{name} {ms(at(phases, 'after', 'p99_ms'))} instead of {ms(at(phases, 'before', 'p99_ms'))}"
            for name, phases in others.items()
            if at(phases, "after", "p99_ms") > max(2 * at(phases, "before", "p99_ms"), 20)]
    lost = [f"{name} {failures(phases['after'])}" for name, phases in others.items() if phases["after"]["failed"]]
    return ", ".join(late + lost) or "as before", not late and not lost


def at(phases: dict, phase: str, quantile: str) -> float:
    return phases[phase]["latency"][quantile]


def calls(answers: dict) -> int:
    return answers["ok"] + answers["failed"]


def failures(answers: dict) -> str:
    return f"{answers['failed']} of {calls(answers)} fail"


def median(runs: list) -> object:
    """Of several runs, the median of each figure; of what is no figure, the first."""
    first = next(run for run in runs if run is not None)
    if isinstance(first, dict):
        names = dict.fromkeys(name for run in runs for name in run or {})
        # A status that a run has not seen is one that it has seen no call of.
        return {name: median([(run or {}).get(name, 0) for run in runs]) for name in names}
    if isinstance(first, list):
        return [median(list(values)) for values in zip(*(run for run in runs if run is not None))]
    if isinstance(first, (int, float)) and not isinstance(first, bool):
        return statistics.median(run for run in runs if run is not None)
    return first


def ms(value: float) -> str:
    return f"{value:.1f} ms" if value < 100 else f"{value / 1000:.2f} s"


@dataclasses.dataclass
class Scenario:
    """An attack: what identity-load is told, and what shall come of it."""

    command: str
    judge: Callable[[dict, str], Iterator[Row]]
    arguments: tuple[str, ...] = ()
    large: bool = False
    cost: int = 10
    # How much longer than others it takes, in seconds.
    longer: int = 0
    engines: tuple[str, ...] = ("sqlite", "postgres")


# Those that want the large tenant come last, since it is imported only then, and the one that deletes it at the
# very end. There a hash takes a millisecond, so that a wait is a wait for the database.
SCENARIOS = {
    "flood": Scenario("flood", flood, ("--rate", str(LOOKUPS), "--logins-per-second", str(LOGINS))),
    "resets": Scenario("resets", resets),
    "paced": Scenario("resets", resets, ("--resets-per-second", str(PACED_RESETS))),
    "guesses": Scenario("guesses", guesses),
    "hammer": Scenario("hammer", hammer),
    "connections": Scenario("connections", connections, ("--connections", str(CONNECTIONS)), longer=4),
    "unread": Scenario("unread", unread),
    "reflection": Scenario("unread", unread, ("--reflection",)),
    "locked": Scenario("locked", locked, engines=("postgres",)),
    "lists": Scenario("lists", lists, large=True),
    "delete-tenant": Scenario("delete-tenant", delete_tenant, large=True, cost=4, longer=6),
}


class House:
    """A binary with a database of its own, which all scenarios share."""

    def __init__(self, binary: pathlib.Path, url: str, folder: pathlib.Path, load: pathlib.Path) -> None:
        self.binary, self.folder, self.load = binary, folder, load
        self.has_large = False
        self.environment = {
            "DATABASE_URL": url,
            "IDENTITY_LISTEN": "127.0.0.1:0",
            "IDENTITY_HTTP_LISTEN": "127.0.0.1:0",
            "IDENTITY_LOG": "warn",
            "IDENTITY_LOG_FORMAT": "json",
            "IDENTITY_SESSION_LIMIT": "10000",
        }
        if url.startswith("postgres"):
            self.environment["IDENTITY_MASTER_KEY"] = base64.b64encode(os.urandom(32)).decode()

    def import_large(self, cluster: Cluster | None) -> None:
        """Imports the large tenant, unless it is there."""
        if self.has_large:
            return
        file = self.folder / "large.jsonl"
        if not file.exists():
            with file.open("w") as out:
                subprocess.run([self.load, "import-file", "--users", str(USERS)], stdout=out, check=True)
        for command in (("migrate", "run"), ("import", "jsonl", str(file))):
            subprocess.run([self.binary, *command], env=self.environment, cwd=self.folder, check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        url = self.environment["DATABASE_URL"]
        if cluster and url.startswith("postgres"):
            cluster.sql(url.rpartition("/")[2], "ANALYZE")
        self.has_large = True

    def start(self, cost: int) -> tuple[subprocess.Popen, str]:
        log = (self.folder / "server.log").open("a")
        server = subprocess.Popen([self.binary], env=self.environment | {"IDENTITY_BCRYPT_COST": str(cost)},
                                  cwd=self.folder, text=True, stdout=subprocess.PIPE, stderr=log,
                                  start_new_session=True)
        line = server.stdout.readline()
        found = re.search(r"listening on ([0-9.]+:\d+)", line)
        if not found:
            server.kill()
            sys.exit(f"the server did not start: {(self.folder / 'server.log').read_text()[-2000:]}")
        return server, found[1]

    def run(self, scenario: Scenario, seconds: int, cluster: Cluster | None) -> tuple[dict | str, float]:
        """What identity-load says, or why it says nothing, and the share of the processors that others had."""
        if scenario.large:
            self.import_large(cluster)
        server, address = self.start(scenario.cost)
        command = [self.load, scenario.command, "--target", address, "--pid", str(server.pid), "--json",
                   "--users", str(OTHERS), "--seconds", str(seconds + scenario.longer), *scenario.arguments]
        if scenario.command == "locked":
            command += ["--database", self.environment["DATABASE_URL"]]
        try:
            before, began = processors(server.pid, cluster), time.perf_counter()
            done = subprocess.run(command, text=True, timeout=LOAD_TIMEOUT, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE)
            after, took = processors(server.pid, cluster), time.perf_counter() - began
            busy, own = after[0] - before[0], after[1] - before[1]
            others = max(0, busy - own) / (took * os.cpu_count())
            return json.loads(done.stdout) if done.returncode == 0 else done.stderr.strip(), others
        except subprocess.TimeoutExpired:
            return f"not done after {LOAD_TIMEOUT} s", 0
        finally:
            stop(server)


def stop(server: subprocess.Popen) -> None:
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(30)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def processors(server: int, cluster: Cluster | None) -> tuple[float, float]:
    """Seconds that the processors worked, and those of them that they worked for this."""
    ticks = os.sysconf("SC_CLK_TCK")
    user, nice, system, _, _, *interrupts = map(int, pathlib.Path("/proc/stat").read_text().split()[1:9])
    busy = user + nice + system + sum(interrupts)
    own = processor_ticks(server)[0] if pathlib.Path(f"/proc/{server}").exists() else 0
    if cluster:
        postmaster = cluster.postmaster()
        own += sum(processor_ticks(postmaster))
        for child in pathlib.Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split():
            # It may end just now, and counts with the postmaster then.
            try:
                own += processor_ticks(int(child))[0]
            except OSError:
                pass
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return busy / ticks, own / ticks + children.ru_utime + children.ru_stime


def judge(scenario: Scenario, run: dict | str, engine: str) -> list[Row]:
    if isinstance(run, str):
        return [Row("the scenario", "comes to its end", run, False)]
    try:
        return list(scenario.judge(run, engine))
    except (KeyError, TypeError, ZeroDivisionError) as error:
        return [Row("the scenario", "has figures", f"none: {error!r}", False)]


def build(package: list[str], name: str) -> pathlib.Path:
    subprocess.run(["cargo", "build", "--release", "--locked", *package], cwd=ROOT, check=True)
    return ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release" / name


def main() -> None:
    parser = argparse.ArgumentParser(prog="benches/flood")
    parser.add_argument("--binary", type=pathlib.Path)
    parser.add_argument("--before", type=pathlib.Path)
    parser.add_argument("--load", type=pathlib.Path)
    parser.add_argument("--engine", choices=("sqlite", "postgres", "both"), default="both")
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=pathlib.Path, help="a folder for what identity-load says")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO")
    arguments = parser.parse_args()
    if unknown := set(arguments.scenarios) - set(SCENARIOS):
        parser.error(f"no such scenario: {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    binary = arguments.binary or build(["--bin", "identity"], "identity")
    load = arguments.load or build(["--package", "identity-load"], "identity-load")
    binaries = {"before": arguments.before, "now": binary} if arguments.before else {"now": binary}
    engines = ("sqlite", "postgres") if arguments.engine == "both" else (arguments.engine,)
    wanted = [name for name in SCENARIOS if not arguments.scenarios or name in arguments.scenarios]

    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    print(f"{cpu[1] if cpu else 'unknown processor'}, {os.cpu_count()} cores\n", flush=True)
    heads = ["database", "scenario", "figure", "promise", *binaries, "kept"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}", flush=True)

    cluster = Cluster() if "postgres" in engines else None
    folder = pathlib.Path(tempfile.mkdtemp(prefix="identity-flood."))
    broken, disturbed = [], []
    try:
        if cluster:
            # As a server for so many users has it; statistics come by hand, see import_large.
            cluster.sql("postgres", "ALTER SYSTEM SET shared_buffers = '512MB'")
            cluster.ask("stop")
            cluster.start()
        for engine in engines:
            houses = {}
            for label, path in binaries.items():
                url = cluster.fresh(label) if engine == "postgres" else f"sqlite:{folder}/{label}.db"
                houses[label] = House(path.resolve(), url, folder, load.resolve())
            for name in wanted:
                scenario = SCENARIOS[name]
                if engine not in scenario.engines:
                    continue
                rows, runs = {}, {label: [] for label in houses}
                for label, house in (pair for _ in range(arguments.rounds) for pair in houses.items()):
                    print(f"{engine} {name} {label} …", file=sys.stderr, flush=True)
                    run, others = house.run(scenario, arguments.seconds, cluster)
                    runs[label].append(run)
                    whole = [run for run in runs[label] if isinstance(run, dict)]
                    rows[label] = judge(scenario, median(whole) if len(whole) == len(runs[label]) else run, engine)
                    if arguments.json:
                        arguments.json.mkdir(parents=True, exist_ok=True)
                        (arguments.json / f"{engine}-{name}-{label}.json").write_text(json.dumps(run, indent=2))
                    if others > DISTURBED:
                        disturbed.append(f"{engine}, {name}, {label}: {others:.0%}")
                if name == "delete-tenant":
                    for house in houses.values():
                        house.has_large = False
                for row in rows["now"]:
                    values = [next((other.value for other in rows[label] if other.figure == row.figure), "none")
                              for label in binaries]
                    kept = ("yes" if row.met else "NO") if row.promise else ""
                    print(f"| {' | '.join([engine, name, row.figure, row.promise, *values, kept])} |", flush=True)
                    if not row.met:
                        broken.append(f"{engine}, {name}: {row.figure}: {row.value}, promised {row.promise}")
    finally:
        if cluster:
            cluster.end()
        shutil.rmtree(folder)
    if disturbed:
        print("\nOther processes took more than a tenth of the processors: " + "; ".join(disturbed))
    if broken:
        sys.exit("\nbroken:" + "".join(f"\n  {line}" for line in broken))


main()
