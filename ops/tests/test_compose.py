"""The checks of docker-compose.yml find what they are there for: each mistake is planted into the real services."""

import copy
import tempfile
import unittest

import yaml
from jm_ops import compose
from jm_ops.workers import ROOT


def real():
    with tempfile.NamedTemporaryFile("w") as env:
        env.write((ROOT / ".env.example").read_text().replace("PASSWORD=\n", "PASSWORD=checked\n"))
        env.flush()
        return compose.services("http", env.name)


SERVICES = real()


class Planted(unittest.TestCase):
    def setUp(self):
        self.known = copy.deepcopy(SERVICES)
        self.worker = self.known["llm-worker"]

    def assert_told(self, text):
        found = [*compose.of_every(self.known), *compose.of_workers(self.known)]
        self.assertTrue(any(text in mistake for mistake in found), f"{text!r} is not in {found}")

    def test_nothing_is_wrong_with_what_is_committed(self):
        self.assertEqual([*compose.of_every(self.known), *compose.of_workers(self.known)], [])

    def test_a_worker_without_a_health_check_or_with_anothers_is_told(self):
        self.worker["healthcheck"]["test"][1] = "/usr/local/bin/asr-worker"
        self.assert_told("llm-worker lacks a health check by its own binary")
        del self.worker["healthcheck"]
        self.assert_told("llm-worker has no health check")

    def test_a_start_that_does_not_wait_for_the_broker_is_told(self):
        self.worker["depends_on"]["rabbitmq"]["condition"] = "service_started"
        self.assert_told("llm-worker lacks a start after its healthy servers")

    def test_a_port_for_everybody_is_told(self):
        self.known["rabbitmq"]["ports"][0]["host_ip"] = "192.0.2.1"
        self.assert_told("rabbitmq publishes a port to other machines")

    def test_a_worker_that_is_missing_or_not_scraped_is_told(self):
        self.known["llm-worker-2"] = self.known.pop("llm-worker")
        self.assert_told("llm-worker-2 lacks a name that Prometheus asks for")
        del self.known["llm-worker-2"]
        self.assert_told("llm-worker is there 0 times")

    def test_a_missing_memory_limit_is_told(self):
        del self.known["grafana"]["deploy"]["resources"]
        self.assert_told("grafana has no memory limit")

    def test_the_broker_is_given_its_policies_and_its_user(self):
        targets = {one["target"] for one in self.known["rabbitmq"]["volumes"]}
        self.assertIn("/etc/rabbitmq/definitions/20-jm-mq.json", targets)
        (user,) = self.known["rabbitmq"]["configs"]
        self.assertEqual(user["target"], "/etc/rabbitmq/definitions/10-user.json")

    def test_prometheus_tells_alertmanager(self):
        prometheus = yaml.safe_load((ROOT / "ops/prometheus/prometheus.yaml").read_text())
        (manager,) = prometheus["alerting"]["alertmanagers"]
        (target,) = manager["static_configs"][0]["targets"]
        self.assertIn(target.split(":")[0], self.known)


if __name__ == "__main__":
    unittest.main()
