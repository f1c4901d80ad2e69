"""The `.cim` file: what is written comes back, any change is noticed, and a failed write leaves no trace."""

import hashlib
import io
import json
import resource
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from cimc.artifact import FORMAT, MEMBERS, SEAL, WEIGHTS, Artifact, network_digest, read_artifact, write_artifact
from cimc.chip import chip_text, parse_chip
from cimc.errors import CimcError
from passes.mapper.map_network import map_network
from passes.pipeline import lower
from passes.read import read_network
from tests.networks import constant, network
from tests.sealing import members_of, redigested, sealed, with_manifest

LENET1 = Path(__file__).parents[2] / "models" / "lenet1.onnx"


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    text = chip_text("brram-soc")
    chip = parse_chip(text, "brram-soc")
    lowered = lower(read_network(LENET1))
    state = {
        "weight/fc1": np.random.default_rng(0).random((3, 4), dtype=np.float32),
        "updates/fc1": np.arange(6, dtype=np.int32).reshape(2, 3),
        "digital/gain": np.array(2.5, np.float32),
        "digital/none": np.empty((0, 2), np.float32),
    }
    history = {"step": 3, "epochs": [{"loss": 0.1}], "options": {"lr": 0.004, "name": "größer"}}
    return Artifact("lenet1", lowered, chip, text, map_network(lowered, chip), state, history)


@pytest.fixture(scope="module")
def content(artifact, tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("cim") / "small.cim"
    # A short network keeps the scan of all bytes fast.
    relu = network([helper.make_node("Relu", ["x"], ["y"])], {"x": ["N", 2]}, {"y": ["N", 2]})
    write_artifact(path, replace(artifact, network=relu))
    return path.read_bytes()


def refusal(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(CimcError) as caught:
        read_artifact(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_what_is_written_comes_back(artifact, tmp_path):
    path = tmp_path / "lenet1.cim"
    write_artifact(path, artifact)
    loaded = read_artifact(path)
    assert network_digest(loaded.network) == network_digest(artifact.network)
    assert replace(loaded, state={}, network=artifact.network) == replace(artifact, state={})
    assert loaded.state.keys() == artifact.state.keys()
    for name, array in artifact.state.items():
        assert loaded.state[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded.state[name], array)


def test_same_contents_give_the_same_bytes(artifact, tmp_path):
    one, two, other = tmp_path / "one.cim", tmp_path / "two.cim", tmp_path / "other.cim"
    write_artifact(one, artifact)
    write_artifact(two, replace(artifact, state=dict(artifact.state)))
    write_artifact(other, replace(artifact, model="lenet2"))
    assert one.read_bytes() == two.read_bytes()
    assert one.read_bytes() != other.read_bytes()


def test_resealed_contents_are_accepted(content, tmp_path):
    path = tmp_path / "resealed.cim"
    path.write_bytes(sealed(members_of(content)))
    assert read_artifact(path).model == "lenet1"


def test_every_byte_is_under_the_seal(content, tmp_path):
    path = tmp_path / "flipped.cim"
    path.write_bytes(content)
    accepted = []
    with path.open("r+b", buffering=0) as file:
        for position, byte in enumerate(content):
            file.seek(position)
            file.write(bytes([byte ^ 1 << position % 8]))
            try:
                read_artifact(path)
                accepted.append(position)
            except CimcError:
                pass
            file.seek(position)
            file.write(bytes([byte]))
    assert accepted == []
    assert path.read_bytes() == content


@given(where=st.floats(0, 1, exclude_max=True), mask=st.integers(1, 255))
def test_any_change_of_one_byte_is_noticed(content, tmp_path_factory, where, mask):
    damaged = bytearray(content)
    damaged[int(where * len(damaged))] ^= mask
    refusal(tmp_path_factory.getbasetemp() / "changed.cim", bytes(damaged))


def regions(content: bytes) -> dict[str, int]:
    """One byte position within each part of the zip."""
    central, end = content.index(b"PK\x01\x02"), content.rindex(b"PK\x05\x06")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        state = archive.getinfo("state.safetensors")
    name = content.index(b"state.safetensors", state.header_offset)
    assert name < central
    return {
        "magic": 0,
        "local header time": state.header_offset + 10,
        "local header name": name,
        "payload": name + len("state.safetensors") + 20,
        "central directory": central,
        "central directory attributes": central + 38,
        "end record": end + 8,
        "comment": content.rindex(SEAL),
        "seal": len(content) - 1,
    }


@pytest.mark.parametrize(
    "region",
    [
        "magic",
        "local header time",
        "local header name",
        "payload",
        "central directory",
        "central directory attributes",
        "end record",
        "comment",
        "seal",
    ],
)
def test_flipped_byte_is_noticed_in(region, content, tmp_path):
    damaged = bytearray(content)
    damaged[regions(content)[region]] ^= 0x20
    message = refusal(tmp_path / "damaged.cim", bytes(damaged))
    assert ("not a .cim file" if region == "magic" else "is damaged") in message


@given(keep=st.floats(0, 1, exclude_max=True))
def test_truncated_file_is_refused(content, tmp_path_factory, keep):
    refusal(tmp_path_factory.getbasetemp() / "cut.cim", content[: int(keep * len(content))])


def test_appended_bytes_are_noticed(content, tmp_path):
    assert "damaged" in refusal(tmp_path / "long.cim", content + b"\0")


@pytest.mark.parametrize("data", [b"", b"PK", b"onnx model", b"\x89PNG\r\n\x1a\n" * 50])
def test_file_of_another_kind_is_named_so(data, tmp_path):
    assert "is not a .cim file; make one with: cimc compile" in refusal(tmp_path / "other.cim", data)


def test_zip_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "damaged" in refusal(path, path.read_bytes())


def test_missing_file_and_folder_are_named(tmp_path):
    with pytest.raises(CimcError, match=r"none\.cim does not exist; make one"):
        read_artifact(tmp_path / "none.cim")
    with pytest.raises(CimcError, match=r"is a folder; give a \.cim file"):
        read_artifact(tmp_path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_compressed_members_are_refused(content, tmp_path, compression):
    assert "damaged or made by another" in refusal(tmp_path / "z.cim", sealed(members_of(content), compression))


@pytest.mark.parametrize("name", MEMBERS)
def test_member_is_compared_with_its_digest(content, tmp_path, name):
    members = members_of(content)
    refusal(tmp_path / "swapped.cim", sealed({**members, name: members[name] + b" "}))


@pytest.mark.parametrize("name", ["manifest.json", WEIGHTS, *MEMBERS])
def test_missing_member_is_refused(content, tmp_path, name):
    members = members_of(content)
    del members[name]
    refusal(tmp_path / "less.cim", sealed(members))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("chip.toml", b"\xff"),
        ("chip.toml", b"name = 'x'"),
        ("mapping.json", b"{}"),
        ("mapping.json", b"\xff"),
        ("state.safetensors", b"0123456789"),
        ("history.json", b"{"),
    ],
)
def test_member_that_makes_no_sense_is_refused(content, tmp_path, name, data):
    refusal(tmp_path / "odd.cim", sealed(redigested(content, name, data)))


def test_other_format_says_what_to_do(content, tmp_path):
    message = refusal(tmp_path / "new.cim", sealed(with_manifest(content, format=FORMAT + 1)))
    assert f"has format {FORMAT + 1}, this version reads 3 and {FORMAT}" in message
    assert "compile" in message


@pytest.mark.parametrize("number", [0, 1, 2, FORMAT + 1, "4", None, [4]])
def test_formats_that_are_not_read_are_refused(content, tmp_path, number):
    refusal(tmp_path / "odd.cim", sealed(with_manifest(content, format=number)))


@pytest.mark.parametrize(("number", "levels", "granularity"), [(3, None, 1.0), (FORMAT, 16, None)])
def test_levels_of_format_3_were_the_update_step_alone(artifact, tmp_path, number, levels, granularity):
    """The text, the chip, and what is written of them later agree; a file of today keeps its levels."""
    text, path = chip_text("cimaq-256"), tmp_path / "x.cim"
    write_artifact(path, replace(artifact, chip=parse_chip(text, "cimaq-256"), chip_text=text))
    path.write_bytes(sealed(with_manifest(path.read_bytes(), format=number)))
    loaded = read_artifact(path)
    assert (loaded.chip.cell.levels, loaded.chip.cell.granularity_uS) == (levels, granularity)
    assert loaded.chip.cell.granularity == pytest.approx(1 / 15)
    assert (loaded.chip_text == text) == (number == FORMAT)
    write_artifact(path, loaded)
    again = read_artifact(path)
    assert (again.chip, again.chip_text) == (loaded.chip, loaded.chip_text)
    assert parse_chip(loaded.chip_text, "x") == loaded.chip


@pytest.mark.parametrize(
    "manifest",
    [
        b"[]",
        b"null",
        b'{"format": 4, "sha256": []}',
        b'{"format": 3}',
        b'{"format": 4}',
        b"{",
    ],
)
def test_manifest_of_another_shape_is_refused(content, tmp_path, manifest):
    refusal(tmp_path / "odd.cim", sealed({**members_of(content), "manifest.json": manifest}))


@pytest.mark.parametrize("case", ["missing folder", "below a file", "a folder"])
def test_place_that_cannot_be_written_is_named_and_left_as_it_was(artifact, tmp_path, case):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    target = tmp_path / {"missing folder": "no/x.cim", "below a file": "file/x.cim", "a folder": "folder"}[case]
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CimcError, match="cannot write") as caught:
        write_artifact(target, artifact)
    assert str(target) in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("earlier", [None, b"the earlier file"])
def test_full_disk_leaves_the_earlier_file_and_no_part_of_the_new(artifact, tmp_path, earlier):
    target = tmp_path / "x.cim"
    if earlier is not None:
        target.write_bytes(earlier)
    big = replace(artifact, state={"weight": np.zeros(1 << 20, np.float32)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))  # a write beyond it fails, as on a full disk
    try:
        with pytest.raises(CimcError, match=r"cannot write .*free space"):
            write_artifact(target, big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ([] if earlier is None else ["x.cim"])
    if earlier is not None:
        assert target.read_bytes() == earlier


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError("no space left")])
def test_interrupted_write_leaves_the_earlier_file(artifact, tmp_path, monkeypatch, error):
    target = tmp_path / "x.cim"
    write_artifact(target, artifact)
    before = target.read_bytes()
    written: list[str] = []
    original = zipfile.ZipFile.writestr

    def writestr(self, info, data, *arguments):
        if len(written) == 2:
            raise error
        written.append(info)
        original(self, info, data, *arguments)

    monkeypatch.setattr(zipfile.ZipFile, "writestr", writestr)
    with pytest.raises(CimcError if isinstance(error, OSError) else error):
        write_artifact(target, replace(artifact, model="new"))
    assert [path.name for path in tmp_path.iterdir()] == ["x.cim"]
    assert target.read_bytes() == before


def test_new_file_takes_the_place_of_the_earlier_and_has_usual_rights(artifact, tmp_path):
    target = tmp_path / "x.cim"
    target.write_bytes(b"earlier")
    write_artifact(target, artifact)
    assert read_artifact(target).model == "lenet1"
    assert [path.name for path in tmp_path.iterdir()] == ["x.cim"]
    usual = tmp_path / "usual"
    usual.touch()
    assert target.stat().st_mode == usual.stat().st_mode


def test_written_file_is_an_uncompressed_zip_with_a_digest_of_each_member(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        digests = json.loads(archive.read("manifest.json"))["sha256"]
        assert digests == {name: hashlib.sha256(archive.read(name)).hexdigest() for name in (*MEMBERS, WEIGHTS)}


def test_weights_are_mapped_from_the_file_and_aligned(artifact, tmp_path):
    """Reading a large network must not load its weights, and onnxruntime wants them on even places."""
    path = tmp_path / "small.cim"
    write_artifact(path, artifact)
    weights = {
        name: constant(value)
        for name, value in read_artifact(path).network.graph.initializers.items()
        if constant(value).nbytes >= 1024
    }
    assert set(weights) == {"conv2.weight", "fc1.weight"}
    for name, array in weights.items():
        assert isinstance(array, np.memmap), name
        assert array.ctypes.data % 64 == 0, name
        np.testing.assert_array_equal(array, constant(artifact.network.graph.initializers[name]))


def test_external_data_of_a_crafted_file_is_not_opened(artifact, tmp_path):
    """Only weights.data of the file itself is read, whatever the network names."""
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(range(64)) * 64)
    constant = ir.ExternalTensor(
        str(secret), 0, 4096, ir.DataType.FLOAT, shape=ir.Shape([1024]), name="c", base_dir="/"
    )
    node = ir.Node("", "Constant", [], [ir.AttrTensor("value", constant)], num_outputs=1, name="leak")
    hostile = artifact.network.clone()
    hostile.graph.insert_before(hostile.graph[0], node)
    path = tmp_path / "hostile.cim"
    write_artifact(path, replace(artifact, network=hostile))
    with pytest.raises(CimcError, match="damaged"):
        read_artifact(path)
