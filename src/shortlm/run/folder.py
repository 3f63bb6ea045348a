"""The folder that `run` and `compare` work in: it is claimed, what is done there is kept, all else is done and written.

An output counts as done if the key in its artifact's provenance is the one that it has to have now. Key and output
appear together, so that work which was stopped at any moment goes on. Under torchrun the first process alone writes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from shortlm.artifacts import Artifact
from shortlm.errors import ModelError, OutputError, ShortLMError
from shortlm.outputs import write_text
from shortlm.progress import is_main

Say = Callable[[str], object]


class Mark(NamedTuple):
    """The file that makes a folder ours: it begins with `header` and holds all settings."""

    file: str
    header: str
    what: str  # is done in such a folder
    column: int = 0  # width of the stages' names before what is said of them; 0: no names


@dataclass(frozen=True)
class Output:
    """What a stage leaves: where, as what kind of artifact, and with which key it counts as done."""

    path: Path
    kind: type[Artifact]
    key: str
    inside: str = ""  # the artifact's file, where `path` is a checkpoint folder; the stage has put the key there

    @property
    def artifact(self) -> Path:
        """The file of the artifact."""
        return self.path / self.inside if self.inside else self.path

    def is_there(self) -> bool:
        """Whether anything is; an empty folder is nothing."""
        return any(self.path.iterdir()) if self.path.is_dir() else self.path.exists()

    def load(self) -> Any:
        """The artifact, whatever its key. Raises OutputError naming the file if it can't be read."""
        try:
            return self.kind.load(self.artifact)
        except ShortLMError as error:
            why = str(error).removeprefix(f"{self.artifact}: ")
            raise OutputError(
                f"{self.artifact}: can't be read ({why}); delete {self.path} or give --force to make it anew, or "
                "choose another --out"
            ) from error

    def kept(self) -> Any:
        """The artifact if it is there with the key; None for anything else."""
        try:
            found = self.load() if self.is_there() else None
        except OutputError:
            return None
        return found if found and found.provenance.key == self.key else None


class RunFolder:
    """A folder with its outputs by the names of their stages, in the order of the work."""

    def __init__(
        self,
        path: Path,
        mark: Mark,
        settings: str,
        outputs: dict[str, Output],
        why_other: Callable[[Any], str],
        force: bool = False,
        say: Say = lambda line: None,
    ):
        """`why_other` says of an artifact with another key what it "was made with"."""
        self.path, self.mark, self.settings, self.outputs = path, mark, settings, outputs
        self.why_other, self.force, self.say = why_other, force, say
        self.made_any = False

    def claim(self) -> None:
        """Make the folder ours. Raises OutputError if that would replace something unasked."""
        self._refuse_foreign()
        if not self.force:
            self._refuse_other()
        write_text(self.path / self.mark.file, self.mark.header + self.settings, force=True)

    def _refuse_foreign(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"{self.path}: is a file, a folder is needed; choose another --out")
        mark = self.path / self.mark.file
        ours = mark.is_file() and mark.read_bytes().startswith(self.mark.header.encode())
        if self.path.is_dir() and any(self.path.iterdir()) and not ours:
            raise OutputError(
                f"{self.path}: the folder exists, is not empty and holds no {self.mark.what}; choose another --out"
            )

    def _refuse_other(self) -> None:
        """What is there has to be readable, and to have its key."""
        for output in self.outputs.values():
            found = output.load() if output.is_there() else None
            if found and found.provenance.key != output.key:
                raise OutputError(
                    f"{output.path}: was made with {self.why_other(found)}; give --force to redo what differs, or "
                    "another --out"
                )

    def do(self, name: str, make: Callable[[], Any], shared: bool = False) -> Any:
        """The artifact of a stage: the one that is there with its key, or a new one, which is written.

        What is not `shared` the first process does alone; the others get None.
        """
        if not (shared or is_main()):
            return None
        output = self.outputs[name]
        if there := output.kept():
            self._tell(name, f"kept {output.path}")
            return there
        artifact = make()
        self.made_any = True
        if is_main():
            self._write(name, output, artifact)
        return artifact

    def do_if_possible(self, name: str, make: Callable[[], Any]) -> Any:
        """The same; what a model can't do here (too large for the memory, say) is said, and the rest is not lost."""
        try:
            return self.do(name, make)
        except ModelError as error:
            self.say(f"{name.ljust(self.mark.column)} left out: {error}")
            return None

    def _write(self, name: str, output: Output, artifact: Any) -> None:
        if not output.inside:
            artifact.provenance.key = output.key
            artifact.save(output.path, self.force)
        seconds = artifact.provenance.seconds
        self._tell(name, str(output.path) + (f" ({seconds:.1f} s)" if self.mark.column and seconds else ""))

    def _tell(self, name: str, text: str) -> None:
        self.say(f"{name.ljust(self.mark.column)} {text}" if self.mark.column else text)
