#!/opt/webapp/bin/python -I
"""Check the health of this container's web application; exit 0 if it is healthy, 1 if not."""

import http.client
import ipaddress
import os
import sys

host = ipaddress.ip_address(os.environ.get("APP_HOST") or "0.0.0.0")  # noqa: S104 - the application's own default
if host.is_unspecified:
    host = ipaddress.ip_address("::1" if host.version == 6 else "127.0.0.1")
try:
    connection = http.client.HTTPConnection(str(host), int(os.environ.get("APP_PORT") or "3000"), timeout=3)
    connection.request("GET", "/health")
    is_healthy = connection.getresponse().status == 200
except (OSError, ValueError):  # the application says what is wrong with its port
    is_healthy = False
sys.exit(not is_healthy)
