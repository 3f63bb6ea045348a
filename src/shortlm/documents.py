"""JSON and YAML read within bounds: whatever stands in a file, reading it ends soon, and bad files give one line.

Bounded are the bytes of a file, the depth of nesting and, in YAML, what aliases add up to: ten lines of aliases to
aliases stand for billions of values.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

import yaml

from shortlm.errors import ShortLMError, reason, shown

MOST_JSON = 256 * 2**20  # bytes of a file that is read as a whole
MOST_LIST = 2**31  # bytes of a list of records
MOST_YAML = 2**20
MOST_CONTAINERS = 2_000_000  # lists and mappings in JSON, each of which takes 50 to 300 bytes, whatever it holds
MOST_VALUES = 20_000_000
MOST_NODES = 100_000  # values of a YAML file with aliases written out
BOM = b"\xef\xbb\xbf"
RECORDS = "one object per line, or a list of objects, is needed"
Kind = type[ShortLMError]


def read_bytes(path: Path, kind: Kind, most: int = MOST_JSON) -> bytes:
    """The whole of a file. Raises `kind` if it has more than `most` bytes or can't be read."""
    try:
        size = path.stat().st_size
        if size > most:
            raise kind(f"{path}: has {size:,} bytes, at most {most:,} are read; is this the right file?")
        return path.read_bytes()
    except OSError as error:
        raise kind(f"{path}: can't be read ({error.strerror or error})") from error


def read_json(path: Path, kind: Kind, most: int = MOST_JSON, hint: str = "", infinity: bool = False) -> Any:
    """What a JSON file holds. Raises `kind` naming the file, as parse_json does."""
    return parse_json(read_bytes(path, kind, most), str(path), kind, hint, infinity)


def is_json_list(path: Path) -> bool:
    """Whether a .json or .jsonl file holds one list, not a value per line: told by its first character."""
    with path.open("rb") as file:
        return file.read(2**16).removeprefix(BOM).lstrip().startswith(b"[")


def read_json_list(path: Path, kind: Kind) -> list[Any]:
    """The records of a file that holds one list. It is read as a whole; JSON Lines may be longer."""
    content = parse_json(read_bytes(path, kind, MOST_LIST).removeprefix(BOM), str(path), kind)
    if not isinstance(content, list):
        raise kind(f"{path}: holds a {type(content).__name__}, a list of records is needed")
    return content


def parse_json(
    raw: bytes | str, where: str, kind: Kind, hint: str = "", infinity: bool = False, unique: bool = False
) -> Any:
    """What JSON says. Raises `kind` for what is no JSON, too deep nesting, endless numbers, and NaN and infinity unless
    `infinity` allows them (configs of some state-space models hold it), and with `unique` for a key that stands twice
    in one mapping. `hint` stands at the end of its message.
    """
    refuse_crowded(raw, where, kind, hint)
    constant, pairs = None if infinity else _refuse_constant, _refuse_twice if unique else None
    try:
        return json.loads(raw, parse_constant=constant, object_pairs_hook=pairs)
    except RecursionError as error:
        raise kind(f"{where}: is nested too deeply{hint}") from error
    except ValueError as error:  # also of bytes that are no UTF-8, and of numbers with thousands of digits
        raise kind(f"{where}: is not valid JSON ({reason(error)}){hint}") from error


def refuse_crowded(raw: bytes | str, where: str, kind: Kind, hint: str = "", most: int = MOST_VALUES) -> None:
    """Raise `kind` if JSON holds so many values that they take far more memory than its bytes."""
    lists, mappings, commas = (_times(raw, sign) for sign in "[{,")
    if lists + mappings > MOST_CONTAINERS or commas > most:
        raise kind(f"{where}: holds more than {most:,} values or {MOST_CONTAINERS:,} lists{hint}")


def _times(raw: bytes | str, sign: str) -> int:
    return raw.count(sign) if isinstance(raw, str) else raw.count(sign.encode())


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"{shown(twice)} stands there twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def parse_yaml(text: str, where: str, kind: Kind) -> Any:
    """What YAML says; dates stay text. Raises `kind` for what is no YAML, or stands for too much."""
    try:
        loader = _Loader(text)  # refuses control characters
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > MOST_NODES:
            raise kind(f"{where}: its aliases stand for more than {MOST_NODES:,} values; write out what is meant")
        return loader.construct_document(node)
    except RecursionError as error:
        raise kind(f"{where}: is nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:
        raise kind(f"{where}: is not valid YAML ({reason(error, lines=True)})") from error


def _size(node: Any, known: dict[int, int]) -> int:
    """Values that a node stands for with aliases written out; more than the limit where one holds itself."""
    if id(node) not in known:
        known[id(node)] = MOST_NODES + 1  # while it is counted
        parts = node.value if isinstance(node.value, list) else []
        inner = (n for part in parts for n in (part if isinstance(part, tuple) else (part,)))
        known[id(node)] = min(MOST_NODES + 1, 1 + sum(_size(n, known) for n in inner))
    return known[id(node)]


class _Loader(yaml.SafeLoader):
    """Safe, without dates: no setting is one, and an impossible one is an error in the middle of parsing."""


_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
    for letter, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
