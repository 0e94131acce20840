"""A client that makes requests at a constant rate, each on a new connection, and knows which node has answered."""

import collections
import http.client
import threading
import time


class Client(threading.Thread):
    """Makes requests at a constant rate; notes the first and the last answer of each node, and what was lost."""

    def __init__(self, port: int, rate: float) -> None:
        super().__init__(daemon=True)
        self._port, self._rate = port, rate
        self._is_over = threading.Event()
        self.first_s: dict[str, float] = {}
        self.last_s: dict[str, float] = {}
        self.count = 0
        self.lost: collections.Counter[str] = collections.Counter()

    def run(self) -> None:
        """Make requests until it is closed."""
        due_s = time.monotonic()
        while not self._is_over.wait(max(0.0, due_s - time.monotonic())):
            due_s = max(due_s + 1 / self._rate, time.monotonic())
            self.count += 1
            started_s = time.monotonic()
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
            try:
                connection.request("GET", "/", headers={"Connection": "close"})
                answer = connection.getresponse()
                answer.read()
                address = answer.getheader("X-Backend-IP", "")
                if answer.status != 200 or not address:
                    self.lost[str(answer.status)] += 1
                    continue
                self.first_s.setdefault(address, time.monotonic())
                self.last_s[address] = started_s
            except (OSError, http.client.HTTPException) as error:
                self.lost[type(error).__name__] += 1
            finally:
                connection.close()

    def close(self) -> None:
        """Stop."""
        self._is_over.set()
        self.join(20)
