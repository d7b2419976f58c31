"""Matrices of a llama2.c checkpoint, and what llama.cpp's own quantizer makes of them."""
import ctypes
import glob
import os

import numpy

types = {'Q4_0': 2, 'Q4_1': 3, 'Q5_0': 6, 'Q5_1': 7, 'Q8_0': 8, 'Q2_K': 10, 'Q3_K': 11, 'Q4_K': 12, 'Q5_K': 13, 'Q6_K': 14, 'IQ4_NL': 20, 'IQ4_XS': 23}


def matrices(path):
    """The seven kinds of matrices, each [layers, rows, cols]."""
    header = numpy.fromfile(path, numpy.int32, 7)
    width, hidden, layers, heads, kv_heads, vocabulary, _ = (int(size) for size in header)
    values = numpy.fromfile(path, numpy.float32, offset=header.nbytes)
    kv_width, at, result = width // heads * kv_heads, abs(vocabulary) * width, {}
    for name, rows, cols in [('attention_norm', 1, width), ('wq', width, width), ('wk', kv_width, width), ('wv', kv_width, width), ('wo', width, width),
                             ('ffn_norm', 1, width), ('w1', hidden, width), ('w2', width, hidden), ('w3', hidden, width)]:
        if rows > 1: result[name] = values[at:at + layers * rows * cols].reshape(layers, rows, cols)
        at += layers * rows * cols
    return result


def block(kind):
    return 256 if kind.endswith('_K') or kind == 'IQ4_XS' else 32


def fits(W, kind):
    return W.shape[-1] % block(kind) == 0


def error(before, after, kind):
    chosen = [name for name, W in before.items() if fits(W, kind)]
    squares = lambda difference: sum(float((difference(name).astype(numpy.float64)**2).sum()) for name in chosen)
    return squares(lambda name: before[name] - after[name]) / squares(lambda name: before[name])


def library():
    found = glob.glob(os.environ['LLAMA_BINS'] + '/**/libggml-base.so', recursive=True)
    base = ctypes.CDLL(found[0])
    base.ggml_quantize_chunk.restype = ctypes.c_size_t
    base.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + 3 * [ctypes.c_int64] + [ctypes.c_void_p]
    return base


def round_trip(W, kind):
    """Quantized and dequantized by ggml, without an importance matrix."""
    base, W = library(), numpy.ascontiguousarray(W)
    cols = W.shape[-1]
    bytes_, result = numpy.zeros(W.nbytes, numpy.uint8), numpy.empty_like(W)
    base.ggml_quantize_chunk(types[kind], W.ctypes.data, bytes_.ctypes.data, 0, W.size // cols, cols, None)
    decode = getattr(base, 'dequantize_row_' + kind[:-1].lower() + kind[-1] if kind.endswith('K') else 'dequantize_row_' + kind.lower())
    decode.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    decode(bytes_.ctypes.data, result.ctypes.data, W.size)
    return result
