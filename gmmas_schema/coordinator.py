"""Configuration of one coordinator (coordinator.yaml, written by `gmmas server init`)."""

import ipaddress
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from gmmas_schema.base import FrozenModel

SITE_NAME = r"^[a-z0-9][a-z0-9-]{0,30}$"
DEFAULT_PORT = 9092


def _host(value: str) -> str:
    """Accept a DNS name or an IP address."""
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        if len(value) > 253 or not re.fullmatch(r"(?!-)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*\.?", value):
            raise ValueError("must be a DNS name or an IP address, without port or scheme") from None
    return value


Host = Annotated[str, AfterValidator(_host)]


class CoordinatorDeployment(FrozenModel):
    """One coordinator.

    Attributes:
        name: name of the federation; stands in its certificates.
        hosts: names and addresses by which hospitals reach this machine; the server certificate is issued for them and for loopback.
        port: the one TCP port everything is served on, over TLS.
        listen: `loopback` serves this machine only (demo, tests, or behind a reverse proxy). `network` serves every interface: enrolled
            nodes may then connect from outside; administration stays on loopback.
    """

    name: str = Field(default="gmmas", pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    hosts: tuple[Host, ...] = ()
    port: int = Field(default=DEFAULT_PORT, ge=1024, le=65535)
    listen: Literal["loopback", "network"] = "loopback"

    @property
    def local_address(self) -> str:
        """Where processes on this machine reach the server."""
        return f"127.0.0.1:{self.port}"

    @property
    def public_address(self) -> str:
        """Where hospitals reach it, as far as this file tells."""
        return f"{self.hosts[0] if self.hosts else '127.0.0.1'}:{self.port}"
