"""State of a module, for worlds that import `weir:module/state`. The stage of the pipeline needs `grants = ["state"]`."""

import json
from typing import Any, Iterator, Tuple

from weir import item, to_bytes
from wit_world.imports import state


class Map:
    """A persistent map from keys to JSON values. Maps of different names are separate."""

    def __init__(self, name: str):
        self._prefix = name.encode() + b"\0"

    def _key(self, key: Any) -> bytes:
        return self._prefix + (to_bytes(key) or b"")

    def get(self, key: Any, default: Any = None) -> Any:
        """Returns the value under `key` (text or bytes), or `default`."""
        value = state.get(self._key(key))
        return default if value is None else json.loads(value)

    def __setitem__(self, key: Any, value: Any) -> None:
        state.put(self._key(key), json.dumps(value, separators=(",", ":")).encode())

    def __delitem__(self, key: Any) -> None:
        state.put(self._key(key), None)

    def items(self) -> Iterator[Tuple[bytes, Any]]:
        """Iterates over keys (as bytes) and values, ascending by key."""
        after = None
        while True:
            keys, values = state.scan(self._prefix, after, 256)
            for n in range(len(keys.ends)):
                after = item(keys, n)
                yield after[len(self._prefix) :], json.loads(item(values, n))
            if not keys.ends:
                return
