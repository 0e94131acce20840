"""ACT: HAProxy's sockets, its configuration file and its workers."""
