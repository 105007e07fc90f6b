"""What the SDKs of all languages have to do alike: each letter of a record's key is something that is done with it."""

import math

import weir


class Letters(weir.Module):
    about = "Does what the letters of a key say."
    columns = {"keys", "values"}

    def process(self, batch, out):
        for record in batch:
            for letter in record.key.decode():
                if letter == "v":
                    out.emit(record, value="v")
                elif letter == "k":
                    out.emit(record, key="new", value=bytearray(b"k"))
                elif letter == "0":
                    out.emit(record, value=None)
                elif letter == "t":
                    out.emit(record, value="v", timestamp=record.timestamp + 1)
                elif letter == "#":
                    value = record.json()
                    n = value.get("n") if isinstance(value, dict) else None
                    if isinstance(n, (int, float)) and math.isfinite(n):
                        out.emit(record, value={"n": int(n)})
                    else:
                        out.reject(record, "no number")
                elif letter == "!":
                    try:
                        out.emit(record, key="new", value=object())
                    except TypeError:
                        out.reject(record, "not to be said")
                elif letter == "?":
                    for other in batch:
                        if other.index > record.index:
                            break
                    for other in batch:
                        other.value
                    raise ValueError("told of the record")


Transform = weir.export(Letters)
