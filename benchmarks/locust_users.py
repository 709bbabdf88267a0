"""Locust users who each call tritonclient, as the peer of ``loadtest.py``; prints its result as one line of JSON.

As the documentation of both shows it: gevent for gRPC, one task that calls ``infer``. One client for all users, because
one each does not end (its ``__del__`` blocks); the latencies are taken to the nanosecond around the call, because
Locust rounds them to milliseconds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

import gevent  # before what it patches
import numpy as np
import tritonclient.grpc as grpcclient
from grpc.experimental import gevent as grpc_gevent
from locust import User, constant_throughput, task
from locust.env import Environment

grpc_gevent.init_gevent()


def main() -> None:
    """Run the users, and say what they saw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("--model", required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--users", type=int, required=True)
    parser.add_argument("--warmup", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rate", type=float, help="of all users together, by Locust's constant_throughput")
    options = parser.parse_args()
    client = grpcclient.InferenceServerClient(options.address)
    tensor = grpcclient.InferInput("x", [1, options.size], "FP32")
    tensor.set_data_from_numpy(np.random.default_rng(0).random((1, options.size), np.float32))
    seen: list[tuple[int, int]] = []

    class TritonclientUser(User):
        if options.rate:
            wait_time = constant_throughput(options.rate / options.users)

        @task
        def call(self) -> None:
            start = time.perf_counter_ns()
            client.infer(options.model, [tensor]).as_numpy("y")
            seen.append((start, time.perf_counter_ns()))

    environment = Environment(user_classes=[TritonclientUser])
    runner = environment.create_local_runner()
    runner.start(options.users, spawn_rate=options.users)
    gevent.sleep(options.warmup)
    cpu, start = time.process_time(), time.perf_counter_ns()
    gevent.sleep(options.seconds)
    end, cpu = time.perf_counter_ns(), time.process_time() - cpu
    latencies = np.array([after - before for before, after in seen if start <= after < end]) / 1000
    p50, p99 = np.percentile(latencies, (50, 99), method="inverted_cdf")
    json.dump(
        {
            "start_ns": start,
            "end_ns": end,
            "rate": len(latencies) * 1e9 / (end - start),
            "p50_us": p50,
            "p99_us": p99,
            "cpu_us": cpu * 1e6 / len(latencies),
        },
        sys.stdout,
    )
    sys.stdout.flush()
    with gevent.Timeout(5, False):
        runner.quit()
    os._exit(0)  # an orderly end of users, gevent and gRPC may wait for ever


if __name__ == "__main__":
    main()
