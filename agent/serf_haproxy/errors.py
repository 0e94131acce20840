"""The exception tree.

    SerfHaproxyError
    ├── InputError        wrong input: a person must change it (exit code 100)
    │   ├── SettingsError     one or more settings; all faults at once
    │   └── TemplateError     the template, with its line
    └── SystemFault       a failure outside, which may heal by itself (exit code 111)
        ├── SerfFault         the Serf agent's RPC does not answer as its protocol says
        │   ├── SerfAway          it cannot be reached: the Serf agent may not have started yet
        │   ├── SerfRefusal       it is there, and refuses what it was asked, as without its key
        │   └── SerfSilence       it is there, and no answer comes: the process may be frozen
        └── HaproxyFault      HAProxy, its program or one of its sockets does not answer as expected
            └── HaproxySilence    a socket is open, and no answer comes: the process may be frozen

Exit codes follow s6: 100 for wrong usage, 111 for a failed system call.
"""

EXIT_INPUT = 100
EXIT_SYSTEM = 111


class SerfHaproxyError(Exception):
    """Base of all our exceptions; its text is one line that names the thing, the place and the remedy."""

    exit_code = EXIT_SYSTEM


class InputError(SerfHaproxyError):
    """The input is wrong; a person must change it."""

    exit_code = EXIT_INPUT


class SettingsError(InputError):
    """One or more settings are wrong; the text has one line for each."""


class TemplateError(InputError):
    """The template cannot be rendered; the text names the file and the line."""


class SystemFault(SerfHaproxyError):
    """Something outside of this program failed; it may heal by itself."""


class SerfFault(SystemFault):
    """The Serf agent's RPC does not answer as its protocol says."""


class SerfAway(SerfFault):
    """The Serf agent's RPC cannot be reached: the Serf agent may not have started yet."""


class SerfRefusal(SerfFault):
    """The Serf agent's RPC refuses a command: it is there, and may want another key."""


class SerfSilence(SerfFault):
    """The Serf agent's RPC takes a connection, and no answer comes: the process may be frozen."""


class HaproxyFault(SystemFault):
    """HAProxy, its program or one of its sockets does not answer as expected."""


class HaproxySilence(HaproxyFault):
    """A socket of HAProxy's is open, and no answer comes: the process may be frozen."""
