"""Settings are read from environment variables and an optional TOML file; faults are collected and raised together.

Every setting `name` is the variable `SERF_HAPROXY_NAME`; the TOML file, named by `SERF_HAPROXY_SETTINGS_FILE`,
has the key `name`. The environment wins.
"""

import dataclasses
import os
import tomllib
from collections.abc import Mapping

from serf_haproxy.errors import SettingsError
from serf_haproxy.settings.values import PREFIX, SETTINGS_FILE, SOCKET_BYTES, Settings, variable
from serf_haproxy.system.kinds import Kind


def load_settings(environ: Mapping[str, str]) -> Settings:
    """Read all settings; an empty variable counts as unset.

    Raises:
        SettingsError: At least one is wrong; the text has one line for each fault.
    """
    faults: list[str] = []
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    from_file = _read_file(environ.get(SETTINGS_FILE, ""), set(fields), faults)
    values, wrong = {}, set()
    for name, field in fields.items():
        text, origin = environ.get(variable(name), ""), variable(name)
        if not text and name in from_file:
            text, origin = from_file[name], f"{name} in {environ[SETTINGS_FILE]}"
        if not text:
            continue
        kind: Kind = field.metadata["kind"]
        try:
            values[name] = kind.read(text)
        except (ValueError, KeyError):
            wrong.add(name)
            faults.append(f"{origin}={text!a}: must be {kind.allowed}")
    settings = Settings(**values)
    if settings.max_wait_s < settings.quiet_s and wrong.isdisjoint({"max_wait_s", "quiet_s"}):
        allowed = f"must be at least {variable('quiet_s')} ({settings.quiet_s:g})"
        faults.append(f"{variable('max_wait_s')}={settings.max_wait_s:g}: {allowed}")
    if len(os.fsencode(settings.successor_socket)) > SOCKET_BYTES and "master_socket" not in wrong:
        most = SOCKET_BYTES - len(".next")
        faults.append(f"{variable('master_socket')}={settings.master_socket!a}: must be at most {most} bytes long")
    if settings.forwarded_for == "append" and not settings.trusted_proxies and "trusted_proxies" not in wrong:
        faults.append(
            f"{variable('forwarded_for')}=append: needs {variable('trusted_proxies')}, whose word is believed"
        )
    if settings.redirect_https and not settings.has_https and "https_bind" not in wrong:
        faults.append(f"{variable('redirect_https')}=on: needs {variable('https_bind')}, where clients then connect")
    if faults:
        raise SettingsError("\n".join(faults))
    return settings


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Return the variables that look like settings of ours and are none: most likely misspelt."""
    known = {variable(field.name) for field in dataclasses.fields(Settings)} | {SETTINGS_FILE}
    return sorted(name for name in environ if name.startswith(PREFIX) and name not in known)


def _read_file(path: str, known: set[str], faults: list[str]) -> dict[str, str]:
    if not path:
        return {}
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except (OSError, ValueError) as error:
        faults.append(f"{SETTINGS_FILE}={path!a}: {error}")
        return {}
    faults.extend(f"{name!a} in {path}: there is no such setting" for name in table if name not in known)
    return {name: _as_text(value) for name, value in table.items()}


def _as_text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
