"""What a module remembers, for the worlds that import `weir:module/state`. Pipelines say `grants = ["state"]`."""

import json
from typing import Any, Iterator, Tuple

from weir import item, to_bytes
from wit_world.imports import state


class Map:
    """Values as JSON under keys, apart from those of other maps by its name."""

    def __init__(self, name: str):
        self._prefix = name.encode() + b"\0"

    def _key(self, key: Any) -> bytes:
        return self._prefix + (to_bytes(key) or b"")

    def get(self, key: Any, default: Any = None) -> Any:
        """The value under `key`, which is text or bytes."""
        value = state.get(self._key(key))
        return default if value is None else json.loads(value)

    def __setitem__(self, key: Any, value: Any) -> None:
        state.put(self._key(key), json.dumps(value, separators=(",", ":")).encode())

    def __delitem__(self, key: Any) -> None:
        state.put(self._key(key), None)

    def items(self) -> Iterator[Tuple[bytes, Any]]:
        """Key and value of each, ascending by key."""
        after = None
        while True:
            keys, values = state.scan(self._prefix, after, 256)
            for n in range(len(keys.ends)):
                after = item(keys, n)
                yield after[len(self._prefix) :], json.loads(item(values, n))
            if not keys.ends:
                return
