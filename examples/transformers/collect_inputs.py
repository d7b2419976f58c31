"""collect_inputs.py MODEL OUT.safetensors [TEXTS TOKENS]

Writes the second moments of what the linear layers of a transformers model read on texts that it
writes itself, for `cafeq-quantize MODEL … --metric OUT.safetensors`. Needs torch, transformers and
safetensors, and as much memory as the moments take: a float32 for each pair of an input's channels.
"""
import json
import sys

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

path, out = sys.argv[1:3]
texts, tokens = map(int, sys.argv[3:5] or (32, 512))
model = AutoModelForCausalLM.from_pretrained(path, torch_dtype="auto").eval()
sums, readers, last = {}, {}, [None, None]  # last: an input, and who read it first


def watch(name):
    def add(module, args):
        if args[0] is last[0] and last[1] != name:  # as keys and values after queries
            return readers[last[1]].add(name)
        x = args[0].flatten(0, -2).float()
        sums[name] = sums.get(name, 0) + x.T @ x / (texts * tokens)
        readers.setdefault(name, set())
        last[:] = args[0], name

    return add


with torch.no_grad():
    torch.manual_seed(0)
    begin = torch.full((texts, 1), model.config.bos_token_id or 0)
    new = tokens - 1
    written = model.generate(begin, attention_mask=torch.ones_like(begin), do_sample=True, top_k=0,
                             min_new_tokens=new, max_new_tokens=new)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            module.register_forward_pre_hook(watch(name + ".weight"))
    for text in written:
        model(text[None])

inputs = {name: {"dim": len(H), "kind": "whole", "count": texts * tokens,
                 "readers": sorted(readers[name])} for name, H in sums.items()}
lower = {name: H[tuple(torch.tril_indices(*H.shape))] for name, H in sums.items()}
save_file(lower, out, {"cafeq.grams": json.dumps({"version": 1, "model": "", "inputs": inputs})})
