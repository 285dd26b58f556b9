"""What an operator can set: environment variables (prefix WATTLE_) in, one validated Settings out.

Every field is documented in docs/configuration.md; a test proves it. All errors are reported at once.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from aggregator.errors import ConfigurationError

_LOOPBACK = ("127.", "localhost:", "[::1]:")


def is_loopback(listen: str) -> bool:
    """Whether a HOST:PORT can be reached from this machine alone."""
    return listen.startswith(_LOOPBACK)


class Settings(BaseSettings):
    """The aggregator's configuration."""

    model_config = SettingsConfigDict(env_prefix="WATTLE_", extra="forbid", frozen=True)

    cluster: str = Field(default="default", pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")
    """Name of the cluster that this aggregator's own source shows, DNS-1123."""

    database_url: str = "sqlite:///wattle.db"
    """Where links are kept: sqlite:///PATH (one process) or postgresql+psycopg://USER@HOST/DATABASE."""

    source: Literal["manifests", "kubernetes"] = "manifests"
    """Where the cluster view comes from: a directory of manifests, or the API server."""

    manifests: Path | None = None
    """The directory (or file) of plain Kubernetes manifests, re-read on change. Needed when source is manifests."""

    http_listen: str = "127.0.0.1:8470"
    """HOST:PORT of REST, the web page and /metrics."""

    ingest_listen: str = "127.0.0.1:8471"
    """HOST:PORT of FlowLink, where agents deliver."""

    development: bool = False
    """No authentication and no TLS. Only with loopback addresses."""

    profile: str = "generic"
    """CNI profile that verdicts and certificates are made under."""

    grace_seconds: float = Field(default=30.0, gt=0, le=3600)
    """How long a flow whose pod or address is not known yet waits for the cluster view, in seconds."""

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        problems = []
        if self.source == "manifests" and self.manifests is None:
            problems.append("WATTLE_SOURCE=manifests needs WATTLE_MANIFESTS, the directory of manifests")
        if self.development:
            for name, listen in (("HTTP", self.http_listen), ("INGEST", self.ingest_listen)):
                if not is_loopback(listen):
                    problems.append(
                        f"WATTLE_DEVELOPMENT=true has neither authentication nor TLS: WATTLE_{name}_LISTEN={listen} "
                        "must be a loopback address such as 127.0.0.1:8470"
                    )
        if problems:
            raise ValueError("; ".join(problems))
        return self


def settings_from_environment() -> Settings:
    """Read and validate everything together. Raises ConfigurationError with one line a problem."""
    try:
        return Settings()
    except ValidationError as exc:
        problems = [
            f"WATTLE_{'_'.join(str(part) for part in e['loc']).upper()}: {e['msg']}"
            if e["loc"]
            else e["msg"].removeprefix("Value error, ")
            for e in exc.errors()
        ]
        raise ConfigurationError("the configuration cannot be used:\n  " + "\n  ".join(problems)) from exc
