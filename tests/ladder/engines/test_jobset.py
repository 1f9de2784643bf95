"""JobSets and Kueue's queues: what their own schemas take, what each exit leads to, and the slices of a schedule."""

import functools
import json
import pathlib
import re
import shlex
import subprocess

import jsonschema
import pytest
import yaml

from ladder import config_file
from ladder.config import Mesh, Training
from ladder.engines import jobset
from ladder.engines.jobset import Order
from ladder.engines.schedule import Given, Schedule
from ladder.training.preemption import EXIT_CODE

CRDS = json.loads((pathlib.Path(__file__).parent / "data" / "crds.json").read_text())
MANUAL = pathlib.Path(__file__).parents[3] / "docs" / "cloud.md"


def _order(**changes):
    told = {"name": "tiny", "config": "name: tiny\n", "training": Training(), "workdir": "gs://bucket/w"}
    machines = {"v5p:2x2x1": 8, "v5p:2x2x4": 2}
    return Order(**told | {"machines": machines, "slices": machines, "image": "img:1"} | changes)


def _strict(schema):
    """The same, refusing what it does not name: a cluster drops that without a word."""
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: _strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        strict.setdefault("additionalProperties", False)
    return strict


@functools.cache
def _validator(kind):
    return jsonschema.Draft202012Validator(_strict(CRDS["schemas"][kind]))


def _checked(text):
    documents = list(yaml.safe_load_all(text))
    for document in documents:
        kind = f"{document['apiVersion']} {document['kind']}"
        if kind == "v1 ConfigMap":
            assert document.keys() == {"apiVersion", "kind", "metadata", "data"}
        else:
            _validator(kind).validate(document)
        assert re.fullmatch("[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?", document["metadata"]["name"])
    return documents


def _jobsets(order):
    return {d["metadata"]["name"]: d for d in _checked(jobset.text(order)) if d["kind"] == "JobSet"}


CHANGES = [
    {},
    {"spot": True, "queue": "theirs"},
    {"name": "A very long name, of 50 letters & signs (1.4B)", "training": Training(mesh=Mesh(fsdp=16))},
    {"machines": {"v5e": 8}, "slices": {"v5e:1x1": 4, "v5e:2x2": 1}},
    {"training": Training(mesh=Mesh(slices=2)), "machines": {"v6e:16x16": 2}, "slices": {"v6e:16x16": 2}},
    {"config": 'a: |\n  it\'s "so": #1\n  $(touch pwned)\n', "workdir": "gs://b/a 'b' $(touch pwned)"},
]


@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: ", ".join(changes) or "plain")
def test_everything_is_what_the_kinds_own_schemas_take(changes):
    _checked(jobset.text(_order(**changes)))


def test_the_schemas_that_are_checked_against_refuse_what_they_do_not_know():
    (first, *_) = _jobsets(_order()).values()
    first["spec"]["replicatedJobs"][0]["template"]["spec"]["backofLimit"] = 0
    with pytest.raises(jsonschema.ValidationError, match="backofLimit"):
        _validator("jobset.x-k8s.io/v1alpha2 JobSet").validate(first)


def test_a_jobset_a_shape_has_a_job_a_slice_a_pod_a_host_and_its_chips():
    jobsets = _jobsets(_order())
    assert list(jobsets) == ["ladder-tiny-v5p-2x2x1", "ladder-tiny-v5p-2x2x4"]
    told = []
    for one in jobsets.values():
        (job,) = one["spec"]["replicatedJobs"]
        spec = job["template"]["spec"]
        pod = spec["template"]["spec"]
        tpus = pod["containers"][0]["resources"]["limits"]["google.com/tpu"]
        told.append((job["replicas"], spec["parallelism"], spec["completions"], tpus))
        assert pod["nodeSelector"]["cloud.google.com/gke-tpu-accelerator"] == "tpu-v5p-slice"
        assert spec["backoffLimit"] == 0 and pod["restartPolicy"] == "Never"  # or a gang would go on without one
        assert one["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "ladder-tiny"}
    assert told == [(8, 1, 1, 4), (2, 4, 4, 4)]
    assert [("annotations" in one["metadata"]) for one in jobsets.values()] == [False, True]  # a pool of nodes its own


def _follows(jobset_, message, reason="PodFailurePolicy"):
    """The action that JobSet takes on a Job that failed so: the first rule that its reason and its message meet."""
    for rule in jobset_["spec"]["failurePolicy"]["rules"]:
        reasons, patterns = rule.get("onJobFailureReasons"), rule.get("onJobFailureMessagePatterns")
        if (not reasons or reason in reasons) and (not patterns or any(re.search(p, message) for p in patterns)):
            return rule["action"]
    return "RestartJobSet"


@pytest.mark.parametrize(("slices", "of_one"), [(1, "RestartJob"), (2, "RestartJobSet")])
def test_what_a_worker_leaves_with_decides_what_follows(slices, of_one):
    """The messages are those of Kubernetes' Job controller (pkg/controller/job/pod_failure_policy.go)."""
    training = Training(mesh=Mesh(slices=slices))
    (one, *_) = _jobsets(_order(training=training)).values()
    (job,) = one["spec"]["replicatedJobs"]
    rules = job["template"]["spec"]["podFailurePolicy"]["rules"]

    def exited(code):
        for index, rule in enumerate(rules):
            if code in rule.get("onExitCodes", {}).get("values", ()):
                exited = f"Container worker for pod default/x failed with exit code {code}"
                return f"{exited} matching FailJob rule at index {index}"
        return None

    again = f"{of_one}AndIgnoreMaxRestarts"
    assert _follows(one, exited(EXIT_CODE)) == again
    assert _follows(one, "Pod default/x has condition DisruptionTarget matching FailJob rule at index 0") == again
    assert _follows(one, exited(1)) == "FailJobSet"
    assert exited(137) is None
    assert _follows(one, "Job has reached the specified backoff limit", "BackoffLimitExceeded") == of_one
    assert one["spec"]["failurePolicy"]["maxRestarts"] > 0


def test_the_command_comes_through_the_shell_as_it_is_and_is_told_of_a_narrower_slice(tmp_path):
    workdir = "gs://b/a 'b' $(touch pwned)"
    order = _order(training=Training(mesh=Mesh(fsdp=16)), workdir=workdir)
    told = {}
    for name, one in _jobsets(order).items():
        pod = one["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
        shell, flag, script = pod["containers"][0]["command"]
        echo = f'ladder() {{ printf \'%s\\n\' "${{MEGASCALE_NUM_SLICES-none}}" "$@"; }}\n{script.replace("exec ", "")}'
        environment = {"PATH": "/usr/bin:/bin", "MEGASCALE_NUM_SLICES": "8"}
        done = subprocess.run(
            [shell, flag, echo], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        told[name] = done.stdout.splitlines()
    work = ["none", "work", "/ladder/config.yaml", "--workdir", workdir]
    assert told["ladder-tiny-v5p-2x2x1"] == [*work, "--set", "training.mesh.fsdp=4"]
    assert told["ladder-tiny-v5p-2x2x4"] == work and not (tmp_path / "pwned").exists()


def test_slices_of_one_program_know_of_each_other():
    order = _order(training=Training(mesh=Mesh(slices=2)), machines={"v6e:16x16": 2}, slices={"v6e:16x16": 2})
    assert "MEGASCALE" not in jobset.text(order) and "MEGASCALE" in jobset.text(_order())


def test_a_queue_lets_in_as_many_chips_as_there_are_however_they_are_cut():
    documents = _checked(jobset.text(_order(machines={"v5p": 64, "v5p:2x2x1": 2}, slices={"v5p:2x2x1": 16})))
    (queue,) = (d for d in documents if d["kind"] == "ClusterQueue")
    ((flavor,),) = (group["flavors"] for group in queue["spec"]["resourceGroups"])
    assert flavor["resources"] == [{"name": "google.com/tpu", "nominalQuota": 72}]
    assert [d["kind"] for d in _checked(jobset.text(_order(queue="theirs")))] == ["ConfigMap", "JobSet", "JobSet"]


def _schedule(machines, *given):
    runs = [Given(f"r{i}", s, 4, 0, start, hours, 1.0, True) for i, (s, start, hours) in enumerate(given)]
    return Schedule(machines, 16, 9.0, 1.0, 0.9, 5.5, 6.0, 0.9, tuple(runs))


def test_a_shared_pod_has_a_worker_for_every_slice_that_is_busy_at_once_and_named_slices_all_have_one():
    runs = [("v5p:2x2x2", 0.0, 1.0), ("v5p:2x2x1", 0.0, 2.0), ("v5p:2x2x1", 0.0, 1.0), ("v5p:2x2x1", 1.0, 1.0)]
    assert jobset.slices_of(_schedule({"v5p": 16}, *runs)) == {"v5p:2x2x2": 1, "v5p:2x2x1": 2}
    assert jobset.slices_of(_schedule({"v5p:2x2x1": 8}, runs[1])) == {"v5p:2x2x1": 8}


def test_a_long_name_is_cut_as_kubernetes_takes_it():
    names = _jobsets(_order(name="Open_LM: d=96_l=8_h=4, and more of it"))
    assert all(len(name) <= 40 for name in names)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"workdir": "/tmp/here"}, "--workdir /tmp/here: many machines need one that all of them see"),
        ({"image": ""}, "--engine jobset needs --image"),
    ],
)
def test_what_cannot_be_carried_out_is_refused(changes, why):
    with pytest.raises(ValueError, match=re.escape(why)):
        jobset.text(_order(**changes))


AT = ("--print", "--engine", "jobset", "--workdir", "gs://mine/ladder", "--image", "img:1")


def test_the_verb_prints_them_for_a_topology_with_the_whole_config(tree, write_config, ladder_, capsys):
    path = write_config({**tree, "training": {"cores_per_run": 2}})
    with pytest.raises(SystemExit, match="on which slices"):
        ladder_("launch", path, *AT)
    ladder_("launch", path, *AT, "--topology", "v5e:1x1", "--set", "training.mesh.fsdp=2")
    documents = _checked(capsys.readouterr().out)
    assert [d["kind"] for d in documents] == ["ResourceFlavor", "ClusterQueue", "LocalQueue", "ConfigMap", "JobSet"]
    sent = write_config(yaml.safe_load(documents[3]["data"]["config.yaml"]), "sent.yaml")
    assert config_file.load(sent) == config_file.load(path, ["training.cores_per_run=0", "training.mesh.fsdp=2"])
    assert "training.mesh.fsdp=1" in str(documents[4])
    with pytest.raises(SystemExit, match="can never run on v5e:16x16"):
        ladder_("launch", path, *AT, "--topology", "v5e:16x16")


def test_the_manuals_own_line_prints_what_can_be_applied(tree, write_config, ladder_, capsys):
    (line,) = re.findall(r"^ladder (launch .*--engine jobset.*) > \S+$", MANUAL.read_text(), re.M)
    words = [write_config(tree) if word == "CONFIG" else word for word in shlex.split(line)]
    ladder_(*words, "--set", "machines={v5e: 4}")
    assert "JobSet" in [d["kind"] for d in _checked(capsys.readouterr().out)]
