#!/opt/webapp/bin/python -I
"""Ask the web application of this container whether it is well; exit code 0 means that it is."""

import http.client
import ipaddress
import os
import sys

host = ipaddress.ip_address(os.environ.get("APP_HOST") or "0.0.0.0")  # noqa: S104 - the application's own default
if host.is_unspecified:
    host = ipaddress.ip_address("::1" if host.version == 6 else "127.0.0.1")
connection = http.client.HTTPConnection(str(host), int(os.environ.get("APP_PORT") or "3000"), timeout=3)
try:
    connection.request("GET", "/health")
    is_well = connection.getresponse().status == 200
except OSError:
    is_well = False
sys.exit(not is_well)
