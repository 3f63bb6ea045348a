"""Where llama.cpp's converter and llama.cpp itself come from: the source package of llama-cpp-python, which holds both.

Its converter stands in the environment's folder; the library is compiled when the environment is made.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

from shortlm.errors import ExportError
from shortlm.export.environment import Say, Tool, cache_folder, last_lines, run_logged
from shortlm.paths import user_path

RELEASE = "llama-cpp-python==0.3.36"
NEEDED = ("sentencepiece>=0.1.98", "protobuf>=4.21")  # by the converter, beyond what we need ourselves
CONVERTER = "convert_hf_to_gguf.py"
PARTS = ("conversion/", "gguf-py/")  # what it imports from beside it
CONVERTING = Tool("gguf-converter", NEEDED, "sentencepiece, google.protobuf", "two small packages")
RUNNING = Tool(
    "llama-cpp", (RELEASE, *NEEDED), "llama_cpp, sentencepiece, google.protobuf",
    "llama.cpp is compiled, which needs a C++ compiler and 4 to 15 minutes",
)  # fmt: skip


def converter_in(given: str | None, python: Path, say: Say) -> Path:
    """The converter of the checkout `given`, else of the release that is run. Raises ExportError if it isn't there."""
    if given:
        path = user_path(given)
        path = path / CONVERTER if path.is_dir() else path
        if not path.is_file():
            raise ExportError(f"--llama-cpp {given}: holds no {CONVERTER}; give a checkout of llama.cpp")
        return path
    folder = cache_folder() / "llama.cpp" / RELEASE.rpartition("=")[2]
    if not (folder / CONVERTER).is_file():
        say(f"fetching llama.cpp's converter ({RELEASE}, 77 MB; once)")
        _unpack(_source(python, folder), folder)
    return folder / CONVERTER


def _source(python: Path, folder: Path) -> Path:
    """The source package, as pip finds it."""
    log = cache_folder() / "logs" / "llama-cpp-source.txt"
    command = [python, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps", "--no-binary", ":all:"]
    if run_logged([*command, RELEASE, "--dest", folder], log):
        raise ExportError(
            f"{RELEASE} can't be fetched ({last_lines(log)}); the log is {log}; without network, give --llama-cpp a "
            "checkout of llama.cpp"
        )
    return next(folder.glob("*.tar.gz"))


def _unpack(source: Path, folder: Path) -> None:
    """The converter last, since it says that all is there."""
    with tarfile.open(source) as archive:
        for member in archive.getmembers():
            inside = member.name.partition("/vendor/llama.cpp/")[2]
            if inside.startswith(PARTS):
                archive.extract(member.replace(name=inside, deep=False), folder, filter="data")
        last = next(m for m in archive.getmembers() if m.name.endswith("/vendor/llama.cpp/" + CONVERTER))
        archive.extract(last.replace(name=CONVERTER, deep=False), folder, filter="data")
    source.unlink()
