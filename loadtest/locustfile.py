"""Open load on a server: requests arrive when a Poisson process says, answered ones or not.

    locust -f loadtest/locustfile.py --headless --host http://127.0.0.1:8000

Environment: LOADTEST_PROFILE (a TOML file), LOADTEST_OUT (a folder), LOADTEST_PID (the server's
process, whose memory is watched). Every latency is measured from
the intended start of its request: a server that stalls is charged for the requests that it kept
from starting (coordinated omission). Locust's own users wait for answers; here one user deals out
arrivals and greenlets carry them.
"""

import csv
import gc
import json
import os
import random
import time
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gevent
from gevent.pool import Pool
from geventhttpclient import HTTPClient
from locust import LoadTestShape, User, constant, events, task
from locust.exception import StopUser
from memory import Memory
from plan import load_profile
from report import Sample, judge, knee, summarize, write_report
from texts import make_texts

_HERE = Path(__file__).parent
PROFILE = load_profile(Path(os.environ.get("LOADTEST_PROFILE", _HERE / "profiles" / "cpu.toml")))
OUT = Path(os.environ.get("LOADTEST_OUT", "runs/loadtest"))
MODEL = os.environ.get("LOADTEST_MODEL", "")
_TEXTS = 50_000
_LOCAL = ("127.0.0.1", "localhost", "::1")
_PHASES = ("tokenization", "queue", "inference", "total")
_AHEAD = 3.0  # seconds before its stage that the knee is sought: it holds up what is due meanwhile
_WAITING = 20_000  # requests under way at once; more: the load generator gives up
samples: list[Sample] = []
memory = Memory(int(os.environ.get("LOADTEST_PID", "0")))


class Shape(LoadTestShape):
    """One user until the profile is over."""

    def tick(self) -> tuple[int, float] | None:
        """Return users and spawn rate, or None at the end."""
        return (1, 1) if self.get_run_time() < PROFILE.seconds + 1 else None


class Arrivals(User):
    """Deals out requests at their times."""

    wait_time = constant(0)

    def on_start(self) -> None:
        """Prepare texts and connections."""
        address = urlsplit(self.host or "")
        if address.hostname not in _LOCAL:
            raise ValueError(f"{self.host}: only loopback addresses are loaded")
        # To walk through all samples stops the generator for 0.2 s, and every request that is due
        # then would be told as late: nothing of a minute or ten needs the collector.
        gc.collect()
        gc.disable()
        self.client = HTTPClient(
            address.hostname,
            address.port,
            concurrency=PROFILE.connections,
            connection_timeout=10,
            network_timeout=60,
        )
        self.chance = random.Random(PROFILE.seed)
        self.texts = list(islice(make_texts(PROFILE.seed, words=PROFILE.words), _TEXTS))
        self.given = 0
        self.pool = Pool(_WAITING)

    @task
    def run_profile(self) -> None:
        """Send every request of the profile, then wait for the last answers."""
        watch = gevent.spawn(memory.watch)
        try:
            self._send_all()
        finally:
            watch.kill()
        gevent.sleep(60)  # the shape ends the run

    def _send_all(self) -> None:
        kinds, shares = list(PROFILE.mix), list(PROFILE.mix.values())
        began = time.perf_counter()
        due, found = 0.0, 0.0
        while due < PROFILE.seconds:
            if not found and PROFILE.needs_knee(due + _AHEAD):
                found = knee(samples)
                if not found:
                    print("no rate was kept up with: there is no knee to multiply")
                    self.environment.runner.quit()
                    raise StopUser
            rate = PROFILE.rate(due, found)
            if rate <= 0:
                due += 0.1
                continue
            due += self.chance.expovariate(rate)
            wait = began + due - time.perf_counter()
            gevent.sleep(max(0.0, wait))
            kind = self.chance.choices(kinds, shares)[0]
            self.pool.spawn(self._ask, kind, began, due)
        self.pool.join(timeout=60)

    def _take(self, count: int) -> list[str]:
        start = self.given
        self.given += count
        return [self.texts[i % _TEXTS] for i in range(start, start + count)]

    def _ask(self, kind: str, began: float, due: float) -> None:
        if kind == "classify":
            path, body = "/predict", {"inputs": [[text] for text in self._take(1)]}
        else:
            path = "/v1/embeddings"
            count = 1 if kind == "one" else PROFILE.batch
            body = {"input": self._take(count), "encoding_format": PROFILE.encoding, "model": MODEL}
        started = time.perf_counter() - began
        status, size, phases, error = 0, 0, {}, None
        try:
            headers = {"content-type": "application/json"}
            response = self.client.post(path, json.dumps(body).encode(), headers=headers)
            status = response.status_code
            size = len(response.read())
            phases = {p: float(response.get(f"x-{p}-time") or 0) for p in _PHASES}
        except Exception as problem:  # a failure of any kind is a failed request
            error = problem
        ended = time.perf_counter() - began
        samples.append(
            Sample(
                PROFILE.stage(due),
                kind,
                due,
                started,
                ended,
                status,
                phases.get("queue", 0.0),
                phases.get("inference", 0.0),
                phases.get("total", 0.0),
            )
        )
        events.request.fire(
            request_type="POST",
            name=kind,
            response_time=1000 * (ended - due),
            response_length=size,
            exception=error or (None if status == 200 else RuntimeError(f"status {status}")),
            context={},
        )


@events.quitting.add_listener
def finish(environment: Any, **kwargs: Any) -> None:
    """Write samples, table and plots; a breach ends with a status of 1."""
    OUT.mkdir(parents=True, exist_ok=True)
    with (OUT / "samples.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(Sample._fields)
        writer.writerows(samples)
    table = summarize(samples, PROFILE)
    breaches = judge(table, PROFILE, knee=knee(samples), growth=memory.growth)
    print(write_report(samples, table, breaches, PROFILE, OUT))
    if memory.megabytes:
        memory.plot(OUT / "memory.png")
        print(memory.text)
    environment.process_exit_code = 1 if breaches else 0
