"""Modules for Weir in Python: records as rows over the columns that cross the wall, and a builder for what becomes of them.

    import weir

    class Transform(weir.Module):
        about = "Keeps readings above a limit."
        parameters = {"limit": weir.Parameter("number", "Readings up to this are dropped.", preset=50.0)}

        def start(self, config):
            self.limit = config["limit"]

        def look(self, batch, out):
            for record in batch:
                if record.json()["temperature"] > self.limit:
                    out.keep(record)

A module sees no clock, no random numbers, no files and no network. What it keeps in attributes is a cache, since its instance may be
replaced by a fresh one between any two batches; what it has to remember it keeps in `weir_state`. All that it imports must be
imported at the top of its files.
"""

import json
from dataclasses import dataclass
from typing import Any, Iterator, List, Optional, Tuple

from componentize_py_types import Err
from wit_world.imports import types

NOT_GIVEN = object()


class Retry(Exception):
    """The batch is tried again a little later."""


class Fatal(Exception):
    """The pipeline stops until somebody looks."""


@dataclass
class Parameter:
    """Something that a pipeline sets for the module; without a `preset` it is required."""

    kind: str
    """`text`, `integer`, `number`, `boolean` or `json`."""
    about: str
    preset: Any = None


def to_bytes(value: Any) -> Optional[bytes]:
    """Text, bytes, or anything else as JSON, as bytes; `None` stays `None`."""
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def item(column: types.Column, index: int) -> Optional[bytes]:
    """Item `index` of a column."""
    if column.nulls is not None and column.nulls[index]:
        return None
    return column.data[column.ends[index - 1] if index else 0 : column.ends[index]]


def column(items: List[Optional[bytes]]) -> types.Column:
    """A column of `items`."""
    ends, end = [], 0
    for each in items:
        end += len(each) if each is not None else 0
        ends.append(end)
    nulls = bytes(each is None for each in items) if None in items else None
    return types.Column(ends, b"".join(each for each in items if each is not None), nulls)


class Record:
    """A record of a batch. Keys, values and headers are there if the module asks for them."""

    __slots__ = ("_batch", "index")

    def __init__(self, batch: types.Batch, index: int):
        self._batch = batch
        self.index = index

    @property
    def timestamp(self) -> int:
        """Milliseconds since 1970."""
        return self._batch.timestamps[self.index]

    @property
    def key(self) -> Optional[bytes]:
        return item(self._batch.keys, self.index)

    @property
    def value(self) -> Optional[bytes]:
        return item(self._batch.values, self.index)

    @property
    def headers(self) -> List[Tuple[str, Optional[bytes]]]:
        """Name and value of each, in order."""
        all_of = self._batch.headers
        first = all_of.ends[self.index - 1] if self.index else 0
        return [(item(all_of.names, n).decode(), item(all_of.values, n)) for n in range(first, all_of.ends[self.index])]

    @property
    def late(self) -> bool:
        """Later than the watermark."""
        return self._marked(1)

    @property
    def redated(self) -> bool:
        """The node put its own time in the place of one that was out of bounds."""
        return self._marked(4)

    def _marked(self, bit: int) -> bool:
        marks = self._batch.marks
        return marks is not None and bool(marks[self.index] & bit)

    def json(self) -> Any:
        """The value as JSON; `None` where it is none."""
        try:
            return json.loads(self.value)
        except (TypeError, ValueError):
            return None


class Batch:
    """Records to look at, in order."""

    def __init__(self, batch: types.Batch):
        self._batch = batch
        self.current: Optional[int] = None
        """The record that is being looked at: it is told of when the module raises."""

    def __len__(self) -> int:
        return len(self._batch.timestamps)

    @property
    def source(self) -> int:
        """Which of `config["sources"]` the records come from."""
        return self._batch.source

    @property
    def now(self) -> int:
        """When the node took them in, in milliseconds since 1970; the same when they are looked at again."""
        return self._batch.now

    @property
    def watermark(self) -> int:
        """No record before this time is expected any more."""
        return self._batch.watermark

    def __iter__(self) -> Iterator[Record]:
        before = self.current
        try:
            for index in range(len(self)):
                self.current = index
                yield Record(self._batch, index)
            self.current = before
        finally:
            # Left early, or because something was raised: then it is the record of the outermost loop that is told of.
            if before is not None:
                self.current = before


class _Emits:
    def __init__(self, has: tuple) -> None:
        self.has = has
        self.sources: List[int] = []
        self.outputs: List[int] = []
        self.timestamps: List[int] = []
        self.keys: List[Optional[bytes]] = []
        self.values: List[Optional[bytes]] = []
        self.ends: List[int] = []
        self.names: List[Optional[bytes]] = []
        self.items: List[Optional[bytes]] = []


class Out:
    """What becomes of a batch. A record of which nothing is said is dropped."""

    def __init__(self, outputs: List[str], length: int):
        self._outputs = outputs
        self._routes = bytearray(length)
        self._copies: List[Tuple[int, int]] = []
        self._reasons: List[Tuple[int, str]] = []
        self._emits: List[_Emits] = []

    def _number(self, output: str) -> int:
        if output not in self._outputs:
            raise Fatal(f"the module has no output `{output}`: name it in `outputs`")
        return self._outputs.index(output) + 1

    def keep(self, record: Record, output: str = "main") -> None:
        """Lets a record go to `output` as it came; said again, to another one too."""
        number = self._number(output)
        if self._routes[record.index] == 0:
            self._routes[record.index] = number
        else:
            self._copies.append((record.index, number))

    def reject(self, record: Record, why: str) -> None:
        """Makes a record a dead letter, with why in words."""
        self._routes[record.index] = 255
        self._reasons.append((record.index, why))

    def emit(
        self,
        record: Record,
        *,
        key: Any = NOT_GIVEN,
        value: Any = NOT_GIVEN,
        timestamp: Any = NOT_GIVEN,
        headers: Any = NOT_GIVEN,
        bare: bool = False,
        output: str = "main",
    ) -> None:
        """Sends a new record that stems from `record`. What is not given is what `record` has; `None` is none. Keys and values are
        text, bytes, or anything else as JSON. `headers` are a list of name and value, behind those of `record`, or with `bare`
        instead of them. Of records from which new ones stem, later ones come later."""
        number = self._number(output)
        # Before anything is added: what raises here leaves nothing half said.
        new_key = to_bytes(None if key is NOT_GIVEN else key)
        new_value = to_bytes(None if value is NOT_GIVEN else value)
        given = [] if headers is NOT_GIVEN else headers
        new_headers = [(to_bytes(name), to_bytes(value)) for name, value in given]
        has = tuple(given is not NOT_GIVEN for given in (timestamp, key, value, headers)) + (bare,)
        if self._emits and self._emits[-1].sources[-1] > record.index:
            raise Fatal("new records must stem from records in the order of the batch")
        # Of the same kind as the last one, or a list of its own: those of one record come out as they were sent.
        if not self._emits or self._emits[-1].has != has:
            self._emits.append(_Emits(has))
        emits = self._emits[-1]
        emits.sources.append(record.index)
        emits.outputs.append(number)
        if timestamp is not NOT_GIVEN:
            emits.timestamps.append(timestamp)
        if key is not NOT_GIVEN:
            emits.keys.append(new_key)
        if value is not NOT_GIVEN:
            emits.values.append(new_value)
        if headers is not NOT_GIVEN:
            emits.names.extend(name for name, _ in new_headers)
            emits.items.extend(value for _, value in new_headers)
            emits.ends.append(len(emits.names))

    def outcome(self) -> types.Outcome:
        """What crosses the wall."""
        emits = []
        for e in self._emits:
            timestamp, key, value, headers, bare = e.has
            emits.append(
                types.Emits(
                    sources=e.sources,
                    outputs=bytes(e.outputs),
                    timestamps=e.timestamps if timestamp else None,
                    keys=column(e.keys) if key else None,
                    values=column(e.values) if value else None,
                    headers=types.Headers(e.ends, column(e.names), column(e.items)) if headers else None,
                    bare=bare,
                )
            )
        return types.Outcome(bytes(self._routes), self._copies, emits, self._reasons)


_KINDS = {
    "text": (types.Kind.TEXT, types.Value_Text),
    "integer": (types.Kind.INTEGER, types.Value_Integer),
    "number": (types.Kind.NUMBER, types.Value_Number),
    "boolean": (types.Kind.BOOLEAN, types.Value_Boolean),
    "json": (types.Kind.JSON, types.Value_Json),
}


def _said(error: BaseException) -> str:
    return str(error) if isinstance(error, (Retry, Fatal)) else f"{type(error).__name__}: {error}"


class Module:
    """A module: derive `Transform` from it."""

    about = ""
    """One sentence on what it does."""
    parameters: dict = {}
    """A `Parameter` by name."""
    outputs = ["main"]
    columns = {"values"}
    """Those of `keys`, `values` and `headers` that it looks at."""
    state_version = 0
    """Version of what it keeps in state; 0 if it keeps none."""
    _at_work: "Module"

    def start(self, config: dict) -> None:
        """Called once, first. `config` has a value for each parameter, and `partition` and `sources` of the pipeline."""

    def look(self, batch: Batch, out: Out) -> None:
        """Says what becomes of a batch. What it raises while it looks at a record sets that record aside, with what was raised as
        the reason."""
        raise NotImplementedError

    def describe(self) -> types.Descriptor:
        parameters = []
        for name, parameter in self.parameters.items():
            kind, value = _KINDS[parameter.kind]
            preset = parameter.preset
            if preset is not None:
                preset = value(json.dumps(preset) if parameter.kind == "json" else preset)
            parameters.append(types.Parameter(name, kind, preset, parameter.about))
        return types.Descriptor(self.about, parameters, self.state_version)

    def init(self, c: types.Config) -> types.Plan:
        config: dict = {"partition": c.partition, "sources": c.sources}
        for name, value in c.values:
            config[name] = json.loads(value.value) if isinstance(value, types.Value_Json) else value.value
        # Each call comes on an object of its own: what `start` leaves on this one is for all that follow.
        type(self)._at_work = self
        try:
            self.start(config)
        except Exception as error:
            raise Err(_said(error)) from error
        return types.Plan(list(self.outputs), *(name in self.columns for name in ("keys", "values", "headers")))

    def process(self, b: types.Batch) -> types.Outcome:
        batch = Batch(b)
        out = Out(list(self.outputs), len(batch))
        try:
            self._at_work.look(batch, out)
            return out.outcome()
        except Retry as error:
            raise Err(types.Fault_Retry(_said(error))) from error
        except Exception as error:
            if isinstance(error, Fatal) or batch.current is None:
                raise Err(types.Fault_Fatal(_said(error))) from error
            raise Err(types.Fault_Poison((batch.current, _said(error)))) from error
