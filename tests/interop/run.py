#!/usr/bin/python3
"""run.py TOOLS WORK SHARED: GGUF files of cafeq-quantize in a real llama.cpp, beside the example engine on the same weights.

TOOLS: a directory with cafeq-quantize, engine and interop-models. WORK: where everything goes, result.json too. SHARED: data, and the checker of
llama.cpp, which finds its libraries through LLAMA_BINS. Prints tables; exit status 1 where an expectation fails."""
import json
import os
import subprocess
import sys

import llama2c
import tokenizers

tools, work, shared = sys.argv[1:4]
data = shared + '/data/'
stories, tokenizer, texts = data + 'stories260K.bin', data + 'tok512.bin', data + 'tinystories_200.jsonl'
checker = shared + '/tools/llamacpp'
sys.path.insert(0, checker)

simple_types = ['Q8_0', 'Q5_1', 'Q5_0', 'Q4_1', 'Q4_0', 'IQ4_NL']
k_types = ['Q6_K', 'Q5_K', 'Q4_K', 'Q3_K', 'Q2_K', 'IQ4_XS']
tolerance = {'F32': 1e-5, 'F16': 1e-4, 'BF16': 1e-3}  # relative, of perplexities; llama.cpp rounds what BF16 weights meet to bf16, what blocks meet to 8 bits
tolerance_of_blocks = 3e-3

result = {'expectations': [], 'perplexity': [], 'error': [], 'pairs': []}


def expect(what, ok, **numbers):
    result['expectations'].append(dict(what=what, ok=bool(ok), **numbers))
    if not ok: print('FAILED:', what, numbers, file=sys.stderr)


def run(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode: sys.exit(f'{" ".join(map(str, command))}: status {done.returncode}\n{done.stdout}{done.stderr}')
    return done.stdout


def path(name):
    return os.path.join(work, name)


def quantize(model, output, *options):
    run(tools + '/cafeq-quantize', model, path(output), '--overwrite', '--metric', 'none', *options)
    return path(output)


def in_llama(file, tokens):
    return json.loads(run('/usr/bin/python3', checker + '/check.py', file, '--tokens', tokens, '--max-pred', 10**9))['ppl']


def in_engine(model, tokens):
    return json.loads(run(tools + '/engine', 'perplexity', model, '--tokens-json', tokens, '--json'))['perplexity']


def read_back(file):
    run(tools + '/interop-models', 'read-back', file, path('read-back.bin'))
    return path('read-back.bin')


def compare(name, file, tokens, weights=None, limit=tolerance_of_blocks):
    """Perplexity in llama.cpp and in the engine on the same weights: those of the file, unless it is said where they are."""
    ours, theirs = in_engine(weights or read_back(file), tokens), in_llama(file, tokens)
    difference = theirs / ours - 1
    expect(f'{name}: llama.cpp and the engine have the same perplexity', abs(difference) <= limit, llama=theirs, engine=ours, limit=limit)
    result['perplexity'].append(dict(model=name, bytes=os.path.getsize(file), llama=theirs, engine=ours, difference=difference))
    return theirs


def sample_texts(file, output, count=40, length=250, seed=0):
    """What a model itself would write, drawn in llama.cpp."""
    import numpy
    from llamacpp import Model
    model, random, all_texts = Model(file), numpy.random.default_rng(seed), []
    for _ in range(count):
        model.clear()
        text = [1]
        while len(text) < length:
            logits = model.decode(text[-1:], len(text) - 1, True).astype(numpy.float64)
            sums = numpy.exp(logits - logits.max()).cumsum()
            text.append(int(numpy.searchsorted(sums, random.random() * sums[-1])))
        all_texts.append(text)
    model.close()
    with open(output, 'w') as out: json.dump(all_texts, out)


def tokenize_in_llama(file, lines):
    from llamacpp import Model
    model = Model(file)
    tokens = [model.tokenize(line) for line in lines]
    model.close()
    return tokens


def check_stories():
    """The checkpoint of llama2.c, in all types that its rows of 64 allow."""
    tokens = path('stories.json')
    run(tools + '/engine', 'perplexity', stories, '--tokenizer', tokenizer, '--text', texts, '--texts', 58, '--length', 512, '--tokens-json', tokens)
    for kind in ['F32', 'F16'] + simple_types:
        file = quantize(stories, 'model.gguf', '--format', 'gguf:' + kind, '--tokenizer', tokenizer)
        compare('stories260K ' + kind, file, tokens, stories if kind == 'F32' else None, tolerance.get(kind, tolerance_of_blocks))
        if kind != 'F32': continue
        lines = [json.loads(line) for line in open(texts)][:58]
        expect('stories260K: llama.cpp cuts texts into the same tokens', [t[:512] for t in tokenize_in_llama(file, lines)] == json.load(open(tokens)))
    for name, options in [('Q4_0, embeddings too', ['--format', 'gguf:Q4_0', '--embeddings']), ('mixed, 8 bits', ['--format', 'gguf:Q4_0', '--target-bits', 8]),
                          ('Q4_K, which rows are too short for', ['--format', 'gguf:Q4_K'])]:
        compare('stories260K ' + name, quantize(stories, 'model.gguf', *options), tokens)
    again = quantize(quantize(stories, 'floats.gguf', '--format', 'gguf:F32'), 'model.gguf', '--format', 'gguf:Q4_0')
    compare('stories260K GGUF to GGUF, Q4_0', again, tokens)
    return tokens


def check_generated():
    """A model whose rows are multiples of 256, in the layouts of llama2.c and of transformers."""
    model, tokens = path('generated.bin'), path('generated.json')
    run(tools + '/interop-models', 'generate', model, '--seed', 1)
    run(tools + '/interop-models', 'hugging-face', model, path('hugging-face'))
    sample_texts(quantize(model, 'model.gguf', '--format', 'gguf:F32'), tokens)
    for kind in ['F32', 'F16'] + k_types + ['IQ4_NL', 'Q5_1', 'Q5_0']:
        file = quantize(model, 'model.gguf', '--format', 'gguf:' + kind)
        one = compare('generated ' + kind, file, tokens, model if kind == 'F32' else None, tolerance.get(kind, tolerance_of_blocks))
        two = in_llama(quantize(path('hugging-face'), 'other.gguf', '--format', 'gguf:' + kind), tokens)
        expect(f'generated {kind}: both layouts have the same perplexity', one == two, llama2c=one, transformers=two)
    compare('generated mixed, 4 bits', quantize(model, 'model.gguf', '--format', 'gguf:Q4_K', '--target-bits', 4), tokens)

    def other(name, config, *options):
        run(tools + '/interop-models', 'hugging-face', model, path('other'), '--config', json.dumps(config), *options)
        return quantize(path('other'), 'model.gguf', '--format', 'gguf:F32')
    scaling = dict(rope_type='llama3', factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=128)
    compare('generated F32, rotations slowed down', other('llama3', dict(rope_scaling=scaling)), tokens, path('other'), tolerance['F32'])
    compare('generated BF16', other('bf16', {}, '--bf16'), tokens, path('other'), tolerance['BF16'])
    compare('generated F32 as Qwen2', other('qwen2', dict(model_type='qwen2')), tokens, model, tolerance['F32'])
    return model


def check_errors(name, model, kinds):
    """‖W − Ŵ‖² / ‖W‖² of all matrices that fit a type, by this library and by llama.cpp's own quantizer."""
    before = llama2c.matrices(model)
    for kind in kinds:
        after = llama2c.matrices(read_back(quantize(model, 'model.gguf', '--format', 'gguf:' + kind, '--no-pairs')))
        ours = llama2c.error(before, after, kind)
        theirs = llama2c.error(before, {key: llama2c.round_trip(W, kind) for key, W in before.items() if llama2c.fits(W, kind)}, kind)
        expect(f'{name} {kind}: the error is below that of llama.cpp', ours < theirs, ours=ours, llama=theirs)
        result['error'].append(dict(model=name, type=kind, ours=ours, llama=theirs, ratio=ours / theirs))


def check_pairs(tokens):
    """Perplexity with value and output projections transformed against each other, and without."""
    import numpy
    reference = in_llama(quantize(stories, 'model.gguf', '--format', 'gguf:F32'), tokens)
    for kind in simple_types:
        row = dict(type=kind, off=in_llama(quantize(stories, 'model.gguf', '--format', 'gguf:' + kind, '--no-pairs'), tokens))
        for recipe in ['fast', 'learned']:
            files = (quantize(stories, 'model.gguf', '--format', 'gguf:' + kind, '--recipe', recipe, '--seed', seed) for seed in range(3))
            row[recipe] = [in_llama(file, tokens) for file in files]
        result['pairs'].append(row)
    for recipe in ['fast', 'learned']:
        on, off = (numpy.mean([numpy.log(numpy.mean(row[key]) / reference) for row in result['pairs']]) for key in [recipe, 'off'])
        expect(f'pairs, {recipe}: perplexity is no higher with them, on average over types and seeds', on <= off, on=on, off=off)


def check_tokenizers():
    """tokenizer.json of several kinds, in llama.cpp and in the engine."""
    model, lines = path('generated.bin'), [json.loads(line) for line in open(texts)][:58]
    for name, content in tokenizers.kinds(tokenizer, lines):
        run(tools + '/interop-models', 'hugging-face', model, path('other'))
        with open(path('other/tokenizer.json'), 'w') as out: json.dump(content, out)
        file = quantize(path('other'), 'model.gguf', '--format', 'gguf:Q4_0')
        run(tools + '/engine', 'perplexity', path('other'), '--text', texts, '--texts', 58, '--length', 256, '--tokens-json', path('tokens.json'))
        same = [t[:256] for t in tokenize_in_llama(file, lines)] == json.load(open(path('tokens.json')))
        expect(f'tokenizer {name}: llama.cpp cuts texts into the same tokens', same)
        os.remove(path('other/tokenizer.json'))


def print_tables():
    print(f'\n{"model":44} {"bytes":>9} {"llama.cpp":>10} {"engine":>10} {"difference":>10}')
    for row in result['perplexity']: print(f'{row["model"]:44} {row["bytes"]:9} {row["llama"]:10.5f} {row["engine"]:10.5f} {row["difference"]:10.1e}')
    print(f'\n{"error":44} {"cafeq":>10} {"llama.cpp":>10} {"ratio":>7}')
    for row in result['error']: print(f'{row["model"] + " " + row["type"]:44} {row["ours"]:10.3e} {row["llama"]:10.3e} {row["ratio"]:7.3f}')
    print(f'\n{"perplexity of stories260K":26} {"no pairs":>9}   {"fast, pairs, 3 seeds":29}   learned, pairs, 3 seeds')
    for row in result['pairs']:
        seeds = '   '.join(' '.join(f'{value:9.5f}' for value in row[recipe]) for recipe in ['fast', 'learned'])
        print(f'{row["type"]:26} {row["off"]:9.5f}   {seeds}')


story_tokens = check_stories()
generated = check_generated()
check_tokenizers()
check_errors('stories260K', stories, simple_types)
check_errors('generated', generated, simple_types + k_types)
check_pairs(story_tokens)
print_tables()
failed = sum(not expectation['ok'] for expectation in result['expectations'])
with open(path('result.json'), 'w') as out: json.dump(result, out, indent=1)
print(f'\n{len(result["expectations"]) - failed} of {len(result["expectations"])} expectations hold; {path("result.json")} has all numbers')
sys.exit(failed > 0)
