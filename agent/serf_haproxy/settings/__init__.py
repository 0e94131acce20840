"""Settings: environment variables and an optional TOML file become one frozen, validated value."""

from serf_haproxy.settings.load import load_settings, unknown_variables
from serf_haproxy.settings.values import PREFIX, SETTINGS_FILE, SOCKET_BYTES, Settings, variable

__all__ = ["PREFIX", "SETTINGS_FILE", "SOCKET_BYTES", "Settings", "load_settings", "unknown_variables", "variable"]
