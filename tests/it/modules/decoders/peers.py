"""Other people's encoders and decoders, and what the decoders of Weir make of the same bytes.

Usage: peers.py can|modbus WEIR MODULE [DIRECTORY]

Prints the differences and a last line with the counts; ends with 1 where there is a difference, or too little was compared.
"""

import base64
import glob
import json
import math
import os
import random
import subprocess
import sys
import tempfile

SEED = 7
# Of each file.
FRAMES = 400


def run(weir, module, files, arguments):
    """Runs `weir module test` with files of these names and texts; its exit code, output and errors."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                file.write(text)
        command = [weir, "module", "test", module, *arguments]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
        return ran.returncode, ran.stdout, ran.stderr.strip()[-300:]


def can(weir, module, folder):
    """Random frames of each message of each file that both read: every signal is the same number."""
    import cantools

    rolls, differences, frames, refused = random.Random(SEED), [], 0, []
    files = sorted(glob.glob(os.path.join(folder, "**", "*.dbc"), recursive=True))
    # Each costs a process: all of them in the long form, and always those whose multiplexing nests.
    if "WEIR_ALL" not in os.environ:
        files = [file for n, file in enumerate(files) if n % 3 == 0 or "mul" in os.path.basename(file)]
    for file in files:
        with open(file, "rb") as raw:
            raw = raw.read()
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            text = raw.decode("cp1252", errors="replace")
        try:
            messages = cantools.database.load_file(file, strict=False).messages
        except Exception:
            continue
        messages = [m for m in messages if 0 < m.length <= 64 and m.signals]
        if not messages:
            continue
        given, wanted = [], []
        for _ in range(FRAMES):
            message = rolls.choice(messages)
            data = bytes(rolls.getrandbits(8) for _ in range(message.length))
            try:
                signals = message.decode(data, decode_choices=False, allow_truncated=False)
            except Exception:
                continue
            number = message.frame_id | (0x80000000 if message.is_extended_frame else 0)
            given.append(json.dumps({"id": number, "data": data.hex()}))
            wanted.append((message, signals))
        arguments = ["--input", "in.txt", "-o", "json", "--batch", "100000"]
        for setting in ("format=json", "unknown=reject", "dbc=" + text):
            arguments += ["--set", setting]
        code, out, why = run(weir, module, {"in.txt": "\n".join(given) + "\n"}, arguments)
        if code != 0:
            refused.append(f"{os.path.basename(file)}: {why}")
            continue
        records = [json.loads(line) for line in out.splitlines() if line.strip()]
        for n, (message, signals) in enumerate(wanted):
            frames += 1
            got = records[n].get("value") if n < len(records) else None
            got = json.loads(got) if isinstance(got, str) and got.startswith("{") else got
            if not isinstance(got, dict):
                differences.append(f"{os.path.basename(file)}, {message.name}: {got}")
                continue
            got = {name: value for name, value in got.items() if name != "message"}
            floats = {s.name for s in message.signals if s.is_float}
            for name in sorted(set(got) | set(signals)):
                is_there = name in got and name in signals
                if not is_there or not same(got[name], float(signals[name]), name in floats):
                    told = f"{name}: {got.get(name)} and not {signals.get(name)}"
                    differences.append(f"{os.path.basename(file)}, {message.name}, {told}")
                    break
    told = f"{len(files)} files, {frames} frames, {len(refused)} files refused: {refused}"
    return differences, told, frames >= 6000


def same(ours, theirs, is_float):
    if ours is None:
        return not math.isfinite(theirs)
    # A float of 32 bits is written as itself here, and as a double there.
    within = 1e-6 if is_float else 1e-9
    return ours == theirs or abs(ours - theirs) <= within * max(abs(ours), abs(theirs))


def modbus(weir, module, _):
    """Registers that pymodbus makes of values, in both orders of words, are those values."""
    from pymodbus.client.mixin import ModbusClientMixin

    rolls, differences, count = random.Random(SEED), [], 0
    kinds = {
        "u16": ("UINT16", lambda: rolls.getrandbits(16)),
        "i16": ("INT16", lambda: rolls.getrandbits(16) - 2**15),
        "u32": ("UINT32", lambda: rolls.getrandbits(32)),
        "i32": ("INT32", lambda: rolls.getrandbits(32) - 2**31),
        "u64": ("UINT64", lambda: rolls.getrandbits(64)),
        "i64": ("INT64", lambda: rolls.getrandbits(64) - 2**63),
        # Of so few digits that only one text is that float.
        "f32": ("FLOAT32", lambda: rolls.randrange(-9999, 9999) + 0.25),
        "f64": ("FLOAT64", lambda: rolls.uniform(-1e12, 1e12)),
        "text": ("STRING", lambda: "".join(rolls.choices("ABC xyz-09", k=7)) + "!"),
    }
    for word_order in ("big", "little"):
        for kind, (name, roll) in kinds.items():
            if kind == "text" and word_order == "little":
                continue
            data_type = getattr(ModbusClientMixin.DATATYPE, name)
            values = [roll() for _ in range(50)]
            made = [ModbusClientMixin.convert_to_registers(v, data_type, word_order=word_order) for v in values]
            setting = {"at": 0, "as": kind}
            if kind == "text":
                setting["registers"] = len(made[0])
            elif len(made[0]) > 1:
                setting["order"] = "ABCD" if word_order == "big" else "CDAB"
            raw = [base64.b64encode(b"".join(r.to_bytes(2, "big") for r in registers)).decode() for registers in made]
            case = {
                "config": {"registers": {"v": setting}},
                "input": [{"value": {"base64": one}} for one in raw],
                "output": {"main": [{"key": None, "value": {"v": one}} for one in values]},
            }
            code, out, why = run(weir, module, {"case.json": json.dumps(case)}, ["case.json"])
            count += len(values)
            if code != 0:
                differences.append(f"{kind}, {word_order}: {out} {why}")
    return differences, f"{count} values", count == 850


def main():
    what, weir, module = sys.argv[1:4]
    folder = sys.argv[4] if len(sys.argv) > 4 else None
    differences, told, is_enough = {"can": can, "modbus": modbus}[what](weir, module, folder)
    for difference in differences[:40]:
        print(difference)
    print(f"{len(differences)} differences; {told}")
    sys.exit(1 if differences or not is_enough else 0)


main()
