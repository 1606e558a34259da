"""Keeps a depth in the durable queue: hands over what is missing of it, for users who are not there.

In: the API of a node. Out: entries by `POST /v1/queue`, as fast as the nodes work them off. The generator of
`fanfare bench` receives what it sent, which costs it more than it costs the nodes to move it: on a small
machine it is slower than they are, and nothing would ever wait.
"""

import json
import threading
import time
import urllib.request

from control_plane import Fault

LIST = 1000
USERS = 2000
LOOK_S = 0.1


class Feeder:
    def __init__(self, urls, key, depth):
        self.urls, self.key, self.depth = urls, key, depth
        self.sent = 0
        self.fault = None
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(url,), daemon=True) for url in urls]

    def start(self):
        for thread in self.threads:
            thread.start()

    def stop(self):
        self.ended.set()
        for thread in self.threads:
            thread.join()

    def run(self, url):
        try:
            while not self.ended.is_set():
                # Asked of Redis: what heartbeats told is up to a second old.
                seen = self.ask(url + "/v1/queue?partitions=true")["partitions"]
                missing = self.depth - sum(sum(one["due"].values()) for one in seen)
                if missing < LIST:
                    time.sleep(LOOK_S)
                for _ in range(missing // LIST // len(self.urls)):
                    self.hand_over(url)
        except Exception as error:  # whoever judges looks at it
            self.fault = error

    def hand_over(self, url):
        entries = [{"user": f"absent-{(self.sent + number) % USERS}", "data": {"number": self.sent + number}}
                   for number in range(LIST)]
        answers = self.ask(url + "/v1/queue", entries)
        refused = [one for one in answers["results"] if "entry" not in one["results"][0]]
        if refused:
            raise Fault(f"not taken: {refused[0]}")
        self.sent += LIST

    def ask(self, url, body=None):
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)
