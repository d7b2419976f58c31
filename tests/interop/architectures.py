#!/usr/bin/python3
"""architectures.py WORK SHARED [ENGINE]: small random models of every architecture, in a real llama.cpp, in numpy and in the example engine.

Each model is written three times with the same weights, as a GGUF file and as directories of transformers 4 and 5. The GGUF file runs in llama.cpp (SHARED
has its checker, LLAMA_BINS its libraries), configuration and tensors of transformers in forward.py, and all in ENGINE, if it is given: they must predict alike.
What llama.cpp does not do (windows of Mistral, Qwen and Phi-3) is compared with numpy only. WORK: where the files go. Exit status 1 where one differs."""
import json
import math
import os
import subprocess
import sys

import numpy

from forward import Forward
from model_files import interleaved, write_gguf, write_transformers

vocabulary, length = 320, 97
limit, gelu_limit, least_difference = 1e-5, 3e-4, 1e-3  # relative, of perplexities; llama.cpp takes GELU from a table of halves


def config_of(kind, **members):
    sizes = dict(model_type=kind, vocab_size=vocabulary, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
                 num_key_value_heads=2, head_dim=24, max_position_embeddings=256, rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False)
    return {**sizes, **({'hidden_activation': 'gelu_pytorch_tanh'} if kind.startswith('gemma') else {'hidden_act': 'silu'}), **members}


gemma = dict(tie_word_embeddings=True, rms_norm_eps=1e-6, query_pre_attn_scalar=24)
gemma2 = dict(gemma, num_hidden_layers=5, sliding_window=16, attn_logit_softcapping=4.0, final_logit_softcapping=3.0)
gemma3 = dict(gemma, num_hidden_layers=7, sliding_window=16, rope_theta=1e6, rope_local_base_freq=10000.0, sliding_window_pattern=6)
llama3 = dict(rope_type='llama3', factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)
longrope = dict(type='longrope', short_factor=[1 + 0.05 * i for i in range(6)], long_factor=[1 + 1.5 * i for i in range(6)])
phi3 = dict(head_dim=None, partial_rotary_factor=0.75, rope_scaling=longrope, max_position_embeddings=1024, sliding_window=None)

# Heads of Qwen2 and Phi-3 are as wide as the model together: llama.cpp has no other ones.
# Name, configuration, GGUF's name of the architecture or None where llama.cpp computes something else, and which features a comparison must notice.
models = [
    ('Llama', config_of('llama'), 'llama', []),
    ('Llama, biases', config_of('llama', attention_bias=True, mlp_bias=False, tie_word_embeddings=True), 'llama', []),
    ('Llama, linear', config_of('llama', rope_scaling=dict(type='linear', factor=2.5)), 'llama', ['scaling']),
    ('Llama 3.1', config_of('llama', rope_theta=5e5, rope_scaling=llama3), 'llama', ['scaling']),
    ('Mistral, window', config_of('mistral', sliding_window=16), None, ['window']),
    ('Mistral', config_of('mistral', sliding_window=None), 'llama', []),
    ('Qwen2', config_of('qwen2', head_dim=16, tie_word_embeddings=True, use_sliding_window=False, sliding_window=16, max_window_layers=1), 'qwen2', []),
    ('Qwen2, window', config_of('qwen2', head_dim=16, use_sliding_window=True, sliding_window=16, max_window_layers=1), None, ['window']),
    ('Qwen2, YaRN', config_of('qwen2', head_dim=16, rope_scaling=dict(type='yarn', factor=4.0, original_max_position_embeddings=64), use_sliding_window=False), 'qwen2',
     ['scaling', 'magnitude']),
    ('Qwen3', config_of('qwen3', head_dim=40, use_sliding_window=False), 'qwen3', []),
    ('Gemma', config_of('gemma', **gemma), 'gemma', ['offset', 'embedding scale']),
    ('Gemma 2', config_of('gemma2', **gemma2), 'gemma2', ['offset', 'embedding scale', 'window', 'attention cap', 'logit cap']),
    ('Gemma 2 27B', config_of('gemma2', **{**gemma2, 'num_hidden_layers': 46, 'query_pre_attn_scalar': 16}), 'gemma2', ['scale']),
    ('Gemma 3', config_of('gemma3_text', **gemma3, rope_scaling=dict(rope_type='linear', factor=8.0)), 'gemma3',
     ['offset', 'embedding scale', 'window', 'local base', 'scaling']),
    ('Gemma 3 27B', config_of('gemma3_text', **{**gemma3, 'num_hidden_layers': 62, 'query_pre_attn_scalar': 16}), 'gemma3', ['scale']),
    ('Phi-3', config_of('phi3', head_dim=None, num_key_value_heads=4, rms_norm_eps=1e-5, sliding_window=None), 'phi3', []),
    ('Phi-3, short texts', config_of('phi3', **phi3, original_max_position_embeddings=256), 'phi3', ['scaling', 'magnitude']),
    ('Phi-3, long texts', config_of('phi3', **phi3, original_max_position_embeddings=64), 'phi3', ['scaling', 'magnitude']),
    ('Phi-3, window', config_of('phi3', **{**phi3, 'sliding_window': 16}, original_max_position_embeddings=64), None, ['window'])]


def random_tensors(config, seed):
    """Named as transformers names them; attention sharp enough, and logits far enough apart, that whatever is wrong shows."""
    random, c, tensors = numpy.random.default_rng(seed), config, {}
    kind, width, gemma_like = c['model_type'], c['hidden_size'], c['model_type'].startswith('gemma')
    head_dim = c['head_dim'] or width // c['num_attention_heads']
    rows = dict(q=c['num_attention_heads'] * head_dim, k=c['num_key_value_heads'] * head_dim, v=c['num_key_value_heads'] * head_dim)

    def matrix(name, out, cols, gain, bias=False):
        tensors[name + '.weight'] = random.normal(0, gain / math.sqrt(cols), (out, cols)).astype(numpy.float32)
        if bias: tensors[name + '.bias'] = random.normal(0, 0.5, out).astype(numpy.float32)

    def norm(name, size=width):
        tensors[name + '.weight'] = random.uniform(0.5, 1.5, size).astype(numpy.float32) - (1 if gemma_like else 0)

    matrix('model.embed_tokens', vocabulary, width, 1.5 if c['tie_word_embeddings'] else math.sqrt(width))
    for l in range(c['num_hidden_layers']):
        layer, bias = f'model.layers.{l}.', c.get('attention_bias', False)
        norm(layer + 'input_layernorm')
        if kind == 'phi3': matrix(layer + 'self_attn.qkv_proj', sum(rows.values()), width, 1.5)
        else:
            for part in 'qkv': matrix(layer + f'self_attn.{part}_proj', rows[part], width, 1 if part == 'v' else 1.5, bias or kind == 'qwen2')
        matrix(layer + 'self_attn.o_proj', width, rows['q'], 1.0, bias)
        if kind in ('qwen3', 'gemma3_text'):
            for part in 'qk': norm(layer + f'self_attn.{part}_norm', head_dim)
        norm(layer + 'post_attention_layernorm')
        if kind in ('gemma2', 'gemma3_text'):
            for place in ('pre', 'post'): norm(layer + place + '_feedforward_layernorm')
        if kind == 'phi3': matrix(layer + 'mlp.gate_up_proj', 2 * c['intermediate_size'], width, 1.0)
        else:
            for part in ('gate', 'up'): matrix(layer + f'mlp.{part}_proj', c['intermediate_size'], width, 1.0)
        matrix(layer + 'mlp.down_proj', width, c['intermediate_size'], 1.0)
    norm('model.norm')
    if not c['tie_word_embeddings']: matrix('lm_head', vocabulary, width, 2.0)
    return tensors


def as_transformers_5(config):
    """The same configuration: all of rotary positions in one place, and the kind of each layer by name."""
    c = {key: value for key, value in config.items() if key not in ('rope_theta', 'rope_scaling', 'rope_local_base_freq', 'partial_rotary_factor')}
    scaling = dict(config.get('rope_scaling') or dict(rope_type='default'), rope_theta=config['rope_theta'])
    if 'type' in scaling: scaling['rope_type'] = scaling.pop('type')
    if 'partial_rotary_factor' in config: scaling['partial_rotary_factor'] = config['partial_rotary_factor']
    local = dict(rope_type='default', rope_theta=config.get('rope_local_base_freq'))
    c['rope_parameters'] = scaling if c['model_type'] != 'gemma3_text' else dict(full_attention=scaling, sliding_attention=local)
    if c['model_type'] in ('gemma2', 'gemma3_text', 'qwen2', 'qwen3'):
        windows = [Forward(config, {}).window(layer) for layer in range(c['num_hidden_layers'])]
        c['layer_types'] = ['sliding_attention' if window else 'full_attention' for window in windows]
        c = {key: value for key, value in c.items() if key not in ('sliding_window_pattern', 'max_window_layers')}
    return c


def gguf_name(name, kind):
    for ours, theirs in [('model.embed_tokens', 'token_embd'), ('model.norm', 'output_norm'), ('lm_head', 'output'), ('model.layers', 'blk'),
                         ('self_attn.o_proj', 'attn_output'), ('self_attn.', 'attn_'), ('mlp.gate_up_proj', 'ffn_up'), ('mlp.', 'ffn_'), ('_proj', ''),
                         ('input_layernorm', 'attn_norm'), ('pre_feedforward_layernorm', 'ffn_norm'), ('post_feedforward_layernorm', 'post_ffw_norm'),
                         ('post_attention_layernorm', 'post_attention_norm' if kind in ('gemma2', 'gemma3_text') else 'ffn_norm')]:
        name = name.replace(ours, theirs)
    return name


def gguf_tensors(config, tensors):
    """In the order of rows, and with the offset of norms, that llama.cpp expects; and factors of rotations."""
    kind, scaling, result = config['model_type'], config.get('rope_scaling') or {}, {}
    for name, tensor in tensors.items():
        if kind in ('llama', 'mistral') and '.q_proj' in name: tensor = interleaved(tensor, config['num_attention_heads'])
        if kind in ('llama', 'mistral') and '.k_proj' in name: tensor = interleaved(tensor, config['num_key_value_heads'])
        if kind.startswith('gemma') and 'norm' in name: tensor = tensor + 1
        result[gguf_name(name, kind)] = tensor
    if scaling.get('rope_type') == 'llama3':
        plain, slowed = ((Forward(config, {}, without).rotations(0, 2)[1][1]) for without in (['scaling'], []))
        result['rope_freqs.weight'] = (numpy.arcsin(plain) / numpy.arcsin(slowed)).astype(numpy.float32)
    if scaling.get('type') == 'longrope':
        for part in ('short', 'long'): result[f'rope_factors_{part}.weight'] = numpy.array(scaling[part + '_factor'], numpy.float32)
    return result


def gguf_fields(config, architecture):
    c, scaling = config, config.get('rope_scaling') or {}
    head_dim = c['head_dim'] or c['hidden_size'] // c['num_attention_heads']
    fields = {'vocab_size': c['vocab_size'], 'context_length': c['max_position_embeddings'], 'embedding_length': c['hidden_size'],
              'block_count': c['num_hidden_layers'], 'feed_forward_length': c['intermediate_size'], 'attention.head_count': c['num_attention_heads'],
              'attention.head_count_kv': c['num_key_value_heads'], 'attention.key_length': head_dim, 'attention.value_length': head_dim,
              'rope.dimension_count': int(head_dim * c.get('partial_rotary_factor', 1)), 'attention.layer_norm_rms_epsilon': c['rms_norm_eps'],
              'rope.freq_base': float(c['rope_theta'])}
    if c.get('sliding_window') and architecture.startswith('gemma'): fields['attention.sliding_window'] = c['sliding_window']
    for cap in ('attn', 'final'):
        if c.get(cap + '_logit_softcapping'): fields[cap + '_logit_softcapping'] = c[cap + '_logit_softcapping']
    kind = scaling.get('rope_type', scaling.get('type'))
    if kind in ('linear', 'yarn'): fields.update({'rope.scaling.type': kind, 'rope.scaling.factor': scaling['factor']})
    if kind == 'yarn': fields['rope.scaling.original_context_length'] = scaling['original_max_position_embeddings']
    if kind == 'longrope':
        original = c['original_max_position_embeddings']
        fields['rope.scaling.original_context_length'] = original
        fields['rope.scaling.attn_factor'] = math.sqrt(1 + math.log(c['max_position_embeddings'] / original) / math.log(original))
    return {'general.architecture': architecture, **{f'{architecture}.{name}': value for name, value in fields.items()}, 'tokenizer.ggml.model': 'no_vocab'}


def in_llama(file, sequences):
    from llamacpp import Model
    model = Model(file, 256)
    sums = [model.nll(ids) for ids in sequences]
    model.close()
    return math.exp(sum(total for total, _ in sums) / sum(count for _, count in sums))


def in_engine(engine, model, tokens):
    done = subprocess.run([engine, 'perplexity', model, '--tokens-json', tokens, '--json'], capture_output=True, text=True)
    if done.returncode: return (done.stderr.strip() or f'status {done.returncode}').splitlines()[-1]
    return json.loads(done.stdout)['perplexity']


def main(work, shared, engine=None):
    sys.path.insert(0, shared + '/tools/llamacpp')
    os.makedirs(work, exist_ok=True)
    sequences = numpy.random.default_rng(0).integers(0, vocabulary, (6, length)).tolist()
    tokens, failures = work + '/tokens.json', 0
    with open(tokens, 'w') as out: json.dump(sequences, out)
    print(f'{"perplexity":20} {"numpy":>10}  differences: {"llama.cpp":>12} {"GGUF":>12} {"transformers":>12} {"version 5":>12}')

    for seed, (name, config, architecture, features) in enumerate(models):
        tensors, path = random_tensors(config, seed), work + '/' + name.replace(' ', '-').replace(',', '')
        expected = Forward(config, tensors).perplexity(sequences)
        written = {key: value for key, value in config.items() if key != 'head_dim' or value}
        write_transformers(path, written, tensors)
        write_transformers(path + '-5', as_transformers_5(written), tensors)
        results = []
        if architecture:
            write_gguf(path + '.gguf', gguf_fields(config, architecture), gguf_tensors(config, tensors))
            results.append((in_llama(path + '.gguf', sequences), gelu_limit if architecture.startswith('gemma') else limit))
            if engine: results.append((in_engine(engine, path + '.gguf', tokens), limit))
        if engine: results += [(in_engine(engine, directory, tokens), limit) for directory in (path, path + '-5')]
        shown = []
        for result, allowed in results:
            difference = math.inf if isinstance(result, str) else result / expected - 1
            failures += abs(difference) > allowed
            shown.append('refused' if isinstance(result, str) else f'{difference:.1e}')
        if not architecture: shown = ['', ''] + shown
        print(f'{name:20} {expected:10.4f} {"":13}' + ''.join(f' {value:>12}' for value in shown), flush=True)

        for result, _ in results:
            if isinstance(result, str): print(f'{name}: {result}', file=sys.stderr)
        for feature in features:
            without = Forward(config, tensors, [feature]).perplexity(sequences) / expected - 1
            if abs(without) < least_difference:
                print(f'{name}: {feature} makes a difference of {without:.1e} only', file=sys.stderr)
                failures += 1
    print(f'{failures} of them too large' if failures else 'all small enough')
    sys.exit(failures > 0)


main(*sys.argv[1:])
