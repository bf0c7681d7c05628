"""The bar is drawn on terminals only."""

import io

import pytest

from rubert_lite import Model
from rubert_lite.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("shown", "stream"), [(True, io.StringIO()), (False, Terminal())])
def test_silent_unless_asked_for_and_on_a_terminal(shown: bool, stream: io.StringIO) -> None:
    with Progress("encode", 10, shown=shown, stream=stream) as bar:
        bar.add(10)
    assert stream.getvalue() == ""


def test_draws_how_far_it_is() -> None:
    stream = Terminal()
    with Progress("encode", 4, shown=True, stream=stream) as bar:
        bar.add(1)
        bar.add(1)
    last = stream.getvalue().split("\r")[-1]
    assert last.startswith(f"encode [{'#' * 15}{' ' * 15}] 2/4 ")
    assert last.endswith("/s\n")


def test_stream_of_unknown_length_is_counted() -> None:
    stream = Terminal()
    with Progress("encode", None, shown=True, stream=stream) as bar:
        bar.add(7)
    assert stream.getvalue().startswith("\rencode 7 ")


def test_encode_draws_on_standard_error(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    model.encode(["мир", "день"])
    assert stream.getvalue() == ""
    model.encode(["мир", "день"], progress=True)
    assert "2/2" in stream.getvalue()
