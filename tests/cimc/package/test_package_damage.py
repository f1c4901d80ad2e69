"""A damaged package, or one of another format, is refused with a line that says what to do."""

import hashlib
import json

import pytest

from cimc.chip import chip_text, parse_chip
from cimc.errors import CimcError
from cimc.package import FORMAT, read_package, write_package
from tests.cimc.package.package_files import contents, package_on


def test_every_file_of_the_package_is_under_a_digest(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["sha256"]) == set(contents(folder)) - {"manifest.json", "manifest.sha256"}
    digest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    assert (folder / "manifest.sha256").read_text() == f"{digest}  manifest.json\n"


@pytest.mark.parametrize(
    "name",
    [
        "chip.toml",
        "mapping.json",
        "digital.safetensors",
        "model.onnx",
        "network.onnx",
        "program/targets.npy",
        "program/array_0003.csv",
        "program/addresses.npz",
        "program/blocks.csv",
        "README.md",
    ],
)
def test_changed_or_missing_file_is_named(copy, name):
    path = copy / name
    original = path.read_bytes()
    path.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    with pytest.raises(CimcError, match=f"is damaged: {name} does not match its SHA-256; remove it and export again"):
        read_package(copy)
    path.unlink()
    with pytest.raises(CimcError, match=f"{path.name} is missing"):
        read_package(copy)
    path.write_bytes(original)
    read_package(copy)


def test_a_mapping_of_another_scheme_than_the_chip_is_refused(copy):
    rewrite_mapping(copy, lambda text: text.replace('"columns_per_weight":2', '"columns_per_weight":1', 1))
    with pytest.raises(CimcError, match="damaged"):
        read_package(copy)


def test_a_block_in_an_array_that_is_not_there_is_refused(copy):
    def beyond(text: str) -> str:
        mapping = json.loads(text)
        mapping["layers"][0]["blocks"][0][4] = 99
        return json.dumps(mapping)

    rewrite_mapping(copy, beyond)
    with pytest.raises(CimcError, match=r"no valid mapping \(at layers\.0\)"):
        read_package(copy)


def rewrite_mapping(folder, change):
    """Change the mapping of a package, and its digest with it."""
    path, manifest_path = folder / "mapping.json", folder / "manifest.json"
    changed = change(path.read_text())
    assert changed != path.read_text()
    path.write_text(changed)
    manifest = json.loads(manifest_path.read_text())
    manifest["sha256"]["mapping.json"] = hashlib.sha256(changed.encode()).hexdigest()
    write_manifest(folder, manifest)


def write_manifest(folder, manifest):
    """Write a manifest under a good seal."""
    content = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(content)
    (folder / "manifest.sha256").write_text(f"{hashlib.sha256(content).hexdigest()}  manifest.json\n")


@pytest.mark.parametrize("manifest", [b"", b"{", b"[]", b"{}", b'{"format": 2, "sha256": []}', b"\xff"])
def test_damaged_manifest_is_refused(copy, manifest):
    (copy / "manifest.json").write_bytes(manifest)
    with pytest.raises(CimcError, match="damaged"):
        read_package(copy)


def test_any_flipped_bit_of_the_manifest_is_found(copy):
    for name in ("manifest.json", "manifest.sha256"):
        path = copy / name
        original = path.read_bytes()
        for place in range(0, len(original), max(len(original) // 40, 1)):
            changed = bytearray(original)
            changed[place] ^= 1 << place % 8
            path.write_bytes(changed)
            with pytest.raises(CimcError, match="damaged"):
                read_package(copy)
        path.write_bytes(original)


def test_other_format_says_what_to_do(copy):
    path = copy / "manifest.json"
    write_manifest(copy, {**json.loads(path.read_text()), "format": FORMAT + 1})
    with pytest.raises(CimcError, match=f"has format {FORMAT + 1}, this version reads 2 to {FORMAT}; export it again"):
        read_package(copy)


def test_package_of_format_2_is_read(copy, package):
    """Written before the tables had first lines and the folder a README.md."""
    (copy / "README.md").unlink()
    path = copy / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["sha256"]["README.md"]
    path.write_text(json.dumps({**manifest, "format": 2}))
    (copy / "manifest.sha256").unlink()  # earlier versions wrote none
    assert read_package(copy).mapping == package.mapping


@pytest.mark.parametrize(("number", "levels", "step"), [(2, None, 20.0), (FORMAT, 4, None)])
def test_levels_of_format_2_were_the_update_step_alone(package, tmp_path, number, levels, step):
    text = chip_text("brram-256x64").replace("granularity_uS = 4.0 ", "levels = 4 ")
    write_package(tmp_path / "old", package_on(package, text))
    path = tmp_path / "old" / "manifest.json"
    write_manifest(tmp_path / "old", {**json.loads(path.read_text()), "format": number})
    loaded = read_package(tmp_path / "old")
    assert (loaded.chip.cell.levels, loaded.chip.cell.granularity_uS) == (levels, step)
    assert loaded.chip_text == (text if step is None else text.replace("levels = 4 ", "granularity_uS = 20.0 "))
    assert parse_chip(loaded.chip_text, "old") == loaded.chip


def test_folder_without_a_package_says_what_to_do(tmp_path):
    for place in (tmp_path, tmp_path / "none"):
        with pytest.raises(CimcError, match=r"is not a package .*make one with: cimc export"):
            read_package(place)
