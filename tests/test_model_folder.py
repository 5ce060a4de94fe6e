"""Model folders: round trips, whole or not at all, damage, and folders made by an attacker."""

from __future__ import annotations

import builtins
import hashlib
import importlib
import io
import json
import os
import pickle
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tracemalloc
from contextlib import contextmanager

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save

from invlearn.errors import DataFileError, OptionError, OutputError
from invlearn.image_features import ImageInput
from invlearn.model_folder import load_model, save_model
from invlearn.model_record import ModelRecord, OutputScale
from invlearn.networks import MLPSpec, build

SPEC = MLPSpec(n_features=3, hidden=(4,), n_outputs=1)
IMAGES = ImageInput(height=8, width=9, channels=2, mean=(0.5, 100.0) * 112, scale=(1.0, 0.25) * 112)
IMAGE_SPEC = MLPSpec(n_features=224, hidden=(5,), n_outputs=3)
AGAIN = "Copy the folder anew from its source."


def make_record(**changes):
    fields = {
        "network": SPEC,
        "target": {"column": "dies", "classes": ["no", "yes", 3, 0.5, True, None]},
        "objective": "irmv1",
        "loss": "logistic",
        "training": {"steps": 501, "rate": 0.1 + 0.2, "tiny": 5e-324, "schedule": [[0, -0.0]]},
        "environments": {"Zürich": 10, "b": 2},
        "provenance": {"made": "today"},
        "encoder": {"columns": [{"name": "age\n", "mean": 1e22}]},
        "output": OutputScale(center=-3.25, scale=7.0),
    }
    return ModelRecord(**fields | changes)


def make_network(spec=SPEC, seed=1):
    network = build(spec, torch.Generator().manual_seed(seed))
    for parameter in network.parameters():  # Biases of zero would hide lost ones.
        parameter.data += 0.25
    return network


@pytest.fixture
def folder(tmp_path):
    save_model(tmp_path / "model", make_record(), make_network())
    return tmp_path / "model"


def forge(folder, weights=None, **changes):
    """Change a folder as an attacker would: with checksums that are right again."""
    content = json.loads((folder / "model.json").read_text())
    if weights is not None:
        (folder / "model.safetensors").write_bytes(weights)
        content["tensors_sha256"] = hashlib.sha256(weights).hexdigest()
    content |= changes
    del content["record_sha256"]
    text = json.dumps(content, sort_keys=True, ensure_ascii=False).encode(errors="surrogatepass")
    content["record_sha256"] = hashlib.sha256(text).hexdigest()
    (folder / "model.json").write_text(json.dumps(content))


def refusal(folder):
    with pytest.raises(DataFileError) as caught:
        load_model(folder)
    message = str(caught.value)
    assert message.isprintable(), message
    return message


def assert_same_weights(one, other):
    one, other = one.state_dict(), other.state_dict()
    assert list(one) == list(other)
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype
        assert tensor.numpy().tobytes() == other[name].numpy().tobytes()


# Round trips


@pytest.mark.parametrize(
    ("record", "spec"),
    [
        (make_record(), SPEC),
        (make_record(loss="squared", encoder=None), SPEC),
        (make_record(network=IMAGE_SPEC, loss="softmax", images=IMAGES), IMAGE_SPEC),
    ],
)
def test_a_model_comes_back_bit_for_bit(record, spec, tmp_path):
    network = make_network(spec)
    save_model(tmp_path / "a", record, network)
    back = load_model(tmp_path / "a")
    assert back.record.model_copy(update={"tensors_sha256": record.tensors_sha256}) == record
    assert str(back.record.training["schedule"]) == "[[0, -0.0]]"
    assert_same_weights(back.network, network)
    x = torch.randn(5, spec.n_features, generator=torch.Generator().manual_seed(2))
    assert torch.equal(back.network(x), network(x))
    save_model(tmp_path / "b", back.record, back.network)
    for name in ("model.json", "model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_loading_leaves_the_global_generator_alone(folder):
    before = torch.get_rng_state()
    load_model(folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_json_is_sorted_and_says_what_it_was_given(folder):
    text = (folder / "model.json").read_text("utf-8")
    content = json.loads(text)
    assert list(content) == sorted(content)
    assert '"Zürich": 10' in text
    assert content["network"] == {"kind": "mlp", "n_features": 3, "hidden": [4], "n_outputs": 1}


def test_slices_of_stacked_and_transposed_weights_are_saved_as_they_read(tmp_path):
    network = make_network(MLPSpec(n_features=4, hidden=(4,), n_outputs=1))
    stacked = torch.arange(32.0).reshape(2, 4, 4)
    network.layers[0].weight.data = stacked[1].T
    network.layers[1].bias.data = stacked[0, 0, :1]
    network.layers[0].bias.data = stacked[0, 0]
    spec = MLPSpec(n_features=4, hidden=(4,), n_outputs=1)
    save_model(tmp_path / "m", make_record(network=spec), network)
    assert_same_weights(load_model(tmp_path / "m").network, network)


# Saving: whole or not at all


def test_parents_are_made_and_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    for name in ("a/b/model", "link"):
        save_model(tmp_path / name, make_record(), make_network())
        load_model(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "empty", "link"]


def test_what_is_there_is_never_overwritten(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name, problem in (("full", "is taken"), ("file", "is a file")):
        with pytest.raises(OutputError, match=rf"^Expected a .*/{name}' {problem}\. Choose anoth"):
            save_model(tmp_path / name, make_record(), make_network())
    assert sorted(map(str, tmp_path.rglob("*"))) == [
        str(tmp_path / name) for name in ("file", "full", "full/notes.txt")
    ]


@contextmanager
def files_of_at_most(size):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("size", [100, 800])  # The weights take 372 bytes, the JSON about 1,000.
def test_a_write_cut_short_leaves_nothing_behind(size, tmp_path):
    with files_of_at_most(size), pytest.raises(OutputError) as caught:
        save_model(tmp_path / "m", make_record(), make_network())
    assert str(caught.value) == (
        f"Cannot write '{tmp_path / 'm'}': File too large. Make room, or choose another place."
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_save_leaves_nothing_behind(call, failure, tmp_path, monkeypatch):
    def fail(*args):
        raise failure

    monkeypatch.setattr(os, call, fail)
    with pytest.raises((OutputError, KeyboardInterrupt)) as caught:
        save_model(tmp_path / "m", make_record(), make_network())
    assert isinstance(failure, KeyboardInterrupt) or "No space left" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_could_not_be_loaded_is_not_saved(tmp_path):
    broken = make_network()
    broken.layers[1].weight.data[0, 2] = float("nan")
    dirty = make_record()
    dirty.training["x"] = float("inf")
    cases = [
        (make_record(), make_network().double(), "got F64 and (4, 3)"),
        (make_record(), make_network(MLPSpec(n_features=2, hidden=(4,), n_outputs=1)), "(4, 2)"),
        (make_record(), make_network(IMAGE_SPEC), "(5, 224)"),
        (make_record(), broken, "tensor 'layers.1.weight' has NaN or infinity"),
        (dirty, make_network(), "Out of range float values"),
        (make_record(training={"a": "\ud800"}), make_network(), "surrogates not allowed"),
        (make_record(training={"a": 10**5000}), make_network(), "4300"),
        (make_record(training={str(i): 1 for i in range(10**5 + 1)}), make_network(), "100001"),
        (make_record(training={"a": "x" * 2**26}), make_network(), "67108864 bytes"),
    ]
    for record, network, problem in cases:
        with pytest.raises(OptionError) as caught:
            save_model(tmp_path / "m", record, network)
        message = str(caught.value)
        assert problem in message
        assert message.isprintable()
        assert message.startswith("Expected a model that can be read back, got one that cannot: ")
        assert message.endswith(
            "Save the float32 network that the record describes, with plain JSON values."
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"loss": "hinge"}, "'squared', 'logistic' or 'softmax'"),
        ({"loss": "softmax"}, "at least two outputs"),
        ({"network": IMAGE_SPEC}, "logistic loss needs one output, got 3"),
        ({"images": IMAGES}, "takes 3 features, images of 2 channel(s) have 224"),
        ({"output": {"center": 0.0, "scale": 0.0}}, "greater than 0"),
        ({"output": {"center": float("nan"), "scale": 1.0}}, "finite number"),
        ({"training": {"a": float("inf")}}, "finite number"),
        ({"training": {"a": object()}}, "valid JSON value"),
        ({"environments": {"a": -1}}, "greater than or equal to 0"),
        ({"environments": {"a": 2**63}}, "less than or equal to"),
        ({"environments": {"a": 1.0}}, "valid integer"),
        ({"provenance": {"a": 1}}, "valid string"),
        ({"format": 2}, "less than or equal to 1"),
        ({"format": True}, "valid integer"),
        ({"tensors_sha256": "0" * 63}, "match pattern"),
        ({"extra": 1}, "not permitted"),
    ],
)
def test_records_that_make_no_sense_are_refused(changes, problem):
    with pytest.raises(ValidationError) as caught:
        make_record(**changes)
    assert problem in str(caught.value)


# Damage


def test_no_folder_a_file_an_incomplete_folder(folder, tmp_path):
    tail = "Give a folder that holds model.safetensors and model.json."
    assert refusal(tmp_path / "none") == (
        f"Expected a model folder at '{tmp_path / 'none'}', found nothing. {tail}"
    )
    assert refusal(folder / "model.json") == (
        f"Expected a model folder at '{folder / 'model.json'}', found a file. {tail}"
    )
    for name in ("model.safetensors", "model.json"):
        (folder / name).unlink()
        assert refusal(folder) == f"'{folder / name}': The file is missing. {AGAIN}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "Expecting value: line 1 column 1"),
        (b'{"format": 1', "Expecting ',' delimiter"),
        (b'{"a": "\xff"}', "'utf-8' codec can't decode"),
        (b"[1, 2]", "expected an object, got a list"),
        (b"[" * 10**6, "recursion"),
        (b'{"a": ' * 10**6, "recursion"),
        (b'{"a": NaN}', "NaN is not a finite number"),
        (b'{"a": -Infinity}', "-Infinity is not a finite number"),
        (b'{"a": 1e999}', "1e999 is not a finite number"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "4300"),
        (b'{"format": 1, "a": 0, "a": 0}', "the key 'a' comes twice"),
        (b'{"\\u001b[2J\\n": 1, "\\u001b[2J\\n": 2}', "the key '?[2J?' comes"),
        (b'{"a": {' + b",".join(b'"%d":0' % i for i in range(10**5 + 1)) + b"}}", "100001"),
        (b'{"format": 1, "__reduce__": 1}', "unknown keys ['__reduce__']"),
        (b"--- !!python/object/apply:os.system ['ls']", "Expecting value"),
    ],
)
def test_json_that_is_none_or_no_record(text, problem, folder):
    (folder / "model.json").write_bytes(text)
    message = refusal(folder)
    assert message.startswith(f"'{folder / 'model.json'}': Expected the JSON of a model: ")
    assert problem in message
    assert message.endswith(AGAIN)
    assert len(message) < 500


def test_keys_too_few_or_too_many(folder):
    content = json.loads((folder / "model.json").read_text())
    for key in content.keys() - {"record_sha256"}:
        less = {name: value for name, value in content.items() if name != key}
        (folder / "model.json").write_text(json.dumps(less))
        assert refusal(folder) == (
            f"'{folder / 'model.json'}': Expected the JSON of a model: missing keys ['{key}'], "
            f"unknown keys []. {AGAIN}"
        )
    forge(folder, **content | {"__class__": "os.system"})
    assert "missing keys [], unknown keys ['__class__']" in refusal(folder)


def test_a_newer_format_says_to_upgrade_and_an_older_one_was_never_written(folder):
    forge(folder, format=2, a_key_of_the_future=1)
    assert refusal(folder) == (
        f"'{folder / 'model.json'}': Written by a newer version (format 2). "
        "Upgrade invariant-learn."
    )
    content = json.loads((folder / "model.json").read_text())
    del content["a_key_of_the_future"]
    (folder / "model.json").write_text(json.dumps(content))
    for version in (0, -1, 1.0, True, "1", None, [1]):
        forge(folder, format=version)
        assert f"'{folder / 'model.json'}': Not a model: format: " in refusal(folder)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"loss": "hinge"}, "loss: Input should be 'squared', 'logistic' or 'softmax'"),
        ({"network": {"kind": "os.system", "n_outputs": 1}}, "expected tags: 'mlp', 'own'"),
        ({"network": {"kind": "\x1b[31m\n"}}, "network: Input tag '?"),
        ({"network": {"kind": "mlp", "n_outputs": 1}}, "network.mlp.n_features: Field required"),
        ({"network": SPEC.model_dump() | {"n_features": 10**300}}, "less than or equal to 1000000"),
        ({"network": SPEC.model_dump() | {"__class__": "x"}}, "network.mlp.__class__: Extra"),
        ({"output": {"center": 1e308, "scale": -1.0}}, "output.scale"),
        ({"output": {"center": "0", "scale": 1.0}}, "output.center"),
        ({"images": {"height": 10**9}}, "images.height"),
        ({"environments": {"\n" * 1000: "x"}}, "environments.????"),
        ({"environments": [1]}, "environments: Input should be a valid dictionary"),
        ({"encoder": "{{ 7 * 7 }}"}, "encoder: Input should be a valid dictionary"),
        ({"provenance": {"a": None}}, "provenance.a"),
        ({"training": {"a": "\ud800"}}, "surrogates not allowed"),
        ({"objective": None}, "objective"),
    ],
)
def test_records_of_wrong_types_are_refused_though_their_checksum_is_right(
    changes, problem, folder
):
    forge(folder, **changes)
    message = refusal(folder)
    assert message.startswith(f"'{folder / 'model.json'}': ")
    assert problem in message
    assert message.endswith(AGAIN)
    assert len(message) < 800


def test_deep_nesting_that_python_can_read_is_refused(folder):
    deep = 0
    for _ in range(600):
        deep = [deep]
    forge(folder, training={"a": deep})
    assert "maximum validation depth" in refusal(folder)


def weights_of(changes=None, drop=()):
    tensors = make_network().state_dict() | (changes or {})
    return save({name: tensor for name, tensor in tensors.items() if name not in drop})


GOOD = weights_of()
INFINITE = torch.tensor([float("inf"), 0.0, 0.0, 0.0])


@pytest.mark.parametrize(
    ("weights", "problem"),
    [
        (b"", "Expected 84 to 1048660 bytes, found 0: truncated, or not this model's"),
        (GOOD[:80], "found 80: truncated"),
        (GOOD[:-4], "Expected safetensors, got: "),
        (GOOD + bytes(2**20), "found 1048948: truncated, or not"),
        ((2**40).to_bytes(8, "little") + GOOD[8:], "header too large"),
        ((2**63).to_bytes(8, "little") + GOOD[8:], "header too large"),
        ((8).to_bytes(8, "little") + GOOD[8:], "Expected safetensors, got: "),
        (weights_of(drop=["layers.0.bias"]), "got 3 that lack 'layers.0.bias'"),
        (weights_of({"\x1b]0;": torch.ones(1)}), "got 5 that have unknown '\\x1b]0;'"),
        (weights_of({"layers.0.weight": torch.ones(3, 4)}), "shape (4, 3), got F32 and (3, 4)"),
        (weights_of({"layers.0.bias": torch.ones(4).long()}), "got I64 and (4,)"),
        (weights_of({"layers.0.bias": torch.ones(4).to(torch.float8_e4m3fn)}), "got F8_E4M3"),
        (weights_of({"layers.0.bias": INFINITE}), "tensor 'layers.0.bias' has NaN or infinity"),
    ],
)
def test_weights_that_do_not_fit_are_refused_though_their_checksum_is_right(
    weights, problem, folder
):
    forge(folder, weights)
    message = refusal(folder)
    assert message.startswith(f"'{folder / 'model.safetensors'}': ")
    assert problem in message
    assert message.endswith(AGAIN)


def test_other_weights_of_the_same_shapes_are_noticed(folder):
    (folder / "model.safetensors").write_bytes(save(make_network(seed=5).state_dict()))
    assert refusal(folder) == (
        f"'{folder / 'model.safetensors'}': Altered or damaged: the checksum is another. {AGAIN}"
    )


def mutate(content, draw):
    at, length = draw.randrange(len(content)), draw.randrange(1, 9)
    return draw.choice(
        [
            content[:at] + bytes([content[at] ^ (1 << draw.randrange(8))]) + content[at + 1 :],
            content[:at] + content[at + length :],
            content[:at] + draw.randbytes(length) + content[at:],
            content[:at] + b" \n"[: length % 3] + content[at:],
            content[:at],
            content[: at + length] + content[at:],
        ]
    )


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_300_mutations_are_refused_or_change_nothing(name, folder):
    original = load_model(folder)
    content = (folder / name).read_bytes()
    draw = random.Random(7)
    unharmed = 0
    for _ in range(300):
        (folder / name).write_bytes(mutate(content, draw))
        try:
            back = load_model(folder)
        except DataFileError:
            refusal(folder)
            continue
        unharmed += 1
        assert repr(back.record) == repr(original.record)
        assert_same_weights(back.network, original.network)
    assert unharmed > 10 if name == "model.json" else unharmed < 150


# An attacker's folders


@contextmanager
def memory_of_at_most(n_bytes):
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < n_bytes
    finally:
        tracemalloc.stop()


def test_sizes_are_refused_before_anything_is_read_or_built(folder, monkeypatch):
    (folder / "other").mkdir()
    for name, size in (("model.json", 2**26 + 1), ("model.safetensors", 2**36)):
        kept = (folder / name).read_bytes()
        os.truncate(folder / name, size)  # Sparse: it takes no room on the disk.
        with memory_of_at_most(10**6):
            assert f"found {size}: truncated, or not" in refusal(folder)
        (folder / name).write_bytes(kept)
    monkeypatch.setattr("invlearn.model_folder.build", lambda *_: pytest.fail("built"))
    forge(folder, network={"kind": "mlp", "n_features": 9999, "hidden": [99999], "n_outputs": 1})
    with memory_of_at_most(10**6):
        assert "Expected 4000360000 to " not in refusal(folder)
        assert "at most 1000000000 parameters" in refusal(folder)
    forge(folder, network={"kind": "mlp", "n_features": 9000, "hidden": [99999], "n_outputs": 1})
    with memory_of_at_most(10**6):
        assert "Expected 3600763996 to 3601812572 bytes, found 372" in refusal(folder)


@pytest.fixture
def no_hanging():
    """Fails a test that waits for a pipe instead of waiting with it."""

    def hang(*_):
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("no_hanging")
@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "link", "dangling link", "device", "socket", "folder"])
def test_only_regular_files_are_opened(name, kind, folder, monkeypatch):
    shutil.move(folder / name, folder.parent / name)
    monkeypatch.chdir(folder)  # A socket's path must be short.
    if kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(name)
    elif kind == "pipe":
        os.mkfifo(name)
    elif kind == "folder":
        os.mkdir(name)
    else:
        there = {"link": f"../{name}", "dangling link": "nowhere", "device": "/dev/zero"}
        os.symlink(there[kind], name)

    assert refusal(folder) == (
        f"'{folder / name}': Expected a regular file, found a link, folder, pipe or device. "
        "Put the file itself there."
    )


@pytest.mark.usefixtures("no_hanging")
@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_a_file_exchanged_after_it_was_looked_at_does_no_harm(kind, folder, monkeypatch):
    path = folder / "model.json"
    status = os.lstat(path)
    path.unlink()
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    monkeypatch.setattr(os, "lstat", lambda _: status)
    assert ("Expected the JSON of a model" if kind == "pipe" else "Cannot be read") in refusal(
        folder
    )


class Trap:
    """Makes a folder as soon as it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


WATCHING = []
RUNS = ("exec", "compile", "import", "pickle.", "marshal.", "os.", "subprocess.", "socket.")


def watch(event, args):
    """An audit hook: it sees what no list of functions to replace would."""
    if WATCHING and (event.startswith(RUNS) or event.startswith("ctypes.")):
        WATCHING.append((event, str(args)))


@pytest.fixture(scope="module")
def audit():
    sys.addaudithook(watch)  # For good: Python has no way to remove it.


@pytest.fixture
def nothing_runs(audit, folder, monkeypatch):
    """A context in which whatever runs code from outside fails the test."""
    load_model(folder)  # Libraries import parts of themselves when first used.

    def forbid(*args, **kwargs):
        pytest.fail("code was run")

    @contextmanager
    def watched():
        with monkeypatch.context() as patch:
            for module, name in [
                (pickle, "load"),
                (pickle, "loads"),
                (pickle, "Unpickler"),
                (torch, "load"),
                (importlib, "import_module"),
                (subprocess, "Popen"),
                (os, "system"),
                (builtins, "eval"),
                (builtins, "exec"),
            ]:
                patch.setattr(module, name, forbid)
            WATCHING[:] = ["start"]
            try:
                yield
            finally:
                seen = WATCHING[1:]
                WATCHING.clear()
        assert seen == []

    return watched


def test_the_watch_sees_what_it_should(nothing_runs, tmp_path):
    """A check that cannot fail would be none."""
    for run in (
        lambda: pickle.loads(b""),
        lambda: torch.load(io.BytesIO()),
        lambda: eval("1"),
        lambda: importlib.import_module("this"),
    ):
        with pytest.raises(pytest.fail.Exception), nothing_runs():
            run()
    unpickle = pickle._loads  # Not among the replaced functions: the audit hook's to find.
    content = pickle.dumps(Trap(str(tmp_path / "marker")))
    with pytest.raises(AssertionError, match="mkdir"), nothing_runs():
        unpickle(content)
    assert (tmp_path / "marker").is_dir()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_pickle_is_never_opened(name, protocol, nothing_runs, folder, tmp_path):
    trap = Trap(str(tmp_path / "marker"))
    zipped = io.BytesIO()
    torch.save(trap, zipped)
    pickled = pickle.dumps(trap, protocol)
    for content in (pickled, pickled + bytes(400), zipped.getvalue()):
        if name == "model.safetensors":
            forge(folder, content)
        else:
            (folder / name).write_bytes(content)
        with nothing_runs():
            message = refusal(folder)
        if protocol > 1 or content == zipped.getvalue():
            assert message == (
                f"'{folder / name}': Found a pickle, which could run code and is never opened. "
                "Ask its author for a folder written by save_model."
            )
    assert not (tmp_path / "marker").exists()


def test_code_lying_in_the_folder_is_passed_over(nothing_runs, folder, tmp_path, monkeypatch):
    marker = tmp_path / "marker"
    for name in ("__init__.py", "sitecustomize.py", "model.py", "conftest.py", "json.py"):
        (folder / name).write_text(f"import os\nos.mkdir({str(marker)!r})\n")
    (folder / "model.pkl").write_bytes(pickle.dumps(Trap(str(marker))))
    monkeypatch.chdir(folder)
    for path in (folder, "."):
        with nothing_runs():
            assert load_model(path).record.objective == "irmv1"
    assert not marker.exists()


def test_strings_that_mean_something_elsewhere_mean_nothing_here(nothing_runs, tmp_path):
    marker = tmp_path / "marker"
    strings = [
        f"!!python/object/apply:os.mkdir ['{marker}']",
        f"{{{{ cycler.__init__.__globals__.os.mkdir('{marker}') }}}}",
        f"{{% import os %}}{{{{ os.mkdir('{marker}') }}}}",
        f"__import__('os').mkdir('{marker}')",
        f"$(mkdir {marker})",
        "%(x)s {0.__class__} ${x}",
        "../../etc/passwd",
        "os:mkdir",
        "\x1b[2J\x00",
    ]
    for i, string in enumerate(strings):
        told = {string: string, "__class__": string, "__reduce__": [string], "py/object": string}
        record = make_record(
            target=told,
            objective=string,
            training=told,
            encoder=told,
            environments={string: 3, "__class__": 1},
            provenance={string: string, "__reduce__": string},
        )
        save_model(tmp_path / str(i), record, make_network())
        with nothing_runs():
            back = load_model(tmp_path / str(i)).record
        assert back.model_copy(update={"tensors_sha256": record.tensors_sha256}) == record
    assert not marker.exists()
