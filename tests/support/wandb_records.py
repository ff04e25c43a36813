"""Reads a `.wandb` file: LevelDB's log format around W&B's own protobufs, which are what `wandb sync` sends on."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

BLOCK = 32_768
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(path: Path) -> list:
    """Every record of the file as W&B's protobuf `Record`, in order."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = []
    for content in _payloads(path.read_bytes()):
        record = Record()
        record.ParseFromString(content)
        found.append(record)
    return found


def _payloads(content: bytes) -> Iterator[bytes]:
    """Records as bytes; each is in pieces that never cross a block: crc u32, length u16, kind u8, bytes."""
    assert content[:4] == b":W&B"
    at, parts = 7, []
    while at + 7 <= len(content):
        if BLOCK - at % BLOCK < 7:  # too little for a header: the block's rest is padding
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        assert kind in (FULL, FIRST, MIDDLE, LAST) and (kind in (FULL, FIRST)) == (not parts)
        parts.append(content[at + 7 : at + 7 + length])
        at += 7 + length
        if kind in (FULL, LAST):
            yield b"".join(parts)
            parts = []


def of_kind(found: list, kind: str) -> list:
    """The messages of the records of one kind: run, history, metric, summary, files, artifact, request, ..."""
    return [getattr(record, kind) for record in found if record.WhichOneof("record_type") == kind]


def items(message_items) -> dict:
    """{"a/b": value} of items that hold JSON; a nested key is joined by dots."""
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in message_items}


def transaction_logs(run_dir: Path) -> bytes:
    """What all W&B runs of a folder have on disk, for `wandb sync`."""
    return b"".join(file.read_bytes() for file in sorted(run_dir.glob("wandb/*run-*/*.wandb")))
