"""Health check of the container: exit code 0 when the service answers 200 on /healthz, or on the path given."""

import http.client
import os
import sys

port = int(os.environ.get("TESSERA_PORT") or os.environ.get("PORT") or "8000")
path = sys.argv[1] if len(sys.argv) > 1 else "/healthz"
connection = http.client.HTTPConnection("127.0.0.1", port, timeout=4)
try:
    connection.request("GET", path)
    status = connection.getresponse().status
except (OSError, http.client.HTTPException) as error:
    sys.exit(f"{path} on port {port} did not answer: {error}")
if status != 200:
    sys.exit(f"{path} on port {port} answered {status}")
