"""Models of fp32 tensors as files: GGUF, and the directories of transformers. Written by the formats' descriptions, not by this library."""
import json
import os
import struct

import numpy


def gguf_text(text):
    return struct.pack('<Q', len(text.encode())) + text.encode()


def gguf_value(value):
    """With its type ahead of it: strings, flags, whole numbers as u32 and others as f32."""
    if isinstance(value, str): return struct.pack('<I', 8) + gguf_text(value)
    if isinstance(value, bool): return struct.pack('<I?', 7, value)
    if isinstance(value, int): return struct.pack('<II', 4, value)
    return struct.pack('<If', 6, value)


def write_gguf(path, fields, tensors, alignment=32):
    """tensors: name to array, of which all are written as F32."""
    padded = lambda data: data + bytes(-len(data) % alignment)
    head = b'GGUF' + struct.pack('<IQQ', 3, len(tensors), len(fields))
    for name, value in fields.items(): head += gguf_text(name) + gguf_value(value)
    offset = 0
    for name, tensor in tensors.items():
        head += gguf_text(name) + struct.pack('<I', tensor.ndim) + struct.pack(f'<{tensor.ndim}Q', *reversed(tensor.shape)) + struct.pack('<IQ', 0, offset)
        offset += len(padded(bytes(4 * tensor.size)))
    with open(path, 'wb') as out:
        out.write(padded(head))
        for tensor in tensors.values(): out.write(padded(tensor.astype('<f4').tobytes()))


def write_transformers(directory, config, tensors):
    os.makedirs(directory, exist_ok=True)
    with open(directory + '/config.json', 'w') as out: json.dump(config, out, indent=1)
    head, offset = {}, 0
    for name, tensor in tensors.items():
        head[name] = dict(dtype='F32', shape=list(tensor.shape), data_offsets=[offset, offset + 4 * tensor.size])
        offset += 4 * tensor.size
    text = json.dumps(head).encode()
    text += b' ' * (-len(text) % 8)
    with open(directory + '/model.safetensors', 'wb') as out:
        out.write(struct.pack('<Q', len(text)) + text)
        for tensor in tensors.values(): out.write(tensor.astype('<f4').tobytes())


def interleaved(rows, heads):
    """Rows of queries or keys, or their bias, from the order of transformers to that of llama.cpp's Llama."""
    return numpy.ascontiguousarray(rows.reshape(heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape))
