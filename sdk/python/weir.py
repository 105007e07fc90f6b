"""Modules for Weir in Python: records as rows over the columns of the contract, and a builder for the outcome of a batch.

    import weir

    class Limit(weir.Module):
        about = "Keeps readings above a limit."
        parameters = {"limit": weir.Parameter("number", "Readings up to this are dropped.", preset=50.0)}

        def init(self, config):
            self.limit = config["limit"]

        def process(self, batch, out):
            for record in batch:
                if record.json()["temperature"] > self.limit:
                    out.keep(record)

    Transform = weir.export(Limit)

A module has no clock, no random numbers, no files and no network. Attributes are a cache: the node may replace an instance by a fresh
one between any two batches. `weir_state` keeps values for good. Import everything at the top of the files: there is no import later.
"""

import json
from dataclasses import dataclass
from typing import Any, Iterator, List, Optional, Tuple, Type

from componentize_py_types import Err
from wit_world.imports import types

NOT_GIVEN = object()


class Retry(Exception):
    """Temporary: the node retries the same batch a little later."""


class Fatal(Exception):
    """Permanent: the pipeline stops until an operator acts."""


@dataclass
class Parameter:
    """A parameter that a pipeline sets; required unless there is a `preset`."""

    kind: str
    """`text`, `integer`, `number`, `boolean` or `json`."""
    about: str
    preset: Any = None


def to_bytes(value: Any) -> Optional[bytes]:
    """Converts text, bytes, or anything else as JSON, to bytes; `None` stays `None`."""
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def item(column: types.Column, index: int) -> Optional[bytes]:
    """Returns item `index` of a column; `None` for null."""
    if column.nulls is not None and column.nulls[index]:
        return None
    return column.data[column.ends[index - 1] if index else 0 : column.ends[index]]


def column(items: List[Optional[bytes]]) -> types.Column:
    """Builds a column of `items`."""
    ends, end = [], 0
    for each in items:
        end += len(each) if each is not None else 0
        ends.append(end)
    nulls = bytes(each is None for each in items) if None in items else None
    return types.Column(ends, b"".join(each for each in items if each is not None), nulls)


class Record:
    """A record of a batch. Keys, values and headers are present only if the module's `columns` name them."""

    __slots__ = ("_batch", "index")

    def __init__(self, batch: types.Batch, index: int):
        self._batch = batch
        self.index = index

    @property
    def timestamp(self) -> int:
        """The timestamp, in milliseconds since 1970."""
        return self._batch.timestamps[self.index]

    @property
    def key(self) -> Optional[bytes]:
        return item(self._batch.keys, self.index)

    @property
    def value(self) -> Optional[bytes]:
        return item(self._batch.values, self.index)

    @property
    def headers(self) -> List[Tuple[str, Optional[bytes]]]:
        """Name and value of each header, in order."""
        all_of = self._batch.headers
        first = all_of.ends[self.index - 1] if self.index else 0
        return [(item(all_of.names, n).decode(), item(all_of.values, n)) for n in range(first, all_of.ends[self.index])]

    @property
    def late(self) -> bool:
        """True if the record arrived after the watermark had passed its timestamp."""
        return self._marked(1)

    @property
    def redated(self) -> bool:
        """True if the timestamp was out of bounds and was replaced by the node's time."""
        return self._marked(4)

    def _marked(self, bit: int) -> bool:
        marks = self._batch.marks
        return marks is not None and bool(marks[self.index] & bit)

    def json(self) -> Any:
        """Returns the value parsed as JSON; `None` if it is not JSON."""
        try:
            return json.loads(self.value)
        except (TypeError, ValueError):
            return None


class Batch:
    """The records of a batch, in order."""

    def __init__(self, batch: types.Batch):
        self._batch = batch
        self.current: Optional[int] = None
        """Index of the current record: reported if the module raises."""

    def __len__(self) -> int:
        return len(self._batch.timestamps)

    @property
    def source(self) -> int:
        """Index into `config["sources"]` of the topic of all records."""
        return self._batch.source

    @property
    def now(self) -> int:
        """Time at which the node received the batch, in milliseconds since 1970; the same in a replay."""
        return self._batch.now

    @property
    def watermark(self) -> int:
        """Records before this time are late; in milliseconds since 1970."""
        return self._batch.watermark

    def __iter__(self) -> Iterator[Record]:
        before = self.current
        try:
            for index in range(len(self)):
                self.current = index
                yield Record(self._batch, index)
            self.current = before
        finally:
            # After an early exit or an exception, the record of the outermost loop is the current record.
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
    """The outcome of a batch. Records without a call are dropped."""

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
        """Sends a record unchanged to `output`. Further calls send copies to further outputs."""
        number = self._number(output)
        if self._routes[record.index] == 0:
            self._routes[record.index] = number
        else:
            self._copies.append((record.index, number))

    def reject(self, record: Record, why: str) -> None:
        """Rejects a record: it becomes a dead letter with the reason `why`."""
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
        """Emits a new record that originates from `record`. Arguments that are not given are copied from `record`; `None` stands for
        null. Keys and values are text, bytes, or anything else as JSON. `headers` is a list of name and value, added to the headers of
        `record`, or with `bare` in their place. Origins must come in the order of the batch."""
        number = self._number(output)
        # Converted first: an exception leaves the outcome unchanged.
        new_key = to_bytes(None if key is NOT_GIVEN else key)
        new_value = to_bytes(None if value is NOT_GIVEN else value)
        given = [] if headers is NOT_GIVEN else headers
        new_headers = [(to_bytes(name), to_bytes(value)) for name, value in given]
        has = tuple(given is not NOT_GIVEN for given in (timestamp, key, value, headers)) + (bare,)
        if self._emits and self._emits[-1].sources[-1] > record.index:
            raise Fatal("new records must stem from records in the order of the batch")
        # A new list unless the last one has the same columns: records keep the order of emission.
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
        """Returns the outcome in the form of the contract."""
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


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, (Retry, Fatal)) else f"{type(error).__name__}: {error}"


class Module:
    """A module. Derive a class, and export it with `Transform = weir.export(CLASS)`."""

    about = ""
    """Description in a sentence."""
    parameters: dict = {}
    """`Parameter`s by name."""
    outputs = ["main"]
    """Names of the outputs; `main` is the stream."""
    columns = {"values"}
    """The columns that the module reads: a set of `keys`, `values` and `headers`."""
    state_version = 0
    """Version of the stored state; 0 for a module without state."""

    def init(self, config: dict) -> None:
        """Prepares the instance; called once, first. `config` has a value for each parameter, and the pipeline's `partition` and
        `sources`."""

    def process(self, batch: Batch, out: Out) -> None:
        """Decides on the records of a batch. An exception rejects the current record, with the exception as the reason."""
        raise NotImplementedError


def export(module: Type[Module]) -> type:
    """Returns the class that a component exports for `module`. Assign it to `Transform` in the module's file."""

    class Transform:
        # Each call comes on an object of its own: the instance belongs to the class.
        instance: Module

        def describe(self) -> types.Descriptor:
            parameters = []
            for name, parameter in module.parameters.items():
                kind, value = _KINDS[parameter.kind]
                preset = parameter.preset
                if preset is not None:
                    preset = value(json.dumps(preset) if parameter.kind == "json" else preset)
                parameters.append(types.Parameter(name, kind, preset, parameter.about))
            return types.Descriptor(module.about, parameters, module.state_version)

        def init(self, c: types.Config) -> types.Plan:
            config: dict = {"partition": c.partition, "sources": c.sources}
            for name, value in c.values:
                config[name] = json.loads(value.value) if isinstance(value, types.Value_Json) else value.value
            instance = module()
            try:
                instance.init(config)
            except Exception as error:
                raise Err(_reason(error)) from error
            Transform.instance = instance
            return types.Plan(list(instance.outputs), *(name in instance.columns for name in ("keys", "values", "headers")))

        def process(self, b: types.Batch) -> types.Outcome:
            instance = Transform.instance
            batch = Batch(b)
            out = Out(list(instance.outputs), len(batch))
            try:
                instance.process(batch, out)
                return out.outcome()
            except Retry as error:
                raise Err(types.Fault_Retry(_reason(error))) from error
            except Exception as error:
                if isinstance(error, Fatal) or batch.current is None:
                    raise Err(types.Fault_Fatal(_reason(error))) from error
                raise Err(types.Fault_Poison((batch.current, _reason(error)))) from error

    return Transform
