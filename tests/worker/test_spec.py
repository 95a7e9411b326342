"""From a message to a job that may run here, or to a sentence that says why it may not."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.worker.examples import API, COPY, QUEUE, asking, parse, read
from worker.errors import InvalidSpec
from worker.job.spec import Input, JobSpec, may_fetch, parse_slurm_time, parse_spec
from worker.settings import Form, GpuRule, Limits, Workload

# --- the contract of the existing service, by configuration alone

LAYERS = ["Image", "Background", "Selected Regions"]
ASKED = {
    "CPUs": 6, "Maximum memory (MB)": 257000, "Maximum time (D-HH:MM)": "0-06:00", "Slurm Notification Email": "",
    "Maximum number of training epochs": 15, "Maximum number of samples per label": 10000, "Patch height": 256,
    "Patch width": 256, "@job_uuid": "x",
}  # fmt: skip


def from_service(folder: Path, inputs: list[str], **settings: Any) -> JobSpec:
    site = read(folder).site
    message = {"inputs": {name: f"/uploads/{n}/original_file" for n, name in enumerate(inputs)},
               "settings": {**ASKED, **settings}}  # fmt: skip
    return parse_spec(json.dumps(message).encode(), site.queues[0], site.workloads, API, (), site.limits)


def test_the_first_generation_gets_its_four_models(tmp_path: Path) -> None:
    spec = from_service(tmp_path, [*LAYERS, "Music Layer", "Staff Layer", "Text"])

    assert list(spec.outputs) == ["Background Model", "Music Symbol Model", "Staff Lines Model", "Text Model"]
    assert len(spec.inputs) == 6


@pytest.mark.parametrize("layers", [1, 2, 10])
def test_the_second_generation_gets_a_model_for_each_layer(tmp_path: Path, layers: int) -> None:
    spec = from_service(tmp_path, LAYERS + [f"rgba PNG - Layer {n}" for n in range(layers)])

    assert list(spec.outputs) == ["Background Model", *(f"Model {n}" for n in range(layers))]
    assert len(set(spec.outputs.values())) == layers + 1
    assert len({source.file for source in spec.inputs.values()}) == 3 + layers


def test_resources_come_from_the_settings_and_the_settings_stay_as_they_came(tmp_path: Path) -> None:
    spec = from_service(tmp_path, [*LAYERS, "rgba PNG - Layer 0"])

    asked = spec.resources
    assert (asked.cpus, asked.memory_mb, asked.time_seconds) == (6, 257000, 6 * 3600)
    assert (asked.gres, asked.email) == ("gpu:p100l:4", None)
    assert spec.settings == ASKED


@pytest.mark.parametrize(("memory_mb", "gres"), [
    (1, "gpu:1"), (128000, "gpu:1"), (128001, "gpu:v100l:1"), (192000, "gpu:v100l:1"), (192001, "gpu:p100l:4"),
    (257000, "gpu:p100l:4"),
])  # fmt: skip
def test_gpus_follow_from_the_memory(tmp_path: Path, memory_mb: int, gres: str) -> None:
    spec = from_service(tmp_path, [*LAYERS, "rgba PNG - Layer 0"], **{"Maximum memory (MB)": memory_mb})

    assert spec.resources.gres == gres


def test_the_fault_is_told_under_the_service_s_own_name(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidSpec, match=r'"Maximum memory \(MB\)" may be at most 257000 here; this job says "300000"'
    ):
        from_service(tmp_path, [*LAYERS, "rgba PNG - Layer 0"], **{"Maximum memory (MB)": 300000})


@pytest.mark.parametrize(("inputs", "words"), [
    (LAYERS, 'missing: "rgba PNG - Layer 0"'),
    ([*LAYERS, "rgba PNG - Layer 1"], 'missing: "rgba PNG - Layer 0"; not known or out of sequence: "rgba PNG - Layer 1"'),
    ([*LAYERS, "rgba PNG - Layer 0", "rgba PNG - Layer 2"], 'not known or out of sequence: "rgba PNG - Layer 2"'),
    ([*LAYERS, *(f"rgba PNG - Layer {n}" for n in range(11))], 'out of sequence: "rgba PNG - Layer 10"'),
    ([*LAYERS, "Music Layer", "Staff Layer"], 'missing: "Text"'),
    ([*LAYERS, "Music Layer", "Staff Layer", "Text", "Music"], 'not known or out of sequence: "Music"'),
    ([*LAYERS, "Music Layer", "Staff Layer", "Text", "rgba PNG - Layer 0"], 'out of sequence: "rgba PNG - Layer 0"'),
])  # fmt: skip
def test_inputs_that_fit_no_form_are_refused_by_name(tmp_path: Path, inputs: list[str], words: str) -> None:
    with pytest.raises(InvalidSpec) as refusal:
        from_service(tmp_path, inputs)

    assert words in str(refusal.value)


# --- bodies

DEEP = b'{"inputs": {"Image": "/a"}, "settings": ' + b"[" * 10_000 + b"]" * 10_000 + b"}"


@pytest.mark.parametrize(("body", "words"), [
    (b"", "not valid JSON"),
    (b"   ", "not valid JSON"),
    (b"\xff\xfe", "not UTF-8"),
    (b"\xef\xbb\xbf{}", "not valid JSON"),
    (b"{", "not valid JSON"),
    (b'{"inputs": {}, "settings": {}} x', "not valid JSON"),
    (b"\0", "not valid JSON"),
    (b"[]", "not a JSON object"),
    (b'"text"', "not a JSON object"),
    (b"1", "not a JSON object"),
    (b"null", "not a JSON object"),
    (b"NaN", "NaN, which is not a number"),
    (b'{"inputs": {"Image": "/a"}, "settings": {"x": Infinity}}', "Infinity, which is not a number"),
    (b'{"inputs": {"Image": "/a"}, "settings": {"x": -Infinity}}', "-Infinity, which is not a number"),
    (b'{"inputs": {"Image": "/a"}, "settings": {"x": 1e999}}', "a number that is too large"),
    (b'{"inputs": {"Image": "/a"}, "inputs": {"Image": "/b"}, "settings": {}}', '"inputs" twice'),
    (b'{"inputs": {"Image": "/a", "Image": "/b"}, "settings": {}}', '"Image" twice'),
    (b'{"inputs": {"Image": "/a"}, "settings": {"x": {"y": 1, "y": 1}}}', '"y" twice'),
    (b"[" * 10_000 + b"]" * 10_000, "more than 50 levels deep"),  # Python 3.14 reads it, older ones don't
    (DEEP, "more than 50 levels deep"),
    (b'{"inputs": {"Image": "/a"}, "settings": {"x": ' + b"[" * 60 + b"]" * 60 + b"}}", "more than 50 levels deep"),
    (b"{}", 'has no "inputs"'),
    (b'{"inputs": {"Image": "/a"}}', 'has no "settings"'),
    (b'{"settings": {}}', 'has no "inputs"'),
    (b'{"inputs": null, "settings": {}}', '"inputs" in the job message is not a JSON object'),
    (b'{"inputs": ["Image"], "settings": {}}', '"inputs" in the job message is not a JSON object'),
    (b'{"inputs": "Image", "settings": {}}', '"inputs" in the job message is not a JSON object'),
    (b'{"inputs": {"Image": "/a"}, "settings": []}', '"settings" in the job message is not a JSON object'),
    (b'{"inputs": {"Image": "/a"}, "settings": "x"}', '"settings" in the job message is not a JSON object'),
    (b'{"inputs": {"Image": "/a"}, "settings": {}, "resources": []}', '"resources" in the job message is not a JSON'),
    (b'{"inputs": {}, "settings": {}}', 'missing: "Image"'),
])  # fmt: skip
def test_a_body_that_is_no_job_is_refused_with_a_reason(body: bytes, words: str) -> None:
    with pytest.raises(InvalidSpec) as refusal:
        parse(body)

    assert words in str(refusal.value)


def test_a_body_that_is_too_large_is_not_even_read() -> None:
    body = b" " * 1001

    with pytest.raises(InvalidSpec, match="larger than the 1000 bytes that are allowed"):
        parse(body, limits=Limits(message_bytes=1000))


def test_a_body_of_the_largest_size_is_read() -> None:
    body = json.dumps(asking()).encode()

    assert parse(body + b" " * (1000 - len(body)), limits=Limits(message_bytes=1000)).workload == "copy"


def test_a_message_of_many_names_is_refused_quickly() -> None:
    few, many = 4_000, 64_000

    def cost(count: int) -> float:
        body = ("{" + ",".join([*(f'"{n:x}":0' for n in range(count)), f'"{count - 1:x}":0']) + "}").encode()
        begun = time.process_time()
        with pytest.raises(InvalidSpec, match=f'"{count - 1:x}" twice'):
            parse(body)
        return time.process_time() - begun

    assert min(cost(many) for _ in range(3)) < 8 * (many / few) * min(cost(few) for _ in range(9)), (
        "16 times as many cost 256 times as much"
    )


def test_settings_of_any_kind_are_handed_on_untouched() -> None:
    settings = {"a": [1, 2.5, None, True, {"b": "\u202e \ud800"}], "base64": "eA==", "": "@", "@x": {}}

    assert parse(asking(settings=settings)).settings == settings


# --- workloads, names and families


@pytest.mark.parametrize("name", ["nothing", "../../bin/sh", "", None, 1, ["copy"], "copy\n", "Copy", "c" * 300, {}])
def test_only_a_workload_of_the_site_may_run(name: object) -> None:
    with pytest.raises(InvalidSpec, match="There is no workload named"):
        parse(asking(workload=name))


def test_a_message_may_name_the_workload() -> None:
    assert parse(asking(workload="copy")) == parse(asking())


HOSTILE_NAMES = ["/etc/passwd", "..", "../x", "a\0b", "a\nb", "x" * 300, "%j", "\u202eegamI", "   ", "", "Image ", "image",
                 "error", "\ud800", "-rf", "$(id)"]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_an_input_that_the_workload_does_not_know_is_refused(name: str) -> None:
    with pytest.raises(InvalidSpec, match="not known or out of sequence") as refusal:
        parse({"inputs": {"Image": "/a", name: "/b"}, "settings": {}})

    assert str(refusal.value).isprintable()


@pytest.mark.parametrize("name", [*HOSTILE_NAMES, "a/b/../c", "ä" * 300])
def test_whatever_a_site_calls_its_inputs_and_outputs_the_files_stay_in_their_folder(name: str) -> None:
    workload = Workload(argv=("x",), forms=(Form(required=(name,), outputs={name: ".png"}),))

    spec = parse({"inputs": {name: "/a"}, "settings": {}}, workload=workload)

    for file in (spec.inputs[name].file, spec.outputs[name]):
        assert Path(file).name == file and file.isascii() and file.isprintable() and len(file) < 60


def test_too_many_inputs_are_refused() -> None:
    inputs = {f"Image {n}": "/a" for n in range(51)}

    with pytest.raises(InvalidSpec, match="The job has 51 inputs; at most 50 are allowed"):
        parse({"inputs": inputs, "settings": {}})


def test_optional_inputs_may_be_there() -> None:
    workload = replace(COPY, forms=(Form(required=("Image",), optional=("Mask",), outputs={"Copy": ""}),))

    with_mask = parse({"inputs": {"Image": "/a", "Mask": "/b"}, "settings": {}}, workload=workload)

    assert set(with_mask.inputs) == {"Image", "Mask"}
    assert set(parse(asking(), workload=workload).inputs) == {"Image"}


@pytest.mark.parametrize(("masks", "fits"), [([], True), ([0], True), ([0, 1], True), ([1], False), ([0, 2], False)])
def test_an_optional_family_has_no_gap_either(masks: list[int], fits: bool) -> None:
    workload = replace(COPY, forms=(Form(required=("Image",), optional=("Mask {n}",), outputs={"Copy": ""}),))
    message = {"inputs": {"Image": "/a", **{f"Mask {n}": "/b" for n in masks}}, "settings": {}}

    if fits:
        assert len(parse(message, workload=workload).inputs) == 1 + len(masks)
    else:
        with pytest.raises(InvalidSpec, match="out of sequence"):
            parse(message, workload=workload)


def test_two_families_go_together() -> None:
    form = Form(required=("Page {n}", "Text {n}"), outputs={"Model {n}": ""})
    workload = replace(COPY, forms=(form,))
    inputs = {"Page 0": "/a", "Page 1": "/b", "Text 0": "/c"}

    with pytest.raises(InvalidSpec, match='missing: "Text 1"'):
        parse({"inputs": inputs, "settings": {}}, workload=workload)

    assert list(parse({"inputs": {**inputs, "Text 1": "/d"}, "settings": {}}, workload=workload).outputs) == [
        "Model 0", "Model 1",
    ]  # fmt: skip


def test_the_first_form_that_fits_counts() -> None:
    forms = (Form(required=("Image",), outputs={"First": ""}), Form(required=("Image",), outputs={"Second": ""}))

    assert list(parse(asking(), workload=replace(COPY, forms=forms)).outputs) == ["First"]


# --- addresses


def source(url: object, input_hosts: tuple[str, ...] = ()) -> Input:
    return parse({"inputs": {"Image": url}, "settings": {}}, input_hosts=input_hosts).inputs["Image"]


@pytest.mark.parametrize(("url", "whole"), [
    ("/uploads/a%20b?x=1", f"{API}/uploads/a%20b?x=1"),
    ("/@evil.example.org/x", f"{API}/@evil.example.org/x"),
    (f"{API}/a", f"{API}/a"),
    (f"{API}:443/a", f"{API}:443/a"),
    ("HTTPS://API.example.org/a", "HTTPS://API.example.org/a"),
])  # fmt: skip
def test_an_address_at_the_api_gets_the_token(url: str, whole: str) -> None:
    assert source(url) == Input(whole, "00_Image", with_token=True)


def test_an_address_at_a_listed_host_gets_no_token() -> None:
    assert not source("https://files.example.org/a", ("files.example.org",)).with_token
    assert not source("http://files.internal:8080/a", ("http://files.internal:8080",)).with_token


@pytest.mark.parametrize("url", [
    "https://evil.example.org/a", "http://api.example.org/a", "https://api.example.org:8443/a", "https://api.example.org./a",
    "https://api.example.org.evil.org/a", "https://evil-api.example.org/a", "//api.example.org/a", "//evil.example.org/a",
    "https://user@api.example.org/a", "https://user:word@api.example.org/a", "https://api.example.org@evil.example.org/a",
    "https://api.example.org%40evil.example.org/a", "file:///etc/passwd", "ftp://api.example.org/a", "gopher://x/1",
    "javascript:alert(1)", "data:,x", "http://169.254.169.254/latest/meta-data", "http://localhost/", "http://[::1]/",
    "https://[::1", "https://api.example.org:x/a", "https://api.example.org:99999/a", "https://", "https:///a", "http:/a",
    "uploads/a", "a", "?x", "#x", ".", "https://files.example.org:444/a", "http://files.example.org/a",
])  # fmt: skip
def test_every_other_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidSpec, match='The input "Image" comes from .*, which is not allowed here'):
        source(url, ("files.example.org",))


@pytest.mark.parametrize("url", [
    "", None, 1, True, [], {}, "/a b", "/a\n", "/a\r\nHost: x", "/a\0", "\\\\host\\x", "/\\evil.example.org/a", "/ä",
    "/" + "a" * 4096, " /a", "https://api.example.org/\u202ea", "/\x7f",
])  # fmt: skip
def test_what_is_no_address_is_refused(url: object) -> None:
    with pytest.raises(InvalidSpec, match='The address of the input "Image" is not a URL'):
        source(url)


def test_the_refusal_shows_the_host_and_no_password() -> None:
    with pytest.raises(InvalidSpec) as refusal:
        source("https://mary:canary@evil.example.org/secret")

    assert '"evil.example.org"' in str(refusal.value) and "canary" not in str(refusal.value)


@pytest.mark.parametrize(("api", "url"), [
    ("http://127.0.0.1:8000", "http://127.0.0.1:8000/a"),
    ("https://api.example.org", "https://api.example.org:443/a"),
    ("http://api.example.org:80", "http://api.example.org/a"),
])  # fmt: skip
def test_an_origin_is_scheme_host_and_port(api: str, url: str) -> None:
    assert may_fetch(url, api, ())
    assert not may_fetch(url.replace("/a", "1/a") if url.count(":") > 1 else url.replace("http:", "https:"), api, ())


# --- resources


@pytest.mark.parametrize("name", ["cpus", "memory_mb"])
@pytest.mark.parametrize("value", ["6; rm -rf ~", -1, 0, 1e9, True, False, "6", 6.0, None, [6], {}, "", 2**70])
def test_a_resource_is_a_whole_number_within_the_limits(name: str, value: object) -> None:
    with pytest.raises(InvalidSpec, match=f'"{name}" (must be a whole number of at least 1|may be at most)'):
        parse(asking(resources={name: value}))


def test_a_huge_number_of_digits_is_refused() -> None:
    body = b'{"inputs": {"Image": "/a"}, "settings": {}, "resources": {"cpus": ' + b"9" * 5000 + b"}}"

    with pytest.raises(InvalidSpec):
        parse(body)


def test_the_limits_themselves_are_allowed() -> None:
    asked = parse(asking(resources={"cpus": 8, "memory_mb": 16000, "time": "1-00:00", "gpus": 2})).resources

    assert (asked.cpus, asked.memory_mb, asked.time_seconds, asked.gres) == (8, 16000, 86400, "gpu:2")


@pytest.mark.parametrize("wish", [{"cpus": 9}, {"memory_mb": 16001}, {"gpus": 3}, {"time": "1-00:01"}])
def test_one_more_than_the_limit_is_refused_with_the_limit(wish: dict[str, object]) -> None:
    with pytest.raises(InvalidSpec, match="may be at most (8|16000|2|24 hours) here; this job says"):
        parse(asking(resources=wish))


def test_a_job_that_asks_for_nothing_gets_the_queue_s_own() -> None:
    asked = parse(asking()).resources

    assert (asked.cpus, asked.memory_mb, asked.time_seconds) == (1, 1000, 3600)
    assert (asked.gres, asked.email) == (None, None)


def test_no_gpus_may_be_asked_for_by_name() -> None:
    assert parse(asking(resources={"gpus": 0})).resources.gres is None


def test_gpus_that_are_asked_for_win_over_those_that_follow_from_memory() -> None:
    rules = replace(QUEUE.resources, gpus_by_memory=(GpuRule(16000, "gpu:big:1"),))
    queue = replace(QUEUE, resources=rules)

    assert parse(asking(), queue=queue).resources.gres == "gpu:big:1"
    assert parse(asking(resources={"gpus": 2}), queue=queue).resources.gres == "gpu:2"


def test_memory_above_every_rule_brings_no_gpu() -> None:
    rules = replace(QUEUE.resources, gpus_by_memory=(GpuRule(500, "gpu:1"),))

    assert parse(asking(), queue=replace(QUEUE, resources=rules)).resources.gres is None


def test_resources_win_over_settings_of_the_same_meaning() -> None:
    queue = replace(QUEUE, resources=replace(QUEUE.resources, names={"cpus": "CPUs"}))

    assert parse(asking(settings={"CPUs": 2}), queue=queue).resources.cpus == 2
    assert parse(asking(settings={"CPUs": 2}, resources={"cpus": 3}), queue=queue).resources.cpus == 3
    with pytest.raises(InvalidSpec, match='"cpus" must be'):
        parse(asking(settings={"CPUs": 2}, resources={"cpus": "3"}), queue=queue)


def test_an_unknown_resource_is_refused() -> None:
    with pytest.raises(InvalidSpec, match='asks for "--wrap", which is no resource known here'):
        parse(asking(resources={"cpus": 1, "--wrap": "x"}))


@pytest.mark.parametrize("email", ["", None, "mary@example.org", "m.a+r-y_1@ex-ample.org", "root@localhost"])
def test_an_e_mail_address_may_be_given(email: object) -> None:
    assert parse(asking(resources={"email": email})).resources.email == (email or None)


@pytest.mark.parametrize("email", [
    "mary", "@example.org", "mary@", "-mary@example.org", "mary@-x", "a@b\n", "a\n@b", "a@b c", "a,b@c", "a@b;x", 1, True, [],
    "a@b@c", "ä@example.org", f"{'a' * 65}@b", "$(id)@b", "a@b%j", {},
])  # fmt: skip
def test_what_is_no_e_mail_address_is_refused(email: object) -> None:
    with pytest.raises(InvalidSpec, match="is not an e-mail address"):
        parse(asking(resources={"email": email}))


@pytest.mark.parametrize(("text", "seconds"), [
    ("30", 1800), ("1", 60), ("90", 5400), ("30:15", 1815), ("90:00", 5400), ("0:01", 1), ("1:02:03", 3723),
    ("48:00:00", 172800), ("0-06:00", 21600), ("0-6", 21600), ("1-0", 86400), ("1-02:03", 93780), ("1-02:03:04", 93784),
    ("365-0", 365 * 86400), ("00-00:00:01", 1),
])  # fmt: skip
def test_a_slurm_time_has_six_forms(text: str, seconds: int) -> None:
    assert parse_slurm_time(text) == seconds


@pytest.mark.parametrize("text", [
    "", "0", "0:00", "0-0", "0-00:00:00", "-1", "99-99", "1-24", "1-00:60", "1-00:00:60", "1:60:00", "00:60", "1:2:3:4",
    "0-06:00 --wrap=x", "0-06:00\n", " 1", "1 ", "1h", "six", "INFINITE", "UNLIMITED", "1-", "-0", "1:", ":1", "1-2-3",
    "\u0661", "²", "9999-0", "1000000", "1.5", "1e3", "0x10", "+1",
])  # fmt: skip
def test_every_other_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_slurm_time(text)


@pytest.mark.parametrize("value", [3600, None, True, ["0-01:00"], "0-06:00 --wrap=x", "0", "99-99", 1.5])
def test_a_time_of_the_message_is_a_text_in_slurm_s_form(value: object) -> None:
    with pytest.raises(InvalidSpec, match='"time" must be a time such as "0-06:00"'):
        parse(asking(resources={"time": value}))


# --- whatever comes

TEXTS = st.text(max_size=8) | st.sampled_from(
    ["inputs", "settings", "workload", "resources", "Image", "copy", "/a", "cpus"]
)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=15,
)
ALMOST_A_JOB = st.fixed_dictionaries(
    {"inputs": st.dictionaries(TEXTS, ANY_JSON, max_size=3) | st.just({"Image": "/a"}), "settings": st.just({})},
    optional={
        "workload": ANY_JSON,
        "resources": st.dictionaries(
            st.sampled_from(["cpus", "memory_mb", "time", "gpus", "email", "x"]), ANY_JSON, max_size=3
        ),
    },
)


def is_spec_or_refusal(body: bytes) -> None:
    try:
        spec = parse(body)
    except InvalidSpec as refusal:
        text = str(refusal)
        assert text.isprintable() and 10 < len(text) < 2500
    else:
        assert spec.workload == "copy" and spec.inputs["Image"].url.startswith(API)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_job_or_refused(body: bytes) -> None:
    is_spec_or_refusal(body)


@given(ANY_JSON | ALMOST_A_JOB)
def test_any_json_is_a_job_or_refused(message: object) -> None:
    is_spec_or_refusal(json.dumps(message).encode())


@given(st.text(max_size=5000))
def test_a_refusal_is_one_line_of_bounded_length_whatever_it_quotes(text: str) -> None:
    for message in (
        asking(workload=text), asking(resources={text: 1}), asking(resources={"cpus": text}),
        asking(resources={"time": [text] * 3}), {"inputs": {text * 2: text, "y": text}, "settings": {}},
        {"inputs": {"Image": text}, "settings": {}},
    ):  # fmt: skip
        is_spec_or_refusal(json.dumps(message).encode())


# --- what a message says of an input

DIGEST = "9f" * 32


def test_an_input_may_be_described() -> None:
    spec = parse(asking(inputs={"Image": {"url": "/a.png", "sha256": DIGEST.upper(), "bytes": 5}}))

    assert spec.inputs["Image"] == Input(f"{API}/a.png", "00_Image", True, size=5, sha256=DIGEST)


def test_an_input_that_is_described_by_its_address_alone_is_the_same_as_the_address() -> None:
    assert parse(asking(inputs={"Image": {"url": "/a.png"}})) == parse(asking())


@pytest.mark.parametrize(("described", "words"), [
    ({"url": "/a", "bytes": -1}, 'must be a whole number; this job says "-1"'),
    ({"url": "/a", "bytes": True}, "must be a whole number"), ({"url": "/a", "bytes": "5"}, "must be a whole number"),
    ({"url": "/a", "bytes": 2**61}, "must be a whole number"),
    ({"url": "/a", "sha256": "9f"}, "must be 64 hexadecimal digits"), ({"url": "/a", "sha256": 7}, "must be 64 hexa"),
    ({"url": "/a", "sha265": DIGEST}, 'has "sha265", which is not known here'), ({"sha256": DIGEST}, "is not a URL"),
    ({"url": {"url": "/a"}}, "is not a URL"), ({"url": "https://elsewhere.org/a"}, "which is not allowed here"),
])  # fmt: skip
def test_a_description_that_can_t_be_right_is_refused(described: object, words: str) -> None:
    with pytest.raises(InvalidSpec, match=re.escape(words)):
        parse(asking(inputs={"Image": described}))


def test_inputs_that_say_themselves_that_they_are_too_large_are_refused_at_once() -> None:
    with pytest.raises(InvalidSpec, match="The job's inputs have 2048 bytes; at most 2047 are allowed"):
        parse(asking(inputs={"Image": {"url": "/a", "bytes": 2048}}), limits=Limits(input_bytes=2047))
