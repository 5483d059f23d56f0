"""The chart renders, its objects are what Kubernetes takes, and what they say is what the service understands."""

import json
import os
import shutil
import subprocess
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from ringbearer.api.app import HANDLERS as API
from ringbearer.cli.main import app
from ringbearer.dashboard.app import HANDLERS as PAGES
from ringbearer.settings import Settings, load

CHART = Path(__file__).parents[2] / "ops" / "helm" / "ringbearer"
GIVEN = {
    "secret.databaseUrl": "postgresql://ringbearer:secret@postgres/ringbearer",
    "secret.secretKey": "A" * 43 + "=",
    "secret.adminKey": "rb_only-for-tests-0123456789",
    "secret.scalingKey": "rb_scaling-only-for-tests",
}
KUBERNETES = "1.31"
VERSION = f"--kube-version={KUBERNETES}.0"


@pytest.fixture(scope="module")
def helm() -> str:
    """The program; it is built where Go is at hand (`.ci/run`), and skipped elsewhere."""
    found = shutil.which("helm") or shutil.which("helm", path=os.path.expanduser("~/.cache/ringbearer/bin"))
    if found is None:
        if os.environ.get("CI") and shutil.which("go"):
            pytest.fail("helm is not there although Go is; .ci/run builds it")
        pytest.skip("helm is not installed; with Go: go install helm.sh/helm/v3/cmd/helm@latest")
    return found


def render(helm: str, *arguments: str, **given: str) -> list[dict[str, Any]]:
    """Every object that the chart makes of these values."""
    sets = [f"--set={name}={value}" for name, value in (GIVEN | given).items()]
    done = subprocess.run(
        [helm, "template", "season", str(CHART), "--namespace=webhooks", VERSION, *sets, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def of(objects: list[dict[str, Any]], kind: str, name: str = "") -> dict[str, Any]:
    (found,) = (o for o in objects if o["kind"] == kind and o["metadata"]["name"].endswith(name))
    return found


VARIANTS: dict[str, dict[str, str]] = {
    "keda": {},
    "hpa": {"scaling.kind": "hpa"},
    "none": {"scaling.kind": "none"},
    "ingress": {"ingress.enabled": "true", "ingress.tlsSecret": "hooks-tls", "ingress.className": "nginx"},
    "everything": {
        "secret.redisUrl": "rediss://:pw@redis:6379",
        "caSecret": "store-ca",
        "settings.RINGBEARER_RETENTION_DAYS": "60",
        "imagePullSecrets[0].name": "registry",
        "networkPolicy.from[0].namespaceSelector.matchLabels.name": "shop",
    },
    "existing secret": {"existingSecret": "ours"},
}


def test_helm_finds_nothing_wrong(helm: str) -> None:
    sets = [f"--set={name}={value}" for name, value in GIVEN.items()]
    done = subprocess.run(
        [helm, "lint", "--strict", VERSION, str(CHART), *sets], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_object_is_one_that_kubernetes_takes(helm: str, variant: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it imports
        import kubernetes_validate

    for made in render(helm, **VARIANTS[variant]):
        if made["apiVersion"].startswith("keda.sh/"):
            continue  # its shape is looked at below: no package ships its schema
        kubernetes_validate.validate(made, KUBERNETES, strict=True)


def test_processes_run_commands_and_settings_that_there_are(helm: str) -> None:
    objects = render(helm, **VARIANTS["everything"])
    containers = [
        container
        for made in objects
        if made["kind"] in {"Deployment", "Job"}
        for container in made["spec"]["template"]["spec"]["containers"]
    ]
    assert {container["args"][0] for container in containers} == {"serve", "work", "migrate"}
    secret = of(objects, "Secret")["stringData"]
    for container in containers:
        assert container["args"][0] in list(app)
        environment = {}
        for variable in container["env"]:
            name = variable["name"].removeprefix("RINGBEARER_").lower()
            assert name in Settings.__struct_fields__
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            environment[variable["name"]] = (
                variable["value"] if reference is None else secret[reference["key"]]
            )
        settings = load(environ=environment)
        assert settings.retention_days == 60
        assert settings.vault_keys() == ["A" * 43 + "="]
        assert settings.redis_url is not None


def test_the_ingress_publishes_all_that_asks_for_a_key_and_nothing_else(helm: str) -> None:
    (rule,) = of(render(helm, **VARIANTS["ingress"]), "Ingress")["spec"]["rules"]
    published = {path["path"].removeprefix("/") for path in rule["http"]["paths"]}
    assert published == {path.split("/")[1] for handler in [*API, *PAGES] for path in handler.paths}
    assert not published & {"metrics", "health"}


def test_a_process_has_time_to_end_in_order(helm: str) -> None:
    for made in render(helm, **{"worker.stopGraceSeconds": "30"}):
        if made["kind"] == "Deployment":
            pod = made["spec"]["template"]["spec"]
            grace = {v["name"]: v.get("value") for v in pod["containers"][0]["env"]}["RINGBEARER_STOP_GRACE"]
            assert pod["terminationGracePeriodSeconds"] >= float(grace) + 10


def test_keda_reads_what_the_api_answers(helm: str) -> None:
    """The trigger's address, key, field and target are those that `tests/api/test_api_scaling.py` reckons with."""
    objects = render(helm)
    scaled, service = of(objects, "ScaledObject"), of(objects, "Service")
    worker = of(objects, "Deployment", "-worker")
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["type"] == "metrics-api"
    assert trigger["metadata"]["url"] == (
        f"http://{service['metadata']['name']}.webhooks.svc:{service['spec']['ports'][0]['port']}/v1/scaling"
    )
    assert trigger["metadata"]["valueLocation"] == "desired_workers"
    assert (trigger["metadata"]["targetValue"], trigger["metricType"]) == ("1", "AverageValue")
    assert scaled["spec"]["scaleTargetRef"]["name"] == worker["metadata"]["name"]
    assert "replicas" not in worker["spec"]  # else each upgrade would set the number back
    authentication = of(objects, "TriggerAuthentication")
    assert trigger["authenticationRef"]["name"] == authentication["metadata"]["name"]
    (reference,) = authentication["spec"]["secretTargetRef"]
    assert (reference["parameter"], reference["key"]) == ("token", "scaling-key")
    assert reference["key"] in of(objects, "Secret")["stringData"]


def test_the_autoscaler_reads_the_metric_that_there_is(helm: str) -> None:
    objects = render(helm, **VARIANTS["hpa"])
    (metric,) = of(objects, "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert metric["external"]["metric"]["name"] == "ringbearer_workers_wanted"
    assert metric["external"]["target"] == {"type": "AverageValue", "averageValue": "1"}
    assert not any(made["apiVersion"].startswith("keda") for made in objects)


def test_services_and_budgets_select_the_pods_that_there_are(helm: str) -> None:
    objects = render(helm)
    labels = {
        made["metadata"]["name"]: made["spec"]["template"]["metadata"]["labels"]
        for made in objects
        if made["kind"] == "Deployment"
    }
    selected = of(objects, "Service")["spec"]["selector"]
    assert [name for name, on in labels.items() if selected.items() <= on.items()] == [
        "season-ringbearer-api"
    ]
    budgets = [m["spec"]["selector"]["matchLabels"] for m in objects if m["kind"] == "PodDisruptionBudget"]
    assert len(budgets) == 2
    for budget in budgets:
        assert sum(budget.items() <= on.items() for on in labels.values()) == 1


@pytest.mark.parametrize("missing", ["secret.databaseUrl", "secret.secretKey", "secret.adminKey"])
def test_what_must_be_given_is_asked_for(helm: str, missing: str) -> None:
    with pytest.raises(AssertionError, match=missing):
        render(helm, **{missing: ""})


def test_no_secret_stands_outside_of_secrets(helm: str) -> None:
    for made in render(helm, **VARIANTS["everything"]):
        if made["kind"] != "Secret":
            text = json.dumps(made)
            assert not any(value in text for name, value in GIVEN.items() if name.startswith("secret."))
