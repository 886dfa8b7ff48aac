"""Starts the binary again and again and asks its health service until it is SERVING."""

import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


def start(binary: str, folder: str) -> tuple[subprocess.Popen, float]:
    """Starts the server; the seconds until its health was SERVING come with it."""
    environment = {"DATABASE_URL": f"sqlite:{folder}/identity.db", "IDENTITY_LISTEN": "127.0.0.1:0", "IDENTITY_HTTP_LISTEN": "127.0.0.1:0"}
    began = time.perf_counter()
    server = subprocess.Popen(
        [binary], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    address = server.stdout.readline().split("listening on ")[1].split(",")[0]
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for answer in stub.Watch(health_pb2.HealthCheckRequest(), timeout=10):
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                break
    return server, time.perf_counter() - began


def stop(server: subprocess.Popen) -> None:
    server.send_signal(signal.SIGTERM)
    if server.wait(30) != 0:
        sys.exit(f"the server exited with {server.returncode}")


def resident_kib(server: subprocess.Popen) -> int:
    status = pathlib.Path(f"/proc/{server.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def main() -> None:
    binary, starts = sys.argv[1], int(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        stop(start(binary, folder)[0])  # makes the file, the tables and the keys
        times = []
        for _ in range(starts):
            server, seconds = start(binary, folder)
            times.append(seconds * 1000)
            stop(server)
        server, _ = start(binary, folder)
        time.sleep(3)
        memory = resident_kib(server)
        stop(server)
    spread = f"median of {starts}, {min(times):.1f} to {max(times):.1f}"
    print(f"binary               {os.path.getsize(binary) / 1e6:8.1f} MB")
    print(f"exec to SERVING      {statistics.median(times):8.1f} ms ({spread}; Python's client included)")
    print(f"idle resident memory {memory * 1024 / 1e6:8.1f} MB")
    if os.path.getsize(binary) > 30e6 or statistics.median(times) > 50 or memory * 1024 > 20e6:
        sys.exit("beyond what is promised: 30 MB, 50 ms, 20 MB")


main()
