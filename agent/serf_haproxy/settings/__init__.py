"""Settings: environment variables and an optional TOML file become one frozen, validated value."""

from serf_haproxy.settings.load import Loaded, describe_unknown, load_settings, load_with_origins, unknown_variables
from serf_haproxy.settings.values import DEFAULT_FILE, PREFIX, SETTINGS_FILE, SOCKET_BYTES, Settings, variable

__all__ = [
    "DEFAULT_FILE",
    "PREFIX",
    "SETTINGS_FILE",
    "SOCKET_BYTES",
    "Loaded",
    "Settings",
    "describe_unknown",
    "load_settings",
    "load_with_origins",
    "unknown_variables",
    "variable",
]
