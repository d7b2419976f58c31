"""What a model of transformers computes, by numpy in fp64 from its config.json and its tensors: a second implementation to compare with."""
import math

import numpy


def rms_norm(x, weight, epsilon):
    return x / numpy.sqrt((x * x).mean(-1, keepdims=True) + epsilon) * weight


def gelu(x):
    return 0.5 * x * (1 + numpy.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))


def silu(x):
    return x / (1 + numpy.exp(-x))


def softcap(x, cap):
    return x if not cap else cap * numpy.tanh(x / cap)


def softmax(x):
    e = numpy.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


class Forward:
    """config: that of the language model, as transformers writes it. Features that `without` names are left out, for tests of tests."""

    def __init__(self, config, tensors, without=()):
        self.c, self.w, self.without = config, {name: tensor.astype(numpy.float64) for name, tensor in tensors.items()}, without
        self.kind, self.heads = config['model_type'], config['num_attention_heads']
        self.kv_heads, self.layers = config.get('num_key_value_heads', self.heads), config['num_hidden_layers']
        self.head_dim = config.get('head_dim') or config['hidden_size'] // self.heads
        self.gemma = self.kind.startswith('gemma')

    def norm(self, x, name):
        return rms_norm(x, self.w[name + '.weight'] + (1 if self.gemma and 'offset' not in self.without else 0), self.c['rms_norm_eps'])

    def linear(self, x, name):
        y = x @ self.w[name + '.weight'].T
        return y + self.w[name + '.bias'] if name + '.bias' in self.w else y

    def window(self, layer):
        """How many tokens this layer attends to, or None."""
        c = self.c
        window = c.get('sliding_window')
        if not window or 'window' in self.without or not c.get('use_sliding_window', True): return None
        if 'layer_types' in c: return window if c['layer_types'][layer] == 'sliding_attention' else None
        if self.kind == 'gemma2': return None if layer % 2 else window
        if self.kind == 'gemma3_text': return None if (layer + 1) % c.get('sliding_window_pattern', 6) == 0 else window
        if self.kind in ('qwen2', 'qwen3'): return window if layer >= c['max_window_layers'] else None
        return window

    def rotations(self, layer, length):
        """Cosines and sines [length, dims / 2]."""
        c, dims = self.c, int(self.head_dim * self.c.get('partial_rotary_factor', 1))
        i, base, magnitude = numpy.arange(0, dims, 2), c.get('rope_theta', 10000.0), 1
        scaling = c.get('rope_scaling') or {}
        if self.kind == 'gemma3_text' and self.window(layer) and 'local base' not in self.without: base, scaling = c['rope_local_base_freq'], {}
        kind = 'default' if 'scaling' in self.without else scaling.get('rope_type', scaling.get('type', 'default'))
        frequencies = 1 / base ** (i / dims)
        if kind == 'linear':
            frequencies /= scaling['factor']
        elif kind == 'llama3':
            low, high, original = scaling['low_freq_factor'], scaling['high_freq_factor'], scaling['original_max_position_embeddings']
            turn = 2 * math.pi / frequencies
            smooth = (original / turn - low) / (high - low)
            between = (1 - smooth) * frequencies / scaling['factor'] + smooth * frequencies
            frequencies = numpy.where(turn > original / low, frequencies / scaling['factor'], numpy.where(turn < original / high, frequencies, between))
        elif kind == 'yarn':
            dimension = lambda turns: dims * math.log(scaling['original_max_position_embeddings'] / (turns * 2 * math.pi)) / (2 * math.log(base))
            low, high = max(math.floor(dimension(32)), 0), min(math.ceil(dimension(1)), dims - 1)
            ramp = numpy.clip((numpy.arange(dims // 2) - low) / max(high - low, 0.001), 0, 1)
            frequencies = frequencies / scaling['factor'] * ramp + frequencies * (1 - ramp)
            magnitude = 0.1 * math.log(scaling['factor']) + 1
        elif kind in ('longrope', 'su'):
            original = c['original_max_position_embeddings']
            frequencies /= numpy.array(scaling['long_factor' if length > original else 'short_factor'])
            magnitude = math.sqrt(1 + math.log(c['max_position_embeddings'] / original) / math.log(original))
        if 'magnitude' in self.without: magnitude = 1
        angles = numpy.arange(length)[:, None] * frequencies
        return numpy.cos(angles) * magnitude, numpy.sin(angles) * magnitude

    def rotated(self, x, cos, sin):
        """x [length, heads, head_dim]: coordinates i and i + dims / 2 of each head are a pair."""
        half = cos.shape[1]
        a, b, rest = x[..., :half], x[..., half:2 * half], x[..., 2 * half:]
        cos, sin = cos[:, None], sin[:, None]
        return numpy.concatenate([a * cos - b * sin, b * cos + a * sin, rest], -1)

    def attention(self, x, layer):
        c, name, length = self.c, f'model.layers.{layer}.self_attn.', len(x)
        if name + 'qkv_proj.weight' in self.w:
            q, k, v = numpy.split(self.linear(x, name + 'qkv_proj'), [self.heads * self.head_dim, (self.heads + self.kv_heads) * self.head_dim], 1)
        else:
            q, k, v = (self.linear(x, name + part + '_proj') for part in 'qkv')
        q, k, v = (part.reshape(length, -1, self.head_dim) for part in (q, k, v))
        if name + 'q_norm.weight' in self.w: q, k = self.norm(q, name + 'q_norm'), self.norm(k, name + 'k_norm')
        cos, sin = self.rotations(layer, length)
        q, k = self.rotated(q, cos, sin), self.rotated(k, cos, sin)
        k, v = (numpy.repeat(part, self.heads // self.kv_heads, 1) for part in (k, v))
        scale = (c['query_pre_attn_scalar'] if 'query_pre_attn_scalar' in c and 'scale' not in self.without else self.head_dim) ** -0.5
        scores = softcap(numpy.einsum('qhd,khd->hqk', q, k) * scale, 'attention cap' not in self.without and c.get('attn_logit_softcapping'))
        distance = numpy.arange(length)[:, None] - numpy.arange(length)
        window = self.window(layer)
        scores = numpy.where((distance >= 0) & (distance < (window or length)), scores, -numpy.inf)
        return self.linear(numpy.einsum('hqk,khd->qhd', softmax(scores), v).reshape(length, -1), name + 'o_proj')

    def mlp(self, x, layer):
        name = f'model.layers.{layer}.mlp.'
        if name + 'gate_up_proj.weight' in self.w: gate, up = numpy.split(self.linear(x, name + 'gate_up_proj'), 2, 1)
        else: gate, up = self.linear(x, name + 'gate_proj'), self.linear(x, name + 'up_proj')
        return self.linear((gelu if self.gemma else silu)(gate) * up, name + 'down_proj')

    def logits(self, ids):
        c, name = self.c, 'model.layers.{}.{}'.format
        x = self.w['model.embed_tokens.weight'][ids]
        if self.gemma and 'embedding scale' not in self.without: x = x * math.sqrt(c['hidden_size'])
        for l in range(self.layers):
            a = self.attention(self.norm(x, name(l, 'input_layernorm')), l)
            if self.kind in ('gemma2', 'gemma3_text'):
                x = x + self.norm(a, name(l, 'post_attention_layernorm'))
                x = x + self.norm(self.mlp(self.norm(x, name(l, 'pre_feedforward_layernorm')), l), name(l, 'post_feedforward_layernorm'))
            else:
                x = x + a
                x = x + self.mlp(self.norm(x, name(l, 'post_attention_layernorm')), l)
        head = self.w.get('lm_head.weight', self.w['model.embed_tokens.weight'])
        return softcap(self.norm(x, 'model.norm') @ head.T, 'logit cap' not in self.without and c.get('final_logit_softcapping'))

    def perplexity(self, sequences):
        total = count = 0
        for ids in sequences:
            p = softmax(self.logits(ids[:-1]))
            total -= numpy.log(p[numpy.arange(len(ids) - 1), ids[1:]]).sum()
            count += len(ids) - 1
        return math.exp(total / count)
