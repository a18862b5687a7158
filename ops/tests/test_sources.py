"""What dashboards and alerts are made of."""

import json
import unittest

from jm_ops import promql
from jm_ops.alerts import alerts
from jm_ops.dashboards import dashboards
from jm_ops.expressions import metric_names
from jm_ops.scenario.findings import NOT_PROVOKED, base, of_alerts, of_cardinality, of_names
from jm_ops.scenario.story import Phase
from jm_ops.workers import seconds, workers

PHASES = [Phase("calm", 0, 100), Phase("failure", 100, 200)]


class Prometheus:
    """Has data for what `true_in` says: an expression's part, and from when to when."""

    def __init__(self, **true_in):
        self.true_in = true_in

    def range(self, expr, begin, end):
        return (
            [1]
            if any(part in expr and first < end and last > begin for part, (first, last) in self.true_in.items())
            else []
        )

    def names(self, job):
        return {"jm_mq_workers", "jm_mq_new_total"} if job == "jm-mq" else set()


class Sources(unittest.TestCase):
    def test_durations_are_read_as_the_configuration_writes_them(self):
        for text, expected in (("500ms", 0.5), ("25s", 25), ("14m", 840), ("1h 30m", 5400)):
            self.assertEqual(seconds(text), expected)
        with self.assertRaises(ValueError):
            seconds("soon")

    def test_the_five_workers_and_their_queues_are_found(self):
        queues = {worker.name: worker.queue for worker in workers()}
        self.assertEqual(queues["record-event-worker"], "jm.coreRecordEvent")
        self.assertEqual(len(queues), 5)

    def test_every_grace_period_is_above_the_drain(self):
        for worker in workers():
            self.assertGreater(worker.grace_period, worker.drain_timeout)

    def test_metric_names_are_found_in_nested_expressions(self):
        names = metric_names(promql.slope("10m", 'queue="jm.llm"') + " > 0 or absent(up == 0)")
        self.assertEqual(names, {"jm_mq_queue_messages_ready", "jm_mq_consumer_ready", "up"})

    def test_a_histograms_parts_are_its_own(self):
        self.assertEqual(base("jm_mq_handler_seconds_bucket"), "jm_mq_handler_seconds")
        self.assertEqual(base("jm_mq_deliveries_total"), "jm_mq_deliveries_total")

    def test_no_two_panels_overlap_and_each_describes_itself(self):
        for name, text in dashboards(workers()).items():
            taken = set()
            for panel in json.loads(text)["panels"]:
                place = panel["gridPos"]
                cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
                self.assertFalse(cells & taken, f"{name}: {panel['title']}")
                taken |= cells
                self.assertTrue(panel["type"] == "row" or panel["description"].startswith("Good: "), panel["title"])

    def test_an_alert_that_is_true_in_the_calm_or_never_is_told(self):
        rules = [
            one for one in alerts(workers()) if one.name in ("JmMqDeadLetters", "JmMqNackRate", "JmMqReconnectLoop")
        ]
        always, never = (0, 200), (300, 400)
        prometheus = Prometheus(dead_letter=always, nacks=never, reconnects=(120, 130))
        self.assertEqual(
            list(of_alerts(prometheus, rules, PHASES)),
            ["JmMqDeadLetters: true while all is calm", "JmMqNackRate: never true"],
        )

    def test_what_is_not_provoked_is_an_alert(self):
        self.assertLessEqual(NOT_PROVOKED.keys(), {one.name for one in alerts(workers())})

    def test_a_metric_that_nobody_shows_and_one_that_does_not_exist_are_told(self):
        told = "\n".join(of_names(Prometheus(), alerts(workers())))
        self.assertIn("jm_mq_new_total exists, and is neither", told)
        self.assertIn("jm_mq_deliveries_total is named and does not exist", told)

    def test_series_that_grow_with_messages_are_told(self):
        self.assertEqual(list(of_cardinality({"before": 600, "after": 600}, 10_000)), [])
        self.assertEqual(len(list(of_cardinality({"before": 600, "after": 601}, 10_000))), 1)


if __name__ == "__main__":
    unittest.main()
