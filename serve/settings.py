"""Settings of the server: a flag beats an environment variable RUBERT_LITE_*, which beats these."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, CliPositionalArg, SettingsConfigDict

Seconds = Annotated[float, Field(allow_inf_nan=False)]


class Settings(BaseSettings):
    """What `rubert-lite serve` can be told."""

    model_config = SettingsConfigDict(
        env_prefix="RUBERT_LITE_",
        extra="ignore",
        frozen=True,
        cli_prog_name="rubert-lite serve",
        cli_kebab_case=True,
        cli_implicit_flags=True,
    )

    model: CliPositionalArg[str] = Field("distil-16k", description="name, directory or hub id")
    host: str = Field("127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="0: any free one")
    port_file: Path | None = Field(None, description="write the port here once it is listened on")
    workers: int = Field(1, ge=1, description="processes that share the port")
    lanes: int = Field(0, ge=0, description="threads of a worker; 0: its share of the CPUs")
    device: Literal["cpu", "cuda"] = Field("cpu", description="where to compute")
    variant: str = Field("", description="graph of the package; empty: its default")
    max_body_bytes: int = Field(2_000_000, ge=1_000, description="longer bodies are refused")
    max_items: int = Field(2048, ge=1, description="texts of a request")
    max_item_chars: int = Field(100_000, ge=1, description="characters of a text")
    max_queue_tokens: int = Field(65_536, ge=1024, description="waiting pieces; beyond it: 429")
    max_queue_seconds: float = Field(
        1.0, gt=0, description="time that waiting pieces take; beyond it: 429"
    )
    auto_truncate: bool = Field(True, description="cut long texts unless a request says otherwise")
    timeout_seconds: Seconds = Field(
        30.0, gt=0, description="time to read and compute a request; beyond it: 503"
    )
    body_timeout_seconds: Seconds = Field(
        10.0,
        gt=0,
        description="time for a body to arrive, and for a head",
    )
    # Above the 60 s of common balancers: a connection that ends here first is a 502 there.
    keep_alive_seconds: int = Field(75, ge=1, description="longest time a connection may be idle")
    drain_seconds: Seconds = Field(1.0, ge=0, description="unready but answering, before it stops")
    shutdown_seconds: Seconds = Field(
        30.0, gt=0, description="time for the last answers after that"
    )
    api_keys: SecretStr = Field(SecretStr(""), description="comma-separated; empty: none needed")
    api_keys_file: Path | None = Field(
        None, description="a key or sha256:HEX a line; read again on SIGHUP"
    )
    metrics: bool = Field(True, description="serve /metrics")
    open_metrics: bool = Field(False, description="serve /metrics to those without a key, too")
    docs: bool = Field(True, description="serve /openapi.json")
    page: bool = Field(True, description="serve the page to try the model at /")
    cors_origins: str = Field(
        "", description="comma-separated origins whose pages may call; * for all; empty: none"
    )
    otlp_endpoint: str = Field(
        "", description="send spans there, e.g. http://localhost:4318/v1/traces; empty: nowhere"
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"
