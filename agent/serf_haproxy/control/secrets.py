"""Services whose files of secrets are missing or wrong."""

import dataclasses
from collections.abc import Collection

from serf_haproxy.control.rules import read_secret_file
from serf_haproxy.errors import SystemFault
from serf_haproxy.services.file import Services, Table
from serf_haproxy.services.service import Service
from serf_haproxy.settings import Settings, variable

PROOF, COOKIE = "proof_secret_file", "cookie_secret_file"


def find_origin(service: Service, key: str, settings: Settings) -> str:
    """Return where an operator changes what a service has: in its table, or in the setting that it inherits."""
    return service.where(key) if getattr(service, key) != getattr(settings, key) else variable(key)


def leave_out(services: Services, known: Collection[str], settings: Settings) -> Services:
    """Return the services without those that are new and lack a secret.

    What was in force before stays: without its secret nothing is changed (`read_rules`, `add_cookie_keys`).

    Args:
        services: The services.
        known: The names of those that were in force before.
        settings: The settings.
    """
    faults: dict[str, list[str]] = {}
    for service in services.listed:
        if not service.is_default and service.name not in known and (wrong := _find_faults(service, settings)):
            where = f"{settings.services_file}: [{service.name}]"
            faults[service.name] = [f"{where} {key} = {fault}; it is left out" for key, fault in wrong.items()]
    if not faults:
        return services
    return services._replace(
        listed=tuple(service for service in services.listed if service.name not in faults),
        faults=(*services.faults, *(line for lines in faults.values() for line in lines)),
        tables={name: table for name, table in services.tables.items() if name not in faults},
    )


def find_wrong_secret(name: str, table: Table) -> str:
    """Return what is wrong with a file of secrets that a table itself names, with its key first; "" for nothing."""
    for key in (PROOF, COOKIE) if table.get("cookie") else (PROOF,):
        try:
            read_secret_file(table.get(key, ""), f"{key} of service {name}")
        except SystemFault as error:
            return f"{key} = {error}"
    return ""


def ignore_missing(services: Services, settings: Settings) -> Services:
    """Return the services without their secrets that are missing, and with faults that say so: only to be shown."""
    listed: list[Service] = []
    faults: dict[str, None] = {}
    for service in services.listed:
        shown, wrong = service, _find_faults(service, settings)
        if PROOF in wrong:
            then = "until then nothing is changed; members are shown here as if they needed no proof"
            faults[f"{wrong[PROOF]}; {then}"] = None
            shown = dataclasses.replace(shown, proof_secret_file="")
        if COOKIE in wrong:
            faults[f"{wrong[COOKIE]}; until then nothing is changed"] = None
            shown = dataclasses.replace(shown, cookie_secret_file="")
        listed.append(shown)
    return services._replace(listed=tuple(listed), faults=(*services.faults, *faults))


def _find_faults(service: Service, settings: Settings) -> dict[str, str]:
    """Return what is wrong with the files of secrets that a service names, by key."""
    faults = {}
    for key in (PROOF, COOKIE) if service.cookie else (PROOF,):
        try:
            read_secret_file(getattr(service, key), find_origin(service, key, settings))
        except SystemFault as error:
            faults[key] = str(error)
    return faults
