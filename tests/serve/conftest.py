"""A server in this process over a tiny package."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from rubert_lite import Model, load
from serve.app import create_app
from serve.scheduler import Scheduler
from serve.settings import Settings
from tests.rubert_lite.conftest import build

from .lane import Slow

Opener = Callable[..., TestClient]


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "tiny"
    return build(directory, labels=("добро", "зло", "ничто"), with_types=True, max_length=32)


@pytest.fixture(scope="session")
def model(package: Path) -> Model:
    return load(package, lanes=1)


@pytest.fixture
def opened(model: Model) -> Iterator[Opener]:
    """Return a function that starts a server with these settings and gives its client."""
    started: list[Any] = []

    def start(which: Model = model, **settings: Any) -> TestClient:
        app = create_app(which, Settings(**settings))
        started.append(app.service)
        client = TestClient(app, raise_server_exceptions=False)
        client.service, client.keys = app.service, app.keys  # type: ignore[attr-defined]
        return client

    yield start
    for service in started:
        service.close()


@pytest.fixture
def client(opened: Opener) -> TestClient:
    return opened()


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def scheduler(slow: Slow) -> Iterator[Scheduler]:
    made = Scheduler(lanes=1, max_queue_tokens=1000)
    yield made
    slow.let.release(10_000)
    made.close()
