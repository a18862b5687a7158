"""The checks find what they are there for: each mistake is planted into the real resources."""

import copy
import unittest

from jm_ops import manifests
from jm_ops.workers import ROOT

PRODUCTION = manifests.build(ROOT / "k8s/overlays/production")


class Planted(unittest.TestCase):
    def setUp(self):
        self.documents = copy.deepcopy(PRODUCTION)

    def of(self, kind, name="llm-worker"):
        return next(one for one in self.documents if one["kind"] == kind and one["metadata"]["name"] == name)

    def pod(self):
        return self.of("Deployment")["spec"]["template"]["spec"]

    def assert_found(self, mistakes, text):
        found = list(mistakes)
        self.assertTrue(any(text in mistake for mistake in found), f"{text!r} is not in {found}")

    def test_nothing_is_wrong_with_what_is_committed(self):
        for check in (
            manifests.schemas,
            manifests.selectors,
            manifests.reached,
            manifests.hardened,
            manifests.of_workers,
            manifests.operators,
        ):
            self.assertEqual(list(check(self.documents)), [])
        self.assertEqual([*manifests.components(), *manifests.sixth_worker()], [])

    def test_an_unknown_field_is_refused_in_a_deployment(self):
        self.of("Deployment")["spec"]["replica"] = 3
        self.assert_found(manifests.schemas(self.documents), "Deployment llm-worker")

    def test_an_unknown_field_is_refused_in_a_scaled_object(self):
        self.of("ScaledObject")["spec"]["minReplicas"] = 1
        self.assert_found(manifests.schemas(self.documents), "/spec/minReplicas is unknown")

    def test_a_wrong_type_is_refused_in_a_scaled_object(self):
        self.of("ScaledObject")["spec"]["minReplicaCount"] = "1"
        self.assert_found(manifests.schemas(self.documents), "minReplicaCount must be integer")

    def test_an_unknown_field_is_refused_in_a_rule(self):
        self.of("PrometheusRule", "jm-mq")["spec"]["groups"][0]["rules"][0]["labls"] = {}
        self.assert_found(manifests.schemas(self.documents), "labls is unknown")

    def test_an_unknown_field_is_refused_in_a_permission(self):
        self.of("Permission")["spec"]["permission"] = {}
        self.assert_found(manifests.schemas(self.documents), "Permission llm-worker")

    def test_an_empty_selector_fits_every_pod(self):
        self.of("PodDisruptionBudget")["spec"]["selector"] = {}
        self.assert_found(manifests.selectors(self.documents), "PodDisruptionBudget llm-worker selects the pods of")

    def test_pods_are_spread_by_their_own_labels(self):
        self.pod()["topologySpreadConstraints"][0]["labelSelector"] = {}
        self.assert_found(manifests.selectors(self.documents), "counts other pods")

    def test_a_worker_that_prometheus_does_not_find_is_told(self):
        del self.of("Deployment")["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/part-of"]
        self.assert_found(manifests.reached(self.documents), "PodMonitor jm-mq finds")

    def test_a_network_policy_that_is_about_nobody_is_told(self):
        self.of("NetworkPolicy", "engines")["spec"]["podSelector"]["matchLabels"] = {"jm-mq/egress-engines": "yes"}
        self.assert_found(manifests.reached(self.documents), "NetworkPolicy engines is about nobody")

    def test_a_pod_that_may_become_root_is_found(self):
        self.pod()["securityContext"]["runAsNonRoot"] = False
        self.assert_found(manifests.hardened(self.documents), "runAsNonRoot")

    def test_a_volume_of_the_host_is_found(self):
        self.pod()["volumes"].append({"name": "host", "hostPath": {"path": "/"}})
        self.assert_found(manifests.hardened(self.documents), "volumes of the standard")

    def test_a_missing_memory_limit_is_found(self):
        del self.pod()["containers"][0]["resources"]["limits"]
        self.assert_found(manifests.hardened(self.documents), "a memory limit")

    def test_a_grace_period_below_the_drain_is_found(self):
        self.pod()["terminationGracePeriodSeconds"] = 120
        self.assert_found(manifests.of_workers(self.documents), "not 30 s above drain_timeout (120 s)")

    def test_a_probe_that_asks_elsewhere_is_found(self):
        self.pod()["containers"][0]["readinessProbe"]["httpGet"]["path"] = "/ready"
        self.assert_found(manifests.of_workers(self.documents), "readinessProbe does not ask /health/ready")

    def test_a_secret_that_is_not_mounted_is_found(self):
        self.pod()["containers"][0]["env"].append({"name": "JM_SENTRY__DSN_FILE", "value": "/run/elsewhere/dsn"})
        self.assert_found(manifests.of_workers(self.documents), "JM_SENTRY__DSN_FILE is outside")

    def test_an_operator_who_may_not_mend_a_worker_is_told(self):
        permissions = self.of("Permission", "jm")["spec"]["permissions"]
        permissions["read"] = permissions["write"] = "^jm\\.(coreRecordEvent|sd|asr|embed)(\\.dead)?$"
        found = list(manifests.operators(self.documents))
        self.assertIn("jm may not publish to jm.llm", found)
        self.assertIn("jm may not take from jm.llm.dead", found)
        self.assertIn("jm may read jm.asr", found)

    def test_an_operator_who_may_delete_a_queue_is_found(self):
        self.of("Permission", "jm")["spec"]["permissions"]["configure"] = ".*"
        self.assert_found(manifests.operators(self.documents), "jm may configure jm.llm.dead")

    def test_who_only_looks_and_may_take_is_found(self):
        self.of("Permission", "jm-viewer")["spec"]["permissions"]["read"] = "dead"
        self.assert_found(manifests.operators(self.documents), "jm-viewer may read what belongs to jm.llm")

    def test_an_operator_without_the_management_api_is_found(self):
        del self.of("User", "jm-viewer")["spec"]["tags"]
        self.assert_found(manifests.operators(self.documents), "jm-viewer: its tags are None")


if __name__ == "__main__":
    unittest.main()
