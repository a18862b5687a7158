"""How commands are found in the runbooks, and what stands in for a cluster refuses what a cluster would not do."""

import contextlib
import io
import tempfile
import unittest
from pathlib import Path

from jm_ops.scenario.cluster import Cluster, RefusedError, Stand
from jm_ops.scenario.runbooks import commands
from jm_ops.workers import ROOT

DOCUMENTS = [
    {
        "kind": "Deployment",
        "metadata": {"name": "llm-worker"},
        "spec": {"template": {"metadata": {"labels": {"app.kubernetes.io/name": "llm-worker"}}}},
    },
    {
        "kind": "Deployment",
        "metadata": {"name": "jm-operator"},
        "spec": {"replicas": 0, "template": {"metadata": {"labels": {"app.kubernetes.io/name": "jm"}}}},
    },
    {
        "kind": "ScaledObject",
        "metadata": {"name": "llm-worker"},
        "spec": {"scaleTargetRef": {"name": "llm-worker"}},
    },
    {"kind": "RabbitmqCluster", "metadata": {"name": "rabbitmq"}, "spec": {"replicas": 3}},
]


class Runbooks(unittest.TestCase):
    def setUp(self):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.stand = Stand(folder, DOCUMENTS)
        self.stand.program("rabbitmq", "rabbitmqctl", ["true"], {})
        self.folder = folder

    def kubectl(self, text):
        with contextlib.redirect_stdout(io.StringIO()):
            return Cluster(self.folder).run(text.split())

    def assert_refused(self, text, why):
        with self.assertRaisesRegex(RefusedError, why):
            self.kubectl(text)

    def test_blocks_and_inline_code_are_found_and_words_are_not(self):
        text = "```sh\njm() { kubectl exec x; }\njm dead \\\n  list\n```\n`jm.llm`, `jm`, `rabbitmqctl\nlist_queues`, `kubectl`, `JM_X=1`\n"
        self.assertEqual(commands(text), ("jm() { kubectl exec x; }", ["jm dead    list", "rabbitmqctl list_queues"]))

    def test_the_page_has_commands_for_dead_letters_pauses_and_backups(self):
        _, found = commands((ROOT / "docs/runbooks.md").read_text())
        for part in (
            "jm dead list",
            "jm dead replay jm.llm --canary",
            "jm dead drop",
            "paused-replicas=0",
            "pg_restore",
        ):
            self.assertTrue(any(part in one for one in found), part)

    def test_what_keda_scales_is_not_scaled_by_hand(self):
        self.assert_refused(
            "-n jm-mq scale deployment/llm-worker --replicas=0", "KEDA undoes the scaling of llm-worker"
        )
        self.assertEqual(self.kubectl("-n jm-mq scale deployment/jm-operator --replicas=1"), 0)

    def test_a_pause_is_heard_of(self):
        self.kubectl("-n jm-mq annotate scaledobject llm-worker autoscaling.keda.sh/paused-replicas=0")
        self.assertEqual(self.stand.told(), [["llm-worker", "autoscaling.keda.sh/paused-replicas=0"]])
        self.assertEqual(self.stand.told(), [])
        self.assert_refused("-n jm-mq annotate scaledobject llm-worker keda.sh/paused=0", "KEDA knows no annotation")

    def test_what_the_manifests_do_not_have_is_refused(self):
        self.assert_refused("get pods", "the namespace is jm-mq")
        self.assert_refused("-n jm-mq get pods -l app.kubernetes.io/name=ocr-worker", "no pod has")
        self.assert_refused("-n jm-mq rollout restart deployment/ocr-worker", "there is no Deployment ocr-worker")
        self.assert_refused(
            "-n jm-mq exec rabbitmq-server-3 -- rabbitmqctl status", "there is no pod rabbitmq-server-3"
        )
        self.assert_refused("-n jm-mq exec deployment/llm-worker -- sh", "the image of llm-worker has no sh")
        self.assert_refused("-n jm-mq delete pod x", "no runbook has needed")

    def test_what_is_executed_ends_as_it_ends(self):
        self.assertEqual(self.kubectl("-n jm-mq exec rabbitmq-server-0 -- rabbitmqctl status"), 0)
        self.stand.program("rabbitmq", "rabbitmqctl", ["false"], {})
        self.assertEqual(self.kubectl("-n jm-mq exec rabbitmq-server-0 -- rabbitmqctl status"), 1)


if __name__ == "__main__":
    unittest.main()
