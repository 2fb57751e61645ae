"""`gmmas site pause`, `resume` and `allow`: what the hospital's people do to their own node, each with a name in the audit log."""

import getpass
from datetime import UTC
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from client.interventions import Pause, allow, pause_site, resume_site, withdraw
from client.policy import POLICY_CODES
from gmmas_schema.errors import ConfigError, ReasonCode
from gmmas_schema.site import SiteConfig

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="site.yaml of the site.")]
ByOption = Annotated[str | None, typer.Option("--by", help="Who does this; the name of your account by default.", show_default=False)]
DEFAULT_CONFIG = Path("site.yaml")


def operator_name(given: str | None) -> str:
    """Return the given name, else that of the account."""
    try:
        name = given or getpass.getuser()
    except (KeyError, OSError):  # an account without a name
        name = "unknown"
    return " ".join(name.split())[:64]


def pause(
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    reason: Annotated[str, typer.Option(help="Why; stays here. Name no patient.")] = "",
    by: ByOption = None,
    now: Annotated[bool, typer.Option("--now", help="End the running task instead of holding it.")] = False,
) -> None:
    """Refuse requests, and hold the running task at its next step, until `gmmas site resume`; restarts do not end the pause."""
    site = SiteConfig.from_yaml(config)
    runs = pause_site(site, by=operator_name(by), reason=reason[:300], abandon=now)
    Console().print(f"site {site.site} is paused" + ("" if runs else "; its node is not running, and will start paused"))


def resume(config: ConfigOption = DEFAULT_CONFIG, *, by: ByOption = None) -> None:
    """Accept requests again and let a held task go on."""
    site = SiteConfig.from_yaml(config)
    runs = resume_site(site, by=operator_name(by))
    Console().print(f"site {site.site} takes part again" + ("" if runs else ", once its node is started"))


def allow_command(
    code: Annotated[str, typer.Argument(help="Reason code of the check, for example E_POLICY_HOURS.", show_default=False)] = "",
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    reason: Annotated[str, typer.Option(help="Why; stays here. Name no patient.")] = "",
    hours: Annotated[float, typer.Option(help="For how long.", min=0.1, max=168)] = 8.0,
    by: ByOption = None,
    end: Annotated[bool, typer.Option("--end", help="Withdraw all that was allowed.")] = False,
) -> None:
    """Let requests pass one check of the site's policy for a while; who, why and each such answer stand in the audit log."""
    site, console = SiteConfig.from_yaml(config), Console()
    if end:
        console.print(f"{withdraw(site, by=operator_name(by))} withdrawn; the policy holds again")
        return
    if code not in set(ReasonCode) or not reason.strip():
        raise ConfigError(
            "an override names the check that may fail, and why",
            where="gmmas site allow",
            got=f"code {code or 'none'}, reason {reason.strip() or 'none'}",
            expected=f"one of {', '.join(sorted(POLICY_CODES))}, and --reason",
            remedy='for example: gmmas site allow E_POLICY_HOURS --hours 8 --reason "the scanner is off today"',
        )
    override = allow(site, ReasonCode(code), hours=hours, reason=reason.strip()[:300], by=operator_name(by))
    console.print(
        Text.assemble((code, "bold"), f" is passed until {override.until.astimezone(UTC):%Y-%m-%d %H:%M} UTC; `--end` withdraws it"),
        soft_wrap=True,
    )
    if override.code not in (ReasonCode.POLICY_HOURS, ReasonCode.POLICY_ROUNDS):
        console.print("A run that has refused this site asks it again once its node is restarted.")


def describe_pause(pause: Pause) -> str:
    """Return a pause in a line."""
    since = f" since {pause.since.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if pause.since is not None else ""
    return f"paused{since}{f' by {pause.by}' if pause.by else ''}{f': {pause.reason}' if pause.reason else ''}"
