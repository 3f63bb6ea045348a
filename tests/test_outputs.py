"""Files and folders that appear whole or not at all, and what killed processes left of them."""

from __future__ import annotations

import os
import platform
import tempfile

import pytest

from shortlm.errors import OutputError
from shortlm.leftovers import scratch_folder
from shortlm.outputs import whole_file, write_text

DEAD = f"{platform.node()}-{2**22 + 1}"  # above any process id
LIVING = f"{platform.node()}-{os.getpid()}"


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_leftovers_of_files_are_cleared(tmp_path):
    for name in (f".a.json.{DEAD}.abc.partial", f".b.json.{DEAD}.abc.partial", f".a.json.{LIVING}.abc.partial"):
        (tmp_path / name).write_text("half")
    (tmp_path / ".mine.partial").write_text("of somebody else")
    write_text(tmp_path / "a.json", "{}")
    assert names(tmp_path) == sorted([f".a.json.{LIVING}.abc.partial", ".mine.partial", "a.json"])


def test_an_original_set_aside_is_put_back(tmp_path):
    for target in ("lost", "there"):
        (tmp_path / f".{target}.{DEAD}.abc.old" / "old").mkdir(parents=True)
        (tmp_path / f".{target}.{DEAD}.abc.old" / "old" / "w").write_text("the original")
    (tmp_path / "there").mkdir()
    write_text(tmp_path / "a.json", "{}")
    assert names(tmp_path) == ["a.json", "lost", "there"]
    assert (tmp_path / "lost" / "w").read_text() == "the original" and not names(tmp_path / "there")


def test_a_file_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(KeyError), whole_file(tmp_path / "a.json") as part:
        part.write_text("half")
        assert part.name.startswith(f".a.json.{LIVING}.")
        raise KeyError
    assert names(tmp_path) == []


def test_a_linked_file_stays_a_link(tmp_path):
    (tmp_path / "link").symlink_to("real")
    write_text(tmp_path / "link", "new", force=True)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"


@pytest.mark.parametrize("force", [True, False])
def test_a_device_is_never_replaced(tmp_path, force):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="pipe: is no regular file; choose another --out"):
        write_text(tmp_path / "pipe", "x", force)
    assert names(tmp_path) == ["pipe"]


def test_a_source_that_cannot_be_read_is_not_the_outputs_fault(tmp_path):
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "out.json"):
        (tmp_path / "source.txt").read_bytes()


def test_scratch_folders_of_killed_processes_are_cleared(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / f"shortlm-tasks.{DEAD}.abc").mkdir()
    (tmp_path / "shortlm-mine").mkdir()
    with scratch_folder("tasks") as folder:
        assert names(tmp_path) == sorted(["shortlm-mine", folder.name])
    assert names(tmp_path) == ["shortlm-mine"]
