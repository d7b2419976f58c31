#!/usr/bin/python3
"""quantize_by_llama.py CHECKER MODEL.gguf DIRECTORY TYPE...: what llama.cpp's own quantizer makes of a model, a file TYPE.gguf each, and DIRECTORY/list.json,
which examples/accuracy takes. CHECKER: the directory of the ctypes binding llamacpp.py, which finds llama.cpp's libraries through LLAMA_BINS.

Embedding and head stay as they are, so that files differ in the layers alone. No importance matrix."""
import ctypes
import json
import os
import sys
import time

checker, model, directory, *names = sys.argv[1:]
sys.path.insert(0, checker)
import llamacpp

numbers = {'Q4_0': 2, 'Q4_1': 3, 'Q8_0': 7, 'Q5_0': 8, 'Q5_1': 9, 'Q2_K': 10, 'Q3_K_S': 11, 'Q3_K_M': 12, 'Q3_K_L': 13, 'Q4_K_S': 14, 'Q4_K_M': 15, 'Q5_K_S': 16,
           'Q5_K_M': 17, 'Q6_K': 18, 'IQ4_NL': 25, 'IQ3_S': 26, 'IQ3_M': 27, 'IQ4_XS': 30, 'TQ2_0': 37}
types_in_all, q8_0 = 43, 8


class Params(ctypes.Structure):
    """llama_model_quantize_params."""
    _fields_ = ([(name, ctypes.c_int32) for name in ['threads', 'ftype', 'output_type', 'embedding_type']] +
                [(name, ctypes.c_bool) for name in ['allow_requantize', 'quantize_output', 'only_copy', 'pure', 'keep_split', 'dry_run']] +
                [(name, ctypes.c_void_p) for name in ['imatrix', 'kv_overrides', 'type_overrides', 'prune_layers']])


library = llamacpp.lib()
library.llama_model_quantize_default_params.restype = Params
library.llama_model_quantize.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(Params)]
library.llama_model_quantize.restype = ctypes.c_uint32

done = []
for name in names:
    params = library.llama_model_quantize_default_params()
    if (params.output_type, params.embedding_type, params.allow_requantize, params.imatrix) != (types_in_all, types_in_all, False, None):
        sys.exit('quantize_by_llama.py: this version of llama.cpp has another layout of its parameters')
    params.ftype, params.allow_requantize, params.output_type, params.embedding_type = numbers[name], True, q8_0, q8_0
    path, start = os.path.join(directory, name + '.gguf'), time.monotonic()
    if library.llama_model_quantize(model.encode(), path.encode(), params):
        print(f'quantize_by_llama.py: llama.cpp makes no {name}:', *library.errors[-3:], sep='\n', file=sys.stderr)
        continue
    done.append(dict(recipe='llama.cpp ' + name, file=path, seconds=time.monotonic() - start))
with open(os.path.join(directory, 'list.json'), 'w') as out: json.dump(done, out, indent=1)
