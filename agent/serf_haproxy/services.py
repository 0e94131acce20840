"""The services that clients want: each is one `backend` section of HAProxy's configuration.

There is one implicit service today, which gets the servers of all admitted members.
"""

DEFAULT_SERVICE = "nodes"  # the name of the built-in template's section
