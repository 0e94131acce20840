"""Settings are read from environment variables and an optional TOML file; faults are collected and raised together.

Every setting `name` is the variable `SERF_HAPROXY_NAME`; the TOML file, named by
`SERF_HAPROXY_SETTINGS_FILE` or at its default place, has the key `name`. The environment wins.
"""

import dataclasses
import difflib
import itertools
import os
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from serf_haproxy.errors import SettingsError, SystemFault
from serf_haproxy.settings.values import DEFAULT_FILE, PREFIX, SETTINGS_FILE, SOCKET_BYTES, Settings, variable
from serf_haproxy.system.files import WRITTEN_BYTES, read_text
from serf_haproxy.system.kinds import Kind
from serf_haproxy.system.network import overlap


class Loaded(NamedTuple):
    """Settings, and where they come from.

    Attributes:
        settings: The settings.
        texts: Each of them as text, by name.
        origins: Where each comes from: a variable, a file, or "default".
        path: The settings file, "" for none.
    """

    settings: Settings
    texts: Mapping[str, str]
    origins: Mapping[str, str]
    path: str


def load_settings(environ: Mapping[str, str]) -> Settings:
    """Read all settings; an empty variable counts as unset.

    Raises:
        SettingsError: At least one is wrong; the text has one line for each fault.
    """
    return load_with_origins(environ).settings


def load_with_origins(environ: Mapping[str, str]) -> Loaded:
    """Read all settings, and say where each comes from; errors are those of `load_settings`."""
    faults: list[str] = []
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    path = _find_file(environ)
    from_file = _read_file(path, set(fields), faults)
    values, wrong, texts, origins = {}, set(), {}, {}
    for name, field in fields.items():
        text, origin = environ.get(variable(name), ""), variable(name)
        if not text and name in from_file:
            text, origin = from_file[name], f"{name} in {path}"
        texts[name], origins[name] = (text, origin) if text else (field.metadata["default"], "default")
        if not text:
            continue
        kind: Kind = field.metadata["kind"]
        try:
            values[name] = kind.read(text)
        except (ValueError, KeyError):
            wrong.add(name)
            faults.append(f"{origin}={text!a}: must be {kind.allowed}")
    settings = Settings(**values)
    faults += _list_conflicts(settings, wrong)
    if faults:
        raise SettingsError("\n".join(faults))
    return Loaded(settings, texts, origins, path)


_SOCKET_PARTS = ("master_socket", "haproxy_chroot")  # by which a socket of ours is named, without a chroot and with it


def _list_conflicts(settings: Settings, wrong: set[str]) -> list[str]:
    """Return the settings that do not fit each other; those that are wrong by themselves do not count."""
    faults = []
    if settings.max_wait_s < settings.quiet_s and wrong.isdisjoint({"max_wait_s", "quiet_s"}):
        allowed = f"must be at least {variable('quiet_s')} ({settings.quiet_s:g})"
        faults.append(f"{variable('max_wait_s')}={settings.max_wait_s:g}: {allowed}")
    if len(os.fsencode(settings.successor_socket)) > SOCKET_BYTES and wrong.isdisjoint(_SOCKET_PARTS):
        name = _SOCKET_PARTS[bool(settings.haproxy_chroot)]
        most = SOCKET_BYTES - len(os.fsencode(settings.successor_socket)) + len(os.fsencode(getattr(settings, name)))
        faults.append(f"{variable(name)}={getattr(settings, name)!a}: must be at most {most} bytes long")
    if settings.forwarded_for == "append" and not settings.trusted_proxies and "trusted_proxies" not in wrong:
        faults.append(
            f"{variable('forwarded_for')}=append: needs {variable('trusted_proxies')}, whose word is believed"
        )
    if settings.redirect_https and not settings.has_https and "https_bind" not in wrong:
        faults.append(f"{variable('redirect_https')}=on: needs {variable('https_bind')}, where clients then connect")
    return [*faults, *_find_shared_places(settings, wrong), *_check_web(settings, wrong)]


def _check_web(settings: Settings, wrong: Collection[str]) -> list[str]:
    """Return the fault of a web process that other machines reach and that asks for no token, if it is one."""
    if not settings.web_bind or settings.is_web_local or settings.web_token_file or "web_token_file" in wrong:
        return []
    needed = f"needs {variable('web_token_file')}, or an address of loopback such as 127.0.0.1:1940"
    return [f"{variable('web_bind')}={settings.web_bind}: {needed}"]


def _find_shared_places(settings: Settings, wrong: set[str]) -> Iterator[str]:
    """Yield a line for each two settings that name one listener or one directory, and must not."""
    # HAProxy would open both listeners, and clients would get the one or the other.
    for (name, taken), (other, bind) in itertools.combinations(settings.binds.items(), 2):
        if wrong.isdisjoint({name, other}) and overlap(bind, taken):
            yield f"{variable(other)}={bind}: {variable(name)} is there ({taken}); choose another port or address"
    # The daemon would take each copy for a further file of the operator's, and remove files for copies.
    if os.path.normpath(settings.certificates_dir) == os.path.normpath(settings.certificate_copies_dir):
        said = f"{variable('certificates_dir')} is this directory too; choose another one for the copies"
        yield f"{variable('certificate_copies_dir')}={settings.certificate_copies_dir}: {said}"


def unknown_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that look like settings of ours and are none, each with the nearest name that is one.

    The nearest name is "" where none is near.
    """
    known = {variable(field.name) for field in dataclasses.fields(Settings)} | {SETTINGS_FILE}
    unknown = sorted(name for name in environ if name.startswith(PREFIX) and name not in known)
    return {name: _find_nearest(name, known) for name in unknown}


def describe_unknown(environ: Mapping[str, str]) -> list[str]:
    """Return one line for each variable that looks like a setting of ours and is none."""
    return [
        f"{name}: there is no such setting; {f'did you mean {nearest}?' if nearest else 'see `serf-haproxy settings`'}"
        for name, nearest in unknown_variables(environ).items()
    ]


def _find_nearest(name: str, known: Iterable[str]) -> str:
    short = {each.removeprefix(PREFIX): each for each in sorted(known)}
    return next((short[each] for each in difflib.get_close_matches(name.removeprefix(PREFIX), short, 1, 0.7)), "")


def _find_file(environ: Mapping[str, str]) -> str:
    """Return the path of the settings file; "" where none is named and there is none at the default place."""
    return environ.get(SETTINGS_FILE, "") or (DEFAULT_FILE if os.path.exists(DEFAULT_FILE) else "")


def _read_file(path: str, known: set[str], faults: list[str]) -> dict[str, str]:
    if path in ("", os.devnull):
        return {}
    try:
        text = read_text(path, WRITTEN_BYTES)
        if text is None:
            raise SystemFault(f"there is no file {path}")
        table = tomllib.loads(text)
    except (SystemFault, ValueError, RecursionError) as error:
        said = "its tables are too deep" if isinstance(error, RecursionError) else error
        faults.append(f"{SETTINGS_FILE}={path!a}: {said}")
        return {}
    for name in table.keys() - known:
        nearest = _find_nearest(name, known)
        hint = f"; did you mean {nearest}?" if nearest else ""
        faults.append(f"{name!a} in {path}: there is no such setting{hint}")
    return {name: _as_text(value) for name, value in table.items()}


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
