"""The service over real connections."""

import json
import threading
import unittest
from http.client import HTTPConnection

from app.server import create_server


class ServerTest(unittest.TestCase):
    def setUp(self) -> None:
        self.server = create_server(0)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()
        host, port = self.server.server_address[:2]
        self.connection = HTTPConnection(str(host), port, timeout=10)

    def tearDown(self) -> None:
        self.connection.close()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def call(self, method: str, path: str, body: str | None = None) -> tuple[int, dict]:
        self.connection.request(method, path, body)
        response = self.connection.getresponse()
        return response.status, json.loads(response.read())

    def test_health_says_that_the_service_is_up(self) -> None:
        status, body = self.call("GET", "/health")
        self.assertEqual((status, body["status"]), (200, "ok"))

    def test_an_unknown_path_is_not_found(self) -> None:
        self.assertEqual(self.call("GET", "/nowhere")[0], 404)

    def test_a_method_that_a_path_does_not_offer_is_not_allowed(self) -> None:
        self.assertEqual(self.call("POST", "/health")[0], 405)

    def test_a_body_that_is_not_json_is_refused(self) -> None:
        self.assertEqual(self.call("POST", "/health", "{")[0], 400)


if __name__ == "__main__":
    unittest.main()
