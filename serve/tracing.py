"""Spans of requests for OpenTelemetry: the extra `otel`.

A span has the route, the status and the time of each phase; never a word of a text.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rubert_lite.errors import ProviderError, how_to_install

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_PHASES = ("queue", "tokenization", "inference", "total")


class Traced:
    """ASGI middleware: a server span around every request, below the caller's own span if any."""

    def __init__(self, app: ASGIApp, provider: "TracerProvider") -> None:
        """Tell `provider` of the requests of an application."""
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._app = app
        self._tracer = provider.get_tracer("rubert_lite.serve")
        self._propagator = TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and note how it went."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        from opentelemetry.trace import SpanKind, StatusCode

        parent = self._propagator.extract(dict(Headers(scope=scope)))
        method = str(scope["method"])
        with self._tracer.start_as_current_span(method, parent, kind=SpanKind.SERVER) as span:

            async def noted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        span.set_status(StatusCode.ERROR)
                    for name, value in _phases(message["headers"]):
                        span.set_attribute(f"rubert_lite.{name}_ms", value)
                await send(message)

            await self._app(scope, receive, noted)
            route = getattr(scope.get("route"), "path_format", "other")
            span.update_name(f"{method} {route}")
            span.set_attribute("http.request.method", method)
            span.set_attribute("http.route", route)


def _phases(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[tuple[str, float]]:
    found = Headers(raw=list(headers))
    for phase in _PHASES:
        value = found.get(f"x-{phase}-time")
        if value is not None:
            yield phase, float(value)


def open_tracing(endpoint: str, name: str) -> tuple["TracerProvider", Callable[[], None]]:
    """Return a provider that sends spans to an OTLP endpoint over HTTP, and what ends it.

    Raises ProviderError where the extra is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ProviderError(
            f"--otlp-endpoint needs OpenTelemetry: {how_to_install('otel')}"
        ) from error
    resource = Resource.create({"service.name": "rubert-lite", "rubert_lite.model": name})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return provider, provider.shutdown
