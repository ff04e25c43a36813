"""Local stand-ins for W&B's server: one that takes a run and keeps what it is sent, and ones that fail."""

import json
import re
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VIEWER = {"id": "u", "entity": "e", "username": "e", "flags": "{}", "teams": {"edges": []}, "apiKeys": {"edges": []}}


class Refuse(BaseHTTPRequestHandler):
    """A server that is there, and to which every key is wrong."""

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def do_GET(self):
        self.send_response(401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_): ...


class Stall(Refuse):
    """A server that is there, and never answers what matters."""

    def do_POST(self):
        time.sleep(40)


@contextmanager
def serving(handler):
    """A server with this handler in a thread; yields it."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.received, server.asked = {}, []
        server.daemon_threads, server.block_on_close = True, False
        server.handle_error = lambda *_: None  # clients that are killed
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Answer(Refuse):
    """The least of a W&B server: takes one run and keeps what it is sent."""

    protocol_version = "HTTP/1.1"
    stalls = False  # whether to fall silent once the run is open

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = {}
        if self.path == "/graphql":
            request = json.loads(body)
            name = request.get("operationName") or re.search(r"(?:query|mutation)\s+(\w+)", request["query"])[1]
            variables = request.get("variables", {})
            answer = {"data": self.answers(variables).get(name, {})}
            self.server.asked.append((name, variables))
        elif "file_stream" in self.path:
            if self.stalls:
                time.sleep(30)
            for file, chunk in json.loads(body).get("files", {}).items():
                self.server.received.setdefault(file, []).extend(chunk["content"])
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_PUT = do_POST

    def answers(self, variables):
        project = {"id": "p", "name": "p", "entity": {"id": "e", "name": "e"}}
        host, port = self.server.server_address
        files = [{"name": name, "uploadUrl": f"http://{host}:{port}/file"} for name in variables.get("files", [])]
        return {
            "RunResumeStatus": {"model": {**project, "bucket": None}},
            "ServerFeaturesQuery": {"serverInfo": {"features": []}},
            "UpsertBucket": {
                "upsertBucket": {
                    "inserted": True,
                    "bucket": {
                        "id": "r",
                        "name": variables.get("name"),
                        "displayName": "n",
                        "config": "{}",
                        "project": project,
                        "historyLineCount": 0,
                    },
                }
            },
            "Viewer": {"viewer": VIEWER},
            "GetDefaultEntity": {"viewer": VIEWER},
            "UpsertView2": {"upsertView": {"view": {"id": "v", "name": variables.get("name")}, "inserted": True}},
            "CreateArtifact": {
                "createArtifact": {
                    "artifact": {
                        "id": "a",
                        "state": "COMMITTED",
                        "artifactSequence": {"id": "s", "latestArtifact": None},
                    }
                }
            },
            "CreateRunFiles": {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}},
        }


class Stalling(Answer):
    stalls = True


def history(server) -> list[dict]:
    """The points a server has been sent."""
    return [json.loads(line) for line in server.received.get("wandb-history.jsonl", [])]
