"""collect_inputs.py TOOL DIRECTORY: examples/transformers/collect_inputs.py on a small model of
transformers, against what the model's own hidden states say, and the tool in that metric."""
import json
import pathlib
import subprocess
import sys

import torch
from safetensors import safe_open
from transformers import LlamaConfig, LlamaForCausalLM

tool, directory = sys.argv[1], pathlib.Path(sys.argv[2])
script = pathlib.Path(__file__).parents[2] / "examples/transformers/collect_inputs.py"
model_path, grams_path = directory / "model", directory / "grams.safetensors"
texts, tokens = 3, 24

torch.manual_seed(1)
config = LlamaConfig(vocab_size=300, hidden_size=64, intermediate_size=160, num_hidden_layers=3,
                     num_attention_heads=4, bos_token_id=1, eos_token_id=2, pad_token_id=0)
model = LlamaForCausalLM(config).eval()
for parameter in model.parameters():
    torch.nn.init.normal_(parameter, 0.5 if parameter.dim() == 1 else 0, 0.3)
model.save_pretrained(model_path, safe_serialization=True)
subprocess.run([sys.executable, script, model_path, grams_path, str(texts), str(tokens)], check=True)

# The same texts again, and what each layer begins with.
with torch.no_grad():
    torch.manual_seed(0)
    begin = torch.full((texts, 1), 1)
    written = model.generate(begin, attention_mask=torch.ones_like(begin), do_sample=True, top_k=0,
                             min_new_tokens=tokens - 1, max_new_tokens=tokens - 1)
    assert written.shape == (texts, tokens), written.shape
    states = model(written, output_hidden_states=True).hidden_states

width = {"self_attn.q_proj": 64, "self_attn.o_proj": 64, "mlp.gate_proj": 64, "mlp.down_proj": 160}
shared = {"self_attn.q_proj": ["self_attn.k_proj", "self_attn.v_proj"],
          "mlp.gate_proj": ["mlp.up_proj"]}
with safe_open(grams_path, "pt") as file:
    inputs = json.loads(file.metadata()["cafeq.grams"])["inputs"]
    assert len(inputs) == 3 * len(width), sorted(inputs)
    for layer in range(3):
        for kind, n in width.items():
            name = f"model.layers.{layer}.{kind}.weight"
            readers = [f"model.layers.{layer}.{other}.weight" for other in shared.get(kind, [])]
            expected = {"dim": n, "kind": "whole", "count": texts * tokens, "readers": readers}
            assert inputs[name] == expected, (name, inputs[name])
            lower = file.get_tensor(name)
            assert lower.shape == (n * (n + 1) // 2,) and lower.dtype == torch.float32
        x = model.model.layers[layer].input_layernorm(states[layer]).flatten(0, 1).double()
        H = (x.T @ x / len(x))[tuple(torch.tril_indices(64, 64))]
        found = file.get_tensor(f"model.layers.{layer}.self_attn.q_proj.weight")
        off = float((found - H).norm() / H.norm())
        assert off < 1e-4, (layer, off)

for metric, words in (("none", "role"), (str(grams_path), f"metric: inputs in {grams_path}")):
    answer = subprocess.run([tool, model_path, directory / "out.safetensors", "--recipe", "fast",
                             "--bits", "3", "--metric", metric, "--overwrite"],
                            check=True, capture_output=True, text=True).stdout
    assert answer.startswith(words), answer
print("collect_inputs.py agrees with the model's hidden states, and the tool reads it")
