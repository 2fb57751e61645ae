"""Configuration of one coordinator (coordinator.yaml, written by `gmmas server init`)."""

import ipaddress
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from gmmas_schema.base import FrozenModel
from gmmas_schema.encryption import EncryptionConfig

SITE_NAME = r"^[a-z0-9][a-z0-9-]{0,30}$"
DEFAULT_PORT = 9092
DEFAULT_DASHBOARD_PORT = 9093


def _host(value: str) -> str:
    """Accept a DNS name or an IP address."""
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        if len(value) > 253 or not re.fullmatch(r"(?!-)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*\.?", value):
            raise ValueError("must be a DNS name or an IP address, without port or scheme") from None
    return value


Host = Annotated[str, AfterValidator(_host)]


class DashboardConfig(FrozenModel):
    """The coordinator's dashboard, always on 127.0.0.1.

    Attributes:
        port: TCP port; plain HTTP, since it never leaves the machine by itself.
        hosts: further names by which browsers may ask for it, where a reverse proxy or a tunnel leads to it, beside 127.0.0.1 and
            localhost. A request for another name is refused, so that no foreign web page can reach it under a name of its own.
        session_hours: a login ends after so long, used or not.
        idle_minutes: and after so long without a request.
        mlflow: address of the MLflow server's pages, for links; empty for the command that shows a run's own store.
    """

    port: int = Field(default=DEFAULT_DASHBOARD_PORT, ge=1024, le=65535)
    hosts: tuple[Host, ...] = ()
    session_hours: float = Field(default=12.0, gt=0, le=168)
    idle_minutes: float = Field(default=60.0, gt=0, le=1440)
    mlflow: str = Field(default="", pattern=r"^(https?://[^\s<>\"']+)?$")

    @property
    def address(self) -> str:
        """Where a browser on this machine finds it."""
        return f"http://127.0.0.1:{self.port}"


class CoordinatorDeployment(FrozenModel):
    """One coordinator.

    Attributes:
        name: name of the federation; stands in its certificates.
        hosts: names and addresses by which hospitals reach this machine; the server certificate is issued for them and for loopback.
        port: the one TCP port everything is served on, over TLS.
        listen: `loopback` serves this machine only (demo, tests, or behind a reverse proxy). `network` serves every interface: enrolled
            nodes may then connect from outside; administration stays on loopback.
        dashboard: pages for the people at the coordinator; None: none are served.
        encryption: encrypts the checkpoints of its runs; None leaves them plain.
    """

    name: str = Field(default="gmmas", pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    hosts: tuple[Host, ...] = ()
    port: int = Field(default=DEFAULT_PORT, ge=1024, le=65535)
    listen: Literal["loopback", "network"] = "loopback"
    dashboard: DashboardConfig | None = None
    encryption: EncryptionConfig | None = None

    @model_validator(mode="after")
    def _ports_differ(self) -> "CoordinatorDeployment":
        if self.dashboard is not None and self.dashboard.port == self.port:
            raise ValueError(f"dashboard.port {self.dashboard.port} is the port of the coordinator itself")
        return self

    @property
    def local_address(self) -> str:
        """Where processes on this machine reach the server."""
        return f"127.0.0.1:{self.port}"

    @property
    def public_address(self) -> str:
        """Where hospitals reach it, as far as this file tells."""
        return f"{self.hosts[0] if self.hosts else '127.0.0.1'}:{self.port}"
