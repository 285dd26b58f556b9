"""What an operator can set: environment variables (prefix WATTLE_) in, one validated Settings out.

Every field is documented in docs/configuration.md; a test proves it. All errors are reported at once.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from aggregator.errors import ConfigurationError

CLUSTER_NAME = r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
_Read = TypeVar("_Read", bound=BaseSettings)
_LOOPBACK = ("127.", "localhost:", "[::1]:")


def is_loopback(listen: str) -> bool:
    """Whether a HOST:PORT can be reached from this machine alone."""
    return listen.startswith(_LOOPBACK)


class DatabaseSettings(BaseSettings):
    """Which database: all that a migration needs to know."""

    model_config = SettingsConfigDict(env_prefix="WATTLE_", extra="forbid", frozen=True, use_attribute_docstrings=True)

    database_url: str = "sqlite:///wattle.db"
    """Where links are kept: sqlite:///PATH (one process) or postgresql+psycopg://USER@HOST/DATABASE."""

    database_wait_seconds: float = Field(default=0.0, ge=0, le=3600)
    """How long to wait at the start for a database that does not answer yet, in seconds."""


class Settings(DatabaseSettings):
    """The aggregator's configuration."""

    cluster: str = Field(default="default", pattern=f"^{CLUSTER_NAME}$")
    """Name of the cluster that this aggregator's own source shows, DNS-1123."""

    source: Literal["manifests", "kubernetes"] = "manifests"
    """Where the cluster view comes from: a directory of manifests, or the API server."""

    manifests: Path | None = None
    """The directory (or file) of plain Kubernetes manifests, re-read on change. Needed when source is manifests."""

    http_listen: str = "127.0.0.1:8470"
    """HOST:PORT of REST, the web page and /metrics."""

    ingest_listen: str = "127.0.0.1:8471"
    """HOST:PORT of FlowLink, where agents deliver."""

    query_listen: str = "127.0.0.1:8472"
    """HOST:PORT of the gRPC query API, with reflection and health."""

    development: bool = False
    """No authentication and no TLS. Only with loopback addresses."""

    kubeconfig: Path | None = None
    """Credentials for source=kubernetes outside a cluster; unset = the pod's own ServiceAccount."""

    kubeconfigs: Path | None = None
    """Directory of kubeconfigs for further clusters, each in a file by the cluster's name (a mounted Secret)."""

    tls_certificate_file: Path | None = None
    """Certificate that agents see on ingest. Needed unless development."""

    tls_key_file: Path | None = None
    """Its key."""

    tls_client_ca_file: Path | None = None
    """Authority of the agents' certificates: with it, agents are known by mutual TLS."""

    agent_token_file: Path | None = None
    """SHA-256 of agents' tokens, one `DIGEST CLUSTER AGENT` a line: agents are known by bearer token."""

    agent_service_account: str = Field(default="", pattern=r"^([a-z0-9][-a-z0-9]*/[a-z0-9][-a-z0-9.]*)?$")
    """NAMESPACE/NAME of the agents' ServiceAccount: agents are known by their pods' tokens, reviewed by Kubernetes."""

    dry_run: bool = False
    """Ask the API server what it would say to proposals (dryRun=All): needs the right to create and patch policies."""

    profile: str = "generic"
    """CNI profile that verdicts and certificates are made under."""

    grace_seconds: float = Field(default=30.0, gt=0, le=3600)
    """How long a flow whose pod or address is not known yet waits for the cluster view, in seconds."""

    keeping_seconds: float = Field(default=5.0, ge=0.5, le=3600)
    """How often drift, policies on watch and enforcement are looked at, in seconds; less often where that is dear."""

    pair_series: int = Field(default=0, ge=0, le=10_000)
    """Pairs of workloads that get counters of their own on /metrics, whoever comes first; 0 = none."""
    webhook_url: str = Field(default="", pattern=r"^(https?://\S+)?$")
    """Where events are told once each, as JSON (docs/keeping-it-right.md)."""

    webhook_secret_file: Path | None = None
    """A secret that signs what the webhook gets: HMAC-SHA256 of the body in X-Wattle-Signature."""

    alertmanager_url: str = Field(default="", pattern=r"^(https?://\S+)?$")
    """Alertmanager's base URL, without /api/v2: it is told every minute of the events that hold."""

    alertmanager_token_file: Path | None = None
    """A bearer token for Alertmanager."""

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        problems = []
        if self.source == "manifests" and self.manifests is None:
            problems.append("WATTLE_SOURCE=manifests needs WATTLE_MANIFESTS, the directory of manifests")
        if self.dry_run and self.source != "kubernetes":
            problems.append("WATTLE_DRY_RUN needs WATTLE_SOURCE=kubernetes: it is the API server that is asked")
        if not self.development:
            problems.extend(self._without_development())
        else:
            for name, listen in (
                ("HTTP", self.http_listen),
                ("INGEST", self.ingest_listen),
                ("QUERY", self.query_listen),
            ):
                if not is_loopback(listen):
                    problems.append(
                        f"WATTLE_DEVELOPMENT=true has neither authentication nor TLS: WATTLE_{name}_LISTEN={listen} "
                        "must be a loopback address such as 127.0.0.1:8470"
                    )
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _without_development(self) -> Iterator[str]:
        if self.tls_certificate_file is None or self.tls_key_file is None:
            yield (
                "ingest needs WATTLE_TLS_CERTIFICATE_FILE and WATTLE_TLS_KEY_FILE; "
                "on loopback, for trying out, WATTLE_DEVELOPMENT=true does without"
            )
        elif [self.tls_client_ca_file, self.agent_token_file, self.agent_service_account or None].count(None) != 2:
            yield (
                "agents are known by WATTLE_TLS_CLIENT_CA_FILE (mutual TLS), by WATTLE_AGENT_TOKEN_FILE or by "
                "WATTLE_AGENT_SERVICE_ACCOUNT: set one of the three"
            )
        if self.agent_service_account and self.source != "kubernetes":
            yield "WATTLE_AGENT_SERVICE_ACCOUNT needs WATTLE_SOURCE=kubernetes: the API server reviews agents' tokens"


def settings_from_environment() -> Settings:
    """Read and validate everything together. Raises ConfigurationError with one line a problem."""
    return _read(Settings)


def database_settings_from_environment() -> DatabaseSettings:
    """Only what concerns the database. Raises ConfigurationError with one line a problem."""
    return _read(DatabaseSettings)


def _read(what: type[_Read]) -> _Read:
    try:
        return what()
    except ValidationError as exc:
        problems = [
            f"WATTLE_{'_'.join(str(part) for part in e['loc']).upper()}: {e['msg']}"
            if e["loc"]
            else e["msg"].removeprefix("Value error, ")
            for e in exc.errors()
        ]
        raise ConfigurationError("the configuration cannot be used:\n  " + "\n  ".join(problems)) from exc
