"""The checks find what they are there for: each mistake is planted into the real resources."""

import copy
import shutil
import tempfile
import unittest
from pathlib import Path

import yaml
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
            manifests.scaled,
            manifests.hardened,
            manifests.of_workers,
            manifests.operators,
            manifests.brokers,
            manifests.encrypted,
            manifests.discovered,
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

    def test_a_deployment_that_keda_scales_and_that_has_replicas_is_found(self):
        self.of("Deployment")["spec"]["replicas"] = 2
        self.assert_found(
            manifests.scaled(self.documents), "llm-worker has replicas, which ScaledObject llm-worker owns"
        )

    def test_a_deployment_that_an_hpa_scales_and_that_has_replicas_is_found(self):
        scaler = self.of("ScaledObject")
        scaler["kind"] = "HorizontalPodAutoscaler"
        self.of("Deployment")["spec"]["replicas"] = 2
        self.assert_found(manifests.scaled(self.documents), "which HorizontalPodAutoscaler llm-worker owns")

    def test_an_autoscaler_of_nobody_is_found(self):
        self.of("ScaledObject")["spec"]["scaleTargetRef"]["name"] = "llm"
        self.assert_found(manifests.scaled(self.documents), "ScaledObject llm-worker scales llm, and there is no such")

    def test_a_patch_that_reaches_nothing_is_found(self):
        with tempfile.TemporaryDirectory() as folder:
            tree = Path(folder) / "k8s"
            shutil.copytree(ROOT / "k8s", tree)
            production = tree / "overlays/production/kustomization.yaml"
            document = yaml.safe_load(production.read_text())
            # The label is the pods', and not the Deployments' own.
            by_label = {"kind": "Deployment", "labelSelector": "app.kubernetes.io/component=worker"}
            document["patches"] = [{"target": by_label, "patch": '[{"op": "remove", "path": "/spec/replicas"}]'}]
            production.write_text(yaml.dump(document))
            self.assertEqual(
                list(manifests.patches(tree)),
                [f"overlays/production/kustomization.yaml: a patch reaches nothing: {by_label}"],
            )

    def test_a_secret_that_the_topology_operator_would_refuse_is_told(self):
        page = (ROOT / "docs/operations.md").read_text()
        self.assertEqual(list(manifests.secrets(self.documents, page)), [])
        without = page.replace(
            '**imported by the Topology Operator: with the label** `rabbitmq.com/topology-operator: "true"`',
            "**others**",
        )
        self.assert_found(
            manifests.secrets(self.documents, without),
            "does not say that llm-worker-rabbitmq bears the Topology Operator's label",
        )
        self.of("User")["spec"]["importCredentialsSecret"]["name"] = "llm"
        self.assert_found(manifests.secrets(self.documents, page), "does not list the Secret llm")

    def test_a_broker_that_may_lose_two_nodes_at_once_is_found(self):
        self.of("PodDisruptionBudget", "rabbitmq")["spec"]["maxUnavailable"] = 2
        self.assert_found(manifests.brokers(self.documents), "RabbitmqCluster rabbitmq has no PodDisruptionBudget")

    def test_a_program_without_tls_to_the_broker_is_found(self):
        self.pod()["containers"][0]["volumeMounts"].pop()
        self.assert_found(manifests.encrypted(self.documents), "Deployment llm-worker does not trust")
        del self.of("RabbitmqCluster", "rabbitmq")["spec"]["tls"]
        self.assert_found(manifests.encrypted(self.documents), "RabbitmqCluster rabbitmq has no certificate")
        self.of("NetworkPolicy", "rabbitmq")["spec"]["ingress"][0]["ports"].append({"port": 5672})
        self.assert_found(manifests.encrypted(self.documents), "lets ours in without TLS")

    def test_what_the_prometheus_operator_does_not_choose_is_found(self):
        del self.of("PodMonitor", "rabbitmq")["metadata"]["labels"]
        self.assert_found(manifests.discovered(self.documents), "PodMonitor rabbitmq has no label `release`")

    def test_an_alert_whose_link_leads_nowhere_is_found(self):
        rule = self.of("PrometheusRule", "jm-mq")["spec"]["groups"][0]["rules"][0]
        rule["annotations"]["runbook_url"] = "docs/runbooks.md#backlog-growing"
        self.assert_found(manifests.discovered(self.documents), "its runbook_url is docs/runbooks.md")

    def test_an_address_that_keda_does_not_resolve_is_found(self):
        self.of("ConfigMap", "keda-rabbitmq")["data"]["host"] = "http://rabbitmq:15672/%2f"
        self.assert_found(manifests.discovered(self.documents), "not to be found from KEDA's own namespace")

    def test_an_image_that_is_pulled_without_a_secret_is_found(self):
        del self.of("ServiceAccount")["imagePullSecrets"]
        self.assert_found(manifests.discovered(self.documents), "ServiceAccount llm-worker pulls images without")

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
