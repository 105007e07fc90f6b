"""Kafka's messages in every version, by the definitions that lie in the Java client's own archive (common/message/*.json)."""
import json
import re
import socket
import struct
import uuid
import zipfile


def versions(text, most=10**6):
    """(first, last) of "3-5", "3+", "3" or "none"."""
    if text in (None, "none"):
        return (1, 0)
    if text.endswith("+"):
        return (int(text[:-1]), most)
    first, _, last = text.partition("-")
    return (int(first), int(last or first))


def has(text, version):
    first, last = versions(text)
    return first <= version <= last


class Messages:
    def __init__(self, jar):
        self.requests, self.responses = {}, {}
        with zipfile.ZipFile(jar) as archive:
            for name in archive.namelist():
                if not re.fullmatch(r"common/message/\w+(Request|Response)\.json", name):
                    continue
                text = "\n".join(re.sub(r"^\s*//.*", "", line) for line in archive.read(name).decode().split("\n"))
                message = json.loads(re.sub(r"\s//[^\"\n]*$", "", text, flags=re.M))
                if "apiKey" in message:
                    (self.requests if message["type"] == "request" else self.responses)[message["apiKey"]] = message

    def name(self, key):
        return self.requests[key]["name"].removesuffix("Request") if key in self.requests else str(key)

    def key(self, name):
        return next(key for key, message in self.requests.items() if message["name"] == name + "Request")

    def encode(self, key, version, value):
        message = self.requests[key]
        flexible = has(message.get("flexibleVersions", "none"), version)
        out = bytearray()
        write_struct(out, message, message["fields"], value, version, flexible)
        return bytes(out)

    def decode(self, key, version, data):
        message = self.responses[key]
        flexible = has(message.get("flexibleVersions", "none"), version)
        reader = Reader(data)
        value = read_struct(reader, message, message["fields"], version, flexible)
        assert reader.at == len(data), f"{len(data) - reader.at} bytes are left"
        return value


def struct_fields(message, kind, field):
    if "fields" in field:
        return field["fields"]
    return next(common["fields"] for common in message.get("commonStructs", []) if common["name"] == kind)


FIXED = {"bool": ">?", "int8": ">b", "int16": ">h", "uint16": ">H", "int32": ">i", "uint32": ">I", "int64": ">q", "float64": ">d"}


def varint(out, n):
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)


def default(field):
    kind, given = field["type"], field.get("default")
    if given == "null":
        return None
    if kind.startswith("[]"):
        return []
    if kind in ("string",):
        return given or ""
    if kind in ("bytes", "records"):
        return b""
    if kind == "uuid":
        return uuid.UUID(int=0)
    if kind == "bool":
        return given in (True, "true")
    if kind == "float64":
        return float(given or 0)
    if kind in FIXED:
        return int(str(given), 0) if given not in (None, "") else 0
    return {}


def length(out, n, flexible, form):
    if flexible:
        varint(out, 0 if n is None else n + 1)
    else:
        out += struct.pack(form, -1 if n is None else n)


def write(out, message, field, kind, value, version, flexible):
    if kind.startswith("[]"):
        length(out, None if value is None else len(value), flexible, ">i")
        for item in value or []:
            write(out, message, field, kind[2:], item, version, flexible)
    elif kind == "string":
        data = None if value is None else value.encode()
        length(out, None if data is None else len(data), flexible, ">h")
        out += data or b""
    elif kind in ("bytes", "records"):
        length(out, None if value is None else len(value), flexible, ">i")
        out += value or b""
    elif kind == "uuid":
        out += (value or uuid.UUID(int=0)).bytes
    elif kind in FIXED:
        out += struct.pack(FIXED[kind], value)
    else:
        write_struct(out, message, struct_fields(message, kind, field), value, version, flexible)


def write_struct(out, message, fields, value, version, flexible):
    tagged = {}
    for field in fields:
        if not has(field["versions"], version):
            continue
        own = value.get(field["name"], default(field))
        if "tag" in field and has(field.get("taggedVersions", "none"), version):
            if field["name"] in value:
                data = bytearray()
                write(data, message, field, field["type"], own, version, flexible)
                tagged[field["tag"]] = bytes(data)
            continue
        write(out, message, field, field["type"], own, version, flexible and has(field.get("flexibleVersions", "0+"), version))
    if flexible:
        varint(out, len(tagged))
        for tag, data in sorted(tagged.items()):
            varint(out, tag)
            varint(out, len(data))
            out += data


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        assert n >= 0 and self.at + n <= len(self.data), "the message is cut short"
        self.at += n
        return self.data[self.at - n : self.at]

    def varint(self):
        n = shift = 0
        while True:
            byte = self.take(1)[0]
            n |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return n

    def length(self, flexible, form):
        n = self.varint() - 1 if flexible else struct.unpack(form, self.take(struct.calcsize(form)))[0]
        return None if n < 0 else n


def read(reader, message, field, kind, version, flexible):
    if kind.startswith("[]"):
        n = reader.length(flexible, ">i")
        return None if n is None else [read(reader, message, field, kind[2:], version, flexible) for _ in range(n)]
    if kind == "string":
        n = reader.length(flexible, ">h")
        return None if n is None else reader.take(n).decode()
    if kind in ("bytes", "records"):
        n = reader.length(flexible, ">i")
        return None if n is None else reader.take(n)
    if kind == "uuid":
        return uuid.UUID(bytes=reader.take(16))
    if kind in FIXED:
        return struct.unpack(FIXED[kind], reader.take(struct.calcsize(FIXED[kind])))[0]
    if has(field.get("nullableVersions", "none"), version) and not field["type"].startswith("[]"):
        if struct.unpack(">b", reader.take(1))[0] < 0:
            return None
    return read_struct(reader, message, struct_fields(message, kind, field), version, flexible)


def read_struct(reader, message, fields, version, flexible):
    value, tagged = {}, {}
    for field in fields:
        if not has(field["versions"], version):
            continue
        if "tag" in field and has(field.get("taggedVersions", "none"), version):
            tagged[field["tag"]] = field
            continue
        value[field["name"]] = read(reader, message, field, field["type"], version, flexible and has(field.get("flexibleVersions", "0+"), version))
    if flexible:
        for _ in range(reader.varint()):
            tag, size = reader.varint(), reader.varint()
            data = reader.take(size)
            if tag in tagged:
                field = tagged[tag]
                value[field["name"]] = read(Reader(data), message, field, field["type"], version, flexible)
    return value


class Connection:
    """One connection to a broker; calls go one after another."""

    def __init__(self, messages, address):
        self.messages, self.address = messages, address
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), 20)
        self.socket.settimeout(20)

    def close(self):
        self.socket.close()

    def call(self, name, version, value):
        key = self.messages.key(name)
        message = self.messages.requests[key]
        flexible = has(message.get("flexibleVersions", "none"), version)
        head = struct.pack(">hhi", key, version, 7) + struct.pack(">h", 6) + b"beside" + (b"\0" if flexible else b"")
        body = head + self.messages.encode(key, version, value)
        self.socket.sendall(struct.pack(">i", len(body)) + body)
        (n,) = struct.unpack(">i", self.receive(4))
        data = self.receive(n)[4:]
        if flexible and name != "ApiVersions":
            assert data[:1] == b"\0", "the header has tagged fields"
            data = data[1:]
        return self.messages.decode(key, version, data)

    def receive(self, n):
        data = b""
        while len(data) < n:
            more = self.socket.recv(n - len(data))
            if not more:
                raise ConnectionError("the connection was closed")
            data += more
        return data


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def batch(values, timestamp, key=b"k", producer=(-1, -1, -1), attributes=0, magic=2):
    """A record batch of version 2 that is not compressed."""

    def zigzag(out, n):
        varint(out, n << 1 if n >= 0 else (-n << 1) - 1)

    def text(out, data):
        zigzag(out, -1 if data is None else len(data))
        out += data or b""

    records = bytearray()
    for delta, value in enumerate(values):
        record = bytearray(b"\0")
        zigzag(record, 0)
        zigzag(record, delta)
        text(record, key)
        text(record, value)
        zigzag(record, 0)
        zigzag(records, len(record))
        records += record
    n = len(values)
    tail = struct.pack(">hiqqqhii", attributes, n - 1, timestamp, timestamp, *producer, n) + bytes(records)
    return struct.pack(">qiibI", 0, len(tail) + 9, -1, magic, crc32c(tail)) + tail
